//! An MLflow server of one test, with a database of its own.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;
use testbed::{Home, Service, command, free_port, require};

use super::envs::Python;

pub const ADMIN: &str = "admin";
pub const ADMIN_PASSWORD: &str = "a password of the test only";

/// Where the metadata is kept.
pub enum Database {
    Sqlite,
    Postgresql(Postgresql),
}

/// A PostgreSQL server of one test.
pub struct Postgresql {
    _service: Service,
    _home: Home,
    port: u16,
}

impl Database {
    pub fn sqlite() -> Self {
        Self::Sqlite
    }

    /// A fresh PostgreSQL; `None` where it is not installed.
    pub fn postgresql() -> Option<Self> {
        let initdb = debian_postgresql("initdb").or_else(|| require("initdb", "postgresql"))?;
        let home = Home::new();
        // The server runs as another user than root, who must reach its folder.
        std::fs::set_permissions(home.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let data = home.file("pg/data");
        let folder = data.parent().unwrap();
        if is_root() {
            std::os::unix::fs::chown(folder, Some(NOBODY), Some(NOBODY)).unwrap();
        }
        let output = unprivileged(&home, &initdb)
            .args(["--auth=trust", "--username=mlflow", "--encoding=UTF8", "--locale=C", "--no-sync", "-D"])
            .arg(&data)
            .output()
            .expect("initdb starts");
        assert!(output.status.success(), "initdb: {}", String::from_utf8_lossy(&output.stderr));
        let port = free_port();
        let mut postgres = unprivileged(&home, &initdb.with_file_name("postgres"));
        postgres.arg("-D").arg(&data).args(["-h", "127.0.0.1", "-p", &port.to_string(), "-F", "-k"]).arg(folder);
        let mut service = Service::start(postgres, home.file("postgres.log"));
        service.wait_for(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        Some(Self::Postgresql(Postgresql { _service: service, _home: home, port }))
    }

    /// Its URI; a SQLite database is in `home`.
    pub fn uri(&self, home: &Home) -> String {
        match self {
            Self::Sqlite => format!("sqlite:///{}", home.file("mlflow.db").display()),
            // Without a driver's name, as people write it.
            Self::Postgresql(server) => format!("postgresql://mlflow@127.0.0.1:{}/postgres", server.port),
        }
    }
}

pub const NOBODY: u32 = 65534;

pub fn is_root() -> bool {
    command("id").arg("-u").output().is_ok_and(|output| output.stdout.starts_with(b"0\n"))
}

/// PostgreSQL refuses to run as root.
pub fn unprivileged(home: &Home, program: &Path) -> Command {
    if !is_root() {
        return home.command(program);
    }
    let mut command = home.command("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(program);
    command
}

/// Debian keeps the server's programs off the PATH.
pub fn debian_postgresql(program: &str) -> Option<PathBuf> {
    let mut versions: Vec<_> =
        std::fs::read_dir("/usr/lib/postgresql").ok()?.flatten().map(|entry| entry.path()).collect();
    versions.sort();
    versions.iter().rev().map(|version| version.join("bin").join(program)).find(|file| file.is_file())
}

/// Our own modules in the image.
pub fn image_packages() -> PathBuf {
    let rootfs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../mlflow_server/rootfs");
    rootfs.join("opt/mlflow/lib/python3.13/site-packages")
}

/// A running MLflow server, made from the lock.
pub struct Server {
    pub home: Home,
    service: Service,
    port: u16,
}

impl Server {
    /// As the image runs it; `None` where Python is missing.
    pub fn start(database: &Database) -> Option<Self> {
        Self::start_with(database, |_, _| {})
    }

    /// Behind MLflow's own login, as the image starts it.
    pub fn start_with_login(database: &Database) -> Option<Self> {
        Self::start_as("mlflow_server_login", database, |home, command| {
            command.env("PYTHONPATH", image_packages()).env("PYTHONDONTWRITEBYTECODE", "1");
            command.env("MLFLOW_UVICORN_OPTS", "--http mlflow_server_drain:DrainingProtocol");
            command.env("MLFLOW_FLASK_SERVER_SECRET_KEY", "of the test only");
            command.env("MLFLOW_AUTH_ADMIN_PASSWORD", ADMIN_PASSWORD).env("TMPDIR", home.path());
        })
    }

    pub fn start_with(database: &Database, change: impl FnOnce(&Home, &mut Command)) -> Option<Self> {
        Self::start_as("mlflow", database, change)
    }

    /// With this module of Python's for `mlflow`.
    fn start_as(module: &str, database: &Database, change: impl FnOnce(&Home, &mut Command)) -> Option<Self> {
        let (python, home, port) = (Python::server()?, Home::new(), free_port());
        let mut command = home.command(python.interpreter());
        command
            .args(["-m", module, "server", "--host", "127.0.0.1", "--workers", "1", "--port", &port.to_string()])
            .args(["--serve-artifacts", "--artifacts-destination"])
            .arg(home.file("artifacts/x").parent().unwrap())
            .arg("--expose-prometheus")
            .arg(home.file("metrics/x").parent().unwrap())
            .env("MLFLOW_BACKEND_STORE_URI", database.uri(&home))
            .env("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")
            .env("MLFLOW_DISABLE_TELEMETRY", "true")
            .env("GIT_PYTHON_REFRESH", "quiet")
            .env("PYTHONUNBUFFERED", "1")
            // The walk's own provider and webhook receiver listen on the loopback.
            .env("MLFLOW_GATEWAY_API_BASE_ALLOWED_SCHEMES", "http,https")
            .env("MLFLOW_GATEWAY_API_BASE_ALLOW_PRIVATE_IPS", "true")
            .env("MLFLOW_WEBHOOK_ALLOWED_SCHEMES", "http,https")
            .env("MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS", "true");
        change(&home, &mut command);
        let service = Service::start(command, home.file("server.log"));
        let server = Self { home, service, port };
        server.wait_for("Uvicorn running on");
        Some(server)
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))
    }

    /// The end of what it printed.
    pub fn log_tail(&self) -> String {
        let log = self.service.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }

    /// The id of `mlflow server`, the parent of uvicorn.
    pub fn pid(&self) -> u32 {
        self.service.id()
    }

    /// Waits until it has logged `text`.
    pub fn wait_for(&self, text: &str) {
        let deadline = Instant::now() + Duration::from_secs(120);
        while !self.service.log().contains(text) {
            assert!(Instant::now() < deadline, "the server does not log {text:?}: {}", self.log_tail());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// One connection to a server, which is kept between requests.
pub struct Connection(BufReader<TcpStream>);

impl Connection {
    pub fn open(server: &Server) -> Self {
        let stream = TcpStream::connect(server.address()).expect("a connection");
        stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a socket");
        Self(BufReader::new(stream))
    }

    /// The head of the answer, in lower case.
    pub fn get(&mut self, path: &str) -> String {
        self.read(path).0
    }

    /// The head of the answer, in lower case, and its body.
    pub fn read(&mut self, path: &str) -> (String, String) {
        write!(self.0.get_mut(), "GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("the server reads");
        self.answer()
    }

    /// The head of the answer, in lower case, and its body.
    pub fn post(&mut self, path: &str, body: &Value) -> (String, String) {
        let body = body.to_string();
        let head = format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n");
        write!(self.0.get_mut(), "{head}Content-Length: {}\r\n\r\n{body}", body.len()).expect("the server reads");
        self.answer()
    }

    fn answer(&mut self) -> (String, String) {
        let (mut head, mut line) = (String::new(), String::new());
        while self.0.read_line(&mut line).expect("the server answers") > 2 {
            head.push_str(&line.to_ascii_lowercase());
            line.clear();
        }
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).expect("a length");
        let mut body = vec![0; length.trim().parse().expect("a number")];
        self.0.read_exact(&mut body).expect("the whole body");
        (head, String::from_utf8_lossy(&body).into_owned())
    }
}

/// `mlflow server` starts uvicorn as a child, which a kill of the parent leaves behind: it is
/// asked to stop first.
impl Drop for Server {
    fn drop(&mut self) {
        let _ = command("kill").arg(self.service.id().to_string()).status();
        let deadline = Instant::now() + Duration::from_secs(10);
        while TcpStream::connect(self.address()).is_ok() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}
