//! One fault: a deploy that has to fail, with what must be seen of it.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use crate::beside::Beside;
use crate::kube::wait_for;
use crate::load::{Load, Shape};
use crate::report::{Answered, Row, tenths};
use crate::run::{Line, Ran, Running};
use crate::site::{ENV, LONGEST, Site};
use crate::watch::{Log, Watch};
use crate::{Result, ensure};

/// How long after the first sign the verdict may come.
#[derive(Clone, Copy, Debug)]
pub enum Within {
    /// There is no sign: what is refused is never applied.
    NoSign,
    /// Seconds.
    Seconds(f64),
    /// It may yet get better: the deadline of the rollout decides.
    Deadline,
}

/// For a cause that nothing can mend.
pub const FATAL: Within = Within::Seconds(10.0);

/// What must be seen of a fault.
pub struct Expected {
    /// The exit code.
    pub exit: i32,
    /// Texts that must be on the screen. The verdict contains the first one.
    pub cause: &'static [&'static str],
    /// What the cluster's first sign contains; nothing for what is refused before it is applied.
    pub sign: &'static [&'static str],
    /// A line of the new pods' logs that is a sign too.
    pub log: Option<&'static str>,
    /// When the verdict must have come.
    pub within: Within,
    /// What becomes of the change.
    pub end: End,
}

/// What becomes of a change that fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The old release is applied again.
    RolledBack,
    /// It was never applied.
    NotApplied,
    /// It stays as it is, to be looked at.
    Kept,
}

/// A deploy under observation.
pub struct Trial<'s, 'w> {
    site: &'s Site<'w>,
    before: State,
    watch: Watch,
    probe: Load,
    beside: Beside,
}

impl<'s, 'w> Trial<'s, 'w> {
    /// Begins to observe a healthy site.
    ///
    /// # Errors
    /// When it is not healthy.
    pub fn begin(site: &'s Site<'w>, log: Option<&'static str>) -> Result<Self> {
        let kube = &site.world.kube;
        Ok(Self {
            site,
            before: State::of(site)?,
            watch: Watch::start(kube, &site.name, log.map(|text| Log { text }))?,
            probe: site.load(Shape::PROBE)?,
            beside: Beside::start(site, site.world.full)?,
        })
    }

    /// Ends the observation after the deploy has ended, and checks all that was to be seen.
    ///
    /// # Errors
    /// When something else was seen.
    pub fn end(self, ran: &Ran, expected: &Expected) -> Result<Row> {
        // What is refused at once is over before the server was asked.
        wait_for("the old server is asked", Duration::from_secs(10), || {
            Ok((self.probe.so_far().requests >= 3).then_some(()))
        })?;
        let (probe, signs) = (self.probe.stop(), self.watch.signs());
        // What is applied ends with `warning release 2 failed: CAUSE`.
        let is_verdict = |line: &&Line| expected.end == End::NotApplied || line.text.contains(" failed: ");
        let mut named = ran.all(expected.cause[0]);
        let verdict = named.clone().find(is_verdict).cloned();
        let sign = signs.iter().find(|sign| expected.sign.iter().any(|part| sign.what.contains(part)));
        let mut row = Row {
            exit: ran.code,
            cause: verdict.as_ref().map(|line| line.text.trim_start_matches("warning ").to_owned()),
            sign: sign.map(|sign| sign.what.clone()),
            old_server: Some(Answered { requests: probe.requests, failed: probe.failures.len() }),
            kubectl: self.beside.end(verdict.as_ref().map(|line| line.at)),
            ..Row::default()
        };
        let seen: Vec<String> = signs.iter().map(|sign| format!("{} {}", sign.at, sign.what)).collect();
        let context = || format!("{}{}\nsigns:\n{}", ran.said(), ran.out, seen.join("\n"));
        ensure!(ran.code == Some(expected.exit), "exit {:?} instead of {}:\n{}", ran.code, expected.exit, context());
        let text = ran.text().to_lowercase();
        for part in expected.cause {
            ensure!(text.contains(&part.to_lowercase()), "nothing on the screen says {part:?}:\n{}", context());
        }
        let verdict = verdict.ok_or_else(|| format!("stderr does not name the cause:\n{}", context()))?;
        if !expected.sign.is_empty() {
            let sign = sign.ok_or_else(|| format!("the cluster gave no sign {:?}:\n{}", expected.sign, context()))?;
            let seconds = tenths(verdict.at.since(sign.at));
            row.seconds_after_sign = Some(seconds);
            row.named_after_sign = named.next().map(|line| tenths(line.at.since(sign.at)));
            let most = match expected.within {
                Within::NoSign => 0.0,
                Within::Seconds(seconds) => seconds,
                // The sign comes after the deadline's beginning.
                Within::Deadline => self.site.settings.deadline as f64 + 2.0,
            };
            ensure!(seconds <= most, "{seconds} s after the first sign instead of {most}:\n{}", context());
        }
        let failures: Vec<String> = probe.failures.iter().map(ToString::to_string).collect();
        ensure!(failures.is_empty(), "the old server failed to answer:\n{}\n{}", failures.join("\n"), context());
        let after = State::of(self.site)?;
        row.undone = Some(match expected.end {
            End::NotApplied => after.unchanged_since(&self.before)?,
            End::RolledBack => after.back_to(&self.before)?,
            End::Kept => "nothing, as was asked for".to_owned(),
        });
        Ok(row)
    }
}

/// Deploys to a site that something was done to, and checks what comes of it.
///
/// # Errors
/// When something else was seen than expected.
pub fn trial(site: &Site<'_>, expected: &Expected, args: &[&str]) -> Result<Row> {
    trial_with(site, expected, args, |_| Ok(()))
}

/// The same, with something done while the deploy runs.
///
/// # Errors
/// When something else was seen than expected.
pub fn trial_with(
    site: &Site<'_>,
    expected: &Expected,
    args: &[&str],
    meanwhile: impl FnOnce(&mut Running) -> Result<()>,
) -> Result<Row> {
    let trial = Trial::begin(site, expected.log)?;
    // A rollback would be kubectl's success.
    let stays = site.world.full && expected.end == End::RolledBack;
    let args = [args, if stays { &["--no-rollback"] } else { &[] }].concat();
    let mut running = site.start_deploy(&args)?;
    meanwhile(&mut running)?;
    let ran = site.keep(running.end(LONGEST)?)?;
    match stays {
        true => trial.end(&ran, &Expected { exit: 11, end: End::Kept, ..*expected }),
        false => trial.end(&ran, expected),
    }
}

/// The fault is gone: what is there is what was applied last, and nothing says otherwise.
///
/// # Errors
/// When `status` sees it differently.
pub fn settled(site: &mut Site<'_>) -> Result<()> {
    site.reset()?;
    if site.world.full {
        // What was kept is undone by the next deploy.
        site.deploy(&[])?.expect(0)?;
    }
    site.xtask(&["status", "--env", ENV, "--exit-code"])?.expect(0).map(drop)
}

/// What a namespace holds, as far as a deploy may change it.
pub struct State {
    objects: BTreeMap<String, String>,
    deployment: Option<Value>,
}

/// Kinds that a deploy applies or keeps records in.
const KINDS: [(&str, &str); 8] = [
    ("v1", "configmaps"),
    ("v1", "secrets"),
    ("v1", "serviceaccounts"),
    ("v1", "services"),
    ("apps/v1", "deployments"),
    ("policy/v1", "poddisruptionbudgets"),
    ("networking.k8s.io/v1", "networkpolicies"),
    ("autoscaling/v2", "horizontalpodautoscalers"),
];

impl State {
    /// What is there now.
    ///
    /// # Errors
    /// When the API server does not answer.
    pub fn of(site: &Site<'_>) -> Result<Self> {
        let mut objects = BTreeMap::new();
        for (group, plural) in KINDS {
            for object in site.world.kube.list(&site.path(group, plural))? {
                let name = object["metadata"]["name"].as_str().unwrap_or_default();
                // What has a generation has a status too, which changes by itself.
                let metadata = &object["metadata"];
                let version = metadata.get("generation").unwrap_or(&metadata["resourceVersion"]);
                objects.insert(format!("{plural}/{name}"), version.to_string());
            }
        }
        Ok(Self { objects, deployment: site.deployment()? })
    }

    /// Checks that nothing was applied since.
    ///
    /// # Errors
    /// When something was.
    pub fn unchanged_since(&self, before: &Self) -> Result<String> {
        let changed: Vec<&String> = self
            .objects
            .iter()
            .filter(|(name, version)| before.objects.get(*name) != Some(*version))
            .map(|(name, _)| name)
            .chain(before.objects.keys().filter(|name| !self.objects.contains_key(*name)))
            .collect();
        ensure!(changed.is_empty(), "something was applied: {changed:?}");
        Ok("nothing was applied".to_owned())
    }

    /// Checks that the Deployment is as before, and that all its pods are available.
    ///
    /// # Errors
    /// When it is not.
    pub fn back_to(&self, before: &Self) -> Result<String> {
        let (Some(now), Some(then)) = (&self.deployment, &before.deployment) else {
            return Err("there is no Deployment".into());
        };
        ensure!(now["metadata"]["uid"] == then["metadata"]["uid"], "it is another Deployment");
        ensure!(
            now["metadata"]["generation"] != then["metadata"]["generation"],
            "nothing was applied, so nothing can have been undone"
        );
        let (template, old) = (&now["spec"]["template"], &then["spec"]["template"]);
        ensure!(template == old, "the template is not the old one:\n{template:#}\n{old:#}");
        let (spec, status) = (&now["spec"], &now["status"]);
        for count in ["replicas", "updatedReplicas", "availableReplicas"] {
            ensure!(status[count] == spec["replicas"], "{count} is {} of {}", status[count], spec["replicas"]);
        }
        Ok(format!("rolled back, {} of {} available", status["availableReplicas"], spec["replicas"]))
    }
}
