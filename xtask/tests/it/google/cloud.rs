//! Everything that an environment is made of: made, read and removed by the real gcloud.

use std::sync::Arc;

use serde_json::Value;
use testbed::google::{BuildHook, BuildRequest, Options, Project};
use testbed::nightly;

use super::{APIS, Cloud, PROJECT, REGION, enabled};

#[test]
fn gcloud_makes_reads_and_removes_an_environment() {
    if !nightly("gcloud by hand at the fake Google; infra drives it there, too") {
        return;
    }
    let Some(cloud) = Cloud::start(Options { projects: vec![Project::new(PROJECT)], ..Options::default() }) else {
        return;
    };
    let apis: Vec<String> = APIS.iter().map(|api| format!("{api}.googleapis.com")).collect();
    cloud.run(&format!("services enable {}", apis.join(" ")));
    make(&cloud);
    grant(&cloud);
    read(&cloud);
    protect(&cloud);
    remove(&cloud);
    let state = cloud.google.state();
    let left = state["resources"].as_object().expect("resources");
    // A deleted pool is kept for a month.
    let kinds: Vec<&String> = left.keys().filter(|kind| !kind.starts_with("iam.workloadIdentity")).collect();
    assert!(kinds.is_empty(), "{left:#?}");
    let log = cloud.google.log();
    assert!(log.iter().all(|entry| entry.status != 0 && entry.status != 401), "{log:#?}");
    assert!(!serde_json::to_string(&log).unwrap().contains("correct horse"), "{log:#?}");
}

fn sa(name: &str) -> String {
    format!("{name}@{PROJECT}.iam.gserviceaccount.com")
}

fn make(cloud: &Cloud) {
    let lifecycle = cloud.home.file("lifecycle.json");
    let rules = r#"{"rule":[{"action":{"type":"Delete"},"condition":{"daysSinceNoncurrentTime":30}}]}"#;
    std::fs::write(&lifecycle, rules).unwrap();
    let (bucket, nodes) = (format!("gs://{PROJECT}-mlflow"), sa("mlflow-nodes"));
    cloud.run_all([
        "iam service-accounts create mlflow --display-name=MLflow",
        "iam service-accounts create mlflow-nodes",
        "compute networks create mlflow --subnet-mode=custom",
        &format!("artifacts repositories create mlflow --repository-format=docker --location={REGION}"),
        "artifacts repositories create gcr.io --repository-format=docker --location=us",
        &format!(
            "storage buckets create {bucket} --location={REGION} --uniform-bucket-level-access \
             --public-access-prevention --soft-delete-duration=7d"
        ),
        "iam workload-identity-pools create mlflow-github --location=global",
    ]);
    cloud.run_all([
        &format!(
            "compute networks subnets create mlflow --network=mlflow --region={REGION} --range=10.10.0.0/20 \
             --enable-private-ip-google-access"
        ),
        &format!("compute routers create mlflow --network=mlflow --region={REGION}"),
        "compute addresses create mlflow-services --global --purpose=VPC_PEERING --prefix-length=16 --network=mlflow",
        "iam workload-identity-pools providers create-oidc github --location=global \
         --workload-identity-pool=mlflow-github --issuer-uri=https://token.actions.githubusercontent.com \
         --attribute-mapping=google.subject=assertion.sub,attribute.repository_id=assertion.repository_id \
         --attribute-condition=assertion.repository_id=='1'",
        &format!("storage buckets update {bucket} --versioning --lifecycle-file={}", lifecycle.display()),
    ]);
    cloud.run_all([
        &format!(
            "compute routers nats create mlflow --router=mlflow --region={REGION} --auto-allocate-nat-external-ips \
             --nat-all-subnet-ip-ranges"
        ),
        "services vpc-peerings connect --service=servicenetworking.googleapis.com --ranges=mlflow-services \
         --network=mlflow",
        &format!(
            "container clusters create-auto mlflow --region={REGION} --network=mlflow --subnetwork=mlflow \
             --enable-private-nodes --enable-dns-access --service-account={nodes}"
        ),
    ]);
    cloud.run(&format!(
        "sql instances create mlflow --database-version=POSTGRES_17 --edition=ENTERPRISE --tier=db-custom-1-3840 \
         --region={REGION} --no-assign-ip --network=projects/{PROJECT}/global/networks/mlflow --storage-size=10 \
         --database-flags=cloudsql.iam_authentication=on --connector-enforcement=REQUIRED --backup \
         --enable-point-in-time-recovery --deletion-protection"
    ));
    // One at a time: Cloud SQL refuses what comes while it works.
    cloud.run("sql databases create mlflow --instance=mlflow");
    cloud.run(&format!("sql users create mlflow@{PROJECT}.iam --instance=mlflow --type=CLOUD_IAM_SERVICE_ACCOUNT"));
    let user = ["sql", "users", "create", "mlflow", "--instance=mlflow", "--password=correct horse"];
    assert!(cloud.command(&user).status().expect("gcloud starts").success());
}

fn grant(cloud: &Cloud) {
    let (server, nodes) = (sa("mlflow"), sa("mlflow-nodes"));
    cloud.run_all([
        &format!(
            "projects add-iam-policy-binding {PROJECT} --member=serviceAccount:{server} --role=roles/cloudsql.client \
             --condition=None"
        ),
        &format!(
            "artifacts repositories add-iam-policy-binding mlflow --location={REGION} --member=serviceAccount:{nodes} \
             --role=roles/artifactregistry.reader"
        ),
        &format!(
            "storage buckets add-iam-policy-binding gs://{PROJECT}-mlflow --member=serviceAccount:{server} \
             --role=roles/storage.objectUser"
        ),
        &format!(
            "iam service-accounts add-iam-policy-binding {server} \
             --member=serviceAccount:{PROJECT}.svc.id.goog[mlflow/mlflow] --role=roles/iam.workloadIdentityUser"
        ),
    ]);
}

fn read(cloud: &Cloud) {
    let kubeconfig = cloud.home.path().join("kubeconfig");
    let found = cloud.run_all([
        &format!("iam service-accounts describe {}", sa("mlflow")),
        &format!("artifacts repositories describe mlflow --location={REGION}"),
        "artifacts repositories describe gcr.io --location=us",
        &format!("storage buckets describe gs://{PROJECT}-mlflow --raw"),
        "sql instances describe mlflow",
        "sql users list --instance=mlflow",
        &format!("container clusters describe mlflow --region={REGION}"),
        "services vpc-peerings list --network=mlflow",
        "iam workload-identity-pools providers describe github --workload-identity-pool=mlflow-github \
         --location=global",
        &format!("projects get-iam-policy {PROJECT}"),
        &format!("compute routers nats describe mlflow --router=mlflow --region={REGION}"),
        &format!("container clusters get-credentials mlflow --region={REGION} --dns-endpoint"),
    ]);
    let [server, docker, old, bucket, instance, users, cluster, peerings, provider, policy, nat, _] =
        &found.each_ref().map(|ended| serde_json::from_str::<Value>(&ended.stdout).unwrap_or_default());
    assert_eq!(server["email"], sa("mlflow"));
    assert_eq!(docker["registryUri"], format!("{REGION}-docker.pkg.dev/{PROJECT}/mlflow"));
    assert_eq!(old["registryUri"], format!("gcr.io/{PROJECT}"));
    assert_eq!(bucket["iamConfiguration"]["publicAccessPrevention"], "enforced");
    assert_eq!(bucket["versioning"]["enabled"], true);
    assert_eq!(bucket["lifecycle"]["rule"][0]["condition"]["daysSinceNoncurrentTime"], 30);
    assert_eq!(instance["ipAddresses"][0]["type"], "PRIVATE");
    assert_eq!(instance["settings"]["connectorEnforcement"], "REQUIRED");
    assert_eq!(instance["state"], "RUNNABLE");
    assert_eq!(users.as_array().map(Vec::len), Some(3));
    assert_eq!(cluster["controlPlaneEndpointsConfig"]["dnsEndpointConfig"]["allowExternalTraffic"], true);
    assert_eq!(cluster["nodeConfig"]["serviceAccount"], sa("mlflow-nodes"));
    assert_eq!(peerings[0]["reservedPeeringRanges"][0], "mlflow-services");
    assert_eq!(provider["attributeCondition"], "assertion.repository_id=='1'");
    assert_eq!(policy["bindings"][0]["role"], "roles/cloudsql.client");
    assert_eq!(nat["name"], "mlflow");
    assert!(std::fs::read_to_string(kubeconfig).unwrap().contains(".gke.goog"));
}

fn protect(cloud: &Cloud) {
    let refused = cloud.try_run("sql instances delete mlflow");
    assert!(!refused.ok && refused.stderr.contains("The instance is protected"), "{refused:?}");
    let refused = cloud.try_run("compute networks delete mlflow");
    assert!(!refused.ok && refused.stderr.contains("already being used by"), "{refused:?}");
    cloud.run("sql instances patch mlflow --no-deletion-protection");
}

fn remove(cloud: &Cloud) {
    cloud.run_all([
        "sql instances delete mlflow",
        &format!("container clusters delete mlflow --region={REGION}"),
        &format!("storage rm --recursive gs://{PROJECT}-mlflow"),
        &format!("artifacts repositories delete mlflow --location={REGION}"),
        "artifacts repositories delete gcr.io --location=us",
        "iam workload-identity-pools delete mlflow-github --location=global",
        &format!("iam service-accounts delete {}", sa("mlflow")),
        &format!("iam service-accounts delete {}", sa("mlflow-nodes")),
    ]);
    let policies = cloud.google.state()["policies"].to_string();
    assert!(policies.contains("deleted:serviceAccount:mlflow@"), "{policies}");
    cloud.run_all([
        "services vpc-peerings delete --service=servicenetworking.googleapis.com --network=mlflow",
        &format!("compute routers delete mlflow --region={REGION}"),
        &format!("compute networks subnets delete mlflow --region={REGION}"),
        "compute addresses delete mlflow-services --global",
    ]);
    cloud.run("compute networks delete mlflow");
}

/// Says what it was given.
#[derive(Debug)]
struct Echo;

impl BuildHook for Echo {
    fn build(&self, request: &BuildRequest) -> Result<Vec<(String, String)>, String> {
        let text = std::fs::read_to_string(request.source.join("Dockerfile")).map_err(|error| error.to_string())?;
        let image = request.build["images"][0].as_str().ok_or("no image")?;
        Ok(vec![(image.to_owned(), text)])
    }
}

#[test]
fn gcloud_keeps_objects_and_submits_a_build() {
    let options = Options { projects: vec![enabled()], build: Some(Arc::new(Echo)), ..Options::default() };
    let Some(cloud) = Cloud::start(options) else { return };
    let source = cloud.home.file("source/Dockerfile");
    std::fs::write(&source, "sha256:what-was-sent").unwrap();
    let config = cloud.home.file("build.json");
    let build = r#"{"steps":[{"name":"docker","args":["build"]}],"images":["a/b"],"options":{"logging":"NONE"}}"#;
    std::fs::write(&config, build).unwrap();
    let (bucket, big, back) = (format!("gs://{PROJECT}-x"), cloud.home.file("big"), cloud.home.file("back"));
    let bytes: Vec<u8> = (0..300_000_u32).flat_map(u32::to_le_bytes).collect();
    std::fs::write(&big, &bytes).unwrap();
    let submit = format!("builds submit --async --config={} {}", config.display(), source.parent().unwrap().display());
    cloud.run_all([&submit, &format!("storage buckets create {bucket}")]);
    cloud.run(&format!("storage cp {} {bucket}/folder/big", big.display()));
    let [_, object, builds] = cloud.run_all([
        &format!("storage cp {bucket}/folder/big {}", back.display()),
        &format!("storage objects describe {bucket}/folder/big"),
        "builds list",
    ]);
    assert_eq!(std::fs::read(back).unwrap(), bytes);
    assert_eq!(object.json()["size"], bytes.len(), "{object:?}");
    let builds = builds.json();
    assert_eq!(builds[0]["status"], "SUCCESS", "{builds:#}");
    assert_eq!(builds[0]["results"]["images"][0]["digest"], "sha256:what-was-sent");
    let resumable = cloud.home.command(&cloud.gcloud);
    let mut resumable = resumable;
    resumable.envs(cloud.google.gcloud_env()).env("CLOUDSDK_STORAGE_RESUMABLE_THRESHOLD", "1000");
    let copied = resumable.args(["storage", "cp"]).arg(&big).arg(format!("{bucket}/again")).output().unwrap();
    assert!(copied.status.success(), "{copied:?}");
    let state = cloud.google.state();
    let object = &state["resources"]["storage.objects"][format!("{PROJECT}-x/again")];
    assert_eq!(object["size"], bytes.len().to_string(), "{object:#}");
}

#[cfg(target_os = "linux")]
#[test]
fn objects_are_kept_by_a_real_server_where_there_is_one() {
    let Some(program) = crate::node::program(&testbed::cluster::FAKE_GCS) else { return };
    let home = testbed::Home::new();
    let port = testbed::free_port();
    let mut command = home.command(program);
    command.args(["-scheme", "http", "-host", "127.0.0.1", "-backend", "memory", "-port", &port.to_string()]);
    command.args(["-external-url", &format!("http://127.0.0.1:{port}")]);
    let mut server = testbed::Service::start(command, home.file("gcs.log"));
    server.wait_for(([127, 0, 0, 1], port).into());
    let objects = Some(format!("http://127.0.0.1:{port}"));
    let Some(cloud) = Cloud::start(Options { projects: vec![enabled()], objects, ..Options::default() }) else {
        return;
    };
    let (bucket, file, back) = (format!("gs://{PROJECT}-y"), cloud.home.file("file"), cloud.home.file("back"));
    std::fs::write(&file, "what is kept").unwrap();
    cloud.run(&format!("storage buckets create {bucket}"));
    cloud.run(&format!("storage cp {} {bucket}/folder/file", file.display()));
    cloud.run(&format!("storage cp {bucket}/folder/file {}", back.display()));
    assert_eq!(std::fs::read_to_string(back).unwrap(), "what is kept");
    let refused = cloud.try_run(&format!("storage buckets delete {bucket}"));
    assert!(!refused.ok && refused.stderr.contains("not empty"), "{refused:?}");
    cloud.run(&format!("storage rm --recursive {bucket}"));
    assert!(cloud.google.state()["resources"]["storage.buckets"].is_null());
}
