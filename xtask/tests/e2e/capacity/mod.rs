//! What a server bears and what it shows: many clients, a large artifact, metrics, and what deleted runs hold.

mod bucket;
mod clients;
mod connections;
mod gc;
mod large_artifact;
mod load;
mod metrics;
mod noise;
mod pods;
mod usage;

use crate::scenario::Scenario;

/// See the functions.
pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "load",
        about: "many clients at one to three pods: requests a second, and no more connections than were foretold",
        alone: true,
        needs: None,
        run: load::load,
    },
    Scenario {
        name: "large-artifact",
        about: "an artifact larger than a pod's memory goes up and comes down whole (512 MiB; 5 GiB with --full)",
        alone: true,
        needs: None,
        run: large_artifact::large_artifact,
    },
    Scenario {
        name: "metrics",
        about: "whoever is told to fetch metrics finds all that dashboard and alerts ask for; the log is JSON",
        alone: false,
        needs: None,
        run: metrics::metrics,
    },
    Scenario {
        name: "gc",
        about: "what deleted runs hold is freed by the command and by the CronJob, and nothing else",
        alone: false,
        needs: None,
        run: gc::gc,
    },
];
