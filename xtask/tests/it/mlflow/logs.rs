//! The server's log, for people and for programs.

use serde_json::{Value, json};

use super::server::{Connection, Database, Server};

fn server(format: &str) -> Option<Server> {
    Server::start_with(&Database::sqlite(), |_, command| {
        super::as_in_the_image(command);
        // With this MLflow's workers say something of their own.
        command.env("MLFLOW_SERVER_LOG_FORMAT", format).env("MLFLOW_SQLALCHEMYSTORE_POOL_SIZE", "5");
    })
}

/// Asks for something that is not there, and for what probes ask for.
fn ask(server: &Server) {
    let mut connection = Connection::open(server);
    for path in ["/health", "/api/2.0/mlflow/experiments/search?max_results=1"] {
        assert!(connection.get(path).starts_with("http/1.1 200 "), "{path}");
    }
    assert!(connection.get("/api/2.0/mlflow/experiments/get?experiment_id=77").starts_with("http/1.1 404 "));
    server.wait_for("experiment_id=77");
}

#[test]
fn a_line_of_the_log_is_an_object() {
    let Some(server) = server("json") else { return };
    ask(&server);
    let log = server.log_tail();
    let lines: Vec<Value> = log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let field = |line: &Value, name: &str| line[name].as_str().unwrap_or_default().to_owned();
    for line in &lines {
        assert!(["INFO", "WARNING", "ERROR"].contains(&field(line, "severity").as_str()), "{line}");
        assert!(field(line, "time").ends_with("+00:00") && !field(line, "message").is_empty(), "{line}");
    }
    assert!(lines.iter().any(|line| field(line, "message").starts_with("Uvicorn running on")), "{log}");
    // MLflow's own lines are among them once the worker serves.
    assert!(lines.iter().any(|line| field(line, "logger").starts_with("mlflow.")), "{log}");
    let requests: Vec<&Value> = lines.iter().filter(|line| line["logger"] == "uvicorn.access").collect();
    assert_eq!(requests.len(), 1, "probes that are answered are left out: {log}");
    let expected = json!({
        "requestMethod": "GET",
        "requestUrl": "/api/2.0/mlflow/experiments/get?experiment_id=77",
        "status": 404,
        "remoteIp": "127.0.0.1",
        "protocol": "HTTP/1.1"
    });
    assert_eq!(requests[0]["httpRequest"], expected);
}

#[test]
fn people_read_lines_of_text() {
    let Some(server) = server("") else { return };
    ask(&server);
    let log = server.log_tail();
    let line = log.lines().find(|line| line.contains("experiment_id=77")).expect("a line");
    assert!(line.contains(" INFO 127.0.0.1:") && line.ends_with(" HTTP/1.1\" 404 Not Found"), "{line}");
    assert!(!log.contains("GET /health"), "{log}");
}
