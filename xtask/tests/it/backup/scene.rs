//! A PostgreSQL with what MLflow keeps in it, and the program that backs it up, as its owner.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use mlflow_image::Digest;
use serde_json::Value;
use testbed::Home;
use testbed::google::Google;

use crate::mlflow::envs::Python;
use crate::mlflow::server::{Database, debian_postgresql};

/// What `backup::take` and its like run in the cluster.
const PROGRAM: &str = concat!(
    include_str!("../../../src/backup/program/databases.py"),
    include_str!("../../../src/backup/program/places.py"),
    include_str!("../../../src/backup/program/archive.py"),
    include_str!("../../../src/backup/program/take.py"),
    include_str!("../../../src/backup/program/restore.py"),
    include_str!("../../../src/backup/program/drill.py"),
    include_str!("../../../src/backup/program/main.py"),
);

const MARK: &str = "mlflow-server-backup ";

/// Tables whose content is compared.
const TABLES: [&str; 6] = ["experiments", "runs", "metrics", "params", "tags", "alembic_version"];

pub struct Scene {
    pub home: Home,
    pub python: Python,
    database: Database,
    psql: PathBuf,
}

impl Scene {
    /// A database with runs in it; `None` where something is not installed.
    pub fn new() -> Option<Self> {
        let scene = Self::empty()?;
        scene.make();
        Some(scene)
    }

    /// A database without tables, whose owner may make others and nothing else.
    pub fn empty() -> Option<Self> {
        let (python, database) = (Python::server()?, Database::postgresql()?);
        let psql = debian_postgresql("psql").or_else(|| testbed::require("psql", "postgresql-client"))?;
        let scene = Self { home: Home::new(), python, database, psql };
        scene.administer("/postgres", &["CREATE ROLE app LOGIN CREATEDB", "CREATE DATABASE app OWNER app"]);
        Some(scene)
    }

    /// The server's own address of its database.
    pub fn uri(&self) -> String {
        self.database.uri(&self.home).replace("mlflow@", "app@").replace("/postgres", "/app")
    }

    fn python(&self) -> Command {
        let mut command = self.home.command(self.python.interpreter());
        command.env("MLFLOW_DISABLE_TELEMETRY", "true").env("GIT_PYTHON_REFRESH", "quiet");
        command.env("PYTHONDONTWRITEBYTECODE", "1").stdin(Stdio::null());
        command
    }

    fn script_command(&self, args: &[&str]) -> Command {
        let mut command = self.python();
        command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/mlflow/backup_scene.py")).args(args);
        command
    }

    fn script(&self, args: &[&str]) -> String {
        let output = self.script_command(args).output().expect("python starts");
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    pub fn make(&self) {
        self.script(&["make", &self.uri()]);
    }

    /// How many rows each table has.
    pub fn rows(&self) -> Value {
        let count = "query_to_xml(format('SELECT count(*) AS n FROM %I', relname), false, true, '')";
        let counted = format!("(xpath('/row/n/text()', {count}))[1]::text::bigint");
        let of = "FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'";
        let text = self.sql(&[&format!("SELECT json_object_agg(relname, {counted}) {of}")]);
        serde_json::from_str(&text).expect("JSON")
    }

    /// Runs statements as the owner; what they print, a row a line.
    pub fn sql(&self, statements: &[&str]) -> String {
        let output = self.psql(&self.uri(), statements).output().expect("psql starts");
        assert!(output.status.success(), "{statements:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// Runs statements in the same database as PostgreSQL's administrator.
    pub fn admin(&self, statements: &[&str]) {
        self.administer("/app", statements);
    }

    fn administer(&self, database: &str, statements: &[&str]) {
        let uri = self.database.uri(&self.home).replace("/postgres", database);
        let end = Instant::now() + Duration::from_secs(60);
        loop {
            let output = self.psql(&uri, statements).output().expect("psql starts");
            let err = String::from_utf8_lossy(&output.stderr);
            match output.status.success() {
                true => return,
                // Its port is open before it is.
                false if err.contains("starting up") && Instant::now() < end => {
                    std::thread::sleep(Duration::from_millis(100));
                }
                false => panic!("{statements:?}: {err}"),
            }
        }
    }

    fn psql(&self, uri: &str, statements: &[&str]) -> Command {
        let mut command = self.home.command(self.psql.as_path());
        command
            .args(["-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1"])
            .args(statements.iter().map(|text| format!("-c{text}")));
        command.arg(uri).stdin(Stdio::null());
        command
    }

    /// A digest of all rows of some tables.
    pub fn content(&self) -> String {
        let digest = |table: &&str| format!("SELECT md5(string_agg(t::text, '|' ORDER BY t::text)) FROM {table} t");
        self.sql(&[&TABLES.iter().map(digest).collect::<Vec<_>>().join(" UNION ALL ")])
    }

    /// All definitions, as PostgreSQL tells them.
    pub fn schema(&self) -> String {
        let program = debian_postgresql("pg_dump").unwrap_or_else(|| PathBuf::from("pg_dump"));
        let output = self.home.command(program).args(["--schema-only", "--dbname", &self.uri()]).output();
        let output = output.expect("pg_dump starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        // A word with which psql would be kept from following others, another one each time.
        let lines = text.lines().filter(|line| !line.starts_with('\\'));
        // PostgreSQL words the same list anew when it reads its own words.
        lines.map(|line| line.split_once(" CHECK (").map_or(line, |(name, _)| name)).collect::<Vec<_>>().join("\n")
    }

    /// Statements under way.
    pub fn start(&self, statements: &[&str]) -> Started {
        let mut command = self.psql(&self.uri(), statements);
        Started(command.stdout(Stdio::null()).spawn().expect("psql starts"))
    }

    /// Waits until a question has this answer.
    pub fn until(&self, question: &str, answer: &str) {
        let end = Instant::now() + Duration::from_secs(60);
        while self.sql(&[question]) != answer {
            assert!(Instant::now() < end, "{question}");
        }
    }

    /// A client that writes until it is stopped; it has begun.
    pub fn load(&self) -> Load {
        let mut command = self.script_command(&["write", &self.uri()]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("python starts");
        let mut reader = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut line = String::new();
        reader.read_line(&mut line).expect("a line");
        assert_eq!(line.trim(), "ready");
        Load(child, reader)
    }

    /// Where backups go.
    fn place(&self) -> PathBuf {
        self.home.path().join("backups")
    }

    /// A file of a backup.
    pub fn file(&self, name: &str) -> PathBuf {
        self.place().join(name)
    }

    /// All files of all backups.
    pub fn files(&self) -> Vec<String> {
        let folders = std::fs::read_dir(self.place()).into_iter().flatten().flatten();
        let files = folders.flat_map(|folder| std::fs::read_dir(folder.path()).into_iter().flatten().flatten());
        files.map(|file| file.path().display().to_string()).collect()
    }

    /// A backup with another dump, and a manifest that was changed.
    pub fn forge(&self, of: &str, name: &str, dump: &[u8], change: impl FnOnce(&mut Value, &str)) {
        let text = std::fs::read_to_string(self.file(&format!("{of}/manifest.json"))).expect("a manifest");
        let mut manifest: Value = serde_json::from_str(&text).expect("JSON");
        manifest["id"] = name.into();
        change(&mut manifest["databases"][0], &Digest::of(dump).hex());
        std::fs::create_dir_all(self.file(name)).expect("a folder");
        std::fs::write(self.file(&format!("{name}/mlflow.dump")), dump).expect("a file");
        std::fs::write(self.file(&format!("{name}/manifest.json")), manifest.to_string()).expect("a file");
    }

    fn program(&self, args: &[&str], to: &str) -> Command {
        let mut command = self.python();
        let (action, more) = args.split_first().expect("an action");
        command.args(["-c", PROGRAM, action, "--to", to]).args(more).env("MLFLOW_BACKEND_STORE_URI", self.uri());
        command
    }

    fn here(&self) -> String {
        format!("file://{}", self.place().display())
    }

    /// What the program answers, whatever it is.
    pub fn run_to(&self, to: &str, args: &[&str]) -> Value {
        answer(args, &self.program(args, to).output().expect("python starts"))
    }

    /// The same for a bucket of a fake Google's.
    pub fn run_at(&self, google: &Google, to: &str, args: &[&str]) -> Value {
        let mut command = self.program(args, to);
        // Nobody is logged in, and no machine of Google's is looked for.
        command.env("STORAGE_EMULATOR_HOST", format!("{}/storage", google.url())).env("NO_GCE_CHECK", "true");
        answer(args, &command.output().expect("python starts"))
    }

    /// The same for another database.
    pub fn run_with(&self, uri: &str, args: &[&str]) -> Value {
        let mut command = self.program(args, &self.here());
        answer(args, &command.env("MLFLOW_BACKEND_STORE_URI", uri).output().expect("python starts"))
    }

    /// The same where no file may be larger than so many bytes.
    pub fn limited(&self, bytes: u64, args: &[&str]) -> Value {
        let program = self.program(args, &self.here());
        let mut command = self.home.command("prlimit");
        command.arg(format!("--fsize={bytes}")).arg(program.get_program()).args(program.get_args());
        command.envs(program.get_envs().filter_map(|(name, value)| Some((name, value?))));
        answer(args, &command.stdin(Stdio::null()).output().expect("prlimit starts"))
    }

    /// The refusal where PostgreSQL's programs are missing, or one that only tells its version.
    pub fn with_programs(&self, version: Option<&str>, args: &[&str]) -> Value {
        let folder = self.home.path().join("programs");
        std::fs::create_dir_all(&folder).expect("a folder");
        if let Some(version) = version {
            use std::os::unix::fs::PermissionsExt as _;
            let file = folder.join("pg_dump");
            std::fs::write(&file, format!("#!/bin/sh\necho '{version}'\n")).expect("a file");
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).expect("a mode");
        }
        let mut command = self.program(args, &self.here());
        answer(args, &command.env("MLFLOW_BACKUP_PROGRAMS", folder).output().expect("python starts"))["failure"].clone()
    }

    /// What the program answers when all is well.
    pub fn answer(&self, args: &[&str]) -> Value {
        let found = self.run_to(&self.here(), args);
        assert!(found["failure"].is_null(), "{args:?}: {found}");
        found
    }

    /// Takes a backup; its manifest.
    pub fn take(&self, id: &str) -> Value {
        self.answer(&["take", "--id", id, "--reason", "of a test", "--image", "i"])["backup"].clone()
    }

    /// Why the program does not.
    pub fn failure(&self, args: &[&str]) -> Value {
        let found = self.run_to(&self.here(), args);
        assert!(found["failure"].is_object(), "{args:?}: {found}");
        found["failure"].clone()
    }
}

fn answer(args: &[&str], output: &Output) -> Value {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{args:?}: {} {err}", output.status);
    assert!(!err.contains("Traceback"), "{args:?}: {err}");
    let mut lines = out.lines().filter_map(|line| line.strip_prefix(MARK));
    let found = lines.next().unwrap_or_else(|| panic!("{args:?}: {out} {err}"));
    assert_eq!(lines.next(), None);
    serde_json::from_str(found).expect("JSON")
}

/// A program under way.
pub struct Started(Child);

impl Started {
    pub fn end(mut self) {
        assert!(self.0.wait().expect("its end").success());
    }
}

/// A client that writes.
pub struct Load(Child, BufReader<std::process::ChildStdout>);

impl Load {
    /// Ends it; how many runs it has written.
    pub fn stop(mut self) -> u64 {
        let mut stdin = self.0.stdin.take().expect("a pipe");
        stdin.flush().expect("a pipe");
        drop(stdin);
        let mut line = String::new();
        self.1.read_line(&mut line).expect("a line");
        assert!(self.0.wait().expect("its end").success());
        line.trim().parse().expect("a number")
    }
}
