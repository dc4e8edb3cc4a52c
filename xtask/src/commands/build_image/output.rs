//! `--output`: the image as files.

use std::fmt;
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use mlflow_image::layout::{self, Content};
use mlflow_image::{Digest, Platform};

use crate::builders::draft::Built;
use crate::cache::{self, Cache};
use crate::commands::Run;
use crate::error::{Context as _, Result};

/// Where to write the image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// A folder in OCI image layout; the reference is `latest`.
    Oci(PathBuf),
    /// A tar for `docker load`; one platform.
    DockerArchive(PathBuf),
}

impl FromStr for Output {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        match text.split_once(':') {
            Some((_, "")) | None => Err("write it as oci:DIR or docker-archive:FILE".to_owned()),
            Some(("oci", path)) => Ok(Self::Oci(path.into())),
            Some(("docker-archive", path)) => Ok(Self::DockerArchive(path.into())),
            Some((kind, _)) => Err(format!("{kind:?} is not one of oci, docker-archive")),
        }
    }
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Oci(path) => write!(f, "oci:{}", path.display()),
            Self::DockerArchive(path) => write!(f, "docker-archive:{}", path.display()),
        }
    }
}

impl Output {
    /// Writes the image, whose blobs are in the cache. `name` is what an archive calls it.
    pub fn write(&self, run: &Run, cache: &Cache, built: &Built, name: &str) -> Result<()> {
        let blobs = cache.dir("blobs")?;
        let blob = |digest: &Digest| blobs.join(digest.hex());
        match self {
            Self::Oci(dir) => {
                run.ui.step("Writing", self.to_string());
                let documents = built.images.iter().flat_map(|image| [&image.config, &image.manifest]).collect();
                let content = Content { root: &built.index, documents, layers: built.layers(), blob: &blob };
                layout::write_oci(dir, "latest", &content)?;
            }
            Self::DockerArchive(file) => {
                let of_host = built.images.iter().find(|image| image.platform == Platform::host());
                let image = of_host.unwrap_or(&built.images[0]);
                run.ui.step("Writing", format!("{self} ({})", image.platform));
                let layers: Vec<_> = image.layers.iter().map(|layer| layer.info).collect();
                let named = || format!("cannot write {}", file.display());
                let parent = match file.parent() {
                    Some(parent) if !parent.as_os_str().is_empty() => parent,
                    _ => Path::new("."),
                };
                cache::create_dir(parent)?;
                let temporary = tempfile::Builder::new().prefix(".part-").tempfile_in(parent).on_machine(named)?;
                let mut out = BufWriter::with_capacity(1 << 18, temporary.as_file());
                layout::write_docker_archive(&mut out, name, &image.manifest, &image.config, &layers, &blob)?;
                drop(out);
                cache::set_default_mode(temporary.as_file(), file)?;
                temporary.persist(file).map_err(|error| error.error).on_machine(named)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_output_is_a_kind_and_a_path() {
        let check = |text: &str, expected: std::result::Result<Output, &str>| match (text.parse::<Output>(), expected) {
            (Ok(found), Ok(expected)) => assert_eq!(found, expected),
            (Err(found), Err(expected)) => assert!(found.contains(expected), "{found}"),
            (found, expected) => panic!("{text}: {found:?}, expected {expected:?}"),
        };
        check("oci:out", Ok(Output::Oci("out".into())));
        check("docker-archive:/tmp/a:b.tar", Ok(Output::DockerArchive("/tmp/a:b.tar".into())));
        check("oci:", Err("oci:DIR"));
        check("out", Err("oci:DIR"));
        check("docker:x", Err("\"docker\" is not one of"));
    }
}
