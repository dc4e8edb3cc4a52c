//! What terraform needs to run without its registry: a stand-in for the google provider, laid out as
//! a mirror in the file system, with the schema that the provider publishes.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};

use crate::cluster::error::{Context as _, Error, Kind, Result};
use crate::cluster::lock::Lock;
use crate::cluster::{GOOGLE_PROVIDER, Progress, program, provide_in};

/// Reads the schema out of an npm package; the second file says which, and what it leaves out.
const EXTRACTOR: [(&str, &str); 2] = [
    ("schema.mjs", include_str!("../terraform-provider-google/schema.mjs")),
    ("overlay.mjs", include_str!("../terraform-provider-google/overlay.mjs")),
];

/// The programs that this needs besides Go, with what they come with.
pub const TOOLS: &[(&str, &str)] = &[("node", "nodejs"), ("npm", "npm")];

/// A mirror with one provider in it.
#[derive(Clone, Debug)]
pub struct Mirror {
    /// Terraform's configuration, which names the mirror as the only source of providers.
    pub config: PathBuf,
    /// The provider's schema.
    pub schema: PathBuf,
}

impl Mirror {
    /// The environment to run terraform with. Where the services are is for the fake of them to say.
    pub fn environment(&self) -> Vec<(&'static str, OsString)> {
        vec![
            ("TF_CLI_CONFIG_FILE", self.config.clone().into()),
            ("STANDIN_SCHEMA", self.schema.clone().into()),
            ("CHECKPOINT_DISABLE", "1".into()),
        ]
    }
}

/// Builds the provider, fetches its schema and lays both out, or finds them in the cache. Waits for
/// another run that is at the same.
pub async fn prepare(cache: &Path, progress: &dyn Progress) -> Result<Mirror> {
    let deadline = Instant::now() + Duration::from_secs(900);
    loop {
        match prepare_once(cache, progress).await {
            Err(error) if error.kind == Kind::Locked && Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
            done => return done,
        }
    }
}

async fn prepare_once(cache: &Path, progress: &dyn Progress) -> Result<Mirror> {
    let built = provide_in(cache, false, &GOOGLE_PROVIDER, progress).await?;
    let schema = schema(cache, progress).await?;
    let name = format!("{}-mirror", built.file_name().unwrap_or_default().to_string_lossy());
    let _lock = Lock::take(&cache.join("terraform-mirror"))?;
    let root = cache.join(name);
    let version = GOOGLE_PROVIDER.version.trim_start_matches('v');
    let dir = root.join("registry.terraform.io/hashicorp/google").join(version).join(platform());
    std::fs::create_dir_all(&dir).on_machine(|| format!("cannot create {}", dir.display()))?;
    let provider = dir.join(format!("{}_v{version}", GOOGLE_PROVIDER.name));
    if !program::is_executable(&provider) {
        // A link to a file that a cleaned cache has lost would be a provider that does not start.
        let part = dir.join(".part");
        let copied = std::fs::copy(built.join(GOOGLE_PROVIDER.name), &part);
        copied.and_then(|_| std::fs::rename(&part, &provider)).on_machine(|| "cannot copy the provider".to_owned())?;
    }
    let config = root.join("terraform.rc");
    let quoted = serde_json::Value::from(root.to_string_lossy().into_owned());
    let text = format!("provider_installation {{\n  filesystem_mirror {{\n    path = {quoted}\n  }}\n}}\n");
    std::fs::write(&config, text).on_machine(|| format!("cannot write {}", config.display()))?;
    Ok(Mirror { config, schema })
}

/// The schema as a file in the cache, by a digest over all that decides it.
async fn schema(cache: &Path, progress: &dyn Progress) -> Result<PathBuf> {
    let mut hash = Sha256::new();
    for (_, text) in EXTRACTOR {
        hash.update(text);
    }
    let key: String = hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    let done = cache.join(format!("{}-schema-{key}.json", GOOGLE_PROVIDER.name));
    if done.is_file() {
        return Ok(done);
    }
    let _lock = Lock::take(&cache.join("terraform-schema"))?;
    if done.is_file() {
        return Ok(done);
    }
    let package = package()?;
    progress.step("Fetching", &format!("the google provider's schema ({package} from npm, once)"));
    let scratch = tempfile::Builder::new().prefix(".part-").tempdir_in(cache);
    let scratch = scratch.on_machine(|| format!("cannot make a folder in {}", cache.display()))?;
    for (file, text) in EXTRACTOR {
        std::fs::write(scratch.path().join(file), text).on_machine(|| format!("cannot write {file}"))?;
    }
    let mut pack = program::command(tool("npm")?);
    pack.args(["pack", "--ignore-scripts", "--silent", &package]).current_dir(scratch.path());
    pack.env("npm_config_cache", scratch.path().join("npm")).env("npm_config_update_notifier", "false");
    let archive = program::read(pack, b"", Duration::from_secs(300)).await?;
    let archive = archive.lines().last().unwrap_or_default().trim();
    let mut extract = program::command(tool("node")?);
    extract.args(["schema.mjs", archive, "schema.json"]).current_dir(scratch.path());
    program::read(extract, b"", Duration::from_secs(60)).await?;
    std::fs::rename(scratch.path().join("schema.json"), &done).on_machine(|| "cannot keep the schema".to_owned())?;
    Ok(done)
}

/// The npm package and its version, which the extractor checks by its digest.
fn package() -> Result<String> {
    let value = |key: &str| {
        let line = EXTRACTOR[1].1.lines().find_map(|line| line.trim().strip_prefix(key));
        line.map(|rest| rest.trim_matches([':', ' ', '"', ',']))
    };
    match (value("name"), value("version")) {
        (Some(name), Some(version)) => Ok(format!("{name}@{version}")),
        _ => Err(Error::new(Kind::Tool, "overlay.mjs names no package")),
    }
}

fn tool(name: &'static str) -> Result<PathBuf> {
    program::find(name).ok_or_else(|| {
        let package = TOOLS.iter().find(|(tool, _)| *tool == name).map_or(name, |(_, package)| package);
        Error::new(Kind::Tool, format!("{name} is not installed")).hint(format!("apt install {package}"))
    })
}

/// This machine, as terraform calls it.
fn platform() -> &'static str {
    if cfg!(target_arch = "aarch64") { "linux_arm64" } else { "linux_amd64" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_package_is_the_one_that_the_extractor_checks() {
        assert_eq!(package().unwrap(), "@cdktf/provider-google@16.12.1");
        assert!(EXTRACTOR[1].1.contains("integrity: \"sha512-"));
    }

    #[test]
    fn terraform_finds_no_other_provider() {
        let mirror = Mirror { config: "/cache/terraform.rc".into(), schema: "/cache/schema.json".into() };
        let names: Vec<_> = mirror.environment().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["TF_CLI_CONFIG_FILE", "STANDIN_SCHEMA", "CHECKPOINT_DISABLE"]);
    }
}
