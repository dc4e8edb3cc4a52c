//! `infra apply`, both ways, against a fake Google that answers one call badly: the run comes through or
//! says what is wrong, nothing is lost, and the same command again completes.

mod input;
mod interrupted;
mod site;
mod table;

use site::{GKE, KUBERNETES, Via};
use table::{Table, is_wanted};

/// Rounds that are run side by side: most of their time is waiting before another attempt.
const BESIDE: usize = 4;

/// Every call of either kind of environment, with every fault.
fn comes_through(via: Via) {
    if !is_wanted(via) {
        return;
    }
    let Some(most) = Table::open(via, GKE) else { return };
    let Some(rest) = Table::open(via, KUBERNETES) else { return };
    let rest = rest.beyond(&most);
    let count = most.run(BESIDE) + rest.run(BESIDE);
    assert!(count > 0, "there is no such row");
}

#[test]
fn terraform_comes_through_a_bad_answer_or_a_second_run_does() {
    comes_through(Via::Terraform);
}

#[test]
fn gcloud_comes_through_a_bad_answer_or_a_second_run_does() {
    comes_through(Via::Gcloud);
}
