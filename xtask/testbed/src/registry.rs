//! A real registry: Debian's `docker-registry` (distribution 2.8).

use std::net::SocketAddr;
use std::path::Path;

use serde_json::json;

use crate::certificate::Certificate;
use crate::service::{Service, free_port};
use crate::token::TokenServer;
use crate::tool;

/// Who may use the registry.
#[derive(Clone, Copy, Debug)]
pub enum Auth<'a> {
    /// Everybody.
    None,
    /// One user, by password.
    Basic {
        /// The user's name.
        user: &'a str,
        /// The password.
        password: &'a str,
    },
    /// Who has a token of this server's.
    Token(&'a TokenServer),
}

/// Where it keeps blobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Storage {
    /// In a temporary folder.
    Folder,
    /// In a file system of so many MiB of its own; needs [`crate::have_namespaces`].
    Small(u32),
}

/// How a registry is set up.
#[derive(Clone, Copy, Debug)]
pub struct Options<'a> {
    /// Who may use it.
    pub auth: Auth<'a>,
    /// Where it keeps blobs.
    pub storage: Storage,
    /// What it shows to clients; without it, it speaks plain HTTP.
    pub tls: Option<&'a Certificate>,
}

impl Default for Options<'_> {
    fn default() -> Self {
        Self { auth: Auth::None, storage: Storage::Folder, tls: None }
    }
}

/// A running registry.
#[derive(Debug)]
pub struct Registry {
    service: Service,
    address: SocketAddr,
    dir: tempfile::TempDir,
}

impl Registry {
    /// An open registry; `None` where none is installed.
    pub fn start() -> Option<Self> {
        Self::start_with(Options::default())
    }

    /// A registry; `None` where none is installed.
    pub fn start_with(options: Options<'_>) -> Option<Self> {
        let program = tool::require("docker-registry", "docker-registry")?;
        let dir = tempfile::Builder::new().prefix("registry-").tempdir().expect("a temporary folder");
        let blobs = dir.path().join("blobs");
        std::fs::create_dir(&blobs).expect("a folder");
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let mut config = json!({
            "version": "0.1",
            "log": { "level": "warn" },
            "storage": {
                "filesystem": { "rootdirectory": blobs },
                "delete": { "enabled": true },
                "maintenance": { "uploadpurging": { "enabled": false } },
            },
            "http": { "addr": address.to_string() },
        });
        match options.auth {
            Auth::None => {}
            Auth::Basic { user, password } => {
                let path = dir.path().join("htpasswd");
                std::fs::write(&path, format!("{user}:{}\n", bcrypt(password)?)).expect("a file");
                config["auth"] = json!({ "htpasswd": { "realm": "test", "path": path } });
            }
            Auth::Token(server) => config["auth"] = json!({ "token": server.registry_config() }),
        }
        if let Some(certificate) = options.tls {
            config["http"]["tls"] = json!({ "certificate": certificate.chain(), "key": certificate.key() });
        }
        // JSON is YAML.
        let path = dir.path().join("config.yml");
        std::fs::write(&path, config.to_string()).expect("a file");
        let mut command = match options.storage {
            Storage::Folder => tool::command(&program),
            Storage::Small(mebibytes) => {
                let mut command = tool::command("unshare");
                let script = format!("mount -t tmpfs -o size={mebibytes}m none \"$0\" && exec \"$@\"");
                command.args(tool::namespace_flags()).args(["sh", "-c", &script]).arg(&blobs).arg(&program);
                command
            }
        };
        command.env_clear().arg("serve").arg(&path);
        if let Some(search) = std::env::var_os("PATH") {
            command.env("PATH", search);
        }
        let mut service = Service::start(command, dir.path().join("log"));
        service.wait_for(address);
        Some(Self { service, address, dir })
    }

    /// Host and port.
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// The address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        self.service.log()
    }

    /// Its folder of blobs and tags. Empty from outside with [`Storage::Small`].
    pub fn folder(&self) -> std::path::PathBuf {
        self.dir.path().join("blobs")
    }

    /// Gives a registry with [`Storage::Small`] more room.
    pub fn grow(&self, mebibytes: u32) {
        let size = format!("remount,size={mebibytes}m");
        let (target, folder) = (self.service.id().to_string(), self.folder());
        let mut flags = vec!["--mount", "--target", &target];
        if !tool::is_root() {
            flags.push("--user");
        }
        let folder = folder.to_str().expect("a UTF-8 path");
        flags.extend(["mount", "-o", &size, folder]);
        tool::run(Path::new("/usr/bin/nsenter"), &flags);
    }
}

/// A bcrypt hash, the only one that the registry takes, made by libxcrypt through Perl.
fn bcrypt(password: &str) -> Option<String> {
    let perl = tool::require("perl", "perl")?;
    let hash = tool::run(&perl, &["-e", "print crypt($ARGV[0], '$2b$04$' . 'testbed' x 3 . 'u')", password]);
    assert!(hash.starts_with("$2b$"), "this machine's crypt(3) knows no bcrypt: {hash:?}");
    Some(hash)
}
