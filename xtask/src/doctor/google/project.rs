//! A project: whether it is there and paid for, what is enabled, allowed and left in it.

use std::collections::BTreeSet;

use futures::future::try_join_all;
use serde_json::{Value, json};

use crate::config::infra::InfraConfig;
use crate::error::{Error, Kind, Result};
use crate::google::{Ask, Google, Repeat, Service, link_billing};

use super::super::{Check, State};
use super::NAMES;
use super::needs::{self, Constraint};

/// The project's number, or what is the matter with it.
pub(super) async fn project(google: &Google, infra: &InfraConfig) -> Result<String, Check> {
    let (name, project) = (NAMES[0], &infra.project);
    let path = format!("v1/projects/{project}");
    let elsewhere =
        "check `project` in deploy.toml and who is logged in, or let the project's owner grant roles/viewer";
    let found = google.ask(&Ask::get(Service::ResourceManager, path, format!("read the project {project}"))).await;
    let found = match found {
        // Google does not tell a project that is not there from one that is not ours.
        Ok(None) => return Err(Check::missing(name, format!("there is no project {project}"), elsewhere)),
        Err(error) if error.kind() == Kind::Forbidden => {
            let seen = format!("there is no project {project}, or {}", error.lines().join(": "));
            return Err(Check::missing(name, seen, elsewhere));
        }
        Err(error) => return Err(Check { state: State::Missing, ..Check::failed(name, &error) }),
        Ok(Some(found)) => found,
    };
    match found["lifecycleState"].as_str() {
        Some("ACTIVE") => Ok(text(&found["projectNumber"])),
        state => {
            let seen = format!("{project} is {}", state.unwrap_or("in no known state"));
            let fix = format!("gcloud projects undelete {project}, or name another one in deploy.toml");
            Err(Check::missing(name, seen, fix))
        }
    }
}

pub(super) async fn billing(google: &Google, infra: &InfraConfig) -> Result<Check> {
    let (name, project) = (NAMES[1], &infra.project);
    let ask = Ask::get(
        Service::Billing,
        format!("v1/projects/{project}/billingInfo"),
        format!("ask who pays for the project {project}"),
    );
    let info = match google.ask(&ask).await {
        Ok(info) => info.unwrap_or_default(),
        // Who may deploy need not be told who pays.
        Err(error) if matches!(error.kind(), Kind::Forbidden | Kind::Refused) => return Ok(unknown(name, &error)),
        Err(error) => return Err(error),
    };
    Ok(match info["billingEnabled"].as_bool() {
        Some(true) => Check::ok(name, text(&info["billingAccountName"])),
        _ => Check::missing(name, format!("nobody pays for {project}"), link_billing(project)),
    })
}

/// The check of the APIs, and those that are enabled, where that could be told.
pub(super) async fn apis(google: &Google, infra: &InfraConfig) -> (Check, Option<BTreeSet<String>>) {
    let name = NAMES[2];
    let listed = tokio::time::timeout(super::DEADLINE, enabled(google, &infra.project)).await;
    let enabled = match listed {
        Ok(Ok(enabled)) => enabled,
        Ok(Err(error)) => return (Check::failed(name, &error), None),
        Err(_) => return (Check::unknown(name, "no answer in time", None), None),
    };
    let needed = infra.apis();
    let off: Vec<&str> = needed.iter().copied().filter(|api| !enabled.contains(*api)).collect();
    let check = match off.is_empty() {
        true => Check::ok(name, format!("all {} are enabled", needed.len())),
        false => Check::warning(
            name,
            format!("not enabled yet: {}", off.join(", ")),
            format!(
                "`cargo xtask infra apply` enables them; or: gcloud services enable {} --project {}",
                off.join(" "),
                infra.project
            ),
        ),
    };
    (check, Some(enabled))
}

async fn enabled(google: &Google, project: &str) -> Result<BTreeSet<String>> {
    let mut enabled = BTreeSet::new();
    let mut page = String::new();
    loop {
        let path = format!("v1/projects/{project}/services");
        let ask = Ask::get(Service::Usage, path, format!("list the APIs of the project {project}"));
        let ask = ask.query("filter", "state:ENABLED").query("pageSize", "200");
        let ask = if page.is_empty() { ask } else { ask.query("pageToken", page) };
        let answer = google.ask(&ask).await?.unwrap_or_default();
        let services = answer["services"].as_array().into_iter().flatten();
        enabled.extend(services.filter_map(|service| service["config"]["name"].as_str()).map(str::to_owned));
        page = text(&answer["nextPageToken"]);
        if page.is_empty() {
            return Ok(enabled);
        }
    }
}

pub(super) async fn permissions(google: &Google, infra: &InfraConfig) -> Result<Check> {
    let (name, project) = (NAMES[3], &infra.project);
    let needed = needs::permissions(infra);
    let body = json!({ "permissions": needed });
    let ask = Ask::post(
        Service::ResourceManager,
        format!("v1/projects/{project}:testIamPermissions"),
        &body,
        Repeat::Safe,
        format!("ask what we may do in the project {project}"),
    );
    let answer = google.ask(&ask).await?.unwrap_or_default();
    let held: Vec<&str> = answer["permissions"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let lacking: Vec<&str> = needed.iter().copied().filter(|permission| !held.contains(permission)).collect();
    Ok(match lacking.is_empty() {
        true => Check::ok(name, format!("all {} that `infra apply` needs", needed.len())),
        false => Check::missing(
            name,
            format!("missing: {}", lacking.join(", ")),
            format!("let an owner of {project} grant roles with them, or run `infra apply` themselves"),
        ),
    })
}

pub(super) async fn policies(google: &Google, infra: &InfraConfig) -> Result<Check> {
    let name = NAMES[4];
    let constraints = needs::constraints(infra);
    let asked = constraints
        .iter()
        .map(async |constraint| Ok::<_, Error>((constraint, effective(google, &infra.project, constraint).await?)));
    let answers = match try_join_all(asked).await {
        Ok(answers) => answers,
        Err(error) if matches!(error.kind(), Kind::Forbidden | Kind::Refused) => return Ok(unknown(name, &error)),
        Err(error) => return Err(error),
    };
    let in_the_way: Vec<&Constraint> =
        answers.iter().filter(|(constraint, policy)| forbids(constraint, policy)).map(|(one, _)| *one).collect();
    Ok(match in_the_way.first() {
        None => Check::ok(name, "none of the organisation's is in the way"),
        Some(first) => {
            let lines: Vec<String> =
                in_the_way.iter().map(|one| format!("{} forbids {}", one.name, one.forbids)).collect();
            // A list of domains may still let the pool's identities in.
            match in_the_way.iter().all(|one| one.value == "is:principalSet") {
                true => Check::warning(name, lines.join("\n"), first.fix),
                false => {
                    let fixes: Vec<&str> = in_the_way.iter().map(|one| one.fix).collect();
                    Check::missing(name, lines.join("\n"), fixes.join("\n"))
                }
            }
        }
    })
}

async fn effective(google: &Google, project: &str, constraint: &Constraint) -> Result<Value> {
    let body = json!({ "constraint": format!("constraints/{}", constraint.name) });
    let ask = Ask::post(
        Service::ResourceManager,
        format!("v1/projects/{project}:getEffectiveOrgPolicy"),
        &body,
        Repeat::Safe,
        format!("read the policy {} of the project {project}", constraint.name),
    );
    Ok(google.ask(&ask).await?.unwrap_or_default())
}

/// Whether a policy forbids what the constraint is about: one that is enforced, or a list of allowed
/// values without the one that is needed.
fn forbids(constraint: &Constraint, policy: &Value) -> bool {
    if policy["booleanPolicy"]["enforced"] == true {
        return true;
    }
    let list = &policy["listPolicy"];
    match list["allValues"].as_str() {
        Some("DENY") => return true,
        Some("ALLOW") => return false,
        _ => {}
    }
    let has = |key: &str| {
        let values = list[key].as_array().into_iter().flatten().filter_map(Value::as_str);
        values.clone().next().map(|_| values.into_iter().any(|value| value.starts_with(constraint.value)))
    };
    !constraint.value.is_empty() && (has("allowedValues") == Some(false) || has("deniedValues") == Some(true))
}

pub(super) async fn quotas(google: &Google, infra: &InfraConfig) -> Result<Check> {
    let (name, project, region) = (NAMES[5], &infra.project, &infra.region);
    let [of_project, of_region] = needs::quotas(infra);
    if of_project.is_empty() && of_region.is_empty() {
        return Ok(Check::ok(name, "nothing is made that counts against Compute Engine's"));
    }
    let read = async |path: String| {
        let ask = Ask::get(Service::Compute, path, format!("read the quotas of the project {project} in {region}"));
        google.ask(&ask).await
    };
    let (in_project, in_region) =
        tokio::try_join!(read(format!("projects/{project}")), read(format!("projects/{project}/regions/{region}")))?;
    let Some(in_region) = in_region else {
        let fix = "name one of `gcloud compute regions list` in deploy.toml";
        return Ok(Check::missing(name, format!("there is no region {region}"), fix));
    };
    let mut short = exceeded(&of_project, &in_project.unwrap_or_default());
    short.extend(exceeded(&of_region, &in_region).into_iter().map(|line| format!("{line} in {region}")));
    Ok(match short.is_empty() {
        true => Check::ok(name, format!("there is room in {region}")),
        false => Check::missing(
            name,
            short.join("\n"),
            format!(
                "ask for more at https://console.cloud.google.com/iam-admin/quotas?project={project}, or name another region"
            ),
        ),
    })
}

/// The quotas that what is needed exceeds. One that is not listed is not judged.
fn exceeded(needed: &[(&str, u64)], answer: &Value) -> Vec<String> {
    let quotas: Vec<&Value> = answer["quotas"].as_array().into_iter().flatten().collect();
    let lines = needed.iter().filter_map(|(metric, more)| {
        let quota = quotas.iter().find(|quota| quota["metric"] == *metric)?;
        let (limit, usage) = (quota["limit"].as_f64()?, quota["usage"].as_f64().unwrap_or(0.0));
        (usage + *more as f64 > limit).then(|| format!("{metric}: {usage} of {limit} is used, {more} more are needed"))
    });
    lines.collect()
}

/// A question that nobody answers to us, which is no failure of the project's.
fn unknown(name: &str, error: &Error) -> Check {
    Check { state: State::Unknown, ..Check::failed(name, error) }
}

/// A text, or nothing.
fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_is_enforced_or_a_list() {
        let switch = Constraint { name: "a", forbids: "b", fix: "c", value: "" };
        let list = Constraint { value: "https://token", ..switch };
        let check = |constraint: &Constraint, policy: Value, expected: bool| {
            assert_eq!(forbids(constraint, &policy), expected, "{constraint:?} {policy}");
        };
        check(&switch, json!({}), false);
        check(&switch, json!({ "booleanPolicy": {} }), false);
        check(&switch, json!({ "booleanPolicy": { "enforced": true } }), true);
        check(&list, json!({ "listPolicy": { "allValues": "ALLOW" } }), false);
        check(&list, json!({ "listPolicy": { "allValues": "DENY" } }), true);
        check(&list, json!({ "listPolicy": { "allowedValues": ["C0abc"] } }), true);
        check(&list, json!({ "listPolicy": { "allowedValues": ["C0abc", "https://token.example"] } }), false);
        check(&list, json!({ "listPolicy": { "deniedValues": ["https://token.example"] } }), true);
        check(&list, json!({ "listPolicy": {} }), false);
    }

    #[test]
    fn a_quota_is_exceeded_by_what_is_added() {
        let answer = json!({ "quotas": [
            { "metric": "CPUS", "limit": 8.0, "usage": 2.0 },
            { "metric": "NETWORKS", "limit": 5.0, "usage": 5.0 },
        ] });
        assert_eq!(exceeded(&[("CPUS", 6), ("NEW", 9)], &answer), [""; 0]);
        assert_eq!(
            exceeded(&[("CPUS", 7), ("NETWORKS", 1)], &answer),
            ["CPUS: 2 of 8 is used, 7 more are needed", "NETWORKS: 5 of 5 is used, 1 more are needed"]
        );
    }
}
