//! `[environment.NAME.iap]`: Google's Identity-Aware Proxy, in front of a Gateway of GKE.

use std::path::Path;

use super::read::{at_most_one, existing, file, variable};
use super::{Secret, checks};
use crate::config::table::Table;
use crate::error::Result;

/// The key of a Secret at which GKE looks for the client's secret.
pub const CLIENT_KEY: &str = "key";

/// Where requests of Google's load balancers and health checks come from
/// (<https://cloud.google.com/load-balancing/docs/firewall-rules>).
pub const RANGES: [&str; 2] = ["130.211.0.0/22", "35.191.0.0/16"];

/// A login by Google's Identity-Aware Proxy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Iap {
    /// The OAuth client that people log in with; `None`: Google's own.
    pub client: Option<IapClient>,
    /// The service account whose tokens programs use.
    pub account: Option<String>,
}

/// An OAuth client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IapClient {
    /// Its id, for which tokens of programs are made.
    pub id: String,
    /// Its secret.
    pub secret: Secret,
}

/// Reads the table.
pub(super) fn read(root: &Path, table: &mut Table<'_, '_>) -> Result<Iap> {
    let mut table = table.nested("iap")?;
    let id = table.optional("client-id", |text| match text.ends_with(".apps.googleusercontent.com") {
        true => Ok(()),
        false => Err(format!("{text:?} is not an OAuth client: it ends in .apps.googleusercontent.com")),
    })?;
    let sources = [
        ("client-secret-file", file(root, &mut table, "client-secret-file")?),
        ("client-secret-variable", variable(&mut table, "client-secret-variable")?),
        ("client-secret-secret", existing(&mut table, "client-secret-secret", "client-secret-key", CLIENT_KEY)?),
    ];
    let secret = at_most_one(&table, sources)?;
    if let Some(Secret::Existing { key, .. }) = secret.as_ref().filter(|secret| !is_readable(secret)) {
        let why = format!("GKE looks for the client's secret at {CLIENT_KEY:?}, not at {key:?}");
        return Err(table.refuse("client-secret-key", why).hint("give the Secret that key"));
    }
    let client = match (id, secret) {
        (None, None) => None,
        (Some(id), Some(secret)) => Some(IapClient { id, secret }),
        (Some(_), None) => {
            let hint = "add client-secret-file, client-secret-variable or client-secret-secret";
            return Err(table.refuse("client-id", "nothing says where the client's secret is").hint(hint));
        }
        (None, Some(_)) => {
            let hint = "add it, or leave the secret out: then Google's own client is used";
            return Err(table.refuse("client-id", "it is missing, and there is a secret of a client").hint(hint));
        }
    };
    let account = table.optional("service-account", checks::service_account)?;
    table.finish()?;
    Ok(Iap { client, account })
}

fn is_readable(secret: &Secret) -> bool {
    !matches!(secret, Secret::Existing { key, .. } if key != CLIENT_KEY)
}
