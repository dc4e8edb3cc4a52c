//! `debian.in` -> `debian.lock`: from signed indices, the newest version of each listed package.
//! There is no dependency resolver: the list is complete, or the missing name is told.

use std::collections::{BTreeMap, BTreeSet};

use mlflow_image::Platform;
use mlflow_image::lock::{DebPackage, DebianLock};
use mlflow_image::packages::{Package, Relation, stanzas};
use time::format_description::well_known::Rfc3339;

use super::inputs::DebianInputs;
use crate::cache::Cache;
use crate::commands::Run;
use crate::error::{Context as _, Error, Kind, Result};
use crate::sources::Mirrors;
use crate::sources::debian::{Index, Keyring, fetch_index};

/// Resolves the list. When no package moved, the old lock is given back with its date, so that a
/// suite which was merely signed again moves nothing.
pub async fn resolve(
    run: &Run,
    cache: &Cache,
    mirrors: &Mirrors,
    keys: &Keyring,
    inputs: &DebianInputs,
    old: Option<&DebianLock>,
) -> Result<DebianLock> {
    run.ui.step("Resolving", "Debian packages");
    let mut indices = Vec::new();
    for suite in &inputs.suites {
        indices.push(fetch_index(run, cache, mirrors, keys, suite).await?);
    }
    let mut package = BTreeMap::new();
    let mut unused: BTreeSet<&str> = inputs.without.iter().map(String::as_str).collect();
    for platform in Platform::ALL {
        let chosen = choose(inputs, &indices, platform)?;
        unused.retain(|name| !chosen.left_out.contains(*name));
        package.insert(platform, chosen.packages);
    }
    if !unused.is_empty() {
        let list: Vec<_> = unused.into_iter().collect();
        run.ui.warn(format!("debian.in does without {}, which nothing depends on", list.join(", ")));
    }
    let newest = indices.iter().map(|index| index.date).max().unwrap_or(time::OffsetDateTime::UNIX_EPOCH);
    let lock = DebianLock {
        suite: inputs.suites.first().map(|suite| suite.name.clone()).unwrap_or_default(),
        date: newest.format(&Rfc3339).context(Kind::Internal, || "cannot write a date")?,
        inputs: inputs.digest.unwrap_or_else(|| mlflow_image::Digest::of("")),
        package,
    };
    Ok(match old {
        Some(old) if old.package == lock.package && old.suite == lock.suite => {
            DebianLock { date: old.date.clone(), ..lock }
        }
        _ => lock,
    })
}

/// One platform's packages, and which of the dependencies that are left out were asked for.
#[derive(Debug)]
struct Chosen {
    packages: Vec<DebPackage>,
    left_out: BTreeSet<String>,
}

fn choose(inputs: &DebianInputs, indices: &[Index], platform: Platform) -> Result<Chosen> {
    let mut newest: BTreeMap<&str, (Package<'_>, &str)> = BTreeMap::new();
    for index in indices {
        let texts = index.packages.iter().filter(|(of, _)| *of == platform);
        for stanza in texts.flat_map(|(_, text)| stanzas(&index.suite.name, text)) {
            let stanza = stanza?;
            let listed = stanza.get("Package").is_some_and(|name| inputs.packages.iter().any(|wanted| wanted == name));
            if !listed {
                continue;
            }
            let package = Package::read(&index.suite.name, &stanza)?;
            let newer = newest.get(package.name).is_none_or(|(known, _)| known.version < package.version);
            if newer {
                newest.insert(package.name, (package, &index.suite.archive));
            }
        }
    }
    if let Some(name) = inputs.packages.iter().find(|name| !newest.contains_key(name.as_str())) {
        let suites: Vec<_> = indices.iter().map(|index| index.suite.name.as_str()).collect();
        return Err(Error::new(Kind::Input, format!("{} has no package {name} for {platform}", suites.join(", ")))
            .hint("remove it from mlflow_server/debian.in, or list its new name"));
    }

    let mut left_out = BTreeSet::new();
    let mut lacking = Vec::new();
    for (package, _) in newest.values() {
        for relation in package.depends.iter().filter(|relation| !is_satisfied(relation, &newest)) {
            match relation.0.iter().find(|one| inputs.without.iter().any(|name| name == one.name)) {
                Some(one) => drop(left_out.insert(one.name.to_owned())),
                None => lacking.push(format!("{} depends on {relation}", package.name)),
            }
        }
    }
    if !lacking.is_empty() {
        return Err(Error::new(Kind::Input, format!("debian.in is not complete for {platform}"))
            .source(lacking.join("; "))
            .hint("list what is needed, and add a `without PACKAGE` line for what is not"));
    }
    let packages = newest
        .into_values()
        .map(|(package, archive)| DebPackage {
            name: package.name.to_owned(),
            version: package.version.to_string(),
            sha256: package.sha256,
            size: package.size,
            path: package.filename.to_owned(),
            archive: archive.to_owned(),
        })
        .collect();
    Ok(Chosen { packages, left_out })
}

/// Whether a listed package, or what it provides, satisfies one of the alternatives.
fn is_satisfied(relation: &Relation<'_>, listed: &BTreeMap<&str, (Package<'_>, &str)>) -> bool {
    relation.0.iter().any(|wanted| {
        let itself = listed.get(wanted.name).is_some_and(|(package, _)| wanted.allows(Some(&package.version)));
        let mut provided = listed.values().flat_map(|(package, _)| &package.provides);
        itself
            || provided.any(|one| {
                one.name == wanted.name && wanted.allows(one.constraint.as_ref().map(|(_, version)| version))
            })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::debian::Suite;
    use mlflow_image::Digest;

    fn index(suite: &str, archive: &str, packages: &[(&str, &str, &str)]) -> Index {
        let text: String = packages
            .iter()
            .map(|(name, version, more)| {
                let hash = Digest::of(format!("{name}{version}")).hex();
                format!(
                    "Package: {name}\nVersion: {version}\n{more}Filename: pool/{name}.deb\nSize: 9\nSHA256: {hash}\n\n"
                )
            })
            .collect();
        Index {
            suite: Suite { name: suite.to_owned(), archive: archive.to_owned() },
            date: time::OffsetDateTime::UNIX_EPOCH,
            packages: vec![(Platform::LinuxAmd64, text)],
        }
    }

    fn check(list: &str, indices: &[Index], expected: std::result::Result<&str, &str>) {
        let inputs = DebianInputs::parse(&format!("suite trixie\n{list}")).unwrap();
        match (choose(&inputs, indices, Platform::LinuxAmd64), expected) {
            (Ok(found), Ok(expected)) => {
                let shown = found.packages.iter().map(|one| format!("{} {} {}", one.name, one.version, one.archive));
                assert_eq!(shown.collect::<Vec<_>>().join(", "), expected);
            }
            (Err(error), Err(expected)) => {
                let text = error.lines().join(" | ");
                assert!(text.contains(expected), "{text:?} should contain {expected:?}");
            }
            (found, expected) => panic!("{list}: {found:?}, expected {expected:?}"),
        }
    }

    #[test]
    fn the_newest_version_of_all_suites_is_taken() {
        let main = || index("trixie", "debian", &[("libssl3t64", "3.5.1-1", ""), ("zlib1g", "1.3-1", "")]);
        let security = || index("trixie-security", "debian-security", &[("libssl3t64", "3.5.1-1+deb13u1", "")]);
        let expected = Ok("libssl3t64 3.5.1-1+deb13u1 debian-security, zlib1g 1.3-1 debian");
        check("libssl3t64\nzlib1g", &[main(), security()], expected);
        check("libssl3t64\nzlib1g", &[security(), main()], expected);
        check("zlib1g", &[main(), security()], Ok("zlib1g 1.3-1 debian"));
        check("zlib1g\nlibfoo", &[main()], Err("trixie has no package libfoo for linux/amd64"));
    }

    #[test]
    fn every_dependency_is_listed_or_declared_unneeded() {
        let main = || {
            index(
                "trixie",
                "debian",
                &[
                    ("aa", "1", "Depends: bb (>= 2) | cc, dd\nPre-Depends: ee\n"),
                    ("bb", "1", ""),
                    ("cc", "1", "Provides: ee\n"),
                    ("dd", "1", ""),
                    ("ff", "1", "Depends: ee (>= 1)\n"),
                ],
            )
        };
        check("aa\ncc\ndd", &[main()], Ok("aa 1 debian, cc 1 debian, dd 1 debian"));
        check("aa\nbb\ncc\ndd", &[main()], Ok("aa 1 debian, bb 1 debian, cc 1 debian, dd 1 debian"));
        check("aa\nbb\ndd\nwithout ee", &[main()], Err("aa depends on bb (>= 2) | cc"));
        check("aa\ncc", &[main()], Err("aa depends on dd"));
        check("aa\ncc\nwithout dd", &[main()], Ok("aa 1 debian, cc 1 debian"));
        check("ff\ncc", &[main()], Err("ff depends on ee (>= 1)"));
    }
}
