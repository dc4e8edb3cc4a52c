//! Operations that take their time.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::call::Call;
use super::failure::Failure;
use super::faults::OperationFault;
use super::state::{State, now};

/// After this long an operation is done even if nobody asks: who asks for the resource sees it done.
const PATIENCE: Duration = Duration::from_secs(3);

/// How an operation is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    /// google.longrunning.
    Long,
    Sql,
    Container,
    Compute,
}

/// What comes of it in the end.
#[derive(Clone, Debug)]
pub(crate) enum Effect {
    None,
    /// Fields of a resource get values.
    Set(&'static str, String, Value),
    Remove(&'static str, String),
}

/// A running or finished operation.
#[derive(Clone, Debug)]
pub(crate) struct Operation {
    pub(crate) style: Style,
    /// Fields that stay as they are.
    pub(crate) fields: Value,
    pub(crate) effect: Effect,
    pub(crate) failure: Option<Failure>,
    /// What it does to the resource when it fails.
    pub(crate) on_failure: Effect,
    /// How often it is told to be running; `None` for ever.
    pub(crate) polls: Option<u32>,
    /// What it answers in the end (google.longrunning).
    pub(crate) response: Value,
    /// The resource that cannot be changed as long as it runs.
    pub(crate) target: String,
    pub(crate) done: bool,
    begun: Instant,
    /// After this long it is done even if nobody asks.
    patience: Duration,
}

impl Operation {
    pub(crate) fn new(style: Style, target: impl Into<String>, fields: Value) -> Self {
        Self {
            style,
            fields,
            effect: Effect::None,
            failure: None,
            on_failure: Effect::None,
            polls: Some(0),
            response: json!({}),
            target: target.into(),
            done: false,
            begun: Instant::now(),
            patience: PATIENCE,
        }
    }

    pub(crate) fn effect(mut self, effect: Effect) -> Self {
        self.effect = effect;
        self
    }

    pub(crate) fn on_failure(mut self, effect: Effect) -> Self {
        self.on_failure = effect;
        self
    }

    pub(crate) fn response(mut self, kind: &str, value: &Value) -> Self {
        self.response = value.clone();
        self.response["@type"] = format!("type.googleapis.com/{kind}").into();
        self
    }

    fn to_json(&self) -> Value {
        let mut value = self.fields.clone();
        match self.style {
            Style::Long => {
                if self.done {
                    value["done"] = true.into();
                    match &self.failure {
                        Some(failure) => value["error"] = failure.to_status(),
                        None => value["response"] = self.response.clone(),
                    }
                }
            }
            Style::Sql => {
                value["status"] = if self.done { "DONE" } else { "RUNNING" }.into();
                if self.done {
                    value["endTime"] = now().into();
                }
                if let Some(failure) = self.failure.as_ref().filter(|_| self.done) {
                    value["error"] = json!({ "kind": "sql#operationErrors", "errors": [{
                        "kind": "sql#operationError", "code": failure.status, "message": failure.message }] });
                }
            }
            Style::Container => {
                value["status"] = if self.done { "DONE" } else { "RUNNING" }.into();
                if self.done {
                    value["endTime"] = now().into();
                }
                if let Some(failure) = self.failure.as_ref().filter(|_| self.done) {
                    value["error"] = failure.to_status();
                    value["statusMessage"] = failure.message.clone().into();
                }
            }
            Style::Compute => {
                value["status"] = if self.done { "DONE" } else { "RUNNING" }.into();
                value["progress"] = if self.done { 100 } else { 50 }.into();
                if self.done {
                    value["endTime"] = now().into();
                }
                if let Some(failure) = self.failure.as_ref().filter(|_| self.done) {
                    value["error"] = json!({ "errors": [{ "code": failure.reason, "message": failure.message }] });
                    value["httpErrorStatusCode"] = failure.code.into();
                    value["httpErrorMessage"] = failure.status.clone().into();
                }
            }
        }
        value
    }
}

impl State {
    /// Begins an operation, with what is to happen to that of this call, and says how it stands.
    pub(crate) fn begin(&mut self, name: &str, mut operation: Operation, call: &Call, polls: u32) -> Value {
        operation.polls = Some(polls);
        match &call.operation {
            Some(OperationFault::Slow(polls)) => {
                operation.polls = Some(*polls);
                // As if somebody had asked every second.
                operation.patience = PATIENCE + Duration::from_secs(u64::from(*polls));
            }
            Some(OperationFault::Endless) => operation.polls = None,
            Some(OperationFault::Fails { code, message }) => {
                operation.failure = Some(Failure::new(*code, message.clone()));
            }
            None => {}
        }
        if operation.polls == Some(0) {
            self.finish(&mut operation);
        }
        let value = operation.to_json();
        self.operations.insert(name.to_owned(), operation);
        value
    }

    /// How an operation stands; each question brings it on.
    pub(crate) fn poll(&mut self, name: &str) -> Option<Value> {
        let mut operation = self.operations.remove(name)?;
        if !operation.done {
            match &mut operation.polls {
                None => {}
                Some(0) => self.finish(&mut operation),
                Some(left) => *left -= 1,
            }
        }
        let value = operation.to_json();
        self.operations.insert(name.to_owned(), operation);
        Some(value)
    }

    /// The operations of a style whose names begin with `prefix`, as they stand.
    pub(crate) fn operations(&self, style: Style, prefix: &str) -> Vec<Value> {
        let all = self.operations.iter();
        all.filter(|(name, operation)| operation.style == style && name.starts_with(prefix))
            .map(|(_, operation)| operation.to_json())
            .collect()
    }

    /// Ends what has run long enough.
    pub(crate) fn settle(&mut self) {
        let due: Vec<String> = self
            .operations
            .iter()
            .filter(|(_, op)| !op.done && op.polls.is_some() && op.begun.elapsed() > op.patience)
            .map(|(name, _)| name.clone())
            .collect();
        for name in due {
            if let Some(mut operation) = self.operations.remove(&name) {
                self.finish(&mut operation);
                self.operations.insert(name, operation);
            }
        }
    }

    /// Whether an operation on this resource is running.
    pub(crate) fn is_busy(&self, target: &str) -> bool {
        self.operations.values().any(|operation| !operation.done && operation.target == target)
    }

    fn finish(&mut self, operation: &mut Operation) {
        operation.done = true;
        let effect = if operation.failure.is_some() { &operation.on_failure } else { &operation.effect };
        match effect.clone() {
            Effect::None => {}
            Effect::Set(kind, name, fields) => {
                if let Some(resource) = self.get_mut(kind, &name) {
                    merge(resource, &fields);
                }
            }
            Effect::Remove(kind, name) => drop(self.remove(kind, &name)),
        }
    }
}

/// Fields of `from` replace those of `into`, in depth; null removes.
pub(crate) fn merge(into: &mut Value, from: &Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (name, value) in from {
                if value.is_null() {
                    into.remove(name);
                } else {
                    merge(into.entry(name.clone()).or_insert(Value::Null), value);
                }
            }
        }
        (into, from) => *into = from.clone(),
    }
}
