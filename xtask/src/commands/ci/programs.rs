//! The programs of the testbed, built while everything else is compiled and tested: on a fresh machine they
//! take minutes of both CPUs, and tests wait for other things half of their time.

use std::process::Child;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::install;
use crate::commands::Run;
use crate::error::{Context as _, Result};
use crate::process::Program;

/// A build under way; dropped before its end, it is stopped.
pub struct Programs(Option<Child>);

impl Programs {
    /// Begins, with a low priority, but not so low that a test waits for ever for a program. Nothing is done without a Go: the tests say that it is missing.
    ///
    /// # Errors
    /// `Machine` where it cannot be started.
    pub fn begin() -> Result<Self> {
        if !install::has_recent_go() {
            return Ok(Self(None));
        }
        let this = std::env::current_exe().on_machine(|| "cannot find this program")?;
        let nice = Program::new("nice").args(["-n", "10"]).arg(this).args(["testbed", "build", "--quiet"]);
        let mut command = nice.into_std()?;
        command.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::null());
        Ok(Self(Some(command.spawn().on_machine(|| "cannot start the build of the testbed's programs")?)))
    }

    /// Waits for its end. What fails is told; whoever needs the programs builds them, or fails with the cause.
    pub fn end(mut self, run: &Run) {
        let Some(mut child) = self.0.take() else { return };
        run.ui.step("Waiting", "for the testbed's programs");
        if !child.wait().is_ok_and(|status| status.success()) {
            run.ui.warn("the testbed's programs were not built beside the tests");
        }
    }
}

impl Drop for Programs {
    fn drop(&mut self) {
        let Some(child) = &mut self.0 else { return };
        // Not SIGKILL: it ends its compilers first.
        let pid = i32::try_from(child.id()).ok();
        let _ = pid.map(|pid| kill(Pid::from_raw(pid), Signal::SIGTERM));
        let _ = child.wait();
    }
}
