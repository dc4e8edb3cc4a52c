//! What one scenario has for itself: a namespace, a database, a copy of the project and a home.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use testbed::Home;

use crate::load::{Load, Shape};
use crate::run::{Ran, Running};
use crate::world::World;
use crate::{Result, dump, ensure};

/// The environment's name in the site's deploy.toml.
pub const ENV: &str = "site";

/// Longer than any command of a scenario takes.
pub const LONGEST: Duration = Duration::from_secs(900);

/// What deploy.toml says.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Lines of the environment's own table, above all others.
    pub lines: Vec<String>,
    /// `context`.
    pub context: String,
    /// `kubeconfig`.
    pub kubeconfig: PathBuf,
    /// Pods.
    pub replicas: u32,
    /// Seconds.
    pub deadline: u64,
    /// Seconds.
    pub soak: u64,
    /// Memory of a pod.
    pub memory: String,
    /// Room in a pod's temporary folder.
    pub scratch: String,
    /// Variables of the server.
    pub env: BTreeMap<String, String>,
    /// What the file holds that `uri-file` names.
    pub database_uri: String,
    /// `[image] repository`.
    pub repository: String,
    /// Lines of the table `database`; without any, the URI is in a file.
    pub database: Vec<String>,
    /// Lines of the table `backup`.
    pub backup: Vec<String>,
}

/// A scenario's place. It ends with [`Site::close`] or [`World::give_back`]; dropped before, it has
/// failed: then its pods, events and logs are kept.
pub struct Site<'w> {
    /// What all sites share.
    pub world: &'w World,
    /// The namespace's and the database's name.
    pub name: String,
    /// Its home folder.
    pub home: Home,
    /// Its copy of the project.
    pub root: PathBuf,
    /// What deploy.toml says.
    pub settings: Settings,
    closed: bool,
}

impl<'w> Site<'w> {
    /// A new one: an empty database, and no namespace yet.
    ///
    /// # Errors
    /// When the database cannot be made.
    pub fn new(world: &'w World, name: &str) -> Result<Self> {
        let name = world.unique(name);
        world.database.create(&name)?;
        let home = Home::new();
        let root = home.path().join("project");
        let settings = world.settings(&name);
        let site = Self { world, name, home, root, settings, closed: false };
        copy_project(&site.root)?;
        site.write()?;
        Ok(site)
    }

    /// One that was used before.
    pub fn parked(world: &'w World, name: String, home: Home, root: PathBuf) -> Self {
        let settings = world.settings(&name);
        Self { world, name, home, root, settings, closed: false }
    }

    /// What is left of it between two scenarios.
    pub fn park(mut self) -> (String, Home, PathBuf) {
        self.closed = true;
        (self.name.clone(), std::mem::take(&mut self.home), self.root.clone())
    }

    /// Changes the settings and writes them.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn set(&mut self, change: impl FnOnce(&mut Settings)) -> Result<()> {
        change(&mut self.settings);
        self.write()
    }

    /// Sets a deadline that does not keep the tests waiting; where kubectl is compared in full, both
    /// keep the default.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn deadline(&mut self, seconds: u64) -> Result<()> {
        match self.world.full {
            true => Ok(()),
            false => self.set(|settings| settings.deadline = seconds),
        }
    }

    /// Back to the settings of a healthy site.
    ///
    /// # Errors
    /// When the files cannot be written.
    pub fn reset(&mut self) -> Result<()> {
        self.settings = self.world.settings(&self.name);
        copy_project(&self.root)?;
        let _ = std::fs::remove_file(self.transcript());
        // Whoever had it before may have been lent a login.
        let _ = std::fs::remove_file(crate::world::login_file(&self.home));
        self.write()
    }

    fn write(&self) -> Result<()> {
        let settings = &self.settings;
        let uri = self.home.file("database-uri");
        write_private(&uri, &settings.database_uri)?;
        let quoted = |path: &Path| format!("{:?}", path.display().to_string());
        let mut text = format!("[image]\nrepository = {:?}\n", settings.repository);
        text.push_str(&format!("platforms = [{:?}]\n\n[environment.{ENV}]\n", crate::world::platform()));
        text.push_str("kind = \"kubernetes\"\n");
        text.push_str(&format!("kubeconfig = {}\n", quoted(&settings.kubeconfig)));
        text.push_str(&format!("context = {:?}\nnamespace = {:?}\n", settings.context, self.name));
        text.push_str(&format!("replicas = {}\nmemory = {:?}\n", settings.replicas, settings.memory));
        text.push_str(&format!("cpu = \"100m\"\nscratch = {:?}\n", settings.scratch));
        text.push_str(&format!("deadline = {}\nsoak = {}\n", settings.deadline, settings.soak));
        for line in &settings.lines {
            text.push_str(&format!("{line}\n"));
        }
        text.push_str(&format!("\n[environment.{ENV}.env]\n"));
        for (name, value) in &settings.env {
            text.push_str(&format!("{name} = {value:?}\n"));
        }
        text.push_str(&format!("\n[environment.{ENV}.database]\n"));
        match settings.database.is_empty() {
            true => text.push_str(&format!("uri-file = {}\n", quoted(&uri))),
            false => text.push_str(&format!("{}\n", settings.database.join("\n"))),
        }
        let artifacts = format!("{}/{}", self.world.place.bucket, self.name);
        text.push_str(&format!("\n[environment.{ENV}.artifacts]\nuri = {artifacts:?}\n"));
        if !settings.backup.is_empty() {
            text.push_str(&format!("\n[environment.{ENV}.backup]\n{}\n", settings.backup.join("\n")));
        }
        Ok(std::fs::write(self.root.join("deploy.toml"), text)?)
    }

    /// Changes a file of the project. Every text must be there.
    ///
    /// # Errors
    /// When it is not.
    pub fn edit(&self, file: &str, changes: &[(&str, &str)]) -> Result<()> {
        let path = self.root.join(file);
        let mut text = std::fs::read_to_string(&path)?;
        for (from, to) in changes {
            ensure!(text.contains(from), "{file} has no {from:?}");
            text = text.replacen(from, to, 1);
        }
        Ok(std::fs::write(path, text)?)
    }

    /// `xtask` with these arguments, in this site's home and project.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = self.home.command(env!("CARGO_BIN_EXE_xtask"));
        crate::world::keep_package_settings(&mut command);
        command
            .args(args)
            .env_remove("KUBECONFIG")
            .env("CARGO_MANIFEST_DIR", &self.root)
            .env("XDG_CACHE_HOME", crate::world::cache_home());
        command
    }

    /// `kubectl` as the cluster's administrator, in this site's namespace.
    pub fn kubectl(&self, args: &[&str]) -> Command {
        let mut command = self.home.command(&self.world.place.kubectl);
        command.arg("--kubeconfig").arg(&self.world.place.kubeconfig).args(["--namespace", &self.name]).args(args);
        command
    }

    /// Starts `xtask`.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(&self, args: &[&str]) -> Result<Running> {
        Running::start(&format!("xtask {}", args.join(" ")), self.command(args))
    }

    /// Runs `xtask` to its end, whatever its exit code.
    ///
    /// # Errors
    /// When it does not end.
    pub fn xtask(&self, args: &[&str]) -> Result<Ran> {
        self.keep(self.start(args)?.end(LONGEST)?)
    }

    /// Starts `deploy` of the real image, or of the one that `more` names.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_deploy(&self, more: &[&str]) -> Result<Running> {
        let mut args = vec!["deploy", "--env", ENV];
        if !more.contains(&"--image") {
            args.extend(["--image", &self.world.image]);
        }
        args.extend(more);
        self.start(&args)
    }

    /// Runs `deploy` of the real image, or of the one that `more` names.
    ///
    /// # Errors
    /// When it does not end.
    pub fn deploy(&self, more: &[&str]) -> Result<Ran> {
        self.keep(self.start_deploy(more)?.end(LONGEST)?)
    }

    /// Keeps what a command printed for the case that the scenario fails.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn keep(&self, ran: Ran) -> Result<Ran> {
        use std::io::Write as _;
        let mut file = std::fs::OpenOptions::new().append(true).create(true).open(self.transcript())?;
        writeln!(file, "$ {} # {:?} after {:.1} s\n{}{}", ran.what, ran.code, ran.seconds, ran.said(), ran.out)?;
        Ok(ran)
    }

    /// What commands printed.
    pub fn transcript(&self) -> PathBuf {
        self.home.path().join("transcript")
    }

    /// A path of the namespace: `/apis/apps/v1/namespaces/NAME/deployments/mlflow`.
    pub fn path(&self, group: &str, rest: &str) -> String {
        let root = if group.starts_with('v') { "api" } else { "apis" };
        format!("/{root}/{group}/namespaces/{}/{rest}", self.name)
    }

    /// The Deployment's path.
    pub fn deployment_path(&self) -> String {
        self.path("apps/v1", "deployments/mlflow")
    }

    /// The Deployment, if there is one.
    ///
    /// # Errors
    /// When the API server does not answer.
    pub fn deployment(&self) -> Result<Option<Value>> {
        self.world.kube.find(&self.deployment_path())
    }

    /// `http://CLUSTER-IP:PORT` of the Service.
    ///
    /// # Errors
    /// When there is none.
    pub fn service(&self) -> Result<String> {
        let service = self.world.kube.get(&self.path("v1", "services/mlflow"))?;
        let ip = service["spec"]["clusterIP"].as_str().ok_or("a Service without an address")?;
        Ok(format!("http://{ip}:{}", service["spec"]["ports"][0]["port"]))
    }

    /// Clients of the Service.
    ///
    /// # Errors
    /// When there is no Service, or the server does not answer.
    pub fn load(&self, shape: Shape) -> Result<Load> {
        Load::start(&self.world.runtime, &self.service()?, shape)
    }

    /// The scenario has passed: everything goes.
    ///
    /// # Errors
    /// When the namespace cannot be deleted.
    pub fn close(mut self) -> Result<()> {
        self.closed = true;
        self.remove()
    }

    fn remove(&self) -> Result<()> {
        if self.world.keep {
            return Ok(());
        }
        self.world.kube.delete(&format!("/api/v1/namespaces/{}", self.name))?;
        self.world.database.drop(&self.name)
    }

    /// A file of this home that only its owner may read.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn file(&self, name: &str, content: &str) -> Result<PathBuf> {
        let path = self.home.file(name);
        write_private(&path, content)?;
        Ok(path)
    }
}

impl Drop for Site<'_> {
    fn drop(&mut self) {
        if self.closed {
            return;
        }
        let text = dump::text(self);
        self.world.keep_dump(&self.name, &text);
        if let Err(error) = self.remove() {
            eprintln!("{} is not removed: {error}", self.name);
        }
    }
}

/// The repository that is tested.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the repository is above xtask/").to_owned()
}

/// Takes the project's files anew from the repository.
///
/// # Errors
/// When they cannot be copied.
pub fn copy_project(root: &Path) -> Result<()> {
    let from = repository();
    if root.exists() {
        std::fs::remove_dir_all(root)?;
    }
    for folder in ["mlflow_server", "kubernetes"] {
        copy(&from.join(folder), &root.join(folder))?;
    }
    std::fs::copy(from.join("Cargo.toml"), root.join("Cargo.toml"))?;
    Ok(())
}

/// Copies a folder.
///
/// # Errors
/// When it cannot be copied.
pub fn copy(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        match entry.file_type()?.is_dir() {
            true => copy(&entry.path(), &target)?,
            false => drop(std::fs::copy(entry.path(), target)?),
        }
    }
    Ok(())
}

/// Writes a file that only its owner may read.
///
/// # Errors
/// When it cannot be written.
pub fn write_private(path: &Path, content: &str) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::write(path, content)?;
    Ok(std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?)
}
