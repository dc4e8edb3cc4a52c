//! What a deploy will do, decided from what was observed. Touches nothing.

use std::fmt;

use serde::Serialize;

use super::deploy::Migration;
use super::release::State;

/// What was seen before anything is changed.
#[derive(Clone, Debug)]
pub struct Seen<'a> {
    /// How many live objects differ from the wanted ones, or are missing.
    pub changes: usize,
    /// Of our objects, how many are no longer wanted.
    pub stale: usize,
    /// The newest release and how it ended.
    pub last: Option<(u64, State)>,
    /// What becomes of the databases' schema.
    pub migration: &'a Migration,
}

/// How the user wants it.
#[derive(Clone, Copy, Debug)]
pub struct Wish {
    /// Prove it by the smoke test.
    pub smoke: bool,
    /// Make a backup before the databases are changed.
    pub backup: bool,
}

/// One step of a deploy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "step")]
pub enum Step {
    /// Write down a new release as begun.
    Begin,
    /// Carry on with the release that an earlier run began.
    Resume { release: u64 },
    /// Apply what differs.
    Apply { objects: usize },
    /// Make the schema where a database is empty.
    Make,
    /// Wait until a new pod is held back by nothing but the schema.
    Stage,
    /// Stop the old servers; new ones wait.
    Stop,
    /// Back the databases up.
    BackUp,
    /// Migrate the databases.
    Migrate,
    /// Bring the databases back to a backup.
    BringBack,
    /// Let the servers start.
    Start,
    /// Follow the pods until they serve, and watch that they stay up.
    Follow,
    /// Look whether what runs serves.
    Verify,
    /// Prove it.
    Smoke,
    /// Write down that it works.
    Record,
    /// Delete what is ours and no longer wanted.
    Prune { objects: usize },
}

impl Step {
    /// What is done, while it is done, and to what.
    pub fn words(self) -> (&'static str, &'static str, String) {
        let objects = |count: usize| if count == 1 { "1 object".to_owned() } else { format!("{count} objects") };
        match self {
            Self::Begin => ("record", "Recording", "a new release as begun".to_owned()),
            Self::Resume { release } => ("resume", "Resuming", format!("release {release}, which was interrupted")),
            Self::Apply { objects: count } => ("apply", "Applying", objects(count)),
            Self::Make => ("make", "Making", "the schema of databases that are empty".to_owned()),
            Self::Stage => ("stage", "Staging", "a new pod, up to where it needs the other schema".to_owned()),
            Self::Stop => ("stop", "Stopping", "the servers: nothing serves from here on".to_owned()),
            Self::BackUp => ("back up", "Backing up", "the databases".to_owned()),
            Self::Migrate => ("migrate", "Migrating", "the databases".to_owned()),
            Self::BringBack => ("restore", "Restoring", "the databases from their backup".to_owned()),
            Self::Start => ("start", "Starting", "the servers".to_owned()),
            Self::Follow => ("follow", "Following", "the rollout until the new pods serve and stay up".to_owned()),
            Self::Verify => ("verify", "Verifying", "that what runs serves".to_owned()),
            Self::Smoke => ("prove", "Proving", "that it works".to_owned()),
            Self::Record => ("record", "Recording", "that the release works".to_owned()),
            Self::Prune { objects: count } => ("prune", "Pruning", format!("{} no longer wanted", objects(count))),
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (verb, _, object) = self.words();
        write!(f, "{verb} {object}")
    }
}

/// The steps to what is wanted. [`Step::Verify`] alone when it was applied and proven before.
pub fn plan(seen: &Seen<'_>, wish: Wish) -> Vec<Step> {
    let apply = (seen.changes > 0).then_some(Step::Apply { objects: seen.changes });
    let prune = (seen.stale > 0).then_some(Step::Prune { objects: seen.stale });
    let is_settled = seen.changes == 0 && *seen.migration == Migration::None;
    let begin = match seen.last {
        Some((_, State::Deployed)) if is_settled => {
            return [Some(Step::Verify), prune].into_iter().flatten().collect();
        }
        Some((release, State::Pending)) if is_settled => Step::Resume { release },
        _ => Step::Begin,
    };
    let backup = wish.backup.then_some(Step::BackUp);
    let schema: &[Option<Step>] = match seen.migration {
        Migration::None => &[],
        Migration::Unknown | Migration::Make => &[Some(Step::Make)],
        // The old servers run until it is known that the new ones come up.
        Migration::Migrate(_) => &[Some(Step::Stage), Some(Step::Stop), backup, Some(Step::Migrate), Some(Step::Start)],
        Migration::Restore { .. } => {
            &[Some(Step::Stage), Some(Step::Stop), backup, Some(Step::BringBack), Some(Step::Start)]
        }
    };
    let smoke = wish.smoke.then_some(Step::Smoke);
    let before = [Some(begin), apply].into_iter();
    let after = [Some(Step::Follow), smoke, Some(Step::Record), prune].into_iter();
    before.chain(schema.iter().copied()).chain(after).flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::super::deploy::Needed;
    use super::*;

    fn check(changes: usize, stale: usize, last: Option<(u64, State)>, smoke: bool, expected: &str) {
        check_schema(&Migration::None, changes, stale, last, Wish { smoke, backup: true }, expected);
    }

    fn check_schema(
        migration: &Migration,
        changes: usize,
        stale: usize,
        last: Option<(u64, State)>,
        wish: Wish,
        expected: &str,
    ) {
        let steps = plan(&Seen { changes, stale, last, migration }, wish);
        let names: Vec<_> = steps.iter().map(|step| step.words().0).collect();
        assert_eq!(names.join(" "), expected, "{changes} changes, {stale} stale, after {last:?}, {migration:?}");
    }

    #[test]
    fn a_schema_is_changed_while_nothing_serves() {
        let deployed = Some((3, State::Deployed));
        let needed = Needed { stores: Vec::new(), bytes: None, found: Vec::new() };
        let (unknown, make, migrate) = (Migration::Unknown, Migration::Make, Migration::Migrate(needed));
        let restore = Migration::Restore { backup: "b".into(), found: Vec::new() };
        let check =
            |migration: &Migration, changes: usize, last: Option<(u64, State)>, backup: bool, expected: &str| {
                check_schema(migration, changes, 0, last, Wish { smoke: true, backup }, expected);
            };
        check(&unknown, 8, None, true, "record apply make follow prove record");
        check(&make, 1, deployed, true, "record apply make follow prove record");
        let whole = "record apply stage stop back up migrate start follow prove record";
        check(&migrate, 1, deployed, true, whole);
        check(&migrate, 1, deployed, false, &whole.replace(" back up", ""));
        check(&restore, 1, deployed, true, &whole.replace("migrate", "restore"));
        // After a run that died in between, or a database that someone else has brought back.
        check(&migrate, 0, Some((3, State::Pending)), true, &whole.replace(" apply", ""));
        check(&migrate, 0, deployed, true, &whole.replace(" apply", ""));
        check(&make, 0, deployed, true, "record make follow prove record");
    }

    #[test]
    fn only_what_differs_is_applied_and_what_is_not_proven_is_proven() {
        check(8, 0, None, true, "record apply follow prove record");
        check(8, 0, None, false, "record apply follow record");
        check(1, 2, Some((3, State::Deployed)), true, "record apply follow prove record prune");
        check(0, 0, Some((3, State::Deployed)), true, "verify");
        check(0, 1, Some((3, State::Deployed)), true, "verify prune");
        check(0, 0, Some((3, State::Pending)), true, "resume follow prove record");
        check(1, 0, Some((3, State::Pending)), true, "record apply follow prove record");
        check(0, 0, Some((3, State::Failed)), true, "record follow prove record");
        check(0, 0, None, true, "record follow prove record");
    }
}
