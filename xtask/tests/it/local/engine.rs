//! The local server in containers of a real podman, whose storage, state and configuration are in
//! the test's own home.

use serde_json::Value;
use testbed::{Home, require};

use super::World;

/// An environment whose servers are podman's; `None` where podman is missing.
fn world() -> Option<World> {
    let podman = require("podman", "podman")?;
    require("runc", "runc")?;
    let mut world = World { home: Home::new(), port: testbed::free_port(), user: None, env: Vec::new() };
    let path = |name: &str| world.home.path().join(name).display().to_string();
    let storage =
        format!("[storage]\ndriver = \"vfs\"\ngraphroot = {:?}\nrunroot = {:?}\n", path("storage"), path("runroot"));
    std::fs::write(path("storage.conf"), storage).unwrap();
    std::fs::write(world.home.file("docker/config.json"), "{}").unwrap();
    // podman's own limits are higher than what a container within a container may set.
    let containers = format!(
        "[containers]\ndefault_ulimits = [\"nofile=1024:1024\", \"nproc=1024:1024\"]\n\
         [engine]\nruntime = \"runc\"\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"none\"\nlock_type = \"file\"\n\
         static_dir = {:?}\ntmp_dir = {:?}\nvolume_path = {:?}\n",
        path("static"),
        path("tmp"),
        path("volumes")
    );
    std::fs::write(path("containers.conf"), containers).unwrap();
    world.env = vec![
        ("CONTAINERS_STORAGE_CONF", path("storage.conf")),
        ("CONTAINERS_CONF", path("containers.conf")),
        ("XTASK_SANDBOX", "podman".to_owned()),
    ];
    // What podman itself cannot do here is not ours to test.
    let image = world.image("probe", &[("BEHAVIOUR", "exit")]);
    let podman = |args: &[&str]| {
        let mut command = world.home.command(&podman);
        command.envs(world.env.iter().map(|(name, value)| (name, value))).current_dir(image.parent().unwrap());
        command.args(args).output().unwrap()
    };
    // podman names the image after the path, which must be in lower case: a relative one is.
    let loaded = podman(&["pull", "--quiet", "oci:probe"]);
    let id = String::from_utf8_lossy(&loaded.stdout).trim().to_owned();
    let ran = podman(&["run", "--rm", "--publish=127.0.0.1::5000", &id]);
    if ran.status.code() != Some(3) {
        let why = format!(
            "podman runs no containers here: {}{}",
            String::from_utf8_lossy(&loaded.stderr),
            String::from_utf8_lossy(&ran.stderr)
        );
        assert!(std::env::var_os("CI").is_none(), "{why}");
        testbed::skip(why.lines().last().unwrap_or_default());
        return None;
    }
    Some(world)
}

/// What podman says about the server's container.
fn container(world: &World) -> Value {
    let output = world
        .home
        .command("podman")
        .envs(world.env.iter().map(|(name, value)| (name, value)))
        .args(["container", "inspect", "mlflow-local"])
        .output()
        .unwrap();
    serde_json::from_slice::<Value>(&output.stdout).map_or(Value::Null, |list| list[0].clone())
}

#[test]
fn podman_serves_replaces_goes_back_and_keeps_the_data() {
    let Some(world) = world() else { return };
    let one = world.image("one", &[("SCHEMA", "1")]);
    let (first, said) = world.deploy(&one, 0);
    assert_eq!(first["changed"], true, "{said}");
    world.get("/write");

    let seen = container(&world);
    let host = &seen["HostConfig"];
    assert_eq!((&host["ReadonlyRootfs"], &host["Privileged"]), (&Value::Bool(true), &Value::Bool(false)));
    assert_eq!(seen["EffectiveCaps"].as_array().map_or(0, Vec::len), 0, "{}", seen["EffectiveCaps"]);
    assert_eq!(host["SecurityOpt"][0], "no-new-privileges");
    assert_eq!(seen["Config"]["User"], "65532:65532");
    let port = world.port.to_string();
    assert_eq!(host["PortBindings"][format!("{port}/tcp")][0]["HostIp"], "127.0.0.1");
    assert_eq!(seen["Config"]["Labels"]["mlflow-on-kubernetes.release"], world.state()["current"]["id"]);
    assert_eq!(world.status()["process"], "podman container mlflow-local");
    let logs = world.run(&["logs"]);
    assert!(String::from_utf8_lossy(&logs.stdout).contains("serving one"), "{logs:?}");

    // Nothing changed.
    let (second, _) = world.deploy(&one, 0);
    assert_eq!((second["changed"].as_bool(), &second["image"]), (Some(false), &first["image"]));
    assert_eq!(container(&world)["Id"], seen["Id"]);

    // A changed image replaces it and keeps the data, migrated.
    world.deploy(&world.image("two", &[("SCHEMA", "2")]), 0);
    assert_eq!((world.get("/name").as_str(), world.get("/database").as_str()), ("two", "2\nrow\n"));

    // Failing ones are undone.
    let failing = [
        ("exits", [("SCHEMA", "3"), ("BEHAVIOUR", "exit")], "this one cannot work"),
        ("refuses", [("SCHEMA", "3"), ("MIGRATION", "none")], "ended before it served (exit code 4)"),
        ("half", [("SCHEMA", "3"), ("MIGRATION", "fails")], "could not be migrated (exit code 1)"),
        ("absent", [("SCHEMA", "2"), ("PATH", "/nowhere")], "cannot start container"),
    ];
    for (name, settings, expected) in failing {
        let (error, said) = world.deploy(&world.image(name, &settings), 10);
        assert_eq!(error["error"]["kind"], "rolled-back", "{name}");
        assert!(said.contains(expected), "{name}: {said}");
        assert_eq!((world.get("/name").as_str(), world.get("/database").as_str()), ("two", "2\nrow\n"), "{name}");
    }

    // It ends gently and leaves nothing but its data and its log.
    let down = world.run(&["down", "--json"]);
    let answer: Value = serde_json::from_slice(&down.stdout).unwrap();
    assert_eq!((answer["stopped"].as_bool(), answer["killed"].as_bool()), (Some(true), Some(false)));
    assert_eq!(container(&world), Value::Null);
    assert_eq!(world.run(&["status"]).status.code(), Some(12));
    let logs = world.run(&["logs"]);
    assert!(String::from_utf8_lossy(&logs.stdout).contains("serving two"), "{logs:?}");
    world.deploy(&world.image("two", &[("SCHEMA", "2")]), 0);
    assert_eq!(world.get("/database"), "2\nrow\n");
}

#[test]
fn a_container_that_died_or_a_deploy_that_was_killed_is_completed_by_the_next() {
    let Some(world) = world() else { return };
    let one = world.image("one", &[("SCHEMA", "1")]);
    world.deploy(&one, 0);
    world.get("/write");
    super::signal(container(&world)["State"]["Pid"].as_i64().unwrap(), "-KILL");
    super::eventually("the port is free", || super::get(world.port, "/health").err());
    assert_eq!(world.status()["running"], false);
    assert_eq!(world.deploy(&one, 0).0["changed"], true);

    let slow = world.image("slow", &[("SCHEMA", "2"), ("MIGRATION", "slow")]);
    let (image, port) = (format!("oci:{}", slow.display()), world.port.to_string());
    let mut child = world.command(&world.deploy_args(&image, &port)).spawn().unwrap();
    let database = world.environment().join("data/mlflow.db");
    let half = || (std::fs::read_to_string(&database).ok()? == "half").then_some(());
    super::eventually("the migration has begun", half);
    child.kill().unwrap();
    child.wait().unwrap();
    world.deploy(&one, 0);
    assert_eq!((world.get("/name").as_str(), world.get("/database").as_str()), ("one", "1\nrow\n"));
}

#[test]
fn another_sandbox_takes_over_and_a_strangers_container_is_left_alone() {
    let Some(mut world) = world() else { return };
    if !testbed::have_namespaces() {
        testbed::skip("this machine forbids namespaces");
        return;
    }
    let one = world.image("one", &[("SCHEMA", "1")]);
    world.deploy(&one, 0);
    world.get("/write");
    world.env.retain(|(name, _)| *name != "XTASK_SANDBOX");
    assert_eq!(world.deploy(&one, 0).0["changed"], false, "what runs is kept unless something else is asked for");
    world.env.push(("XTASK_SANDBOX", "namespaces".to_owned()));
    assert_eq!(world.deploy(&one, 0).0["changed"], true);
    assert_eq!((container(&world), world.get("/database").as_str()), (Value::Null, "1\nrow\n"));

    let podman = |args: &[&str]| {
        let mut command = world.home.command("podman");
        command.envs(world.env.iter().map(|(name, value)| (name, value))).args(args).output().unwrap()
    };
    let images = podman(&["images", "--quiet"]);
    let image = String::from_utf8_lossy(&images.stdout).lines().next().unwrap().to_owned();
    assert!(podman(&["create", "--name", "mlflow-local", &image]).status.success());
    world.env.retain(|(name, _)| *name != "XTASK_SANDBOX");
    world.env.push(("XTASK_SANDBOX", "podman".to_owned()));
    let (_, said) = world.deploy(&one, 10);
    assert!(said.contains("container mlflow-local that is not ours"), "{said}");
    assert_eq!(world.get("/name"), "one");
}
