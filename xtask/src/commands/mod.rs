//! One file per command: gather -> plan -> execute -> report.

pub mod bench;
pub mod build_image;
pub mod ci;
pub mod completions;
pub mod config;
pub mod db;
pub mod deploy;
pub mod doctor;
pub mod down;
pub mod e2e;
pub mod gc;
pub mod google_login;
pub mod infra;
pub mod lock;
pub mod logs;
pub mod open;
pub mod push_layout;
pub mod render;
pub mod rollback;
#[cfg(target_os = "linux")]
pub mod sandbox;
pub mod smoke;
pub mod status;
pub mod test;
#[cfg(target_os = "linux")]
pub mod testbed;
pub mod token;
pub mod verify_image;

use std::process::ExitCode;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::cli::{Cli, Command};
use crate::error::{Context as _, Error, Kind, Result};
use crate::report::Report;
use crate::ui::Ui;

/// How long a command may tidy up after Ctrl-C before it is dropped.
const TIDY_UP: Duration = Duration::from_secs(20);

/// The same, where something far away is told what happened before this machine may forget it.
const TIDY_UP_FAR_AWAY: Duration = Duration::from_secs(320);

/// What every command gets.
#[derive(Clone)]
pub struct Run {
    /// The terminal.
    pub ui: Ui,
    /// Cancelled by Ctrl-C or SIGTERM. A command that must tidy up waits for it; any other is
    /// simply dropped.
    pub cancel: CancellationToken,
    /// Nothing may be downloaded.
    pub offline: bool,
}

impl Run {
    /// Prints a command's answer.
    pub fn answer(&self, report: &impl Report) -> Result<ExitCode> {
        match self.ui.result(report) {
            // The reader of a pipe may have seen enough.
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {}
            written => written.on_machine(|| "cannot write to stdout")?,
        }
        Ok(ExitCode::SUCCESS)
    }

    /// The error of a command that was interrupted and has tidied up.
    pub fn interrupted() -> Error {
        Error::new(Kind::Interrupted, "interrupted")
            .hint("run the same command again: it carries on where this one stopped")
    }
}

/// Runs a command to its exit code.
pub fn run(cli: Cli, ui: &Ui) -> Result<ExitCode> {
    let run = Run { ui: ui.clone(), cancel: CancellationToken::new(), offline: cli.offline };
    match cli.command {
        Command::BuildImage(args) => block_on(&run, build_image::run(args, &run)),
        Command::Doctor(args) => block_on(&run, doctor::run(args, &run)),
        Command::GoogleLogin(args) => block_on(&run, google_login::run(args)),
        Command::Deploy(args) => block_on(&run, deploy::run(args, &run)),
        Command::Db(args) => block_on(&run, db::run(args, &run)),
        Command::Gc(args) => block_on(&run, gc::run(args, &run)),
        Command::Smoke(args) => block_on(&run, smoke::run(args, &run)),
        Command::Status(args) => block_on(&run, status::run(args, &run)),
        Command::Rollback(args) => block_on(&run, rollback::run(args, &run)),
        Command::Logs(args) if args.follow => until_stopped(&run, logs::run(args, &run)),
        Command::Logs(args) => block_on(&run, logs::run(args, &run)),
        Command::Open(args) => until_stopped(&run, open::run(args, &run)),
        Command::Down(args) => block_on(&run, down::run(args, &run)),
        Command::Token(args) => block_on(&run, token::run(args, &run)),
        Command::Lock(args) => block_on(&run, lock::run(args, &run)),
        Command::PushLayout(args) => block_on(&run, push_layout::run(args, &run)),
        Command::VerifyImage(args) => block_on(&run, verify_image::run(args, &run)),
        Command::Bench(args) => block_on(&run, bench::run(args, &run)),
        Command::Infra(args) => patiently(&run, infra::run(args, &run)),
        Command::Config(args) => config::run(args, &run),
        Command::Render(args) => block_on(&run, render::run(args, &run)),
        Command::Test(args) => test::run(args, &run),
        Command::E2e(args) => e2e::run(args, &run),
        Command::Ci(args) => ci::run(args, &run),
        Command::Completions(args) => completions::run(args),
        #[cfg(target_os = "linux")]
        Command::Testbed(args) => match testbed::node(&args) {
            Some(code) => Ok(code),
            None => block_on(&run, testbed::run(args, &run)),
        },
        #[cfg(target_os = "linux")]
        Command::Sandbox(args) => sandbox::run(args),
    }
}

fn block_on(run: &Run, command: impl Future<Output = Result<ExitCode>>) -> Result<ExitCode> {
    drive(run, TIDY_UP, command, |_| Err(Run::interrupted()))
}

/// For commands that write down far away what they have done, and must come to that after Ctrl-C.
fn patiently(run: &Run, command: impl Future<Output = Result<ExitCode>>) -> Result<ExitCode> {
    drive(run, TIDY_UP_FAR_AWAY, command, |_| Err(Run::interrupted()))
}

/// For commands that go on until they are interrupted, which is no failure of theirs.
fn until_stopped(run: &Run, command: impl Future<Output = Result<ExitCode>>) -> Result<ExitCode> {
    drive(run, TIDY_UP, command, Ok)
}

fn drive(
    run: &Run,
    tidy_up: Duration,
    command: impl Future<Output = Result<ExitCode>>,
    interrupted: fn(ExitCode) -> Result<ExitCode>,
) -> Result<ExitCode> {
    // rustls has no default provider in this build: ring is the only one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .on_machine(|| "cannot start the async runtime")?;
    let result = runtime.block_on(async {
        tokio::pin!(command);
        tokio::select! {
            result = &mut command => return result,
            () = signal() => run.cancel.cancel(),
        }
        tokio::select! {
            result = &mut command => result.and_then(interrupted),
            () = signal() => Err(Run::interrupted()),
            () = tokio::time::sleep(tidy_up) => Err(Run::interrupted()),
        }
    });
    // Blocking work (hashing, compressing) is not waited for after an interruption.
    runtime.shutdown_background();
    result
}

/// Ctrl-C or SIGTERM.
async fn signal() {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut terminate) = signal(SignalKind::terminate()) else { return std::future::pending().await };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
}
