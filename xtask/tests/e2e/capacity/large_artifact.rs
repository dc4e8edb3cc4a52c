//! An artifact that is larger than a pod's memory, up and down through the server: whole, and with little
//! memory. The testbed's usual store keeps an upload in memory and hashes all of it again with each chunk, which
//! is hours for this; so the store is the fake Google's, which holds it once.

use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use mlflow_image::{Digest, HashWriter};
use nix::sys::statvfs::statvfs;
use reqwest::header::CONTENT_LENGTH;
use serde_json::{Value, json};
use testbed::google::{self, Google, OWNER_TOKEN, Options, Project};

use super::noise::Noise;
use super::pods;
use super::usage::{Usage, Watch};
use crate::api::Api;
use crate::report::{Row, tenths};
use crate::scenario;
use crate::site::Site;
use crate::world::World;
use crate::{Result, ensure};

const MIB: u64 = 1 << 20;

/// The artifact's size.
const SMALL: u64 = 512 * MIB;
const LARGE: u64 = 5 << 30;

/// How much more memory the server may take than at rest. An upload holds two chunks of 8 MiB.
const GROWTH: u64 = 256 * MIB;

/// Room beside the artifact in a pod's temporary folder; the server gives away all but half of it.
const BESIDE: u64 = 128 * MIB;

/// How much of its temporary folder the server may use for what it does not keep there.
const LITTLE: u64 = 16 * MIB;

/// What else runs takes so much of this machine's memory, and so much of its disk.
const OTHERS: u64 = 4 << 30;

/// The slowest that the whole may be, in bytes a second, and a time for the rest.
const PACE: u64 = 8 * MIB;
const REST: Duration = Duration::from_secs(60);

/// How long the pod is looked at while it does nothing.
const IDLE: Duration = Duration::from_secs(5);

/// The artifact's path.
const ARTIFACT: &str = "large/model.bin";

pub fn large_artifact(world: &World) -> Result<Row> {
    let size = if world.full { LARGE } else { SMALL };
    if let Some(why) = lacks(&world.place.out, size)? {
        ensure!(std::env::var_os("CI").is_none(), "{why}");
        scenario::skip("large-artifact", &why);
        return Ok(Row { cause: Some(why), ..Row::default() });
    }
    let store = store(world)?;
    let mut site = Site::new(world, "large")?;
    site.set(|settings| {
        settings.scratch = format!("{}Mi", (size + BESIDE) / MIB);
        settings.env.insert("STORAGE_EMULATOR_HOST".to_owned(), store.url());
    })?;
    site.deploy(&[])?.expect(0)?;
    let (before, name) = pods::server(&site)?;
    let digest = Digest::of_reader(Noise::new(size))?;

    let mut watch = Watch::start(&site, &name)?;
    std::thread::sleep(IDLE);
    let idle = watch.take()?;
    let url = Api::of(&site)?.artifact_url(ARTIFACT);
    let deadline = REST + Duration::from_secs(size / PACE);
    let up = timed(world, deadline, "the upload", upload(&url, size))?;
    let while_up = watch.take()?;
    let kept = object(&store, &world.place.bucket, &site.name)?;
    let length = kept["size"].as_str().and_then(|size| size.parse().ok());
    ensure!(length == Some(size), "the store has {kept}");
    let down = timed(world, deadline, "the download", download(&url, size, digest))?;
    let while_down = watch.take()?;

    let (after, _) = pods::server(&site)?;
    ensure!(after["metadata"]["uid"] == before["metadata"]["uid"], "the pod was replaced: {}", after["status"]);
    for status in after["status"]["containerStatuses"].as_array().into_iter().flatten() {
        ensure!(status["restartCount"] == 0, "a container was started again: {status}");
    }
    for (what, usage, most) in [("up", while_up, LITTLE), ("down", while_down, size + LITTLE)] {
        let growth = usage.anonymous.saturating_sub(idle.anonymous);
        ensure!(growth < GROWTH, "on the way {what} the server took {} MiB more than at rest", growth / MIB);
        let scratch = usage.scratch.saturating_sub(idle.scratch);
        ensure!(scratch <= most, "on the way {what} the server had {} MiB in /tmp", scratch / MIB);
    }
    ensure!(while_down.scratch > size / 2, "nothing was seen of the download in /tmp: {while_down:?}");
    site.close()?;
    Ok(row(size, idle, &[("up", up, while_up), ("down", down, while_down)]))
}

/// What this machine has too little of.
fn lacks(place: &Path, size: u64) -> Result<Option<String>> {
    let text = std::fs::read_to_string("/proc/meminfo")?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let memory = line.and_then(|line| line.trim().split(' ').next()).and_then(|number| number.parse::<u64>().ok());
    let memory = memory.ok_or("/proc/meminfo tells no MemAvailable")? << 10;
    let disk = statvfs(place)?;
    let disk = disk.blocks_available() * disk.fragment_size();
    // In the store's memory; on the disk in the pod's folder.
    let needed = size + OTHERS;
    let short = [("memory", memory), ("disk", disk)].into_iter().find(|(_, there)| *there < needed);
    Ok(short.map(|(what, there)| {
        let need = format!("an artifact of {} MiB needs {} MiB of {what}", size / MIB, needed / MIB);
        format!("{need}, and {} MiB are free: end what takes it, or leave --full out", there / MIB)
    }))
}

/// A store that pods reach, with the testbed's bucket in it.
fn store(world: &World) -> Result<Google> {
    let project = Project { enabled: vec!["storage.googleapis.com".to_owned()], ..Project::default() };
    let path = format!("storage/storage/v1/b?project={}", project.id);
    let listen = SocketAddr::new(world.place.own_address()?, 0);
    let store = Google::start(Options { listen, projects: vec![project], ..google::Options::default() });
    let bucket = json!({ "name": world.place.bucket.trim_start_matches("gs://") });
    let (status, answer) = store.call("POST", &path, Some(OWNER_TOKEN), &bucket)?;
    ensure!(status == 200, "the bucket {bucket}: {status} {answer}");
    Ok(store)
}

/// What the store says of the artifact.
fn object(store: &Google, bucket: &str, site: &str) -> Result<Value> {
    let (bucket, name) = (bucket.trim_start_matches("gs://"), format!("{site}/{ARTIFACT}").replace('/', "%2F"));
    let (status, answer) =
        store.call("GET", &format!("storage/storage/v1/b/{bucket}/o/{name}"), Some(OWNER_TOKEN), &Value::Null)?;
    ensure!(status == 200, "the store answers {status} for {name}: {answer}");
    Ok(answer)
}

/// How many seconds it takes.
fn timed(world: &World, deadline: Duration, what: &str, work: impl Future<Output = Result<()>>) -> Result<f64> {
    let begun = Instant::now();
    let done = world.runtime.block_on(async { tokio::time::timeout(deadline, work).await });
    done.map_err(|_| format!("{what} has taken more than {} s", deadline.as_secs()))??;
    Ok(begun.elapsed().as_secs_f64())
}

/// As MLflow's own client sends it: one PUT whose length is known.
async fn upload(url: &str, size: u64) -> Result<()> {
    let body = reqwest::Body::wrap_stream(Noise::new(size).stream());
    let http = reqwest::Client::builder().no_proxy().build()?;
    let answer = http.put(url).header(CONTENT_LENGTH, size).body(body).send().await?;
    let (status, text) = (answer.status(), answer.text().await?);
    ensure!(status.is_success(), "the upload was answered {status}: {text}");
    Ok(())
}

async fn download(url: &str, size: u64, digest: Digest) -> Result<()> {
    let http = reqwest::Client::builder().no_proxy().build()?;
    let mut answer = http.get(url).send().await?;
    let status = answer.status();
    ensure!(status.is_success(), "the download was answered {status}: {}", answer.text().await?);
    let mut hash = HashWriter::new(io::sink());
    while let Some(bytes) = answer.chunk().await? {
        hash.write_all(&bytes)?;
    }
    let (found, length, _) = hash.finish();
    ensure!(length == size, "{length} of {size} bytes came back");
    ensure!(found == digest, "{found} came back instead of {digest}");
    Ok(())
}

fn row(size: u64, idle: Usage, ways: &[(&str, f64, Usage)]) -> Row {
    let mut notes = vec![format!("at rest: {} MiB of memory", idle.anonymous / MIB)];
    let mut figures = json!({ "bytes": size, "idle_anonymous_bytes": idle.anonymous });
    for (way, seconds, usage) in ways {
        let Usage { anonymous, working, scratch } = *usage;
        notes.push(format!(
            "{} MiB {way} in {seconds:.1} s ({:.0} MiB/s): {} MiB of memory at most ({} MiB with files), {} MiB in /tmp",
            size / MIB,
            (size / MIB) as f64 / seconds,
            anonymous / MIB,
            working / MIB,
            scratch / MIB
        ));
        figures[*way] = json!({
            "seconds": tenths(*seconds),
            "anonymous_bytes": anonymous,
            "working_bytes": working,
            "scratch_bytes": scratch,
        });
    }
    Row { notes, figures: Some(figures), ..Row::default() }
}
