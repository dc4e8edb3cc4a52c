//! `infra apply`, both ways, against a fake Google that answers one call badly: the run comes through or
//! says what is wrong, nothing is lost, and the same command again completes.

mod input;
mod interrupted;
mod site;
mod table;

use testbed::google::Fault;

use site::Via;
use table::{Row, Table};

/// Faults and what `infra apply` does about one: it is through in the end, or ends with this code.
const FAULTS: [(&str, Fault, i32); 6] = [
    ("403", Fault::PermissionDenied, 15),
    ("429", Fault::RateLimited, 0),
    ("500", Fault::Status(500), 0),
    ("hang", Fault::Hang, 0),
    ("closed", Fault::Closed, 0),
    ("answer lost", Fault::AnswerLost, 0),
];

/// Whether all rows are wanted: it takes about an hour.
fn is_full() -> bool {
    std::env::var_os("XTASK_FULL_FAULTS").is_some_and(|value| value == "1")
}

#[test]
fn terraform_comes_through_a_bad_answer_or_a_second_run_does() {
    let Some(table) = Table::open(Via::Terraform, "") else { return };
    let [forbidden, passing @ .., lost] = &FAULTS;
    let (mut passing, mut any) = (passing.iter().cycle(), FAULTS.iter().cycle());
    // Calls that change something with three faults, all others with one, in turn.
    let chosen = table.calls.iter().flat_map(|call| match call.writes() {
        true => [Some(forbidden), Some(lost), passing.next()].map(|fault| fault.map(|fault| Row::new(call, fault))),
        false => [any.next().map(|fault| Row::new(call, fault)), None, None],
    });
    let chosen = chosen.flatten();
    let rows = if is_full() { table.all() } else { chosen.collect() };
    table.run(rows, 2);
}

#[test]
fn gcloud_comes_through_a_bad_answer_or_a_second_run_does() {
    let Some(table) = Table::open(Via::Gcloud, "") else { return };
    // A run takes most of a minute: two of the many. infra_gcloud.rs has others, together in one run.
    let (services, faults) = (["sql", "cloudresourcemanager"], ["hang", "closed"]);
    let chosen = services.iter().zip(faults).map(|(service, name)| {
        let call = table.calls.iter().find(|call| call.writes() && call.service() == *service);
        let fault = FAULTS.iter().find(|fault| fault.0 == name);
        Row::new(call.expect("a call"), fault.expect("a fault"))
    });
    let rows = if is_full() { table.all() } else { chosen.collect() };
    table.run(rows, 2);
}
