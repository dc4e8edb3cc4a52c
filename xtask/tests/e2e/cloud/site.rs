//! A project of its own whose infrastructure is at the fake Google, and a server in the namespace that
//! the fake's pods act for.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use testbed::Home;
use testbed::google::Handle;

use crate::kube::wait_for;
use crate::run::{Ran, Running};
use crate::site::{LONGEST, copy_project, repository};
use crate::world::{self, World};
use crate::{Result, ensure};

/// How long a namespace may take to go with all that is in it.
const GONE: Duration = Duration::from_secs(120);

/// The environment's name.
pub const ENV: &str = "cloud";

/// The namespace that the fake's metadata server knows.
pub const NAMESPACE: &str = "mlflow";

/// The fake's project.
pub const PROJECT: &str = testbed::cluster::google::PROJECT;

/// The region.
pub const REGION: &str = "europe-west1";

/// The bucket, as it is called by default.
pub const BUCKET: &str = "testbed-project-mlflow";

/// A project whose infrastructure is at the fake Google.
pub struct Cloud<'w> {
    /// What all scenarios share.
    pub world: &'w World,
    /// The environment's name.
    pub env: &'static str,
    /// The fake.
    pub google: Handle,
    /// Its home folder.
    pub home: Home,
    /// Its copy of the project.
    pub root: PathBuf,
    terraform: Vec<(&'static str, OsString)>,
    for_pods: String,
}

impl<'w> Cloud<'w> {
    /// A fake Google in which nothing was ever made, and a project with `lines` in the table `infra` and
    /// `own` in the environment's own.
    ///
    /// # Errors
    /// When the fake does not come up.
    pub fn new(world: &'w World, kind: &str, own: &str, lines: &str) -> Result<Self> {
        Self::named(world, ENV, kind, own, lines)
    }

    /// The same with another name.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn named(world: &'w World, env: &'static str, kind: &str, own: &str, lines: &str) -> Result<Self> {
        // Its state is in its memory.
        world.place.stop("google")?.start()?;
        remove_namespace(world)?;
        let missing = "the testbed has no fake Google";
        let google = Handle::new(world.place.google.as_deref().ok_or(missing)?);
        let for_pods = world.place.google_for_pods.clone().ok_or(missing)?;
        let home = Home::new();
        let root = home.path().join("project");
        copy_project(&root)?;
        crate::site::copy(&repository().join("terraform"), &root.join("terraform"))?;
        // The stand-in's digest is not the one of the provider.
        let _ = std::fs::remove_file(root.join("terraform/.terraform.lock.hcl"));
        let cloud = Self { world, env, google, home, root, terraform: world.terraform()?, for_pods };
        cloud.write(kind, own, lines)?;
        Ok(cloud)
    }

    fn write(&self, kind: &str, own: &str, lines: &str) -> Result<()> {
        let (place, env) = (&self.world.place, self.env);
        let text = format!(
            "[environment.{env}]\nkind = {kind:?}\nnamespace = {NAMESPACE:?}\ndeadline = 180\nsoak = 5\ncpu = \"100m\"\n\
             scratch = \"256Mi\"\n{own}\n\
             [environment.{env}.infra]\nproject = {PROJECT:?}\nregion = {REGION:?}\n{lines}\n\
             [environment.{env}.env]\nSTORAGE_EMULATOR_HOST = {:?}\n\
             [environment.{env}.database]\nadmin-api = \"{}/sql/\"\nproxy-image = {:?}\n\
             [environment.{env}.image]\nplatforms = [{:?}]\n",
            place.gcs,
            self.for_pods,
            place.cloud_sql_proxy,
            world::platform(),
        );
        Ok(std::fs::write(self.root.join("deploy.toml"), text)?)
    }

    /// What every program of this project is started with: nothing of it leaves this machine.
    pub fn environment(&self) -> Vec<(String, OsString)> {
        let google = self.google.gcloud_env_in(&self.home.path().join("google"), PROJECT).into_iter();
        let google = google.chain(self.google.terraform_env(PROJECT)).map(|(name, value)| (name, value.into()));
        let terraform = self.terraform.iter().map(|(name, value)| ((*name).to_owned(), value.clone()));
        let cache = [("XDG_CACHE_HOME".to_owned(), world::cache_home().into_os_string())];
        google.chain(terraform).chain(cache).collect()
    }

    /// `xtask` with these arguments: nothing of it leaves this machine, and nothing of the developer's is
    /// touched.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = self.home.command(env!("CARGO_BIN_EXE_xtask"));
        world::keep_package_settings(&mut command);
        command.args(args).env_remove("KUBECONFIG").env("CARGO_MANIFEST_DIR", &self.root).envs(self.environment());
        command
    }

    /// Runs `xtask` to its end, whatever its exit code.
    ///
    /// # Errors
    /// When it does not end.
    pub fn xtask(&self, args: &[&str]) -> Result<Ran> {
        Running::start(&format!("xtask {}", args.join(" ")), self.command(args))?.end(LONGEST)
    }

    /// The answer of `xtask ARGS --env NAME --json`, which has to succeed.
    ///
    /// # Errors
    /// When it does not.
    pub fn answer(&self, args: &[&str]) -> Result<(Value, f64)> {
        let mut all = args.to_vec();
        all.extend(["--env", self.env, "--json"]);
        let ran = self.xtask(&all)?.expect(0)?;
        Ok((ran.json()?, ran.seconds))
    }

    /// The paths of the calls since [`Handle::clear_log`] that change something.
    pub fn writes(&self) -> Vec<String> {
        let reads = ["testIamPermissions", "getIamPolicy", "generateEphemeralCert", "oauth2", "generateAccessToken"];
        let log = self.google.log().into_iter();
        let writes = log.filter(|entry| {
            let path = format!("{}{}", entry.service, entry.path);
            entry.method != "GET" && !reads.iter().any(|read| path.contains(read))
        });
        writes.map(|entry| format!("{} {}{}", entry.method, entry.service, entry.path)).collect()
    }

    /// What of a kind exists at the fake.
    pub fn resources(&self, kind: &str) -> Vec<String> {
        let state = self.google.state();
        state["resources"][kind].as_object().into_iter().flatten().map(|(name, _)| name.clone()).collect()
    }

    /// Gives the server an artifact, and finds it in the bucket of the storage itself.
    ///
    /// # Errors
    /// When it is not there.
    pub fn expect_artifacts_in_bucket(&self) -> Result<()> {
        let service = self.world.kube.get(&format!("/api/v1/namespaces/{NAMESPACE}/services/mlflow"))?;
        let (ip, port) = (service["spec"]["clusterIP"].as_str().unwrap_or("?"), &service["spec"]["ports"][0]["port"]);
        let name = "e2e/artifact.txt";
        let put = format!("http://{ip}:{port}/api/2.0/mlflow-artifacts/artifacts/{name}");
        let list = format!("{}/storage/v1/b/{BUCKET}/o", self.world.place.gcs);
        let answer: Value = self.world.runtime.block_on(async {
            let client = reqwest::Client::builder().no_proxy().build()?;
            client.put(&put).body("an artifact").send().await?.error_for_status()?;
            Result::Ok(client.get(&list).send().await?.error_for_status()?.json().await?)
        })?;
        let names: Vec<&str> =
            answer["items"].as_array().into_iter().flatten().filter_map(|item| item["name"].as_str()).collect();
        ensure!(names.iter().any(|found| found.ends_with(name)), "{name} is not in {BUCKET}: {names:?}");
        Ok(())
    }

    /// The server and the project are gone; what is left is said by the fake.
    ///
    /// # Errors
    /// When the namespace cannot be deleted.
    pub fn close(self) -> Result<()> {
        if !self.world.keep {
            remove_namespace(self.world)?;
        }
        Ok(())
    }

    /// Fails where a text is in a file below the project: a state, a plan, a log, a report.
    ///
    /// # Errors
    /// Naming the file.
    pub fn expect_nowhere(&self, secret: &str) -> Result<()> {
        let mut folders = vec![self.home.path().to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(&folder)? {
                let entry = entry?;
                let kind = entry.file_type()?;
                if kind.is_dir() {
                    folders.push(entry.path());
                } else if kind.is_file() {
                    let bytes = std::fs::read(entry.path())?;
                    let found = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
                    ensure!(!found, "a secret is in {}", entry.path().display());
                }
            }
        }
        Ok(())
    }
}

/// The namespace is known to the fake by its name, so the next scenario needs it too.
fn remove_namespace(world: &World) -> Result<()> {
    let path = format!("/api/v1/namespaces/{NAMESPACE}");
    world.kube.delete(&path)?;
    wait_for("the namespace's end", GONE, || Ok(world.kube.find(&path)?.is_none().then_some(())))
}
