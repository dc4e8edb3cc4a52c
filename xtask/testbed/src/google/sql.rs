//! Cloud SQL Admin: instances, databases, users, backups, and what connectors ask for.

use std::sync::Arc;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::call::{Call, Principal, Reply};
use super::core::Core;
use super::failure::{Failure, Outcome};
use super::operations::{Effect, Operation, Style, merge};
use super::postgres;
use super::sql_rules::{self, TIERS};
use super::state::{Session, State, now};

pub(crate) const INSTANCES: &str = "sql.instances";
pub(crate) const DATABASES: &str = "sql.databases";
pub(crate) const USERS: &str = "sql.users";
pub(crate) const BACKUPS: &str = "sql.backupRuns";

/// Answers a call.
pub(crate) async fn serve(core: &Arc<Core>, call: &Call) -> Outcome<Reply> {
    let parts = call.parts();
    let (["sql", "v1beta4" | "v1", "projects", project, rest @ ..]
    | ["v1" | "v1beta4", "projects", project, rest @ ..]) = parts.as_slice()
    else {
        return Err(call.unknown());
    };
    let project = core.state().project(project)?.id.clone();
    let named = |instance: &str| format!("projects/{project}/instances/{instance}");
    match (call.method.as_str(), rest, call.verb.as_str()) {
        ("GET", ["instances"], "") => {
            let items = core.state().list(INSTANCES, &named(""));
            Ok(json!({ "kind": "sql#instancesList", "items": items }).into())
        }
        ("POST", ["instances"], "") => insert(core, call, &project),
        ("GET", ["instances", instance], "") => find(&core.state(), &named(instance)).map(Reply::from),
        ("PATCH" | "PUT", ["instances", instance], "") => update(core, call, &project, instance),
        ("DELETE", ["instances", instance], "") => delete(core, call, &project, instance).await,
        ("POST", ["instances", instance, "restart"], "") => {
            let mut state = core.state();
            idle(&state, &named(instance))?;
            Ok(begin(core, &mut state, call, &project, instance, "RESTART", Effect::None, Effect::None))
        }
        ("GET", ["instances", instance, "connectSettings"], "") => connect_settings(core, &named(instance)),
        ("POST", ["instances", instance], "generateEphemeralCert")
        | ("POST", ["instances", instance, "createEphemeral"], "") => ephemeral(core, call, &project, instance),
        (_, ["instances", instance, "databases", rest @ ..], "") => {
            databases(core, call, &project, instance, rest).await
        }
        (_, ["instances", instance, "users", rest @ ..], "") => {
            super::sql_users::serve(core, call, &project, instance, rest).await
        }
        (_, ["instances", instance, "backupRuns", rest @ ..], "") => {
            super::sql_backups::serve(core, call, &project, instance, rest).await
        }
        ("POST", ["instances", instance, "restoreBackup"], "") => {
            super::sql_backups::restore(core, call, &project, instance).await
        }
        ("GET", ["operations"], "") => {
            let wanted = call.query("instance").map(str::to_owned);
            let mut items = core.state().operations(Style::Sql, &format!("projects/{project}/"));
            items.retain(|item| wanted.as_ref().is_none_or(|wanted| item["targetId"] == *wanted));
            Ok(json!({ "kind": "sql#operationsList", "items": items }).into())
        }
        ("GET", ["operations", name], "") => {
            let found = core.state().poll(&format!("projects/{project}/operations/{name}"));
            found.map(Reply::from).ok_or_else(|| {
                Failure::not_found("The Cloud SQL operation does not exist.").reason("operationDoesNotExist")
            })
        }
        ("GET", ["tiers"], "") => {
            let tier = |(name, memory): &(&str, u64)| {
                json!({ "kind": "sql#tier", "tier": name, "RAM": (memory << 20).to_string(),
                    "DiskQuota": "3298534883328",
                    "region": super::compute::REGIONS })
            };
            let items: Vec<Value> = TIERS.iter().map(tier).collect();
            Ok(json!({ "kind": "sql#tiersList", "items": items }).into())
        }
        _ => Err(call.unknown()),
    }
}

/// An instance, or the error that there is none.
pub(crate) fn find(state: &State, name: &str) -> Outcome<Value> {
    let found = state.get(INSTANCES, name).cloned();
    found.ok_or_else(|| Failure::not_found("The Cloud SQL instance does not exist.").reason("instanceDoesNotExist"))
}

/// Refuses where an operation is running.
pub(crate) fn idle(state: &State, name: &str) -> Outcome<Value> {
    let found = find(state, name)?;
    if state.is_busy(name) {
        let message = "Operation failed because another operation was already in progress. Try your request after \
            the current operation is complete.";
        return Err(Failure::exists(message).status("ABORTED").reason("operationInProgress"));
    }
    Ok(found)
}

#[expect(clippy::too_many_arguments, reason = "an operation has that many parts")]
pub(crate) fn begin(
    core: &Core,
    state: &mut State,
    call: &Call,
    project: &str,
    instance: &str,
    what: &str,
    effect: Effect,
    on_failure: Effect,
) -> Reply {
    let id = format!("{:08x}-{:04x}-{:08x}", rand::random::<u32>(), rand::random::<u16>(), state.next());
    let link = format!("{}/sql/sql/v1beta4/projects/{project}", call.base());
    let fields = json!({
        "kind": "sql#operation",
        "name": id,
        "operationType": what,
        "targetId": instance,
        "targetProject": project,
        "targetLink": format!("{link}/instances/{instance}"),
        "selfLink": format!("{link}/operations/{id}"),
        "insertTime": now(),
        "startTime": now(),
        "user": call.principal.email(),
    });
    let target = format!("projects/{project}/instances/{instance}");
    let operation = Operation::new(Style::Sql, target, fields).effect(effect).on_failure(on_failure);
    state.begin(&format!("projects/{project}/operations/{id}"), operation, call, core.options.polls).into()
}

/// The name by which clients check the instance's certificate.
fn dns_name(project: &str, instance: &str, region: &str) -> String {
    let digest = Sha256::digest(format!("{project}:{instance}"));
    let hex: String = digest.iter().take(12).map(|byte| format!("{byte:02x}")).collect();
    format!("{}.{}.{region}.sql.goog", &hex[..12], &hex[12..])
}

fn insert(core: &Core, call: &Call, project: &str) -> Outcome<Reply> {
    let mut instance = call.json()?;
    let fields = instance.as_object_mut().ok_or_else(|| Failure::invalid("The body must be an object."))?;
    fields.remove("rootPassword");
    sql_rules::complete(&mut instance)?;
    let id = instance["name"].as_str().unwrap_or_default().to_owned();
    let region = instance["region"].as_str().unwrap_or("us-central1").to_owned();
    if !super::compute::REGIONS.contains(&region.as_str()) {
        return Err(Failure::invalid(format!("Invalid request: Invalid value for region: {region}.")));
    }
    let name = format!("projects/{project}/instances/{id}");
    let mut state = core.state();
    if state.get(INSTANCES, &name).is_some() || state.retired.contains(&name) {
        let message = "The Cloud SQL instance already exists. When you delete an instance, you can't reuse the name of \
            the deleted instance until one week from the deletion date.";
        return Err(Failure::exists(message).reason("instanceAlreadyExists"));
    }
    let ip = instance["settings"]["ipConfiguration"].clone();
    if let Some(network) = ip["privateNetwork"].as_str() {
        let network = network.split("projects/").last().unwrap_or_default();
        if state.get(super::networking::CONNECTIONS, &format!("projects/{network}")).is_none() {
            return Err(Failure::invalid(format!(
                "Invalid request: Incorrect Service Networking config for instance: {project}:{id}:NETWORK_NOT_PEERED."
            )));
        }
    }
    let address = address(core);
    let mut addresses = Vec::new();
    if ip["ipv4Enabled"] != false {
        addresses.push(json!({ "type": "PRIMARY", "ipAddress": address }));
    }
    if !ip["privateNetwork"].is_null() {
        addresses.push(json!({ "type": "PRIVATE", "ipAddress": address }));
    }
    let serial = state.next();
    merge(
        &mut instance,
        &json!({
            "kind": "sql#instance",
            "backendType": "SECOND_GEN",
            "connectionName": format!("{project}:{region}:{id}"),
            "createTime": now(),
            "dnsName": dns_name(project, &id, &region),
            "etag": format!("{serial:064x}"),
            "gceZone": format!("{region}-a"),
            "instanceType": "CLOUD_SQL_INSTANCE",
            "ipAddresses": addresses,
            "project": project,
            "region": region,
            "selfLink": format!("{}/sql/sql/v1beta4/projects/{project}/instances/{id}", call.base()),
            "serverCaCert": {
                "kind": "sql#sslCert",
                "cert": core.authority.pem(),
                "commonName": "C=US,O=Google\\, Inc,CN=Google Cloud SQL Server CA",
                "instance": id,
                "certSerialNumber": "0",
                "createTime": now(),
                "expirationTime": "2099-01-01T00:00:00Z",
                "sha1Fingerprint": "00",
            },
            "serviceAccountEmailAddress": format!("p{serial}-cloudsql@gcp-sa-cloud-sql.iam.gserviceaccount.com"),
            "settings": { "settingsVersion": "1" },
            "state": "PENDING_CREATE",
        }),
    );
    instance["databaseInstalledVersion"] = instance["databaseVersion"].clone();
    state.put(INSTANCES, name.clone(), instance);
    let database = json!({ "kind": "sql#database", "name": "postgres", "instance": id, "project": project,
        "charset": "UTF8", "collation": "en_US.UTF8", "etag": "0",
        "selfLink": format!("{}/sql/sql/v1beta4/projects/{project}/instances/{id}/databases/postgres", call.base()) });
    state.put(DATABASES, format!("{name}/databases/postgres"), database);
    let user =
        json!({ "kind": "sql#user", "name": "postgres", "instance": id, "project": project, "host": "", "etag": "0" });
    state.put(USERS, format!("{name}/users/postgres"), user);
    let effect = Effect::Set(INSTANCES, name.clone(), json!({ "state": "RUNNABLE" }));
    let on_failure = Effect::Set(INSTANCES, name, json!({ "state": "FAILED" }));
    Ok(begin(core, &mut state, call, project, &id, "CREATE", effect, on_failure))
}

fn address(core: &Core) -> String {
    let tunnel = core.options.tunnel.map_or_else(|| "127.0.0.1".to_owned(), |tunnel| tunnel.ip().to_string());
    core.options.instance_address.clone().unwrap_or(tunnel)
}

fn update(core: &Core, call: &Call, project: &str, id: &str) -> Outcome<Reply> {
    let name = format!("projects/{project}/instances/{id}");
    let mut change = call.json()?;
    let mut state = core.state();
    let old = idle(&state, &name)?;
    let version = &old["settings"]["settingsVersion"];
    let given = &change["settings"]["settingsVersion"];
    if !given.is_null() && given.as_str().map(str::to_owned).unwrap_or_else(|| given.to_string()) != *version {
        let message = "The settingsVersion is not the latest; read the instance again.";
        return Err(Failure::new(412, message).reason("staleData"));
    }
    let mut new = old.clone();
    if let Some(fields) = change.as_object_mut() {
        for fixed in
            ["name", "region", "project", "state", "ipAddresses", "serverCaCert", "connectionName", "rootPassword"]
        {
            fields.remove(fixed);
        }
    }
    merge(&mut new, &change);
    let next = version.as_str().and_then(|text| text.parse::<u64>().ok()).unwrap_or(0) + 1;
    new["settings"]["settingsVersion"] = next.to_string().into();
    let settings = &new["settings"];
    let (edition, tier) = (settings["edition"].as_str(), settings["tier"].as_str());
    sql_rules::check_tier(edition.unwrap_or_default(), tier.unwrap_or_default())?;
    state.put(INSTANCES, name.clone(), new);
    let on_failure = Effect::Set(INSTANCES, name, json!({ "settings": old["settings"] }));
    Ok(begin(core, &mut state, call, project, id, "UPDATE", Effect::None, on_failure))
}

async fn delete(core: &Arc<Core>, call: &Call, project: &str, id: &str) -> Outcome<Reply> {
    let name = format!("projects/{project}/instances/{id}");
    let (databases, users) = {
        let state = core.state();
        let found = idle(&state, &name)?;
        if found["settings"]["deletionProtectionEnabled"] == true {
            let message = "The instance is protected. Please disable the deletion protection and try again. To disable \
                deletion protection, update the instance settings with deletionProtectionEnabled set to false.";
            return Err(Failure::invalid(message).reason("deletionProtectionEnabled"));
        }
        (state.list(DATABASES, &format!("{name}/")), state.list(USERS, &format!("{name}/")))
    };
    if call.operation.is_none() {
        for database in databases.iter().filter(|database| database["name"] != "postgres") {
            postgres::drop_database(core, database["name"].as_str().unwrap_or_default()).await?;
        }
        for user in users.iter().filter(|user| user["name"] != "postgres") {
            // What it owns elsewhere keeps the role; a next instance takes it over.
            let _ = postgres::drop_user(core, user["name"].as_str().unwrap_or_default()).await;
        }
    }
    let mut state = core.state();
    for kind in [DATABASES, USERS, BACKUPS] {
        if let Some(all) = state.resources.get_mut(kind) {
            all.retain(|found, _| !found.starts_with(&format!("{name}/")));
        }
    }
    state.kept.retain(|found, _| !found.starts_with(&format!("{name}/")));
    state.retired.insert(name.clone());
    state.get_mut(INSTANCES, &name).expect("it was found")["state"] = "PENDING_DELETE".into();
    Ok(begin(core, &mut state, call, project, id, "DELETE", Effect::Remove(INSTANCES, name), Effect::None))
}

fn connect_settings(core: &Core, name: &str) -> Outcome<Reply> {
    let instance = find(&core.state(), name)?;
    Ok(json!({
        "kind": "sql#connectSettings",
        "backendType": instance["backendType"],
        "databaseVersion": instance["databaseVersion"],
        "dnsName": instance["dnsName"],
        "ipAddresses": instance["ipAddresses"],
        "region": instance["region"],
        "serverCaCert": instance["serverCaCert"],
        "serverCaMode": "GOOGLE_MANAGED_INTERNAL_CA",
        "pscEnabled": false,
    })
    .into())
}

fn ephemeral(core: &Core, call: &Call, project: &str, instance: &str) -> Outcome<Reply> {
    let name = format!("projects/{project}/instances/{instance}");
    let body = call.json()?;
    let mut state = core.state();
    find(&state, &name)?;
    let login: Option<Principal> = match body["access_token"].as_str().filter(|token| !token.is_empty()) {
        None => None,
        Some(token) => {
            let found = state.principal(token.trim_end_matches('.'), &core.options.owner);
            Some(found.ok_or_else(|| Failure::invalid("Invalid access token."))?)
        }
    };
    let key = body["public_key"].as_str().unwrap_or_default();
    let (pem, der) =
        core.authority.client(key).map_err(|error| Failure::invalid(format!("Invalid public key: {error}")))?;
    let session = Session { project: project.to_owned(), instance: instance.to_owned(), login };
    state.sessions.insert(Sha256::digest(&der).to_vec(), session);
    let until = time::OffsetDateTime::now_utc() + time::Duration::hours(1);
    let until = until.format(&time::format_description::well_known::Rfc3339).expect("a date after 1970");
    let cert = json!({ "kind": "sql#sslCert", "cert": pem, "commonName": "cloudsql-ephemeral", "createTime": now(),
        "expirationTime": until, "instance": instance, "certSerialNumber": "0", "sha1Fingerprint": "00" });
    Ok(if call.verb.is_empty() { cert.into() } else { json!({ "ephemeralCert": cert }).into() })
}

async fn databases(core: &Arc<Core>, call: &Call, project: &str, instance: &str, rest: &[&str]) -> Outcome<Reply> {
    let parent = format!("projects/{project}/instances/{instance}");
    let missing = || Failure::not_found("The Cloud SQL database does not exist.").reason("databaseDoesNotExist");
    match (call.method.as_str(), rest) {
        ("GET", []) => {
            let state = core.state();
            find(&state, &parent)?;
            let items = state.list(DATABASES, &format!("{parent}/"));
            Ok(json!({ "kind": "sql#databasesList", "items": items }).into())
        }
        ("GET", [name]) => {
            let state = core.state();
            find(&state, &parent)?;
            state.get(DATABASES, &format!("{parent}/databases/{name}")).cloned().map(Reply::from).ok_or_else(missing)
        }
        ("POST", []) => {
            let mut database = call.json()?;
            let name = database["name"].as_str().unwrap_or_default().to_owned();
            let full = format!("{parent}/databases/{name}");
            {
                let state = core.state();
                idle(&state, &parent)?;
                if name.is_empty() || state.get(DATABASES, &full).is_some() {
                    let message = format!(
                        "Invalid request: failed to create database {name}. Detail: pq: database \"{name}\" already \
                         exists."
                    );
                    return Err(Failure::invalid(message));
                }
            }
            postgres::create_database(core, &name).await?;
            let link = format!("{}/sql/sql/v1beta4/{full}", call.base());
            merge(
                &mut database,
                &json!({ "kind": "sql#database", "charset": "UTF8", "collation": "en_US.UTF8",
                "etag": "0", "instance": instance, "project": project, "selfLink": link }),
            );
            let mut state = core.state();
            state.put(DATABASES, full.clone(), database);
            let undo = Effect::Remove(DATABASES, full);
            Ok(begin(core, &mut state, call, project, instance, "CREATE_DATABASE", Effect::None, undo))
        }
        ("PATCH" | "PUT", [_]) => {
            let mut state = core.state();
            idle(&state, &parent)?;
            Ok(begin(core, &mut state, call, project, instance, "UPDATE_DATABASE", Effect::None, Effect::None))
        }
        ("DELETE", [name]) => {
            let full = format!("{parent}/databases/{name}");
            {
                let state = core.state();
                idle(&state, &parent)?;
                state.get(DATABASES, &full).ok_or_else(missing)?;
            }
            postgres::drop_database(core, name).await?;
            let mut state = core.state();
            let effect = Effect::Remove(DATABASES, full);
            Ok(begin(core, &mut state, call, project, instance, "DELETE_DATABASE", effect, Effect::None))
        }
        _ => Err(call.unknown()),
    }
}
