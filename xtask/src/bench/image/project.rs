//! Three copies of the repository's `mlflow_server/`: as it is, with one dependency a version back,
//! and with one of our own files changed. Everything that costs a download happens here, before
//! anything is timed.

use std::fs;
use std::path::{Path, PathBuf};

use mlflow_image::Platform;
use mlflow_image::lock::{Header, ImageLock, Requirements, Wheel};

use super::Case;
use crate::cache::{self, Cache};
use crate::commands::Run;
use crate::error::{Context as _, Error, Kind, Result};
use crate::sources::uv;

/// The dependency that changes: small, pure Python, released every month.
pub const DEPENDENCY: &str = "certifi";

const LOCK: &str = "mlflow_server/requirements.lock";
const IMAGE_LOCK: &str = "mlflow_server/image.lock";

/// The copies.
pub struct Projects {
    dir: PathBuf,
}

impl Projects {
    /// Copies the repository at `root` to `dir` three times and makes the changes.
    pub async fn make(run: &Run, cache: &Cache, root: &Path, dir: &Path) -> Result<Self> {
        let projects = Self { dir: dir.to_owned() };
        for copy in ["base", "dependency", "own-file"] {
            projects.copy(root, &dir.join(copy))?;
        }
        let lock = projects.root(Case::Dependency).join(LOCK);
        let text = read(&lock)?;
        let mut requirements = Requirements::parse(LOCK, &text)?;
        let pinned = requirements.0.iter_mut().find(|one| one.name == DEPENDENCY);
        let pinned =
            pinned.ok_or_else(|| Error::new(Kind::Input, format!("requirements.lock does not hold {DEPENDENCY}")))?;
        run.ui.step("Resolving", format!("{DEPENDENCY} before {}", pinned.version));
        let args = ["pip", "compile", "-", "--no-deps", "--generate-hashes", "--only-binary", ":all:"]
            .into_iter()
            .chain(["--python-version", "3.13", "--no-header", "--no-annotate", "--quiet"]);
        let wish = format!("{DEPENDENCY}<{}\n", pinned.version);
        let answer = uv::read(run, cache, args.map(str::to_owned).collect(), wish).await?;
        *pinned = Requirements::parse("uv's answer", &answer)?
            .0
            .pop()
            .ok_or_else(|| Error::new(Kind::Tool, format!("uv knows no {DEPENDENCY} before {}", pinned.version)))?;
        cache::write(&lock, requirements.to_text(&Header::parse(LOCK, &text)?).as_bytes())?;
        change_one_file(&projects.root(Case::OwnFile).join("mlflow_server/rootfs"))?;
        Ok(projects)
    }

    /// The root of the copy that a case builds.
    pub fn root(&self, case: Case) -> PathBuf {
        self.dir.join(match case {
            Case::Cold | Case::Unchanged | Case::InRegistry => "base",
            Case::Dependency => "dependency",
            Case::OwnFile => "own-file",
        })
    }

    /// After the copies were built once: nothing is known of the changed copies' layers but what
    /// the unchanged one tells, as after `cargo xtask lock`.
    pub fn forget_layers(&self) -> Result<()> {
        let base = self.image_lock(Case::Cold)?;
        for case in [Case::Dependency, Case::OwnFile] {
            let lock = ImageLock { layer: base.layer.clone(), ..self.image_lock(case)? };
            cache::write(&self.root(case).join(IMAGE_LOCK), lock.to_text().as_bytes())?;
        }
        Ok(())
    }

    /// Fresh copies, because a build may rewrite image.lock.
    pub fn again(&self, dir: &Path) -> Result<Self> {
        let copies = Self { dir: dir.to_owned() };
        for case in [Case::Cold, Case::Dependency, Case::OwnFile] {
            copies.copy(&self.root(case), &copies.root(case))?;
        }
        Ok(copies)
    }

    /// The wheels of both versions, each once.
    pub fn wheels(&self, platform: Platform) -> Result<Vec<Wheel>> {
        let mut wheels: Vec<Wheel> = Vec::new();
        for case in [Case::Cold, Case::Dependency] {
            let lock = self.image_lock(case)?;
            let of_platform = lock.wheel.get(&platform).ok_or_else(|| {
                Error::new(Kind::Input, format!("image.lock knows no wheels for {platform}"))
                    .hint("cargo xtask build-image writes it")
            })?;
            for wheel in of_platform {
                if !wheels.contains(wheel) {
                    wheels.push(wheel.clone());
                }
            }
        }
        Ok(wheels)
    }

    fn image_lock(&self, case: Case) -> Result<ImageLock> {
        let path = self.root(case).join(IMAGE_LOCK);
        Ok(ImageLock::parse(IMAGE_LOCK, &read(&path)?)?)
    }

    /// What `build-image` reads of a repository: without deploy.toml the defaults are in force.
    fn copy(&self, from: &Path, to: &Path) -> Result<()> {
        copy_tree(&from.join("mlflow_server"), &to.join("mlflow_server"))?;
        cache::write(&to.join("Cargo.toml"), b"# Marks the root of a repository for cargo xtask.\n")
    }
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).context(Kind::Input, || format!("cannot read {}", path.display()))
}

fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    cache::create_dir(to)?;
    let named = || format!("cannot copy {}", from.display());
    for entry in fs::read_dir(from).on_machine(named)? {
        let entry = entry.on_machine(named)?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type().on_machine(named)?.is_dir() {
            copy_tree(&source, &target)?;
        } else {
            fs::copy(&source, &target).on_machine(|| format!("cannot copy {}", source.display()))?;
        }
    }
    Ok(())
}

/// Appends a comment to the first file by path.
fn change_one_file(rootfs: &Path) -> Result<()> {
    let mut files: Vec<PathBuf> = ignore::WalkBuilder::new(rootfs)
        .standard_filters(false)
        .build()
        .filter_map(|entry| entry.ok())
        .filter(|entry| entry.file_type().is_some_and(|kind| kind.is_file()))
        .map(|entry| entry.into_path())
        .collect();
    files.sort();
    let first = files
        .first()
        .ok_or_else(|| Error::new(Kind::Input, format!("there is no file of ours in {}", rootfs.display())))?;
    let mut content = fs::read(first).on_machine(|| format!("cannot read {}", first.display()))?;
    content.extend_from_slice(b"\n# one line more\n");
    cache::write(first, &content)
}
