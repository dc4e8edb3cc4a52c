//! Everything that exists.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::{Value, json};

use super::call::Principal;
use super::failure::{Failure, Outcome};
use super::faults::Rule;
use super::log::Entry;
use super::operations::Operation;
use super::options::Project;
use super::policy::Policy;

/// A token that was handed out here.
#[derive(Clone, Debug)]
pub(crate) struct Token {
    pub(crate) principal: Principal,
    pub(crate) until: Instant,
}

/// A client certificate of a Cloud SQL instance.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    pub(crate) project: String,
    pub(crate) instance: String,
    /// Whose token is in it.
    pub(crate) login: Option<Principal>,
}

/// An upload in parts.
#[derive(Clone, Debug)]
pub(crate) struct Upload {
    pub(crate) bucket: String,
    pub(crate) metadata: Value,
    pub(crate) bytes: Vec<u8>,
}

/// Everything that exists.
#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) projects: BTreeMap<String, Project>,
    /// By kind and name, like `sql.instances` and `projects/P/instances/I`.
    pub(crate) resources: BTreeMap<&'static str, BTreeMap<String, Value>>,
    /// By the name of the resource.
    pub(crate) policies: BTreeMap<String, Policy>,
    pub(crate) enabled: BTreeMap<String, BTreeSet<String>>,
    pub(crate) operations: BTreeMap<String, Operation>,
    /// Names of Cloud SQL instances that are blocked after a deletion.
    pub(crate) retired: BTreeSet<String>,
    /// Projects with an identity pool of Kubernetes: it comes with the first cluster that uses it.
    pub(crate) identity_pools: BTreeSet<String>,
    pub(crate) tokens: BTreeMap<String, Token>,
    /// Public halves of service account keys, PKCS#1, by key id.
    pub(crate) public_keys: BTreeMap<String, Vec<u8>>,
    /// By digest of the certificate.
    pub(crate) sessions: BTreeMap<Vec<u8>, Session>,
    /// Passwords of the roles of IAM users in PostgreSQL, by role.
    pub(crate) role_passwords: BTreeMap<String, String>,
    pub(crate) contents: BTreeMap<(String, String), Bytes>,
    /// What the databases of a Cloud SQL instance held, by the backup's name: their names and dumps.
    pub(crate) kept: BTreeMap<String, Vec<(String, Bytes)>>,
    pub(crate) uploads: BTreeMap<String, Upload>,
    pub(crate) rules: Vec<Rule>,
    pub(crate) log: Vec<Entry>,
    counter: u64,
}

impl State {
    /// A number that was not there before.
    pub(crate) fn next(&mut self) -> u64 {
        self.counter += 1;
        self.counter
    }

    /// A number of the length that Google gives to things.
    pub(crate) fn number(&mut self) -> String {
        format!("1{:020}", 5_000_000_000_u64 + self.next())
    }

    pub(crate) fn get(&self, kind: &str, name: &str) -> Option<&Value> {
        self.resources.get(kind)?.get(name)
    }

    pub(crate) fn get_mut(&mut self, kind: &str, name: &str) -> Option<&mut Value> {
        self.resources.get_mut(kind)?.get_mut(name)
    }

    pub(crate) fn put(&mut self, kind: &'static str, name: impl Into<String>, value: Value) {
        self.resources.entry(kind).or_default().insert(name.into(), value);
    }

    /// Removes it and its policy.
    pub(crate) fn remove(&mut self, kind: &str, name: &str) -> Option<Value> {
        self.policies.remove(name);
        self.resources.get_mut(kind)?.remove(name)
    }

    /// Those whose names begin with `prefix`, in the order of their names.
    pub(crate) fn list(&self, kind: &str, prefix: &str) -> Vec<Value> {
        let all = self.resources.get(kind).into_iter().flatten();
        all.filter(|(name, _)| name.starts_with(prefix)).map(|(_, value)| value.clone()).collect()
    }

    /// A project by id or number.
    pub(crate) fn project(&self, text: &str) -> Outcome<&Project> {
        let found = self.projects.get(text);
        let found = found.or_else(|| self.projects.values().find(|project| project.number.to_string() == text));
        found.ok_or_else(|| {
            Failure::new(403, format!("Permission denied on resource project {text}.")).info(
                "CONSUMER_INVALID",
                "googleapis.com",
                json!({ "consumer": format!("projects/{text}") }),
            )
        })
    }

    /// Who a token belongs to; `None` for one that has expired.
    pub(crate) fn principal(&self, token: &str, owner: &str) -> Option<Principal> {
        match self.tokens.get(token) {
            None => Some(Principal::Owner(owner.to_owned())),
            Some(token) if token.until > Instant::now() => Some(token.principal.clone()),
            Some(_) => None,
        }
    }

    /// A new token of a service account.
    pub(crate) fn token(&mut self, account: &str, lifetime: Duration) -> String {
        let token = format!("ya29.testbed-{}-{:032x}", self.next(), rand::random::<u128>());
        let principal = Principal::Account(account.to_owned());
        self.tokens.insert(token.clone(), Token { principal, until: Instant::now() + lifetime });
        token
    }

    /// Everything that is not secret, in a stable order.
    pub(crate) fn to_json(&self) -> Value {
        let resources: BTreeMap<_, _> = self.resources.iter().filter(|(_, all)| !all.is_empty()).collect();
        let granted = |policy: &Policy| -> Vec<Value> {
            let made_by_google = |binding: &Value| {
                let role = binding["role"].as_str().unwrap_or_default();
                role.starts_with("roles/storage.legacy")
            };
            policy.bindings.iter().filter(|binding| !made_by_google(binding)).cloned().collect()
        };
        let policies: BTreeMap<&String, Value> = self
            .policies
            .iter()
            .map(|(name, policy)| (name, granted(policy)))
            .filter(|(_, bindings)| !bindings.is_empty())
            .map(|(name, bindings)| (name, json!(bindings)))
            .collect();
        let running: Vec<&String> =
            self.operations.iter().filter(|(_, operation)| !operation.done).map(|(name, _)| name).collect();
        json!({
            "enabled": self.enabled,
            "operations": running,
            "policies": policies,
            "projects": self.projects,
            "resources": resources,
            "retired": self.retired,
        })
    }
}

/// Now, as Google writes it.
pub(crate) fn now() -> String {
    let now = time::OffsetDateTime::now_utc().replace_nanosecond(0).expect("zero is a nanosecond");
    now.format(&time::format_description::well_known::Rfc3339).expect("a date after 1970")
}
