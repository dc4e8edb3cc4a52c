//! Bringing a testbed up.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, PostParams};
use serde_json::json;

use super::components::{self, BUCKET, Built, Component};
use super::control::{self, Request};
use super::error::{Context as _, Error, Kind, Result};
use super::image::{Image, Item};
use super::node::{self, Spec};
use super::options::Options;
use super::pki::{self, Pki};
use super::progress::Progress;
use super::ready::Asker;
use super::state::{self, CONTEXT, Remains, Testbed, write_private};
use super::tools::{self, Tools};
use super::{cgroup, config, database, down, google, lock, network, program, programs};

/// How long each component may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);
/// The image with a shell, in the open registry.
const BUSYBOX: &str = "testbed/busybox:1";
/// The user of the registry that asks for a login.
const LOGIN: &str = "testbed";

/// What `up` has done.
#[derive(Debug)]
pub struct Up {
    /// The testbed.
    pub testbed: Testbed,
    /// It was up before.
    pub already: bool,
    /// Time from the first component's start until all of them worked.
    pub took: Duration,
}

/// Brings the testbed up, or finds that it is. Nothing is left of one that does not come up, or
/// whose `cancel` came first.
pub async fn up(options: &Options, progress: &dyn Progress, cancel: impl Future<Output = ()>) -> Result<Up> {
    options.check()?;
    require_root()?;
    let _lock = lock::Lock::take(&options.root)?;
    if let Some(testbed) = running(options) {
        state::publish(options)?;
        return Ok(Up { testbed, already: true, took: Duration::ZERO });
    }
    let remains = Remains::find(options);
    if !remains.is_empty() {
        progress.step("Cleaning", "what is left of a testbed that did not end in order");
        down::clean(options).await?;
    }
    let work = async {
        let tools = tools::find().await?;
        let kubernetes = programs::provide(&programs::KUBERNETES, options, progress).await?;
        let fake_gcs = programs::provide(&programs::FAKE_GCS, options, progress).await?;
        let proxies = proxies(options, progress).await?;
        network::check(options).await?;
        let begun = Instant::now();
        let built = Built { kubernetes, fake_gcs };
        let testbed = bring_up(options, &tools, &built, &proxies, progress, begun).await?;
        Ok(Up { testbed, already: false, took: begun.elapsed() })
    };
    let outcome = tokio::select! {
        outcome = work => outcome,
        () = cancel => Err(Error::new(Kind::Interrupted, "interrupted")
            .hint("run the same command again; what was built is kept")),
    };
    if outcome.is_err() {
        down::clean(options).await?;
    }
    outcome
}

/// Refuses who may not make namespaces, links and control groups.
pub(crate) fn require_root() -> Result<()> {
    if nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    Err(Error::new(Kind::Machine, "a testbed's node needs root: namespaces, a network link, control groups")
        .hint("run it as root (sudo --preserve-env=PATH,HOME), or with --with kind where Docker is"))
}

/// The testbed, if it came up and its processes live.
pub(crate) fn running(options: &Options) -> Option<Testbed> {
    let record = state::record(&options.root)?;
    let alive = Remains::find(options).processes;
    (record.pids.len() == 2 && record.pids.iter().all(|pid| alive.contains(pid))).then_some(record)
}

async fn bring_up(
    options: &Options,
    tools: &Tools,
    built: &Built,
    proxies: &Proxies,
    progress: &dyn Progress,
    begun: Instant,
) -> Result<Testbed> {
    let postgres = database::user()?;
    let components = components::all(options, tools, built, postgres);
    let secrets = Secrets::new();
    folders(options)?;
    let pki = pki::make(options)?;
    configure(options, tools, &pki, &secrets)?;
    cgroup::create(options)?;

    progress.step("Starting", &format!("a node in {}", options.root.display()));
    let mut path = vec![built.kubernetes.clone()];
    path.extend(tools.path.iter().cloned());
    let spec = Spec {
        hostname: options.node_name().to_owned(),
        network: options.network,
        path,
        components: components.clone(),
    };
    let spec = serde_json::to_vec_pretty(&spec).on_machine(|| "cannot write JSON")?;
    write_private(&options.path(node::SPEC), &spec)?;
    let (supervisor, inside) = start_node(options).await?;
    network::connect(options, inside).await?;

    let asker = Asker::new(options, &options.path("out").join(state::KUBECONFIG)).await?;
    let stage = Stage { options, components: &components, asker: &asker, progress, begun };
    stage.start(&["registry", "login-registry", "etcd", "containerd", "google", "apiserver", "gcs"]).await?;
    let databases = async {
        let cloud_sql = components::CLOUD_SQL.0;
        tokio::try_join!(
            database::init(options, tools, postgres, "postgres", &secrets.admin),
            database::init(options, tools, postgres, cloud_sql, &secrets.cloud_sql),
        )?;
        stage.start(&["postgres", cloud_sql]).await?;
        tokio::try_join!(stage.wait("postgres"), stage.wait(cloud_sql))?;
        let host = options.network.node_ip().to_string();
        database::create(tools, &host, &secrets.admin, &secrets.database).await
    };
    let images = async {
        stage.wait("registry").await?;
        let registry = format!("{}:{}", options.network.node_ip(), options.network.registry);
        let images = push_images(options, &registry, tools.busybox.clone(), proxies).await?;
        stage.wait("login-registry").await?;
        Ok(images)
    };
    let cluster = async {
        stage.wait("apiserver").await?;
        stage.start(&["controller-manager", "scheduler", "kubelet", "kube-proxy", "dns"]).await?;
        resolver(options, asker.cluster()).await?;
        tokio::try_join!(
            stage.wait("containerd"),
            stage.wait("controller-manager"),
            stage.wait("scheduler"),
            stage.wait("kube-proxy"),
            stage.wait("dns"),
            stage.wait("gcs"),
            stage.wait("google"),
        )?;
        stage.wait("kubelet").await?;
        asker.wait_for_namespace(PATIENCE).await
    };
    let ((), images, ()) = tokio::try_join!(databases, images, cluster)?;

    let testbed = Testbed {
        with: "node".to_owned(),
        context: CONTEXT.to_owned(),
        kubeconfig: options.out.join(state::KUBECONFIG),
        api_server: options.network.api_server(),
        registry: options.network.registry(),
        login_registry: Some(options.network.login_registry()),
        database: format!("{}:5432", options.network.node_ip()),
        gcs: options.network.gcs(),
        bucket: format!("gs://{BUCKET}"),
        google: Some(options.network.google()),
        google_for_pods: Some(options.network.google_for_pods()),
        project: Some(google::PROJECT.to_owned()),
        busybox: images.busybox,
        cloud_sql_proxy: images.cloud_sql_proxy,
        oauth2_proxy: images.oauth2_proxy,
        kubectl: built.kubernetes.join("kubectl"),
        components: components.iter().map(|component| component.name.clone()).collect(),
        versions: versions(tools).await,
        logs: options.logs(),
        root: options.root.clone(),
        out: options.out.clone(),
        pids: vec![supervisor, inside],
        since: now(),
    };
    let record = serde_json::to_vec_pretty(&testbed).on_machine(|| "cannot write JSON")?;
    write_private(&options.path("out").join(state::RECORD), &record)?;
    state::publish(options)?;
    Ok(testbed)
}

struct Secrets {
    admin: String,
    database: String,
    registry: String,
    cloud_sql: String,
}

impl Secrets {
    fn new() -> Self {
        let [admin, database, registry, cloud_sql] = std::array::from_fn(|_| database::password());
        Self { admin, database, registry, cloud_sql }
    }
}

fn folders(options: &Options) -> Result<()> {
    // The users of PostgreSQL and of containers pass through the root; secrets are below folders
    // that only root may enter.
    for (name, mode) in [
        ("", 0o711),
        ("conf", 0o700),
        ("pki", 0o700),
        ("out", 0o700),
        ("logs", 0o755),
        ("gcs", 0o700),
        (&format!("gcs/{BUCKET}"), 0o700),
    ] {
        let dir = options.path(name);
        let named = || format!("cannot create {}", dir.display());
        std::fs::create_dir_all(&dir).on_machine(named)?;
        std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(mode)).on_machine(named)?;
    }
    refuse_overlay(&options.root)
}

/// containerd's layers cannot lie on an overlay, which is what a container's own files are on.
fn refuse_overlay(root: &Path) -> Result<()> {
    let kind = nix::sys::statfs::statfs(root).on_machine(|| format!("cannot inspect {}", root.display()))?;
    if kind.filesystem_type() == nix::sys::statfs::OVERLAYFS_SUPER_MAGIC {
        let message = format!("{} is on an overlay file system, which can hold no container's layers", root.display());
        return Err(
            Error::new(Kind::Machine, message).hint("give a folder on another one with --root, such as a volume")
        );
    }
    Ok(())
}

fn configure(options: &Options, tools: &Tools, pki: &Pki, secrets: &Secrets) -> Result<()> {
    let (conf, keys, out) = (options.path("conf"), options.path("pki"), options.path("out"));
    let network = &options.network;
    for (name, pair) in [
        ("ca", &pki.authority),
        ("tokens", &pki.tokens),
        ("apiserver", &pki.api_server),
        ("kubelet-server", &pki.kubelet_server),
        ("apiserver-kubelet", &pki.api_server_to_kubelet),
    ] {
        write_private(&keys.join(format!("{name}.crt")), pair.certificate.as_bytes())?;
        write_private(&keys.join(format!("{name}.key")), pair.key.as_bytes())?;
    }
    for (name, pair) in &pki.users {
        let text = pki::kubeconfig(&pki.authority, name, pair, &network.api_server(), CONTEXT);
        let file = match *name {
            pki::ADMIN => out.join(state::KUBECONFIG),
            name => conf.join(format!("{name}.kubeconfig")),
        };
        write_private(&file, format!("{text:#}\n").as_bytes())?;
    }
    let htpasswd = conf.join("htpasswd");
    let hash = bcrypt::hash(&secrets.registry, 5).on_machine(|| "cannot hash a password")?;
    write_private(&htpasswd, format!("{LOGIN}:{hash}\n").as_bytes())?;
    let login = json!({ "registry": network.login_registry(), "user": LOGIN, "password": secrets.registry });
    let host = format!("{}:5432", network.node_ip());
    google::configure(options, &pki.authority.certificate, &secrets.cloud_sql)?;
    let database_uri = database::uri(database::DATABASE, &secrets.database, &host, database::DATABASE);
    let admin_uri = database::uri(database::ADMIN, &secrets.admin, &host, "postgres");
    for (path, text) in [
        (conf.join("kubelet.yaml"), config::kubelet(options).to_string()),
        (conf.join("kube-proxy.yaml"), config::kube_proxy(options).to_string()),
        (conf.join("containerd.toml"), config::containerd(options, tools)),
        (conf.join("resolv.conf"), format!("nameserver {}\n", network.dns_ip())),
        (conf.join("dnsmasq.conf"), config::dnsmasq(options)),
        (conf.join("registry.yaml"), config::registry(&options.path("registry"), network.registry, None).to_string()),
        (
            conf.join("login-registry.yaml"),
            config::registry(&options.path("login-registry"), network.login_registry, Some(&htpasswd)).to_string(),
        ),
        (out.join(state::DATABASE_URI), format!("{database_uri}\n")),
        (out.join(state::DATABASE_ADMIN_URI), format!("{admin_uri}\n")),
        (out.join(state::REGISTRY_LOGIN), format!("{login:#}\n")),
    ] {
        write_private(&path, text.as_bytes())?;
    }
    let cni = conf.join("cni");
    std::fs::create_dir_all(&cni).on_machine(|| format!("cannot create {}", cni.display()))?;
    write_private(&cni.join("10-bridge.conflist"), config::cni(options).to_string().as_bytes())?;
    for registry in [network.registry(), network.login_registry()] {
        let dir = conf.join("registries").join(&registry);
        std::fs::create_dir_all(&dir).on_machine(|| format!("cannot create {}", dir.display()))?;
        write_private(&dir.join("hosts.toml"), config::registry_hosts(&registry).as_bytes())?;
    }
    Ok(())
}

/// Starts the supervisor and waits until process 1 takes orders. Gives both ids.
async fn start_node(options: &Options) -> Result<(i32, i32)> {
    let mut child = node::spawn(options)?;
    let supervisor = i32::try_from(child.id()).on_machine(|| "the supervisor has no id")?;
    let deadline = Instant::now() + PATIENCE;
    while !options.path(control::SOCKET).exists() {
        let ended = child.try_wait().on_machine(|| "cannot wait for the supervisor")?;
        if ended.is_some() || Instant::now() > deadline {
            let logs = options.logs();
            let said = [
                program::tail_of(&logs.join("supervisor.log"), 5).await,
                program::tail_of(&logs.join("node.log"), 5).await,
            ];
            return Err(Error::new(Kind::Machine, "the testbed's node does not start").source(said.join("\n")));
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let pid = std::fs::read_to_string(options.path(node::PID)).on_machine(|| "cannot read the node's id")?;
    Ok((supervisor, pid.trim().parse().on_machine(|| "the node's id is no number")?))
}

/// Components that come up.
struct Stage<'a> {
    options: &'a Options,
    components: &'a [Component],
    asker: &'a Asker,
    progress: &'a dyn Progress,
    begun: Instant,
}

impl Stage<'_> {
    async fn start(&self, names: &[&str]) -> Result<()> {
        for name in names {
            control::tell(&self.options.root, &Request::Start((*name).to_owned())).await?;
        }
        Ok(())
    }

    async fn wait(&self, name: &str) -> Result<()> {
        let component = self.components.iter().find(|component| component.name == name);
        let component = component.ok_or(name).on_machine(|| "no such component")?;
        self.asker.wait(self.options, component, PATIENCE).await?;
        self.progress.step("Ready", &format!("{name} ({:.1} s)", self.begun.elapsed().as_secs_f64()));
        Ok(())
    }
}

/// Where the programs are that images for pods are made of.
pub(crate) struct Proxies {
    cloud_sql: PathBuf,
    oauth2: PathBuf,
}

/// Builds them, if they are not in the cache.
pub(crate) async fn proxies(options: &Options, progress: &dyn Progress) -> Result<Proxies> {
    let cloud_sql = programs::provide(&programs::CLOUD_SQL_PROXY, options, progress).await?;
    let oauth2 = programs::provide(&programs::OAUTH2_PROXY, options, progress).await?;
    Ok(Proxies { cloud_sql, oauth2 })
}

/// The names of images that a test may use.
pub(crate) struct Images {
    pub(crate) busybox: String,
    pub(crate) cloud_sql_proxy: String,
    pub(crate) oauth2_proxy: String,
}

/// Pushes the images that a cluster needs or a test may use to `registry`, as the host reaches it.
pub(crate) async fn push_images(
    options: &Options,
    registry: &str,
    busybox: PathBuf,
    proxies: &Proxies,
) -> Result<Images> {
    let shell = Image::busybox(
        busybox.clone(),
        &[
            "sh", "sleep", "httpd", "nslookup", "cat", "echo", "ls", "ps", "kill", "nc", "env", "id", "dd", "touch",
            "rm",
        ],
    );
    let pause = Image::busybox(busybox, &["sleep"]).entrypoint(&["/bin/sleep", "infinity"]);
    pause.push(registry, config::PAUSE, None).await?;
    shell.push(registry, BUSYBOX, None).await?;
    let named = |image: &str| format!("{}/{image}", options.network.registry());
    let mut names = Vec::new();
    for (folder, module) in [(&proxies.cloud_sql, programs::CLOUD_SQL_PROXY), (&proxies.oauth2, programs::OAUTH2_PROXY)]
    {
        let program = module.name;
        let proxy = Image {
            files: vec![Item::Program(folder.join(program), program.into())],
            entrypoint: vec![format!("/{program}")],
            user: "65532:65532".into(),
            ..Image::default()
        };
        let name = format!("testbed/{program}:{}", module.version);
        proxy.push(registry, &name, None).await?;
        names.push(named(&name));
    }
    let [cloud_sql_proxy, oauth2_proxy] = names.try_into().expect("a name for each");
    Ok(Images { busybox: named(BUSYBOX), cloud_sql_proxy, oauth2_proxy })
}

/// The cluster's DNS address leads to the resolver on the node: a service without a selector.
async fn resolver(options: &Options, cluster: &kube::Client) -> Result<()> {
    let port = |name: &str, protocol: &str| json!({ "name": name, "protocol": protocol, "port": 53 });
    let ports = [port("dns", "UDP"), port("dns-tcp", "TCP")];
    let service = json!({
        "metadata": { "name": "kube-dns", "namespace": "kube-system" },
        "spec": { "clusterIP": options.network.dns_ip(), "ports": ports },
    });
    let slice = json!({
        "metadata": {
            "name": "kube-dns-node",
            "namespace": "kube-system",
            "labels": { "kubernetes.io/service-name": "kube-dns" },
        },
        "addressType": "IPv4",
        "ports": ports,
        "endpoints": [{ "addresses": [options.network.node_ip()], "conditions": { "ready": true } }],
    });
    let named = || "cannot make the cluster's resolver";
    let service: Service = serde_json::from_value(service).on_machine(named)?;
    let slice: EndpointSlice = serde_json::from_value(slice).on_machine(named)?;
    let how = PostParams::default();
    Api::namespaced(cluster.clone(), "kube-system").create(&how, &service).await.on_machine(named)?;
    Api::namespaced(cluster.clone(), "kube-system").create(&how, &slice).await.on_machine(named)?;
    Ok(())
}

async fn versions(tools: &Tools) -> Vec<(String, String)> {
    let mut versions = vec![
        ("kubernetes".to_owned(), programs::KUBERNETES.version.to_owned()),
        ("fake-gcs-server".to_owned(), programs::FAKE_GCS.version.to_owned()),
        ("cloud-sql-proxy".to_owned(), programs::CLOUD_SQL_PROXY.version.to_owned()),
        ("oauth2-proxy".to_owned(), programs::OAUTH2_PROXY.version.to_owned()),
    ];
    for (name, path, arg) in [
        ("etcd", "etcd".into(), "--version"),
        ("containerd", "containerd".into(), "--version"),
        ("runc", tools.runc.clone(), "--version"),
        ("registry", "docker-registry".into(), "--version"),
        ("postgresql", tools.postgresql.join("postgres"), "--version"),
    ] {
        let mut command = program::command(program::find(&path.display().to_string()).unwrap_or(path));
        command.arg(arg);
        let said = program::read(command, b"", Duration::from_secs(10)).await.unwrap_or_default();
        versions.push((name.to_owned(), said.lines().next().unwrap_or("unknown").trim().to_owned()));
    }
    versions
}

/// The time, RFC 3339.
pub(crate) fn now() -> String {
    let now = time::OffsetDateTime::now_utc().replace_nanosecond(0).unwrap_or(time::OffsetDateTime::UNIX_EPOCH);
    now.format(&time::format_description::well_known::Rfc3339).unwrap_or_default()
}
