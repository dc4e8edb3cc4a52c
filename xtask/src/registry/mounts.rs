//! Which repositories of a registry hold a blob that this machine has pushed: candidates for a
//! mount, which copies a blob on the registry's side (distribution-spec, "Mounting a blob").
//!
//! The file is a memory aid. A wrong entry costs nothing: the registry then answers the mount with
//! an ordinary upload session.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Mutex;

use mlflow_image::Digest;

use crate::cache::{self, Cache};
use crate::error::Result;

/// The most blobs and repositories that are remembered of one registry.
const MOST_BLOBS: usize = 4096;
const MOST_REPOSITORIES: usize = 8;

type Known = BTreeMap<String, BTreeSet<String>>;

/// The memory of one registry.
pub struct Mounts {
    path: PathBuf,
    repository: String,
    known: Mutex<Known>,
}

impl Mounts {
    /// Reads what earlier runs wrote; what cannot be read is forgotten.
    pub fn open(cache: &Cache, registry: &str, repository: &str) -> Result<Self> {
        let name: String =
            registry.chars().map(|c| if c.is_ascii_alphanumeric() || ".-".contains(c) { c } else { '_' }).collect();
        let path = cache.dir("pushed")?.join(format!("{name}.json"));
        let known = std::fs::read(&path).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default();
        Ok(Self { path, repository: repository.to_owned(), known: Mutex::new(known) })
    }

    /// Another repository that may hold the blob.
    pub fn candidate(&self, digest: &Digest) -> Option<String> {
        let known = self.known.lock().ok()?;
        known.get(&digest.hex())?.iter().find(|repository| **repository != self.repository).cloned()
    }

    /// The repository holds the blob now.
    pub fn remember(&self, digest: &Digest) {
        let Ok(mut known) = self.known.lock() else { return };
        let repositories = known.entry(digest.hex()).or_default();
        if repositories.len() < MOST_REPOSITORIES {
            repositories.insert(self.repository.clone());
        }
    }

    /// A mount failed: the repository does not hold it any more, or it may not be read.
    pub fn forget(&self, digest: &Digest, repository: &str) {
        let Ok(mut known) = self.known.lock() else { return };
        if let Some(repositories) = known.get_mut(&digest.hex()) {
            repositories.remove(repository);
        }
    }

    /// Keeps it for the next run. Two runs at once: the last one's memory stays.
    pub fn save(&self) {
        let Ok(mut known) = self.known.lock() else { return };
        known.retain(|_, repositories| !repositories.is_empty());
        while known.len() > MOST_BLOBS {
            known.pop_first();
        }
        let Ok(text) = serde_json::to_vec(&*known) else { return };
        // Not being able to remember is no reason to fail a push that succeeded.
        if std::fs::read(&self.path).ok().as_ref() != Some(&text) {
            let _ = cache::write(&self.path, &text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blob_is_mounted_from_another_repository_only() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::at(dir.path()).unwrap();
        let digest = Digest::of("blob");
        let first = Mounts::open(&cache, "host:5000", "team/one").unwrap();
        first.remember(&digest);
        assert_eq!(first.candidate(&digest), None);
        first.save();

        let second = Mounts::open(&cache, "host:5000", "team/two").unwrap();
        assert_eq!(second.candidate(&digest).as_deref(), Some("team/one"));
        second.forget(&digest, "team/one");
        assert_eq!(second.candidate(&digest), None);
        assert_eq!(Mounts::open(&cache, "other:5000", "team/two").unwrap().candidate(&digest), None);
    }

    #[test]
    fn a_damaged_memory_is_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::at(dir.path()).unwrap();
        std::fs::create_dir_all(dir.path().join("pushed")).unwrap();
        std::fs::write(dir.path().join("pushed/host.json"), "{\"x\": 3").unwrap();
        assert_eq!(Mounts::open(&cache, "host", "a").unwrap().candidate(&Digest::of("blob")), None);
    }
}
