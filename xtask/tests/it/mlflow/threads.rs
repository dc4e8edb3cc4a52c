//! More clients than the database may have connections.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::server::{Connection, Database, Server};

const CLIENTS: usize = 16;
const REQUESTS: usize = 4;

#[test]
fn clients_wait_for_their_turn_and_not_for_each_other() {
    let Some(database) = Database::postgresql() else { return };
    let started = Server::start_with(&database, |_, command| {
        super::as_in_the_image(command);
        command.env("MLFLOW_SQLALCHEMYSTORE_POOL_SIZE", "1").env("MLFLOW_SQLALCHEMYSTORE_MAX_OVERFLOW", "4");
    });
    let Some(server) = started else { return };
    let experiment = ask(&mut Connection::open(&server), "experiments/create", &json!({ "name": "many" }));
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                let mut connection = Connection::open(&server);
                let run = json!({ "experiment_id": experiment["experiment_id"], "start_time": 1 });
                let run = ask(&mut connection, "runs/create", &run)["run"]["info"]["run_id"].clone();
                for step in 0..REQUESTS {
                    let begun = Instant::now();
                    let metric = json!({ "key": "m", "value": 0.5, "timestamp": step, "step": step });
                    let tag = json!({ "key": "t", "value": step.to_string() });
                    let body = json!({ "run_id": run, "metrics": [metric], "tags": [tag] });
                    // It takes a second connection while it holds a first.
                    ask(&mut connection, "runs/log-batch", &body);
                    assert!(begun.elapsed() < Duration::from_secs(30), "a pool's timeout has passed");
                }
            });
        }
    });
}

fn ask(connection: &mut Connection, path: &str, body: &Value) -> Value {
    let (head, body) = connection.post(&format!("/api/2.0/mlflow/{path}"), body);
    assert!(head.starts_with("http/1.1 200 "), "{path}: {head}{body}");
    serde_json::from_str(&body).expect("JSON")
}
