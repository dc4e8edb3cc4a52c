//! Compute Engine: networks, and the quotas of regions.

use serde_json::{Value, json};

use super::call::{Call, Reply};
use super::core::Core;
use super::failure::{Failure, Outcome};
use super::operations::{Effect, Operation, Style, merge};
use super::state::{State, now};

pub(crate) const REGIONS: &[&str] =
    &["us-central1", "us-east1", "us-west1", "europe-west1", "europe-west3", "europe-west4", "asia-east1"];
const ZONES: &[&str] = &["a", "b", "c"];

/// Collections: where they are, their kind for clients, their kind in the state.
const KINDS: &[(&str, &str, &str)] = &[
    ("networks", "compute#network", "compute.networks"),
    ("subnetworks", "compute#subnetwork", "compute.subnetworks"),
    ("addresses", "compute#address", "compute.addresses"),
    ("routers", "compute#router", "compute.routers"),
    ("firewalls", "compute#firewall", "compute.firewalls"),
    ("routes", "compute#route", "compute.routes"),
];

/// Quotas of a region that clients read, with a limit that nobody reaches.
const QUOTAS: &[(&str, u64)] =
    &[("CPUS", 72), ("DISKS_TOTAL_GB", 4096), ("IN_USE_ADDRESSES", 23), ("SSD_TOTAL_GB", 2048)];

/// Answers a call.
pub(crate) fn serve(core: &Core, call: &Call) -> Outcome<Reply> {
    let mut state = core.state();
    let parts = call.parts();
    let ["compute", _, "projects", project, rest @ ..] = parts.as_slice() else { return Err(call.unknown()) };
    let project = state.project(project)?.clone();
    let base = format!("{}/compute/compute/v1/projects/{}", call.base(), project.id);
    match (call.method.as_str(), rest) {
        ("GET", []) => Ok(json!({ "kind": "compute#project", "name": project.id, "id": project.number.to_string(),
            "defaultServiceAccount": format!("{}-compute@developer.gserviceaccount.com", project.number),
            "quotas": [], "selfLink": base })
        .into()),
        ("GET", ["regions"]) => {
            let items: Vec<Value> = REGIONS.iter().map(|name| region(&project, &base, name)).collect();
            Ok(json!({ "kind": "compute#regionList", "items": items }).into())
        }
        ("GET", ["regions", name]) => {
            let name = REGIONS
                .iter()
                .find(|found| *found == name)
                .ok_or_else(|| missing(&base, &format!("regions/{name}")))?;
            Ok(region(&project, &base, name).into())
        }
        ("GET", ["zones"]) => {
            let zones = REGIONS.iter().flat_map(|region| ZONES.iter().map(move |zone| format!("{region}-{zone}")));
            let items: Vec<Value> = zones.map(|name| zone(&base, &name)).collect();
            Ok(json!({ "kind": "compute#zoneList", "items": items }).into())
        }
        ("GET", ["zones", name]) => Ok(zone(&base, name).into()),
        ("GET" | "POST", [scope @ .., "operations", name]) => operation(&mut state, call, &project.id, scope, name),
        ("POST", [scope @ .., "operations", name, "wait"]) => operation(&mut state, call, &project.id, scope, name),
        ("GET", ["aggregated", collection]) => {
            let kind = kind(collection).ok_or_else(|| call.unknown())?;
            let mut items = serde_json::Map::new();
            for item in state.list(kind.2, &format!("projects/{}/", project.id)) {
                let scope = item["region"].as_str().and_then(|link| link.split("/projects/").nth(1)?.split_once('/'));
                let scope = scope.map_or("global", |(_, scope)| scope).to_owned();
                let entry = items.entry(scope).or_insert_with(|| json!({ *collection: [] }));
                entry[*collection].as_array_mut().expect("a list was put there").push(item);
            }
            Ok(json!({ "kind": "compute#aggregatedList", "items": items }).into())
        }
        (_, ["global", collection, rest @ ..]) => {
            let scope = Scope { project: &project.id, place: "global".to_owned(), region: None, base: &base };
            resource(core, &mut state, call, &scope, collection, rest)
        }
        (_, ["regions", region, collection, rest @ ..]) => {
            if !REGIONS.contains(region) {
                return Err(Failure::invalid(format!("Invalid value for field 'region': '{region}'. Unknown region.")));
            }
            let place = format!("regions/{region}");
            let scope = Scope { project: &project.id, place, region: Some(region), base: &base };
            resource(core, &mut state, call, &scope, collection, rest)
        }
        _ => Err(call.unknown()),
    }
}

/// Where a resource is.
struct Scope<'a> {
    project: &'a str,
    place: String,
    region: Option<&'a str>,
    base: &'a str,
}

fn kind(collection: &str) -> Option<(&'static str, &'static str, &'static str)> {
    KINDS.iter().find(|(name, ..)| *name == collection).copied()
}

fn missing(base: &str, what: &str) -> Failure {
    let path = base.split("/compute/v1/").last().unwrap_or_default();
    Failure::not_found(format!("The resource '{path}/{what}' was not found"))
}

fn region(project: &super::options::Project, base: &str, name: &str) -> Value {
    let mut quotas: Vec<Value> = QUOTAS
        .iter()
        .filter(|(metric, _)| !project.quotas.contains_key(*metric))
        .map(|(metric, limit)| json!({ "metric": metric, "limit": limit, "usage": 0 }))
        .collect();
    quotas.extend(project.quotas.iter().map(|(metric, limit)| json!({ "metric": metric, "limit": limit, "usage": 0 })));
    let zones: Vec<String> = ZONES.iter().map(|zone| format!("{base}/zones/{name}-{zone}")).collect();
    json!({ "kind": "compute#region", "id": "1000", "name": name, "status": "UP", "quotas": quotas, "zones": zones,
        "selfLink": format!("{base}/regions/{name}") })
}

fn zone(base: &str, name: &str) -> Value {
    let region = name.rsplit_once('-').map_or(name, |(region, _)| region);
    json!({ "kind": "compute#zone", "id": "2000", "name": name, "status": "UP",
        "region": format!("{base}/regions/{region}"), "selfLink": format!("{base}/zones/{name}") })
}

fn operation(state: &mut State, call: &Call, project: &str, scope: &[&str], name: &str) -> Outcome<Reply> {
    let full = format!("projects/{project}/{}/operations/{name}", scope.join("/"));
    state.poll(&full).map(Reply::from).ok_or_else(|| missing(&call.base(), &full))
}

#[expect(clippy::too_many_arguments, reason = "an operation has that many parts")]
fn begin(
    core: &Core,
    state: &mut State,
    call: &Call,
    scope: &Scope<'_>,
    what: &str,
    target: &str,
    effect: Effect,
    on_failure: Effect,
) -> Reply {
    let (id, number) = (format!("operation-{}-{:08x}", state.next(), rand::random::<u32>()), state.number());
    let mut fields = json!({
        "kind": "compute#operation",
        "id": number,
        "name": id,
        "operationType": what,
        "targetLink": format!("{}/{}", scope.base, target),
        "targetId": state.number(),
        "user": call.principal.email(),
        "insertTime": now(),
        "startTime": now(),
        "selfLink": format!("{}/{}/operations/{id}", scope.base, scope.place),
    });
    if let Some(region) = scope.region {
        fields["region"] = format!("{}/regions/{region}", scope.base).into();
    }
    let full = format!("projects/{}/{target}", scope.project);
    let operation = Operation::new(Style::Compute, full, fields).effect(effect).on_failure(on_failure);
    let name = format!("projects/{}/{}/operations/{id}", scope.project, scope.place);
    state.begin(&name, operation, call, core.options.polls).into()
}

fn resource(
    core: &Core,
    state: &mut State,
    call: &Call,
    scope: &Scope<'_>,
    collection: &str,
    rest: &[&str],
) -> Outcome<Reply> {
    let (_, client_kind, kind) = kind(collection).ok_or_else(|| call.unknown())?;
    let prefix = format!("projects/{}/{}/{collection}/", scope.project, scope.place);
    match (call.method.as_str(), rest) {
        ("GET", []) => {
            let items = state.list(kind, &prefix);
            Ok(json!({ "kind": format!("{client_kind}List"), "items": items }).into())
        }
        ("POST", []) => create(core, state, call, scope, collection),
        (method, [id]) => {
            let (name, target) = (format!("{prefix}{id}"), format!("{}/{collection}/{id}", scope.place));
            let Some(found) = state.get(kind, &name).cloned() else { return Err(missing(scope.base, &target)) };
            match method {
                "GET" => Ok(found.into()),
                "PATCH" | "PUT" => {
                    let change = call.json()?;
                    // Lists are replaced; an empty list removes what was in it.
                    merge(state.get_mut(kind, &name).expect("it was found"), &change);
                    let undo = Effect::Set(kind, name, found);
                    Ok(begin(core, state, call, scope, "patch", &target, Effect::None, undo))
                }
                "DELETE" => {
                    unused(state, scope, &found)?;
                    Ok(begin(core, state, call, scope, "delete", &target, Effect::Remove(kind, name), Effect::None))
                }
                _ => Err(call.unknown()),
            }
        }
        ("GET", [_, "getNatMappingInfo" | "getRouterStatus"]) => Ok(json!({ "result": [] }).into()),
        // Of this side alone: it works while Cloud SQL still keeps its own.
        ("POST", [id, "removePeering"]) if collection == "networks" => {
            let target = format!("{}/{collection}/{id}", scope.place);
            let connection = format!("{prefix}{id}");
            let wanted = call.json()?["name"].clone();
            let found = state.get(super::networking::CONNECTIONS, &connection);
            if found.is_none_or(|found| found["peering"] != wanted) {
                return Err(Failure::invalid(format!("There is no peering {wanted} on network {connection}.")));
            }
            let effect = Effect::Remove(super::networking::CONNECTIONS, connection);
            Ok(begin(core, state, call, scope, "removePeering", &target, effect, Effect::None))
        }
        ("POST", [id, "setPrivateIpGoogleAccess"]) => {
            let (name, target) = (format!("{prefix}{id}"), format!("{}/{collection}/{id}", scope.place));
            let change = call.json()?;
            let found = state.get_mut(kind, &name).ok_or_else(|| missing(scope.base, &target))?;
            merge(found, &change);
            Ok(begin(core, state, call, scope, "setPrivateIpGoogleAccess", &target, Effect::None, Effect::None))
        }
        _ => Err(call.unknown()),
    }
}

/// Refuses to remove a network that something is in.
fn unused(state: &State, scope: &Scope<'_>, network: &Value) -> Outcome<()> {
    if network["kind"] != "compute#network" {
        return Ok(());
    }
    let name = network["name"].as_str().unwrap_or_default();
    let ending = format!("/networks/{name}");
    let kinds = ["compute.subnetworks", "compute.routers", "compute.addresses", "compute.firewalls"];
    let user = kinds.iter().flat_map(|kind| state.list(kind, &format!("projects/{}/", scope.project)));
    let user = user.into_iter().find(|user| user["network"].as_str().is_some_and(|link| link.ends_with(&ending)));
    let peering =
        state.get(super::networking::CONNECTIONS, &format!("projects/{}/global/networks/{name}", scope.project));
    let Some(user) = user.or_else(|| peering.cloned()) else { return Ok(()) };
    let by = user["selfLink"].as_str().or(user["peering"].as_str()).unwrap_or_default();
    let by = by.split("/compute/v1/").last().unwrap_or_default();
    Err(Failure::invalid(format!(
        "The network resource 'projects/{}/global/networks/{name}' is already being used by '{by}'",
        scope.project
    ))
    .reason("resourceInUseByAnotherResource"))
}

fn create(core: &Core, state: &mut State, call: &Call, scope: &Scope<'_>, collection: &str) -> Outcome<Reply> {
    let (_, client_kind, kind) = kind(collection).ok_or_else(|| call.unknown())?;
    let mut value = call.json()?;
    let id = value["name"].as_str().unwrap_or_default().to_owned();
    let is_name = id.starts_with(|first: char| first.is_ascii_lowercase())
        && id.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
    if !is_name || id.len() > 63 {
        return Err(Failure::invalid(format!("Invalid value for field 'resource.name': '{id}'.")));
    }
    let target = format!("{}/{collection}/{id}", scope.place);
    let name = format!("projects/{}/{target}", scope.project);
    if state.get(kind, &name).is_some() {
        return Err(Failure::exists(format!("The resource '{name}' already exists")));
    }
    if let Some(network) = value["network"].as_str() {
        let path = network.split("/projects/").last().unwrap_or_default().trim_start_matches("projects/");
        let path = if path.starts_with("global/") { format!("{}/{path}", scope.project) } else { path.to_owned() };
        if state.get("compute.networks", &format!("projects/{path}")).is_none() {
            return Err(missing(
                scope.base,
                &format!("global/networks/{}", path.rsplit('/').next().unwrap_or_default()),
            ));
        }
        let short = path.split_once('/').map_or("", |(_, rest)| rest);
        value["network"] = format!("{}/{short}", scope.base).into();
    }
    let number = state.number();
    merge(
        &mut value,
        &json!({
            "kind": client_kind,
            "id": number,
            "creationTimestamp": now(),
            "selfLink": format!("{}/{target}", scope.base),
            "fingerprint": "abcd=",
        }),
    );
    if let Some(region) = scope.region {
        value["region"] = format!("{}/regions/{region}", scope.base).into();
    }
    complete(state, &mut value, collection);
    state.put(kind, name.clone(), value);
    if collection == "subnetworks" {
        link_subnetworks(state, scope, &name);
    }
    let undo = Effect::Remove(kind, name);
    Ok(begin(core, state, call, scope, "insert", &target, Effect::None, undo))
}

/// What Google fills in.
fn complete(state: &mut State, value: &mut Value, collection: &str) {
    let serial = state.next() % 200;
    let defaults = match collection {
        "networks" => json!({ "routingConfig": { "routingMode": "REGIONAL" }, "subnetworks": [], "mtu": 1460,
            "networkFirewallPolicyEnforcementOrder": "AFTER_CLASSIC_FIREWALL" }),
        "subnetworks" => json!({ "gatewayAddress": "10.0.0.1", "purpose": "PRIVATE", "stackType": "IPV4_ONLY",
            "privateIpGoogleAccess": false, "privateIpv6GoogleAccess": "DISABLE_GOOGLE_ACCESS" }),
        "addresses" => {
            json!({ "status": "RESERVED", "address": format!("10.{serial}.0.0"), "addressType": "EXTERNAL" })
        }
        "routers" => json!({ "encryptedInterconnectRouter": false }),
        _ => json!({}),
    };
    for (field, default) in defaults.as_object().into_iter().flatten() {
        if value[field].is_null() {
            value[field] = default.clone();
        }
    }
    if let Some(range) = value["ipCidrRange"].as_str().and_then(|range| range.split_once('/')) {
        let gateway = range.0.rsplit_once('.').map(|(net, _)| format!("{net}.1"));
        value["gatewayAddress"] = gateway.unwrap_or_default().into();
    }
}

/// Writes down which subnetworks there are in the network of this one.
fn link_subnetworks(state: &mut State, scope: &Scope<'_>, name: &str) {
    let Some(subnetwork) = state.get("compute.subnetworks", name).cloned() else { return };
    let network = subnetwork["network"].as_str().and_then(|link| link.rsplit('/').next()).unwrap_or_default();
    let network = format!("projects/{}/global/networks/{network}", scope.project);
    let all = state.list("compute.subnetworks", &format!("projects/{}/", scope.project));
    let inside = all.iter().filter(|other| other["network"] == subnetwork["network"]);
    let links: Vec<Value> = inside.map(|subnetwork| subnetwork["selfLink"].clone()).collect();
    if let Some(network) = state.get_mut("compute.networks", &network) {
        network["subnetworks"] = links.into();
    }
}
