//! A site's pods.

use serde_json::Value;

use crate::Result;
use crate::site::Site;

/// The server's.
const SERVER: &str = "app.kubernetes.io/component=server";

/// Those of a selector that are to stay.
///
/// # Errors
/// When the API server does not answer.
pub fn of(site: &Site<'_>, selector: &str) -> Result<Vec<Value>> {
    let mut pods = site.world.kube.list(&site.path("v1", &format!("pods?labelSelector={selector}")))?;
    pods.retain(|pod| pod["metadata"]["deletionTimestamp"].is_null());
    Ok(pods)
}

/// How many pods of the server's there are, those that end among them.
///
/// # Errors
/// As [`of`].
pub fn servers(site: &Site<'_>) -> Result<usize> {
    Ok(site.world.kube.list(&site.path("v1", &format!("pods?labelSelector={SERVER}")))?.len())
}

/// The one server, and its name.
///
/// # Errors
/// When there are more, or none.
pub fn server(site: &Site<'_>) -> Result<(Value, String)> {
    let [pod] = <[Value; 1]>::try_from(of(site, SERVER)?).map_err(|pods| format!("{} pods serve", pods.len()))?;
    let name = pod["metadata"]["name"].as_str().ok_or("a pod without a name")?.to_owned();
    Ok((pod, name))
}
