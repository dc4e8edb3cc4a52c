//! The components as children of process 1: started, stopped, reaped, and started again when they
//! end without having been told to.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::Pid;

use crate::cluster::components::Component;
use crate::cluster::control::{ComponentStatus, How};
use crate::cluster::error::{Context as _, Result};

use super::Spec;

/// How long a component may take to end in order.
const GRACE: Duration = Duration::from_secs(15);
/// How long the kernel may take to end a killed one.
const KILL: Duration = Duration::from_secs(10);
/// The pause before a component that ended by itself is started again.
const PAUSE: Duration = Duration::from_secs(1);

pub(super) struct Components {
    root: PathBuf,
    env: Vec<(String, String)>,
    state: Mutex<BTreeMap<String, State>>,
    ended: Condvar,
}

struct State {
    component: Component,
    pid: Option<Pid>,
    wanted: bool,
    crashes: u32,
    end: Option<String>,
}

impl Components {
    pub(super) fn new(spec: Spec, root: &Path) -> Self {
        let path = std::env::join_paths(&spec.path).unwrap_or_default();
        let env = [("PATH", path.to_string_lossy().into_owned()), ("HOME", root.display().to_string())]
            .map(|(name, value)| (name.to_owned(), value))
            .to_vec();
        let state = |component: Component| {
            let state = State { component, pid: None, wanted: false, crashes: 0, end: None };
            (state.component.name.clone(), state)
        };
        let state = Mutex::new(spec.components.into_iter().map(state).collect());
        Self { root: root.to_owned(), env, state, ended: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, State>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a component; one that runs already is left alone.
    pub(super) fn start(&self, name: &str) -> Result<(), String> {
        let mut all = self.lock();
        let state = find(&mut all, name)?;
        state.wanted = true;
        if state.pid.is_none() {
            self.spawn(state)?;
        }
        Ok(())
    }

    /// Called with the lock held: the reaper must not meet a child that is not written down yet.
    fn spawn(&self, state: &mut State) -> Result<(), String> {
        let component = &state.component;
        let named = |error: &dyn std::fmt::Display| format!("cannot start {}: {error}", component.name);
        let log = self.root.join("logs").join(format!("{}.log", component.name));
        let out = File::options().create(true).append(true).open(log).map_err(|error| named(&error))?;
        let err = out.try_clone().map_err(|error| named(&error))?;
        let mut words = component.argv.iter();
        let program = words.next().ok_or_else(|| named(&"it has no program"))?;
        let mut command = crate::tool::command(program);
        command
            .args(words)
            .env_clear()
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .current_dir(&self.root);
        command.stdin(Stdio::null()).stdout(out).stderr(err).process_group(0);
        if let Some((user, group)) = component.user {
            command.uid(user).gid(group);
        }
        let child = command.spawn().map_err(|error| named(&error))?;
        state.pid = i32::try_from(child.id()).ok().map(Pid::from_raw);
        Ok(())
    }

    /// Stops a component and waits until it is gone.
    pub(super) fn stop(&self, name: &str, how: How) -> Result<(), String> {
        let mut all = self.lock();
        let state = find(&mut all, name)?;
        state.wanted = false;
        let in_order = Signal::try_from(state.component.stop).unwrap_or(Signal::SIGTERM);
        let tries = match how {
            How::Order => vec![(in_order, GRACE), (Signal::SIGKILL, KILL)],
            How::Kill => vec![(Signal::SIGKILL, KILL)],
        };
        for (signal, patience) in tries {
            let Some(pid) = find(&mut all, name)?.pid else { return Ok(()) };
            // It may have ended meanwhile.
            let _ = kill(pid, signal);
            let deadline = Instant::now() + patience;
            while find(&mut all, name)?.pid.is_some() {
                let left = deadline.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    break;
                }
                all = self.ended.wait_timeout(all, left).unwrap_or_else(PoisonError::into_inner).0;
            }
        }
        match find(&mut all, name)?.pid {
            None => Ok(()),
            Some(pid) => Err(format!("{name} (process {pid} in the node) does not end")),
        }
    }

    pub(super) fn status(&self) -> Vec<ComponentStatus> {
        let status = |state: &State| ComponentStatus {
            name: state.component.name.clone(),
            pid: state.pid.map(Pid::as_raw),
            wanted: state.wanted,
            crashes: state.crashes,
            ended: state.end.clone(),
        };
        self.lock().values().map(status).collect()
    }

    /// Reaps for ever: the components, and whatever they leave behind.
    pub(super) fn reap(self: &Arc<Self>) -> Result<()> {
        loop {
            // Look first, and reap with the lock held: `spawn` reaps a child whose exec failed.
            match waitid(Id::All, WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT) {
                Ok(_) => {}
                Err(Errno::ECHILD | Errno::EINTR) => {
                    std::thread::sleep(Duration::from_millis(20));
                    continue;
                }
                Err(error) => return Err(error).on_machine(|| "cannot wait for children"),
            }
            let mut all = self.lock();
            while let Ok(status) = waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                let (pid, end) = match status {
                    WaitStatus::Exited(pid, code) => (pid, format!("exit code {code}")),
                    WaitStatus::Signaled(pid, signal, _) => (pid, signal.to_string()),
                    WaitStatus::StillAlive => break,
                    _ => continue,
                };
                let Some(state) = all.values_mut().find(|state| state.pid == Some(pid)) else { continue };
                state.pid = None;
                state.end = Some(end);
                if state.wanted {
                    state.crashes += 1;
                    self.start_again(state.component.name.clone());
                }
            }
            drop(all);
            self.ended.notify_all();
        }
    }

    fn start_again(self: &Arc<Self>, name: String) {
        let this = self.clone();
        std::thread::spawn(move || {
            std::thread::sleep(PAUSE);
            let mut all = this.lock();
            let Ok(state) = find(&mut all, &name) else { return };
            if state.wanted
                && state.pid.is_none()
                && let Err(error) = this.spawn(state)
            {
                state.end = Some(error);
            }
        });
    }
}

fn find<'a>(all: &'a mut BTreeMap<String, State>, name: &str) -> Result<&'a mut State, String> {
    let known = all.keys().cloned().collect::<Vec<_>>().join(", ");
    all.get_mut(name).ok_or_else(|| format!("the testbed has no component {name:?}; it has {known}"))
}
