//! What a failed scenario leaves for a person to read.

use serde_json::Value;

use crate::site::Site;

/// Commands with their output, pods with their states and logs, events.
pub fn text(site: &Site<'_>) -> String {
    let mut text = std::fs::read_to_string(site.transcript()).unwrap_or_default();
    let kube = &site.world.kube;
    match site.deployment() {
        Ok(Some(deployment)) => {
            let metadata = &deployment["metadata"];
            text.push_str(&format!(
                "\nDeployment: generation {}, annotations {:#}\nstatus {:#}\n",
                metadata["generation"], metadata["annotations"], deployment["status"]
            ));
        }
        Ok(None) => text.push_str("\nno Deployment\n"),
        Err(error) => text.push_str(&format!("\nno Deployment: {error}\n")),
    }
    for pod in kube.list(&site.path("v1", "pods")).unwrap_or_default() {
        text.push_str(&of_pod(site, &pod));
    }
    text.push_str("\nEvents:\n");
    let mut events = kube.list(&site.path("v1", "events")).unwrap_or_default();
    let time = |event: &Value| {
        let times = ["lastTimestamp", "eventTime", "firstTimestamp"];
        times.iter().find_map(|key| event[*key].as_str()).unwrap_or_default().to_owned()
    };
    events.sort_by_key(time);
    for event in events {
        text.push_str(&format!(
            "{} {} x{} {}/{}: {}\n",
            time(&event),
            event["reason"].as_str().unwrap_or_default(),
            event["count"],
            event["involvedObject"]["kind"].as_str().unwrap_or_default(),
            event["involvedObject"]["name"].as_str().unwrap_or_default(),
            event["message"].as_str().unwrap_or_default()
        ));
    }
    text
}

fn of_pod(site: &Site<'_>, pod: &Value) -> String {
    let name = pod["metadata"]["name"].as_str().unwrap_or_default();
    let mut text = format!("\nPod {name}: {}\n", pod["status"]["phase"]);
    for list in ["initContainerStatuses", "containerStatuses"] {
        for status in pod["status"][list].as_array().into_iter().flatten() {
            let container = status["name"].as_str().unwrap_or_default();
            text.push_str(&format!(
                "  {container}: ready {}, restarts {}, state {}, last {}\n",
                status["ready"], status["restartCount"], status["state"], status["lastState"]
            ));
            for previous in [true, false] {
                // Many containers have no previous run, or none at all.
                if let Ok(log) = site.world.kube.log(&site.name, name, container, previous) {
                    let which = if previous { "previous log" } else { "log" };
                    text.push_str(&format!("  {which} of {container}:\n{log}\n"));
                }
            }
        }
    }
    text
}
