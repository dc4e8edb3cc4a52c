//! xtask ends in the middle of its work: the next deploy takes over, and ends in one of two states.

use std::time::Duration;

use nix::sys::signal::Signal;

use super::connection::back_to_the_beginning;
use super::trial::{State, settled};
use crate::images::{EXITS, Registry};
use crate::load::Shape;
use crate::report::{Answered, Row};
use crate::run::Ran;
use crate::site::{LONGEST, Site};
use crate::world::World;
use crate::{Result, ensure, steps};

/// A lock that nobody renews is taken over after its expiry; longer than that.
const LOCK_WAIT: &str = "120";

pub fn locked(world: &World) -> Result<Row> {
    killed(world, steps::LOCKED)
}

pub fn applied(world: &World) -> Result<Row> {
    killed(world, steps::APPLYING)
}

pub fn rollout(world: &World) -> Result<Row> {
    killed(world, steps::FOLLOWING)
}

pub fn soak(world: &World) -> Result<Row> {
    killed(world, steps::SOAKING)
}

pub fn smoke(world: &World) -> Result<Row> {
    killed(world, steps::SMOKING)
}

/// Kills a good deploy at a step. The next one of the same finishes it.
fn killed(world: &World, step: &str) -> Result<Row> {
    let mut site = world.healthy()?;
    let probe = site.load(Shape::PROBE)?;
    site.set(|settings| drop(settings.env.insert("ROUND".into(), step.into())))?;
    let ended = end_at(&site, step, &[], Signal::SIGKILL)?;
    ensure!(ended.code.is_none(), "it was not killed: {:?}", ended.code);
    let next = site.deploy(&["--lock-wait", LOCK_WAIT])?.expect(0)?;
    let probe = probe.stop();
    ensure!(probe.failures.is_empty(), "the server failed to answer: {:?}", probe.failures);
    let round = runs_with(&site, "ROUND")?;
    ensure!(round.as_deref() == Some(step), "the next deploy's change is not live: {round:?}");
    back_to_the_beginning(&mut site)?;
    world.give_back(site);
    Ok(Row {
        exit: next.code,
        cause: Some(format!("killed at {:?}", last(&ended))),
        old_server: Some(Answered { requests: probe.requests, failed: 0 }),
        undone: Some(format!("the next deploy took over and finished in {:.0} s", next.seconds)),
        ..Row::default()
    })
}

/// Kills a deploy whose rollout cannot succeed. The next one, of the good release, undoes it.
pub fn bad_rollout(world: &World) -> Result<Row> {
    let image = Registry::open(world)?.python("exits", EXITS)?;
    let mut site = world.healthy()?;
    let probe = site.load(Shape::PROBE)?;
    let before = State::of(&site)?;
    let ended = end_at(&site, steps::FOLLOWING, &["--image", &image], Signal::SIGKILL)?;
    let next = site.deploy(&["--lock-wait", LOCK_WAIT])?.expect(0)?;
    let probe = probe.stop();
    ensure!(probe.failures.is_empty(), "the old server failed to answer: {:?}", probe.failures);
    let undone = State::of(&site)?.back_to(&before)?;
    settled(&mut site)?;
    world.give_back(site);
    Ok(Row {
        exit: next.code,
        cause: Some(format!("killed at {:?}", last(&ended))),
        old_server: Some(Answered { requests: probe.requests, failed: 0 }),
        undone: Some(format!("{undone}, by the next deploy")),
        ..Row::default()
    })
}

/// Ctrl-C leaves a state that has a name; the next deploy goes on at once, for the lock is given back.
pub fn ctrl_c(world: &World) -> Result<Row> {
    let mut site = world.healthy()?;
    let probe = site.load(Shape::PROBE)?;
    site.set(|settings| drop(settings.env.insert("ROUND".into(), "ctrl-c".into())))?;
    let ended = end_at(&site, steps::FOLLOWING, &[], Signal::SIGINT)?.expect(130)?;
    let cause = ended.first(&["interrupted"]).map(|line| line.text.clone());
    ensure!(cause.is_some() && ended.first(&["hint"]).is_some(), "no word about the state:\n{}", ended.said());
    let status = site.xtask(&["status", "--env", crate::site::ENV])?;
    let text = status.text().to_lowercase();
    ensure!(text.contains("pending") || text.contains("interrupted"), "status does not name the state:\n{text}");
    let next = site.deploy(&[])?.expect(0)?;
    let probe = probe.stop();
    ensure!(probe.failures.is_empty(), "the server failed to answer: {:?}", probe.failures);
    back_to_the_beginning(&mut site)?;
    world.give_back(site);
    Ok(Row {
        exit: ended.code,
        cause,
        old_server: Some(Answered { requests: probe.requests, failed: 0 }),
        undone: Some(format!("nothing; the next deploy continued and finished in {:.0} s", next.seconds)),
        ..Row::default()
    })
}

/// Starts a deploy and sends it a signal when it prints a step.
fn end_at(site: &Site<'_>, step: &str, args: &[&str], signal: Signal) -> Result<Ran> {
    let mut running = site.start_deploy(args)?;
    running.wait_for(step, Duration::from_secs(120))?;
    running.signal(signal)?;
    site.keep(running.end(LONGEST)?)
}

/// The last line of a command.
fn last(ran: &Ran) -> &str {
    ran.lines.last().map(|line| line.text.as_str()).unwrap_or_default()
}

/// A variable of the running server's configuration.
fn runs_with(site: &Site<'_>, variable: &str) -> Result<Option<String>> {
    let deployment = site.deployment()?.ok_or("there is no Deployment")?;
    let from = &deployment["spec"]["template"]["spec"]["containers"][0]["envFrom"][0]["configMapRef"]["name"];
    let name = from.as_str().ok_or("a container without a ConfigMap")?;
    let map = site.world.kube.get(&site.path("v1", &format!("configmaps/{name}")))?;
    Ok(map["data"][variable].as_str().map(str::to_owned))
}
