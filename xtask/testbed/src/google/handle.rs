//! Starting a fake Google, and speaking to one from another process.

use std::convert::Infallible;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;
use tokio::net::TcpListener;

use super::core::Core;
use super::faults::Rule;
use super::log::Entry;
use super::options::{Options, Project};
use super::{server, tunnel};

/// Services that gcloud can be sent elsewhere for, with the path that it does not add itself.
const GCLOUD: &[(&str, &str)] = &[
    ("ARTIFACTREGISTRY", "artifactregistry/"),
    ("CLOUDBILLING", "cloudbilling/"),
    ("CLOUDBUILD", "cloudbuild/"),
    ("CLOUDRESOURCEMANAGER", "cloudresourcemanager/"),
    ("COMPUTE", "compute/compute/v1/"),
    ("CONTAINER", "container/"),
    ("IAM", "iam/"),
    ("IAMCREDENTIALS", "iamcredentials/"),
    ("ORGPOLICY", "orgpolicy/"),
    ("SERVICEUSAGE", "serviceusage/"),
    ("SQL", "sql/"),
    ("STORAGE", "storage/storage/v1/"),
];

/// Services that the terraform provider can be sent elsewhere for, with the path that it expects.
const TERRAFORM: &[(&str, &str)] = &[
    ("ARTIFACT_REGISTRY", "artifactregistry/v1/"),
    ("BILLING", "cloudbilling/v1/"),
    ("CLOUD_BILLING", "cloudbilling/v1/"),
    ("CLOUD_RESOURCE_MANAGER", "cloudresourcemanager/v1/"),
    ("COMPUTE", "compute/compute/v1/"),
    ("CONTAINER", "container/v1/"),
    ("IAM", "iam/v1/"),
    ("IAM_BETA", "iam/v1/"),
    ("IAM_CREDENTIALS", "iamcredentials/v1/"),
    ("RESOURCE_MANAGER", "cloudresourcemanager/v1/"),
    ("RESOURCE_MANAGER_V3", "cloudresourcemanager/v3/"),
    ("SERVICE_NETWORKING", "servicenetworking/v1/"),
    ("SERVICE_USAGE", "serviceusage/v1/"),
    ("SQL", "sql/sql/v1beta4/"),
    ("STORAGE", "storage/storage/v1/"),
];

/// What the owner logs in with.
pub const OWNER_TOKEN: &str = "testbed-owner";

/// A fake Google somewhere.
#[derive(Clone, Debug)]
pub struct Handle {
    address: SocketAddr,
}

impl Handle {
    /// That at a URL, `http://ADDRESS:PORT`.
    pub fn new(url: &str) -> Self {
        let address = url.trim_start_matches("http://").trim_end_matches('/');
        Self { address: address.parse().expect("the URL of a fake Google") }
    }

    /// Its URL, without a slash at the end.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Its address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The environment for a gcloud that keeps everything in `dir` and calls nobody else.
    pub fn gcloud_env_in(&self, dir: &Path, project: &str) -> Vec<(String, String)> {
        let (token, authority) = (dir.join("token"), dir.join("authority.pem"));
        std::fs::create_dir_all(dir).expect("a folder");
        std::fs::write(&authority, self.authority()).expect("a file");
        std::fs::write(&token, OWNER_TOKEN).expect("a file");
        let mut env: Vec<(String, String)> = [
            ("CLOUDSDK_CONFIG", dir.join("gcloud").display().to_string()),
            ("CLOUDSDK_AUTH_ACCESS_TOKEN_FILE", token.display().to_string()),
            // For services that gcloud cannot be sent elsewhere for.
            ("CLOUDSDK_PROXY_TYPE", "http".to_owned()),
            ("CLOUDSDK_PROXY_ADDRESS", self.address.ip().to_string()),
            ("CLOUDSDK_PROXY_PORT", self.address.port().to_string()),
            ("CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE", authority.display().to_string()),
            ("CLOUDSDK_CORE_PROJECT", project.to_owned()),
            ("CLOUDSDK_CORE_DISABLE_PROMPTS", "1".to_owned()),
            ("CLOUDSDK_CORE_DISABLE_USAGE_REPORTING", "true".to_owned()),
            ("CLOUDSDK_CORE_DISABLE_FILE_LOGGING", "true".to_owned()),
            ("CLOUDSDK_COMPONENT_MANAGER_DISABLE_UPDATE_CHECK", "true".to_owned()),
            ("CLOUDSDK_SURVEY_DISABLE_PROMPTS", "true".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into();
        let name = |service: &str| format!("CLOUDSDK_API_ENDPOINT_OVERRIDES_{service}");
        env.extend(GCLOUD.iter().map(|(service, path)| (name(service), format!("{}/{path}", self.url()))));
        env
    }

    /// The environment for a terraform whose google provider calls nobody else.
    pub fn terraform_env(&self, project: &str) -> Vec<(String, String)> {
        let mut env = vec![
            ("GOOGLE_OAUTH_ACCESS_TOKEN".to_owned(), OWNER_TOKEN.to_owned()),
            ("GOOGLE_PROJECT".to_owned(), project.to_owned()),
        ];
        let name = |service: &str| format!("GOOGLE_{service}_CUSTOM_ENDPOINT");
        env.extend(TERRAFORM.iter().map(|(service, path)| (name(service), format!("{}/{path}", self.url()))));
        env
    }

    /// The authority of its certificates, PEM.
    pub fn authority(&self) -> String {
        self.ask("GET", "authority", &())["pem"].as_str().expect("a certificate").to_owned()
    }

    /// The calls so far.
    pub fn log(&self) -> Vec<Entry> {
        serde_json::from_value(self.ask("GET", "log", &())).expect("a log")
    }

    /// Forgets the calls so far.
    pub fn clear_log(&self) {
        self.ask("DELETE", "log", &());
    }

    /// Makes calls fail.
    pub fn fail(&self, rule: &Rule) {
        self.ask("POST", "faults", rule);
    }

    /// Forgets the rules.
    pub fn clear_faults(&self) {
        self.ask("DELETE", "faults", &());
    }

    /// Everything that exists: `enabled`, `operations` that run, `policies`, `resources` by kind and name.
    pub fn state(&self) -> Value {
        self.ask("GET", "state", &())
    }

    /// Adds a project or decides anew for one: billing, policies, quotas. What is enabled stays.
    pub fn set_project(&self, project: &Project) {
        self.ask("PUT", "projects", project);
    }

    /// A token of a service account.
    pub fn token(&self, account: &str) -> String {
        let answer = self.ask("POST", &format!("tokens/{account}"), &());
        answer["token"].as_str().expect("a token").to_owned()
    }

    fn ask(&self, method: &str, path: &str, body: &impl Serialize) -> Value {
        let body = serde_json::to_value(body).expect("a body");
        let answered = self.call(method, &format!("_testbed/{path}"), None, &body);
        let (status, answer) = answered.unwrap_or_else(|error| panic!("{}: {error}", self.url()));
        assert_eq!(status, 200, "{answer:#}");
        answer
    }

    /// Makes a call as a client would, with a token: status and answer. A body of null is none. An
    /// answer that is not JSON is a string; one that takes longer than ten seconds is an error.
    pub fn call(&self, method: &str, path: &str, token: Option<&str>, body: &Value) -> io::Result<(u16, Value)> {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let token = token.map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
        let mut stream = TcpStream::connect(self.address)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        let head = format!(
            "{method} /{path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nMetadata-Flavor: Google\r\n\
             Content-Type: application/json\r\n{token}Content-Length: {}\r\n\r\n",
            self.address,
            body.len()
        );
        stream.write_all(format!("{head}{body}").as_bytes())?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        let text = String::from_utf8_lossy(&answer);
        let (head, body) = text.split_once("\r\n\r\n").ok_or(io::ErrorKind::UnexpectedEof)?;
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status = status.ok_or(io::ErrorKind::InvalidData)?;
        Ok((status, serde_json::from_str(body).unwrap_or_else(|_| body.into())))
    }
}

/// A running fake Google; ends when dropped.
#[derive(Debug)]
pub struct Google {
    handle: Handle,
    tunnel: Option<SocketAddr>,
    project: String,
    dir: tempfile::TempDir,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Google {
    /// Starts one.
    pub fn start(options: Options) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("an async runtime");
        let project = options.projects.first().map(|project| project.id.clone()).unwrap_or_default();
        let (handle, tunnel) = runtime.block_on(begin(options)).expect("free addresses");
        let dir = tempfile::Builder::new().prefix("google-").tempdir().expect("a temporary folder");
        Self { handle, tunnel, project, dir, runtime: Some(runtime) }
    }

    /// The environment for a gcloud of its own.
    pub fn gcloud_env(&self) -> Vec<(String, String)> {
        self.handle.gcloud_env_in(self.dir.path(), &self.project)
    }

    /// The environment for terraform.
    pub fn terraform_env(&self) -> Vec<(String, String)> {
        self.handle.terraform_env(&self.project)
    }

    /// Where Cloud SQL's TLS end listens.
    pub fn tunnel(&self) -> Option<SocketAddr> {
        self.tunnel
    }
}

impl Deref for Google {
    type Target = Handle;

    fn deref(&self) -> &Handle {
        &self.handle
    }
}

impl Drop for Google {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Serves for ever, as a process of its own; `ready` is called when all addresses are open.
pub async fn serve(options: Options, ready: impl FnOnce(&Handle)) -> io::Result<Infallible> {
    let (handle, _) = begin(options).await?;
    ready(&handle);
    std::future::pending().await
}

/// Opens all addresses and serves them in the background.
async fn begin(options: Options) -> io::Result<(Handle, Option<SocketAddr>)> {
    let listener = TcpListener::bind(options.listen).await?;
    let address = listener.local_addr()?;
    let mut options = options;
    let sql = match options.tunnel {
        Some(wanted) => Some(TcpListener::bind(wanted).await?),
        None => None,
    };
    options.tunnel = sql.as_ref().map(TcpListener::local_addr).transpose()?;
    let (tunnel, places) = (options.tunnel, options.metadata.clone());
    let core = Arc::new(Core::new(options));
    for place in places {
        let listener = TcpListener::bind(place.listen).await?;
        tokio::spawn(server::accept(listener, Arc::clone(&core), Some(place)));
    }
    if let Some(listener) = sql {
        tokio::spawn(tunnel::accept(listener, Arc::clone(&core)));
    }
    tokio::spawn(server::accept(listener, core, None));
    Ok((Handle { address }, tunnel))
}
