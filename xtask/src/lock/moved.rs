//! What a refresh changed.

use std::collections::BTreeMap;

use mlflow_image::lock::{DebianLock, Requirements};

/// Which lock a package is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum LockName {
    /// `requirements.lock`.
    Python,
    /// `debian.lock`.
    Debian,
}

/// A package whose pin changed.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Moved {
    /// The lock.
    pub lock: LockName,
    /// The package.
    pub name: String,
    /// The version before; `None`: it is new.
    pub from: Option<String>,
    /// The version now; `None`: it is gone.
    pub to: Option<String>,
}

impl std::fmt::Display for Moved {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let version = |version: &Option<String>| version.clone().unwrap_or_else(|| "-".to_owned());
        write!(f, "{} {} -> {}", self.name, version(&self.from), version(&self.to))
    }
}

/// What moved between two Python locks, by name. The same version with other hashes has moved too:
/// an index offers another file.
pub fn moved_requirements(old: Option<&Requirements>, new: &Requirements) -> Vec<Moved> {
    let list = |lock: &Requirements| {
        let pin = |one: &mlflow_image::lock::Requirement| (one.name.clone(), (one.version.clone(), one.hashes.clone()));
        lock.0.iter().map(pin).collect()
    };
    moved(LockName::Python, &old.map(list).unwrap_or_default(), &list(new))
}

/// What moved between two Debian locks, by name.
pub fn moved_debs(old: Option<&DebianLock>, new: &DebianLock) -> Vec<Moved> {
    let list = |lock: &DebianLock| {
        let mut packages: BTreeMap<_, (String, Vec<_>)> = BTreeMap::new();
        for package in lock.package.values().flatten() {
            let (version, hashes) = packages.entry(package.name.clone()).or_default();
            // Platforms differ in versions only while the archive is being rebuilt.
            if !version.split(", ").any(|known| known == package.version) {
                version.push_str(if version.is_empty() { "" } else { ", " });
                version.push_str(&package.version);
            }
            hashes.push(package.sha256);
        }
        packages
    };
    moved(LockName::Debian, &old.map(list).unwrap_or_default(), &list(new))
}

type Pins<H> = BTreeMap<String, (String, H)>;

fn moved<H: PartialEq>(lock: LockName, old: &Pins<H>, new: &Pins<H>) -> Vec<Moved> {
    let names: std::collections::BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let changed = names.into_iter().filter(|name| old.get(*name) != new.get(*name));
    let version = |pins: &Pins<H>, name: &String| pins.get(name).map(|(version, _)| version.clone());
    changed.map(|name| Moved { lock, name: name.clone(), from: version(old, name), to: version(new, name) }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use mlflow_image::Digest;
    use mlflow_image::lock::Requirement;

    fn lock(pins: &[(&str, &str, &str)]) -> Requirements {
        let pin = |(name, version, file): &(&str, &str, &str)| Requirement {
            name: (*name).to_owned(),
            version: (*version).to_owned(),
            hashes: vec![Digest::of(file)],
        };
        Requirements(pins.iter().map(pin).collect())
    }

    #[test]
    fn new_gone_moved_and_rebuilt_packages_are_told() {
        let old = lock(&[("a", "1", "x"), ("b", "1", "x"), ("c", "1", "x"), ("d", "1", "x")]);
        let new = lock(&[("a", "1", "x"), ("b", "2", "y"), ("d", "1", "y"), ("e", "1", "x")]);
        let shown: Vec<_> = moved_requirements(Some(&old), &new)
            .into_iter()
            .map(|moved| {
                format!("{} {} {}", moved.name, moved.from.unwrap_or("-".into()), moved.to.unwrap_or("-".into()))
            })
            .collect();
        assert_eq!(shown, ["b 1 2", "c 1 -", "d 1 1", "e - 1"]);
        assert_eq!(moved_requirements(None, &new).len(), 4);
        assert!(moved_requirements(Some(&new), &new).is_empty());
    }
}
