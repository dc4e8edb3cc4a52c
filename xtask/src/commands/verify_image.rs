//! `verify-image`: what can be proven of an image in a registry.

use std::io;
use std::process::ExitCode;

use crate::cache::Cache;
use crate::commands::Run;
use crate::config::{self, Config};
use crate::error::Result;
use crate::registry::{Access, Client, LoginArgs, Reference};
use crate::report::Report;
use crate::signing::Verdict;
use crate::verify::{self, Evidence};

/// Check what can be proven of an image in a registry: its digests, what is attached, what is required
///
/// Deploy does the same before it applies anything. Exit code 4: something attached is not what it is
/// said to be, or the signature is somebody else's; 17: the image is not there, or lacks what the
/// environment requires (`image.require` in deploy.toml).
#[derive(clap::Args)]
pub struct Args {
    /// The image: HOST[:PORT]/PATH[:TAG][@DIGEST].
    reference: Reference,
    /// The environment in deploy.toml that says what is required.
    #[arg(long, default_value = config::LOCAL)]
    env: String,
    #[command(flatten)]
    login: LoginArgs,
}

pub async fn run(args: Args, run: &Run) -> Result<ExitCode> {
    let config = Config::load(&args.env)?;
    let client = Client::connect(run, &Cache::open()?, &args.reference, Access::Pull, args.login.source()?)?;
    let evidence = verify::gather(run, &config, &client).await?;
    verify::judge_all(&evidence)?;
    verify::judge(&config.image.require, &evidence)?;
    run.answer(&evidence)
}

impl Report for Evidence {
    fn human(&self, out: &mut dyn io::Write) -> io::Result<()> {
        writeln!(out, "{}", self.image)?;
        writeln!(out, "{} manifests, each with the digest by which it is named", self.manifests)?;
        if self.is_ours {
            writeln!(out, "it is what the locks of this checkout foretell")?;
        }
        for found in self.attached.iter().filter(|found| found.to == self.digest) {
            let said = found.said.as_deref().unwrap_or_else(|why| why);
            writeln!(out, "attached {} {}  {said}", found.digest.short(), found.what)?;
        }
        if let Some(Verdict::Signed { by }) = &self.signature {
            writeln!(out, "signed by {by}: cosign has verified it")?;
        }
        match self.attached.iter().any(|found| found.to == self.digest) {
            true => Ok(()),
            false => writeln!(out, "nothing is attached to it"),
        }
    }
}
