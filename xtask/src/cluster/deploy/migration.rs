//! What a deploy does about the schema of the server's databases, decided from what they hold. Touches
//! nothing.

use std::io;

use k8s_openapi::api::core::v1::Pod;
use serde::Serialize;

use crate::error::{Error, Kind, Result};
use crate::report;
use crate::schema::status::Found;
use crate::schema::verdict::{Verdict, verdict};
use crate::schema::{Schema, Store, gate};

/// Seconds of a server that neither serves nor is worked on: the old one goes, the new one starts.
const CHANGEOVER: u64 = 45;

/// Bytes of a database that are backed up and migrated in a second, by a small machine.
const PACE: u64 = 10_000_000;

/// What becomes of the schema.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "action")]
pub enum Migration {
    /// Nothing: the databases have the schema that the image works with.
    #[default]
    None,
    /// Nobody could ask yet, for nothing is deployed whose pods reach them. What is empty is made.
    Unknown,
    /// Some are empty, and are made.
    Make,
    /// Some are behind, and are migrated: nothing serves meanwhile.
    Migrate(Needed),
    /// They go back to a backup, together with the release that it was made of.
    Restore {
        /// The backup.
        backup: String,
        /// What they hold now.
        #[serde(skip)]
        found: Vec<Found>,
    },
}

/// Databases that have to be migrated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Needed {
    /// The stores that are behind.
    pub stores: Vec<Way>,
    /// Bytes of all databases, where they tell.
    pub bytes: Option<u64>,
    /// What all stores hold now.
    #[serde(skip)]
    pub found: Vec<Found>,
}

/// A store's way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Way {
    /// Which store.
    pub store: Store,
    /// Its revision; `None`: nothing is noted.
    pub from: Option<String>,
    /// The revision that the image works with.
    pub to: String,
    /// How many migrations that takes, where it is known.
    pub migrations: Option<usize>,
}

/// Decides what an image does about what the databases hold. `login` says whether it keeps users, too.
///
/// # Errors
/// `RollbackRefused` where a newer MLflow has migrated them; `Check` where it is unclear what they hold.
pub fn decide(found: Vec<Found>, schema: &Schema, login: bool) -> Result<Migration> {
    let mut makes = login && found.iter().all(|found| found.store != Store::Login);
    let mut stores = Vec::new();
    for found in &found {
        let Some(known) = schema.of(found.store) else { continue };
        match verdict(found, known) {
            Verdict::Same => {}
            Verdict::Empty => makes = true,
            Verdict::Behind { migrations } => stores.push(Way {
                store: found.store,
                from: found.revisions.first().cloned(),
                to: known.head().to_owned(),
                migrations,
            }),
            Verdict::Ahead => return Err(ahead(found, known.head())),
            Verdict::Unclear => return Err(unclear(found)),
        }
    }
    Ok(match (stores.is_empty(), makes) {
        (false, _) => Migration::Migrate(Needed { stores, bytes: bytes(&found), found }),
        (true, true) => Migration::Make,
        (true, false) => Migration::None,
    })
}

/// Both stores may be in one database, which both tell the size of.
fn bytes(found: &[Found]) -> Option<u64> {
    found.iter().filter_map(|found| found.bytes).max()
}

fn ahead(found: &Found, wanted: &str) -> Error {
    let has = found.revisions.join(" ");
    let message =
        format!("a newer MLflow has migrated the {} database to {has}: the image works with {wanted}", found.store);
    Error::new(Kind::RollbackRefused, message).hint(
        "deploy an image of that MLflow or a newer one; or go back to the data of before the migration, too: \
         cargo xtask rollback --restore",
    )
}

fn unclear(found: &Found) -> Error {
    let message = match found.revisions.as_slice() {
        [] => format!("the {} database holds data, and no revision of its schema is noted in it", found.store),
        several => format!("several revisions are noted in the {} database: {}", found.store, several.join(", ")),
    };
    Error::new(Kind::Check, message).hint(
        "bring it to one revision with the MLflow that it is of: mlflow db upgrade; then run the same command again",
    )
}

impl Migration {
    /// What happens to the databases, for a person who is to agree.
    pub fn human(&self, out: &mut dyn io::Write, backup: bool) -> io::Result<()> {
        let Self::Migrate(needed) = self else { return Ok(()) };
        for Way { store, from, to, migrations } in &needed.stores {
            let from = from.as_deref().unwrap_or("an MLflow before 3.6");
            let steps = match migrations {
                Some(1) => ", 1 migration".to_owned(),
                Some(steps) => format!(", {steps} migrations"),
                None => String::new(),
            };
            writeln!(out, "the {store} database is migrated from {from} to {to}{steps}")?;
        }
        if let Some(bytes) = needed.bytes {
            writeln!(out, "  it has {}; nothing serves for about {} s", report::bytes(bytes), needed.downtime())?;
        }
        let way_back = match backup {
            true => {
                "a backup is made before, while nothing serves; if the new server fails, it is restored with the old one"
            }
            false => "NO backup is made: if the new server fails, the old one cannot run on the new schema",
        };
        writeln!(out, "  {way_back}")
    }
}

impl Needed {
    /// Seconds in which nothing serves, at a guess.
    pub fn downtime(&self) -> u64 {
        CHANGEOVER + self.bytes.unwrap_or_default().div_ceil(PACE)
    }
}

/// The pod that a server runs in, or may run in, while none should; `None` where all wait at their gates.
pub fn serving(pods: &[Pod]) -> Option<&str> {
    let runs = pods.iter().find(|pod| !waits(pod));
    runs.map(|pod| pod.metadata.name.as_deref().unwrap_or_default())
}

/// Whether no server runs in it: it has ended, or waits at its gate.
fn waits(pod: &Pod) -> bool {
    let Some(status) = &pod.status else { return true };
    if matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")) {
        return true;
    }
    let init = pod.spec.as_ref().and_then(|spec| spec.init_containers.as_deref()).unwrap_or_default();
    let is_gate = |name: &str| name == gate::CONTAINER;
    if !init.iter().any(|container| is_gate(&container.name)) {
        // A release of before the gate: its server refuses a schema that is not its own, and ends.
        let ready = |status: &k8s_openapi::api::core::v1::ContainerStatus| status.ready;
        let server = |status: &&k8s_openapi::api::core::v1::ContainerStatus| status.name == crate::cluster::CONTAINER;
        let is_ready = status.container_statuses.iter().flatten().find(server).is_some_and(ready);
        return !is_ready && pod.metadata.deletion_timestamp.is_none();
    }
    let state = status.init_container_statuses.iter().flatten().find(|status| is_gate(&status.name));
    let passed = |status: &k8s_openapi::api::core::v1::ContainerStatus| {
        let ended = status.state.as_ref().and_then(|state| state.terminated.as_ref());
        ended.is_some_and(|end| end.exit_code == 0)
    };
    !state.is_some_and(passed)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::{Value, json};

    use super::*;
    use crate::schema::Revisions;

    fn revisions(chain: &[&str]) -> Revisions {
        let parents = |at: usize| if at == 0 { vec![] } else { vec![chain[at - 1].to_owned()] };
        let all: BTreeMap<String, Vec<String>> =
            chain.iter().enumerate().map(|(at, revision)| ((*revision).to_owned(), parents(at))).collect();
        Revisions::try_from(all).unwrap()
    }

    fn found(store: Store, revision: &str, holds: bool) -> Found {
        let revisions = revision.split_whitespace().map(str::to_owned).collect();
        Found { store, revisions, holds, head: None, server: "postgresql 17".into(), bytes: Some(25_000_000) }
    }

    #[test]
    fn what_databases_hold_decides_what_becomes_of_them() {
        use Store::{Login, Tracking};
        let schema = Schema { tracking: revisions(&["a", "b", "c"]), login: Some(revisions(&["x", "y"])) };
        let check = |found: &[Found], login: bool, expected: &str| {
            let text = match decide(found.to_vec(), &schema, login) {
                Err(error) => format!("{:?}", error.kind()),
                Ok(Migration::Migrate(needed)) => needed
                    .stores
                    .iter()
                    .map(|way| {
                        let from = way.from.as_deref().unwrap_or("-");
                        format!("{} {from} {} {:?}", way.store, way.to, way.migrations.unwrap_or_default())
                    })
                    .collect::<Vec<_>>()
                    .join(", "),
                Ok(other) => format!("{other:?}"),
            };
            assert_eq!(text, expected, "{found:?}");
        };
        let tracking = |revision: &str| found(Tracking, revision, true);
        check(&[tracking("c")], false, "None");
        check(&[found(Tracking, "", false)], false, "Make");
        check(&[tracking("a")], false, "tracking a c 2");
        check(&[tracking("d")], false, "RollbackRefused");
        check(&[tracking("")], false, "Check");
        check(&[tracking("a b")], false, "Check");
        // A login that is new is made beside what is there.
        check(&[tracking("c")], true, "Make");
        check(&[tracking("b")], true, "tracking b c 1");
        check(&[tracking("c"), found(Login, "y", true)], true, "None");
        check(&[tracking("c"), found(Login, "", true)], true, "login - y 0");
        check(&[tracking("b"), found(Login, "x", true)], true, "tracking b c 1, login x y 1");
        check(&[tracking("c"), found(Login, "z", true)], true, "RollbackRefused");
    }

    #[test]
    fn an_image_without_migrations_for_users_does_not_ask_for_them() {
        let schema = Schema { tracking: revisions(&["a"]), login: None };
        let found = vec![found(Store::Tracking, "a", true), found(Store::Login, "x", true)];
        assert_eq!(decide(found, &schema, false).unwrap(), Migration::None);
    }

    #[test]
    fn a_person_is_told_what_it_costs() {
        let schema = Schema { tracking: revisions(&["a", "b", "c"]), login: None };
        let migration = decide(vec![found(Store::Tracking, "b", true)], &schema, false).unwrap();
        let text = |backup: bool| {
            let mut out = Vec::new();
            migration.human(&mut out, backup).unwrap();
            String::from_utf8(out).unwrap()
        };
        insta::assert_snapshot!(text(true), @r"
        the tracking database is migrated from b to c, 1 migration
          it has 25.0 MB; nothing serves for about 48 s
          a backup is made before, while nothing serves; if the new server fails, it is restored with the old one
        ");
        assert!(text(false).contains("NO backup"));
    }

    fn pod(gate: Option<Value>, server: Value, ends: bool) -> Pod {
        let init: Vec<Value> = gate.iter().map(|_| json!({"name": gate::CONTAINER, "image": "i"})).collect();
        let states: Vec<Value> = gate
            .iter()
            .map(|state| json!({"name": gate::CONTAINER, "image": "i", "imageID": "", "ready": false, "restartCount": 0, "state": state}))
            .collect();
        let deleted = ends.then_some("2026-11-28T00:00:00Z");
        serde_json::from_value(json!({
            "metadata": {"name": "p", "deletionTimestamp": deleted},
            "spec": {"initContainers": init, "containers": [{"name": "mlflow", "image": "i"}]},
            "status": {"phase": "Running", "initContainerStatuses": states, "containerStatuses": [server]},
        }))
        .unwrap()
    }

    #[test]
    fn no_server_runs_where_all_pods_wait() {
        let server =
            |ready: bool| json!({"name": "mlflow", "image": "i", "imageID": "", "ready": ready, "restartCount": 0});
        let check =
            |pod: Pod, expected: Option<&str>| assert_eq!(serving(std::slice::from_ref(&pod)), expected, "{pod:?}");
        let running = || Some(json!({"running": {}}));
        let ended = |code: i32| Some(json!({"terminated": {"exitCode": code}}));
        check(pod(running(), server(false), false), None);
        check(pod(Some(json!({"waiting": {}})), server(false), false), None);
        check(pod(ended(143), server(false), true), None);
        check(pod(ended(0), server(true), false), Some("p"));
        // It may be about to start, and one that is told to stop still ends what it has begun.
        check(pod(ended(0), server(false), false), Some("p"));
        check(pod(ended(0), server(false), true), Some("p"));
        check(pod(None, server(true), false), Some("p"));
        check(pod(None, server(false), true), Some("p"));
        check(pod(None, server(false), false), None);
        assert_eq!(serving(&[]), None);
    }
}
