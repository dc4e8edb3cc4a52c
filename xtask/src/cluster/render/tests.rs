//! The repository's own manifests, rendered.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use super::secrets::SecretText;
use super::*;
use crate::cluster::{CONTAINER, ObjectKind};
use crate::config::cluster::{
    Access, Artifacts, BackupConfig, BackupMethod, CloudSql, GcConfig, Metrics, PROXY_IMAGE, PullSecret, RolloutConfig,
    Secret as Source, ServerConfig,
};

pub const IMAGE: &str =
    "registry.example.com/mlflow/server@sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

/// An environment of kind `kubernetes`.
pub fn kubernetes() -> ClusterConfig {
    ClusterConfig {
        kubeconfig: None,
        context: "test".to_owned(),
        namespace: "lab".to_owned(),
        server: ServerConfig {
            replicas: 2,
            max_replicas: None,
            workers: 3,
            cpu: "500m".to_owned(),
            memory: "2Gi".to_owned(),
            scratch: "5Gi".to_owned(),
            env: BTreeMap::new(),
        },
        database: Database::Uri(Source::Variable("URI".to_owned())),
        max_connections: None,
        artifacts: Artifacts { uri: "gs://bucket".to_owned(), identity: Identity::Ambient },
        access: Access::default(),
        metrics: Metrics::None,
        rollout: RolloutConfig {
            deadline: Duration::from_secs(300),
            soak: Duration::from_secs(5),
            migration: Duration::from_secs(600),
            keep: 3,
        },
        pull_secret: PullSecret::Never,
        gc: GcConfig::default(),
        backup: BackupConfig { method: BackupMethod::Dump, to: None, keep: 10, deadline: Duration::from_secs(3_600) },
    }
}

/// An environment of kind `gke`, where IAM logs in.
pub fn cloud_sql() -> ClusterConfig {
    let database = CloudSql {
        instance: "p:r:i".to_owned(),
        database: "mlflow".to_owned(),
        user: "mlflow@p.iam".to_owned(),
        password: None,
        proxy_image: PROXY_IMAGE.to_owned(),
        private_ip: false,
        admin_api: None,
    };
    let identity = Identity::Workload("mlflow@p.iam.gserviceaccount.com".to_owned());
    ClusterConfig {
        database: Database::CloudSql(database),
        artifacts: Artifacts { uri: "gs://bucket".to_owned(), identity },
        ..kubernetes()
    }
}

pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the repository").to_path_buf()
}

pub fn secrets() -> Secrets {
    Secrets { database: Some(SecretText::new("postgresql://u:hunter2@db/mlflow")), ..Secrets::default() }
}

pub fn objects(config: &ClusterConfig, secrets: &Secrets) -> Vec<Object> {
    let manifests = Manifests::read(&root()).unwrap();
    render(&manifests, &Inputs { env: "test", config, image: IMAGE, version: Some("3.17.2"), secrets }).unwrap()
}

pub fn find(objects: &[Object], kind: ObjectKind) -> &Value {
    &objects.iter().find(|object| object.kind == kind).unwrap_or_else(|| panic!("no {kind}")).value
}

pub fn container<'a>(objects: &'a [Object], list: &str, name: &str) -> &'a Value {
    let containers = find(objects, ObjectKind::Deployment)["spec"]["template"]["spec"][list].as_array().unwrap();
    containers.iter().find(|container| container["name"] == name).unwrap()
}

/// `NAME=VALUE`, or `NAME<SECRET/KEY`.
pub fn env(container: &Value) -> Vec<String> {
    let one = |variable: &Value| {
        let name = variable["name"].as_str().unwrap();
        match (variable["value"].as_str(), &variable["valueFrom"]["secretKeyRef"]) {
            (Some(value), _) => format!("{name}={value}"),
            (None, Value::Null) => format!("{name}=?"),
            (None, from) => format!("{name}<{}/{}", from["name"].as_str().unwrap(), from["key"].as_str().unwrap()),
        }
    };
    container["env"].as_array().unwrap().iter().map(one).collect()
}

pub fn named(objects: &[Object], kind: ObjectKind, start: &str) -> String {
    let names = objects.iter().filter(|object| object.kind == kind).map(Object::name);
    names.filter(|name| name.starts_with(start)).collect::<Vec<_>>().join(" ")
}

#[test]
fn an_environment_is_these_objects_in_this_order() {
    let mut config = kubernetes();
    let list = |config: &ClusterConfig, secrets: &Secrets| {
        let named = |object: &Object| object.to_string().split("-config-").next().unwrap_or_default().to_owned();
        objects(config, secrets).iter().map(named).collect::<Vec<_>>().join(" ")
    };
    let none = Secrets::default();
    assert_eq!(
        list(&config, &none),
        "Namespace/lab ServiceAccount/mlflow ConfigMap/mlflow NetworkPolicy/mlflow PodDisruptionBudget/mlflow \
         Service/mlflow Deployment/mlflow"
    );
    config.namespace = "default".to_owned();
    config.server.max_replicas = Some(5);
    config.access = Access {
        hosts: vec!["a.b".to_owned()],
        load_balancer: true,
        gateway: Some("i/g".to_owned()),
        ..Access::default()
    };
    assert_eq!(
        list(&config, &none),
        "ServiceAccount/mlflow ConfigMap/mlflow NetworkPolicy/mlflow PodDisruptionBudget/mlflow Service/mlflow \
         Deployment/mlflow HorizontalPodAutoscaler/mlflow HTTPRoute/mlflow"
    );
    for object in objects(&config, &secrets()) {
        let metadata = &object.value["metadata"];
        assert_eq!(metadata["namespace"], "default", "{object}");
        assert_eq!(metadata["labels"]["app.kubernetes.io/name"], "mlflow", "{object}");
        assert_eq!(metadata["labels"][MANAGED_BY], MANAGER, "{object}");
    }
}

#[test]
fn the_manifests_are_rendered_unchanged_twice() {
    for config in [kubernetes(), cloud_sql()] {
        let json = || objects(&config, &secrets()).into_iter().map(|object| object.value).collect::<Vec<_>>();
        assert_eq!(json(), json());
    }
}

#[test]
fn no_password_is_anywhere_but_in_the_secret() {
    let mut config = cloud_sql();
    if let Database::CloudSql(cloud) = &mut config.database {
        cloud.password = Some(Source::Variable("PW".to_owned()));
    }
    config.artifacts.identity = Identity::Key(Source::Variable("KEY".to_owned()));
    let secrets = Secrets {
        database: Some(SecretText::new("hunter2")),
        key: Some(SecretText::new("hunter3")),
        admin: Some(SecretText::new("hunter5")),
        client: None,
        pull: Some(SecretText::new("hunter4")),
    };
    for config in [kubernetes(), config] {
        for object in objects(&config, &secrets) {
            let text = object.value.to_string();
            assert!(!text.contains("hunter"), "{object}");
            // Base64 of `hunter`.
            assert_eq!(text.contains("aHVudGVy"), object.kind == ObjectKind::Secret, "{object}");
            assert!(!format!("{object:?} {object}").contains("aHVudGVy"));
        }
    }
    assert!(!format!("{secrets:?}").contains("hunter"));
}

#[test]
fn a_changed_setting_changes_the_pods() {
    let base = kubernetes();
    let template = |config: &ClusterConfig, secrets: &Secrets| {
        find(&objects(config, secrets), ObjectKind::Deployment)["spec"]["template"].to_string()
    };
    let first = template(&base, &secrets());
    let mut changed = base.clone();
    changed.server.env.insert("A".to_owned(), "b".to_owned());
    assert_ne!(template(&changed, &secrets()), first, "a variable");
    changed = base.clone();
    changed.server.workers = 4;
    assert_ne!(template(&changed, &secrets()), first, "workers");
    let other = Secrets { database: Some(SecretText::new("postgresql://u:other@db/mlflow")), ..secrets() };
    assert_ne!(template(&base, &other), first, "a password");
    let pull = Secrets { pull: Some(SecretText::new("{}")), ..secrets() };
    assert_eq!(template(&base, &pull), first, "the registry's credentials");
    changed = base.clone();
    changed.rollout.soak = Duration::from_secs(90);
    changed.server.replicas = 5;
    assert_eq!(template(&changed, &secrets()), first, "the number of pods");
}

#[test]
fn names_follow_the_content() {
    let all = objects(&kubernetes(), &secrets());
    let config = named(&all, ObjectKind::ConfigMap, CONFIG);
    let secret = named(&all, ObjectKind::Secret, SECRET);
    for (name, start) in [(&config, CONFIG), (&secret, SECRET)] {
        let digits = name.strip_prefix(start).and_then(|rest| rest.strip_prefix('-')).unwrap();
        assert!(digits.len() == 10 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()), "{name}");
    }
    let server = container(&all, "containers", CONTAINER);
    assert_eq!(server["envFrom"][0]["configMapRef"]["name"], config.as_str());
    assert!(env(server).contains(&format!("MLFLOW_BACKEND_STORE_URI<{secret}/database-uri")));
}

#[test]
fn the_environment_is_in_the_deployment() {
    let all = objects(&kubernetes(), &secrets());
    let deployment = find(&all, ObjectKind::Deployment);
    assert_eq!(deployment["spec"]["replicas"], 2);
    assert_eq!(deployment["spec"]["progressDeadlineSeconds"], 300);
    assert_eq!(deployment["metadata"]["labels"]["app.kubernetes.io/version"], "3.17.2");
    let pod = &deployment["spec"]["template"]["spec"];
    let before = pod["initContainers"].as_array().unwrap();
    assert_eq!(before.len(), 1, "no proxy without Cloud SQL");
    assert_eq!(pod["volumes"][0]["emptyDir"]["sizeLimit"], "5Gi");
    let server = container(&all, "containers", CONTAINER);
    assert_eq!(server["image"], IMAGE);
    assert_eq!(server["resources"]["requests"]["cpu"], "500m");
    assert_eq!(server["resources"]["limits"]["memory"], "2Gi");
    assert_eq!(server["resources"]["limits"]["cpu"], Value::Null);
    let data = &find(&all, ObjectKind::ConfigMap)["data"];
    assert_eq!(data["MLFLOW_WORKERS"], "3");
    assert_eq!(data["MLFLOW_ARTIFACTS_DESTINATION"], "gs://bucket");
}

#[test]
fn an_autoscaler_decides_alone() {
    let mut config = kubernetes();
    config.server.max_replicas = Some(5);
    let all = objects(&config, &secrets());
    assert_eq!(find(&all, ObjectKind::Deployment)["spec"]["replicas"], Value::Null);
    let autoscaler = &find(&all, ObjectKind::HorizontalPodAutoscaler)["spec"];
    assert_eq!((&autoscaler["minReplicas"], &autoscaler["maxReplicas"]), (&json!(2), &json!(5)));
}

#[test]
fn a_schedule_frees_what_is_deleted_in_the_servers_own_pod() {
    let mut config = cloud_sql();
    let list = objects(&config, &Secrets::default());
    assert_eq!(named(&list, ObjectKind::CronJob, ""), "", "by itself nothing is deleted");
    assert!(!kinds(&config).contains(&ObjectKind::CronJob));
    let day = Duration::from_secs(86_400);
    config.gc = GcConfig { schedule: Some("0 3 * * 0".to_owned()), older_than: 7 * day, ..GcConfig::default() };
    let all = objects(&config, &Secrets::default());
    assert!(kinds(&config).contains(&ObjectKind::CronJob), "rights are asked for");
    assert_eq!(named(&all, ObjectKind::CronJob, ""), "mlflow-gc");
    let spec = &find(&all, ObjectKind::CronJob)["spec"];
    let shown = ["schedule", "timeZone", "concurrencyPolicy", "startingDeadlineSeconds"].map(|key| spec[key].clone());
    assert_eq!(shown, [json!("0 3 * * 0"), json!("Etc/UTC"), json!("Forbid"), json!(3_600)]);
    let job = &spec["jobTemplate"]["spec"];
    let shown = ["activeDeadlineSeconds", "backoffLimit", "ttlSecondsAfterFinished"].map(|key| job[key].clone());
    assert_eq!(shown, [json!(3_600), json!(0), Value::Null]);
    let labels = &job["template"]["metadata"]["labels"];
    assert_eq!(labels["app.kubernetes.io/component"], "gc", "the Service and the budget do not count it");
    let pod = &job["template"]["spec"];
    let server = container(&all, "containers", CONTAINER);
    let cleaner = &pod["containers"][0];
    for same in ["image", "env", "envFrom", "securityContext", "volumeMounts"] {
        assert_eq!(cleaner[same], server[same], "{same}");
    }
    let before = find(&all, ObjectKind::Deployment)["spec"]["template"]["spec"]["initContainers"].clone();
    let sidecars = &before.as_array().unwrap()[..1];
    assert_eq!((&pod["initContainers"], &pod["restartPolicy"]), (&json!(sidecars), &json!("Never")));
    let arguments = |all: &[Object]| {
        let job = find(all, ObjectKind::CronJob)["spec"]["jobTemplate"]["spec"].clone();
        let command = job["template"]["spec"]["containers"][0]["command"].as_array().unwrap()[3..].to_vec();
        command.iter().map(|word| word.as_str().unwrap().to_owned()).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(arguments(&all), "--older-than 604800");
    config.gc.dry_run = true;
    assert_eq!(arguments(&objects(&config, &Secrets::default())), "--older-than 604800 --dry-run");
}

#[test]
fn cloud_sql_is_reached_through_the_sidecar() {
    let mut config = cloud_sql();
    let all = objects(&config, &Secrets::default());
    assert_eq!(named(&all, ObjectKind::Secret, ""), "", "IAM needs no password");
    let account = find(&all, ObjectKind::ServiceAccount);
    let annotation = &account["metadata"]["annotations"]["iam.gke.io/gcp-service-account"];
    assert_eq!(annotation, "mlflow@p.iam.gserviceaccount.com");
    let proxy = container(&all, "initContainers", "cloud-sql-proxy");
    assert_eq!(proxy["image"], PROXY_IMAGE);
    assert_eq!(env(proxy), ["CSQL_PROXY_INSTANCE_CONNECTION_NAME=p:r:i", "CSQL_PROXY_AUTO_IAM_AUTHN=true"]);
    let uri = "MLFLOW_BACKEND_STORE_URI=postgresql://mlflow%40p.iam@127.0.0.1:5432/mlflow".to_owned();
    assert!(env(container(&all, "containers", CONTAINER)).contains(&uri));

    if let Database::CloudSql(cloud) = &mut config.database {
        cloud.user = "mlflow".to_owned();
        cloud.password = Some(Source::File("pw".into()));
        cloud.private_ip = true;
        cloud.admin_api = Some("http://10.0.0.1".to_owned());
    }
    config.artifacts.identity = Identity::Key(Source::Existing { name: "keys".to_owned(), key: "a".to_owned() });
    let all = objects(&config, &Secrets { database: Some(SecretText::new("pw")), ..Secrets::default() });
    let proxy = container(&all, "initContainers", "cloud-sql-proxy");
    assert_eq!(
        env(proxy),
        [
            "CSQL_PROXY_INSTANCE_CONNECTION_NAME=p:r:i",
            "CSQL_PROXY_PRIVATE_IP=true",
            "CSQL_PROXY_SQLADMIN_API_ENDPOINT=http://10.0.0.1",
            "CSQL_PROXY_CREDENTIALS_FILE=/var/run/secrets/google/key.json",
        ]
    );
    let secret = named(&all, ObjectKind::Secret, SECRET);
    let variables = env(container(&all, "containers", CONTAINER));
    for expected in [
        "MLFLOW_BACKEND_STORE_URI=postgresql://mlflow@127.0.0.1:5432/mlflow".to_owned(),
        format!("PGPASSWORD<{secret}/database-password"),
        "GOOGLE_APPLICATION_CREDENTIALS=/var/run/secrets/google/key.json".to_owned(),
    ] {
        assert!(variables.contains(&expected), "{variables:?} should contain {expected}");
    }
    let volumes = find(&all, ObjectKind::Deployment)["spec"]["template"]["spec"]["volumes"].as_array().unwrap();
    let key = &volumes.iter().find(|volume| volume["name"] == "google-key").unwrap()["secret"];
    assert_eq!((&key["secretName"], &key["items"][0]["key"]), (&json!("keys"), &json!("a")));
}

#[test]
fn secrets_of_others_are_named_and_not_copied() {
    let mut config = kubernetes();
    config.database = Database::Uri(Source::Existing { name: "theirs".to_owned(), key: "url".to_owned() });
    let all = objects(&config, &Secrets::default());
    assert_eq!(named(&all, ObjectKind::Secret, ""), "");
    let variables = env(container(&all, "containers", CONTAINER));
    assert!(variables.contains(&"MLFLOW_BACKEND_STORE_URI<theirs/url".to_owned()), "{variables:?}");
}

#[test]
fn a_pull_secret_is_attached_to_the_account() {
    let secrets = Secrets { pull: Some(SecretText::new("{\"auths\":{}}")), ..secrets() };
    let all = objects(&kubernetes(), &secrets);
    assert_eq!(find(&all, ObjectKind::ServiceAccount)["imagePullSecrets"], json!([{"name": PULL_SECRET}]));
    let secret = all.iter().find(|object| object.name() == PULL_SECRET).unwrap();
    assert_eq!(secret.value["type"], "kubernetes.io/dockerconfigjson");
    assert_eq!(secret.value["data"][".dockerconfigjson"], "eyJhdXRocyI6e319");
}

#[test]
fn a_gateway_gets_a_route() {
    let mut config = kubernetes();
    config.access.hosts = vec!["a.b:8443".to_owned()];
    config.access.gateway = Some("infra/external".to_owned());
    let all = objects(&config, &secrets());
    let spec = &find(&all, ObjectKind::HttpRoute)["spec"];
    assert_eq!(spec["hostnames"], json!(["a.b"]));
    assert_eq!(
        (&spec["parentRefs"][0]["namespace"], &spec["parentRefs"][0]["name"]),
        (&json!("infra"), &json!("external"))
    );
}

#[test]
fn an_image_without_a_digest_is_refused() {
    let manifests = Manifests::read(&root()).unwrap();
    let (config, secrets) = (kubernetes(), secrets());
    let inputs = Inputs { env: "test", config: &config, image: "a.b/c:latest", version: None, secrets: &secrets };
    assert_eq!(render(&manifests, &inputs).unwrap_err().kind(), Kind::Usage);
}

/// Renders a copy of `kubernetes/` in which `from` is `to` in `file`.
fn edited(file: &str, from: &str, to: &str, config: &ClusterConfig) -> Result<Vec<Object>> {
    let dir = tempfile::tempdir().unwrap();
    let copy = dir.path().join("kubernetes");
    for folder in ["", "options"] {
        fs::create_dir(copy.join(folder)).unwrap();
        for entry in fs::read_dir(root().join("kubernetes").join(folder)).unwrap().map(|entry| entry.unwrap()) {
            if entry.file_type().unwrap().is_file() {
                fs::copy(entry.path(), copy.join(folder).join(entry.file_name())).unwrap();
            }
        }
    }
    let path = copy.join(file);
    match fs::read_to_string(&path) {
        Ok(text) => {
            assert!(text.contains(from), "{file} lacks {from}");
            fs::write(&path, text.replacen(from, to, 1)).unwrap();
        }
        Err(_) => fs::write(&path, to).unwrap(),
    }
    let secrets = secrets();
    let inputs = Inputs { env: "test", config, image: IMAGE, version: None, secrets: &secrets };
    render(&Manifests::read(dir.path())?, &inputs)
}

#[test]
fn what_users_add_is_kept() {
    let config = kubernetes();
    let all = edited(
        "deployment.yaml",
        "      containers:\n",
        "      tolerations: [{key: a, operator: Exists}]\n      containers:\n      - {name: log, image: b/c, \
         envFrom: [{configMapRef: {name: mlflow-config}}]}\n",
        &config,
    )
    .unwrap();
    let pod = &find(&all, ObjectKind::Deployment)["spec"]["template"]["spec"];
    assert_eq!(pod["tolerations"][0]["key"], "a");
    let log = container(&all, "containers", "log");
    assert_eq!(log["image"], "b/c");
    let name = named(&all, ObjectKind::ConfigMap, CONFIG);
    assert_eq!(log["envFrom"][0]["configMapRef"]["name"], name.as_str());

    let own = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: own, labels: {a: b}}\ndata: {c: d}\n";
    let all = edited("own.yaml", "", own, &config).unwrap();
    let own = all.iter().find(|object| object.name() == "own").unwrap();
    assert_eq!(own.value["metadata"]["namespace"], "lab");
    assert_eq!(own.value["metadata"]["labels"]["a"], "b");

    let all = edited("network-policy.yaml", "apiVersion", "# apiVersion", &config);
    assert!(all.is_err(), "half an object is a mistake");
    let manifest = fs::read_to_string(root().join("kubernetes/network-policy.yaml")).unwrap();
    let all = edited("network-policy.yaml", &manifest, "# none\n", &config).unwrap();
    assert_eq!(named(&all, ObjectKind::NetworkPolicy, ""), "", "a policy may be taken out");
}

#[test]
fn a_manifest_that_cannot_work_is_refused_with_its_file() {
    let sidecar = "- name: cloud-sql-proxy";
    for (file, from, to, config, expected) in [
        ("deployment.yaml", "- name: mlflow\n", "- name: server\n", kubernetes(), "no container is named mlflow"),
        ("deployment.yaml", sidecar, "- name: proxy", cloud_sql(), "no init container is named cloud-sql-proxy"),
        ("deployment.yaml", "restartPolicy: Always", "tty: false", cloud_sql(), "no restartPolicy: Always"),
        ("deployment.yaml", "containerPort: 5000", "containerPort: 80", kubernetes(), "no containerPort 5000"),
        ("deployment.yaml", "component: server\n  strategy", "component: web\n  strategy", kubernetes(), "selector"),
        (
            "deployment.yaml",
            "  name: mlflow\n",
            "  name: other\n",
            kubernetes(),
            "deployment.yaml: the Deployment is named",
        ),
        ("deployment.yaml", "  replicas: 1", "  replica: 1", kubernetes(), "spec.replica is no field of Deployment"),
        ("deployment.yaml", "  replicas: 1", "  replicas: one", kubernetes(), "deployment.yaml cannot be read"),
        ("service.yaml", "  name: mlflow\n", "  name: web\n", kubernetes(), "no Service named mlflow"),
        (
            "b.yaml",
            "",
            "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: b}\n",
            kubernetes(),
            "there is to be one",
        ),
        ("b.yaml", "", "apiVersion: v1\nkind: Pod\nmetadata: {name: b}\n", kubernetes(), "b.yaml: kind \"Pod\""),
        (
            "b.yaml",
            "",
            "apiVersion: batch/v1\nkind: CronJob\nmetadata: {name: b}\n",
            kubernetes(),
            "b.yaml: the only CronJob",
        ),
        ("b.yaml", "", "apiVersion: v1\n", kubernetes(), "b.yaml holds an object without kind"),
        ("b.yaml", "", "a: [\n", kubernetes(), "kubernetes/b.yaml cannot be read"),
        ("secret.yaml", "stringData: {}", "stringData: {a: b}", kubernetes(), "Secret mlflow-secret holds values"),
    ] {
        let error = edited(file, from, to, &config).map(|_| ()).expect_err(expected);
        assert_eq!(error.kind(), Kind::Input, "{expected}");
        let text = error.lines().join(": ");
        assert!(text.contains(expected) && text.contains("kubernetes/"), "{text} should contain {expected:?}");
    }
    let mut config = kubernetes();
    config.server.max_replicas = Some(5);
    let file = "options/horizontal-pod-autoscaler.yaml";
    let text = fs::read_to_string(root().join("kubernetes").join(file)).unwrap();
    let error = edited(file, &text, "", &config).map(|_| ()).unwrap_err();
    assert!(error.to_string().contains("missing"), "{error}");
}

#[test]
fn the_repositorys_manifests_stand_by_themselves() {
    let manifests = Manifests::read(&root()).unwrap();
    assert!(manifests.balancer.is_some() && manifests.autoscaler.is_some() && manifests.route.is_some());
    let spec = manifests.deployment.spec.unwrap();
    let pod = spec.template.spec.unwrap();
    // The time that a pod gets is longer than what is done in it.
    let server = pod.containers.iter().find(|container| container.name == CONTAINER).unwrap();
    let sleep = server.lifecycle.as_ref().unwrap().pre_stop.as_ref().unwrap().sleep.as_ref().unwrap().seconds;
    let options = &manifests.config.data.unwrap()["MLFLOW_UVICORN_OPTS"];
    let graceful: i64 = options.split("--timeout-graceful-shutdown ").nth(1).unwrap().parse().unwrap();
    let proxy = pod.init_containers.unwrap().remove(0);
    let delay = proxy.args.unwrap().iter().find_map(|arg| arg.strip_prefix("--max-sigterm-delay=").map(str::to_owned));
    let delay: i64 = delay.unwrap().strip_suffix('s').unwrap().parse().unwrap();
    assert!(pod.termination_grace_period_seconds.unwrap() > sleep + graceful + delay);
    assert_eq!(pod.enable_service_links, Some(false), "MLFLOW_PORT is read by the server");
    assert_eq!(proxy.image.as_deref(), Some(PROXY_IMAGE));
    assert_eq!(server.args, None, "nothing is said in argv");
}
