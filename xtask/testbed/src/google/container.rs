//! Google Kubernetes Engine: clusters whose API server is a real one beside this.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::call::{Call, Reply};
use super::core::Core;
use super::failure::{Failure, Outcome};
use super::operations::{Effect, Operation, Style, merge};
use super::state::{State, now};

pub(crate) const CLUSTERS: &str = "container.clusters";
const VERSION: &str = "1.33.4-gke.1000";

/// Answers a call.
pub(crate) fn serve(core: &Core, call: &Call) -> Outcome<Reply> {
    let mut state = core.state();
    let parts = call.parts();
    let (["v1" | "v1beta1", "projects", project, "locations" | "zones", location, rest @ ..], verb) =
        (parts.as_slice(), call.verb.as_str())
    else {
        return Err(call.unknown());
    };
    let place = Place { core, call, project: state.project(project)?.id.clone(), location: (*location).to_owned() };
    match (call.method.as_str(), rest, verb) {
        ("GET", ["serverConfig"], "") => Ok(json!({
            "defaultClusterVersion": VERSION, "validMasterVersions": [VERSION], "validNodeVersions": [VERSION],
            "defaultImageType": "COS_CONTAINERD", "validImageTypes": ["COS_CONTAINERD"],
            "channels": [{ "channel": "REGULAR", "defaultVersion": VERSION, "validVersions": [VERSION] }],
        })
        .into()),
        ("GET", ["operations"], "") => {
            let prefix = place.prefix();
            Ok(json!({ "operations": state.operations(Style::Container, &prefix) }).into())
        }
        ("GET", ["operations", name], "") => {
            let found = state.poll(&format!("projects/{}/locations/{location}/operations/{name}", place.project));
            found.map(Reply::from).ok_or_else(|| Failure::not_found(format!("Not found: operation {name}.")))
        }
        ("GET", ["clusters"], "") => {
            Ok(json!({ "clusters": state.list(CLUSTERS, &format!("{}clusters/", place.prefix())) }).into())
        }
        ("POST", ["clusters"], "") => place.create(&mut state),
        (_, ["clusters", name, rest @ ..], _) => {
            let full = format!("projects/{}/locations/{location}/clusters/{name}", place.project);
            let Some(found) = state.get(CLUSTERS, &full).cloned() else {
                return Err(Failure::not_found(format!("Not found: {full}.")));
            };
            place.cluster(&mut state, &full, &found, rest)
        }
        _ => Err(call.unknown()),
    }
}

/// Where a call goes.
struct Place<'a> {
    core: &'a Core,
    call: &'a Call,
    project: String,
    location: String,
}

impl Place<'_> {
    fn prefix(&self) -> String {
        match self.location.as_str() {
            "-" => format!("projects/{}/locations/", self.project),
            location => format!("projects/{}/locations/{location}/", self.project),
        }
    }

    fn begin(&self, state: &mut State, what: &str, target: &str, effect: Effect, on_failure: Effect) -> Reply {
        let id = format!("operation-{}-{:08x}", state.next(), rand::random::<u32>());
        let base = format!("{}/container/v1", self.call.base());
        let name = format!("projects/{}/locations/{}/operations/{id}", self.project, self.location);
        let fields = json!({
            "name": id,
            "zone": self.location,
            "location": self.location,
            "operationType": what,
            "selfLink": format!("{base}/{name}"),
            "targetLink": format!("{base}/{target}"),
            "startTime": now(),
        });
        let operation = Operation::new(Style::Container, target, fields).effect(effect).on_failure(on_failure);
        state.begin(&name, operation, self.call, self.core.options.polls).into()
    }

    fn cluster(&self, state: &mut State, full: &str, found: &Value, rest: &[&str]) -> Outcome<Reply> {
        let call = self.call;
        let method = call.method.as_str();
        if method == "GET" {
            return match rest {
                [] => Ok(found.clone().into()),
                ["nodePools"] => Ok(json!({ "nodePools": found["nodePools"] }).into()),
                ["nodePools", name] => {
                    let pool = found["nodePools"].as_array().into_iter().flatten().find(|pool| pool["name"] == *name);
                    pool.cloned()
                        .map(Reply::from)
                        .ok_or_else(|| Failure::not_found(format!("Not found: {full}/nodePools/{name}.")))
                }
                _ => Err(call.unknown()),
            };
        }
        if state.is_busy(full) {
            let message = "Cluster is running incompatible operation. Please wait and try again once it is done.";
            return Err(Failure::precondition(message));
        }
        match (method, rest) {
            ("DELETE", []) => {
                state.get_mut(CLUSTERS, full).expect("it was found")["status"] = "STOPPING".into();
                let effect = Effect::Remove(CLUSTERS, full.to_owned());
                Ok(self.begin(state, "DELETE_CLUSTER", full, effect, Effect::None))
            }
            ("PUT", []) => {
                let update = call.json()?["update"].clone();
                let cluster = state.get_mut(CLUSTERS, full).expect("it was found");
                merge(cluster, &desired(&update));
                Ok(self.begin(state, "UPDATE_CLUSTER", full, Effect::None, Effect::None))
            }
            ("POST", ["nodePools"]) => {
                let pool = self.pool(call.json()?["nodePool"].clone(), full);
                let cluster = state.get_mut(CLUSTERS, full).expect("it was found");
                let pools = cluster["nodePools"].as_array_mut().expect("a cluster has node pools");
                if pools.iter().any(|found| found["name"] == pool["name"]) {
                    return Err(Failure::exists(format!("Already exists: {full}/nodePools/{}.", pool["name"])));
                }
                pools.push(pool);
                Ok(self.begin(state, "CREATE_NODE_POOL", full, Effect::None, Effect::None))
            }
            ("DELETE", ["nodePools", name]) => {
                let cluster = state.get_mut(CLUSTERS, full).expect("it was found");
                cluster["nodePools"]
                    .as_array_mut()
                    .expect("a cluster has node pools")
                    .retain(|pool| pool["name"] != *name);
                Ok(self.begin(state, "DELETE_NODE_POOL", full, Effect::None, Effect::None))
            }
            ("PUT" | "POST", ["nodePools", ..]) => {
                Ok(self.begin(state, "UPDATE_NODE_POOL", full, Effect::None, Effect::None))
            }
            ("POST", [] | [_]) => {
                let change = call.json()?;
                if call.verb == "setResourceLabels" || rest == ["resourceLabels"] {
                    let cluster = state.get_mut(CLUSTERS, full).expect("it was found");
                    cluster["resourceLabels"] = change["resourceLabels"].clone();
                }
                Ok(self.begin(state, "UPDATE_CLUSTER", full, Effect::None, Effect::None))
            }
            _ => Err(call.unknown()),
        }
    }

    fn pool(&self, mut pool: Value, cluster: &str) -> Value {
        let name = pool["name"].as_str().unwrap_or_default();
        let link = format!("{}/container/v1/{cluster}/nodePools/{name}", self.call.base());
        let defaults = json!({
            "status": "RUNNING",
            "version": VERSION,
            "initialNodeCount": 1,
            "locations": [format!("{}-a", self.location)],
            "selfLink": link,
            "instanceGroupUrls": [],
            "management": { "autoUpgrade": true, "autoRepair": true },
            "maxPodsConstraint": { "maxPodsPerNode": "110" },
            "podIpv4CidrSize": 24,
            "upgradeSettings": { "maxSurge": 1, "strategy": "SURGE" },
            "networkConfig": {},
            "config": { "machineType": "e2-medium", "diskSizeGb": 100, "diskType": "pd-balanced",
                "imageType": "COS_CONTAINERD", "serviceAccount": "default",
                "metadata": { "disable-legacy-endpoints": "true" },
                "oauthScopes": ["https://www.googleapis.com/auth/cloud-platform"] },
        });
        fill(&mut pool, &defaults);
        pool
    }

    fn create(&self, state: &mut State) -> Outcome<Reply> {
        let mut cluster = self.call.json()?["cluster"].clone();
        let id = cluster["name"].as_str().unwrap_or_default().to_owned();
        let is_name = id.starts_with(|first: char| first.is_ascii_lowercase())
            && id.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
        if !is_name || id.len() > 40 {
            return Err(Failure::invalid(format!("Invalid value for field \"cluster.name\": \"{id}\".")));
        }
        let full = format!("{}clusters/{id}", self.prefix());
        if state.get(CLUSTERS, &full).is_some() {
            return Err(Failure::exists(format!("Already exists: {full}.")));
        }
        for (field, collection) in [("network", "global/networks"), ("subnetwork", "subnetworks")] {
            if let Some(named) = cluster[field].as_str().filter(|named| *named != "default") {
                let short = named.rsplit('/').next().unwrap_or_default();
                let region = self.location.splitn(3, '-').take(2).collect::<Vec<_>>().join("-");
                let place =
                    if field == "network" { collection.to_owned() } else { format!("regions/{region}/{collection}") };
                if state
                    .get(&format!("compute.{field}s"), &format!("projects/{}/{place}/{short}", self.project))
                    .is_none()
                {
                    return Err(Failure::invalid(format!("Resource \"{named}\" was not found.")));
                }
                cluster[field] = short.into();
            }
        }
        let number = state.next();
        self.complete(&mut cluster, &full, number);
        if cluster["workloadIdentityConfig"]["workloadPool"].is_string() {
            state.identity_pools.insert(self.project.clone());
        }
        state.put(CLUSTERS, full.clone(), cluster);
        let effect = Effect::Set(CLUSTERS, full.clone(), json!({ "status": "RUNNING" }));
        let on_failure = Effect::Set(CLUSTERS, full.clone(), json!({ "status": "ERROR" }));
        Ok(self.begin(state, "CREATE_CLUSTER", &full, effect, on_failure))
    }

    fn complete(&self, cluster: &mut Value, full: &str, number: u64) {
        let autopilot = cluster["autopilot"]["enabled"] == true;
        if autopilot {
            let pool = format!("{}.svc.id.goog", self.project);
            fill(cluster, &json!({ "workloadIdentityConfig": { "workloadPool": pool } }));
        }
        let mut pools = cluster["nodePools"].as_array().cloned().unwrap_or_default();
        if pools.is_empty() {
            let count = cluster["initialNodeCount"].as_u64().unwrap_or(1);
            let mut config = cluster["nodeConfig"].clone();
            if autopilot {
                config = cluster["autoscaling"]["autoprovisioningNodePoolDefaults"].clone();
                if let Some(fields) = config.as_object_mut() {
                    fields.retain(|name, _| name == "serviceAccount");
                }
            }
            pools.push(json!({ "name": "default-pool", "initialNodeCount": count, "config": config }));
        }
        let pools: Vec<Value> = pools.into_iter().map(|pool| self.pool(pool, full)).collect();
        cluster["nodeConfig"] = pools[0]["config"].clone();
        cluster["nodePools"] = json!(pools);
        cluster["currentNodeCount"] = json!(pools.len());
        let ca = self.core.options.cluster_ca.clone().unwrap_or_else(|| self.core.authority.pem());
        let endpoint = self.core.options.cluster_endpoint.clone().unwrap_or_else(|| "127.0.0.1".to_owned());
        let network = cluster["network"].as_str().unwrap_or("default").to_owned();
        let subnetwork = cluster["subnetwork"].as_str().unwrap_or("default").to_owned();
        merge(
            cluster,
            &json!({
                "createTime": now(),
                "currentMasterVersion": VERSION,
                "currentNodeVersion": VERSION,
                "endpoint": endpoint,
                "etag": format!("{number:08x}"),
                "id": format!("{number:064x}"),
                "location": self.location,
                "masterAuth": { "clusterCaCertificate": STANDARD.encode(ca) },
                "networkConfig": {
                    "network": format!("projects/{}/global/networks/{network}", self.project),
                    "subnetwork": format!(
                        "projects/{}/regions/{}/subnetworks/{subnetwork}", self.project, self.location),
                },
                "selfLink": format!("{}/container/v1/{full}", self.call.base()),
                "status": "PROVISIONING",
                "zone": self.location,
            }),
        );
        let options = &self.core.options;
        let name = match (&options.cluster_dns_endpoint, &options.cluster_endpoint) {
            (Some(name), _) => Some(name.clone()),
            (None, Some(_)) => None,
            (None, None) => Some(format!("gke-{number:012x}.{}.gke.goog", self.location)),
        };
        if let Some(name) = name {
            cluster["controlPlaneEndpointsConfig"]["dnsEndpointConfig"]["endpoint"] = name.into();
        }
        fill(
            cluster,
            &json!({
                "addonsConfig": { "networkPolicyConfig": { "disabled": true } },
                "autopilot": {},
                "autoscaling": { "autoscalingProfile": "OPTIMIZE_UTILIZATION" },
                "binaryAuthorization": {},
                "clusterIpv4Cidr": "10.100.0.0/17",
                "controlPlaneEndpointsConfig": {
                    "dnsEndpointConfig": { "allowExternalTraffic": false },
                    "ipEndpointsConfig": { "enabled": true, "publicEndpoint": endpoint, "privateEndpoint": endpoint,
                        "enablePublicEndpoint": true },
                },
                "databaseEncryption": { "state": "DECRYPTED", "currentState": "CURRENT_STATE_DECRYPTED" },
                "defaultMaxPodsConstraint": { "maxPodsPerNode": "110" },
                "initialClusterVersion": VERSION,
                "ipAllocationPolicy": { "useIpAliases": true, "clusterIpv4CidrBlock": "10.100.0.0/17",
                    "servicesIpv4CidrBlock": "34.118.224.0/20", "stackType": "IPV4" },
                "labelFingerprint": "a9dc16a7",
                "legacyAbac": {},
                "locations": [format!("{}-a", self.location)],
                "loggingConfig": { "componentConfig": { "enableComponents": ["SYSTEM_COMPONENTS", "WORKLOADS"] } },
                "loggingService": "logging.googleapis.com/kubernetes",
                "maintenancePolicy": { "resourceVersion": "e3b0c442" },
                "masterAuthorizedNetworksConfig": { "gcpPublicCidrsAccessEnabled": true },
                "monitoringConfig": { "componentConfig": { "enableComponents": ["SYSTEM_COMPONENTS"] } },
                "monitoringService": "monitoring.googleapis.com/kubernetes",
                "network": "default",
                "networkConfig": { "datapathProvider": "ADVANCED_DATAPATH", "defaultSnatStatus": {},
                    "serviceExternalIpsConfig": {} },
                "nodePoolDefaults": { "nodeConfigDefaults": {} },
                "notificationConfig": { "pubsub": {} },
                "podAutoscaling": {},
                "privateClusterConfig": { "privateEndpoint": endpoint, "publicEndpoint": endpoint },
                "releaseChannel": { "channel": "REGULAR" },
                "securityPostureConfig": { "mode": "BASIC", "vulnerabilityMode": "VULNERABILITY_MODE_UNSPECIFIED" },
                "servicesIpv4Cidr": "34.118.224.0/20",
                "shieldedNodes": { "enabled": true },
                "subnetwork": "default",
                "verticalPodAutoscaling": { "enabled": true },
                "enterpriseConfig": { "clusterTier": "STANDARD" },
            }),
        );
    }
}

/// Fields that are not there yet.
fn fill(into: &mut Value, from: &Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (name, value) in from {
                fill(into.entry(name.clone()).or_insert(Value::Null), value);
            }
        }
        (into @ Value::Null, from) => *into = from.clone(),
        _ => {}
    }
}

/// What an update wishes, as fields of the cluster: `desiredX` becomes `x`.
fn desired(update: &Value) -> Value {
    let mut fields = serde_json::Map::new();
    for (name, value) in update.as_object().into_iter().flatten() {
        if let Some(rest) = name.strip_prefix("desired") {
            let mut letters = rest.chars();
            let first = letters.next().map(|letter| letter.to_ascii_lowercase()).into_iter();
            fields.insert(first.chain(letters).collect(), value.clone());
        }
    }
    Value::Object(fields)
}
