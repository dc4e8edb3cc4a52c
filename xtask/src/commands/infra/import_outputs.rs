//! `infra import-outputs`: outputs of an infrastructure that something else made.

use std::io::Read as _;
use std::path::PathBuf;
use std::process::ExitCode;

use super::outputs::Answer;
use crate::commands::Run;
use crate::config::Config;
use crate::error::{Context as _, Error, Kind, Result};
use crate::outputs::{self, Outputs};

/// Note what you have made yourself, for deploy
///
/// The file holds the object that `infra outputs --json` prints as `outputs`, or that object in the
/// form of `terraform output -json`, as output `contract`.
#[derive(clap::Args)]
pub struct Args {
    /// The environment in deploy.toml.
    #[arg(long)]
    env: String,
    /// The file; - for stdin.
    file: PathBuf,
}

pub fn run(args: Args, run: &Run) -> Result<ExitCode> {
    let config = Config::load(&args.env)?;
    let infra = config.infra()?;
    let (text, name) = match args.file.as_os_str() == "-" {
        true => {
            let mut text = Vec::new();
            std::io::stdin().read_to_end(&mut text).on_machine(|| "cannot read stdin")?;
            (text, "stdin".to_owned())
        }
        false => {
            let name = args.file.display().to_string();
            (std::fs::read(&args.file).context(Kind::Input, || format!("cannot read {name}"))?, name)
        }
    };
    let found = Outputs::parse(&unwrapped(text), &name)?;
    if found.project != infra.project {
        let message = format!("{name} is about project {}, and deploy.toml names {}", found.project, infra.project);
        return Err(Error::new(Kind::Input, message)
            .hint(format!("correct project in [environment.{}.infra], or name the other file", args.env)));
    }
    outputs::write(&config.root, &config.env, &found)?;
    run.answer(&Answer { env: config.env, outputs: found })
}

/// The contract out of what our own and terraform's commands print.
fn unwrapped(text: Vec<u8>) -> Vec<u8> {
    let Ok(value) = serde_json::from_slice::<serde_json::Value>(&text) else { return text };
    let inner = ["/outputs", "/contract/value"].iter().find_map(|path| value.pointer(path));
    inner.map_or(text, |inner| inner.to_string().into_bytes())
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_contract_is_found_in_its_wrappings() {
        for (text, expected) in [
            (r#"{"version":1}"#, r#"{"version":1}"#),
            (r#"{"env":"e","outputs":{"version":1}}"#, r#"{"version":1}"#),
            (r#"{"contract":{"sensitive":false,"value":{"version":1}}}"#, r#"{"version":1}"#),
            ("nonsense", "nonsense"),
        ] {
            assert_eq!(String::from_utf8(super::unwrapped(text.into())).unwrap(), expected);
        }
    }
}
