//! What would be done to an environment's infrastructure, as data.

use std::collections::BTreeMap;
use std::fmt;
use std::io;

use serde::{Deserialize, Serialize};

/// What is to happen to a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// It is made.
    Create,
    /// It is changed in place.
    Update,
    /// It is deleted and made again.
    Replace,
    /// It is deleted.
    Delete,
    /// It is other than wanted, and is left so: someone has to decide.
    Drift,
    /// It is left as it is, and no longer looked after.
    Keep,
}

impl Action {
    /// A sign before the resource, as terraform's plans have it.
    pub fn sign(self) -> &'static str {
        match self {
            Self::Create => "+",
            Self::Update => "~",
            Self::Replace => "±",
            Self::Delete => "-",
            Self::Drift => "!",
            Self::Keep => "=",
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Create => "to create",
            Self::Update => "to change",
            Self::Replace => "to replace",
            Self::Delete => "to delete",
            Self::Drift => "other than wanted, left so",
            Self::Keep => "kept",
        }
    }
}

/// One resource and what is to happen to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// What is to happen.
    pub action: Action,
    /// Which resource: `bucket my-project-mlflow`, or terraform's address.
    pub resource: String,
    /// What differs, a line each: `tier: db-f1-micro -> db-custom-1-3840`. Never a secret.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub details: Vec<String>,
}

/// All that would happen, in the order in which it does.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Resources that are not as wanted.
    pub changes: Vec<Change>,
}

impl Plan {
    /// Whether everything is as wanted.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// Whether applying it does anything.
    pub fn acts(&self) -> bool {
        self.changes.iter().any(|change| !matches!(change.action, Action::Drift | Action::Keep))
    }

    /// `3 to create, 1 to change`.
    pub fn summary(&self) -> String {
        let mut counts: BTreeMap<Action, usize> = BTreeMap::new();
        for change in &self.changes {
            *counts.entry(change.action).or_default() += 1;
        }
        let words: Vec<String> =
            counts.into_iter().map(|(action, count)| format!("{count} {}", action.word())).collect();
        match words.is_empty() {
            true => "nothing to change".to_owned(),
            false => words.join(", "),
        }
    }

    /// For people: a line for each resource, and the lines of what differs below it.
    pub fn human(&self, out: &mut dyn io::Write) -> io::Result<()> {
        for change in &self.changes {
            writeln!(out, "{change}")?;
            change.details.iter().try_for_each(|line| writeln!(out, "    {line}"))?;
        }
        writeln!(out, "{}", self.summary())
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.action.sign(), self.resource)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(changes: &[(Action, &str)]) -> Plan {
        let change = |(action, resource): &(Action, &str)| Change {
            action: *action,
            resource: (*resource).to_owned(),
            details: Vec::new(),
        };
        Plan { changes: changes.iter().map(change).collect() }
    }

    #[test]
    fn a_plan_says_how_much_it_does() {
        let check = |changes: &[(Action, &str)], acts: bool, summary: &str| {
            let plan = plan(changes);
            assert_eq!((plan.acts(), plan.summary().as_str()), (acts, summary));
        };
        check(&[], false, "nothing to change");
        check(&[(Action::Create, "a"), (Action::Create, "b")], true, "2 to create");
        check(&[(Action::Drift, "a")], false, "1 other than wanted, left so");
        check(&[(Action::Delete, "a"), (Action::Update, "b")], true, "1 to change, 1 to delete");
    }

    #[test]
    fn each_resource_has_a_line() {
        let mut plan = plan(&[(Action::Update, "database mlflow")]);
        plan.changes[0].details.push("tier: a -> b".to_owned());
        let mut text = Vec::new();
        plan.human(&mut text).unwrap();
        assert_eq!(String::from_utf8(text).unwrap(), "~ database mlflow\n    tier: a -> b\n1 to change\n");
    }
}
