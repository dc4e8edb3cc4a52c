//! Cloud SQL's TLS end: the real Cloud SQL Auth Proxy and psql, in front of a real PostgreSQL.

use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Stdio;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use testbed::cluster::CLOUD_SQL_PROXY;
use testbed::google::{Google, Metadata, Options};
use testbed::{Home, Service, free_port, require};

use super::{Calls as _, PROJECT, REGION, enabled};
use crate::mlflow::server::{NOBODY, debian_postgresql, is_root, unprivileged};
use crate::node::program;

/// The port that connectors dial; the address is this test's own.
const PORT: u16 = 3307;

/// A PostgreSQL that wants passwords.
struct Postgres {
    _service: Service,
    port: u16,
    uri: String,
}

impl Postgres {
    fn start(home: &Home) -> Option<Self> {
        let initdb = debian_postgresql("initdb").or_else(|| require("initdb", "postgresql"))?;
        // The server runs as another user than root, who must reach its folder.
        std::fs::set_permissions(home.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let (data, password) = (home.file("pg/data"), home.file("pg/password"));
        let admin = format!("{:032x}", rand::random::<u128>());
        std::fs::write(&password, &admin).unwrap();
        let folder = data.parent().unwrap();
        if is_root() {
            for path in [folder, &password] {
                std::os::unix::fs::chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
            }
        }
        let mut command = unprivileged(home, &initdb);
        command.args(["--auth=scram-sha-256", "--username=postgres", "--encoding=UTF8", "--locale=C", "--no-sync"]);
        let made = command.arg("--pwfile").arg(&password).arg("-D").arg(&data).output().expect("initdb starts");
        assert!(made.status.success(), "{made:?}");
        let port = free_port();
        let mut postgres = unprivileged(home, &initdb.with_file_name("postgres"));
        postgres.arg("-D").arg(&data).args(["-h", "127.0.0.1", "-p", &port.to_string(), "-F", "-k"]).arg(folder);
        let mut service = Service::start(postgres, home.file("postgres.log"));
        service.wait_for(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        let uri = format!("postgresql://postgres:{admin}@127.0.0.1:{port}/postgres");
        Some(Self { _service: service, port, uri })
    }
}

/// A fake Google with a real database, and what speaks to it.
struct World {
    google: Google,
    home: Home,
    proxy: PathBuf,
    psql: PathBuf,
    postgres: Postgres,
}

impl World {
    fn start(options: Options) -> Option<Self> {
        let psql = require("psql", "postgresql-client")?;
        let proxy = program(&CLOUD_SQL_PROXY)?;
        let home = Home::new();
        let postgres = Postgres::start(&home)?;
        // Port 3307 is the connectors' own; every test has another address.
        let address = Ipv4Addr::from(0x7f01_0000 | (rand::random::<u32>() & 0xffff).max(2));
        let tunnel = Some(SocketAddr::from((address, PORT)));
        let options = Options { postgres: Some(postgres.uri.clone()), tunnel, polls: 0, ..options };
        Some(Self { google: Google::start(options), home, proxy, psql, postgres })
    }

    /// A proxy with these arguments, and its port.
    fn proxy(&self, arguments: &[&str], env: &[(&str, String)]) -> (Service, u16) {
        let port = free_port();
        let mut command = self.home.command(&self.proxy);
        command.arg(format!("--sqladmin-api-endpoint={}/sql/", self.google.url())).args(arguments);
        command.arg(format!("--port={port}")).arg(format!("{PROJECT}:{REGION}:mlflow"));
        command.envs(env.iter().map(|(name, value)| (name, value)));
        let mut service = Service::start(command, self.home.file(&format!("proxy-{port}.log")));
        service.wait_for(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        (service, port)
    }

    /// What psql prints, or says.
    fn query(&self, port: u16, user: &str, password: Option<&str>, query: &str) -> Result<String, String> {
        let mut command = self.home.command(&self.psql);
        command.args(["-h", "127.0.0.1", "-p", &port.to_string(), "-U", user, "-w", "-X", "-A", "-t", "-c", query]);
        command.arg("mlflow").envs(password.map(|password| ("PGPASSWORD", password))).stdin(Stdio::null());
        let output = command.output().expect("psql starts");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    }
}

const USER: &str = "mlflow@testbed-project.iam";

#[test]
fn the_auth_proxy_logs_in_by_password_and_by_identity() {
    let metadata = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
    let server = format!("mlflow@{PROJECT}.iam.gserviceaccount.com");
    let pod = Metadata { listen: metadata, account: server.clone(), workload: Some("mlflow/mlflow".into()) };
    let options = Options { projects: vec![enabled()], enforce: true, metadata: vec![pod], ..Options::default() };
    let Some(world) = World::start(options) else { return };
    let google = &world.google;
    google.instance("mlflow");
    assert_eq!(google.account("mlflow"), server);
    let instance = format!("sql/v1/projects/{PROJECT}/instances/mlflow");
    let password = format!("{:032x}", rand::random::<u128>());
    google.wait("POST", &format!("{instance}/databases"), json!({ "name": "mlflow" }));
    google.wait("POST", &format!("{instance}/users"), json!({ "name": "mlflow", "password": password }));
    let user = json!({ "name": USER, "type": "CLOUD_IAM_SERVICE_ACCOUNT", "databaseRoles": ["cloudsqlsuperuser"] });
    google.wait("POST", &format!("{instance}/users"), user);

    let key = google.ask("POST", &format!("iam/v1/projects/-/serviceAccounts/{server}/keys"), Value::Null);
    let file = world.home.file("key.json");
    std::fs::write(&file, STANDARD.decode(key["privateKeyData"].as_str().unwrap()).unwrap()).unwrap();

    // By password, with the owner's token.
    let (_owner, port) = world.proxy(&["--token=owner"], &[]);
    let made = world.query(port, "mlflow", Some(&password), "CREATE TABLE a (x int); SELECT current_user");
    assert_eq!(made.as_deref(), Ok("CREATE TABLE\nmlflow"));
    let wrong = world.query(port, "mlflow", Some("wrong"), "SELECT 1").unwrap_err();
    assert!(wrong.contains("password authentication failed"), "{wrong}");
    let nobody = world.query(port, USER, None, "SELECT 1").unwrap_err();
    assert!(nobody.contains("no password supplied"), "{nobody}");

    // By key: without the roles the proxy gets no certificate, without one of them no login.
    let by_key = format!("--credentials-file={}", file.display());
    let project = format!("cloudresourcemanager/v1/projects/{PROJECT}");
    let (proxy, port) = world.proxy(&[&by_key, "--auto-iam-authn"], &[]);
    world.query(port, USER, None, "SELECT 1").unwrap_err();
    assert!(proxy.log().contains("NOT_AUTHORIZED"), "{}", proxy.log());
    google.grant(&project, "roles/cloudsql.client", &format!("serviceAccount:{server}"));
    drop(proxy);
    let (proxy, port) = world.proxy(&[&by_key, "--auto-iam-authn"], &[]);
    let refused = world.query(port, USER, None, "SELECT 1").unwrap_err();
    assert!(refused.contains("IAM service account authentication failed"), "{refused} {}", proxy.log());
    google.grant(&project, "roles/cloudsql.instanceUser", &format!("serviceAccount:{server}"));
    let made = world.query(port, USER, None, "CREATE TABLE b (x int); SELECT current_user");
    assert_eq!(made, Ok(format!("CREATE TABLE\n{USER}")), "{}", proxy.log());
    let other = world.query(port, "mlflow", None, "SELECT 1").unwrap_err();
    assert!(other.contains("no password supplied"), "{other}");

    // In a pod: the metadata server has a token only for whom the account's policy names.
    let env = [("GCE_METADATA_HOST", metadata.to_string())];
    let token = || {
        let pod = testbed::google::Handle::new(&format!("http://{metadata}"));
        pod.call("GET", "computeMetadata/v1/instance/service-accounts/default/token", None, &Value::Null).unwrap().0
    };
    assert_eq!(token(), 403);
    let location = format!("container/v1/projects/{PROJECT}/locations/{REGION}/clusters");
    google.ask("POST", &location, json!({ "cluster": { "name": "mlflow", "autopilot": { "enabled": true } } }));
    let account = format!("iam/v1/projects/{PROJECT}/serviceAccounts/{server}");
    let member = format!("serviceAccount:{PROJECT}.svc.id.goog[mlflow/mlflow]");
    google.grant(&account, "roles/iam.workloadIdentityUser", &member);
    assert_eq!(token(), 200);
    let (proxy, port) = world.proxy(&["--auto-iam-authn"], &env);
    assert_eq!(world.query(port, USER, None, "SELECT current_user"), Ok(USER.to_owned()), "{}", proxy.log());

    // What is removed is gone from PostgreSQL, too.
    google.wait("DELETE", &instance, Value::Null);
    world.query(port, USER, None, "SELECT 1").unwrap_err();
    let gone = world.query(world.postgres.port, "mlflow", Some(&password), "SELECT 1").unwrap_err();
    assert!(gone.contains("password authentication failed"), "{gone}");
    let log = serde_json::to_string(&google.log()).unwrap();
    assert!(!log.contains(&password), "a password is in the log");
}

#[test]
fn a_backup_keeps_what_the_databases_hold_and_brings_it_back() {
    let (Some(psql), Some(_)) = (require("psql", "postgresql-client"), require("pg_dump", "postgresql-client")) else {
        return;
    };
    let home = Home::new();
    let Some(postgres) = Postgres::start(&home) else { return };
    let (uri, projects) = (Some(postgres.uri.clone()), vec![enabled()]);
    let google = Google::start(Options { projects, postgres: uri, polls: 0, ..Options::default() });
    google.instance("mlflow");
    let instance = format!("sql/v1/projects/{PROJECT}/instances/mlflow");
    google.wait("POST", &format!("{instance}/databases"), json!({ "name": "mlflow" }));
    let query = |database: &str, text: &str| {
        let mut command = home.command(&psql);
        let server = postgres.uri.rsplit_once('/').unwrap().0;
        command.args(["-X", "-A", "-t", "-q", "-c", text]).arg(format!("{server}/{database}"));
        let output = command.stdin(Stdio::null()).output().expect("psql starts");
        assert!(output.status.success(), "{text}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    };
    query("mlflow", "CREATE TABLE runs (id int); INSERT INTO runs VALUES (1), (2)");
    google.wait("POST", &format!("{instance}/backupRuns"), json!({ "description": "ours" }));
    let listed = google.ask("GET", &format!("{instance}/backupRuns"), Value::Null);
    let run = &listed["items"][0];
    assert_eq!((&run["description"], &run["status"]), (&json!("ours"), &json!("SUCCESSFUL")), "{listed}");

    query("mlflow", "DELETE FROM runs; CREATE TABLE newer (id int)");
    google.wait("POST", &format!("{instance}/databases"), json!({ "name": "later" }));
    let context = json!({ "backupRunId": run["id"], "instanceId": "mlflow", "project": PROJECT });
    google.wait("POST", &format!("{instance}/restoreBackup"), json!({ "restoreBackupContext": context }));
    assert_eq!(query("mlflow", "SELECT count(*) FROM runs"), "2");
    assert_eq!(query("mlflow", "SELECT to_regclass('newer') IS NULL"), "t");
    assert_eq!(query("postgres", "SELECT count(*) FROM pg_database WHERE datname = 'later'"), "0");

    google.wait("DELETE", &format!("{instance}/backupRuns/{}", run["id"].as_str().unwrap()), Value::Null);
    let listed = google.ask("GET", &format!("{instance}/backupRuns"), Value::Null);
    assert!(listed["items"].as_array().is_none_or(Vec::is_empty), "{listed}");
}
