//! Unpacked images in the cache, by digest: a second start costs nothing. Whole or not there.

use std::fs;
use std::path::{Path, PathBuf};

use mlflow_image::{Digest, unpack};

use crate::cache::{self, Cache};
use crate::error::{Context as _, Error, Kind, Result};

use super::image::{Config, Image};
use super::spec::DATA;

/// Prefix of a folder that is being filled; the rest is the id of the process at work.
const PARTIAL: &str = ".part-";

/// The unpacked image within its folder.
const ROOT: &str = "root";
/// How to run it, beside it: the blobs may be gone from the cache by the time it is started again.
const CONFIG: &str = "config.json";

/// An image that can be started.
#[derive(Clone, Debug)]
pub struct Unpacked {
    /// Its root folder.
    pub root: PathBuf,
    /// How to run it.
    pub config: Config,
}

/// The folder of `image`, whether it exists or not.
pub fn path(cache: &Cache, image: &Digest) -> Result<PathBuf> {
    Ok(cache.dir("roots")?.join(image.hex()))
}

/// The image, if it is unpacked.
pub fn open(cache: &Cache, image: &Digest) -> Result<Option<Unpacked>> {
    let dir = path(cache, image)?;
    let text = match fs::read(dir.join(CONFIG)) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).on_machine(|| format!("cannot read {}", dir.display())),
    };
    let config = serde_json::from_slice(&text).context(Kind::Machine, || format!("{} is damaged", dir.display()))?;
    Ok(Some(Unpacked { root: dir.join(ROOT), config }))
}

/// Unpacks the image unless it is there. Blocks: hashing and writing some 300 MB.
pub fn unpack(cache: &Cache, image: &Image) -> Result<()> {
    let target = path(cache, &image.digest)?;
    if target.is_dir() {
        return Ok(());
    }
    remove_abandoned(&cache.dir("roots")?)?;
    let partial = scratch(cache)?;
    // Its mode is 0700: nobody else writes to it while links are resolved in it.
    let (whole, inner) = (partial.path().join("image"), partial.path().join("image").join(ROOT));
    cache::create_dir(&inner)?;
    let options = unpack::Options { owners: is_root(), ..unpack::Options::default() };
    let unpacked = unpack::unpack(&image.layers, &inner, &options)
        .map_err(|error| match error.io_cause() {
            Some(cause) if cause.kind() == std::io::ErrorKind::NotFound => {
                Error::new(Kind::Machine, "a layer of the image is missing from the cache").source(error.to_string())
            }
            _ => Error::from(error),
        })
        .and_then(|_| mount_points(&inner))
        .and_then(|()| {
            let text = serde_json::to_vec(&image.config).context(Kind::Internal, || "cannot write JSON")?;
            cache::write(&whole.join(CONFIG), &text)
        });
    if let Err(error) = unpacked {
        let _ = unpack::remove(partial.path());
        return Err(error);
    }
    // A name that survives a crash of the machine must not survive its content.
    sync(&whole)?;
    match fs::rename(&whole, &target) {
        Ok(()) => Ok(()),
        // Another run was faster; its folder is as good.
        Err(_) if target.is_dir() => {
            let _ = unpack::remove(&whole);
            Ok(())
        }
        Err(error) => Err(error).on_machine(|| format!("cannot create {}", target.display())),
    }
}

/// A folder of this process; what a crash leaves of it is removed by the next [`unpack`].
pub fn scratch(cache: &Cache) -> Result<tempfile::TempDir> {
    let roots = cache.dir("roots")?;
    tempfile::Builder::new()
        .prefix(&format!("{PARTIAL}{}-", std::process::id()))
        .tempdir_in(&roots)
        .on_machine(|| format!("cannot write to {}", roots.display()))
}

/// Removes all roots but `keep`. What is still in use is of another environment and kept too.
pub fn prune(cache: &Cache, keep: &[PathBuf]) -> Result<()> {
    let roots = cache.dir("roots")?;
    for entry in fs::read_dir(&roots).on_machine(|| format!("cannot read {}", roots.display()))? {
        let path = entry.on_machine(|| format!("cannot read {}", roots.display()))?.path();
        let partial = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(PARTIAL));
        if !partial && !keep.contains(&path) {
            // Renamed first, so that a crash leaves no half of it under its name.
            let gone = roots.join(format!("{PARTIAL}0-{}", path.file_name().unwrap_or_default().display()));
            if fs::rename(&path, &gone).is_ok() {
                let _ = unpack::remove(&gone);
            }
        }
    }
    Ok(())
}

fn remove_abandoned(roots: &Path) -> Result<()> {
    let named = || format!("cannot read {}", roots.display());
    for entry in fs::read_dir(roots).on_machine(named)? {
        let entry = entry.on_machine(named)?;
        let name = entry.file_name();
        let Some(rest) = name.to_str().and_then(|name| name.strip_prefix(PARTIAL)) else { continue };
        let pid = rest.split('-').next().unwrap_or_default();
        if !Path::new("/proc").join(pid).join("stat").exists() || pid == "0" {
            // Another run may be removing it as well.
            let _ = unpack::remove(&entry.path());
        }
    }
    Ok(())
}

/// The folders and files that the sandbox mounts over: the root is read-only, so they must exist,
/// and as what they are, whatever the image has there.
pub fn mount_points(root: &Path) -> Result<()> {
    let named = |path: &'static str| move || format!("cannot prepare {path} of the image");
    for path in ["etc", "proc", "tmp", "dev", DATA.trim_start_matches('/')] {
        let full = root.join(path);
        let found = full.symlink_metadata();
        if found.as_ref().is_ok_and(fs::Metadata::is_dir) {
            continue;
        }
        if found.is_ok() {
            fs::remove_file(&full).on_machine(named(path))?;
        }
        fs::create_dir(&full).on_machine(named(path))?;
    }
    for path in ["etc/resolv.conf", "etc/hosts"] {
        let full = root.join(path);
        match full.symlink_metadata() {
            Ok(meta) if meta.is_file() => continue,
            Ok(meta) if meta.is_dir() => fs::remove_dir_all(&full).on_machine(named(path))?,
            Ok(_) => fs::remove_file(&full).on_machine(named(path))?,
            Err(_) => {}
        }
        fs::write(&full, "").on_machine(named(path))?;
    }
    Ok(())
}

/// Writes the file system of `dir` to its disk: one call for thousands of files (syncfs(2)).
fn sync(dir: &Path) -> Result<()> {
    let named = || format!("cannot write {} to its disk", dir.display());
    let folder = fs::File::open(dir).on_machine(named)?;
    #[cfg(target_os = "linux")]
    nix::unistd::syncfs(&folder).map_err(std::io::Error::from).on_machine(named)?;
    #[cfg(not(target_os = "linux"))]
    folder.sync_all().on_machine(named)?;
    Ok(())
}

/// Whether files can be given to other users.
pub fn is_root() -> bool {
    #[cfg(target_os = "linux")]
    let root = nix::unistd::geteuid().is_root();
    #[cfg(not(target_os = "linux"))]
    let root = false;
    root
}

/// Bytes that this user may still write to the file system of `dir`, where that can be known.
pub fn free_space(dir: &Path) -> Option<u64> {
    #[cfg(target_os = "linux")]
    let free = nix::sys::statvfs::statvfs(dir).ok().map(|found| found.blocks_available() * found.fragment_size());
    #[cfg(not(target_os = "linux"))]
    let free = {
        let _ = dir;
        None
    };
    free
}
