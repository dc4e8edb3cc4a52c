//! `via = "terraform"`: terraform does it, from `terraform/`; nothing here knows a resource but by its
//! address. State and plans are terraform's own.

mod changes;
mod diagnosis;
mod events;
mod imports;
mod program;
mod vars;

use std::path::{Path, PathBuf};

use crate::commands::Run;
use crate::config::infra::InfraConfig;
use crate::error::{Context as _, Error, Kind, Result};
use crate::outputs::Outputs;

use super::deadline::{operation_deadline, unended};
use super::plan::{Action, Change, Plan};
use super::proposal::has_changed;
use super::way::{Given, Wish};
pub use changes::Planned;
use changes::keeps_data;
use events::Event;
use program::Terraform;
pub use program::locate;

/// An environment's terraform, ready to be asked.
pub struct Workspace {
    terraform: Terraform,
    infra: InfraConfig,
    /// Where plans and what else this machine knows are kept.
    folder: PathBuf,
}

impl Workspace {
    /// Finds terraform and initialises the folder.
    ///
    /// # Errors
    /// `Tool` for a terraform that is missing or too old, or a provider that cannot be had; `Auth` and
    /// `Forbidden` for a state that cannot be reached.
    pub async fn open(run: &Run, root: &Path, env: &str, infra: &InfraConfig, folder: PathBuf) -> Result<Self> {
        let terraform = Terraform::find(run, root, env, &folder).await?;
        let workspace = Self { terraform, infra: infra.clone(), folder };
        workspace.terraform.backend(infra.state_bucket.as_deref(), &infra.name)?;
        workspace.terraform.init(run).await?;
        Ok(workspace)
    }

    /// What would be done, kept as a plan that [`Self::apply`] takes.
    ///
    /// Resources that an interrupted run has made and not written down are taken over: `adopt` has the
    /// addresses of those that Google said exist.
    pub async fn plan(&self, run: &Run, given: Given<'_>, adopt: &[String]) -> Result<Planned> {
        self.write_vars(Wish::Have, given)?;
        self.terraform.imports(&self.infra, adopt)?;
        self.plan_with(run, given, &[]).await
    }

    /// Keeps what was being made when a run was stopped, where terraform would delete and remake it, and
    /// plans again: how many changes there are. `agreed` is what was shown of them.
    ///
    /// # Errors
    /// `Input` where more is to be done than was agreed to.
    pub async fn keep_unfinished(
        &self,
        run: &Run,
        given: Given<'_>,
        agreed: &Plan,
        unfinished: &[String],
    ) -> Result<usize> {
        for address in unfinished {
            run.ui.step("Keeping", format!("{address}, which was being made when a run was stopped"));
            self.terraform.run(run, &["untaint".to_owned(), address.clone()], given).await?;
        }
        let planned = self.plan_with(run, given, &[]).await?;
        match is_agreed(agreed, &planned.plan) {
            Ok(()) => Ok(planned.plan.changes.len()),
            Err(what) => Err(has_changed().source(what)),
        }
    }

    /// What destroying would do. Bucket and database are kept unless the wish names them.
    pub async fn plan_destruction(&self, run: &Run, given: Given<'_>, wish: Wish) -> Result<Planned> {
        self.write_vars(wish, given)?;
        self.terraform.imports(&self.infra, &[])?;
        let mut flags = vec!["-destroy".to_owned()];
        if wish == Wish::Destroy {
            flags.extend(vars::disposable(&self.infra).iter().map(|module| format!("-target=module.{module}")));
        }
        self.plan_with(run, given, &flags).await
    }

    async fn plan_with(&self, run: &Run, given: Given<'_>, flags: &[String]) -> Result<Planned> {
        let path = self.plan_file();
        let mut args = vec!["plan".to_owned(), format!("-out={}", path.display())];
        args.push(self.terraform.var_file());
        args.extend(flags.iter().cloned());
        self.terraform.follow(run, "plan", &args, given, |_| {}).await?;
        self.read_plan(run, &path).await
    }

    /// What a kept plan does.
    pub async fn read_plan(&self, run: &Run, path: &Path) -> Result<Planned> {
        let text =
            self.terraform.read(run, &["show".to_owned(), "-json".to_owned(), path.display().to_string()]).await?;
        Planned::parse(&text)
    }

    /// Where the plan of the last [`Self::plan`] is.
    pub fn plan_file(&self) -> PathBuf {
        self.folder.join("plan")
    }

    /// Does what a plan says. Gives the addresses of resources that exist without being in the state:
    /// those are left out, and everything else is done.
    ///
    /// # Errors
    /// terraform's, classified; what was done is in the state, and a second run goes on.
    pub async fn apply(&self, run: &Run, given: Given<'_>, plan: &Path, total: usize) -> Result<Vec<String>> {
        let args = vec!["apply".to_owned(), plan.display().to_string()];
        let longest = operation_deadline()?;
        let (stop, mut overdue) = (run.cancel.child_token(), None);
        let bar = run.ui.count("Applying resources", total as u64);
        let ui = run.ui.clone();
        let outcome = self
            .terraform
            .follow_until(run, &stop, "apply", &args, given, |event| match event {
                Event::Began { address, verb } => ui.step(verb, address),
                // terraform's provider has deadlines of its own, and not for everything.
                Event::Goes { address, seconds, .. } if *seconds > longest.as_secs() => {
                    overdue.get_or_insert_with(|| address.clone());
                    stop.cancel();
                }
                Event::Goes { address, verb, seconds } if seconds % 30 == 0 => {
                    ui.step(verb, format!("{address} (for {seconds} s)"));
                }
                Event::Done { address, verb, seconds } => {
                    bar.inc(1);
                    ui.step(verb, format!("{address} in {seconds} s"));
                }
                _ => {}
            })
            .await;
        if let (Some(address), false) = (overdue, run.cancel.is_cancelled()) {
            return Err(unended(&address, longest));
        }
        match outcome {
            Ok(()) => Ok(Vec::new()),
            Err(error) if error.existing.is_empty() => Err(error.into()),
            Err(error) => Ok(error.existing),
        }
    }

    /// Before a destruction: lifts what protects the resources that are to go.
    pub async fn unprotect(&self, run: &Run, given: Given<'_>, wish: Wish, goes: &Plan) -> Result<()> {
        let protected = goes.changes.iter().filter(|change| change.action == Action::Delete);
        let targets: Vec<String> = protected
            .filter(|change| keeps_data(&change.resource))
            .map(|change| format!("-target={}", change.resource))
            .collect();
        if targets.is_empty() {
            return Ok(());
        }
        self.write_vars(wish, given)?;
        let path = self.folder.join("unprotect");
        let mut args = vec!["plan".to_owned(), format!("-out={}", path.display())];
        args.push(self.terraform.var_file());
        args.extend(targets);
        self.terraform.follow(run, "plan", &args, given, |_| {}).await?;
        let planned = self.read_plan(run, &path).await?;
        if let Some(change) = planned.plan.changes.iter().find(|change| change.action != Action::Update) {
            let message = format!("before destroying, terraform wants more than to lift protections: {change}");
            return Err(Error::new(Kind::Refused, message)
                .hint("run `cargo xtask infra apply` first, so that what exists is what deploy.toml says"));
        }
        if planned.plan.acts() {
            run.ui.step("Lifting", "what protects the resources from being deleted");
            self.apply(run, given, &path, planned.plan.changes.len()).await?;
        }
        Ok(())
    }

    /// The outputs in the state; `None` where nothing has been made.
    pub async fn outputs(&self, run: &Run) -> Result<Option<Outputs>> {
        let text = self.terraform.read(run, &["output".to_owned(), "-json".to_owned()]).await?;
        let all: serde_json::Value =
            serde_json::from_slice(&text).context(Kind::Tool, || "terraform's outputs are not JSON")?;
        match all.pointer("/contract/value") {
            Some(value) if !value.is_null() => {
                Outputs::parse(value.to_string().as_bytes(), "terraform's output").map(Some)
            }
            _ => Ok(None),
        }
    }

    fn write_vars(&self, wish: Wish, given: Given<'_>) -> Result<()> {
        self.terraform.write_vars(&vars::vars(&self.infra, wish, given.password.map(|(_, version)| version)))
    }
}

/// What terraform says where it is to take over what is not there.
pub const IS_ABSENT: &str = "Cannot import non-existent remote object";

/// Whether a difference is about what Google is never told: how terraform itself treats the resource,
/// which a resource that is taken over comes without.
fn is_terraforms_own(difference: &str) -> bool {
    let name = difference.split(':').next().unwrap_or_default();
    ["deletion_protection", "deletion_policy", "force_destroy", "password_wo_version"].contains(&name)
}

/// What remains of a plan when it is made anew after an apply that met existing resources: nothing but
/// what was agreed to, and those resources as they are wanted. Else the first change that is more.
pub fn is_within(agreed: &Plan, next: &Plan) -> std::result::Result<(), String> {
    let is_agreed = |change: &Change| {
        let known = agreed.changes.iter().any(|agreed| agreed.resource == change.resource);
        known && change.action == Action::Create
    };
    // What is taken over may be written down anew without being other than wanted.
    let is_same = |change: &Change| match change.action {
        Action::Keep => true,
        Action::Update => change.details.split_first().is_some_and(|(first, rest)| {
            first == changes::TAKEN_OVER && rest.iter().all(|line| is_terraforms_own(line))
        }),
        _ => false,
    };
    let strange = next.changes.iter().find(|change| !is_agreed(change) && !is_same(change));
    strange.map_or(Ok(()), |change| Err(format!("{change}: {}", change.details.join(", "))))
}

/// Whether a plan does what was agreed to: no other action, and on no other resource. Else the first
/// change that is more.
fn is_agreed(agreed: &Plan, next: &Plan) -> std::result::Result<(), String> {
    let known = |change: &&Change| {
        agreed.changes.iter().any(|agreed| (agreed.action, &agreed.resource) == (change.action, &change.resource))
    };
    let strange = next.changes.iter().find(|change| !known(change));
    strange.map_or(Ok(()), |change| Err(format!("{change}: {}", change.details.join(", "))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(changes: &[(Action, &str, &[&str])]) -> Plan {
        let change = |(action, resource, details): &(Action, &str, &[&str])| Change {
            action: *action,
            resource: (*resource).to_owned(),
            details: details.iter().map(|line| (*line).to_owned()).collect(),
        };
        Plan { changes: changes.iter().map(change).collect() }
    }

    #[test]
    fn only_what_was_agreed_to_is_made_the_second_time() {
        let agreed = plan(&[(Action::Create, "a", &[]), (Action::Create, "b", &[])]);
        for (next, good) in [
            (plan(&[(Action::Create, "b", &[]), (Action::Keep, "a", &[changes::TAKEN_OVER])]), true),
            (plan(&[(Action::Update, "a", &[changes::TAKEN_OVER])]), true),
            (plan(&[(Action::Update, "a", &[changes::TAKEN_OVER, "deletion_protection: true -> false"])]), true),
            (plan(&[(Action::Update, "a", &[changes::TAKEN_OVER, "tier: x -> y"])]), false),
            (plan(&[(Action::Update, "a", &["deletion_protection: true -> false"])]), false),
            (plan(&[(Action::Create, "c", &[])]), false),
            (plan(&[(Action::Delete, "b", &[])]), false),
        ] {
            assert_eq!(is_within(&agreed, &next).is_ok(), good, "{next:?}");
        }
    }

    #[test]
    fn what_is_kept_is_changed_in_place_or_not_at_all() {
        let agreed = plan(&[(Action::Update, "a", &["a run was stopped while making it"]), (Action::Create, "b", &[])]);
        for (next, good) in [
            (plan(&[]), true),
            (plan(&[(Action::Create, "b", &[])]), true),
            (plan(&[(Action::Update, "a", &["tier: x -> y"]), (Action::Create, "b", &[])]), true),
            (plan(&[(Action::Replace, "a", &["region: x -> y"])]), false),
            (plan(&[(Action::Delete, "b", &[])]), false),
            (plan(&[(Action::Update, "c", &[])]), false),
        ] {
            assert_eq!(is_agreed(&agreed, &next).is_ok(), good, "{next:?}");
        }
    }
}
