//! Why a new pod does not come up: classified, purely, from what the cluster says.
//!
//! Of everything that can be seen the most telling is kept: init containers before the others, and
//! never `PodInitializing` or `ContainerCreating`, which only say that something else is awaited.

mod code;
mod container;
mod creation;
mod pod;
mod server_log;

use k8s_openapi::api::core::v1::Event;
use k8s_openapi::jiff::Timestamp;
use serde::Serialize;

use super::snapshot::first_time;

pub use code::Code;
pub use container::pull_detail;
pub use creation::{refusal, refused};
pub use pod::of_pod;

/// How sure it is that waiting does not help.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Class {
    /// May pass by itself, or when others act: only the deadline ends it.
    Wait,
    /// May pass by itself, but not after its budget is spent.
    Budgeted,
    /// Will not pass by itself.
    Fatal,
}

/// What a cause may take before it is believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Budget {
    /// Nothing.
    Now,
    /// So many restarts of the container.
    Restarts(i32),
    /// So many seconds since it was first seen.
    Seconds(i64),
    /// The rollout's own deadline.
    Deadline,
}

/// How often a container may be started again: the second restart is the end of its patience.
pub const RESTARTS: i32 = 2;

/// Why a new pod does not come up, or why there is none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Cause {
    /// How sure it is that waiting does not help.
    pub class: Class,
    /// What it is.
    pub code: Code,
    /// The pod; `None` where none could be made.
    pub pod: Option<String>,
    /// The container in it.
    pub container: Option<String>,
    /// The cluster's own word for it: `CrashLoopBackOff`, `Unschedulable`.
    pub reason: String,
    /// How the container's last process ended.
    pub exit_code: Option<i32>,
    /// What the cluster, or the server's log, says about it.
    pub message: String,
    /// The cluster's first sign of it: the time of an event, of a state or of a log line.
    pub first_sign: Timestamp,
    /// How often the container was started again.
    pub restarts: i32,
    /// What it may take before it is believed.
    #[serde(skip)]
    pub budget: Budget,
    /// The pod's uid; empty where there is none.
    #[serde(skip)]
    pub uid: String,
}

impl Cause {
    /// A cause that no pod has yet.
    pub fn new(code: Code, budget: Budget, reason: &str, message: &str, first_sign: Timestamp) -> Self {
        let class = match budget {
            Budget::Now => Class::Fatal,
            Budget::Restarts(_) | Budget::Seconds(_) => Class::Budgeted,
            Budget::Deadline => Class::Wait,
        };
        Self {
            class,
            code,
            pod: None,
            container: None,
            reason: reason.to_owned(),
            exit_code: None,
            message: super::text::clean(message),
            first_sign,
            restarts: 0,
            budget,
            uid: String::new(),
        }
    }

    /// The same cause is seen again under the same key: its first sign and its budget go on.
    pub fn key(&self) -> (String, String, Code) {
        (self.uid.clone(), self.container.clone().unwrap_or_default(), self.code)
    }

    /// Whether its budget is spent, after it has been there for so many seconds.
    pub fn is_spent(&self, lasts: i64) -> bool {
        match self.budget {
            Budget::Now => true,
            Budget::Restarts(most) => self.restarts >= most,
            Budget::Seconds(most) => lasts >= most,
            Budget::Deadline => false,
        }
    }
}

/// The earliest time of the events that `is_sign` picks.
fn first_event<'a>(events: impl Iterator<Item = &'a Event>, is_sign: impl Fn(&str, &str) -> bool) -> Option<Timestamp> {
    let signs = events.filter(|event| {
        is_sign(event.reason.as_deref().unwrap_or_default(), event.message.as_deref().unwrap_or_default())
    });
    signs.filter_map(first_time).min()
}
