//! Who may do what at the fake Google: exactly what the table in the design names, and nothing more.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::{Result, ensure};

use super::site::{BUCKET, PROJECT, REGION};

/// What is granted by default, with a cluster: resource, role, member.
pub fn granted_with_a_cluster() -> BTreeSet<[String; 3]> {
    let account = |role: &str| format!("serviceAccount:mlflow{role}@{PROJECT}.iam.gserviceaccount.com");
    let server = format!("projects/{PROJECT}/serviceAccounts/mlflow@{PROJECT}.iam.gserviceaccount.com");
    let pods = format!("serviceAccount:{PROJECT}.svc.id.goog[mlflow/mlflow]");
    let mut granted = granted_by_default();
    granted.extend([
        [server, "roles/iam.workloadIdentityUser".to_owned(), pods],
        [format!("projects/{PROJECT}"), "roles/container.defaultNodeServiceAccount".to_owned(), account("-nodes")],
    ]);
    granted
}

/// What is granted without one.
pub fn granted_by_default() -> BTreeSet<[String; 3]> {
    let account = |role: &str| format!("serviceAccount:mlflow{role}@{PROJECT}.iam.gserviceaccount.com");
    let project = || format!("projects/{PROJECT}");
    let repository = format!("projects/{PROJECT}/locations/{REGION}/repositories/mlflow");
    BTreeSet::from([
        [format!("buckets/{BUCKET}"), "roles/storage.objectUser".to_owned(), account("")],
        [project(), "roles/cloudsql.client".to_owned(), account("")],
        [project(), "roles/cloudsql.instanceUser".to_owned(), account("")],
        [repository, "roles/artifactregistry.reader".to_owned(), account("-nodes")],
    ])
}

/// What is granted, by the fake's state.
pub fn granted(state: &Value) -> BTreeSet<[String; 3]> {
    let mut found = BTreeSet::new();
    for (resource, bindings) in state["policies"].as_object().into_iter().flatten() {
        for binding in bindings.as_array().into_iter().flatten() {
            for member in binding["members"].as_array().into_iter().flatten() {
                let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                let legacy = text(&binding["role"]).starts_with("roles/storage.legacy");
                if !legacy {
                    found.insert([resource.clone(), text(&binding["role"]), text(member)]);
                }
            }
        }
    }
    found
}

/// Fails unless exactly this is granted.
///
/// # Errors
/// Naming what lacks and what is too much.
pub fn expect_granted(state: &Value, expected: &BTreeSet<[String; 3]>) -> Result<usize> {
    let found = granted(state);
    let lacks: Vec<_> = expected.difference(&found).collect();
    let much: Vec<_> = found.difference(expected).collect();
    ensure!(lacks.is_empty() && much.is_empty(), "granted too little: {lacks:?}; too much: {much:?}");
    Ok(found.len())
}
