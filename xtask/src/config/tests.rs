//! Tables: a file and variables in, settings or a mistake out.

mod infra;

use std::time::Duration;

use super::*;

fn check(env: &str, text: &str, vars: &[(&str, &str)], expected: std::result::Result<&str, &str>) {
    let vars = |name: &str| vars.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
    let found = resolve(Path::new("/repo"), env, text, &vars, &|_| Ok(None));
    match (found, expected) {
        (Ok(config), Ok(expected)) => {
            let shown = config
                .settings
                .iter()
                .filter(|s| s.origin != Origin::Default)
                .map(|s| format!("{}={} ({})", s.key, s.value.as_deref().unwrap_or("-"), s.origin));
            assert_eq!(shown.collect::<Vec<_>>().join(", "), expected, "{text}");
        }
        (Err(error), Err(expected)) => {
            let text = format!("{} | {}", error.lines().join(" | "), error.hint_text().unwrap_or(""));
            assert!(text.contains(expected), "{text:?} should contain {expected:?}");
        }
        (found, expected) => panic!("{text}: {found:?}, expected {expected:?}"),
    }
}

#[test]
fn settings_are_resolved_with_their_origin() {
    check("local", "", &[], Ok(""));
    check("local", "[environment.local]\nport = 5001", &[], Ok("environment.local.port=5001 (deploy.toml)"));
    check(
        "local",
        "[environment.local]\nport = 5001",
        &[("XTASK_PORT", "5002")],
        Ok("environment.local.port=5002 (XTASK_PORT)"),
    );
    check(
        "local",
        "[environment.local]\nsandbox = \"docker\"",
        &[("XTASK_SANDBOX", "podman")],
        Ok("environment.local.sandbox=podman (XTASK_SANDBOX)"),
    );
    check("lab", "[environment.lab]\nkind = \"local\"", &[], Ok("environment.lab.kind=local (deploy.toml)"));
    check(
        "local",
        "[image]\nrepository = \"a/b\"\n[environment.local.image]\nrepository = \"c/d\"",
        &[],
        Ok("image.repository=c/d (deploy.toml)"),
    );
}

#[test]
fn mistakes_name_the_key_and_the_nearest() {
    check("local", "[environment.local]\nprot = 5001", &[], Err("environment.local.prot | did you mean \"port\"?"));
    check("local", "[imgae]", &[], Err("unknown key imgae | did you mean \"image\"?"));
    check("loacl", "", &[], Err("no environment \"loacl\" | did you mean \"local\"?"));
    check("local", "[environment.local]\nport = \"x\"", &[], Err("environment.local.port"));
    check("local", "[environment.local]\nport = 70000", &[], Err("environment.local.port"));
    check("local", "[environment.local]", &[("XTASK_PORT", "abc")], Err("XTASK_PORT"));
    check(
        "local",
        "[environment.lab]\nkind = \"locla\"",
        &[],
        Err("environment.lab.kind \"locla\" is unknown | did you mean \"local\"?"),
    );
    check("local", "[environment.lab]", &[], Err("environment.lab has no kind"));
    check(
        "local",
        "[environment.local]\nsandbox = \"podmam\"",
        &[],
        Err("environment.local.sandbox: \"podmam\" is unknown | did you mean \"podman\"?"),
    );
    check("local", "", &[("XTASK_SANDBOX", "vm")], Err("environment.local.sandbox: \"vm\" is unknown"));
    check("local", "not toml", &[], Err("not valid TOML"));
    check("local", "environment = 3", &[], Err("environment"));
    check("local", "[image]\nplatforms = [\"linux/s390x\"]", &[], Err("linux/s390x"));
    check("local", "[image]\nrequire = [\"bom\"]", &[], Err("image.require: \"bom\" is unknown"));
    check("local", "[image]\nrequire = \"sbom\"", &[], Err("a list of strings"));
    let required = "[environment.local.image]\nrequire = [\"provenance\", \"sbom\"]";
    check("local", required, &[], Ok("image.require=provenance, sbom (deploy.toml)"));
    check("local", "", &[("XTASK_IMAGE_REQUIRE", "sbom")], Ok("image.require=sbom (XTASK_IMAGE_REQUIRE)"));
}

/// An environment `e` of a kind in clusters, with one line more in a table of it.
fn environment(kind: &str, table: &str, line: &str) -> String {
    let (database, artifacts) = match kind {
        "gke" => ("instance = \"p:r:i\"", "uri = \"gs://b\"\nworkload-identity = \"a@p.iam.gserviceaccount.com\""),
        _ => ("secret = \"db\"", "uri = \"gs://b\""),
    };
    let mut text = String::new();
    for (name, lines) in [
        ("", format!("kind = \"{kind}\"\ncontext = \"c\"")),
        ("database", database.to_owned()),
        ("artifacts", artifacts.to_owned()),
        ("env", String::new()),
        ("gc", String::new()),
        ("backup", String::new()),
    ] {
        let dot = if name.is_empty() { "" } else { "." };
        // A line that sets a key again takes its place.
        let key = line.split(" = ").next().unwrap_or_default();
        let kept = lines.lines().filter(|known| name != table || !known.starts_with(&format!("{key} = ")));
        text += &format!("[environment.e{dot}{name}]\n{}\n", kept.collect::<Vec<_>>().join("\n"));
        if name == table {
            text += &format!("{line}\n");
        }
    }
    text
}

fn cluster(kind: &str, table: &str, line: &str) -> Result<ClusterConfig> {
    let config = resolve(Path::new("/repo"), "e", &environment(kind, table, line), &|_| None, &|_| Ok(None))?;
    config.cluster().cloned()
}

#[test]
fn backups_are_made_by_who_can_and_lie_beside_the_artifacts() {
    use cluster::BackupMethod::{CloudSql, Dump};
    let check = |kind: &str, table: &str, line: &str, method: cluster::BackupMethod, to: Option<&str>| {
        let backup = cluster(kind, table, line).unwrap().backup;
        assert_eq!((backup.method, backup.to.as_deref()), (method, to), "{kind} {line}");
        assert_eq!((backup.keep, backup.deadline.as_secs()), (10, 3_600));
    };
    check("kubernetes", "", "", Dump, None);
    check("kubernetes", "artifacts", "uri = \"gs://b/mlflow\"", Dump, Some("gs://b/mlflow-backups"));
    check("kubernetes", "backup", "to = \"gs://c\"", Dump, Some("gs://c"));
    check("gke", "", "", CloudSql, None);
    check("gke", "backup", "method = \"dump\"", Dump, None);
}

#[test]
fn a_cluster_needs_little() {
    use cluster::{CloudSql, Database, Identity, PROXY_IMAGE, PullSecret, Secret};
    let config = cluster("kubernetes", "", "").unwrap();
    assert_eq!((config.context.as_str(), config.namespace.as_str()), ("c", "mlflow"));
    assert_eq!(config.database, Database::Uri(Secret::Existing { name: "db".to_owned(), key: "uri".to_owned() }));
    assert_eq!(config.artifacts.identity, Identity::Ambient);
    let server = &config.server;
    assert_eq!((server.replicas, server.max_replicas, server.workers), (1, None, 1));
    assert_eq!((server.cpu.as_str(), server.memory.as_str(), server.scratch.as_str()), ("250m", "1Gi", "2Gi"));
    let rollout = &config.rollout;
    assert_eq!((rollout.deadline.as_secs(), rollout.soak.as_secs(), rollout.keep), (600, 30, 10));
    assert_eq!(config.pull_secret, PullSecret::Auto);
    assert_eq!(config.access, cluster::Access::default());

    let config = cluster("gke", "", "").unwrap();
    let expected = CloudSql {
        instance: "p:r:i".to_owned(),
        database: "mlflow".to_owned(),
        user: "a@p.iam".to_owned(),
        password: None,
        proxy_image: PROXY_IMAGE.to_owned(),
        private_ip: false,
        admin_api: None,
    };
    assert_eq!(config.database, Database::CloudSql(expected));
    let config = cluster("gke", "database", "password-file = \"pw\"").unwrap();
    let database = config.database.cloud_sql().unwrap();
    assert_eq!((database.user.as_str(), &database.password), ("mlflow", &Some(Secret::File("/repo/pw".into()))));
}

#[test]
fn a_login_needs_no_password_of_the_users() {
    use cluster::{Login, Secret};
    for (lines, password) in [
        ("login = \"basic\"", None),
        ("login = \"basic\"\nadmin-password-file = \"pw\"", Some(Secret::File("/repo/pw".into()))),
        (
            "login = \"basic\"\nadmin-password-secret = \"own\"",
            Some(Secret::Existing { name: "own".to_owned(), key: "password".to_owned() }),
        ),
    ] {
        assert_eq!(cluster("kubernetes", "", lines).unwrap().access.login, Login::Basic { password }, "{lines}");
    }
}

/// An environment behind OpenID Connect, with these lines in its table.
fn behind_oidc(above: &str, lines: &str) -> Result<Config> {
    let text = environment("kubernetes", "", &format!("hosts = [\"ml.example.com\"]\nlogin = \"oidc\"\n{above}"));
    let table = "issuer = \"https://login.example.com\"\nclient-id = \"mlflow\"\nclient-secret-variable = \"OIDC\"";
    // A key that is said again replaces the first.
    let keys: Vec<&str> = lines.lines().filter_map(|line| line.split(" = ").next()).collect();
    let kept = table.lines().filter(|line| !keys.contains(&line.split(" = ").next().unwrap()));
    let table = kept.chain(lines.lines().filter(|line| !line.ends_with('-'))).collect::<Vec<_>>().join("\n");
    resolve(Path::new("/repo"), "e", &format!("{text}\n[environment.e.oidc]\n{table}\n"), &|_| None, &|_| Ok(None))
}

#[test]
fn a_login_by_openid_connect_names_who_gets_in() {
    let config = behind_oidc("", "email-domains = [\"example.com\"]").unwrap();
    let Ok(Environment::Cluster(config)) = config.environment() else { panic!("no cluster") };
    let cluster::Login::Oidc(oidc) = &config.access.login else { panic!("{:?}", config.access.login) };
    assert_eq!(oidc.redirect(), "https://ml.example.com/oauth2/callback");
    assert_eq!((oidc.session.as_secs(), oidc.groups_claim.as_str()), (43_200, "groups"));
    let people = "emails = [\"ann@example.com\"]";
    for (above, lines, expected) in [
        ("", "", "nobody is named, so everybody whom https://login.example.com knows would get in"),
        ("", "issuer = \"https://accounts.google.com\"", "everybody with a Google account would get in"),
        ("", "email-domains = [\"*\"]", "oidc.email-domains: \"*\" would let in whoever has an account somewhere"),
        ("", "email-domains = [\"gmail.com\"]", "everybody can get an address in gmail.com"),
        ("", "issuer = \"https://accounts.google.com\"\ngroups = [\"a\"]", "Google's tokens name no groups"),
        (
            "",
            &format!("{people}\nissuer = \"http://login.example.com\""),
            "oidc.issuer: \"http://login.example.com\" is not encrypted",
        ),
        ("", &format!("{people}\nurl = \"https://other.example.com\""), "other.example.com is none of them"),
        ("", &format!("{people}\nurl = \"https://ml.example.com/x\""), "oidc.url: the server is not below a path"),
        ("", &format!("{people}\nclient-secret-variable = -"), "nothing says where the client's secret is"),
        ("", &format!("{people}\nscopes = \"email\""), "is no list of scopes with openid"),
        ("", &format!("{people}\nsession = 1"), "oidc.session: 1 seconds are out of range"),
        ("", &format!("{people}\ndomains = []"), "unknown key environment.e.oidc.domains"),
        ("metrics = \"annotations\"", people, "environment.e.metrics: the server listens behind the login only"),
        ("admin-password-file = \"a\"", people, "the server has no login with passwords"),
    ] {
        let error = behind_oidc(above, lines).map(|_| ()).expect_err(lines);
        assert_eq!(error.kind(), Kind::Config, "{lines}");
        let text = format!("{} | {}", error.lines().join(" | "), error.hint_text().unwrap_or(""));
        assert!(text.contains(expected), "{above} {lines}: {text:?} should contain {expected:?}");
    }
    for (lines, expected) in [
        ("login = \"iap\"", "stands before a Gateway and before nothing else"),
        ("login = \"iap\"\nload-balancer = true\nhosts = [\"a.b\"]\ngateway = \"i/g\"", "leave load-balancer out"),
    ] {
        check("e", &environment("kubernetes", "", lines), &[], Err(expected));
    }
    let iap = |lines: &str| {
        let text = environment("gke", "", "login = \"iap\"\nhosts = [\"a.b\"]\ngateway = \"i/g\"");
        resolve(Path::new("/repo"), "e", &format!("{text}\n[environment.e.iap]\n{lines}\n"), &|_| None, &|_| Ok(None))
    };
    let client = "client-id = \"1.apps.googleusercontent.com\"";
    for (lines, expected) in [
        ("", ""),
        ("service-account = \"a@p.iam.gserviceaccount.com\"", ""),
        (&format!("{client}\nclient-secret-file = \"a\""), ""),
        (&format!("{client}\nclient-secret-secret = \"a\""), ""),
        (client, "iap.client-id: nothing says where the client's secret is"),
        ("client-secret-file = \"a\"", "iap.client-id: it is missing"),
        ("client-id = \"mlflow\"", "it ends in .apps.googleusercontent.com"),
        (
            &format!("{client}\nclient-secret-secret = \"a\"\nclient-secret-key = \"b\""),
            "GKE looks for the client's secret at",
        ),
        ("service-account = \"ann@example.com\"", "is not a service account"),
        ("client = \"1\"", "unknown key environment.e.iap.client"),
    ] {
        let found = iap(lines).map(|_| ()).map_err(|error| error.lines().join(" | ")).err().unwrap_or_default();
        assert!(found.contains(expected) && found.is_empty() == expected.is_empty(), "{lines}: {found}");
    }
    let ignored = format!("{}\n[environment.e.oidc]\nissuer = \"x\"\n", environment("kubernetes", "", ""));
    check("e", &ignored, &[], Err("environment.e.oidc: the login is another one"));
}

#[test]
fn a_load_balancers_address_is_a_host_once_it_is_known() {
    let mut access = cluster("kubernetes", "", "hosts = [\"a.b\"]").unwrap().access;
    let found = ["203.0.113.7", "10.1.2.3", "2001:db8::1", "lb.example.com", "a.b"];
    access.add_hosts(found.map(str::to_owned).to_vec(), 5000);
    assert_eq!(access.hosts, ["a.b", "203.0.113.7", "lb.example.com"]);
    access.add_hosts(vec!["10.1.2.3".to_owned()], 80);
    assert_eq!(access.hosts.last().unwrap(), "10.1.2.3");
}

#[test]
fn a_login_needs_the_images_route_for_readiness() {
    let check = |login: &str, options: &str, good: bool| {
        let text = environment("kubernetes", "", &format!("login = {login:?}"));
        let text =
            text.replace("[environment.e.env]\n", &format!("[environment.e.env]\nMLFLOW_UVICORN_OPTS = {options:?}\n"));
        let found = resolve(Path::new("/repo"), "e", &text, &|_| None, &|_| Ok(None));
        assert_eq!(found.is_ok(), good, "{login} {options}: {found:?}");
    };
    check("basic", "--http mlflow_server_drain:DrainingProtocol", true);
    check("basic", "--workers 2", false);
    check("none", "--workers 2", true);
}

#[test]
fn what_is_deleted_is_freed_when_someone_asks_or_by_a_schedule() {
    let days = |days: u64| Duration::from_secs(days * 86_400);
    let check = |lines: &str, expected: (Option<&str>, Duration, bool)| {
        let gc = cluster("kubernetes", "gc", lines).unwrap().gc;
        assert_eq!((gc.schedule.as_deref(), gc.older_than, gc.dry_run), expected, "{lines}");
    };
    check("", (None, days(30), false));
    check("older-than = \"7d\"", (None, days(7), false));
    check("schedule = \"0 3 * * 0\"", (Some("0 3 * * 0"), days(30), false));
    check("schedule = \"@daily\"\ndry-run = true", (Some("@daily"), days(30), true));
    assert_eq!(cluster("kubernetes", "", "").unwrap().gc, cluster::GcConfig::default());
}

#[test]
fn memory_grows_with_the_workers() {
    for (workers, memory) in [(1, "1Gi"), (2, "1536Mi"), (3, "2Gi")] {
        let config = cluster("kubernetes", "", &format!("workers = {workers}")).unwrap();
        assert_eq!(config.server.memory, memory);
    }
    for (value, memory) in [("true", "2816Mi"), ("false", "1Gi")] {
        let line = format!("MLFLOW_SERVER_ENABLE_JOB_EXECUTION = \"{value}\"");
        assert_eq!(cluster("kubernetes", "env", &line).unwrap().server.memory, memory);
    }
}

#[test]
fn a_mistake_about_a_cluster_is_named() {
    for (kind, table, line, expected) in [
        ("kubernetes", "", "context = \"\"", "environment.e.context: it is missing"),
        ("kubernetes", "", "kontext = \"c\"", "unknown key environment.e.kontext | did you mean \"context\"?"),
        ("kubernetes", "", "namespace = \"My_NS\"", "environment.e.namespace: \"My_NS\" is not a name"),
        ("kubernetes", "", "namespace = \"kube-system\"", "belongs to Kubernetes"),
        ("kubernetes", "", "replicas = 0", "environment.e.replicas: at least 1"),
        ("kubernetes", "", "max-replicas = 1", "environment.e.max-replicas: 1 is not more"),
        ("kubernetes", "", "workers = 0", "environment.e.workers: at least 1"),
        ("kubernetes", "", "workers = 70000", "environment.e.workers"),
        ("kubernetes", "", "cpu = 1", "environment.e.cpu is integer where a string belongs"),
        ("kubernetes", "", "memory = \"1 GB\"", "environment.e.memory: \"1 GB\" is not a quantity of bytes"),
        ("kubernetes", "", "hosts = [\"https://a.b\"]", "environment.e.hosts: \"https://a.b\" is not a host"),
        ("kubernetes", "", "gateway = \"infra/external\"", "add hosts"),
        ("kubernetes", "", "gateway = \"external\"", "not a Gateway"),
        ("kubernetes", "", "clients = [\"research\"]", "environment.e.clients: \"research\" is no client"),
        (
            "kubernetes",
            "",
            "egress = \"needed\"\negress-to = [\"db:1\"]",
            "environment.e.egress-to: \"db:1\" is no address",
        ),
        ("kubernetes", "", "egress-to = [\"10.0.0.1:1\"]", "environment.e.egress-to: egress is open anyway"),
        ("kubernetes", "", "gateway-is-internal = true", "environment.e.gateway-is-internal: there is no gateway"),
        ("kubernetes", "", "login = \"basci\"", "environment.e.login: \"basci\" is unknown | did you mean \"basic\"?"),
        (
            "kubernetes",
            "",
            "admin-password-file = \"pw\"",
            "environment.e.admin-password-file: the server has no login",
        ),
        ("kubernetes", "", "login = \"basic\"\nadmin-password-key = \"a\"", "admin-password-secret is missing"),
        (
            "kubernetes",
            "",
            "login = \"basic\"\nadmin-password-file = \"a\"\nadmin-password-variable = \"B\"",
            "environment.e.admin-password-file: admin-password-variable is set too",
        ),
        ("kubernetes", "", "load-balancer = \"yes\"", "environment.e.load-balancer is string where true or false"),
        ("kubernetes", "", "metrics = \"pod-monitors\"", "did you mean \"pod-monitor\"?"),
        ("kubernetes", "", "deadline = 1", "environment.e.deadline: 1 seconds are out of range | use 10 to 86400"),
        ("kubernetes", "", "keep-releases = 0", "environment.e.keep-releases"),
        ("kubernetes", "", "pull-secret = \"allways\"", "did you mean \"always\"?"),
        ("kubernetes", "gc", "schedule = \"sundays\"", "environment.e.gc.schedule: \"sundays\" is no schedule"),
        ("kubernetes", "gc", "older-than = \"1 month\"", "environment.e.gc.older-than: \"1 month\" is no time"),
        ("kubernetes", "gc", "dry-run = true", "environment.e.gc.dry-run: there is no schedule"),
        ("kubernetes", "gc", "deadline = 1", "environment.e.gc.deadline: 1 seconds are out of range"),
        ("kubernetes", "gc", "older = \"30d\"", "unknown key environment.e.gc.older"),
        ("kubernetes", "backup", "method = \"cloud-sql\"", "environment.e.backup.method: the database is no Cloud SQL"),
        ("kubernetes", "backup", "method = \"copy\"", "environment.e.backup.method: \"copy\" is unknown"),
        ("kubernetes", "backup", "to = \"gs://b/x\"", "environment.e.backup.to: all clients of the server read"),
        ("kubernetes", "backup", "keep = 0", "environment.e.backup.keep: at least 1"),
        ("gke", "backup", "deadline = 1", "environment.e.backup.deadline: 1 seconds are out of range"),
        ("gke", "backup", "too = \"gs://c\"", "unknown key environment.e.backup.too"),
        ("kubernetes", "database", "instance = \"p:r:i\"", "secret is set too"),
        ("kubernetes", "database", "uri-file = \"a\"", "secret is set too"),
        ("kubernetes", "database", "uri = \"a\"", "unknown key environment.e.database.uri"),
        ("kubernetes", "database", "secret = \"a b\"", "environment.e.database.secret"),
        ("kubernetes", "artifacts", "uri = \"/data\"", "environment.e.artifacts.uri: it is a folder"),
        ("kubernetes", "artifacts", "workload-identity = \"a@p.iam\"", "not a service account"),
        ("kubernetes", "artifacts", "key-secret-key = \"a\"", "key-secret is missing"),
        ("kubernetes", "env", "MLFLOW_PORT = \"1\"", "environment.e.env.MLFLOW_PORT: probes and the Service rely"),
        ("kubernetes", "env", "A = [1]", "environment.e.env.A is array where a string belongs"),
        ("gke", "database", "instance = \"i\"", "environment.e.database.instance: \"i\" is not a Cloud SQL instance"),
        ("gke", "database", "uri-file = \"a\"", "unknown key environment.e.database.uri-file"),
        ("gke", "database", "user = \"a@p.iam.gserviceaccount.com\"", "leave that ending out"),
        ("gke", "database", "admin-api = \"sql\"", "not an http:// or https:// address"),
        ("gke", "database", "proxy-image = \"A B\"", "environment.e.database.proxy-image"),
        ("gke", "artifacts", "key-file = \"a\"", "there is a key too"),
    ] {
        let error = cluster(kind, table, line).map(|_| ()).expect_err(line);
        assert_eq!(error.kind(), Kind::Config, "{line}");
        let text = format!("{} | {}", error.lines().join(" | "), error.hint_text().unwrap_or(""));
        assert!(text.contains(expected), "{line}: {text:?} should contain {expected:?}");
    }
    check("e", "[environment.e]\nkind = \"gke\"", &[], Err("environment.e.context: it is missing"));
    check("e", "[environment.e]\nkind = \"kubernets\"", &[], Err("did you mean \"kubernetes\"?"));
    check("e", "[environment.e]\nkind = \"kubernetes\"\ncontext = \"c\"", &[], Err("artifacts.uri: it is missing"));
    let none = "[environment.e]\nkind = \"kubernetes\"\ncontext = \"c\"\n[environment.e.artifacts]\nuri = \"gs://b\"";
    check("e", none, &[], Err("uri-variable"));
}

#[test]
fn a_secret_in_the_place_of_its_name_is_not_repeated() {
    for line in [
        "uri-file = \"postgresql://u:hunter2@db/mlflow\"",
        "uri-variable = \"postgresql://u:hunter2@db/mlflow\"",
        "secret = \"postgresql://u:hunter2@db/mlflow\"",
        "uri = \"postgresql://u:hunter2@db/mlflow\"",
        "key = \"hunter2 hunter2\"",
    ] {
        let error = cluster("kubernetes", "database", line).map(|_| ()).expect_err(line);
        let text = format!("{error:?} {:?}", error.lines());
        assert!(!text.contains("hunter2"), "{text}");
    }
}

#[test]
fn a_variable_overrides_a_table_inside() {
    let text = environment("kubernetes", "", "");
    check(
        "e",
        &text,
        &[("XTASK_NAMESPACE", "lab"), ("XTASK_DATABASE_SECRET", "other"), ("XTASK_REPLICAS", "3")],
        Ok("environment.e.kind=kubernetes (deploy.toml), environment.e.namespace=lab (XTASK_NAMESPACE), \
            environment.e.context=c (deploy.toml), environment.e.replicas=3 (XTASK_REPLICAS), \
            environment.e.artifacts.uri=gs://b (deploy.toml), environment.e.database.secret=other (XTASK_DATABASE_SECRET)"),
    );
    check("e", &text, &[("XTASK_LOAD_BALANCER", "maybe")], Err("XTASK_LOAD_BALANCER=maybe is neither true nor false"));
}

#[test]
fn the_committed_file_is_right() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the repository");
    let text = std::fs::read_to_string(root.join(FILE)).unwrap();
    let config = resolve(root, "testbed", &text, &|_| None, &|_| Ok(None)).unwrap();
    assert_eq!(config.cluster().unwrap().context, "testbed");
    assert!(resolve(root, LOCAL, &text, &|_| None, &|_| Ok(None)).unwrap().cluster().is_err());
    // The examples too.
    let uncommented: String = text
        .lines()
        .skip_while(|line| !line.starts_with("# [environment.staging]"))
        .filter_map(|line| line.strip_prefix("# "))
        .filter(|line| line.starts_with('[') || line.split_once(" = ").is_some_and(|(key, _)| !key.contains(' ')))
        // Only a cluster of nodes has them.
        .filter(|line| !["node-type", "node-count", "spot"].iter().any(|key| line.starts_with(key)))
        // One of several.
        .filter(|line| {
            !["uri-file", "uri-variable", "key-file", "password-variable"].iter().any(|key| line.starts_with(key))
        })
        .map(|line| format!("{line}\n"))
        .collect();
    for env in ["staging", "production", "lab", "edge"] {
        let config = resolve(root, env, &uncommented, &|_| None, &|_| Ok(None));
        assert!(config.as_ref().is_ok_and(|config| config.cluster().is_ok()), "{env}: {config:?}\n{uncommented}");
    }
    let cloud = resolve(root, "cloud", &uncommented, &|_| None, &|_| Ok(None));
    assert!(cloud.as_ref().is_ok_and(|config| config.infra().is_ok()), "{cloud:?}\n{uncommented}");
}
