//! A real MLflow server, made from the lock: smoke, the walk through every functional area, and
//! MLflow's own client.

mod access;
mod bucket;
pub(crate) mod envs;
mod logs;
mod metrics;
mod oidc;
pub mod server;
mod smoke;
mod threads;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use envs::Python;
use server::{Database, Server};

/// The walk's folder.
fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/mlflow")
}

/// Adds our own files in the image.
fn as_in_the_image(command: &mut Command) {
    let rootfs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../mlflow_server/rootfs");
    command.env("PYTHONPATH", server::image_packages()).env("PYTHONDONTWRITEBYTECODE", "1");
    let logging = rootfs.join("etc/mlflow/logging.yaml");
    let options = format!("--log-config {} --http mlflow_server_drain:DrainingProtocol", logging.display());
    command.env("MLFLOW_UVICORN_OPTS", options);
}

/// Runs a script of MLflow's full client against `server`; panics with what it printed.
fn client(server: &Server, args: &[&str], stdin: &str) {
    let Some(client) = Python::client() else { return };
    let mut command = server.home.command(client.interpreter());
    command.args(args).env("PYTHONPATH", scripts()).env("PYTHONWARNINGS", "ignore").env("PYTHONDONTWRITEBYTECODE", "1");
    command.env("MLFLOW_DISABLE_TELEMETRY", "true").env("GIT_PYTHON_REFRESH", "quiet");
    let input = server.home.file("stdin");
    std::fs::write(&input, stdin).unwrap();
    let input = std::fs::File::open(&input).unwrap();
    let output = command.stdin(Stdio::from(input)).output().expect("python starts");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    println!("{out}");
    assert!(output.status.success(), "{args:?} on {}:\n{out}\n{err}\nserver:\n{}", server.url(), server.log_tail());
}

#[test]
fn every_functional_area_answers_on_sqlite() {
    let Some(server) = Server::start(&Database::sqlite()) else { return };
    client(&server, &["-m", "walk", &server.url()], "");
}

#[test]
fn every_functional_area_answers_on_postgresql() {
    let Some(database) = Database::postgresql() else { return };
    let Some(server) = Server::start(&database) else { return };
    client(&server, &["-m", "walk", &server.url()], "");
}

#[test]
fn a_login_protects_every_request() {
    let Some(server) = Server::start_with_login(&Database::sqlite()) else { return };
    client(&server, &["-m", "walk", &server.url(), "--login", server::ADMIN], server::ADMIN_PASSWORD);
    smoke::passes_with_the_login(&server);
}

#[test]
fn users_and_runs_are_in_one_database_and_readiness_needs_no_login() {
    let Some(database) = Database::postgresql() else { return };
    let Some(server) = Server::start_with_login(&database) else { return };
    smoke::passes_with_the_login(&server);
    let file = std::fs::read_to_string(server.home.file("mlflow-login.ini")).expect("the file of the users' tables");
    assert!(!file.contains(server::ADMIN_PASSWORD), "{file}");
    let mut connection = server::Connection::open(&server);
    let status =
        |connection: &mut server::Connection, path: &str| connection.get(path).split(' ').nth(1).unwrap().to_owned();
    assert_eq!(status(&mut connection, "/ready"), "200");
    assert_eq!(status(&mut connection, "/api/2.0/mlflow/experiments/search?max_results=1"), "401");
    drop(database);
    assert_eq!(status(&mut connection, "/ready"), "503");
    assert_eq!(status(&mut connection, "/health"), "200");
}

#[test]
fn mlflows_own_client_logs_a_model_and_reads_it_back() {
    let Some(server) = Server::start(&Database::sqlite()) else { return };
    let script = scripts().join("seed_check.py");
    client(&server, &[script.to_str().unwrap(), &server.url()], "");
}

#[test]
fn a_kept_connection_loses_no_request_when_the_server_stops() {
    let Some(server) = Server::start_with(&Database::sqlite(), |_, command| as_in_the_image(command)) else { return };
    let mut kept = server::Connection::open(&server);
    let mut silent = server::Connection::open(&server);
    assert!(!kept.get("/health").contains("connection: close"));
    let stops = testbed::command("kill").arg(server.pid().to_string()).status();
    assert!(stops.is_ok_and(|status| status.success()));
    server.wait_for("Shutting down");
    for connection in [&mut kept, &mut silent] {
        let answer = connection.get("/health");
        assert!(answer.starts_with("http/1.1 200 ") && answer.contains("connection: close"), "{answer}");
    }
}
