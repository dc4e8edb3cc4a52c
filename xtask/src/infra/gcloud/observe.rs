//! Asks Google what there is. Nothing is changed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use futures::{StreamExt as _, TryStreamExt as _};
use serde_json::Value;

use crate::commands::Run;
use crate::config::infra::InfraConfig;
use crate::error::{Error, Kind, Result};
use crate::gcloud::{Call, Gcloud, Trouble};

use super::calls;
use super::observed::Observed;
use super::resources::{Resource, resources};

/// Questions that are asked side by side.
const SIDE_BY_SIDE: usize = 6;

/// How long one answer may take.
const ANSWERS_WITHIN: Duration = Duration::from_secs(180);

/// For how long a question is asked again when the answer is a bad moment. gcloud tries for half a
/// minute itself where there is no way to Google.
const ASKED_FOR: Duration = Duration::from_secs(25);

/// Before the second attempt; doubled for each further one.
const FIRST_WAIT: Duration = Duration::from_secs(1);

/// Asks for everything that an environment consists of.
///
/// # Errors
/// Of the kind of what is wrong: no login, no permission, somebody else's bucket.
pub async fn observe(run: &Run, infra: &InfraConfig) -> Result<Observed> {
    ask_for(run, infra, &resources(infra)).await
}

/// Asks for some of it; what is inside something needs that beside it.
///
/// # Errors
/// As [`observe`].
pub async fn ask_for(run: &Run, infra: &InfraConfig, all: &[Resource]) -> Result<Observed> {
    let gcloud = Gcloud::find(run, &infra.project)?;
    let mut observed = project(run, &gcloud, infra).await?;
    let mut asked = BTreeSet::new();
    // What is inside something is asked for once that is there.
    loop {
        let is_due = |resource: &Resource| {
            let has_api = resource.api().is_some_and(|api| observed.apis.contains(api));
            let parent = resource.parent().map(|parent| observed.state(infra, &parent));
            has_api && parent.is_none_or(|parent| parent.is_open())
        };
        let due: BTreeMap<Call, &Resource> = all
            .iter()
            .filter(|resource| is_due(resource))
            .map(|resource| (calls::question(infra, resource), resource))
            .collect();
        let due: Vec<(Call, &Resource)> = due.into_iter().filter(|(call, _)| asked.insert(call.clone())).collect();
        if due.is_empty() {
            break;
        }
        let answers: Vec<(Call, Option<Value>)> = futures::stream::iter(due)
            .map(|(call, resource)| {
                let (run, gcloud) = (run.clone(), &gcloud);
                async move {
                    let answer = ask(&run, gcloud, &call).await.map_err(|error| whose(error, infra, resource))?;
                    Ok::<_, Error>((call, answer))
                }
            })
            .buffer_unordered(SIDE_BY_SIDE)
            .try_collect()
            .await?;
        observed.answers.extend(answers.into_iter().filter_map(|(call, answer)| answer.map(|answer| (call, answer))));
    }
    refuse_others_bucket(infra, &observed)?;
    Ok(observed)
}

/// Asks again about one resource, and what of the project its answer depends on.
pub async fn look(
    run: &Run,
    gcloud: &Gcloud,
    infra: &InfraConfig,
    number: &str,
    resource: &Resource,
) -> Result<Observed> {
    let call = calls::question(infra, resource);
    let mut observed = Observed { number: number.to_owned(), ..Observed::default() };
    match resource {
        Resource::Api(_) => observed = project(run, gcloud, infra).await?,
        _ => observed.answers.extend(ask(run, gcloud, &call).await?.map(|answer| (call, answer))),
    }
    refuse_others_bucket(infra, &observed)?;
    Ok(observed)
}

/// The APIs that are enabled, and the project's number.
pub async fn project(run: &Run, gcloud: &Gcloud, infra: &InfraConfig) -> Result<Observed> {
    let call = calls::question(infra, &Resource::Api(""));
    let answer = ask(run, gcloud, &call).await?.unwrap_or(Value::Null);
    let enabled = answer.as_array().into_iter().flatten();
    let names = enabled.filter_map(|service| service["name"].as_str());
    let apis = names.clone().filter_map(|name| name.rsplit('/').next()).map(str::to_owned).collect();
    let is_number = |text: &&str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let mut numbers = names.filter_map(|name| name.split('/').nth(1)).filter(is_number);
    let mut number = numbers.next().unwrap_or_default().to_owned();
    let mut observed = Observed { apis, ..Observed::default() };
    if number.is_empty() && observed.apis.contains("cloudresourcemanager.googleapis.com") {
        let project = ask(run, gcloud, &calls::project(infra)).await?.unwrap_or(Value::Null);
        project["projectNumber"].as_str().unwrap_or_default().clone_into(&mut number);
    }
    observed.number = number;
    Ok(observed)
}

/// One answer; `None`: there is no such thing.
async fn ask(run: &Run, gcloud: &Gcloud, call: &Call) -> Result<Option<Value>> {
    let (begun, mut wait) = (Instant::now(), FIRST_WAIT);
    loop {
        let complaint = match gcloud.ask(call, ANSWERS_WITHIN).await {
            Ok(answer) => return Ok(Some(answer)),
            Err(complaint) => complaint,
        };
        match complaint.trouble {
            Trouble::Absent | Trouble::TooEarly | Trouble::Disabled => return Ok(None),
            Trouble::Passing | Trouble::Busy if begun.elapsed() < ASKED_FOR => {}
            _ => return Err(complaint.error),
        }
        pause(run, wait).await?;
        wait *= 2;
    }
}

/// Sleeps, unless the user wants to stop.
pub async fn pause(run: &Run, length: Duration) -> Result<()> {
    tokio::select! {
        () = tokio::time::sleep(length) => Ok(()),
        () = run.cancel.cancelled() => Err(Run::interrupted()),
    }
}

/// Buckets' names are everyone's, and who may look at a bucket need not own it.
fn refuse_others_bucket(infra: &InfraConfig, observed: &Observed) -> Result<()> {
    match observed.answer(infra, &Resource::Bucket).and_then(|bucket| bucket["projectNumber"].as_str()) {
        Some(owner) if !observed.number.is_empty() && owner != observed.number => {
            let message = format!("bucket {} is in another project, number {owner}", infra.bucket);
            Err(Error::new(Kind::Conflict, message).hint("set `bucket` to another name"))
        }
        _ => Ok(()),
    }
}

/// A bucket that one may not see is most often somebody else's.
fn whose(error: Error, infra: &InfraConfig, resource: &Resource) -> Error {
    match (resource, error.kind()) {
        (Resource::Bucket, Kind::Forbidden) => {
            let permission = error.hint_text().unwrap_or_default().to_owned();
            let bucket = &infra.bucket;
            error.hint(format!("{permission}; or bucket {bucket} is somebody else's: set `bucket` to another name"))
        }
        _ => error,
    }
}
