//! The flag of the commands that push.

use crate::config::Config;
use crate::config::signing::SignWith;
use crate::error::{Context as _, Result};

/// With what to sign.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct SignArgs {
    /// Sign what was pushed, with cosign. Alone: without a key, as who is logged in (in GitHub Actions the
    /// workflow); or with a key: a file, whose password is in COSIGN_PASSWORD, or a URI such as gcpkms://...;
    /// none does not, whatever image.sign in deploy.toml says.
    #[arg(long, value_name = "KEY", num_args = 0..=1, require_equals = true, default_missing_value = "keyless")]
    sign: Option<String>,
}

impl SignArgs {
    /// Whether the command line says something.
    pub fn is_given(&self) -> bool {
        self.sign.is_some()
    }

    /// Lets the command line beat `image.sign`. Its paths are relative to the current folder.
    pub fn set(&self, config: &mut Config) -> Result<()> {
        if let Some(key) = &self.sign {
            let here = std::env::current_dir().on_machine(|| "cannot tell the current folder")?;
            config.image.signing.sign = SignWith::parse(key, &here);
        }
        Ok(())
    }
}
