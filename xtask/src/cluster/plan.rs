//! What a deploy will do, decided from what was observed. Touches nothing.

use std::fmt;

use serde::Serialize;

use super::release::State;

/// What was seen before anything is changed.
#[derive(Clone, Debug)]
pub struct Seen {
    /// How many live objects differ from the wanted ones, or are missing.
    pub changes: usize,
    /// Of our objects, how many are no longer wanted.
    pub stale: usize,
    /// The newest release and how it ended.
    pub last: Option<(u64, State)>,
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

/// The steps to what is wanted, proven by the smoke test where `smoke` says so. [`Step::Verify`] alone when it was applied and proven before.
pub fn plan(seen: &Seen, smoke: bool) -> Vec<Step> {
    let apply = (seen.changes > 0).then_some(Step::Apply { objects: seen.changes });
    let prune = (seen.stale > 0).then_some(Step::Prune { objects: seen.stale });
    let begin = match seen.last {
        Some((_, State::Deployed)) if seen.changes == 0 => {
            return [Some(Step::Verify), prune].into_iter().flatten().collect();
        }
        Some((release, State::Pending)) if seen.changes == 0 => Step::Resume { release },
        _ => Step::Begin,
    };
    let smoke = smoke.then_some(Step::Smoke);
    [Some(begin), apply, Some(Step::Follow), smoke, Some(Step::Record), prune].into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(changes: usize, stale: usize, last: Option<(u64, State)>, smoke: bool, expected: &str) {
        let steps = plan(&Seen { changes, stale, last }, smoke);
        let names: Vec<_> = steps.iter().map(|step| step.words().0).collect();
        assert_eq!(names.join(" "), expected, "{changes} changes, {stale} stale, after {last:?}");
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
