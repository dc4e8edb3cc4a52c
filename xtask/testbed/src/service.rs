//! Programs that run beside a test.

use std::fs::File;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A port of 127.0.0.1 that nobody listens on.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port of 127.0.0.1");
    listener.local_addr().expect("a bound address").port()
}

/// A running program; ended when dropped.
#[derive(Debug)]
pub struct Service {
    child: Child,
    log: PathBuf,
}

impl Service {
    /// Starts a program whose output goes to the file `log`.
    pub fn start(mut command: Command, log: PathBuf) -> Self {
        let out = File::create(&log).expect("a log file");
        let err = out.try_clone().expect("a second handle");
        command.stdin(Stdio::null()).stdout(out).stderr(err);
        let child = command.spawn().expect("the program starts");
        Self { child, log }
    }

    /// Waits until it listens on `address`; panics with its log when it ends or takes too long.
    pub fn wait_for(&mut self, address: SocketAddr) {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            if TcpStream::connect_timeout(&address, Duration::from_millis(500)).is_ok() {
                return;
            }
            let ended = self.child.try_wait().expect("the program's state");
            assert!(ended.is_none(), "it ended ({ended:?}): {}", self.log());
            assert!(Instant::now() < deadline, "it does not listen on {address}: {}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// What it has printed.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
