//! The same testbed where Docker and kind are: the cluster is kind's, registry, PostgreSQL and the
//! fake GCS are containers beside it that share one address. That address, the ports and the files
//! for users are those of a node, so what is deployed to one can be deployed to the other.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use kube::config::Kubeconfig;

use super::components::BUCKET;
use super::error::{Context as _, Error, Kind, Result};
use super::options::Options;
use super::progress::Progress;
use super::state::{self, CONTEXT, Testbed, write_private};
use super::up::{Up, now, proxies, push_images};
use super::{config, database, image, lock, program, programs};

/// Name of the cluster, and prefix of everything else.
const CLUSTER: &str = "mlflow-testbed";
/// The containers, by component; the first has the address that the others share.
const CONTAINERS: &[(&str, &str)] = &[
    ("postgres", "mlflow-testbed-postgres"),
    ("registry", "mlflow-testbed-registry"),
    ("gcs", "mlflow-testbed-gcs"),
    ("node", "mlflow-testbed-control-plane"),
];
/// Pulling images included.
const PATIENCE: Duration = Duration::from_secs(600);
const SHORT: Duration = Duration::from_secs(60);

/// A command of the plan.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Step {
    what: &'static str,
    program: &'static str,
    args: Vec<String>,
    stdin: String,
}

fn step(what: &'static str, program: &'static str, args: &[&str]) -> Step {
    Step { what, program, args: args.iter().map(|arg| (*arg).to_owned()).collect(), stdin: String::new() }
}

/// What brings it up, in order. The variable PASSWORD is the superuser's.
fn plan(options: &Options, kubeconfig: &str) -> Vec<Step> {
    let network = &options.network;
    let node_ip = network.node_ip().to_string();
    let (registry, port) = (network.registry(), network.registry.to_string());
    let published = format!("{registry}:{port}");
    let shared = format!("container:{}", CONTAINERS[0].1);
    let folder = format!("/etc/containerd/certs.d/{registry}");
    let gcs = format!(
        "{BUCKET} && exec /bin/fake-gcs-server -scheme http -port 4443 -backend filesystem \
        -filesystem-root /storage -external-url {0} -public-host {node_ip}:4443",
        network.gcs()
    );
    let subnet = format!("{}/24", network.link);
    vec![
        step(
            "a network",
            "docker",
            &["network", "create", "--subnet", &subnet, "--gateway", &network.host_ip().to_string(), CLUSTER],
        ),
        step(
            "PostgreSQL",
            "docker",
            // The value of the password comes from docker's own environment.
            &[
                "run",
                "--detach",
                "--name",
                CONTAINERS[0].1,
                "--network",
                CLUSTER,
                "--ip",
                &node_ip,
                "--publish",
                &published,
                "--env",
                "POSTGRES_PASSWORD",
                "--env",
                "POSTGRES_INITDB_ARGS=--no-sync",
                "postgres:15",
                "-c",
                "fsync=off",
                "-c",
                "max_connections=200",
            ],
        ),
        step(
            "a registry",
            "docker",
            &[
                "run",
                "--detach",
                "--name",
                CONTAINERS[1].1,
                "--network",
                &shared,
                "--env",
                &format!("REGISTRY_HTTP_ADDR=0.0.0.0:{port}"),
                "--env",
                "REGISTRY_STORAGE_DELETE_ENABLED=true",
                "registry:2",
            ],
        ),
        step(
            "a fake Cloud Storage",
            "docker",
            &[
                "run",
                "--detach",
                "--name",
                CONTAINERS[2].1,
                "--network",
                &shared,
                "--entrypoint",
                "/bin/sh",
                &format!("fsouza/fake-gcs-server:{}", programs::FAKE_GCS.version.trim_start_matches('v')),
                "-c",
                &format!("mkdir -p /storage/{gcs}"),
            ],
        ),
        Step {
            stdin: cluster(),
            ..step(
                "a cluster",
                "kind",
                &[
                    "create",
                    "cluster",
                    "--name",
                    CLUSTER,
                    "--config",
                    "-",
                    "--kubeconfig",
                    kubeconfig,
                    "--wait",
                    "180s",
                ],
            )
        },
        step("a folder in the node", "docker", &["exec", CONTAINERS[3].1, "mkdir", "-p", &folder]),
        Step {
            // In the node the registry is another container, whatever images are called.
            stdin: config::registry_hosts(&format!("{node_ip}:{port}")),
            ..step(
                "the registry's address",
                "docker",
                &["exec", "--interactive", CONTAINERS[3].1, "cp", "/dev/stdin", &format!("{folder}/hosts.toml")],
            )
        },
    ]
}

/// kind's configuration. JSON is YAML.
fn cluster() -> String {
    serde_json::json!({
        "kind": "Cluster",
        "apiVersion": "kind.x-k8s.io/v1alpha4",
        "nodes": [{ "role": "control-plane" }],
        // Both names of the section: that of containerd 1 and that of containerd 2.
        "containerdConfigPatches": [
            "[plugins.\"io.containerd.grpc.v1.cri\".registry]\n  config_path = \"/etc/containerd/certs.d\"\n\
             [plugins.\"io.containerd.cri.v1.images\".registry]\n  config_path = \"/etc/containerd/certs.d\"\n"
        ],
    })
    .to_string()
}

/// What takes it down. Each fails harmlessly where there is nothing.
fn unplan() -> Vec<Step> {
    let mut steps = vec![step("the cluster", "kind", &["delete", "cluster", "--name", CLUSTER])];
    // The last one's network is the first one's.
    let containers: Vec<&str> = CONTAINERS[..3].iter().rev().map(|(_, container)| *container).collect();
    steps.push(step("containers", "docker", &[&["rm", "--force", "--volumes"], &containers[..]].concat()));
    steps.push(step("the network", "docker", &["network", "rm", CLUSTER]));
    steps
}

fn require() -> Result<()> {
    let missing: Vec<&str> =
        ["docker", "kind", "kubectl"].into_iter().filter(|name| program::find(name).is_none()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(Error::new(Kind::Tool, format!("a testbed with kind needs {}", missing.join(" and ")))
        .hint("install Docker (https://docs.docker.com/engine/install), kind (https://kind.sigs.k8s.io) and kubectl, or use --with node as root"))
}

async fn run(step: &Step, password: &str, patience: Duration) -> Result<String> {
    let mut command = program::command(step.program);
    command.args(&step.args).env("POSTGRES_PASSWORD", password).env("KIND_EXPERIMENTAL_DOCKER_NETWORK", CLUSTER);
    program::read(command, step.stdin.as_bytes(), patience).await
}

/// Whether the files for users say that this testbed is up, and its containers say so too.
pub(crate) async fn running(options: &Options) -> Option<Testbed> {
    let record = std::fs::read(options.out.join(state::RECORD)).ok()?;
    let record: Testbed = serde_json::from_slice(&record).ok().filter(|record: &Testbed| record.with == "kind")?;
    let ask = step("", "docker", &["inspect", "--format", "{{.State.Running}}", CONTAINERS[3].1]);
    run(&ask, "", SHORT).await.is_ok_and(|said| said.trim() == "true").then_some(record)
}

/// Brings it up, or finds that it is. Nothing is left of one that does not come up.
pub async fn up(options: &Options, progress: &dyn Progress, cancel: impl Future<Output = ()>) -> Result<Up> {
    options.check()?;
    require()?;
    let _lock = lock::Lock::take(&options.root)?;
    if let Some(testbed) = running(options).await {
        return Ok(Up { testbed, already: true, took: Duration::ZERO });
    }
    let begun = Instant::now();
    clean(options).await;
    let outcome = tokio::select! {
        outcome = bring_up(options, progress) => outcome,
        () = cancel => Err(Error::new(Kind::Interrupted, "interrupted")),
    };
    if outcome.is_err() {
        clean(options).await;
    }
    outcome.map(|testbed| Up { testbed, already: false, took: begun.elapsed() })
}

async fn bring_up(options: &Options, progress: &dyn Progress) -> Result<Testbed> {
    let (admin, password) = (database::password(), database::password());
    let out = &options.out;
    std::fs::create_dir_all(out).on_machine(|| format!("cannot create {}", out.display()))?;
    let proxies = proxies(options, progress).await?;
    let kubeconfig = out.join(state::KUBECONFIG);
    for step in plan(options, &kubeconfig.display().to_string()) {
        progress.step("Starting", step.what);
        run(&step, &admin, PATIENCE).await?;
    }
    rename_context(&kubeconfig)?;
    let client = image::client()?;
    until("the registry", async || {
        client.get(format!("http://{}/v2/", options.network.registry())).send().await.is_ok()
    })
    .await?;
    let ready =
        step("", "docker", &["exec", CONTAINERS[0].1, "pg_isready", "--host", &options.network.node_ip().to_string()]);
    until("PostgreSQL", async || run(&ready, "", SHORT).await.is_ok()).await?;
    let psql = [
        "exec",
        "--interactive",
        CONTAINERS[0].1,
        "psql",
        "--quiet",
        "--set=ON_ERROR_STOP=1",
        "--username",
        database::ADMIN,
    ];
    let create = Step { stdin: database::script(&password), ..step("the database", "docker", &psql) };
    run(&create, "", SHORT).await?;
    let busybox = program::find("busybox");
    let busybox =
        busybox.ok_or_else(|| Error::new(Kind::Tool, "busybox is not installed").hint("install busybox-static"))?;
    let images = push_images(options, &options.network.registry(), busybox, &proxies).await?;
    let host = format!("{}:5432", options.network.node_ip());
    let uri =
        |user: &str, password: &str, database: &str| format!("{}\n", database::uri(user, password, &host, database));
    write_private(&out.join(state::DATABASE_URI), uri(database::DATABASE, &password, database::DATABASE).as_bytes())?;
    write_private(&out.join(state::DATABASE_ADMIN_URI), uri(database::ADMIN, &admin, "postgres").as_bytes())?;
    let testbed = Testbed {
        with: "kind".to_owned(),
        context: CONTEXT.to_owned(),
        kubeconfig,
        api_server: "in the kubeconfig".to_owned(),
        registry: options.network.registry(),
        login_registry: None,
        database: format!("{host}:5432"),
        gcs: options.network.gcs(),
        bucket: format!("gs://{BUCKET}"),
        google: None,
        google_for_pods: None,
        project: None,
        busybox: images.busybox,
        cloud_sql_proxy: images.cloud_sql_proxy,
        oauth2_proxy: images.oauth2_proxy,
        kubectl: program::find("kubectl").unwrap_or_else(|| PathBuf::from("kubectl")),
        components: CONTAINERS.iter().map(|(name, _)| (*name).to_owned()).collect(),
        versions: Vec::new(),
        logs: out.clone(),
        root: options.root.clone(),
        out: out.clone(),
        pids: Vec::new(),
        since: now(),
    };
    let record = serde_json::to_vec_pretty(&testbed).on_machine(|| "cannot write JSON")?;
    write_private(&out.join(state::RECORD), &record)?;
    Ok(testbed)
}

async fn until(what: &str, works: impl AsyncFn() -> bool) -> Result<()> {
    let deadline = Instant::now() + SHORT * 2;
    while !works().await {
        if Instant::now() > deadline {
            return Err(Error::new(
                Kind::Machine,
                format!("{what} does not come up within {} s", (SHORT * 2).as_secs()),
            )
            .hint("`docker ps --all` and `docker logs NAME` show why"));
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    Ok(())
}

/// kind names the context after the cluster; ours has one name everywhere.
fn rename_context(file: &std::path::Path) -> Result<()> {
    let named = || format!("cannot read {}", file.display());
    let text = std::fs::read_to_string(file).on_machine(named)?;
    write_private(file, renamed(&text).on_machine(named)?.as_bytes())
}

fn renamed(text: &str) -> std::result::Result<String, Box<dyn std::error::Error + Send + Sync>> {
    let mut kubeconfig = Kubeconfig::from_yaml(text)?;
    let [context] = &mut kubeconfig.contexts[..] else { return Err("it has more or fewer than one context".into()) };
    context.name = CONTEXT.to_owned();
    kubeconfig.current_context = Some(CONTEXT.to_owned());
    Ok(serde_json::to_string_pretty(&kubeconfig)?)
}

/// Whether anything of it is on this machine, whole or in parts.
pub(crate) async fn exists() -> bool {
    require().is_ok() && containers().await.is_ok_and(|ids| !ids.is_empty())
}

async fn containers() -> Result<Vec<String>> {
    let list = step("", "docker", &["ps", "--all", "--quiet", "--filter", &format!("name={CLUSTER}-")]);
    Ok(run(&list, "", SHORT).await?.split_whitespace().map(str::to_owned).collect())
}

/// Takes it down.
pub(crate) async fn down(options: &Options) -> Result<()> {
    let _lock = lock::Lock::take(&options.root)?;
    clean(options).await;
    match containers().await?.join(", ") {
        none if none.is_empty() => Ok(()),
        ids => Err(Error::new(Kind::Machine, format!("of the testbed there are still the containers {ids}"))
            .hint("remove them with docker rm --force")),
    }
}

async fn clean(options: &Options) {
    for step in unplan() {
        // What does not exist cannot be removed; the caller looks for what is left.
        let _ = run(&step, "", SHORT * 2).await;
    }
    state::unpublish(&options.out);
}

/// Stops or starts a container; the components of the cluster are kind's own.
pub(crate) async fn control(component: &str, order: &str) -> Result<()> {
    let known = CONTAINERS.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
    let found = CONTAINERS.iter().find(|(name, _)| *name == component);
    let (_, container) = found.ok_or_else(|| {
        Error::new(Kind::Usage, format!("a testbed with kind has no component {component:?}; it has {known}"))
    })?;
    run(&step("", "docker", &[order, container]), "", SHORT).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(steps: &[Step]) -> Vec<String> {
        steps.iter().map(|step| format!("{} {}", step.program, step.args.join(" "))).collect()
    }

    #[test]
    fn the_plan_gives_the_addresses_of_a_node_and_no_password() {
        let options = Options::new(std::path::Path::new("/repo"), "/cache".into(), Vec::new());
        let plan = plan(&options, "/repo/target/testbed/kubeconfig");
        assert_eq!(
            lines(&plan),
            [
                "docker network create --subnet 10.201.0.0/24 --gateway 10.201.0.1 mlflow-testbed",
                "docker run --detach --name mlflow-testbed-postgres --network mlflow-testbed --ip 10.201.0.2 --publish \
                 127.0.0.1:5050:5050 --env POSTGRES_PASSWORD --env POSTGRES_INITDB_ARGS=--no-sync postgres:15 -c fsync=off \
                 -c max_connections=200",
                "docker run --detach --name mlflow-testbed-registry --network container:mlflow-testbed-postgres --env \
                 REGISTRY_HTTP_ADDR=0.0.0.0:5050 --env REGISTRY_STORAGE_DELETE_ENABLED=true registry:2",
                "docker run --detach --name mlflow-testbed-gcs --network container:mlflow-testbed-postgres --entrypoint \
                 /bin/sh fsouza/fake-gcs-server:1.55.1 -c mkdir -p /storage/mlflow && exec /bin/fake-gcs-server -scheme http \
                 -port 4443 -backend filesystem -filesystem-root /storage -external-url http://10.201.0.2:4443 -public-host \
                 10.201.0.2:4443",
                "kind create cluster --name mlflow-testbed --config - --kubeconfig /repo/target/testbed/kubeconfig --wait 180s",
                "docker exec mlflow-testbed-control-plane mkdir -p /etc/containerd/certs.d/127.0.0.1:5050",
                "docker exec --interactive mlflow-testbed-control-plane cp /dev/stdin \
                 /etc/containerd/certs.d/127.0.0.1:5050/hosts.toml",
            ]
        );
        assert_eq!(plan[6].stdin.lines().next(), Some("server = \"http://10.201.0.2:5050\""));
        let kind: serde_json::Value = serde_json::from_str(&plan[4].stdin).unwrap();
        assert_eq!(kind["nodes"].as_array().map(Vec::len), Some(1));
    }

    #[test]
    fn everything_that_the_plan_makes_is_removed() {
        assert_eq!(
            lines(&unplan()),
            [
                "kind delete cluster --name mlflow-testbed",
                "docker rm --force --volumes mlflow-testbed-gcs mlflow-testbed-registry mlflow-testbed-postgres",
                "docker network rm mlflow-testbed",
            ]
        );
    }

    #[test]
    fn the_context_is_called_as_everywhere() {
        let kind = "apiVersion: v1\nkind: Config\nclusters: [{name: kind-x, cluster: {server: \"https://127.0.0.1:1\"}}]\n\
            contexts: [{name: kind-x, context: {cluster: kind-x, user: kind-x}}]\ncurrent-context: kind-x\n\
            users: [{name: kind-x, user: {}}]\n";
        let text = renamed(kind).unwrap();
        let config = Kubeconfig::from_yaml(&text).unwrap();
        assert_eq!(config.current_context.as_deref(), Some("testbed"));
        assert_eq!(config.contexts[0].context.as_ref().map(|context| context.cluster.as_str()), Some("kind-x"));
        assert!(renamed("apiVersion: v1\nkind: Config\n").is_err());
    }
}
