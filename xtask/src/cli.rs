//! The command line: global flags and the list of commands. Each command's own arguments are in
//! its file below [`crate::commands`].

use clap::{Args, Parser, Subcommand};

use crate::commands;

/// Runs an MLflow tracking server: build its image, deploy it, prove that it works.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version, max_term_width = 100)]
pub struct Cli {
    #[command(flatten)]
    pub output: OutputArgs,
    /// Use only what is in the caches; download nothing.
    #[arg(long, global = true, env = "XTASK_OFFLINE", value_parser = clap::builder::BoolishValueParser::new())]
    pub offline: bool,
    #[command(subcommand)]
    pub command: Command,
}

/// How the command speaks.
#[derive(Args, Clone, Debug, Default)]
pub struct OutputArgs {
    /// Print the answer as JSON on stdout.
    #[arg(long, global = true)]
    pub json: bool,
    /// Print no progress, only the answer, warnings and errors.
    #[arg(long, short, global = true)]
    pub quiet: bool,
}

#[derive(Subcommand)]
pub enum Command {
    BuildImage(commands::build_image::Args),
    PushLayout(commands::push_layout::Args),
    VerifyImage(commands::verify_image::Args),
    Doctor(commands::doctor::Args),
    Deploy(commands::deploy::Args),
    Smoke(commands::smoke::Args),
    Status(commands::status::Args),
    Rollback(commands::rollback::Args),
    Db(commands::db::Args),
    Gc(commands::gc::Args),
    Logs(commands::logs::Args),
    Open(commands::open::Args),
    Down(commands::down::Args),
    Token(commands::token::Args),
    Infra(commands::infra::Args),
    Config(commands::config::Args),
    Render(commands::render::Args),
    Lock(commands::lock::Args),
    Test(commands::test::Args),
    E2e(commands::e2e::Args),
    Ci(commands::ci::Args),
    Bench(commands::bench::Args),
    Completions(commands::completions::Args),
    #[command(hide = true)]
    GoogleLogin(commands::google_login::Args),
    #[cfg(target_os = "linux")]
    Testbed(commands::testbed::Args),
    #[cfg(target_os = "linux")]
    #[command(hide = true)]
    Sandbox(commands::sandbox::Args),
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_well_formed() {
        super::Cli::command().debug_assert();
    }
}
