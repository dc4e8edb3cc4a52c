//! The project at Google: the login, what is off or forbidden in it, and which names are free.

mod needs;
mod project;
mod storage;

use serde_json::Value;

use crate::commands::Run;
use crate::config::Config;
use crate::config::cluster::{CloudSql, ClusterConfig};
use crate::config::infra::{InfraConfig, tier};
use crate::error::{Error, Kind, Result};
use crate::google::{Ask, Google, Login, Service};

use super::cluster::Limit;
use super::{Check, DEADLINE, State, asked, tools};

/// What is asked of a project, in the order in which it is told.
const NAMES: [&str; 7] = ["project", "billing", "APIs", "permissions", "policies", "quotas", "bucket"];

/// Looks at what the environment has, or wants, at Google. Also how many connections its database
/// takes.
pub(super) async fn of(run: &Run, config: &Config, settings: &ClusterConfig) -> (Vec<Check>, Limit) {
    let cloud = settings.database.cloud_sql();
    let Some(infra) = &config.infra else {
        let limit = match cloud {
            Some(cloud) => limit(connect(run).await.ok().as_ref().map(|(google, _)| google), cloud, None).await,
            None => Limit { connections: None, from: "only the database knows how many it takes".to_owned() },
        };
        return (Vec::new(), limit);
    };
    let (mut checks, (asked, limit)) = tokio::join!(tools::of(run, infra), async {
        match connect(run).await {
            Ok((google, whose)) => {
                let mut checks = vec![Check::ok("login", whose)];
                let (others, limit) = tokio::join!(look(&google, config, infra), async {
                    match cloud {
                        Some(cloud) => limit(Some(&google), cloud, Some(infra)).await,
                        None => Limit::default(),
                    }
                });
                checks.extend(others);
                (checks, limit)
            }
            Err(error) => {
                let mut checks = vec![Check { state: State::Missing, ..Check::failed("login", &error) }];
                checks.extend(not_asked(infra, &NAMES, "no login"));
                let limit = match cloud {
                    Some(cloud) => limit(None, cloud, Some(infra)).await,
                    None => Limit::default(),
                };
                (checks, limit)
            }
        }
    });
    checks.extend(asked);
    checks.push(made(config));
    (checks, limit)
}

/// A client as whoever is logged in, and who that is.
async fn connect(run: &Run) -> Result<(Google, String)> {
    let found = tokio::time::timeout(2 * DEADLINE, Login::find()).await;
    let login = found.map_err(|_| Error::new(Kind::Auth, "looking for a login at Google takes too long"))??;
    // A token that nobody has asked for anything yet may still be refused.
    let whose = login.whose().to_owned();
    Ok((Google::new(run, login)?.hurried(DEADLINE / 2), whose))
}

fn not_asked(infra: &InfraConfig, names: &[&str], why: &str) -> Vec<Check> {
    let state = infra.state_bucket.as_ref().map(|_| storage::STATE);
    names.iter().copied().chain(state).map(|name| Check::not_asked(name, why)).collect()
}

async fn look(google: &Google, config: &Config, infra: &InfraConfig) -> Vec<Check> {
    let number = match tokio::time::timeout(DEADLINE, project::project(google, infra)).await {
        Ok(Ok(number)) => number,
        failed => {
            let first = match failed {
                Ok(Err(check)) => check,
                _ => Check::missing(NAMES[0], "Google does not answer", "check the network"),
            };
            let mut checks = vec![first];
            checks.extend(not_asked(infra, &NAMES[1..], "the project comes first"));
            return checks;
        }
    };
    let project = Check::ok(NAMES[0], format!("{} (number {number}) is active", infra.project));
    let made = config.environment().is_ok();
    let (billing, (apis, enabled), permissions, policies) = tokio::join!(
        asked(NAMES[1], project::billing(google, infra)),
        project::apis(google, infra),
        asked(NAMES[3], project::permissions(google, infra)),
        asked(NAMES[4], project::policies(google, infra)),
    );
    let is_on = |api: &str| enabled.as_ref().is_none_or(|enabled| enabled.contains(api));
    let (quotas, bucket, state) = tokio::join!(
        async {
            match is_on("compute.googleapis.com") {
                _ if made => Check::ok(NAMES[5], "what needs them is made already"),
                true => asked(NAMES[5], project::quotas(google, infra)).await,
                false => Check::not_asked(NAMES[5], "compute.googleapis.com is not enabled yet"),
            }
        },
        asked(NAMES[6], storage::bucket(google, infra, &number)),
        async {
            match &infra.state_bucket {
                Some(bucket) => Some(asked(storage::STATE, storage::state(google, infra, bucket)).await),
                None => None,
            }
        },
    );
    [project, billing, apis, permissions, policies, quotas, bucket].into_iter().chain(state).collect()
}

/// Whether the outputs of the infrastructure are noted here, which `deploy` reads.
fn made(config: &Config) -> Check {
    let name = "infrastructure";
    match config.environment() {
        Ok(_) => Check::ok(name, "its outputs are known here"),
        Err(error) => Check::warning(
            name,
            "it is not made yet, or its outputs are not known here",
            error.hint_text().unwrap_or_default(),
        ),
    }
}

/// How many connections a Cloud SQL instance takes: its own flag, else what its tier allows.
async fn limit(google: Option<&Google>, cloud: &CloudSql, infra: Option<&InfraConfig>) -> Limit {
    let seen = match google {
        Some(google) => {
            tokio::time::timeout(DEADLINE, instance(google, cloud)).await.ok().and_then(Result::ok).flatten()
        }
        None => None,
    };
    limit_of(seen.as_ref(), infra.map(|infra| infra.sql.tier.as_str()))
}

async fn instance(google: &Google, cloud: &CloudSql) -> Result<Option<Value>> {
    // A project of a domain has a colon of its own.
    let mut parts = cloud.instance.rsplitn(3, ':');
    let (Some(name), _, Some(project)) = (parts.next(), parts.next(), parts.next()) else { return Ok(None) };
    let path = format!("sql/v1beta4/projects/{project}/instances/{name}");
    google.ask(&Ask::get(Service::Sql, path, format!("read the instance {}", cloud.instance))).await
}

fn limit_of(instance: Option<&Value>, wanted: Option<&str>) -> Limit {
    let settings = instance.map(|instance| &instance["settings"]);
    let flags = settings.and_then(|settings| settings["databaseFlags"].as_array()).into_iter().flatten();
    let flag =
        flags.filter(|flag| flag["name"] == "max_connections").find_map(|flag| flag["value"].as_str()?.parse().ok());
    if let Some(connections) = flag {
        return Limit { connections: Some(connections), from: "its flag max_connections".to_owned() };
    }
    let tier = settings.and_then(|settings| settings["tier"].as_str()).or(wanted);
    match tier.map(|name| (name, tier::connections(name))) {
        Some((tier, Some(connections))) => Limit { connections: Some(connections), from: format!("tier {tier}") },
        Some((tier, None)) => {
            Limit { connections: None, from: format!("the tier {tier} does not tell how many it takes") }
        }
        None => Limit { connections: None, from: "the instance's tier is not known".to_owned() },
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_flag_beats_the_tier_and_the_instance_beats_the_wish() {
        let check = |instance: Option<Value>, wanted: Option<&str>, expected: Option<u64>| {
            assert_eq!(limit_of(instance.as_ref(), wanted).connections, expected, "{instance:?} {wanted:?}");
        };
        let instance = |tier: &str, flags: Value| Some(json!({ "settings": { "tier": tier, "databaseFlags": flags } }));
        let flag = json!([{ "name": "cloudsql.iam_authentication", "value": "on" }, { "name": "max_connections", "value": "300" }]);
        check(None, None, None);
        check(None, Some("db-f1-micro"), Some(25));
        check(instance("db-g1-small", json!([])), Some("db-f1-micro"), Some(50));
        check(instance("db-g1-small", flag), None, Some(300));
        check(instance("odd", json!(null)), Some("db-f1-micro"), None);
    }
}
