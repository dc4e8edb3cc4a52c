//! Errors as Google writes them (AIP-193, and the older form with `errors`).

use serde_json::{Value, json};

use super::call::Reply;

/// A call that does not succeed.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(crate) code: u16,
    /// The canonical name, like `NOT_FOUND`.
    pub(crate) status: String,
    /// The reason of the older form, like `notFound`.
    pub(crate) reason: String,
    pub(crate) message: String,
    pub(crate) details: Vec<Value>,
    pub(crate) retry_after: Option<u32>,
}

pub(crate) type Outcome<T> = Result<T, Failure>;

impl Failure {
    /// With the names that usually go with this code.
    pub(crate) fn new(code: u16, message: impl Into<String>) -> Self {
        let (status, reason) = names(code);
        Self {
            code,
            status: status.to_owned(),
            reason: reason.to_owned(),
            message: message.into(),
            details: Vec::new(),
            retry_after: None,
        }
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(400, message)
    }

    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Self::new(404, message)
    }

    pub(crate) fn exists(message: impl Into<String>) -> Self {
        Self::new(409, message)
    }

    /// The state of things forbids it.
    pub(crate) fn precondition(message: impl Into<String>) -> Self {
        Self::new(400, message).status("FAILED_PRECONDITION").reason("failedPrecondition")
    }

    /// A permission is missing.
    pub(crate) fn permission(permission: &str, resource: &str) -> Self {
        let message = format!("Permission '{permission}' denied on resource '{resource}' (or it may not exist).");
        let metadata = json!({ "permission": permission, "resource": resource });
        Self::new(403, message).info("IAM_PERMISSION_DENIED", "iam.googleapis.com", metadata)
    }

    pub(crate) fn status(mut self, status: &str) -> Self {
        status.clone_into(&mut self.status);
        self
    }

    pub(crate) fn reason(mut self, reason: &str) -> Self {
        reason.clone_into(&mut self.reason);
        self
    }

    pub(crate) fn retry_after(mut self, seconds: u32) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    pub(crate) fn detail(mut self, detail: Value) -> Self {
        self.details.push(detail);
        self
    }

    /// Says for programs what happened.
    pub(crate) fn info(self, reason: &str, domain: &str, metadata: Value) -> Self {
        self.detail(json!({
            "@type": "type.googleapis.com/google.rpc.ErrorInfo",
            "reason": reason,
            "domain": domain,
            "metadata": metadata,
        }))
    }

    /// As an operation carries it.
    pub(crate) fn to_status(&self) -> Value {
        json!({ "code": grpc_code(&self.status), "message": self.message, "details": self.details })
    }

    /// The answer.
    pub(crate) fn to_reply(&self) -> Reply {
        let mut error = json!({
            "code": self.code,
            "message": self.message,
            "status": self.status,
            "errors": [{ "message": self.message, "domain": "global", "reason": self.reason }],
        });
        if !self.details.is_empty() {
            error["details"] = json!(self.details);
        }
        let mut reply = Reply::json(&json!({ "error": error }));
        reply.status = self.code;
        if let Some(seconds) = self.retry_after {
            reply.headers.push(("Retry-After", seconds.to_string()));
        }
        reply
    }
}

fn names(code: u16) -> (&'static str, &'static str) {
    match code {
        400 => ("INVALID_ARGUMENT", "invalid"),
        401 => ("UNAUTHENTICATED", "authError"),
        403 => ("PERMISSION_DENIED", "forbidden"),
        404 => ("NOT_FOUND", "notFound"),
        409 => ("ALREADY_EXISTS", "alreadyExists"),
        412 => ("FAILED_PRECONDITION", "conditionNotMet"),
        429 => ("RESOURCE_EXHAUSTED", "rateLimitExceeded"),
        501 => ("UNIMPLEMENTED", "notImplemented"),
        503 => ("UNAVAILABLE", "backendError"),
        504 => ("DEADLINE_EXCEEDED", "backendError"),
        _ => ("INTERNAL", "backendError"),
    }
}

/// The number of a canonical name (google.rpc.Code).
pub(crate) fn grpc_code(status: &str) -> u8 {
    match status {
        "INVALID_ARGUMENT" => 3,
        "DEADLINE_EXCEEDED" => 4,
        "NOT_FOUND" => 5,
        "ALREADY_EXISTS" => 6,
        "PERMISSION_DENIED" => 7,
        "RESOURCE_EXHAUSTED" => 8,
        "FAILED_PRECONDITION" => 9,
        "ABORTED" => 10,
        "UNIMPLEMENTED" => 12,
        "UNAVAILABLE" => 14,
        "UNAUTHENTICATED" => 16,
        _ => 13,
    }
}
