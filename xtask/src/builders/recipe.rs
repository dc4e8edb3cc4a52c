//! What the Dockerfile's builders have in common: the context, the arguments and labels that a build
//! gets beside the Dockerfile.

use std::path::{Path, PathBuf};

use super::project::{Project, VERSION_LABEL, folder};
use crate::error::{Error, Kind, Result};

/// Where pip and uv find packages. Handed on from the environment to the build by name, so that a
/// login in an address does not reach the command line.
const INDEX_VARIABLES: [&str; 4] = ["PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "UV_DEFAULT_INDEX", "UV_INDEX"];

/// Where a machine names the certificates that it trusts, first wins.
const CA_VARIABLES: [&str; 4] = ["SSL_CERT_FILE", "PIP_CERT", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"];

/// A build of `mlflow_server/Dockerfile`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recipe {
    /// The build context.
    pub context: PathBuf,
    /// Labels that are not in the Dockerfile.
    pub labels: Vec<(String, String)>,
    /// The user's `--build-arg`s: `NAME=VALUE`, or `NAME` alone, whose value is in the environment.
    pub args: Vec<String>,
    /// Variables of this machine's environment that say where packages are.
    pub index: Vec<&'static str>,
    /// Certificates that the build trusts.
    pub ca: Option<PathBuf>,
    /// SOURCE_DATE_EPOCH.
    pub epoch: Option<String>,
    /// Nothing may be downloaded.
    pub offline: bool,
}

impl Recipe {
    /// The recipe of this checkout. `vars` is the environment, `args` the user's `--build-arg`s.
    pub fn new(root: &Path, args: &[String], offline: bool, vars: &dyn Fn(&str) -> Option<String>) -> Result<Self> {
        let epoch = vars("SOURCE_DATE_EPOCH").filter(|epoch| !epoch.is_empty());
        // Reading the locks also tells what is wrong with them before anything is started.
        let project = Project::read(root, epoch.as_deref())?;
        for arg in args {
            let name = arg.split('=').next().unwrap_or_default();
            if name.is_empty() {
                return Err(Error::new(Kind::Usage, format!("--build-arg {arg:?} has no name"))
                    .hint("write it as NAME=VALUE, or as NAME to hand on a variable of the environment"));
            }
            if arg == name && vars(name).is_none() {
                return Err(Error::new(Kind::Usage, format!("--build-arg {name}: the environment has no {name}"))
                    .hint(format!("write it as {name}=VALUE, or set the variable")));
            }
        }
        let given = |name: &str| args.iter().any(|arg| arg.split('=').next() == Some(name));
        let set = |name: &str| vars(name).is_some_and(|value| !value.is_empty());
        let index = INDEX_VARIABLES.into_iter().filter(|name| set(name) && !given(name)).collect();
        let ca = CA_VARIABLES.iter().filter_map(|name| vars(name)).find(|value| !value.is_empty()).map(PathBuf::from);
        Ok(Self {
            context: folder(root),
            labels: vec![(VERSION_LABEL.to_owned(), project.version)],
            args: args.to_vec(),
            index,
            ca: ca.filter(|file| file.is_file()),
            epoch,
            offline,
        })
    }
}
