//! The production topology on one machine: everything real but Google's control plane, which is the
//! testbed's fake.

mod account;
mod desktop;
mod site;
mod topology;
mod watch;
mod workflows;

use crate::scenario::Scenario;

/// Scenarios that have the fake Google for themselves.
pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "topology",
        about: "from nothing to a proven server, with terraform and with gcloud; both ways give the same",
        alone: true,
        needs: Some("google"),
        run: topology::run,
    },
    Scenario {
        name: "desktop",
        about: "any cluster with Google's database and bucket: a password and keys, in the cluster only",
        alone: true,
        needs: Some("google"),
        run: desktop::run,
    },
    Scenario {
        name: "workflows",
        about: "the shell steps of GitHub's workflows as they stand: build, deploy, smoke, and the morning's look",
        alone: true,
        needs: Some("google"),
        run: workflows::run,
    },
];
