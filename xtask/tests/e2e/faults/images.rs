//! Images that are missing or do not work.

use nix::sys::signal::Signal;

use super::trial::{End, Expected, FATAL, Within, settled, trial, trial_with};
use crate::Result;
use crate::images::{EATS_MEMORY, EXITS, NEVER_READY, Registry};
use crate::report::Row;
use crate::steps;
use crate::world::World;

pub fn no_such_tag(world: &World) -> Result<Row> {
    let mut site = world.healthy()?;
    let expected = Expected {
        exit: 17,
        cause: &["no-such-tag", "hint"],
        sign: &[],
        log: None,
        within: Within::NoSign,
        end: End::NotApplied,
    };
    let row = trial(&site, &expected, &["--image", &format!("{}:no-such-tag", world.repository)])?;
    settled(&mut site)?;
    world.give_back(site);
    Ok(row)
}

pub fn lost_layer(world: &World) -> Result<Row> {
    let image = Registry::open(world)?.with_a_lost_layer("lost-layer")?;
    let expected = Expected {
        exit: 10,
        cause: &["the registry does not have the image"],
        sign: &["ErrImagePull", "Failed to pull"],
        log: None,
        within: FATAL,
        end: End::RolledBack,
    };
    of_image(world, &expected, &image)
}

pub fn exits(world: &World) -> Result<Row> {
    let image = Registry::open(world)?.python("exits", EXITS)?;
    let expected = Expected {
        exit: 10,
        cause: &["it exits again and again", "exit code 3", "FATAL: the settings cannot be read"],
        sign: &["exit code 3"],
        log: None,
        // The second restart comes ten seconds after the first.
        within: Within::Seconds(40.0),
        end: End::RolledBack,
    };
    of_image(world, &expected, &image)
}

pub fn out_of_memory(world: &World) -> Result<Row> {
    let image = Registry::open(world)?.python("eats-memory", EATS_MEMORY)?;
    let expected = Expected {
        exit: 10,
        cause: &["it needs more memory than its limit"],
        sign: &["OOMKilled"],
        log: None,
        within: Within::Seconds(40.0),
        end: End::RolledBack,
    };
    of_image(world, &expected, &image)
}

pub fn never_ready(world: &World) -> Result<Row> {
    let image = Registry::open(world)?.python("never-ready", NEVER_READY)?;
    let mut site = world.healthy()?;
    site.deadline(25)?;
    let expected = Expected {
        exit: 10,
        cause: &["its probe gets no good answer", "503", "waiting for a lock that nobody gives back"],
        sign: &["Readiness probe failed"],
        log: None,
        within: Within::Deadline,
        end: End::RolledBack,
    };
    let row = trial(&site, &expected, &["--image", &image])?;
    settled(&mut site)?;
    world.give_back(site);
    Ok(row)
}

/// The registry does not answer when the image is asked for: nothing is applied.
pub fn registry_down(world: &World) -> Result<Row> {
    let mut site = world.healthy()?;
    let expected = Expected {
        exit: 6,
        cause: &["127.0.0.1:1", "hint"],
        sign: &[],
        log: None,
        within: Within::NoSign,
        end: End::NotApplied,
    };
    let row = trial(&site, &expected, &["--image", "127.0.0.1:1/mlflow/server:latest"])?;
    settled(&mut site)?;
    world.give_back(site);
    Ok(row)
}

/// The registry has the image and goes away before the node has pulled it. It is the one with a
/// login, which no other scenario needs at this time.
pub fn registry_gone(world: &World) -> Result<Row> {
    let _alone = world.login_registry.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let registry = Registry::with_login(world)?;
    let image = registry.copy_of_the_real("gone")?;
    let mut site = world.healthy()?;
    registry.lend_login(&site)?;
    let mut stopped = None;
    let expected = Expected {
        exit: 10,
        cause: &["the image cannot be pulled"],
        sign: &["ErrImagePull", "Failed to pull"],
        log: None,
        within: Within::Deadline,
        end: End::RolledBack,
    };
    site.deadline(40)?;
    let row = trial_with(&site, &expected, &["--image", &image], |running| {
        // The image was asked for; the time until it is applied must be enough to stop the registry.
        running.wait_for(steps::APPLYING, std::time::Duration::from_secs(60))?;
        running.signal(Signal::SIGSTOP)?;
        stopped = Some(world.place.stop("login-registry")?);
        running.signal(Signal::SIGCONT)
    })?;
    if let Some(stopped) = stopped {
        stopped.start()?;
    }
    settled(&mut site)?;
    world.give_back(site);
    Ok(row)
}

fn of_image(world: &World, expected: &Expected, image: &str) -> Result<Row> {
    let mut site = world.healthy()?;
    let row = trial(&site, expected, &["--image", image])?;
    settled(&mut site)?;
    world.give_back(site);
    Ok(row)
}
