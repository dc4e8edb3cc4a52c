//! Plans, from answers as Google gives them.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::observed::Observed;
use super::resources::{Resource, resources};
use super::steps::Step;
use super::{calls, destruction, outputs, plan};
use crate::config::infra::tests::gke;
use crate::config::infra::{ClusterShape, GitHubConfig, InfraConfig, KeysConfig, RegistryNames, SqlLogin, Via};
use crate::infra::plan::Action;

/// The default of kind gke.
pub fn infra() -> InfraConfig {
    InfraConfig { via: Via::Gcloud, ..gke() }
}

/// All that can be had at once.
pub fn everything() -> InfraConfig {
    let github = GitHubConfig {
        repository: "me/mlflow".to_owned(),
        repository_id: "42".to_owned(),
        owner_id: "7".to_owned(),
        environment: "production".to_owned(),
    };
    let cluster = ClusterShape::Standard { node_type: "e2-standard-2".to_owned(), node_count: 1, spot: true };
    let labels = BTreeMap::from([("team".to_owned(), "a".to_owned())]);
    let mut infra =
        InfraConfig { github: Some(github), cluster: Some(cluster), labels, registry: RegistryNames::GcrIo, ..infra() };
    infra.sql.login = SqlLogin::Password;
    infra
}

/// The least: a server elsewhere, with keys.
pub fn elsewhere() -> InfraConfig {
    let keys = KeysConfig { server: true, pull: true };
    let mut infra = InfraConfig { cluster: None, keys, deletion_protection: false, ..infra() };
    infra.sql.private_ip = false;
    infra
}

fn instance() -> Value {
    json!({
        "state": "RUNNABLE", "databaseVersion": "POSTGRES_17", "region": "europe-west1",
        "connectionName": "my-project:europe-west1:mlflow",
        "settings": {
            "tier": "db-custom-1-3840", "edition": "ENTERPRISE", "availabilityType": "ZONAL",
            "activationPolicy": "ALWAYS", "connectorEnforcement": "REQUIRED", "deletionProtectionEnabled": true,
            "storageAutoResize": true, "dataDiskSizeGb": "20",
            "backupConfiguration": {
                "enabled": true, "pointInTimeRecoveryEnabled": true, "transactionLogRetentionDays": 7,
                "backupRetentionSettings": { "retainedBackups": 7, "retentionUnit": "COUNT" },
            },
            "ipConfiguration": {
                "ipv4Enabled": false, "privateNetwork": "projects/my-project/global/networks/mlflow",
            },
            "databaseFlags": [{ "name": "cloudsql.iam_authentication", "value": "on" }],
        },
    })
}

fn bucket() -> Value {
    json!({
        "location": "EUROPE-WEST1", "projectNumber": "123", "versioning": { "enabled": true },
        "iamConfiguration": {
            "uniformBucketLevelAccess": { "enabled": true }, "publicAccessPrevention": "enforced",
        },
        "softDeletePolicy": { "retentionDurationSeconds": "604800" },
        "lifecycle": super::resources::lifecycle(),
    })
}

fn cluster() -> Value {
    json!({
        "status": "RUNNING", "autopilot": { "enabled": true }, "network": "mlflow", "subnetwork": "mlflow",
        "endpoint": "10.0.0.1", "masterAuth": { "clusterCaCertificate": "Q0E=" },
        "privateClusterConfig": { "enablePrivateNodes": true }, "releaseChannel": { "channel": "REGULAR" },
        "controlPlaneEndpointsConfig": { "dnsEndpointConfig": {
            "allowExternalTraffic": true, "endpoint": "gke-1.europe-west1.gke.goog",
        } },
        "workloadIdentityConfig": { "workloadPool": "my-project.svc.id.goog" },
        "autoscaling": { "autoprovisioningNodePoolDefaults": {
            "serviceAccount": "mlflow-nodes@my-project.iam.gserviceaccount.com",
        } },
    })
}

/// What there is when [`infra`] is made.
fn made() -> Observed {
    let infra = infra();
    let (network, email) = ("projects/my-project/global/networks/mlflow", |name: &str| {
        format!("{name}@my-project.iam.gserviceaccount.com")
    });
    let member = |name: &str| format!("serviceAccount:{}", email(name));
    let role = |role: &str, member: String| json!({ "role": role, "members": ["user:a@b.c", member] });
    let mut observed = Observed { number: "123".to_owned(), ..Observed::default() };
    for resource in resources(&infra) {
        let answer = match &resource {
            Resource::Api(api) => {
                observed.apis.insert((*api).to_owned());
                continue;
            }
            Resource::Account(_) => json!([{ "email": email("mlflow") }, { "email": email("mlflow-nodes") }]),
            Resource::Network => json!({ "autoCreateSubnetworks": false }),
            Resource::Subnetwork => json!({
                "network": network, "ipCidrRange": "10.10.0.0/20", "privateIpGoogleAccess": true,
                "secondaryIpRanges": [
                    { "rangeName": "pods", "ipCidrRange": "10.20.0.0/16" },
                    { "rangeName": "services", "ipCidrRange": "10.30.0.0/20" },
                ],
            }),
            Resource::Router | Resource::Nat => json!({ "network": network, "nats": [{
                "name": "mlflow", "natIpAllocateOption": "AUTO_ONLY",
                "sourceSubnetworkIpRangesToNat": "ALL_SUBNETWORKS_ALL_IP_RANGES",
            }] }),
            Resource::PeeringRange => json!({ "purpose": "VPC_PEERING", "prefixLength": 16, "network": network }),
            Resource::Peering => json!([{
                "service": "services/servicenetworking.googleapis.com", "reservedPeeringRanges": ["mlflow-services"],
            }]),
            Resource::Bucket => bucket(),
            Resource::Repository => json!({
                "format": "DOCKER", "description": super::resources::REPOSITORY_TEXT, "registryUri": "localhost:1/r",
            }),
            Resource::Instance => instance(),
            Resource::Database => json!([{ "name": "postgres" }, { "name": "mlflow" }]),
            Resource::User => json!([{
                "name": "mlflow@my-project.iam", "type": "CLOUD_IAM_SERVICE_ACCOUNT",
                "databaseRoles": [super::resources::DATABASE_ROLE],
            }]),
            Resource::Cluster => cluster(),
            Resource::Pool | Resource::Provider => continue,
            Resource::Binding(_) => json!({ "bindings": [
                role("roles/storage.objectUser", member("mlflow")),
                role("roles/cloudsql.client", member("mlflow")),
                role("roles/cloudsql.instanceUser", member("mlflow")),
                role("roles/artifactregistry.reader", member("mlflow-nodes")),
                role("roles/container.defaultNodeServiceAccount", member("mlflow-nodes")),
                role(
                    "roles/iam.workloadIdentityUser",
                    "serviceAccount:my-project.svc.id.goog[mlflow/mlflow]".to_owned(),
                ),
            ] }),
        };
        observed.answers.insert(calls::question(&infra, &resource), answer);
    }
    observed
}

/// With one answer changed; `null` takes it away.
fn with(resource: &Resource, change: impl Fn(&mut Value)) -> Observed {
    let mut observed = made();
    let question = calls::question(&infra(), resource);
    let mut answer = observed.answers.remove(&question).unwrap();
    change(&mut answer);
    if !answer.is_null() {
        observed.answers.insert(question, answer);
    }
    observed
}

#[test]
fn what_is_made_needs_nothing() {
    let (plan, steps) = plan(&infra(), &made());
    assert!(plan.is_empty() && steps.is_empty(), "{plan:?} {steps:?}");
}

#[test]
fn an_empty_project_gets_everything_in_order() {
    for infra in [infra(), everything(), elsewhere()] {
        let (plan, steps) = plan(&infra, &Observed::default());
        let all = resources(&infra);
        assert_eq!(plan.changes.len(), all.len());
        assert!(plan.changes.iter().all(|change| change.action == Action::Create));
        assert!(matches!(steps[0], Step::Enable(_)));
        let made: Vec<&Resource> = steps
            .iter()
            .filter_map(|step| if let Step::Create(resource) = step { Some(resource) } else { None })
            .collect();
        for (place, resource) in made.iter().enumerate() {
            let parent = resource.parent().map(|parent| made.iter().position(|made| **made == parent));
            assert!(parent.is_none_or(|parent| parent.is_some_and(|parent| parent < place)), "{resource:?}");
        }
        let apis = all.iter().filter(|resource| matches!(resource, Resource::Api(_))).count();
        assert_eq!(made.len(), all.len() - apis);
    }
}

#[test]
fn what_is_other_than_wanted_is_said_and_left() {
    let check = |resource: Resource, pointer: &str, value: Value, expected: &str| {
        let observed = with(&resource, |answer| *answer.pointer_mut(pointer).unwrap() = value.clone());
        let (plan, steps) = plan(&infra(), &observed);
        assert_eq!(steps, [], "{pointer}");
        let found: Vec<(Action, &[String])> =
            plan.changes.iter().map(|change| (change.action, change.details.as_slice())).collect();
        assert_eq!(found, [(Action::Drift, [expected.to_owned()].as_slice())], "{pointer}");
    };
    check(Resource::Instance, "/settings/tier", json!("db-f1-micro"), "tier: db-f1-micro -> db-custom-1-3840");
    check(Resource::Instance, "/databaseVersion", json!("POSTGRES_16"), "version: POSTGRES_16 -> POSTGRES_17");
    check(Resource::Instance, "/settings/ipConfiguration/ipv4Enabled", json!(true), "public address: true -> false");
    check(Resource::Instance, "/settings/databaseFlags", json!([]), "cloudsql.iam_authentication: none -> on");
    check(Resource::Instance, "/settings/dataDiskSizeGb", json!("5"), "disk in GB: 5 -> 10");
    check(Resource::Instance, "/state", json!("SUSPENDED"), "state: SUSPENDED -> RUNNABLE");
    check(Resource::Bucket, "/location", json!("US"), "location: us -> europe-west1");
    check(Resource::Bucket, "/versioning/enabled", json!(false), "versioning: false -> true");
    check(Resource::Bucket, "/projectNumber", json!("5"), "project: 5 -> 123");
    check(Resource::Cluster, "/autopilot/enabled", json!(false), "Autopilot: false -> true");
    check(Resource::Cluster, "/status", json!("ERROR"), "status: ERROR -> RUNNING");
    check(Resource::Repository, "/format", json!("MAVEN"), "format: MAVEN -> DOCKER");
    check(Resource::Network, "/autoCreateSubnetworks", json!(true), "automatic subnetworks: true -> false");
    check(Resource::Subnetwork, "/ipCidrRange", json!("10.0.0.0/8"), "range: 10.0.0.0/8 -> 10.10.0.0/20");
    check(Resource::PeeringRange, "/prefixLength", json!(24), "prefix length: 24 -> 16");
    check(Resource::Peering, "/0/reservedPeeringRanges", json!(["x"]), "ranges: x -> mlflow-services");
    check(Resource::User, "/0/type", json!("BUILT_IN"), "type: BUILT_IN -> CLOUD_IAM_SERVICE_ACCOUNT");
}

#[test]
fn what_lacks_is_made_and_what_is_under_way_is_awaited() {
    let check = |resource: &Resource, change: &dyn Fn(&mut Value), expected: &[Step]| {
        assert_eq!(plan(&infra(), &with(resource, change)).1, expected, "{resource:?}");
    };
    let create = |resource: Resource| Step::Create(resource);
    let set = |pointer: &'static str, value: &'static str| {
        move |answer: &mut Value| *answer.pointer_mut(pointer).unwrap() = json!(value)
    };
    check(&Resource::Database, &|answer| *answer = json!([]), &[create(Resource::Database)]);
    check(&Resource::Cluster, &|answer| *answer = Value::Null, &[create(Resource::Cluster)]);
    check(&Resource::Cluster, &set("/status", "PROVISIONING"), &[Step::Await(Resource::Cluster)]);
    check(
        &Resource::Cluster,
        &set("/status", "STOPPING"),
        &[Step::Await(Resource::Cluster), create(Resource::Cluster)],
    );
    check(&Resource::Instance, &set("/state", "PENDING_CREATE"), &[Step::Await(Resource::Instance)]);
    check(
        &Resource::Bucket,
        &|answer| drop(answer.as_object_mut().unwrap().remove("versioning")),
        &[Step::Finish(Resource::Bucket)],
    );
    check(&Resource::User, &|answer| answer[0]["databaseRoles"] = json!([]), &[Step::Finish(Resource::User)]);
    check(
        &Resource::Bucket,
        &|answer| *answer = Value::Null,
        &[create(Resource::Bucket), Step::Finish(Resource::Bucket)],
    );
}

#[test]
fn data_outlives_the_rest_unless_it_is_to_go() {
    let titles = |delete_data: bool, action: Action| -> Vec<String> {
        let (plan, _) = destruction(&infra(), &made(), delete_data);
        plan.changes.into_iter().filter(|change| change.action == action).map(|change| change.resource).collect()
    };
    assert_eq!(
        titles(false, Action::Keep),
        [
            "Cloud SQL instance mlflow",
            "bucket my-project-mlflow",
            "peering of mlflow with servicenetworking.googleapis.com",
            "address range mlflow-services",
            "network mlflow",
            "the APIs of project my-project",
        ]
    );
    assert_eq!(
        titles(false, Action::Delete),
        [
            "Autopilot cluster mlflow",
            "roles/container.defaultNodeServiceAccount on project my-project for mlflow-nodes",
            "roles/cloudsql.instanceUser on project my-project for mlflow",
            "roles/cloudsql.client on project my-project for mlflow",
            "roles/storage.objectUser on bucket my-project-mlflow for mlflow",
            "repository mlflow in europe-west1",
            "router mlflow",
            "subnetwork mlflow",
            "service account mlflow-nodes@my-project.iam.gserviceaccount.com",
            "service account mlflow@my-project.iam.gserviceaccount.com",
        ]
    );
    assert_eq!(titles(true, Action::Keep), ["the APIs of project my-project"]);
    let (_, steps) = destruction(&infra(), &made(), true);
    let place = |step: &Step| steps.iter().position(|found| found == step).unwrap();
    let order = [
        Step::Unprotect(Resource::Instance),
        Step::Delete(Resource::Instance),
        Step::Delete(Resource::Bucket),
        Step::Delete(Resource::Peering),
        Step::Delete(Resource::PeeringRange),
        Step::Delete(Resource::Network),
    ];
    assert!(order.iter().map(place).is_sorted(), "{steps:?}");
    assert_eq!(destruction(&infra(), &Observed::default(), true).1, []);
}

#[test]
fn a_repository_of_others_stays() {
    let infra = InfraConfig { registry: RegistryNames::GcrIo, ..infra() };
    let mut observed = Observed::default();
    let (repository, policy) = (Resource::Repository, resources(&infra).into_iter().find(|resource| {
        matches!(resource, Resource::Binding(binding) if binding.on == super::resources::Object::Repository)
    }));
    let member = "serviceAccount:mlflow-nodes@my-project.iam.gserviceaccount.com";
    let bindings = json!({ "bindings": [{ "role": "roles/artifactregistry.reader", "members": [member] }] });
    observed.answers.insert(calls::question(&infra, &repository), json!({ "format": "DOCKER", "description": "ours" }));
    observed.answers.insert(calls::question(&infra, policy.as_ref().unwrap()), bindings);
    let (plan, steps) = destruction(&infra, &observed, true);
    assert_eq!(steps, [Step::Delete(policy.unwrap())]);
    assert_eq!(plan.changes.last().map(|change| change.action), Some(Action::Keep));
}

#[test]
fn the_outputs_are_what_there_is() {
    let outputs = outputs::from(&infra(), &made()).unwrap();
    assert_eq!(outputs.registry.repository, "localhost:1/r");
    let cluster = outputs.cluster.unwrap();
    assert_eq!((cluster.endpoint.as_str(), cluster.ca_certificate), ("https://gke-1.europe-west1.gke.goog", None));
    let dns = "/controlPlaneEndpointsConfig/dnsEndpointConfig/allowExternalTraffic";
    let closed = with(&Resource::Cluster, |answer| *answer.pointer_mut(dns).unwrap() = json!(false));
    let cluster = outputs::from(&infra(), &closed).unwrap().cluster.unwrap();
    assert_eq!((cluster.endpoint.as_str(), cluster.ca_certificate.as_deref()), ("https://10.0.0.1", Some("Q0E=")));
    let error = outputs::from(&infra(), &Observed::default()).unwrap_err();
    assert_eq!(error.to_string(), "bucket my-project-mlflow is not there, or not ready");
}
