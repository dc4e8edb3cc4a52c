//! The CronJob that frees what deleted runs still hold.
//!
//! It has no file: its pod is the Deployment's as it is rendered, made by the code that makes Jobs, so
//! that image, settings and whatever users add to `deployment.yaml` are the server's with every deploy
//! and every rollback.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::batch::v1::{CronJob, CronJobSpec, JobTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::cluster::NAME;
use crate::cluster::job::{self, Task};
use crate::config::cluster::GcConfig;
use crate::error::Result;
use crate::gc::{TASK, Wish};

/// How late a run may begin, in seconds. The next one frees the same.
const LATE: i64 = 3_600;

/// Ended runs that can be looked at, of each kind.
const HISTORY: i32 = 3;

/// The CronJob; `None` without a schedule.
///
/// # Errors
/// `Refused` for a Deployment without the server's container.
pub fn cron_job(deployment: &Deployment, config: &GcConfig) -> Result<Option<CronJob>> {
    let Some(schedule) = &config.schedule else { return Ok(None) };
    let command = Wish { older_than: config.older_than, dry_run: config.dry_run }.command(false);
    let mut spec = job::spec(deployment, &Task { name: TASK, command, deadline: config.deadline })?;
    // The history says how many are kept.
    spec.ttl_seconds_after_finished = None;
    let labels: BTreeMap<String, String> = [("app.kubernetes.io/name", NAME), ("app.kubernetes.io/component", TASK)]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into();
    let metadata = ObjectMeta { labels: Some(labels.clone()), ..ObjectMeta::default() };
    let of_cron = ObjectMeta { name: Some(format!("{NAME}-{TASK}")), labels: Some(labels), ..ObjectMeta::default() };
    Ok(Some(CronJob {
        metadata: of_cron,
        spec: Some(CronJobSpec {
            schedule: schedule.clone(),
            // Otherwise that of whatever machine runs the controller.
            time_zone: Some("Etc/UTC".to_owned()),
            concurrency_policy: Some("Forbid".to_owned()),
            starting_deadline_seconds: Some(LATE),
            successful_jobs_history_limit: Some(HISTORY),
            failed_jobs_history_limit: Some(HISTORY),
            suspend: None,
            job_template: JobTemplateSpec { metadata: Some(metadata), spec: Some(spec) },
        }),
        status: None,
    }))
}
