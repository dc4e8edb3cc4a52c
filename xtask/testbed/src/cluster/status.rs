//! What runs of a testbed, and stopping and starting parts of it for tests of faults.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;

use super::control::{self, ComponentStatus, How, Request};
use super::error::{Context as _, Error, Kind, Result};
use super::node::{SPEC, Spec};
use super::options::Options;
use super::ready::Asker;
use super::state::{self, Testbed};
use super::{kind, up};

/// A component, seen from both sides.
#[derive(Clone, Debug, Serialize)]
pub struct Health {
    /// What process 1 of the node says.
    #[serde(flatten)]
    pub process: ComponentStatus,
    /// Why it does not answer the question that shows that it works; `None` if it does.
    pub complaint: Option<String>,
}

/// A running testbed.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    /// Its record.
    pub testbed: Testbed,
    /// Its components, in the order in which they were started.
    pub components: Vec<Health>,
    /// Memory of all its processes in bytes, shared pages counted once (PSS).
    pub memory: u64,
}

/// What runs; `None` where nothing does.
pub async fn status(options: &Options) -> Result<Option<Status>> {
    let Some(testbed) = up::running(options) else {
        let with_kind = kind::running(options).await;
        return Ok(with_kind.map(|testbed| Status { testbed, components: Vec::new(), memory: 0 }));
    };
    let (spec, asker) = open(options).await?;
    let processes = control::status(&options.root).await?;
    let mut components = Vec::new();
    for component in &spec.components {
        let Some(process) = processes.iter().find(|status| status.name == component.name) else { continue };
        let complaint = asker.ask(&component.probe).await.err();
        components.push(Health { process: process.clone(), complaint });
    }
    let memory = testbed.pids.get(1).map_or(0, |pid| memory(*pid));
    Ok(Some(Status { testbed, components, memory }))
}

/// Stops a component; returns when it is gone. It stays so until [`start`].
pub async fn stop(options: &Options, component: &str, how: How) -> Result<()> {
    if kind::running(options).await.is_some() {
        return kind::control(component, if how == How::Kill { "kill" } else { "stop" }).await;
    }
    require_up(options)?;
    control::tell(&options.root, &Request::Stop(component.to_owned(), how)).await
}

/// Starts a component; returns when it works.
pub async fn start(options: &Options, component: &str, patience: Duration) -> Result<()> {
    if kind::running(options).await.is_some() {
        return kind::control(component, "start").await;
    }
    require_up(options)?;
    control::tell(&options.root, &Request::Start(component.to_owned())).await?;
    let (spec, asker) = open(options).await?;
    let found = spec.components.iter().find(|spec| spec.name == component);
    let found = found.ok_or(component).on_machine(|| "the testbed's record has no such component")?;
    asker.wait(options, found, patience).await
}

fn require_up(options: &Options) -> Result<()> {
    match up::running(options) {
        Some(_) => Ok(()),
        None => Err(Error::new(Kind::Usage, "no testbed is up").hint("run `cargo xtask testbed up`")),
    }
}

async fn open(options: &Options) -> Result<(Spec, Asker)> {
    let path = options.path(SPEC);
    let text = std::fs::read(&path).on_machine(|| format!("cannot read {}", path.display()))?;
    let spec = serde_json::from_slice(&text).on_machine(|| format!("{} is damaged", path.display()))?;
    Ok((spec, Asker::new(options, &options.path("out").join(state::KUBECONFIG)).await?))
}

/// Of all processes in the pid namespace of process `pid`.
fn memory(pid: i32) -> u64 {
    let namespace = |dir: &Path| std::fs::read_link(dir.join("ns/pid")).ok();
    let Some(ours) = namespace(&PathBuf::from(format!("/proc/{pid}"))) else { return 0 };
    let Ok(entries) = std::fs::read_dir("/proc") else { return 0 };
    let own = entries.flatten().map(|entry| entry.path()).filter(|dir| namespace(dir).as_ref() == Some(&ours));
    own.filter_map(|dir| std::fs::read_to_string(dir.join("smaps_rollup")).ok()).map(|text| pss(&text)).sum()
}

fn pss(text: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"));
    line.and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<u64>().ok()).unwrap_or(0) * 1024
}

#[cfg(test)]
mod tests {
    #[test]
    fn pss_is_read_in_bytes() {
        assert_eq!(super::pss("00400000-7ffd [rollup]\nRss:  900 kB\nPss:       500 kB\nPss_Anon: 1 kB\n"), 512_000);
        assert_eq!(super::pss(""), 0);
    }
}
