//! Whether a component works, and waiting until it does.

use std::path::Path;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Node, ServiceAccount};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};

use super::components::{Component, Probe};
use super::control;
use super::error::{Context as _, Error, Kind, Result};
use super::options::Options;
use super::{image, program};

/// How long one question may take.
const ANSWER: Duration = Duration::from_secs(3);
/// The pause between two.
const PAUSE: Duration = Duration::from_millis(50);
/// A component that ended so often while it was waited for will not come up.
const CRASHES: u32 = 3;

/// Who asks.
pub(crate) struct Asker {
    http: reqwest::Client,
    cluster: Client,
    node: String,
}

type Answer = std::result::Result<(), String>;

impl Asker {
    /// With the administrator's kubeconfig in `file`.
    pub(crate) async fn new(options: &Options, file: &Path) -> Result<Self> {
        let http = image::client()?;
        let named = || format!("cannot use {}", file.display());
        let kubeconfig = Kubeconfig::read_from(file).on_machine(named)?;
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
        let mut config = config.on_machine(named)?;
        // The cluster is on this machine, whatever the environment says about proxies.
        config.proxy_url = None;
        let cluster = Client::try_from(config).on_machine(named)?;
        Ok(Self { http, cluster, node: options.node_name().to_owned() })
    }

    /// The cluster, as its administrator.
    pub(crate) fn cluster(&self) -> &Client {
        &self.cluster
    }

    /// Asks once.
    pub(crate) async fn ask(&self, probe: &Probe) -> Answer {
        match tokio::time::timeout(ANSWER, self.question(probe)).await {
            Ok(answer) => answer,
            Err(_) => Err(format!("no answer in {} s", ANSWER.as_secs())),
        }
    }

    async fn question(&self, probe: &Probe) -> Answer {
        match probe {
            Probe::Tcp(address) => tokio::net::TcpStream::connect(address).await.map(drop).map_err(text),
            Probe::Unix(path) => tokio::net::UnixStream::connect(path).await.map(drop).map_err(text),
            Probe::Http(url) => self.get(url).await,
            Probe::ApiServer => {
                let request = http::Request::get("/readyz").body(Vec::new()).map_err(text)?;
                self.cluster.request_text(request).await.map(drop).map_err(text)
            }
            Probe::Node(url) => {
                self.get(url).await?;
                let node = Api::<Node>::all(self.cluster.clone()).get(&self.node).await.map_err(text)?;
                let conditions = node.status.and_then(|status| status.conditions).unwrap_or_default();
                match conditions.into_iter().find(|condition| condition.type_ == "Ready") {
                    Some(ready) if ready.status == "True" => Ok(()),
                    Some(ready) => Err(ready.message.unwrap_or_default()),
                    None => Err("the node has not reported itself".to_owned()),
                }
            }
            Probe::Postgres(pg_isready, address) => {
                let mut command = program::command(pg_isready);
                command.args(["--host", &address.ip().to_string(), "--port", &address.port().to_string()]);
                program::read(command, b"", ANSWER).await.map(drop).map_err(text)
            }
        }
    }

    async fn get(&self, url: &str) -> Answer {
        let status = self.http.get(url).send().await.map_err(text)?.status();
        // A registry that asks for a login works.
        let works = status.is_success() || status == reqwest::StatusCode::UNAUTHORIZED;
        if works { Ok(()) } else { Err(format!("{url} answers {status}")) }
    }

    /// Waits until a component works. The error has the end of its log.
    pub(crate) async fn wait(&self, options: &Options, component: &Component, patience: Duration) -> Result<()> {
        let name = &component.name;
        let before = crashes(options, name).await?.0;
        let deadline = Instant::now() + patience;
        let why = loop {
            let answer = match self.ask(&component.probe).await {
                Ok(()) => return Ok(()),
                Err(answer) => answer,
            };
            let (crashes, ended) = crashes(options, name).await?;
            if crashes >= before + CRASHES {
                break format!("it ended {} times ({})", crashes - before, ended.unwrap_or_default());
            }
            if Instant::now() > deadline {
                break format!("after {} s: {answer}", patience.as_secs());
            }
            tokio::time::sleep(PAUSE).await;
        };
        let log = options.logs().join(format!("{name}.log"));
        let said = program::tail_of(&log, 12).await;
        let said = if said.is_empty() { "its log is empty".to_owned() } else { format!("its log ends with\n{said}") };
        Err(Error::new(Kind::Machine, format!("the testbed's {name} does not come up: {why}")).source(said))
    }

    /// Waits until pods can be created in the namespace `default`.
    pub(crate) async fn wait_for_namespace(&self, patience: Duration) -> Result<()> {
        let accounts = Api::<ServiceAccount>::namespaced(self.cluster.clone(), "default");
        let deadline = Instant::now() + patience;
        loop {
            match tokio::time::timeout(ANSWER, accounts.get_opt("default")).await {
                Ok(Ok(Some(_))) => return Ok(()),
                _ if Instant::now() < deadline => tokio::time::sleep(PAUSE).await,
                last => {
                    let why = format!("after {} s: {last:?}", patience.as_secs());
                    return Err(Error::new(Kind::Machine, "the namespace default gets no service account").source(why));
                }
            }
        }
    }
}

/// How often a component has ended by itself, and how the last time.
async fn crashes(options: &Options, name: &str) -> Result<(u32, Option<String>)> {
    let status = control::status(&options.root).await?;
    let found = status.into_iter().find(|status| status.name == name);
    Ok(found.map_or((0, None), |status| (status.crashes, status.ended)))
}

/// The error with its causes: the first is often only "error sending request".
fn text(error: impl std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let more = cause.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        source = cause.source();
    }
    text
}
