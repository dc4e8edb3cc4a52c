//! What there is at Google, and how it compares with what is wanted. Asks nobody.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::config::infra::{ClusterShape, DATABASE, InfraConfig, SqlLogin};
use crate::gcloud::Call;

use super::calls;
use super::resources::{self, DATABASE_ROLE, ISSUER, MAPPING, RANGES, Resource, lifecycle, peering_range};

/// What gcloud answered.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// The project's number; empty while it is not known.
    pub(super) number: String,
    pub(super) apis: BTreeSet<String>,
    pub(super) answers: BTreeMap<Call, Value>,
}

/// How a resource is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// It is not there.
    Absent,
    /// It is as it should be.
    AsWanted,
    /// It is there with other settings: `tier: db-f1-micro -> db-custom-1-3840`.
    Drift(Vec<String>),
    /// The same, and nothing in it can be seen or changed.
    Broken(Vec<String>),
    /// It was made, but does not have all of its settings yet.
    Unfinished,
    /// It was deleted and can be brought back; until it is forgotten there cannot be another one.
    Deleted,
    /// It is being made.
    Coming,
    /// It is being deleted.
    Going,
}

impl State {
    /// Whether there is something to delete.
    pub fn is_there(&self) -> bool {
        !matches!(self, Self::Absent | Self::Deleted)
    }

    /// Whether what is in it can be asked for.
    pub fn is_open(&self) -> bool {
        matches!(self, Self::AsWanted | Self::Drift(_) | Self::Unfinished)
    }
}

impl Observed {
    /// How a resource is. What was not asked for is not there.
    pub fn state(&self, infra: &InfraConfig, resource: &Resource) -> State {
        if let Resource::Api(api) = resource {
            return if self.apis.contains(*api) { State::AsWanted } else { State::Absent };
        }
        match self.answers.get(&calls::question(infra, resource)) {
            Some(answer) => state(infra, resource, answer, &self.number),
            None => State::Absent,
        }
    }

    /// An answer, for what else is in it.
    pub fn answer(&self, infra: &InfraConfig, resource: &Resource) -> Option<&Value> {
        self.answers.get(&calls::question(infra, resource))
    }
}

/// How a resource is, by the answer to its question.
pub fn state(infra: &InfraConfig, resource: &Resource, answer: &Value, number: &str) -> State {
    let mut fields = Fields { object: answer, differences: Vec::new() };
    match resource {
        Resource::Api(_) => {}
        Resource::Account(account) => {
            let email = infra.account(account.suffix());
            let Some(found) = entry(answer, "email", &email) else { return State::Absent };
            fields.object = found;
            fields.is("disabled", "/disabled", false);
        }
        Resource::Network => fields.is("automatic subnetworks", "/autoCreateSubnetworks", false),
        Resource::Subnetwork => subnetwork(infra, &mut fields),
        Resource::Router => fields.named("network", "/network", &infra.name),
        Resource::Nat => {
            let nats = answer.pointer("/nats").unwrap_or(&Value::Null);
            let Some(found) = entry(nats, "name", &infra.name) else { return State::Absent };
            fields.object = found;
            fields.is("addresses", "/natIpAllocateOption", "AUTO_ONLY");
            fields.is("ranges", "/sourceSubnetworkIpRangesToNat", "ALL_SUBNETWORKS_ALL_IP_RANGES");
        }
        Resource::PeeringRange => {
            fields.is("purpose", "/purpose", "VPC_PEERING");
            fields.is("prefix length", "/prefixLength", 16);
            fields.named("network", "/network", &infra.name);
        }
        Resource::Peering => {
            let Some(found) = entry(answer, "service", &format!("services/{}", resources::NETWORKING)) else {
                return State::Absent;
            };
            let range = peering_range(infra);
            let ranges = texts(found.pointer("/reservedPeeringRanges"));
            if !ranges.contains(&range) {
                fields.differs("ranges", &ranges.join(", "), &range);
            }
        }
        Resource::Bucket => return bucket(infra, number, fields),
        Resource::Repository => {
            fields.is("format", "/format", "DOCKER");
            fields.labels(infra, "/labels");
        }
        Resource::Instance => return instance(infra, fields),
        Resource::Database => {
            if entry(answer, "name", DATABASE).is_none() {
                return State::Absent;
            }
        }
        Resource::User => {
            let Some(found) = entry(answer, "name", &infra.database_user()) else { return State::Absent };
            let wanted = match infra.sql.login {
                SqlLogin::Iam => "CLOUD_IAM_SERVICE_ACCOUNT",
                SqlLogin::Password => "BUILT_IN",
            };
            let kind = found.pointer("/type").and_then(Value::as_str).unwrap_or("BUILT_IN");
            if kind != wanted {
                fields.differs("type", kind, wanted);
            } else if infra.sql.login == SqlLogin::Iam {
                let has_role = texts(found.pointer("/databaseRoles")).iter().any(|role| role == DATABASE_ROLE);
                if !has_role {
                    return State::Unfinished;
                }
            }
        }
        Resource::Cluster => return cluster(infra, fields),
        Resource::Pool | Resource::Provider => {
            if fields.text("/state") == Some("DELETED") {
                return State::Deleted;
            }
            fields.is("disabled", "/disabled", false);
            if *resource == Resource::Provider {
                fields.is("issuer", "/oidc/issuerUri", ISSUER);
                fields.is("condition", "/attributeCondition", resources::condition(infra).as_str());
                for (to, from) in MAPPING {
                    let pointer = format!("/attributeMapping/{}", to.replace('/', "~1"));
                    fields.is(to, &pointer, from);
                }
            }
        }
        Resource::Binding(binding) => {
            let member = binding.member(infra, number);
            let bindings = answer.pointer("/bindings").and_then(Value::as_array).into_iter().flatten();
            let has = |found: &Value| {
                found["role"] == binding.role
                    && found.get("condition").is_none_or(Value::is_null)
                    && texts(found.pointer("/members")).contains(&member)
            };
            if !bindings.into_iter().any(has) {
                return State::Absent;
            }
        }
    }
    fields.state()
}

fn subnetwork(infra: &InfraConfig, fields: &mut Fields<'_>) {
    let [(_, nodes), secondary @ ..] = RANGES;
    fields.named("network", "/network", &infra.name);
    fields.is("range", "/ipCidrRange", nodes);
    fields.is("private access to Google", "/privateIpGoogleAccess", true);
    let found = fields.object.pointer("/secondaryIpRanges").unwrap_or(&Value::Null);
    for (name, range) in secondary {
        let is = entry(found, "rangeName", name).and_then(|entry| entry["ipCidrRange"].as_str()).unwrap_or("none");
        if is != range {
            fields.differs(&format!("range {name}"), is, range);
        }
    }
}

fn bucket(infra: &InfraConfig, number: &str, mut fields: Fields<'_>) -> State {
    if let Some(owner) = fields.text("/projectNumber").filter(|owner| !number.is_empty() && *owner != number) {
        let owner = owner.to_owned();
        fields.differs("project", &owner, number);
    }
    let location = fields.text("/location").unwrap_or_default().to_lowercase();
    if location != infra.region {
        fields.differs("location", &location, &infra.region);
    }
    fields.is("uniform access", "/iamConfiguration/uniformBucketLevelAccess/enabled", true);
    fields.is("public access prevention", "/iamConfiguration/publicAccessPrevention", "enforced");
    fields.is("seconds of soft deletion", "/softDeletePolicy/retentionDurationSeconds", "604800");
    let rules = |lifecycle: &Value| -> BTreeSet<String> {
        lifecycle["rule"].as_array().into_iter().flatten().map(Value::to_string).collect()
    };
    let (found, wanted) = (rules(fields.object.pointer("/lifecycle").unwrap_or(&Value::Null)), rules(&lifecycle()));
    if found != wanted {
        let text = |rules: &BTreeSet<String>| match rules.is_empty() {
            true => "none".to_owned(),
            false => rules.iter().cloned().collect::<Vec<_>>().join(" "),
        };
        fields.differs("lifecycle", &text(&found), &text(&wanted));
    }
    // What has never been set is not there; what someone has switched off is.
    if fields.object.get("versioning").is_none() && fields.differences.is_empty() {
        return State::Unfinished;
    }
    fields.is("versioning", "/versioning/enabled", true);
    fields.labels(infra, "/labels");
    fields.state()
}

fn instance(infra: &InfraConfig, mut fields: Fields<'_>) -> State {
    let sql = &infra.sql;
    let state = fields.text("/state").unwrap_or("RUNNABLE").to_owned();
    match state.as_str() {
        "PENDING_CREATE" => return State::Coming,
        "PENDING_DELETE" => return State::Going,
        _ => {}
    }
    fields.is("version", "/databaseVersion", sql.version.as_str());
    fields.is("region", "/region", infra.region.as_str());
    let setting = |name: &str| format!("/settings/{name}");
    fields.is("edition", &setting("edition"), sql.edition.as_str());
    fields.is("tier", &setting("tier"), sql.tier.as_str());
    fields.is("availability", &setting("availabilityType"), sql.availability.as_str());
    fields.is("activation", &setting("activationPolicy"), "ALWAYS");
    fields.is("connector enforcement", &setting("connectorEnforcement"), "REQUIRED");
    fields.is("deletion protection", &setting("deletionProtectionEnabled"), infra.deletion_protection);
    fields.is("disk grows", &setting("storageAutoResize"), true);
    let disk = fields.text(&setting("dataDiskSizeGb")).and_then(|text| text.parse::<u32>().ok());
    if let Some(disk) = disk.filter(|disk| *disk < sql.disk_gb) {
        fields.differs("disk in GB", &disk.to_string(), &sql.disk_gb.to_string());
    }
    let backup = |name: &str| format!("/settings/backupConfiguration/{name}");
    fields.is("backups", &backup("enabled"), true);
    fields.is("point-in-time recovery", &backup("pointInTimeRecoveryEnabled"), true);
    fields.is("days of logs", &backup("transactionLogRetentionDays"), 7);
    fields.is("backups kept", &backup("backupRetentionSettings/retainedBackups"), 7);
    fields.is("public address", &setting("ipConfiguration/ipv4Enabled"), !sql.private_ip);
    if sql.private_ip {
        fields.named("network", &setting("ipConfiguration/privateNetwork"), &infra.name);
    }
    if sql.login == SqlLogin::Iam {
        let flags = fields.object.pointer(&setting("databaseFlags")).unwrap_or(&Value::Null);
        let flag = entry(flags, "name", "cloudsql.iam_authentication").and_then(|flag| flag["value"].as_str());
        if flag != Some("on") {
            fields.differs("cloudsql.iam_authentication", flag.unwrap_or("none"), "on");
        }
    }
    fields.labels(infra, &setting("userLabels"));
    if state != "RUNNABLE" {
        fields.differs("state", &state, "RUNNABLE");
        return State::Broken(fields.differences);
    }
    fields.state()
}

fn cluster(infra: &InfraConfig, mut fields: Fields<'_>) -> State {
    let status = fields.text("/status").unwrap_or("RUNNING").to_owned();
    match status.as_str() {
        "PROVISIONING" => return State::Coming,
        "STOPPING" => return State::Going,
        _ => {}
    }
    fields.is("Autopilot", "/autopilot/enabled", infra.cluster == Some(ClusterShape::Autopilot));
    fields.named("network", "/network", &infra.name);
    fields.named("subnetwork", "/subnetwork", &infra.name);
    fields.is_any(
        "private nodes",
        &["/networkConfig/defaultEnablePrivateNodes", "/privateClusterConfig/enablePrivateNodes"],
        true,
    );
    fields.is("DNS endpoint", "/controlPlaneEndpointsConfig/dnsEndpointConfig/allowExternalTraffic", true);
    fields.is("release channel", "/releaseChannel/channel", "REGULAR");
    let workload_pool = format!("{}.svc.id.goog", infra.project);
    fields.is("workload pool", "/workloadIdentityConfig/workloadPool", workload_pool.as_str());
    fields.labels(infra, "/resourceLabels");
    match &infra.cluster {
        Some(ClusterShape::Standard { node_type, node_count, spot }) => {
            fields.is("nodes' machine", "/nodePools/0/config/machineType", node_type.as_str());
            fields.is("nodes", "/nodePools/0/initialNodeCount", *node_count);
            fields.is("spot nodes", "/nodePools/0/config/spot", *spot);
            fields.is("nodes' account", "/nodePools/0/config/serviceAccount", infra.account("nodes").as_str());
        }
        _ => {
            // Where Google says it depends on how the cluster was made.
            let pointers =
                ["/autoscaling/autoprovisioningNodePoolDefaults/serviceAccount", "/nodeConfig/serviceAccount"];
            fields.is_any("nodes' account", &pointers, infra.account("nodes").as_str());
        }
    }
    if status == "ERROR" {
        fields.differs("status", &status, "RUNNING");
        return State::Broken(fields.differences);
    }
    fields.state()
}

/// The fields of an answer, and those that differ.
struct Fields<'a> {
    object: &'a Value,
    differences: Vec<String>,
}

impl Fields<'_> {
    fn state(self) -> State {
        if self.differences.is_empty() { State::AsWanted } else { State::Drift(self.differences) }
    }

    fn text(&self, pointer: &str) -> Option<&str> {
        self.object.pointer(pointer).and_then(Value::as_str)
    }

    fn differs(&mut self, name: &str, found: &str, wanted: &str) {
        self.differences.push(format!("{name}: {found} -> {wanted}"));
    }

    /// A field that must have this value; Google leaves out what is false.
    fn is(&mut self, name: &str, pointer: &str, wanted: impl Into<Value>) {
        let wanted: Value = wanted.into();
        let found = match self.object.pointer(pointer) {
            None | Some(Value::Null) if wanted.is_boolean() => json!(false),
            found => found.cloned().unwrap_or(Value::Null),
        };
        if found != wanted && plain(&found) != plain(&wanted) {
            self.differs(name, &plain(&found), &plain(&wanted));
        }
    }

    /// The first of these fields that is there must have this value.
    fn is_any(&mut self, name: &str, pointers: &[&str], wanted: impl Into<Value>) {
        let found = pointers.iter().find(|pointer| self.object.pointer(pointer).is_some_and(|found| !found.is_null()));
        self.is(name, found.unwrap_or(&pointers[0]), wanted);
    }

    /// A field with a full name that must end with this.
    fn named(&mut self, name: &str, pointer: &str, wanted: &str) {
        let found = self.text(pointer).unwrap_or_default().rsplit('/').next().unwrap_or_default().to_owned();
        if found != wanted {
            self.differs(name, if found.is_empty() { "none" } else { &found }, wanted);
        }
    }

    /// Labels that must be there; others may be.
    fn labels(&mut self, infra: &InfraConfig, pointer: &str) {
        for (key, value) in &infra.labels {
            let found = self.text(&format!("{pointer}/{key}")).map(str::to_owned);
            if found.as_ref() != Some(value) {
                self.differs(&format!("label {key}"), found.as_deref().unwrap_or("none"), value);
            }
        }
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::Null => "none".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// The entry of a list whose field has this value.
fn entry<'a>(list: &'a Value, field: &str, value: &str) -> Option<&'a Value> {
    list.as_array()?.iter().find(|entry| entry[field] == value)
}

fn texts(list: Option<&Value>) -> Vec<String> {
    let entries = list.and_then(Value::as_array).into_iter().flatten();
    entries.filter_map(Value::as_str).map(str::to_owned).collect()
}
