//! Cloud Billing: whether somebody pays.

use serde_json::json;

use super::call::{Call, Reply};
use super::core::Core;
use super::failure::Outcome;

/// Answers a call.
pub(crate) fn serve(core: &Core, call: &Call) -> Outcome<Reply> {
    let state = core.state();
    let parts = call.parts();
    let ("GET", ["v1", "projects", project, "billingInfo"]) = (call.method.as_str(), parts.as_slice()) else {
        return Err(call.unknown());
    };
    let project = state.project(project)?;
    let account = if project.billing { "billingAccounts/0X0X0X-0X0X0X-0X0X0X" } else { "" };
    Ok(json!({
        "name": format!("projects/{}/billingInfo", project.id),
        "projectId": project.id,
        "billingAccountName": account,
        "billingEnabled": project.billing,
    })
    .into())
}
