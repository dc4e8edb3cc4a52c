//! terraform/ with terraform itself: its form, its own tests, what a scanner thinks of it. Where the
//! google provider's registry is not at hand, the testbed's stand-in has the provider's schema.

mod apply;
mod checkov;

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

use testbed::terraform::{Mirror, TOOLS, prepare};
use testbed::{Home, require, skip};

use crate::node::programs;

/// terraform/ of this repository.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../terraform")
}

/// terraform, if it is installed.
pub fn terraform() -> Option<PathBuf> {
    require("terraform", "terraform, of HashiCorp's repository")
}

/// A copy of terraform/ in a home of its own, ready to run; without the lock, which names the real provider.
struct World {
    home: Home,
    dir: PathBuf,
    terraform: PathBuf,
    mirror: &'static Mirror,
}

impl World {
    /// `None` where a program is missing.
    fn new() -> Option<Self> {
        let terraform = terraform()?;
        let mirror = mirror()?;
        let home = Home::new();
        let dir = home.path().join("terraform");
        copy(&folder(), &dir);
        let world = Self { home, dir, terraform, mirror };
        world.succeed(&["init", "-input=false"]);
        Some(world)
    }

    /// terraform with those arguments.
    fn command(&self, args: &[&str]) -> Command {
        let mut command = self.home.command(&self.terraform);
        command.args(args).current_dir(&self.dir).stdin(Stdio::null());
        command.envs(self.mirror.environment()).env("TF_IN_AUTOMATION", "1").env("TF_CLI_ARGS", "-no-color");
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().expect("terraform starts")
    }

    /// What it printed; panics with it where it failed.
    fn succeed(&self, args: &[&str]) -> String {
        told(args, &self.run(args))
    }
}

/// What a program printed; panics with it where it failed.
fn told(what: &[&str], output: &Output) -> String {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{what:?}: {}\n{out}\n{err}", output.status);
    out.into_owned()
}

/// The stand-in provider, made once for all tests; `None` where a program is missing.
pub fn mirror() -> Option<&'static Mirror> {
    static MIRROR: OnceLock<Mirror> = OnceLock::new();
    if testbed::cluster::go_candidates().is_empty() {
        let why = format!("go is not installed: {}", testbed::cluster::GO);
        assert!(std::env::var_os("CI").is_none(), "{why}");
        skip(&why);
        return None;
    }
    for (tool, package) in TOOLS {
        require(tool, package)?;
    }
    Some(MIRROR.get_or_init(|| {
        let runtime = tokio::runtime::Runtime::new().expect("an async runtime");
        runtime.block_on(prepare(&programs(), &testbed::cluster::Silent)).expect("the stand-in provider")
    }))
}

/// Copies what is in git: neither state nor lock, nor what `init` leaves.
pub fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder");
    for entry in std::fs::read_dir(from).expect("a folder") {
        let (entry, name) = entry.map(|entry| (entry.path(), entry.file_name())).expect("an entry");
        let name = name.to_string_lossy();
        if name.starts_with(".terraform") || name.contains("tfstate") || name == "environments" {
            continue;
        }
        if entry.is_dir() {
            copy(&entry, &to.join(&*name));
        } else {
            std::fs::copy(&entry, to.join(&*name)).expect("a copy");
        }
    }
}

#[test]
fn it_is_formatted_as_terraform_formats() {
    let Some(terraform) = terraform() else { return };
    let home = Home::new();
    let mut fmt = home.command(terraform);
    fmt.args(["fmt", "-check", "-diff", "-recursive"]).arg(folder()).env("CHECKPOINT_DISABLE", "1");
    told(&["fmt"], &fmt.output().expect("terraform starts"));
}

#[test]
fn it_is_valid_and_its_own_tests_pass() {
    let Some(world) = World::new() else { return };
    world.succeed(&["validate"]);
    let said = world.succeed(&["test"]);
    assert!(said.contains("Success!") && said.contains(" 0 failed."), "{said}");
}
