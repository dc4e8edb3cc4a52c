//! What can be done to a resource: one call of gcloud each.

use std::time::Duration;

use crate::config::infra::InfraConfig;
use crate::gcloud::Call;
use crate::infra::plan::Action;

use super::calls;
use super::resources::Resource;

/// How long a call may take that is not about something big.
const SOON: Duration = Duration::from_secs(600);

/// One step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Enables APIs, together.
    Enable(Vec<&'static str>),
    /// Makes it.
    Create(Resource),
    /// Gives it the settings that it could not be made with.
    Finish(Resource),
    /// Brings it back from what was deleted.
    Undelete(Resource),
    /// Waits until what another run has begun is done.
    Await(Resource),
    /// Lifts its protection against deletion.
    Unprotect(Resource),
    /// Deletes it, or takes the role away.
    Delete(Resource),
}

impl Step {
    /// The resource, where it is about one.
    pub fn resource(&self) -> Option<&Resource> {
        match self {
            Self::Enable(_) => None,
            Self::Create(resource)
            | Self::Finish(resource)
            | Self::Undelete(resource)
            | Self::Await(resource)
            | Self::Unprotect(resource)
            | Self::Delete(resource) => Some(resource),
        }
    }

    /// The call. Waiting asks again and again.
    pub fn call(&self, infra: &InfraConfig, number: &str) -> Call {
        match self {
            Self::Enable(apis) => calls::enable(apis),
            Self::Create(resource) => calls::create(infra, resource, number),
            Self::Finish(resource) => calls::finish(infra, resource),
            Self::Undelete(resource) => calls::undelete(infra, resource),
            Self::Await(resource) => calls::question(infra, resource),
            Self::Unprotect(_) => calls::unprotect(infra),
            Self::Delete(resource) => calls::delete(infra, resource, number),
        }
    }

    /// How it is shown while it is done: a verb, and what.
    pub fn title(&self, infra: &InfraConfig) -> (&'static str, String) {
        let verb = match self {
            Self::Enable(_) => "Enabling",
            Self::Create(Resource::Binding(_)) => "Granting",
            Self::Create(_) => "Creating",
            Self::Finish(_) => "Setting",
            Self::Undelete(_) => "Restoring",
            Self::Await(_) => "Awaiting",
            Self::Unprotect(_) => "Unlocking",
            Self::Delete(Resource::Binding(_)) => "Revoking",
            Self::Delete(_) => "Deleting",
        };
        let what = match self {
            Self::Enable(apis) => apis.join(", "),
            _ => self.resource().map_or_else(String::new, |resource| resource.title(infra)),
        };
        (verb, what)
    }

    /// What it is in a plan.
    pub fn action(&self) -> Action {
        match self {
            Self::Enable(_) | Self::Create(_) | Self::Undelete(_) => Action::Create,
            Self::Finish(_) | Self::Await(_) | Self::Unprotect(_) => Action::Update,
            Self::Delete(_) => Action::Delete,
        }
    }

    /// How long it may take.
    pub fn deadline(&self, big: Duration) -> Duration {
        match self.resource() {
            Some(Resource::Instance | Resource::Cluster | Resource::Bucket) => big,
            _ => big.min(SOON),
        }
    }
}
