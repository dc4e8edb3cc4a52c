//! Users of the cluster who are not its administrator: ServiceAccounts with a token of their own.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::Result;
use crate::kube::Kube;
use crate::site::Site;

/// The context in a user's kubeconfig.
pub const CONTEXT: &str = "user";

/// The ClusterRole that may do everything.
pub const ADMIN: &str = "cluster-admin";

const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";

/// A user.
pub struct User {
    kube: Kube,
    namespace: String,
    name: String,
    /// A kubeconfig with the user's token.
    pub kubeconfig: PathBuf,
}

impl User {
    /// A user with a ClusterRole in the site's namespace, which must be there. [`ADMIN`] is given in
    /// the whole cluster.
    ///
    /// # Errors
    /// When the API server refuses.
    pub fn new(site: &Site<'_>, name: &str, role: &str) -> Result<Self> {
        let kube = site.world.kube.clone();
        let kubeconfig = site.home.file(&format!("{name}.kubeconfig"));
        let user = Self { kube, namespace: site.name.clone(), name: name.to_owned(), kubeconfig };
        let metadata = json!({ "metadata": { "name": name } });
        user.kube.create(&site.path("v1", "serviceaccounts"), &metadata)?;
        let binding = json!({
            "metadata": { "name": user.binding() },
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role },
            "subjects": [{ "kind": "ServiceAccount", "name": name, "namespace": site.name }],
        });
        let bindings = match role {
            ADMIN => format!("{RBAC}/clusterrolebindings"),
            _ => site.path("rbac.authorization.k8s.io/v1", "rolebindings"),
        };
        user.kube.create(&bindings, &binding)?;
        // A token that is bound to an object ends with it.
        let anchor = user.kube.create(&site.path("v1", "secrets"), &metadata)?;
        let uid = &anchor["metadata"]["uid"];
        let bound = json!({ "apiVersion": "v1", "kind": "Secret", "name": name, "uid": uid });
        let path = site.path("v1", &format!("serviceaccounts/{name}/token"));
        let token = user.kube.create(&path, &json!({ "spec": { "boundObjectRef": bound } }))?;
        let token = token["status"]["token"].as_str().ok_or("a TokenRequest without a token")?;
        site.file(&format!("{name}.kubeconfig"), &with_token(&site.world.place.kubeconfig, token)?)?;
        Ok(user)
    }

    /// Ends the token.
    ///
    /// # Errors
    /// When the API server refuses.
    pub fn revoke(&self) -> Result<()> {
        self.kube.delete(&format!("/api/v1/namespaces/{}/secrets/{}", self.namespace, self.name))
    }

    /// Removes all of the user.
    ///
    /// # Errors
    /// When the API server refuses.
    pub fn delete(&self) -> Result<()> {
        let binding = self.binding();
        self.revoke()?;
        self.kube.delete(&format!("{RBAC}/clusterrolebindings/{binding}"))?;
        self.kube.delete(&format!("{RBAC}/namespaces/{}/rolebindings/{binding}", self.namespace))?;
        self.kube.delete(&format!("/api/v1/namespaces/{}/serviceaccounts/{}", self.namespace, self.name))
    }

    fn binding(&self) -> String {
        format!("{}-{}", self.namespace, self.name)
    }
}

impl Drop for User {
    fn drop(&mut self) {
        if let Err(error) = self.delete() {
            eprintln!("the user {} of {} is not removed: {error}", self.name, self.namespace);
        }
    }
}

/// The administrator's kubeconfig with another user in it.
fn with_token(kubeconfig: &Path, token: &str) -> Result<String> {
    let mut config: Value = serde_saphyr::from_str(&std::fs::read_to_string(kubeconfig)?)?;
    let cluster = config["contexts"][0]["context"]["cluster"].clone();
    config["users"] = json!([{ "name": CONTEXT, "user": { "token": token } }]);
    config["contexts"] = json!([{ "name": CONTEXT, "context": { "cluster": cluster, "user": CONTEXT } }]);
    config["current-context"] = json!(CONTEXT);
    Ok(config.to_string())
}
