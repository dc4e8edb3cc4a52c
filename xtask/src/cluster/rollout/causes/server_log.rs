//! What MLflow's own log says, long before the container gives up: a server whose database does not
//! answer retries for 107 s before it exits, and its port stays closed all the while.

use k8s_openapi::api::core::v1::Pod;

use super::super::pods::{self, View};
use super::super::snapshot::{LogLine, Snapshot};
use super::{Budget, Cause, Code};
use crate::schema::gate;

/// Seconds for a database that does not answer: one that restarts is back by then.
const UNREACHABLE: i64 = 25;
/// Seconds for a database that refuses the login.
const REFUSED: i64 = 10;
/// Seconds for a database that swallows the connection, so that the server has nothing to report.
const SILENT: i64 = 40;

/// Seconds for a gate that has not yet seen what was migrated.
const GATED: i64 = 10;

/// The last thing that the server says before it connects for the first time.
const CONNECTS: &str = "Create SQLAlchemy engine";
/// What it says once its stores are open.
const CONNECTED: &str = "Security middleware";
/// What uvicorn says once requests are served: what stands before it was got over.
const SERVES: [&str; 2] = ["Application startup complete", "Uvicorn running on"];

/// What a container's log tells about it, the present instance's before the previous one's.
pub fn of_container(pod: &Pod, view: View<'_>, snapshot: &Snapshot) -> Option<Cause> {
    let uid = pods::uid(pod);
    let current = snapshot.log(uid, &view.spec.name, false);
    let found = of_log(current).or_else(|| of_log(snapshot.log(uid, &view.spec.name, true)))?;
    let reason = view.waiting().and_then(|waiting| waiting.reason.clone());
    let reason = reason.or_else(|| view.terminated().and_then(|end| end.reason.clone()));
    let first = found.line.at.unwrap_or(snapshot.at);
    Some(Cause::new(found.code, found.budget, reason.as_deref().unwrap_or("log"), found.message, first))
}

#[derive(Debug)]
struct Found<'a> {
    code: Code,
    budget: Budget,
    /// The first line that says so.
    line: &'a LogLine,
    /// The last word about it.
    message: &'a str,
}

fn of_log(lines: &[LogLine]) -> Option<Found<'_>> {
    let served = lines.iter().rposition(|line| SERVES.iter().any(|sign| line.text.contains(sign)));
    let lines = &lines[served.map_or(0, |at| at + 1)..];
    let signs = || lines.iter().filter_map(|line| Some((line, of_line(&line.text)?)));
    if let Some((line, (code, budget, message))) = signs().next_back() {
        let first = signs().find(|(_, (other, ..))| *other == code).map_or(line, |(line, _)| line);
        return Some(Found { code, budget, line: first, message });
    }
    let line = lines.last()?;
    let waits = line.text.contains(CONNECTS) && !lines.iter().any(|line| line.text.contains(CONNECTED));
    let message = "the server waits for the database to take its connection";
    waits.then_some(Found { code: Code::DatabaseUnreachable, budget: Budget::Seconds(SILENT), line, message })
}

fn of_line(text: &str) -> Option<(Code, Budget, &str)> {
    for sign in ["Detected out-of-date database schema", "Can't locate revision identified by"] {
        if let Some(at) = text.find(sign) {
            let sentence = text[at..].split(". ").next().unwrap_or_default();
            return Some((Code::SchemaMismatch, Budget::Now, sentence));
        }
    }
    // It stands for as long as nobody migrates: who deploys has done so before the pods are followed.
    if let Some(at) = text.find(gate::WAITS) {
        return Some((Code::SchemaMismatch, Budget::Seconds(GATED), &text[at..]));
    }
    // `(psycopg2.OperationalError) connection to server at ...`, and so for other drivers.
    let (_, detail) = text.split_once("OperationalError) ")?;
    let refusals =
        ["authentication failed", "does not exist", "no pg_hba.conf entry", "permission denied", "Access denied"];
    match refusals.iter().any(|sign| detail.contains(sign)) {
        true => Some((Code::DatabaseRefused, Budget::Seconds(REFUSED), detail)),
        false => Some((Code::DatabaseUnreachable, Budget::Seconds(UNREACHABLE), detail)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lines as MLflow 3.17.2 and psycopg2 print them.
    #[test]
    fn a_line_of_the_server_names_the_cause() {
        let check = |line: &str, expected: Option<(Code, &str)>| {
            assert_eq!(of_line(line).map(|(code, _, message)| (code, message)), expected, "{line}");
        };
        let schema = "Detected out-of-date database schema (found version abcdef123456, but expected dc11669786a5)";
        let rest = ". Take a backup of your database, then run 'mlflow db upgrade <database_uri>'";
        check(&format!("2026/11/24 00:13:46 ERROR mlflow.cli: {schema}{rest}"), Some((Code::SchemaMismatch, schema)));
        check(&format!("mlflow.exceptions.MlflowException: {schema}{rest}"), Some((Code::SchemaMismatch, schema)));
        let server = "connection to server at \"10.0.0.2\", port 5432 failed:";
        for (detail, code) in [
            (format!("{server} Connection refused"), Code::DatabaseUnreachable),
            (format!("{server} timeout expired"), Code::DatabaseUnreachable),
            (format!("{server} FATAL:  the database system is starting up"), Code::DatabaseUnreachable),
            (format!("{server} FATAL:  sorry, too many clients already"), Code::DatabaseUnreachable),
            (
                "could not translate host name \"db\" to address: Name or service not known".into(),
                Code::DatabaseUnreachable,
            ),
            (format!("{server} FATAL:  password authentication failed for user \"a\""), Code::DatabaseRefused),
            (format!("{server} FATAL:  database \"a\" does not exist"), Code::DatabaseRefused),
            (format!("{server} FATAL:  no pg_hba.conf entry for host \"10.0.0.9\""), Code::DatabaseRefused),
        ] {
            check(&format!("(psycopg2.OperationalError) {detail}"), Some((code, &detail)));
        }
        let gate =
            "schema gate: the tracking database has schema abcdef123456, and this MLflow works with dc11669786a5";
        check(gate, Some((Code::SchemaMismatch, gate)));
        let detail = "connection failed: connection to server at \"10.0.0.2\", port 5432 failed: Connection refused";
        check(&format!("schema gate: (psycopg.OperationalError) {detail}"), Some((Code::DatabaseUnreachable, detail)));
        check("(Background on this error at: https://sqlalche.me/e/20/e3q8)", None);
        check("Operation will be retried in 0.7 seconds", None);
        check("2026-11-24T00:12:46+0000 INFO Uvicorn running on http://0.0.0.0:5000", None);
    }

    #[test]
    fn what_was_got_over_is_no_cause() {
        let check = |lines: &[&str], expected: Option<Code>| {
            let log: Vec<LogLine> = lines.iter().map(|text| LogLine { at: None, text: (*text).to_owned() }).collect();
            assert_eq!(of_log(&log).map(|found| found.code), expected, "{lines:?}");
        };
        let engine = "INFO mlflow.store.db.utils: Create SQLAlchemy engine with pool options {'pool_size': 5}";
        let refused =
            "(psycopg2.OperationalError) connection to server at \"10.0.0.2\", port 5432 failed: Connection refused";
        let security = "[MLflow] Security middleware enabled";
        let serves = "INFO Application startup complete.";
        check(&[], None);
        check(&[engine, refused, "Operation will be retried in 0.1 seconds", engine], Some(Code::DatabaseUnreachable));
        check(&[engine, refused, engine, security, engine, serves], None);
        check(&[engine, security, serves, refused], Some(Code::DatabaseUnreachable));
        check(&["Registry store URI not provided.", engine], Some(Code::DatabaseUnreachable));
        check(&[engine, engine, security, engine], None);
        check(&[engine, "INFO mlflow.store.db.utils: Updating database tables"], None);
    }
}
