//! Users of Cloud SQL instances: with a password, or service accounts.

use std::sync::Arc;

use serde_json::{Value, json};

use super::call::{Call, Reply};
use super::core::Core;
use super::failure::{Failure, Outcome};
use super::operations::Effect;
use super::postgres::{self, User};
use super::sql::{USERS, begin, find, idle};
use super::state::State;

/// The type of users that are service accounts.
pub(crate) const ACCOUNT: &str = "CLOUD_IAM_SERVICE_ACCOUNT";

/// Answers a call below an instance's `users`.
pub(crate) async fn serve(
    core: &Arc<Core>,
    call: &Call,
    project: &str,
    instance: &str,
    rest: &[&str],
) -> Outcome<Reply> {
    let parent = format!("projects/{project}/instances/{instance}");
    let missing = || Failure::not_found("The Cloud SQL user does not exist.").reason("userDoesNotExist");
    match (call.method.as_str(), rest) {
        ("GET", []) => {
            let state = core.state();
            find(&state, &parent)?;
            let items = state.list(USERS, &format!("{parent}/"));
            Ok(json!({ "kind": "sql#usersList", "items": items }).into())
        }
        ("GET", [name]) => {
            let state = core.state();
            find(&state, &parent)?;
            state.get(USERS, &format!("{parent}/users/{name}")).cloned().map(Reply::from).ok_or_else(missing)
        }
        ("POST", []) => insert(core, call, project, instance).await,
        ("PUT", []) => {
            let name = call.query("name").unwrap_or_default().to_owned();
            let full = format!("{parent}/users/{name}");
            {
                let state = core.state();
                idle(&state, &parent)?;
                state.get(USERS, &full).ok_or_else(missing)?;
            }
            let body = call.json()?;
            let roles = roles(call, &body);
            let is_builtin = core.state().get(USERS, &full).is_some_and(|user| user["type"] != ACCOUNT);
            let user = User { name: &name, password: body["password"].as_str(), roles: roles.clone(), is_builtin };
            postgres::create_user(core, &user).await?;
            let mut state = core.state();
            if !roles.is_empty() {
                state.get_mut(USERS, &full).ok_or_else(missing)?["databaseRoles"] = json!(roles);
            }
            Ok(begin(core, &mut state, call, project, instance, "UPDATE_USER", Effect::None, Effect::None))
        }
        ("DELETE", []) => {
            let name = call.query("name").unwrap_or_default().to_owned();
            let full = format!("{parent}/users/{name}");
            {
                let state = core.state();
                idle(&state, &parent)?;
                state.get(USERS, &full).ok_or_else(missing)?;
            }
            postgres::drop_user(core, &name).await?;
            let mut state = core.state();
            let effect = Effect::Remove(USERS, full);
            Ok(begin(core, &mut state, call, project, instance, "DELETE_USER", effect, Effect::None))
        }
        _ => Err(call.unknown()),
    }
}

/// Roles of the database that are asked for.
fn roles(call: &Call, body: &Value) -> Vec<String> {
    let query = call.query.iter().filter(|(name, _)| name == "databaseRoles").map(|(_, role)| role.clone());
    let body = body["databaseRoles"].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned);
    query.chain(body).collect()
}

async fn insert(core: &Arc<Core>, call: &Call, project: &str, instance: &str) -> Outcome<Reply> {
    let parent = format!("projects/{project}/instances/{instance}");
    let body = call.json()?;
    let name = body["name"].as_str().unwrap_or_default().to_owned();
    let full = format!("{parent}/users/{name}");
    let kind = body["type"].as_str().unwrap_or("BUILT_IN").to_owned();
    {
        let state = core.state();
        let found = idle(&state, &parent)?;
        if name.is_empty() {
            return Err(Failure::invalid("Invalid request: The user's name is missing."));
        }
        if kind == ACCOUNT {
            check_account(&state, &found, &name)?;
        }
    }
    let is_builtin = kind == "BUILT_IN";
    let mut roles = roles(call, &body);
    if !is_builtin && roles.is_empty() && core.options.iam_superusers {
        roles.push(postgres::SUPERUSER.to_owned());
    }
    // A service account logs in with a token. This server shows PostgreSQL a password in its place.
    let own = format!("{:032x}", rand::random::<u128>());
    let password = if is_builtin { body["password"].as_str() } else { Some(own.as_str()) };
    postgres::create_user(core, &User { name: &name, password, roles: roles.clone(), is_builtin }).await?;
    let mut user =
        json!({ "kind": "sql#user", "name": name, "host": "", "instance": instance, "project": project, "etag": "0" });
    if !is_builtin {
        user["type"] = kind.into();
    }
    if !roles.is_empty() {
        user["databaseRoles"] = json!(roles);
    }
    let mut state = core.state();
    if !is_builtin {
        state.role_passwords.insert(name, own);
    }
    state.put(USERS, full.clone(), user);
    Ok(begin(core, &mut state, call, project, instance, "CREATE_USER", Effect::None, Effect::Remove(USERS, full)))
}

fn check_account(state: &State, instance: &Value, name: &str) -> Outcome<()> {
    let flags = instance["settings"]["databaseFlags"].as_array();
    let on = |flag: &Value| flag["name"] == "cloudsql.iam_authentication" && flag["value"] == "on";
    if !flags.is_some_and(|flags| flags.iter().any(on)) {
        return Err(Failure::invalid(
            "Invalid request: IAM users need the flag cloudsql.iam_authentication of the instance to be on.",
        ));
    }
    if name.ends_with(".gserviceaccount.com") {
        let message = "Invalid request: Database username for Cloud IAM service account should be created without \
            \".gserviceaccount.com\" suffix.";
        return Err(Failure::invalid(message));
    }
    let email = format!("{name}.gserviceaccount.com");
    super::iam::find(state, &email)
        .map(drop)
        .map_err(|_| Failure::invalid(format!("Invalid request: Service account {email} does not exist.")))
}
