//! What all services share, and the way from a call to its service.

use std::sync::{Arc, Mutex, MutexGuard};

use serde_json::{Value, json};

use super::authority::Authority;
use super::call::{Call, Principal, Reply};
use super::failure::{Failure, Outcome};
use super::operations::{Operation, Style};
use super::options::{Metadata, Options};
use super::state::State;
use super::{
    artifacts, billing, builds, compute, container, iam, metadata, networking, objects, projects, sql, storage, tokens,
    usage,
};

/// What all services share.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) options: Options,
    pub(crate) authority: Authority,
    pub(crate) http: reqwest::Client,
    state: Mutex<State>,
}

impl Core {
    pub(crate) fn new(options: Options) -> Self {
        let mut state = State::default();
        for project in &options.projects {
            state.enabled.insert(project.id.clone(), project.enabled.iter().cloned().collect());
            state.projects.insert(project.id.clone(), project.clone());
        }
        // Whoever comes first decides; all of this workspace decides so.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder().no_proxy().build().expect("a client without a proxy");
        Self { options, authority: Authority::new(), http, state: Mutex::new(state) }
    }

    /// Everything that exists; never held over an await.
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no handler panics")
    }

    /// Who calls, by the token.
    pub(crate) fn identify(&self, call: &Call) -> Outcome<Principal> {
        let open = ["oauth2", "sts", "metadata"].contains(&call.service.as_str());
        let header = call.header("authorization").and_then(|header| header.split_once(' '));
        let token = header.map(|(_, token)| token.trim()).or_else(|| call.query("access_token"));
        let Some(token) = token.filter(|token| !token.is_empty()) else {
            if open || (call.service == "storage" && !self.options.enforce) {
                return Ok(Principal::Anonymous);
            }
            let message = "Request is missing required authentication credential. Expected OAuth 2 access token, login \
                cookie or other valid authentication credential.";
            return Err(Failure::new(401, message).info("CREDENTIALS_MISSING", "googleapis.com", json!({})));
        };
        let message = "Request had invalid authentication credentials. Expected OAuth 2 access token, login cookie or \
            other valid authentication credential.";
        let found = self.state().principal(token, &self.options.owner);
        found.ok_or_else(|| Failure::new(401, message).info("ACCESS_TOKEN_EXPIRED", "googleapis.com", json!({})))
    }

    /// Answers a call. `place` is the metadata server that it came to, if it did.
    pub(crate) async fn dispatch(self: &Arc<Self>, call: &Call, place: Option<&Metadata>) -> Outcome<Reply> {
        self.state().settle();
        self.admit(call)?;
        match call.service.as_str() {
            "artifactregistry" => artifacts::serve(self, call),
            "cloudbilling" => billing::serve(self, call),
            "cloudbuild" => builds::serve(self, call).await,
            "cloudresourcemanager" | "orgpolicy" => projects::serve(self, call),
            "compute" => compute::serve(self, call),
            "container" => container::serve(self, call),
            "iam" => iam::serve(self, call).await,
            "iamcredentials" | "oauth2" | "sts" => tokens::serve(self, call),
            "metadata" => metadata::serve(self, call, place),
            "servicenetworking" => networking::serve(self, call),
            "serviceusage" => usage::serve(self, call),
            "sql" => sql::serve(self, call).await,
            "storage" => storage::serve(self, call).await,
            _ => self.by_name(call),
        }
    }

    /// `/BUCKET/OBJECT`, as the older interface of Cloud Storage names it; some clients read so.
    fn by_name(&self, call: &Call) -> Outcome<Reply> {
        let state = self.state();
        if !matches!(call.method.as_str(), "GET" | "HEAD") || state.get(storage::BUCKETS, &call.service).is_none() {
            return Err(call.unknown());
        }
        objects::media(&state, call, &call.service, &call.segments.join("/"))
    }

    /// Begins an operation of google.longrunning.
    pub(crate) fn long(&self, state: &mut State, call: &Call, name: &str, operation: Operation) -> Value {
        let mut operation = operation;
        operation.style = Style::Long;
        operation.fields["name"] = name.into();
        state.begin(name, operation, call, self.options.polls)
    }
}

/// An operation of google.longrunning by name.
pub(crate) fn poll(state: &mut State, name: &str) -> Outcome<Reply> {
    state.poll(name).map(Reply::from).ok_or_else(|| Failure::not_found(format!("Operation {name} not found")))
}
