//! Buckets: whether the artifacts' name is free, and whether terraform's state has a place.

use serde_json::Value;

use crate::config::infra::InfraConfig;
use crate::error::{Kind, Result};
use crate::google::{Ask, Google, Service};

use super::super::Check;
use super::NAMES;

/// The check of the bucket of terraform's state.
pub(super) const STATE: &str = "state bucket";

/// Whether the bucket's name is free, or its bucket in our own project, whose number this is.
pub(super) async fn bucket(google: &Google, infra: &InfraConfig, number: &str) -> Result<Check> {
    let (name, bucket) = (NAMES[6], &infra.bucket);
    let fix = "name another one with bucket = \"...\" in deploy.toml: names of buckets are the whole world's";
    let taken = format!("{bucket} is taken by someone else");
    Ok(match read(google, bucket).await {
        Ok(None) => Check::ok(name, format!("{bucket} is free")),
        Ok(Some(found)) if found["projectNumber"].as_str().is_none_or(|owner| owner == number) => {
            Check::ok(name, format!("{bucket} is there, and of this project"))
        }
        Ok(Some(_)) => Check::missing(name, format!("{bucket} is there, and of another project"), fix),
        Err(error) if error.kind() == Kind::Forbidden => Check::missing(name, taken, fix),
        // The API is said to be off already.
        Err(error) if error.kind() == Kind::Refused => Check::not_asked(name, &error.lines()[0]),
        Err(error) => return Err(error),
    })
}

/// Whether the bucket of terraform's state is there, and keeps what is overwritten.
pub(super) async fn state(google: &Google, infra: &InfraConfig, bucket: &str) -> Result<Check> {
    let InfraConfig { project, region, .. } = infra;
    let Some(found) = read(google, bucket).await? else {
        let fix = format!(
            "gcloud storage buckets create gs://{bucket} --project={project} --location={region} \
             --uniform-bucket-level-access --public-access-prevention\n\
             gcloud storage buckets update gs://{bucket} --versioning"
        );
        return Ok(Check::missing(STATE, format!("{bucket} is not there"), fix));
    };
    Ok(match found["versioning"]["enabled"].as_bool() {
        Some(true) => Check::ok(STATE, format!("{bucket} is there, and versioned")),
        _ => Check::warning(
            STATE,
            format!("{bucket} is there, but does not keep what is overwritten"),
            format!("gcloud storage buckets update gs://{bucket} --versioning"),
        ),
    })
}

async fn read(google: &Google, bucket: &str) -> Result<Option<Value>> {
    google.ask(&Ask::get(Service::Storage, format!("b/{bucket}"), format!("read the bucket {bucket}"))).await
}
