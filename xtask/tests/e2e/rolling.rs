//! Rolling updates under load: no request may fail.

use std::time::Duration;

use crate::load::Shape;
use crate::report::Row;
use crate::scenario::Scenario;
use crate::site::Site;
use crate::world::World;
use crate::{Result, ensure};

/// Changes that are rolled out.
const ROLLOUTS: usize = 5;

/// See the functions.
pub const SCENARIOS: &[Scenario] = &[Scenario {
    name: "rolling-update",
    about: "five rollouts of two replicas while clients read and write through the Service",
    alone: false,
    needs: None,
    run: rolling,
}];

fn rolling(world: &World) -> Result<Row> {
    let mut site = Site::new(world, "rolling")?;
    site.set(|settings| settings.replicas = 2)?;
    site.deploy(&[])?.expect(0)?;
    let other = crate::images::Registry::open(world)?.relabelled("relabelled")?;
    let load = site.load(Shape::BUSY)?;
    let mut notes = Vec::new();
    for round in 1..=ROLLOUTS {
        let before = load.so_far();
        // Every other time it is the image that changes.
        let image = if round % 2 == 0 { &other } else { &world.image };
        site.set(|settings| drop(settings.env.insert("ROUND".into(), round.to_string())))?;
        let ran = site.deploy(&["--image", image])?.expect(0)?;
        let now = load.so_far();
        let failures: Vec<String> = now.failures.iter().map(ToString::to_string).collect();
        ensure!(failures.is_empty(), "rollout {round}:\n{}\n{}", failures.join("\n"), ran.said());
        let requests = now.requests - before.requests;
        ensure!(requests > 100, "the clients have asked only {requests} times");
        notes.push(format!("rollout {round}: {requests} requests, 0 failed, {:.1} s", ran.seconds));
    }
    // The last old pods may still be ending.
    std::thread::sleep(Duration::from_secs(15));
    let count = load.stop();
    ensure!(count.failures.is_empty(), "after the last rollout: {:?}", count.failures);
    ensure!(count.writes > 0 && count.writes < count.requests, "the clients have not read and written: {count:?}");
    notes.push(format!(
        "{} requests in all, {} of them writes, 0 failed; the slowest took {:.1} s",
        count.requests,
        count.writes,
        count.slowest.as_secs_f64()
    ));
    site.close()?;
    Ok(Row { notes, ..Row::default() })
}
