//! What runs on a node: which programs, with which arguments, and how each shows that it works.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};

use super::google;
use super::options::Options;
use super::tools::Tools;

/// A program of the node, kept running by its process 1.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Component {
    /// Its name, also that of its log.
    pub name: String,
    /// Program and arguments.
    pub argv: Vec<String>,
    /// User and group, if not root.
    pub user: Option<(u32, u32)>,
    /// The number of the signal that ends it in order.
    pub stop: i32,
    /// What shows that it works.
    pub probe: Probe,
}

/// A question whose answer shows that a component works. All of them are asked from the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Probe {
    /// Somebody listens.
    Tcp(SocketAddr),
    /// Somebody listens on a unix socket.
    Unix(PathBuf),
    /// An answer with status 2xx; 401 shows a registry that asks for a login.
    Http(String),
    /// The API server says that it is ready, and with it etcd.
    ApiServer,
    /// The kubelet is healthy at this address, and the API server reports its node as ready.
    Node(String),
    /// PostgreSQL takes connections at this address: what its own `pg_isready` says.
    Postgres(PathBuf, SocketAddr),
}

/// The PostgreSQL behind the fake Cloud SQL: its name, and its port on the node.
pub(crate) const CLOUD_SQL: (&str, u16) = ("cloud-sql", 5433);

/// Where what is built for the node is.
#[derive(Clone, Debug)]
pub(crate) struct Built {
    pub(crate) kubernetes: PathBuf,
    pub(crate) fake_gcs: PathBuf,
}

/// All components, in the order in which they are started.
pub(crate) fn all(options: &Options, tools: &Tools, built: &Built, postgres: (u32, u32)) -> Vec<Component> {
    let network = &options.network;
    let node_ip = network.node_ip();
    let path = |name: &str| options.path(name).display().to_string();
    let conf = |name: &str| options.path("conf").join(name).display().to_string();
    let pki = |name: &str| options.path("pki").join(name).display().to_string();
    let kubernetes = |name: &str| built.kubernetes.join(name).display().to_string();
    let at = |port: u16| SocketAddr::new(IpAddr::V4(node_ip), port);
    let own = |name: &str, argv: Vec<String>, probe: Probe| Component {
        name: name.to_owned(),
        argv,
        user: None,
        stop: Signal::SIGTERM as i32,
        probe,
    };
    let kubeconfigs = |user: &str| {
        let file = conf(&format!("{user}.kubeconfig"));
        ["kubeconfig", "authentication-kubeconfig", "authorization-kubeconfig"].map(|flag| format!("--{flag}={file}"))
    };
    vec![
        own("registry", words(&["docker-registry", "serve", &conf("registry.yaml")]), registry(at(network.registry))),
        own(
            "login-registry",
            words(&["docker-registry", "serve", &conf("login-registry.yaml")]),
            registry(at(network.login_registry)),
        ),
        own("etcd", etcd(&path("etcd")), Probe::ApiServer),
        own(
            "containerd",
            words(&["containerd", "--config", &conf("containerd.toml")]),
            Probe::Unix(options.path("containerd.sock")),
        ),
        own("apiserver", api_server(options, kubernetes("kube-apiserver"), pki), Probe::ApiServer),
        own(
            "gcs",
            words(&[
                &built.fake_gcs.join("fake-gcs-server").display().to_string(),
                "-scheme=http",
                &format!("-host={node_ip}"),
                "-port=4443",
                "-backend=filesystem",
                &format!("-filesystem-root={}", path("gcs")),
                &format!("-external-url={}", network.gcs()),
                &format!("-public-host={node_ip}:4443"),
            ]),
            Probe::Http(format!("{}/storage/v1/b/{BUCKET}", network.gcs())),
        ),
        Component {
            user: Some(postgres),
            // "Fast" shutdown: SIGTERM would wait for the clients.
            stop: Signal::SIGINT as i32,
            ..own(
                "postgres",
                postgresql(&tools.postgresql, &path("postgres"), at(5432)),
                Probe::Postgres(tools.postgresql.join("pg_isready"), at(5432)),
            )
        },
        Component {
            user: Some(postgres),
            stop: Signal::SIGINT as i32,
            ..own(
                CLOUD_SQL.0,
                postgresql(&tools.postgresql, &path(CLOUD_SQL.0), at(CLOUD_SQL.1)),
                Probe::Postgres(tools.postgresql.join("pg_isready"), at(CLOUD_SQL.1)),
            )
        },
        own(
            "google",
            google::command(options, &conf(google::SETTINGS)),
            Probe::Http(format!("{}/_testbed/log", network.google_for_pods())),
        ),
        own(
            "controller-manager",
            [
                &words(&[
                    &kubernetes("kube-controller-manager"),
                    &format!("--bind-address={node_ip}"),
                    // There is one, and the lease would cost start-up time.
                    "--leader-elect=false",
                    // With RBAC the user of the controller manager may do next to nothing: each
                    // controller acts as its service account.
                    "--use-service-account-credentials=true",
                    &format!("--root-ca-file={}", pki("ca.crt")),
                    &format!("--service-account-private-key-file={}", pki("tokens.key")),
                    &format!("--cluster-signing-cert-file={}", pki("ca.crt")),
                    &format!("--cluster-signing-key-file={}", pki("ca.key")),
                    "--allocate-node-cidrs=false",
                    // The default of 20 questions a second delays the first pod by 5 s.
                    "--kube-api-qps=200",
                    "--kube-api-burst=400",
                    // The default below /usr/libexec would be made on the host.
                    &format!("--flex-volume-plugin-dir={}", path("volume-plugins")),
                ])[..],
                &kubeconfigs("controller-manager"),
            ]
            .concat(),
            Probe::Tcp(at(10257)),
        ),
        own(
            "scheduler",
            [
                &words(&[&kubernetes("kube-scheduler"), &format!("--bind-address={node_ip}"), "--leader-elect=false"])
                    [..],
                &kubeconfigs("scheduler"),
            ]
            .concat(),
            Probe::Tcp(at(10259)),
        ),
        own(
            "kubelet",
            words(&[
                &kubernetes("kubelet"),
                &format!("--config={}", conf("kubelet.yaml")),
                &format!("--kubeconfig={}", conf("kubelet.kubeconfig")),
                &format!("--root-dir={}", path("kubelet")),
                &format!("--cert-dir={}", path("kubelet/pki")),
                &format!("--hostname-override={}", options.node_name()),
                &format!("--node-ip={node_ip}"),
            ]),
            Probe::Node(format!("http://{}/healthz", at(10248))),
        ),
        own(
            "kube-proxy",
            words(&[&kubernetes("kube-proxy"), &format!("--config={}", conf("kube-proxy.yaml"))]),
            Probe::Http(format!("http://{}/healthz", at(10256))),
        ),
        own(
            "dns",
            words(&["dnsmasq", "--keep-in-foreground", &format!("--conf-file={}", conf("dnsmasq.conf"))]),
            Probe::Tcp(at(53)),
        ),
    ]
}

/// The bucket of the fake GCS.
pub const BUCKET: &str = "mlflow";

fn registry(address: SocketAddr) -> Probe {
    Probe::Http(format!("http://{address}/v2/"))
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// The data is scratch, so it is not synced to the disk.
fn etcd(data: &str) -> Vec<String> {
    words(&[
        "etcd",
        "--name=node1",
        &format!("--data-dir={data}"),
        "--unsafe-no-fsync",
        "--log-level=warn",
        "--listen-client-urls=http://127.0.0.1:2379",
        "--advertise-client-urls=http://127.0.0.1:2379",
        "--listen-peer-urls=http://127.0.0.1:2380",
        "--initial-advertise-peer-urls=http://127.0.0.1:2380",
        "--initial-cluster=node1=http://127.0.0.1:2380",
    ])
}

fn api_server(options: &Options, program: String, pki: impl Fn(&str) -> String) -> Vec<String> {
    words(&[
        &program,
        "--etcd-servers=http://127.0.0.1:2379",
        &format!("--service-cluster-ip-range={}", options.network.service_cidr()),
        "--bind-address=0.0.0.0",
        &format!("--advertise-address={}", options.network.node_ip()),
        "--secure-port=6443",
        &format!("--tls-cert-file={}", pki("apiserver.crt")),
        &format!("--tls-private-key-file={}", pki("apiserver.key")),
        &format!("--client-ca-file={}", pki("ca.crt")),
        &format!("--kubelet-client-certificate={}", pki("apiserver-kubelet.crt")),
        &format!("--kubelet-client-key={}", pki("apiserver-kubelet.key")),
        &format!("--kubelet-certificate-authority={}", pki("ca.crt")),
        "--kubelet-preferred-address-types=InternalIP",
        "--service-account-issuer=https://kubernetes.default.svc",
        &format!("--service-account-key-file={}", pki("tokens.crt")),
        &format!("--service-account-signing-key-file={}", pki("tokens.key")),
        &format!("--authentication-token-webhook-config-file={}", options.path("conf").join(google::TOKENS).display()),
        "--authentication-token-webhook-version=v1",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--allow-privileged=true",
        "--profiling=false",
    ])
}

fn postgresql(bin: &Path, data: &str, address: SocketAddr) -> Vec<String> {
    words(&[
        &bin.join("postgres").display().to_string(),
        "-D",
        data,
        "-c",
        &format!("listen_addresses={}", address.ip()),
        "-c",
        &format!("port={}", address.port()),
        "-c",
        "unix_socket_directories=",
        "-c",
        "fsync=off",
        "-c",
        "max_connections=200",
    ])
}
