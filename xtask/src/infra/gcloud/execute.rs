//! Takes the steps of a plan. Each can be taken again: what is there already is looked at, what another
//! run has begun is waited for.

use std::time::{Duration, Instant};

use crate::commands::Run;
use crate::config::infra::InfraConfig;
use crate::error::{Error, Kind, Result};
use crate::gcloud::{Complaint, Gcloud, Trouble};
use crate::infra::deadline::{operation_deadline, unended};
use crate::registry::Secret;

use super::calls;
use super::database_role;
use super::observe::{look, pause, project};
use super::observed::State;
use super::resources::{Member, Resource};
use super::steps::Step;

/// Between two questions about an instance or a cluster that is being made.
const BETWEEN: Duration = Duration::from_secs(8);

/// How often it is said that something big is still being made.
const STILL: Duration = Duration::from_secs(60);

/// How patient a step is with trouble that passes.
#[derive(Clone, Copy, Debug)]
struct Patience {
    /// The wait before the second attempt; doubled for each further one.
    first: Duration,
    /// The longest wait.
    longest: Duration,
    /// After so long it is given up.
    deadline: Duration,
}

impl Patience {
    /// By the trouble; `None` for what does not pass.
    fn with(trouble: Trouble) -> Option<Self> {
        let seconds = Duration::from_secs;
        match trouble {
            // A new account is known everywhere within a minute, most often.
            Trouble::TooEarly => Some(Self { first: seconds(2), longest: seconds(15), deadline: seconds(150) }),
            Trouble::Passing => Some(Self { first: seconds(1), longest: seconds(20), deadline: seconds(120) }),
            Trouble::Busy => Some(Self { first: seconds(2), longest: seconds(30), deadline: seconds(900) }),
            // An API that was just enabled says so for some minutes.
            Trouble::Disabled => Some(Self { first: seconds(5), longest: seconds(20), deadline: seconds(180) }),
            Trouble::Absent | Trouble::Exists | Trouble::Hangs | Trouble::Fatal => None,
        }
    }

    /// The wait after so many attempts and so long a time; `None` to give up.
    fn wait(self, attempts: u32, elapsed: Duration) -> Option<Duration> {
        let wait = self.first.saturating_mul(1 << attempts.saturating_sub(1).min(10)).min(self.longest);
        (elapsed + wait <= self.deadline).then_some(wait)
    }
}

/// What a step does about a call that failed.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    /// It is what was to be reached.
    Done,
    /// Look how the resource is now.
    Look,
    /// Try again, if patience allows.
    Again,
    /// Give up.
    Fail,
}

/// What a step does about trouble. Pure.
fn answer(step: &Step, trouble: Trouble) -> Answer {
    let deletes = matches!(step, Step::Delete(_) | Step::Unprotect(_));
    match trouble {
        Trouble::Absent | Trouble::TooEarly if deletes => Answer::Done,
        // Something that it needs is not known everywhere yet.
        Trouble::Absent if matches!(step, Step::Create(_)) => Answer::Again,
        Trouble::Exists if deletes => Answer::Fail,
        Trouble::Exists => Answer::Look,
        // An answer that was lost may have been a good one.
        Trouble::Passing if step.resource().is_some() => Answer::Look,
        Trouble::Hangs if step.resource().is_some() => Answer::Look,
        Trouble::Passing | Trouble::TooEarly | Trouble::Busy | Trouble::Disabled => Answer::Again,
        Trouble::Absent | Trouble::Hangs | Trouble::Fatal => Answer::Fail,
    }
}

/// Takes the steps in their order. `password` is for a database user that logs in with one.
///
/// # Errors
/// Of the kind of what is wrong; the same steps can be taken again.
pub async fn execute(run: &Run, infra: &InfraConfig, steps: &[Step], password: Option<&Secret>) -> Result<()> {
    if steps.is_empty() {
        return Ok(());
    }
    let gcloud = Gcloud::find(run, &infra.project)?;
    let number = project(run, &gcloud, infra).await?.number;
    let mut work = Work { run, gcloud, infra, number, password, big: operation_deadline()? };
    for (index, step) in steps.iter().enumerate() {
        if run.cancel.is_cancelled() {
            return Err(Run::interrupted());
        }
        let (verb, what) = step.title(infra);
        run.ui.step(verb, format!("{what} (step {} of {})", index + 1, steps.len()));
        let begun = Instant::now();
        work.take(step).await?;
        let seconds = begun.elapsed().as_secs();
        if seconds >= 30 {
            run.ui.step("Done", format!("{what} after {seconds} s"));
        }
    }
    Ok(())
}

/// Gives the database user another password.
pub async fn set_password(run: &Run, infra: &InfraConfig, password: &Secret) -> Result<()> {
    let gcloud = Gcloud::find(run, &infra.project)?;
    let begun = Instant::now();
    let mut attempts = 0;
    loop {
        let Err(complaint) = gcloud.tell(&calls::set_password(infra), password, Duration::from_secs(600)).await else {
            return Ok(());
        };
        attempts += 1;
        let patience = Patience::with(complaint.trouble);
        match patience.and_then(|patience| patience.wait(attempts, begun.elapsed())) {
            Some(wait) => pause(run, wait).await?,
            None => return Err(complaint.error),
        }
    }
}

struct Work<'a> {
    run: &'a Run,
    gcloud: Gcloud,
    infra: &'a InfraConfig,
    number: String,
    password: Option<&'a Secret>,
    big: Duration,
}

impl Work<'_> {
    async fn take(&mut self, step: &Step) -> Result<()> {
        if let Step::Await(resource) = step {
            return self.settled(resource, Instant::now()).await.map(|_| ());
        }
        if *step == Step::Finish(Resource::User) {
            return database_role::grant(self.run, self.infra).await;
        }
        if matches!(step.resource(), Some(Resource::Binding(binding)) if matches!(binding.member, Member::Workflows | Member::Approved))
        {
            self.know_the_number().await?;
        }
        let (begun, mut attempts) = (Instant::now(), 0);
        let mut failing = None;
        loop {
            let Err(complaint) = self.call(step).await else { return Ok(()) };
            attempts += 1;
            let failing = *failing.get_or_insert_with(Instant::now);
            let verdict = answer(step, complaint.trouble);
            match (&verdict, step.resource()) {
                (Answer::Done, _) => return Ok(()),
                (Answer::Fail, _) => return Err(self.failed(step, complaint)),
                (Answer::Look, Some(resource)) => {
                    if *resource == Resource::Bucket {
                        // By which it is known whose it is; before the first API was enabled, it was not.
                        self.know_the_number().await?;
                    }
                    match self.is_reached(step, resource, begun).await {
                        Ok(true) => return Ok(()),
                        Ok(false) => {}
                        // It is somebody else's, and not to be seen.
                        Err(error) if error.kind() == Kind::Forbidden => return Err(self.failed(step, complaint)),
                        Err(error) => return Err(error),
                    }
                }
                _ => {}
            }
            let patience = Patience::with(complaint.trouble).or_else(|| match complaint.trouble {
                Trouble::Absent => Patience::with(Trouble::TooEarly),
                _ => None,
            });
            match patience.and_then(|patience| patience.wait(attempts, failing.elapsed())) {
                Some(wait) => pause(self.run, wait).await?,
                None => return Err(self.failed(step, complaint)),
            }
        }
    }

    /// Runs the step's call, and says from time to time that it is still running.
    async fn call(&self, step: &Step) -> Result<(), Complaint> {
        let call = step.call(self.infra, &self.number);
        let deadline = step.deadline(self.big);
        let asked = async {
            match self.password.filter(|_| call.has_secret()) {
                Some(password) => self.gcloud.tell(&call, password, deadline).await,
                None => self.gcloud.ask(&call, deadline).await,
            }
        };
        tokio::pin!(asked);
        let begun = Instant::now();
        loop {
            tokio::select! {
                answer = &mut asked => return answer.map(|_| ()),
                () = tokio::time::sleep(STILL) => {
                    let (verb, what) = step.title(self.infra);
                    self.run.ui.step(verb, format!("{what}, for {} s", begun.elapsed().as_secs()));
                }
            }
        }
    }

    /// Whether the resource is as the step would make it, though its call failed. Waits for what is
    /// under way.
    async fn is_reached(&self, step: &Step, resource: &Resource, begun: Instant) -> Result<bool> {
        let state = self.settled(resource, begun).await?;
        match (step, state) {
            (Step::Delete(_), state) => Ok(!state.is_there()),
            (Step::Finish(_) | Step::Unprotect(_), _) => Ok(false),
            (_, State::AsWanted | State::Unfinished) => Ok(true),
            (Step::Create(_), State::Deleted) => {
                let undelete = Step::Undelete(resource.clone());
                self.call(&undelete).await.map_err(|complaint| self.failed(&undelete, complaint))?;
                Ok(true)
            }
            (_, State::Drift(differences) | State::Broken(differences)) => {
                let message = format!("{} exists with other settings", resource.title(self.infra));
                Err(Error::new(Kind::Conflict, message)
                    .source(differences.join("; "))
                    .hint("give it the settings of deploy.toml, or deploy.toml those it has"))
            }
            _ => Ok(false),
        }
    }

    /// How the resource is once nothing is being done to it.
    async fn settled(&self, resource: &Resource, begun: Instant) -> Result<State> {
        let mut said = Instant::now();
        loop {
            let observed = look(self.run, &self.gcloud, self.infra, &self.number, resource).await?;
            let state = observed.state(self.infra, resource);
            if !matches!(state, State::Coming | State::Going) {
                return Ok(state);
            }
            let title = resource.title(self.infra);
            if begun.elapsed() + BETWEEN > self.big {
                return Err(unended(&title, self.big));
            }
            if said.elapsed() >= STILL {
                said = Instant::now();
                self.run.ui.step("Awaiting", format!("{title}, for {} s", begun.elapsed().as_secs()));
            }
            pause(self.run, BETWEEN.min(self.big)).await?;
        }
    }

    fn failed(&self, step: &Step, complaint: Complaint) -> Error {
        let title = step.title(self.infra).1;
        if complaint.trouble == Trouble::Hangs {
            return unended(&title, self.big).source(complaint.error);
        }
        let (kind, hint) = (complaint.error.kind(), complaint.error.hint_text().map(str::to_owned));
        if kind == Kind::Interrupted {
            return complaint.error;
        }
        let doing = match step {
            Step::Enable(_) => "cannot enable",
            Step::Delete(_) | Step::Unprotect(_) => "cannot delete",
            _ => "cannot make",
        };
        let error = Error::new(kind, format!("{doing} {title}")).source(complaint.error);
        match hint {
            Some(hint) => error.hint(hint),
            None => error,
        }
    }

    async fn know_the_number(&mut self) -> Result<()> {
        if self.number.is_empty() {
            self.number = project(self.run, &self.gcloud, self.infra).await?.number;
        }
        match self.number.is_empty() {
            false => Ok(()),
            true => Err(Error::new(Kind::Remote, format!("the number of project {} is not known", self.infra.project))
                .hint("enable cloudresourcemanager.googleapis.com, then run the same command again")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::infra::gcloud::resources::Account;

    #[test]
    fn what_failed_is_done_looked_at_tried_again_or_given_up() {
        let resource = || Resource::Account(Account::Server);
        let (create, delete) = (Step::Create(resource()), Step::Delete(resource()));
        let enable = Step::Enable(Vec::new());
        for (step, trouble, expected) in [
            (&create, Trouble::Exists, Answer::Look),
            (&create, Trouble::TooEarly, Answer::Again),
            (&create, Trouble::Absent, Answer::Again),
            (&create, Trouble::Passing, Answer::Look),
            (&create, Trouble::Hangs, Answer::Look),
            (&create, Trouble::Busy, Answer::Again),
            (&create, Trouble::Fatal, Answer::Fail),
            (&delete, Trouble::Absent, Answer::Done),
            (&delete, Trouble::TooEarly, Answer::Done),
            (&delete, Trouble::Busy, Answer::Again),
            (&delete, Trouble::Passing, Answer::Look),
            (&delete, Trouble::Exists, Answer::Fail),
            (&enable, Trouble::Passing, Answer::Again),
            (&enable, Trouble::Hangs, Answer::Fail),
            (&enable, Trouble::Disabled, Answer::Again),
        ] {
            assert_eq!(answer(step, trouble), expected, "{step:?} {trouble:?}");
        }
    }

    #[test]
    fn patience_doubles_and_ends() {
        let seconds = Duration::from_secs;
        for (trouble, attempts, elapsed, expected) in [
            (Trouble::TooEarly, 1, 0, Some(2)),
            (Trouble::TooEarly, 3, 10, Some(8)),
            (Trouble::TooEarly, 9, 100, Some(15)),
            (Trouble::TooEarly, 9, 140, None),
            (Trouble::Passing, 1, 0, Some(1)),
            (Trouble::Busy, 20, 800, Some(30)),
            (Trouble::Fatal, 1, 0, None),
        ] {
            let wait = Patience::with(trouble).and_then(|patience| patience.wait(attempts, seconds(elapsed)));
            assert_eq!(wait, expected.map(seconds), "{trouble:?} {attempts} {elapsed}");
        }
    }
}
