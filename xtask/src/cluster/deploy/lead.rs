//! The lead of a deploy: the lock, what there is, the plan, its execution.

use super::execute::Deploy;
use super::look::{Sight, look};
use super::{Done, Migration, Options, Wanted};
use crate::backup;
use crate::cluster::diff::{Action, Change};
use crate::cluster::lease::{self, Holder};
use crate::cluster::object::{ObjectKind, ObjectRef};
use crate::cluster::plan::{self, Seen, Step};
use crate::cluster::preflight::{NamespaceState, Observed};
use crate::cluster::release::{self, Release, State};
use crate::cluster::{Cluster, apply, login};
use crate::commands::Run;
use crate::config::cluster::ClusterConfig;
use crate::error::Result;

/// What was planned, and, unless it was only foreseen, what became of it.
#[derive(Debug)]
pub struct Course {
    /// What differs between the cluster and what is wanted.
    pub changes: Vec<Change>,
    /// The steps.
    pub steps: Vec<Step>,
    /// What becomes of the databases' schema.
    pub migration: Migration,
    /// What was done.
    pub done: Option<Done>,
}

/// What [`carry_out`] would do. Writes nothing.
pub async fn foresee(cluster: &Cluster, observed: &Observed, options: Options, wanted: &Wanted) -> Result<Course> {
    let wanted = applicable(observed, wanted);
    let sight = look(None, cluster, &options, &wanted).await?;
    let steps = steps(&sight, options);
    Ok(Course { changes: sight.all_changes(), steps, migration: sight.migration, done: None })
}

/// Makes the cluster what is wanted, under the lock of its namespace.
///
/// # Errors
/// `Locked` while another run is at work; `Refused` and `Conflict` before anything is changed;
/// what kept it from finding out how the release ended.
pub async fn carry_out(
    run: &Run,
    cluster: &Cluster,
    settings: &ClusterConfig,
    observed: &Observed,
    options: Options,
    wanted: &Wanted,
) -> Result<Course> {
    let wanted = applicable(observed, wanted);
    // The lock lives in the namespace.
    if observed.namespace == NamespaceState::Missing {
        let namespace: Vec<_> =
            wanted.objects.iter().filter(|object| object.kind == ObjectKind::Namespace).cloned().collect();
        run.ui.step("Creating", format!("namespace {}", cluster.namespace));
        apply::apply(cluster, &namespace, options.force).await?;
    }
    let held = lease::take(run, cluster, Holder::this_process(), options.patience).await?;
    let course = under_lock(run, cluster, settings, options, &wanted, &held).await;
    held.end(&run.ui).await;
    course
}

async fn under_lock(
    run: &Run,
    cluster: &Cluster,
    settings: &ClusterConfig,
    options: Options,
    wanted: &Wanted,
    held: &lease::Held,
) -> Result<Course> {
    let sight = look(Some(run), cluster, &options, wanted).await?;
    let steps = steps(&sight, options);
    let changes = sight.all_changes();
    for change in changes.iter().filter(|change| change.is_change()) {
        run.ui.show(|out| change.human(out));
    }
    agree(run, settings, options, &sight.migration)?;
    let created =
        sight.changes.iter().filter(|change| change.action == Action::Create && change.kind != ObjectKind::Namespace);
    let deploy = Deploy {
        run,
        cluster,
        settings,
        held,
        options,
        wanted,
        migration: &sight.migration,
        fallback: release::current(&sight.releases).cloned(),
        created: created.map(|change| ObjectRef { kind: change.kind, name: change.name.clone() }).collect(),
        stale: sight.stale.clone(),
    };
    if !steps.is_empty() {
        login::keep(run, cluster, &wanted.objects).await?;
    }
    abandon(cluster, &sight.releases, &steps).await?;
    let done = deploy.execute(&steps).await?;
    if let Err(error) = release::prune(cluster, options.keep).await {
        run.ui.warn(format!("old releases are not removed: {}", error.lines().join(": ")));
    }
    Ok(Course { changes, steps, migration: sight.migration, done: Some(done) })
}

/// Says what becomes of the databases, and asks where that takes the server away for a while.
fn agree(run: &Run, settings: &ClusterConfig, options: Options, migration: &Migration) -> Result<()> {
    if !matches!(migration, Migration::Migrate(_) | Migration::Restore { .. }) {
        return Ok(());
    }
    if options.backup {
        // What cannot be backed up is found out before anything is stopped.
        backup::check(settings)?;
    }
    run.ui.show(|out| migration.human(out, options.backup));
    match options.yes {
        true => Ok(()),
        false => run.ui.confirm("Change the databases?", "--yes"),
    }
}

/// Releases that an earlier run left pending, and that this one does not carry on with, have failed.
async fn abandon(cluster: &Cluster, releases: &[Release], steps: &[Step]) -> Result<()> {
    for release in releases.iter().filter(|release| release.state == State::Pending) {
        if !steps.contains(&Step::Resume { release: release.number }) && !steps.contains(&Step::Verify) {
            release::finish(cluster, release, State::Failed, Some("its deploy was interrupted".to_owned())).await?;
        }
    }
    Ok(())
}

/// What is wanted, without what is someone else's.
fn applicable(observed: &Observed, wanted: &Wanted) -> Wanted {
    Wanted { objects: observed.applied(wanted.objects.clone()), ..wanted.clone() }
}

fn steps(sight: &Sight, options: Options) -> Vec<Step> {
    let seen = Seen {
        changes: sight.changes.iter().filter(|change| change.is_change()).count(),
        stale: sight.stale.len(),
        // What was rolled back has left nothing behind.
        last: newest(&sight.releases).map(|release| (release.number, release.state)),
        migration: &sight.migration,
    };
    plan::plan(&seen, plan::Wish { smoke: options.smoke, backup: options.backup })
}

/// The newest release that has left its mark.
fn newest(releases: &[Release]) -> Option<&Release> {
    releases.iter().rev().find(|release| release.state != State::RolledBack)
}
