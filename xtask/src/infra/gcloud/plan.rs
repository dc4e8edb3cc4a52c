//! What is to be done, from what is wanted and what there is. Asks nobody.

use std::collections::BTreeSet;

use crate::config::infra::{InfraConfig, RegistryNames, SqlLogin};
use crate::infra::plan::{Action, Change, Plan};

use super::observed::{Observed, State};
use super::resources::{Member, Object, REPOSITORY_TEXT, Resource, resources};
use super::steps::Step;

/// What an unknown number is shown as.
const NUMBER: &str = "NUMBER";

/// What makes the resources as they should be: creates what lacks, and says what is other than wanted.
pub fn plan(infra: &InfraConfig, observed: &Observed) -> (Plan, Vec<Step>) {
    let (mut plan, mut steps, mut apis) = (Plan::default(), Vec::new(), Vec::new());
    let all = resources(infra);
    let broken: BTreeSet<&Resource> =
        all.iter().filter(|resource| matches!(observed.state(infra, resource), State::Broken(_))).collect();
    for resource in &all {
        if resource.parent().is_some_and(|parent| broken.contains(&parent)) {
            continue;
        }
        let mut add = |step: Step| {
            let action = step.action();
            plan.changes.push(change(infra, observed, action, resource, std::slice::from_ref(&step)));
            steps.push(step);
        };
        match observed.state(infra, resource) {
            State::AsWanted => {}
            State::Absent => match resource {
                Resource::Api(api) => {
                    apis.push(*api);
                    plan.changes.push(note(infra, Action::Create, resource, Vec::new()));
                }
                _ => add(Step::Create(resource.clone())),
            },
            State::Unfinished => add(Step::Finish(resource.clone())),
            State::Deleted => add(Step::Undelete(resource.clone())),
            State::Coming => add(Step::Await(resource.clone())),
            State::Going => {
                add(Step::Await(resource.clone()));
                add(Step::Create(resource.clone()));
            }
            State::Drift(differences) | State::Broken(differences) => {
                plan.changes.push(note(infra, Action::Drift, resource, differences));
            }
        }
        if needs_finish(infra, resource) && observed.state(infra, resource) == State::Absent {
            steps.push(Step::Finish(resource.clone()));
            let line = Step::Finish(resource.clone()).call(infra, NUMBER).to_string();
            if let Some(change) = plan.changes.last_mut() {
                change.details.push(line);
            }
        }
    }
    if !apis.is_empty() {
        let step = Step::Enable(apis);
        let line = step.call(infra, NUMBER).to_string();
        if let Some(last) = plan.changes.iter_mut().rfind(|change| change.resource.starts_with("API ")) {
            last.details.push(line);
        }
        steps.insert(0, step);
    }
    (plan, steps)
}

/// Whether a resource lacks something right after it was made.
fn needs_finish(infra: &InfraConfig, resource: &Resource) -> bool {
    match resource {
        Resource::Bucket => true,
        // A user with a password has the role from the start.
        Resource::User => infra.sql.login == SqlLogin::Iam,
        _ => false,
    }
}

/// What removes the resources, the last one made first. Without `delete_data` the bucket and the
/// database stay, with the network that the database is in.
pub fn destruction(infra: &InfraConfig, observed: &Observed, delete_data: bool) -> (Plan, Vec<Step>) {
    let (mut plan, mut steps) = (Plan::default(), Vec::new());
    let mut said_of_apis = false;
    for resource in resources(infra).iter().rev() {
        let state = observed.state(infra, resource);
        if !state.is_there() {
            continue;
        }
        if let Resource::Api(_) = resource {
            if !said_of_apis {
                said_of_apis = true;
                let why = vec!["others in the project may call them".to_owned()];
                let resource = format!("the APIs of project {}", infra.project);
                plan.changes.push(Change { action: Action::Keep, resource, details: why });
            }
            continue;
        }
        if let Some(why) = kept(infra, observed, resource, delete_data) {
            plan.changes.push(note(infra, Action::Keep, resource, vec![why.to_owned()]));
            continue;
        }
        if goes_along(infra, observed, resource, delete_data) {
            continue;
        }
        let mut own = Vec::new();
        if matches!(state, State::Coming | State::Going) {
            own.push(Step::Await(resource.clone()));
        }
        if *resource == Resource::Instance && is_protected(infra, observed) {
            own.push(Step::Unprotect(resource.clone()));
        }
        if state != State::Going {
            own.push(Step::Delete(resource.clone()));
        }
        plan.changes.push(change(infra, observed, Action::Delete, resource, &own));
        steps.extend(own);
    }
    (plan, steps)
}

/// Why a resource stays.
fn kept(infra: &InfraConfig, observed: &Observed, resource: &Resource, delete_data: bool) -> Option<&'static str> {
    let has_database = observed.state(infra, &Resource::Instance).is_there();
    match resource {
        Resource::Bucket if !delete_data => Some("it holds data; --delete-data deletes it"),
        Resource::Instance if !delete_data => Some("it holds data; --delete-data deletes it"),
        Resource::Network | Resource::PeeringRange | Resource::Peering
            if !delete_data && infra.sql.private_ip && has_database =>
        {
            Some("the database is in it")
        }
        Resource::Repository if is_of_others(infra, observed) => Some("others have made it, and may keep images in it"),
        _ => None,
    }
}

/// Whether a resource is gone with another one, so that it needs no step.
fn goes_along(infra: &InfraConfig, observed: &Observed, resource: &Resource, delete_data: bool) -> bool {
    match resource {
        // In the instance, or kept with it.
        Resource::Database | Resource::User | Resource::Provider | Resource::Nat => true,
        Resource::Binding(binding) => match binding.on {
            Object::Project => false,
            Object::Bucket => delete_data,
            Object::Repository => !is_of_others(infra, observed),
            Object::Account(_) => matches!(binding.member, Member::Pod | Member::Workflows | Member::Approved),
        },
        _ => false,
    }
}

fn is_of_others(infra: &InfraConfig, observed: &Observed) -> bool {
    let description = observed.answer(infra, &Resource::Repository).map(|answer| &answer["description"]);
    infra.registry == RegistryNames::GcrIo && description.is_some_and(|text| text != REPOSITORY_TEXT)
}

fn is_protected(infra: &InfraConfig, observed: &Observed) -> bool {
    let answer = observed.answer(infra, &Resource::Instance);
    let field = answer.and_then(|answer| answer.pointer("/settings/deletionProtectionEnabled"));
    field.is_some_and(|field| field == true)
}

/// A resource's line, with the calls below it.
fn change(infra: &InfraConfig, observed: &Observed, action: Action, resource: &Resource, steps: &[Step]) -> Change {
    let number = if observed.number.is_empty() { NUMBER } else { &observed.number };
    let calls = steps.iter().map(|step| step.call(infra, number).to_string()).collect();
    note(infra, action, resource, calls)
}

fn note(infra: &InfraConfig, action: Action, resource: &Resource, details: Vec<String>) -> Change {
    Change { action, resource: resource.title(infra), details }
}
