//! What an image is built from: the files in `mlflow_server/`, read and checked against each other.

use std::fs;
use std::path::{Path, PathBuf};

use mlflow_image::Platform;
use mlflow_image::dockerfile::Metadata;
use mlflow_image::exclude::Exclude;
use mlflow_image::lock::{DebianLock, ImageLock, Requirements, Wheel};
use mlflow_image::plan::{LAYOUT, OwnFile};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::cache;
use crate::error::{Context as _, Error, Kind, Result};

/// The label that carries MLflow's version; the only one that is not in the Dockerfile.
pub const VERSION_LABEL: &str = "org.opencontainers.image.version";

/// All inputs of a build.
#[derive(Clone, Debug)]
pub struct Project {
    /// The repository's root.
    pub root: PathBuf,
    /// The pinned distributions.
    pub requirements: Requirements,
    /// The Debian packages.
    pub debian: DebianLock,
    /// What is known of earlier builds.
    pub image: ImageLock,
    /// What wheels lose.
    pub exclude: Exclude,
    /// Environment, user, entry point, labels.
    pub metadata: Metadata,
    /// Our own files.
    pub own: Vec<OwnFile>,
    /// The image's creation time, RFC 3339.
    pub created: String,
    /// MLflow's version.
    pub version: String,
}

impl Project {
    /// Reads `mlflow_server/` below `root`. `epoch` is the value of SOURCE_DATE_EPOCH, if it is set
    /// (<https://reproducible-builds.org/specs/source-date-epoch/>).
    pub fn read(root: &Path, epoch: Option<&str>) -> Result<Self> {
        let folder = folder(root);
        let text = |name: &str| {
            let path = folder.join(name);
            fs::read_to_string(&path).context(Kind::Input, || format!("cannot read {}", path.display()))
        };
        let locked = |name: &str| {
            text(name).map_err(|error| match error.hint_text() {
                None => error.hint("cargo xtask lock writes the lock files"),
                Some(_) => error,
            })
        };
        let requirements = Requirements::parse("requirements.lock", &locked("requirements.lock")?)?;
        let debian = DebianLock::parse("debian.lock", &locked("debian.lock")?)?;
        let exclude = match fs::exists(folder.join("exclude")).on_machine(|| "cannot look for mlflow_server/exclude")? {
            true => Exclude::parse("exclude", &text("exclude")?)?,
            false => Exclude::default(),
        };
        let version = requirements
            .0
            .iter()
            .find(|requirement| requirement.name == "mlflow")
            .map(|requirement| requirement.version.clone())
            .ok_or_else(|| Error::new(Kind::Input, "requirements.lock does not hold mlflow"))?;
        let mut metadata = Metadata::parse("mlflow_server/Dockerfile", &text("Dockerfile")?)?;
        metadata.labels.insert(VERSION_LABEL.to_owned(), version.clone());
        let created = created(&debian.date, epoch)?;
        let own = own_files(&folder.join("rootfs"))?;
        let image = read_image_lock(root)?;
        Ok(Self { root: root.to_path_buf(), requirements, debian, image, exclude, metadata, own, created, version })
    }

    /// The wheels of a platform that the image lock names and the requirements allow, and the
    /// requirements that it names none for.
    pub fn locked_wheels(&self, platform: Platform) -> (Vec<Wheel>, Requirements) {
        let locked = self.image.wheel.get(&platform).map_or(&[][..], Vec::as_slice);
        let (mut wheels, mut open) = (Vec::new(), Vec::new());
        for requirement in &self.requirements.0 {
            let found = locked.iter().find(|wheel| {
                wheel.name == requirement.name
                    && wheel.version == requirement.version
                    && requirement.hashes.contains(&wheel.sha256)
            });
            match found {
                Some(wheel) => wheels.push(wheel.clone()),
                None => open.push(requirement.clone()),
            }
        }
        (wheels, Requirements(open))
    }
}

/// `mlflow_server/` of a checkout.
pub fn folder(root: &Path) -> PathBuf {
    root.join("mlflow_server")
}

/// Reads image.lock; a missing one, or one of another layout, foretells nothing.
pub fn read_image_lock(root: &Path) -> Result<ImageLock> {
    let path = folder(root).join("image.lock");
    let lock = match fs::read_to_string(&path) {
        Ok(text) => ImageLock::parse("image.lock", &text)?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => ImageLock::default(),
        Err(error) => return Err(error).context(Kind::Input, || format!("cannot read {}", path.display())),
    };
    let layer = if lock.layout == LAYOUT { lock.layer } else { Default::default() };
    Ok(ImageLock { layout: LAYOUT, layer, ..lock })
}

/// Writes image.lock.
pub fn write_image_lock(root: &Path, lock: &ImageLock) -> Result<()> {
    cache::write(&folder(root).join("image.lock"), lock.to_text().as_bytes())
}

fn created(locked: &str, epoch: Option<&str>) -> Result<String> {
    let Some(epoch) = epoch.filter(|epoch| !epoch.is_empty()) else {
        return match OffsetDateTime::parse(locked, &Rfc3339) {
            Ok(_) => Ok(locked.to_owned()),
            Err(error) => {
                Err(Error::new(Kind::Input, format!("debian.lock: date {locked:?} is not RFC 3339")).source(error))
            }
        };
    };
    let wrong = || {
        Error::new(Kind::Config, format!("SOURCE_DATE_EPOCH={epoch} is not a number of seconds since 1970"))
            .hint("unset it, or set it to something like $(git log -1 --format=%ct)")
    };
    let seconds = epoch.parse::<i64>().ok().filter(|seconds| *seconds >= 0).ok_or_else(wrong)?;
    let time = OffsetDateTime::from_unix_timestamp(seconds).map_err(|_| wrong())?;
    time.format(&Rfc3339).map_err(|_| wrong())
}

/// The files below `rootfs`, except those that `.gitignore` names.
fn own_files(rootfs: &Path) -> Result<Vec<OwnFile>> {
    use std::os::unix::fs::PermissionsExt as _;
    if !fs::exists(rootfs).on_machine(|| format!("cannot look for {}", rootfs.display()))? {
        return Ok(Vec::new());
    }
    let walk = ignore::WalkBuilder::new(rootfs)
        .hidden(false)
        .git_global(false)
        .git_exclude(false)
        .require_git(false)
        .sort_by_file_path(Ord::cmp)
        .build();
    let mut files = Vec::new();
    for entry in walk {
        let entry = entry.on_machine(|| format!("cannot list {}", rootfs.display()))?;
        let path = entry.path();
        let refused = |problem: &str| Error::new(Kind::Input, format!("{}: {problem}", path.display()));
        let meta = fs::symlink_metadata(path).on_machine(|| format!("cannot read {}", path.display()))?;
        if meta.is_dir() {
            continue;
        }
        if !meta.is_file() {
            return Err(refused("not a regular file").hint("put a copy of the file there instead"));
        }
        let inside = path.strip_prefix(rootfs).ok().and_then(Path::to_str).ok_or_else(|| refused("not UTF-8"))?;
        let content = fs::read(path).on_machine(|| format!("cannot read {}", path.display()))?;
        let executable = meta.permissions().mode() & 0o100 != 0;
        files.push(OwnFile { path: inside.to_owned(), executable, content });
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_is_the_locks_or_the_users() {
        let check = |epoch: Option<&str>, expected: Result<&str, &str>| match (
            created("2026-11-01T00:00:00Z", epoch),
            expected,
        ) {
            (Ok(found), Ok(expected)) => assert_eq!(found, expected),
            (Err(error), Err(expected)) => assert!(error.to_string().contains(expected), "{error}"),
            (found, expected) => panic!("{epoch:?}: {found:?}, expected {expected:?}"),
        };
        check(None, Ok("2026-11-01T00:00:00Z"));
        check(Some(""), Ok("2026-11-01T00:00:00Z"));
        check(Some("0"), Ok("1970-01-01T00:00:00Z"));
        check(Some("1700000000"), Ok("2023-11-14T22:13:20Z"));
        check(Some("-1"), Err("SOURCE_DATE_EPOCH=-1"));
        check(Some("yesterday"), Err("SOURCE_DATE_EPOCH=yesterday"));
        check(Some("99999999999999"), Err("SOURCE_DATE_EPOCH=99999999999999"));
    }

    #[test]
    fn own_files_are_regular_and_not_ignored() {
        use std::os::unix::fs::{PermissionsExt as _, symlink};
        let dir = tempfile::tempdir().unwrap();
        let rootfs = dir.path().join("rootfs");
        assert_eq!(own_files(&rootfs).unwrap(), []);
        for (path, mode) in [("etc/b", 0o644), ("etc/a", 0o600), ("bin/x", 0o700), ("etc/y.pyc", 0o644)] {
            let path = rootfs.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, "1").unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        }
        fs::write(dir.path().join(".gitignore"), "*.pyc\n").unwrap();
        let files = own_files(&rootfs).unwrap();
        let found: Vec<_> = files.iter().map(|file| (file.path.as_str(), file.executable)).collect();
        assert_eq!(found, [("bin/x", true), ("etc/a", false), ("etc/b", false)]);
        symlink("/etc/passwd", rootfs.join("etc/c")).unwrap();
        assert!(own_files(&rootfs).unwrap_err().to_string().contains("etc/c: not a regular file"));
    }
}
