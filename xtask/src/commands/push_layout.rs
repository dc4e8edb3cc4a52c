//! `push-layout`: an OCI layout goes to a registry, whoever built it.

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use mlflow_image::Digest;

use crate::cache::Cache;
use crate::commands::Run;
use crate::config::{self, Config};
use crate::error::Result;
use crate::registry::{Access, Client, Layout, LoginArgs, Reference};
use crate::report::{self, Report};
use crate::signing::{self, SignArgs, Signed};

/// Push an OCI image layout to a registry; run again, it carries on where it stopped
#[derive(clap::Args)]
pub struct Args {
    /// The layout's folder, as written by `build-image --output oci:DIR`.
    dir: PathBuf,
    /// Where to push it: HOST[:PORT]/PATH[:TAG].
    reference: Reference,
    /// Which image of the layout, by its name in the layout's index.
    #[arg(long)]
    name: Option<String>,
    #[command(flatten)]
    sign: SignArgs,
    /// The environment in deploy.toml whose settings count for a signature.
    #[arg(long, default_value = config::LOCAL)]
    env: String,
    #[command(flatten)]
    login: LoginArgs,
}

pub async fn run(args: Args, run: &Run) -> Result<ExitCode> {
    let begun = Instant::now();
    let layout = Layout::read(&args.dir, args.name.as_deref())?;
    // A mistake in the settings is found before anything is pushed.
    let config = match args.sign.is_given() {
        true => {
            let mut config = Config::load(&args.env)?;
            args.sign.set(&mut config)?;
            Some(config)
        }
        false => None,
    };
    let (cache, login) = (Cache::open()?, args.login.source()?);
    let client = Client::connect(run, &cache, &args.reference, Access::Push, login.clone())?;
    let pushed = client
        .push(&layout.manifests, args.reference.tag(), |missing| std::future::ready(Ok(layout.files(&missing))))
        .await?;
    let signature = match &config {
        Some(config) => signing::after_push(run, config, &cache, &args.reference, &pushed.digest, login).await?,
        None => None,
    };
    run.answer(&Answer {
        image: args.reference.with_digest(pushed.digest),
        digest: pushed.digest,
        tag: args.reference.tag().map(str::to_owned),
        tag_moved: pushed.tag_moved,
        pushed_blobs: pushed.sent_blobs,
        pushed_bytes: pushed.sent_bytes,
        signature,
        seconds: report::seconds(begun.elapsed()),
    })
}

#[derive(serde::Serialize)]
struct Answer {
    image: Reference,
    digest: Digest,
    tag: Option<String>,
    tag_moved: bool,
    pushed_blobs: usize,
    pushed_bytes: u64,
    /// The signature, where one was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    signature: Option<Signed>,
    seconds: f64,
}

impl Report for Answer {
    fn human(&self, out: &mut dyn io::Write) -> io::Result<()> {
        writeln!(out, "{}", self.image)?;
        let tag = match (&self.tag, self.tag_moved) {
            (Some(tag), true) => format!(", tag {tag} set"),
            (Some(tag), false) => format!(", tag {tag} as before"),
            (None, _) => String::new(),
        };
        if let Some(signature) = &self.signature {
            writeln!(out, "{signature}")?;
        }
        let (blobs, bytes) = (self.pushed_blobs, report::bytes(self.pushed_bytes));
        writeln!(out, "{blobs} layers pushed, {bytes} sent{tag}, {:.2} s", self.seconds)
    }
}
