//! The init container that holds a server back until its databases have its schema.
//!
//! It has no manifest: it is the server's own container with another program, so that it reaches the
//! databases as the server does, also where users have changed `deployment.yaml`.

use k8s_openapi::api::core::v1::{Container, PodSpec};

use super::pod::wrong;
use crate::cluster::CONTAINER;
use crate::cluster::job::with_program;
use crate::error::Result;
use crate::schema::gate;

/// Puts it behind all that starts before the server: the Auth Proxy is its way to the database, too.
///
/// # Errors
/// `Input` where the manifest has a container of its name.
pub fn set(pod: &mut PodSpec) -> Result<()> {
    let before = pod.init_containers.iter().flatten();
    if before.chain(&pod.containers).any(|container| container.name == gate::CONTAINER) {
        let message = format!("a container is named {} already", gate::CONTAINER);
        return Err(wrong(message).hint("give it another name: deploy adds one of that name"));
    }
    let Some(server) = pod.containers.iter().find(|container| container.name == CONTAINER) else { return Ok(()) };
    let command = ["python", "-c", gate::PROGRAM].map(str::to_owned).to_vec();
    let gate = Container { name: gate::CONTAINER.to_owned(), ..with_program(server.clone(), command) };
    pod.init_containers.get_or_insert_default().push(gate);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::tests::{IMAGE, cloud_sql, container, find, objects, root, secrets};
    use super::super::{Inputs, Manifests, Secrets, render};
    use super::*;
    use crate::cluster::ObjectKind;
    use crate::error::Kind;

    #[test]
    fn the_gate_is_the_server_with_another_program_behind_the_proxy() {
        let config = cloud_sql();
        let all = objects(&config, &Secrets::default());
        let init = &find(&all, ObjectKind::Deployment)["spec"]["template"]["spec"]["initContainers"];
        let names: Vec<&str> = init.as_array().unwrap().iter().map(|found| found["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["cloud-sql-proxy", gate::CONTAINER]);
        let (gate, server) =
            (container(&all, "initContainers", gate::CONTAINER), container(&all, "containers", CONTAINER));
        for same in ["image", "env", "envFrom", "resources", "securityContext", "volumeMounts"] {
            assert_eq!(gate[same], server[same], "{same}");
        }
        for none in ["ports", "startupProbe", "readinessProbe", "livenessProbe", "lifecycle", "restartPolicy"] {
            assert!(gate[none].is_null(), "{none}");
        }
        assert_eq!(gate["command"][2], gate::PROGRAM);

        let mut manifests = Manifests::read(&root()).unwrap();
        let pod = manifests.deployment.spec.as_mut().unwrap().template.spec.as_mut().unwrap();
        pod.init_containers.as_mut().unwrap()[0].name = gate::CONTAINER.to_owned();
        let inputs = Inputs { env: "test", config: &config, image: IMAGE, version: None, secrets: &secrets() };
        assert_eq!(render(&manifests, &inputs).unwrap_err().kind(), Kind::Input);
    }
}
