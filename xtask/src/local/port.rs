//! Which loopback port, and who has it.

use std::net::{Ipv4Addr, TcpListener};

use crate::error::{Error, Kind, Result};

/// Where the search for a free port begins: MLflow's own default.
const FIRST: u16 = 5000;
/// How many are tried.
const TRIES: u16 = 200;

/// Chooses the port: the one `asked` for must be free, else the `last` one if it is, else the
/// first free one. `own` is what the server to be replaced has: it will be free.
pub fn choose(asked: Option<u16>, last: Option<u16>, own: Option<u16>, is_free: impl Fn(u16) -> bool) -> Result<u16> {
    let usable = |port: u16| own == Some(port) || is_free(port);
    if let Some(port) = asked {
        if port == 0 || !usable(port) {
            return Err(taken(port));
        }
        return Ok(port);
    }
    last.into_iter()
        .chain(FIRST..FIRST + TRIES)
        .find(|port| usable(*port))
        .ok_or_else(|| Error::new(Kind::Machine, format!("no port from {FIRST} to {} is free", FIRST + TRIES - 1)))
}

/// Whether a server could listen on `port`.
pub fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

fn taken(port: u16) -> Error {
    let holder = holder(port).map(|name| format!(" by {name}")).unwrap_or_default();
    Error::new(Kind::Machine, format!("port {port} is taken{holder}"))
        .hint("give another one with --port, or none: the first free one is taken")
}

/// The process that listens on `port`, where this user may know (proc_pid_fd(5), /proc/net/tcp).
fn holder(port: u16) -> Option<String> {
    let inodes: Vec<String> = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|file| std::fs::read_to_string(file).ok())
        .flat_map(|table| listeners(&table, port))
        .map(|inode| format!("socket:[{inode}]"))
        .collect();
    for process in std::fs::read_dir("/proc").ok()?.flatten() {
        if process.file_name().to_string_lossy().parse::<u32>().is_err() {
            continue;
        }
        let Ok(fds) = std::fs::read_dir(process.path().join("fd")) else { continue };
        let has = |fd: std::fs::DirEntry| {
            std::fs::read_link(fd.path())
                .is_ok_and(|link| inodes.iter().any(|inode| link.as_os_str() == inode.as_str()))
        };
        if fds.flatten().any(has) {
            let name = std::fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            return Some(format!("{} (process {})", name.trim(), process.file_name().display()));
        }
    }
    None
}

/// The inodes of the sockets that listen on `port`: state 0A, local address `HEX:PORT`.
fn listeners(table: &str, port: u16) -> Vec<String> {
    let suffix = format!(":{port:04X}");
    table
        .lines()
        .skip(1)
        .map(|line| line.split_ascii_whitespace().collect::<Vec<_>>())
        .filter(|fields| fields.get(1).is_some_and(|local| local.ends_with(&suffix)) && fields.get(3) == Some(&"0A"))
        .filter_map(|fields| fields.get(9).map(|inode| (*inode).to_owned()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(asked: Option<u16>, last: Option<u16>, own: Option<u16>, busy: &[u16], expected: Option<u16>) {
        let found = choose(asked, last, own, |port| !busy.contains(&port));
        assert_eq!(found.ok(), expected, "asked {asked:?}, last {last:?}, own {own:?}, busy {busy:?}");
    }

    #[test]
    fn the_asked_then_the_last_then_the_first_free_port() {
        check(None, None, None, &[], Some(5000));
        check(None, None, None, &[5000, 5001], Some(5002));
        check(None, Some(5007), None, &[], Some(5007));
        check(None, Some(5007), None, &[5007], Some(5000));
        check(None, Some(5007), Some(5007), &[5007], Some(5007));
        check(Some(8080), Some(5007), None, &[], Some(8080));
        check(Some(8080), None, None, &[8080], None);
        check(Some(8080), None, Some(8080), &[8080], Some(8080));
        check(Some(0), None, None, &[], None);
        check(None, None, None, &(5000..5200).collect::<Vec<_>>(), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn the_holder_of_a_port_is_named() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        assert!(!is_free(port));
        let error = choose(Some(port), None, None, is_free).unwrap_err();
        assert!(error.to_string().contains(&format!("(process {})", std::process::id())), "{error}");
        assert_eq!(holder(1), None);
    }
}
