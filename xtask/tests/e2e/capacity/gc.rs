//! What deleted runs hold, on a cluster: a dry run frees nothing, the command frees it, and so does a Job
//! of the CronJob. What is not deleted stays.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};

use super::bucket::Bucket;
use crate::api::Api;
use crate::kube::wait_for;
use crate::report::Row;
use crate::run::Running;
use crate::site::{ENV, Site};
use crate::stamp::Stamp;
use crate::world::World;
use crate::{Result, ensure};

/// For the pod of a Job, which may be slow to come on a busy machine.
const PATIENCE: Duration = Duration::from_secs(240);

/// The CronJob, and the Job that is made of it.
const CRON_JOB: &str = "mlflow-gc";
const BY_HAND: &str = "gc-by-hand";

/// A run and its artifacts.
struct Made {
    id: String,
    /// Paths below the store's root.
    artifacts: Vec<String>,
}

/// What there is: rows of the tables, and objects.
#[derive(PartialEq, Debug)]
struct Held {
    runs: u64,
    metrics: u64,
    objects: BTreeSet<String>,
}

pub fn gc(world: &World) -> Result<Row> {
    let mut site = Site::new(world, "gc")?;
    // Its own time does not come while this runs.
    let lines = ["gc.schedule = \"0 3 1 1 *\"", "gc.older-than = \"0s\""];
    site.set(|settings| settings.lines.extend(lines.map(str::to_owned)))?;
    site.deploy(&[])?.expect(0)?;
    // The deploy's own proof has left a deleted run.
    site.xtask(&["gc", "--env", ENV, "--yes"])?.expect(0)?;

    let (api, bucket) = (Api::of(&site)?, Bucket::of(&site)?);
    let experiment = api.experiment("gc")?;
    let make = |artifacts| run(&api, &experiment, artifacts);
    let (live, dropped, bare, later) = ([make(2)?, make(1)?], [make(2)?, make(3)?], make(1)?, make(2)?);
    for run in dropped.iter().chain([&bare]) {
        api.post("runs/delete", &json!({ "run_id": run.id }))?;
    }
    let object = |path: &String| format!("{}/{path}", site.name);
    bucket.remove(&object(&bare.artifacts[0]))?;
    let before = held(&site, &bucket)?;
    let (runs, files) = (3, 5);

    let dry = site.xtask(&["gc", "--env", ENV, "--dry-run", "--json"])?.expect(0)?;
    freed(&dry.json()?, true, (runs, files, 1))?;
    let refused = site.xtask(&["gc", "--env", ENV])?.expect(2)?;
    ensure!(refused.said().contains("--yes"), "nothing says how to agree:\n{}", refused.said());
    ensure!(held(&site, &bucket)? == before, "a dry run or a refusal has freed something");

    let by_command = site.xtask(&["gc", "--env", ENV, "--yes", "--json"])?.expect(0)?;
    freed(&by_command.json()?, false, (runs, files, 1))?;
    let mut expected = before;
    expected.forget(dropped.iter().chain([&bare]), object);
    let after = held(&site, &bucket)?;
    ensure!(after == expected, "after gc there is {after:?} instead of {expected:?}");

    api.post("runs/delete", &json!({ "run_id": later.id }))?;
    let begun = Stamp::now();
    let sums = by_cron_job(&site)?;
    freed(&sums, false, (1, 2, 0))?;
    expected.forget([&later].into_iter(), object);
    let last = held(&site, &bucket)?;
    ensure!(last == expected, "after the CronJob's Job there is {last:?} instead of {expected:?}");
    let seconds = Stamp::now().since(begun);
    let shown = api.post("runs/search", &json!({ "experiment_ids": [experiment] }))?;
    for run in &live {
        ensure!(shown.to_string().contains(&run.id), "run {} is gone: {shown}", run.id);
        for path in &run.artifacts {
            ensure!(api.artifact(path)? == content(path), "artifact {path} has changed");
        }
    }
    site.close()?;
    let cause = format!(
        "{runs} runs and {files} files freed in {:.0} s, one of them without its artifact; 1 run and 2 files by a Job \
         of the CronJob in {seconds:.0} s; {} runs and {} files stay",
        by_command.seconds,
        last.runs,
        last.objects.len()
    );
    Ok(Row { exit: by_command.code, cause: Some(cause), ..Row::default() })
}

/// A run with a metric and so many artifacts.
fn run(api: &Api<'_>, experiment: &str, artifacts: usize) -> Result<Made> {
    let body = json!({ "experiment_id": experiment, "start_time": Stamp::now().millis() });
    let made = api.post("runs/create", &body)?;
    let info = &made["run"]["info"];
    let id = info["run_id"].as_str().ok_or("a run without an id")?.to_owned();
    let root = info["artifact_uri"].as_str().and_then(|uri| uri.strip_prefix("mlflow-artifacts:/"));
    let root = root.ok_or_else(|| format!("artifacts are at {}", info["artifact_uri"]))?.to_owned();
    let metric = json!({ "run_id": id, "key": "m", "value": 0.5, "timestamp": Stamp::now().millis(), "step": 1 });
    api.post("runs/log-metric", &metric)?;
    let artifacts: Vec<String> = (0..artifacts).map(|number| format!("{root}/part-{number}.bin")).collect();
    for path in &artifacts {
        api.put(path, content(path))?;
    }
    Ok(Made { id, artifacts })
}

/// What is in an artifact.
fn content(path: &str) -> Vec<u8> {
    path.repeat(100).into_bytes()
}

fn held(site: &Site<'_>, bucket: &Bucket<'_>) -> Result<Held> {
    let count = |table: &str| -> Result<u64> {
        Ok(site.world.database.sql(&site.name, &format!("SELECT count(*) FROM {table}"))?.parse()?)
    };
    Ok(Held { runs: count("runs")?, metrics: count("metrics")?, objects: bucket.names()? })
}

impl Held {
    /// Takes away what gone runs had.
    fn forget<'r>(&mut self, gone: impl Iterator<Item = &'r Made>, object: impl Fn(&String) -> String) {
        for run in gone {
            self.runs -= 1;
            self.metrics -= 1;
            for path in &run.artifacts {
                self.objects.remove(&object(path));
            }
        }
    }
}

/// Fails unless these are the sums: runs, files, and runs that had no artifacts any more.
fn freed(sums: &Value, dry_run: bool, (runs, files, absent): (u64, u64, u64)) -> Result<()> {
    let expected = json!([dry_run, runs, files, absent, 0, 0]);
    let found = json!([
        sums["dry_run"],
        sums["runs"],
        sums["files"],
        sums["artifacts"]["absent"],
        sums["kept"],
        sums["refused"]
    ]);
    ensure!(found == expected, "gc says {sums}; expected dry run, runs, files, absent, kept, refused: {expected}");
    Ok(())
}

/// Starts the CronJob now, as an operator does; the sums that its pod prints.
fn by_cron_job(site: &Site<'_>) -> Result<Value> {
    let kubectl = site.kubectl(&["create", "job", &format!("--from=cronjob/{CRON_JOB}"), BY_HAND]);
    Running::start("kubectl create job", kubectl)?.end(PATIENCE)?.expect(0)?;
    let path = site.path("batch/v1", &format!("jobs/{BY_HAND}"));
    wait_for("the end of the CronJob's Job", PATIENCE, || {
        let job = site.world.kube.get(&path)?;
        let conditions = job["status"]["conditions"].as_array().into_iter().flatten();
        let is = |kind: &str| conditions.clone().any(|found| found["type"] == kind && found["status"] == "True");
        ensure!(!is("Failed"), "the CronJob's Job has failed: {}", job["status"]);
        Ok(is("Complete").then_some(()))
    })?;
    let pods = site.world.kube.list(&site.path("v1", &format!("pods?labelSelector=job-name={BY_HAND}")))?;
    let pod = pods.first().and_then(|pod| pod["metadata"]["name"].as_str()).ok_or("the Job has no pod")?;
    let log = site.world.kube.log(&site.name, pod, "mlflow", false)?;
    // Each line begins with its time.
    let sums = log.lines().last().and_then(|line| line.split_once(' ')).map(|(_, line)| line).unwrap_or_default();
    let sums: Value = serde_json::from_str(sums).map_err(|error| format!("the Job's last line: {error}:\n{log}"))?;
    ensure!(sums["gc"] == "summary", "the Job's pod has not summed up:\n{log}");
    Ok(sums)
}
