//! `testbed`: a real Kubernetes on this machine, for tests and for trying things out.

use std::ffi::OsString;
use std::io::{self, Write};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use testbed::cluster::{self, How, Network, Options, Status, Testbed};

use crate::cache::Cache;
use crate::commands::Run;
use crate::error::{Context as _, Error, Kind, Result};
use crate::repo;
use crate::report::{self, Report, bytes};
use crate::ui::Ui;

/// How long a component that is started again may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Run a real single-node Kubernetes with registry, PostgreSQL and a fake Cloud Storage
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    place: Place,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Bring it up; the first time its programs are built, which takes minutes.
    Up(UpArgs),
    /// Take it down; nothing is left of it but the built programs.
    Down,
    /// Build its programs, and those of the tests, and start nothing.
    Build,
    /// Show what runs, where, and which versions.
    Status,
    /// Stop a component, to see what fails without it.
    Stop(StopArgs),
    /// Start a stopped component and wait until it works.
    Start(StartArgs),
    /// Become the node's fake Google (for internal use)
    #[command(hide = true)]
    Google(GoogleArgs),
    /// Become the node's supervisor (for internal use)
    #[command(hide = true)]
    Node(NodeArgs),
}

#[derive(clap::Args)]
struct UpArgs {
    /// What the cluster is made of.
    #[arg(long, value_enum, default_value_t = With::Node)]
    with: With,
}

/// Two ways to a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum With {
    /// A node in namespaces of this machine; needs root.
    Node,
    /// A cluster of kind's; needs Docker.
    Kind,
}

#[derive(clap::Args)]
struct StopArgs {
    /// Its name, as `testbed status` shows it.
    component: String,
    /// End it at once, as a crash would, rather than in order.
    #[arg(long)]
    kill: bool,
}

#[derive(clap::Args)]
struct StartArgs {
    /// Its name, as `testbed status` shows it.
    component: String,
}

#[derive(clap::Args)]
struct GoogleArgs {
    settings: PathBuf,
}

#[derive(clap::Args)]
struct NodeArgs {
    root: PathBuf,
    #[arg(long)]
    inside: bool,
}

/// Which testbed: all of it differs between two on one machine.
#[derive(clap::Args)]
struct Place {
    /// The testbed's folder: a short path on a file system that is no overlay.
    #[arg(long, global = true, default_value = cluster::ROOT)]
    root: PathBuf,
    #[arg(long, global = true, hide = true)]
    name: Option<String>,
    #[arg(long, global = true, hide = true)]
    out: Option<PathBuf>,
    #[arg(long, global = true, hide = true)]
    programs: Option<PathBuf>,
    #[arg(long, global = true, hide = true)]
    link: Option<Ipv4Addr>,
    #[arg(long, global = true, hide = true)]
    pods: Option<Ipv4Addr>,
    #[arg(long, global = true, hide = true)]
    services: Option<Ipv4Addr>,
    #[arg(long, global = true, hide = true)]
    registry_port: Option<u16>,
    #[arg(long, global = true, hide = true)]
    login_registry_port: Option<u16>,
    #[arg(long, global = true, hide = true)]
    google_port: Option<u16>,
}

impl Place {
    fn options(self, run: &Run) -> Result<Options> {
        let programs = match self.programs {
            Some(programs) => programs,
            None => Cache::open()?.dir("testbed")?,
        };
        let usual = Options::new(&repo::root()?, programs, supervisor());
        let network = usual.network;
        Ok(Options {
            name: self.name.unwrap_or(usual.name),
            root: self.root,
            out: self.out.unwrap_or(usual.out),
            offline: run.offline,
            network: Network {
                link: self.link.unwrap_or(network.link),
                pods: self.pods.unwrap_or(network.pods),
                services: self.services.unwrap_or(network.services),
                registry: self.registry_port.unwrap_or(network.registry),
                login_registry: self.login_registry_port.unwrap_or(network.login_registry),
                google: self.google_port.unwrap_or(network.google),
            },
            ..usual
        })
    }
}

/// The very binary that runs now, even if a build has replaced its file meanwhile.
fn supervisor() -> Vec<OsString> {
    ["/proc/self/exe", "testbed", "node"].map(OsString::from).to_vec()
}

/// Becomes the node's supervisor, which has no use for an async runtime.
pub fn node(args: &Args) -> Option<ExitCode> {
    match &args.command {
        Command::Node(node) => Some(cluster::node::run(&node.root, node.inside, &supervisor())),
        _ => None,
    }
}

pub async fn run(args: Args, run: &Run) -> Result<ExitCode> {
    if let Command::Google(google) = &args.command {
        match cluster::google::serve(&google.settings).await.on_machine(|| "cannot be a fake Google")? {}
    }
    let options = args.place.options(run)?;
    match args.command {
        Command::Up(UpArgs { with }) => {
            let (shown, cancel) = (Shown(run.ui.clone()), run.cancel.cancelled());
            let up = match with {
                With::Node => cluster::up(&options, &shown, cancel).await,
                With::Kind => cluster::kind::up(&options, &shown, cancel).await,
            };
            let up = up.map_err(explain)?;
            run.answer(&UpAnswer { already: up.already, seconds: report::seconds(up.took), testbed: up.testbed })
        }
        Command::Build => {
            // What is dropped ends the compiler that it waits for.
            let built = tokio::select! {
                built = build(&options, run) => built?,
                () = run.cancel.cancelled() => return Err(Run::interrupted()),
            };
            run.answer(&built)
        }
        Command::Down => {
            let down = cluster::down(&options).await.map_err(explain)?;
            run.answer(&DownAnswer { found: down.found, was_up: down.was_up })
        }
        Command::Status => match cluster::status(&options).await.map_err(explain)? {
            Some(status) => run.answer(&StatusAnswer(status)),
            None => Err(Error::new(Kind::Check, "no testbed is up").hint("run `cargo xtask testbed up`")),
        },
        Command::Stop(StopArgs { component, kill }) => {
            run.ui.step("Stopping", &component);
            let how = if kill { How::Kill } else { How::Order };
            cluster::stop(&options, &component, how).await.map_err(explain)?;
            run.answer(&Changed { component, runs: false })
        }
        Command::Start(StartArgs { component }) => {
            run.ui.step("Starting", &component);
            cluster::start(&options, &component, PATIENCE).await.map_err(explain)?;
            run.answer(&Changed { component, runs: true })
        }
        Command::Google(_) | Command::Node(_) => {
            Err(Error::new(Kind::Internal, "this is done before options are read"))
        }
    }
}

/// Builds what is not in the cache.
async fn build(options: &Options, run: &Run) -> Result<Built> {
    let (shown, mut programs) = (Shown(run.ui.clone()), Vec::new());
    for module in cluster::FOR_TESTS {
        let folder = cluster::provide(module, options, &shown).await.map_err(explain)?;
        programs.push(Program { name: module.name, version: module.version, folder });
    }
    Ok(Built { programs })
}

/// The library's errors are ours, with other words for who is to blame.
fn explain(error: cluster::Error) -> Error {
    let kind = match error.kind {
        cluster::Kind::Tool => Kind::Tool,
        cluster::Kind::Machine => Kind::Machine,
        cluster::Kind::Locked => Kind::Locked,
        cluster::Kind::Interrupted => Kind::Interrupted,
        cluster::Kind::Usage => Kind::Usage,
    };
    let (hint, message) = (error.hint.clone(), error.to_string());
    let explained = Error::new(kind, message).source(error);
    match hint {
        Some(hint) => explained.hint(hint),
        None => explained,
    }
}

/// The testbed's progress on our terminal.
struct Shown(Ui);

impl cluster::Progress for Shown {
    fn step(&self, verb: &str, what: &str) {
        self.0.step(verb, what);
    }

    fn count(&self, label: &str, total: u64) -> Box<dyn Fn(u64) + Send> {
        let bar = self.0.count(label, total);
        Box::new(move |n| bar.inc(n))
    }
}

#[derive(serde::Serialize)]
struct UpAnswer {
    already: bool,
    seconds: f64,
    #[serde(flatten)]
    testbed: Testbed,
}

impl Report for UpAnswer {
    fn human(&self, out: &mut dyn Write) -> io::Result<()> {
        match self.already {
            true => writeln!(out, "the testbed is up since {}", self.testbed.since)?,
            false => writeln!(out, "the testbed is up ({:.1} s)", self.seconds)?,
        }
        addresses(&self.testbed, out)
    }
}

fn addresses(testbed: &Testbed, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "kubernetes  {}, context {}", testbed.api_server, testbed.context)?;
    writeln!(out, "kubeconfig  {}", testbed.kubeconfig.display())?;
    writeln!(out, "kubectl     {}", testbed.kubectl.display())?;
    writeln!(out, "registry    {}", testbed.registry)?;
    if let Some(registry) = &testbed.login_registry {
        writeln!(
            out,
            "            {registry} with the login in {}/{}",
            testbed.out.display(),
            cluster::REGISTRY_LOGIN
        )?;
    }
    writeln!(out, "postgresql  {}, URI in {}/{}", testbed.database, testbed.out.display(), cluster::DATABASE_URI)?;
    writeln!(out, "storage     {} with the bucket {}", testbed.gcs, testbed.bucket)?;
    if let (Some(google), Some(project)) = (&testbed.google, &testbed.project) {
        writeln!(out, "google      {google}, project {project}")?;
    }
    writeln!(out, "logs        {}", testbed.logs.display())
}

/// What `build` has built, or found.
#[derive(serde::Serialize)]
struct Built {
    programs: Vec<Program>,
}

#[derive(serde::Serialize)]
struct Program {
    name: &'static str,
    version: &'static str,
    folder: PathBuf,
}

impl Report for Built {
    fn human(&self, out: &mut dyn Write) -> io::Result<()> {
        for Program { name, version, folder } in &self.programs {
            writeln!(out, "{name} {version}  {}", folder.display())?;
        }
        Ok(())
    }
}

#[derive(serde::Serialize)]
struct DownAnswer {
    found: bool,
    was_up: bool,
}

impl Report for DownAnswer {
    fn human(&self, out: &mut dyn Write) -> io::Result<()> {
        match (self.found, self.was_up) {
            (false, _) => writeln!(out, "no testbed is up"),
            (true, true) => writeln!(out, "the testbed is down; nothing is left of it"),
            (true, false) => writeln!(out, "what was left of a testbed is removed"),
        }
    }
}

#[derive(serde::Serialize)]
struct StatusAnswer(Status);

impl Report for StatusAnswer {
    fn human(&self, out: &mut dyn Write) -> io::Result<()> {
        let Self(status) = self;
        writeln!(out, "the testbed is up since {}, using {}", status.testbed.since, bytes(status.memory))?;
        addresses(&status.testbed, out)?;
        for (name, version) in &status.testbed.versions {
            writeln!(out, "version     {name}: {version}")?;
        }
        for component in &status.components {
            let process = &component.process;
            let state = match (&component.complaint, process.pid, process.wanted) {
                (_, None, false) => "stopped".to_owned(),
                (Some(complaint), ..) => format!("does not work: {complaint}"),
                (None, ..) => "works".to_owned(),
            };
            let crashes = match (process.crashes, &process.ended) {
                (0, _) => String::new(),
                (n, ended) => format!(" (ended {n} times by itself, last: {})", ended.as_deref().unwrap_or("unknown")),
            };
            writeln!(out, "component   {}: {state}{crashes}", process.name)?;
        }
        Ok(())
    }
}

#[derive(serde::Serialize)]
struct Changed {
    component: String,
    runs: bool,
}

impl Report for Changed {
    fn human(&self, out: &mut dyn Write) -> io::Result<()> {
        let Self { component, runs } = self;
        if *runs { writeln!(out, "{component} works") } else { writeln!(out, "{component} is stopped") }
    }
}
