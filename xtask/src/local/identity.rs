//! Which process: an id alone may belong to a stranger by tomorrow.

use serde::{Deserialize, Serialize};

/// A process id with what tells it from a later process of the same id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The process id.
    pub pid: i32,
    /// When it started, in clock ticks since boot (proc_pid_stat(5), field 22).
    pub start: u64,
    /// Which boot.
    pub boot: String,
}

#[cfg(target_os = "linux")]
mod linux {
    use std::os::fd::OwnedFd;

    use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

    use super::Identity;

    impl Identity {
        /// The identity of a process that exists, `None` when it does not or has ended.
        pub fn of(pid: i32) -> Option<Self> {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            let (state, start) = parse_stat(&stat)?;
            let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
            (!matches!(state, 'Z' | 'X')).then(|| Self { pid, start, boot: boot.trim().to_owned() })
        }

        /// This process.
        pub fn own() -> Option<Self> {
            Self::of(i32::try_from(std::process::id()).ok()?)
        }

        /// Whether this very process still runs.
        pub fn is_alive(&self) -> bool {
            Self::of(self.pid).as_ref() == Some(self)
        }

        /// A handle that keeps meaning this process, even when its id is given to another one.
        pub fn open(&self) -> Option<Handle> {
            let fd = pidfd_open(Pid::from_raw(self.pid)?, PidfdFlags::empty()).ok()?;
            // Checked after opening: from here on the handle cannot change its meaning.
            self.is_alive().then_some(Handle(fd))
        }
    }

    /// An open process.
    pub struct Handle(OwnedFd);

    impl Handle {
        /// Asks it to end.
        pub fn terminate(&self) -> std::io::Result<()> {
            Ok(pidfd_send_signal(&self.0, Signal::TERM)?)
        }

        /// Ends it.
        pub fn kill(&self) -> std::io::Result<()> {
            Ok(pidfd_send_signal(&self.0, Signal::KILL)?)
        }
    }

    /// State and start time. The name in field 2 may hold spaces and parentheses.
    pub(super) fn parse_stat(stat: &str) -> Option<(char, u64)> {
        let mut fields = stat.get(stat.rfind(')')? + 1..)?.split_ascii_whitespace();
        let state = fields.next()?.chars().next()?;
        Some((state, fields.nth(18)?.parse().ok()?))
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn field_22_is_found_behind_any_name() {
        let rest = "S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711 20";
        for name in ["a", "a b", "a) S (b", ")"] {
            assert_eq!(linux::parse_stat(&format!("12 ({name}) {rest}")), Some(('S', 4711)), "{name}");
        }
        assert_eq!(linux::parse_stat("garbage"), None);
        assert_eq!(linux::parse_stat("1 (a) S 2"), None);
    }

    #[test]
    fn a_process_of_the_same_id_and_another_start_is_a_stranger() {
        let own = Identity::own().unwrap();
        assert!(own.is_alive() && own.open().is_some());
        let stranger = Identity { start: own.start + 1, ..own.clone() };
        assert!(!stranger.is_alive() && stranger.open().is_none());
        assert!(!Identity { boot: "another".to_owned(), ..own }.is_alive());
    }
}
