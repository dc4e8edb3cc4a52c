//! The way to the cluster: credentials that end, and another deploy on it.

use std::time::Duration;

use super::trial::{State, settled};
use crate::load::Shape;
use crate::report::{Answered, Row};
use crate::site::{LONGEST, Site};
use crate::steps;
use crate::user::{self, User};
use crate::world::World;
use crate::{Result, ensure};

/// A token that ends in the middle of a rollout leaves a rollout that nobody watches: the next
/// deploy has to bring it to an end.
pub fn token(world: &World) -> Result<Row> {
    let mut site = world.healthy()?;
    let user = User::new(&site, "short-lived", user::ADMIN)?;
    let probe = site.load(Shape::PROBE)?;
    site.set(|settings| {
        settings.kubeconfig.clone_from(&user.kubeconfig);
        settings.context = user::CONTEXT.into();
        settings.env.insert("ROUND".into(), "token".into());
    })?;
    let mut running = site.start_deploy(&[])?;
    running.wait_for(steps::FOLLOWING, Duration::from_secs(60))?;
    user.revoke()?;
    let ran = site.keep(running.end(LONGEST)?)?.expect(5)?;
    let cause = ran.first(&["error"]).map(|line| line.text.clone());
    ensure!(ran.first(&["hint"]).is_some(), "no hint:\n{}", ran.said());
    // The same change with good credentials: it continues or undoes what was left.
    let admin = world.settings(&site.name);
    site.set(|settings| {
        settings.kubeconfig = admin.kubeconfig;
        settings.context = admin.context;
    })?;
    let next = site.deploy(&["--lock-wait", "90"])?.expect(0)?;
    let probe = probe.stop();
    ensure!(probe.failures.is_empty(), "the server failed to answer: {:?}", probe.failures);
    user.delete()?;
    back_to_the_beginning(&mut site)?;
    world.give_back(site);
    Ok(Row {
        exit: ran.code,
        cause,
        old_server: Some(Answered { requests: probe.requests, failed: 0 }),
        undone: Some(format!("nothing; the next deploy finished it in {:.0} s", next.seconds)),
        ..Row::default()
    })
}

pub fn two_at_once(world: &World) -> Result<Row> {
    let mut site = world.healthy()?;
    site.set(|settings| drop(settings.env.insert("ROUND".into(), "first".into())))?;
    let mut first = site.start_deploy(&[])?;
    first.wait_for(steps::FOLLOWING, Duration::from_secs(60))?;
    let before = State::of(&site)?;
    let second = site.deploy(&[])?.expect(9)?;
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname")?;
    let text = second.text();
    ensure!(text.contains(host.trim()) && second.first(&["hint"]).is_some(), "it does not name the holder:\n{text}");
    State::of(&site)?.unchanged_since(&before)?;
    site.keep(first.end(LONGEST)?)?.expect(0)?;
    back_to_the_beginning(&mut site)?;
    world.give_back(site);
    Ok(Row {
        exit: second.code,
        cause: second.first(&["error"]).map(|line| line.text.clone()),
        undone: Some("nothing was applied; the first deploy ended with 0".into()),
        notes: vec![format!("refused after {:.1} s", second.seconds)],
        ..Row::default()
    })
}

/// The release of a healthy site again.
pub fn back_to_the_beginning(site: &mut Site<'_>) -> Result<()> {
    site.reset()?;
    site.deploy(&[])?.expect(0)?;
    settled(site)
}
