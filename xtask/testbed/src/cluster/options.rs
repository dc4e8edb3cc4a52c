//! Which testbed: name, folders, addresses. The developer's one has the defaults; a test that
//! brings up its own changes all of them.

use std::ffi::OsString;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use super::error::{Error, Kind, Result};

/// A unix socket's path ends at 107 characters, and the kubelet makes long ones below the root.
const LONGEST_ROOT: usize = 60;
/// An interface's name ends at 15 characters; we add two.
const LONGEST_NAME: usize = 13;

/// Where the developer's testbed is, unless they say otherwise.
pub const ROOT: &str = "/var/tmp/mlflow-testbed";

/// Everything that two testbeds on one machine must not share.
#[derive(Clone, Debug)]
pub struct Options {
    /// Name of its cgroup and of its network link: at most 13 characters.
    pub name: String,
    /// Its data, deleted by `down`: a short path on a file system that can hold overlayfs layers.
    pub root: PathBuf,
    /// Where users find `kubeconfig`, `database-uri` and the rest.
    pub out: PathBuf,
    /// Where built programs are kept.
    pub cache: PathBuf,
    /// A program and arguments that lead to [`crate::cluster::node::run`]; the root is added.
    pub supervisor: Vec<OsString>,
    /// Nothing may be downloaded: what is not built already must be buildable from Go's own cache.
    pub offline: bool,
    /// Its addresses.
    pub network: Network,
}

/// The addresses. The host reaches all of them, and nobody else does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Network {
    /// A /30 between host (.1) and node (.2).
    pub link: Ipv4Addr,
    /// A /24 for pods.
    pub pods: Ipv4Addr,
    /// A /16 for services.
    pub services: Ipv4Addr,
    /// Port of 127.0.0.1 (on the host and in the node) and of the node's address: the open registry.
    pub registry: u16,
    /// The same for the registry that asks for a login.
    pub login_registry: u16,
    /// The same for the fake Google.
    pub google: u16,
}

impl Default for Network {
    fn default() -> Self {
        Self {
            link: Ipv4Addr::new(10, 201, 0, 0),
            pods: Ipv4Addr::new(10, 245, 0, 0),
            services: Ipv4Addr::new(10, 97, 0, 0),
            registry: 5050,
            login_registry: 5051,
            google: 8085,
        }
    }
}

impl Network {
    /// The host's end of the link.
    pub fn host_ip(&self) -> Ipv4Addr {
        after(self.link, 1)
    }

    /// The node's address: API server, PostgreSQL, fake GCS.
    pub fn node_ip(&self) -> Ipv4Addr {
        after(self.link, 2)
    }

    /// The service address of the API server.
    pub fn api_ip(&self) -> Ipv4Addr {
        after(self.services, 1)
    }

    /// The service address of the resolver.
    pub fn dns_ip(&self) -> Ipv4Addr {
        after(self.services, 10)
    }

    /// The pods' subnet.
    pub fn pod_cidr(&self) -> String {
        format!("{}/24", self.pods)
    }

    /// The services' subnet.
    pub fn service_cidr(&self) -> String {
        format!("{}/16", self.services)
    }

    /// The API server's address.
    pub fn api_server(&self) -> String {
        format!("https://{}:6443", self.node_ip())
    }

    /// The fake GCS's address.
    pub fn gcs(&self) -> String {
        format!("http://{}:4443", self.node_ip())
    }

    /// The fake Google's address on the host.
    pub fn google(&self) -> String {
        format!("http://127.0.0.1:{}", self.google)
    }

    /// The fake Google's address, as pods reach it.
    pub fn google_for_pods(&self) -> String {
        format!("http://{}:{}", self.node_ip(), self.google)
    }

    /// What is forwarded from 127.0.0.1 of the host to the node.
    pub fn forwarded(&self) -> [u16; 3] {
        [self.registry, self.login_registry, self.google]
    }

    /// The open registry, as images are named.
    pub fn registry(&self) -> String {
        format!("127.0.0.1:{}", self.registry)
    }

    /// The registry with a login, as images are named.
    pub fn login_registry(&self) -> String {
        format!("127.0.0.1:{}", self.login_registry)
    }
}

fn after(net: Ipv4Addr, n: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(net) + n)
}

impl Options {
    /// The developer's testbed, which `cargo xtask testbed` brings up: the files for users are below
    /// `repo`, programs are kept in `cache`. `supervisor` is as in the field.
    pub fn new(repo: &Path, cache: PathBuf, supervisor: Vec<OsString>) -> Self {
        Self {
            name: "mlflow-tb".to_owned(),
            root: ROOT.into(),
            out: repo.join("target/testbed"),
            cache,
            supervisor,
            offline: false,
            network: Network::default(),
        }
    }

    /// Refuses what would fail later with a message that nobody understands.
    pub fn check(&self) -> Result<()> {
        let refuse = |why: &str| {
            let message = format!("the testbed's folder {} {why}", self.root.display());
            Err(Error::new(Kind::Usage, message))
        };
        if !self.root.is_absolute() || self.root.to_str().is_none() {
            return refuse("is not an absolute UTF-8 path");
        }
        if self.root.as_os_str().len() > LONGEST_ROOT {
            return refuse(&format!(
                "has more than {LONGEST_ROOT} characters: paths of sockets below it would not fit"
            ));
        }
        // A private tmpfs covers these in the node.
        if ["/run", "/var/run", "/var/lib", "/var/log", "/dev", "/proc", "/sys"]
            .iter()
            .any(|dir| self.root.starts_with(dir))
        {
            return refuse("lies in a folder that the node has of its own");
        }
        let plain = self.name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
        if !plain || self.name.is_empty() || self.name.len() > LONGEST_NAME {
            let message = format!("{:?} cannot name a testbed", self.name);
            return Err(
                Error::new(Kind::Usage, message).hint(format!("use at most {LONGEST_NAME} of a-z, 0-9 and '-'"))
            );
        }
        Ok(())
    }

    /// The end of the link on the host.
    pub fn host_link(&self) -> String {
        format!("{}-h", self.name)
    }

    /// The end of the link in the node.
    pub fn node_link(&self) -> String {
        format!("{}-n", self.name)
    }

    /// The hostname and Node object's name.
    pub fn node_name(&self) -> &'static str {
        "node1"
    }

    /// A path below the root.
    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.root.join(name)
    }

    /// Where the components' output goes.
    pub fn logs(&self) -> PathBuf {
        self.path("logs")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, root: &str, ok: bool) {
        let options =
            Options { name: name.into(), root: root.into(), ..Options::new(Path::new("/x"), "/x".into(), Vec::new()) };
        assert_eq!(options.check().is_ok(), ok, "{name} {root}");
    }

    #[test]
    fn names_and_folders_that_cannot_work_are_refused() {
        check("testbed", "/var/tmp/testbed", true);
        check("testbed", "var/tmp/testbed", false);
        check("testbed", "/var/lib/testbed", false);
        check("testbed", "/run/testbed", false);
        check("testbed", &format!("/var/tmp/{}", "x".repeat(60)), false);
        check("thirteen-char", "/var/tmp/x", true);
        check("fourteen-chars", "/var/tmp/x", false);
        check("", "/var/tmp/x", false);
        check("Upper", "/var/tmp/x", false);
    }

    #[test]
    fn addresses_follow_from_the_subnets() {
        let network = Network::default();
        assert_eq!(network.host_ip().to_string(), "10.201.0.1");
        assert_eq!(network.gcs(), "http://10.201.0.2:4443");
        assert_eq!(network.api_ip().to_string(), "10.97.0.1");
        assert_eq!(network.dns_ip().to_string(), "10.97.0.10");
        assert_eq!(network.registry(), "127.0.0.1:5050");
    }
}
