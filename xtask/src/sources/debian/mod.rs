//! Debian's archive: mirrors, signed indices, and packages by their locked digest.

mod apt;
mod index;
mod signature;

use mlflow_image::lock::{DebPackage, DebianLock, MAIN_ARCHIVE};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use url::Url;

use self::apt::AptFile;
use super::download::{Downloader, Item, is_cached};
use crate::cache::Cache;
use crate::commands::Run;
use crate::error::{Context as _, Error, Kind, Result};

pub use index::{Index, Suite, fetch as fetch_index};
pub use signature::Keyring;

/// Debian's own archive of all that it ever published: the last resort, and the only server whose
/// address is written in this program. <https://snapshot.debian.org/>
const SNAPSHOTS: &str = "https://snapshot.debian.org/archive";

/// Where Debian's archive is to be had from.
#[derive(Clone, Debug)]
pub struct Mirrors {
    /// The user's choice; then nothing else is asked but the snapshots.
    chosen: Option<Url>,
    os_release: String,
    apt: std::sync::Arc<Vec<AptFile>>,
}

impl std::fmt::Debug for AptFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.path)
    }
}

impl Mirrors {
    /// The mirror that the user names, else those of this host's apt configuration.
    pub fn detect(chosen: Option<&str>) -> Result<Self> {
        if let Some(text) = chosen {
            let root = apt::root(text).ok_or_else(|| {
                Error::new(Kind::Config, format!("debian mirror {text:?} is not an http, https or file URL"))
                    .hint("give the URL of the folder that holds dists/ and pool/")
            })?;
            return Ok(Self { chosen: Some(root), os_release: String::new(), apt: Vec::new().into() });
        }
        let os_release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
        Ok(Self { chosen: None, os_release, apt: read_apt_files().into() })
    }

    /// The roots for an archive, in the order in which they are asked.
    fn roots(&self, archive: &str) -> Vec<Url> {
        match &self.chosen {
            Some(root) => vec![sibling(root, archive)],
            None => apt::roots(&self.os_release, &self.apt, archive),
        }
    }

    fn urls(&self, archive: &str, path: &str) -> Vec<Url> {
        self.roots(archive).iter().map(|root| below(root, path)).collect()
    }
}

/// Mirrors serve the archives beside each other; a chosen mirror is that of `debian`.
fn sibling(root: &Url, archive: &str) -> Url {
    if archive == MAIN_ARCHIVE {
        return root.clone();
    }
    let mut url = root.clone();
    let path = root.path();
    let path = match path.strip_suffix(&format!("/{MAIN_ARCHIVE}")) {
        Some(parent) => format!("{parent}/{archive}"),
        None => format!("{path}{}", archive.strip_prefix(MAIN_ARCHIVE).unwrap_or(archive)),
    };
    url.set_path(&path);
    url
}

fn below(root: &Url, path: &str) -> Url {
    let mut url = root.clone();
    // `set_path` keeps `%` as it is and would take `?` for a part of the path.
    url.set_path(&format!("{}/{path}", root.path().trim_end_matches('/')));
    url
}

fn read_apt_files() -> Vec<AptFile> {
    let folder = std::path::Path::new("/etc/apt");
    let mut paths = vec![folder.join("sources.list")];
    let entries = std::fs::read_dir(folder.join("sources.list.d"));
    let mut more: Vec<_> = entries.into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    more.retain(|path| path.extension().is_some_and(|ext| ext == "list" || ext == "sources"));
    more.sort();
    paths.extend(more);
    let read = |path: std::path::PathBuf| {
        let text = std::fs::read_to_string(&path).ok()?;
        Some(AptFile { path: path.display().to_string(), text })
    };
    paths.into_iter().filter_map(read).collect()
}

/// The archive as it was: the snapshot at or before `moment`.
fn snapshot(archive: &str, moment: OffsetDateTime, path: &str) -> Option<Url> {
    let stamp = moment.to_offset(time::UtcOffset::UTC);
    let format = time::macros::format_description!("[year][month][day]T[hour][minute][second]Z");
    Url::parse(&format!("{SNAPSHOTS}/{archive}/{}/{path}", stamp.format(format).ok()?)).ok()
}

/// Why packages could not be had.
#[derive(Debug)]
pub enum FetchDebsError {
    /// No server has these locked versions: resolve again from the signed index.
    Superseded(Vec<DebPackage>),
    /// Anything else.
    Other(Error),
}

impl From<Error> for FetchDebsError {
    fn from(error: Error) -> Self {
        Self::Other(error)
    }
}

impl From<FetchDebsError> for Error {
    fn from(error: FetchDebsError) -> Self {
        let packages = match error {
            FetchDebsError::Other(error) => return error,
            FetchDebsError::Superseded(packages) => packages,
        };
        let list: Vec<_> = packages.iter().map(|package| format!("{} {}", package.name, package.version)).collect();
        Error::new(Kind::Remote, format!("no server has the locked Debian packages any more: {}", list.join(", ")))
            .hint("cargo xtask lock resolves them again and shows what moved; or name a complete --debian-mirror")
    }
}

/// Gets the packages that the cache lacks, from the mirrors, else from the snapshot of the lock's
/// date; gives the bytes that were downloaded.
pub async fn fetch_debs(
    run: &Run,
    cache: &Cache,
    mirrors: &Mirrors,
    lock: &DebianLock,
    packages: &[DebPackage],
) -> std::result::Result<u64, FetchDebsError> {
    let mut missing: Vec<&DebPackage> = Vec::new();
    for package in packages {
        let wanted = is_cached(cache, &package.sha256, Some(package.size))?
            || missing.iter().any(|other| other.sha256 == package.sha256);
        if !wanted {
            missing.push(package);
        }
    }
    let Some(first) = missing.first() else { return Ok(0) };
    let others = match missing.len() {
        1 => String::new(),
        n => format!(" and {} other Debian packages", n - 1),
    };
    let downloader = Downloader::new(run, &format!("{}{others}", file_name(first)))?;
    let (mut bytes, mut mirror_error) = (0, None);
    let items: Vec<_> =
        missing.iter().map(|package| item(package, mirrors.urls(&package.archive, &package.path))).collect();
    match downloader.fetch(run, cache, &items).await {
        Ok(fetched) => {
            bytes += fetched.bytes;
            missing = fetched.gone.into_iter().map(|at| missing[at]).collect();
        }
        // A mirror that nobody chose may be out of reach; what it gave is in the cache.
        Err(error) if error.kind() == Kind::Remote && mirrors.chosen.is_none() => {
            let cached = |package: &DebPackage| is_cached(cache, &package.sha256, Some(package.size));
            missing.retain(|package| !cached(package).unwrap_or(false));
            mirror_error = Some(error);
        }
        Err(error) => return Err(error.into()),
    }
    if missing.is_empty() {
        return Ok(bytes);
    }
    run.ui.step("Asking", format!("Debian's snapshots for {} packages", missing.len()));
    let moments = snapshot_moments(&lock.date)?;
    let items: Vec<_> = missing
        .iter()
        .map(|package| {
            item(package, moments.iter().filter_map(|at| snapshot(&package.archive, *at, &package.path)).collect())
        })
        .collect();
    match downloader.fetch(run, cache, &items).await {
        Ok(fetched) if fetched.gone.is_empty() => Ok(bytes + fetched.bytes),
        Ok(fetched) => Err(FetchDebsError::Superseded(fetched.gone.iter().map(|at| missing[*at].clone()).collect())),
        Err(error) if error.kind() != Kind::Remote => Err(error.into()),
        Err(error) => match (mirror_error, mirrors.roots(MAIN_ARCHIVE).is_empty()) {
            (Some(first), _) => Err(first.into()),
            (None, true) => Err(error.into()),
            // The mirror answered that it has them no more, and the snapshots do not answer.
            (None, false) => Err(FetchDebsError::Superseded(missing.into_iter().cloned().collect())),
        },
    }
}

fn item(package: &DebPackage, urls: Vec<Url>) -> Item {
    Item { what: file_name(package), urls, sha256: package.sha256, size: Some(package.size) }
}

fn file_name(package: &DebPackage) -> String {
    package.path.rsplit('/').next().unwrap_or(&package.name).to_owned()
}

/// A snapshot is taken some hours after a release was signed, and the pool keeps what the release
/// names for longer than a day.
fn snapshot_moments(date: &str) -> Result<[OffsetDateTime; 2]> {
    let signed = OffsetDateTime::parse(date, &Rfc3339)
        .context(Kind::Input, || format!("debian.lock: date {date:?} is not RFC 3339"))?;
    Ok([signed + time::Duration::days(1), signed])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chosen_mirror_serves_all_archives() {
        for (root, archive, expected) in [
            ("http://m.example/debian/", "debian", "http://m.example/debian/pool/x"),
            ("http://m.example/debian", "debian-security", "http://m.example/debian-security/pool/x"),
            ("http://m.example/a/debian", "debian-security", "http://m.example/a/debian-security/pool/x"),
            ("https://m.example/remote", "debian-security", "https://m.example/remote-security/pool/x"),
            ("file:///srv/debian", "debian", "file:///srv/debian/pool/x"),
        ] {
            let mirrors = Mirrors::detect(Some(root)).unwrap();
            assert_eq!(mirrors.urls(archive, "pool/x")[0].as_str(), expected);
        }
        for root in ["m.example/debian", "ftp://m.example/debian", "http://m.example/debian?x"] {
            assert_eq!(Mirrors::detect(Some(root)).unwrap_err().kind(), Kind::Config, "{root}");
        }
    }

    #[test]
    fn snapshots_are_named_by_archive_and_moment() {
        let moments = snapshot_moments("2026-11-21T09:15:44Z").unwrap();
        let url = snapshot("debian-security", moments[0], "pool/updates/main/x.deb").unwrap();
        assert!(url.as_str().ends_with("/archive/debian-security/20261122T091544Z/pool/updates/main/x.deb"), "{url}");
        assert!(snapshot_moments("yesterday").is_err());
    }
}
