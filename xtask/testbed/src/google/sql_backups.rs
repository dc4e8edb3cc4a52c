//! Backups of a Cloud SQL instance: what its databases held is really kept, and brought back.

use std::sync::Arc;

use serde_json::json;

use super::call::{Call, Reply};
use super::core::Core;
use super::failure::{Failure, Outcome};
use super::operations::Effect;
use super::postgres;
use super::sql::{BACKUPS, DATABASES, INSTANCES, begin, find, idle};
use super::state::now;

/// Answers a call about `backupRuns`.
pub(crate) async fn serve(
    core: &Arc<Core>,
    call: &Call,
    project: &str,
    instance: &str,
    rest: &[&str],
) -> Outcome<Reply> {
    let parent = format!("projects/{project}/instances/{instance}");
    let named = |id: &str| format!("{parent}/backupRuns/{id}");
    match (call.method.as_str(), rest) {
        ("GET", []) => {
            let state = core.state();
            find(&state, &parent)?;
            let mut items = state.list(BACKUPS, &format!("{parent}/"));
            // The newest first.
            items.reverse();
            Ok(json!({ "kind": "sql#backupRunsList", "items": items }).into())
        }
        ("POST", []) => take(core, call, project, instance).await,
        ("GET", [id]) => {
            let found = core.state().get(BACKUPS, &named(id)).cloned();
            found.map(Reply::from).ok_or_else(missing)
        }
        ("DELETE", [id]) => {
            let mut state = core.state();
            idle(&state, &parent)?;
            state.get(BACKUPS, &named(id)).ok_or_else(missing)?;
            state.kept.remove(&named(id));
            let effect = Effect::Remove(BACKUPS, named(id));
            Ok(begin(core, &mut state, call, project, instance, "DELETE_BACKUP", effect, Effect::None))
        }
        _ => Err(call.unknown()),
    }
}

fn missing() -> Failure {
    Failure::not_found("The backup run does not exist.").reason("backupRunDoesNotExist")
}

async fn take(core: &Arc<Core>, call: &Call, project: &str, instance: &str) -> Outcome<Reply> {
    let parent = format!("projects/{project}/instances/{instance}");
    let databases = {
        let state = core.state();
        idle(&state, &parent)?;
        state.list(DATABASES, &format!("{parent}/"))
    };
    let mut kept = Vec::new();
    for name in databases.iter().filter_map(|database| database["name"].as_str()).filter(|name| *name != "postgres") {
        kept.push((name.to_owned(), postgres::dump(core, name).await?));
    }
    let description = call.json()?["description"].clone();
    let mut state = core.state();
    idle(&state, &parent)?;
    let id = (1_700_000_000_000 + state.next()).to_string();
    let name = format!("{parent}/backupRuns/{id}");
    let run = json!({ "kind": "sql#backupRun", "id": id, "instance": instance, "status": "RUNNING",
        "type": "ON_DEMAND", "enqueuedTime": now(), "startTime": now(), "windowStartTime": now(),
        "description": description });
    state.put(BACKUPS, name.clone(), run);
    state.kept.insert(name.clone(), kept);
    let effect = Effect::Set(BACKUPS, name.clone(), json!({ "status": "SUCCESSFUL", "endTime": now() }));
    let on_failure = Effect::Set(BACKUPS, name, json!({ "status": "FAILED" }));
    Ok(begin(core, &mut state, call, project, instance, "BACKUP_VOLUME", effect, on_failure))
}

/// Answers `restoreBackup`: the instance's databases are those of the backup, and no others.
pub(crate) async fn restore(core: &Arc<Core>, call: &Call, project: &str, instance: &str) -> Outcome<Reply> {
    let parent = format!("projects/{project}/instances/{instance}");
    let body = call.json()?;
    let context = &body["restoreBackupContext"];
    let number = context["backupRunId"].as_u64().map(|id| id.to_string());
    let id = number.or_else(|| context["backupRunId"].as_str().map(str::to_owned));
    let id = id.ok_or_else(|| Failure::invalid("Missing parameter: backupRunId."))?;
    let from = context["instanceId"].as_str().unwrap_or(instance);
    let name = format!("projects/{project}/instances/{from}/backupRuns/{id}");
    let (kept, here) = {
        let state = core.state();
        idle(&state, &parent)?;
        let run = state.get(BACKUPS, &name).ok_or_else(missing)?;
        if run["status"] != "SUCCESSFUL" {
            return Err(Failure::invalid("Invalid request: the backup run is not successful."));
        }
        (state.kept.get(&name).cloned().unwrap_or_default(), state.list(DATABASES, &format!("{parent}/")))
    };
    let is_kept = |name: &str| kept.iter().any(|(kept, _)| kept == name);
    let newer = here.iter().filter_map(|database| database["name"].as_str());
    for name in newer.filter(|name| *name != "postgres" && !is_kept(name)) {
        postgres::drop_database(core, name).await?;
        core.state().remove(DATABASES, &format!("{parent}/databases/{name}"));
    }
    for (database, content) in kept {
        postgres::bring_back(core, &database, content).await?;
    }
    let mut state = core.state();
    let on_failure = Effect::Set(INSTANCES, parent, json!({ "state": "FAILED" }));
    Ok(begin(core, &mut state, call, project, instance, "RESTORE_VOLUME", Effect::None, on_failure))
}
