//! The cluster that the scenarios run on: the testbed, started if none is up.

use std::net::{IpAddr, UdpSocket};
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use crate::run::Running;
use crate::{Result, ensure};

/// The first start builds Kubernetes.
const UP: Duration = Duration::from_secs(1800);

/// A component may take as long as the node to come back.
const COMPONENT: Duration = Duration::from_secs(120);

/// A testbed that is up, as `xtask testbed status --json` describes it.
#[derive(Clone, Debug, Deserialize)]
pub struct Place {
    /// The context in the kubeconfig.
    pub context: String,
    /// The administrator's kubeconfig.
    pub kubeconfig: PathBuf,
    /// The open registry.
    pub registry: String,
    /// The registry that asks for a login.
    pub login_registry: Option<String>,
    /// The fake GCS's address.
    pub gcs: String,
    /// Its bucket, as `gs://` address.
    pub bucket: String,
    /// The fake Google's address; one made with kind has none.
    pub google: Option<String>,
    /// The same as pods reach it.
    pub google_for_pods: Option<String>,
    /// An image with a shell.
    pub busybox: String,
    /// An image with the Cloud SQL Auth Proxy.
    pub cloud_sql_proxy: String,
    /// An image with oauth2-proxy.
    pub oauth2_proxy: String,
    /// A kubectl of the cluster's version.
    pub kubectl: PathBuf,
    /// What can be stopped and started.
    pub components: Vec<String>,
    /// The folder with files for users.
    pub out: PathBuf,
}

/// Who may use the registry that asks for a login.
#[derive(Clone, Debug, Deserialize)]
pub struct Login {
    /// The user's name.
    pub user: String,
    /// The password.
    pub password: String,
}

impl Place {
    /// The file of a secret that the testbed made.
    fn read(&self, name: &str) -> Result<String> {
        let path = self.out.join(name);
        std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()).into())
    }

    /// The URI of PostgreSQL's administrator.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn database_admin(&self) -> Result<String> {
        self.read("database-admin-uri")
    }

    /// The login of the registry that asks for one.
    ///
    /// # Errors
    /// When there is none.
    pub fn login(&self) -> Result<Login> {
        Ok(serde_json::from_str(&self.read("registry-login")?)?)
    }

    /// This machine's address on the way to the node: pods reach it there.
    ///
    /// # Errors
    /// When there is no way.
    pub fn own_address(&self) -> Result<IpAddr> {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.connect(self.gcs.trim_start_matches("http://"))?;
        Ok(socket.local_addr()?.ip())
    }

    /// Stops a component; it is started again when the answer is dropped.
    ///
    /// # Errors
    /// When it does not stop.
    pub fn stop(&self, component: &str) -> Result<Stopped> {
        testbed_command(&["stop", component])?.end(COMPONENT)?.expect(0)?;
        Ok(Stopped { component: component.to_owned() })
    }
}

/// The answer to the question for a testbed.
pub enum Found {
    /// It is up; whether this program has started it.
    Up(Box<Place>, bool),
    /// This machine cannot run one: why.
    Lacking(String),
}

/// The testbed; started if none is up.
///
/// # Errors
/// When it does not come up though this machine has what it needs.
pub fn find() -> Result<Found> {
    if let Some(place) = up()? {
        return Ok(Found::Up(Box::new(place), false));
    }
    eprintln!("starting a testbed");
    let ran = testbed_command(&["up"])?.end(UP)?;
    // A program is missing; this machine does not allow it.
    if matches!(ran.code, Some(7 | 8)) {
        let said: Vec<&str> = ran.lines.iter().map(|line| line.text.trim_start_matches("error ")).collect();
        return Ok(Found::Lacking(said.join("; ")));
    }
    ran.expect(0)?;
    let place = up()?.ok_or("the testbed is not up after `testbed up`")?;
    Ok(Found::Up(Box::new(place), true))
}

/// A component that is away.
pub struct Stopped {
    component: String,
}

impl Stopped {
    /// Starts it; returns when it works.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start(mut self) -> Result<()> {
        let component = std::mem::take(&mut self.component);
        testbed_command(&["start", &component])?.end(COMPONENT)?.expect(0).map(drop)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        if self.component.is_empty() {
            return;
        }
        let started = testbed_command(&["start", &self.component]).and_then(|running| running.end(COMPONENT));
        if let Err(error) = started.and_then(|ran| ran.expect(0)) {
            eprintln!("{} is not started again: {error}", self.component);
        }
    }
}

/// Takes the testbed down.
///
/// # Errors
/// When something of it stays.
pub fn down() -> Result<()> {
    testbed_command(&["down"])?.end(COMPONENT)?.expect(0).map(drop)
}

fn up() -> Result<Option<Place>> {
    let ran = testbed_command(&["status", "--json"])?.end(COMPONENT)?;
    if ran.code == Some(12) {
        return Ok(None);
    }
    let answer = ran.expect(0)?.json()?;
    ensure!(answer["testbed"].is_object(), "`testbed status` answered {answer}");
    Ok(Some(serde_json::from_value(answer["testbed"].clone())?))
}

/// The testbed is the developer's, so it is asked in the developer's environment. Options in
/// `XTASK_E2E_TESTBED` name another one: its folder, name and addresses.
fn testbed_command(args: &[&str]) -> Result<Running> {
    let mut command = testbed::command(env!("CARGO_BIN_EXE_xtask"));
    let which = std::env::var("XTASK_E2E_TESTBED").unwrap_or_default();
    command.arg("testbed").args(args).args(which.split_whitespace());
    Running::start(&format!("xtask testbed {}", args.join(" ")), command)
}
