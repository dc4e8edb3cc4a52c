//! `requirements.in` -> `requirements.lock` and the wheels of `image.lock`: uv resolves, the same
//! versions for all platforms; then the best wheel of each is chosen and its hash locked.

use std::collections::BTreeMap;
use std::path::Path;

use mlflow_image::Platform;
use mlflow_image::lock::{Header, Requirement, Requirements, Wheel, normalize};

use super::inputs::{OVERRIDES, PythonInputs, REQUIREMENTS_IN, Set};
use crate::cache::Cache;
use crate::commands::Run;
use crate::error::{Context as _, Error, Kind, Result};
use crate::sources::{python_args, uv, wheels};

/// Which pins may move.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Upgrade {
    /// Only those that no longer satisfy the requirements.
    #[default]
    Nothing,
    /// All.
    Everything,
    /// These, and what they need.
    Only(Vec<String>),
}

/// The resolved Python part of the locks.
#[derive(Debug)]
pub struct Resolved {
    /// The lock's header.
    pub header: Header,
    /// The lock.
    pub requirements: Requirements,
    /// The wheels of each platform, in the lock's order.
    pub wheels: BTreeMap<Platform, Vec<Wheel>>,
}

/// Resolves the set; `old` is preferred where `upgrade` allows.
pub async fn resolve(
    run: &Run,
    cache: &Cache,
    root: &Path,
    inputs: &PythonInputs,
    set: Set,
    upgrade: &Upgrade,
    old: Option<&Requirements>,
) -> Result<Resolved> {
    let old: Vec<(String, String)> =
        old.into_iter().flat_map(|old| &old.0).map(|one| (one.name.clone(), one.version.clone())).collect();
    let [first, second] = Platform::ALL;
    let pins = compile(run, cache, root, first, set, upgrade, &old).await?;
    let others = compile(run, cache, root, second, set, &Upgrade::Nothing, &pins).await?;
    let pins = match agree(&pins, &others) {
        Ok(pins) => pins,
        // A version that exists for one platform only: take what the other one found.
        Err(_) => {
            let pins = compile(run, cache, root, first, set, &Upgrade::Nothing, &others).await?;
            agree(&pins, &others).map_err(|names| {
                Error::new(Kind::Input, format!("{first} and {second} resolve to different versions: {names}"))
                    .hint("add a bound to mlflow_server/requirements.in that both platforms can satisfy")
            })?
        }
    };

    let unhashed = pins.into_iter().map(|(name, version)| Requirement { name, version, hashes: Vec::new() });
    let mut requirements = Requirements(unhashed.collect());
    let mut chosen = BTreeMap::new();
    for platform in Platform::ALL {
        chosen.insert(platform, wheels::select(run, cache, platform, &requirements).await?);
    }
    for (at, requirement) in requirements.0.iter_mut().enumerate() {
        requirement.hashes = chosen.values().map(|wheels: &Vec<Wheel>| wheels[at].sha256).collect();
        requirement.hashes.sort_unstable();
        requirement.hashes.dedup();
    }
    let header = Header { set: set.to_string(), inputs: inputs.digest(set) };
    Ok(Resolved { header, requirements, wheels: chosen })
}

type Pins = Vec<(String, String)>;

/// Lets uv resolve for one platform; `preferred` pins are kept as far as they fit.
async fn compile(
    run: &Run,
    cache: &Cache,
    root: &Path,
    platform: Platform,
    set: Set,
    upgrade: &Upgrade,
    preferred: &Pins,
) -> Result<Pins> {
    run.ui.step("Resolving", format!("Python packages for {platform}"));
    let folder = tempfile::tempdir().on_machine(|| "cannot create a temporary folder")?;
    let output = folder.path().join("pins.txt");
    let lines: String = preferred.iter().map(|(name, version)| format!("{name}=={version}\n")).collect();
    crate::cache::write(&output, lines.as_bytes())?;

    let path = |path: &Path| path.display().to_string();
    let mut args = vec!["pip".to_owned(), "compile".to_owned(), path(&root.join(REQUIREMENTS_IN))];
    args.extend(python_args(platform));
    args.extend(["--no-annotate".to_owned(), "--output-file".to_owned(), path(&output)]);
    if set == Set::Server {
        args.extend(["--override".to_owned(), path(&root.join(OVERRIDES))]);
    }
    match upgrade {
        Upgrade::Nothing => {}
        Upgrade::Everything => args.push("--upgrade".to_owned()),
        Upgrade::Only(names) => {
            args.extend(names.iter().flat_map(|name| ["--upgrade-package".to_owned(), name.clone()]));
        }
    }
    uv::read(run, cache, args, String::new()).await?;
    let text = std::fs::read_to_string(&output).on_machine(|| "cannot read uv's answer")?;
    parse(&text)
}

fn parse(text: &str) -> Result<Pins> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let mut pins = lines
        .map(|line| {
            let (name, version) = line.split_once("==").ok_or_else(|| {
                Error::new(Kind::Input, format!("uv resolved {line:?}, which is no pinned release"))
                    .hint("requirements.in may name releases only, no URLs and no local folders")
            })?;
            Ok((normalize(name.trim()), version.trim().to_owned()))
        })
        .collect::<Result<Pins>>()?;
    pins.sort();
    Ok(pins)
}

/// The pins of both, if no distribution has two versions; else their names.
fn agree(a: &Pins, b: &Pins) -> std::result::Result<Pins, String> {
    let mut all: BTreeMap<&str, &str> = BTreeMap::new();
    let mut differ = Vec::new();
    for (name, version) in a.iter().chain(b) {
        if all.insert(name, version).is_some_and(|other| other != version) {
            differ.push(name.as_str());
        }
    }
    if differ.is_empty() {
        return Ok(all.into_iter().map(|(name, version)| (name.to_owned(), version.to_owned())).collect());
    }
    Err(differ.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pins(list: &[(&str, &str)]) -> Pins {
        list.iter().map(|(name, version)| ((*name).to_owned(), (*version).to_owned())).collect()
    }

    #[test]
    fn platforms_agree_or_say_where_they_differ() {
        assert_eq!(agree(&pins(&[("a", "1")]), &pins(&[("a", "1"), ("b", "2")])), Ok(pins(&[("a", "1"), ("b", "2")])));
        assert_eq!(agree(&pins(&[("a", "1"), ("b", "1")]), &pins(&[("a", "2"), ("b", "1")])), Err("a".to_owned()));
    }

    #[test]
    fn answers_are_sorted_pins() {
        assert_eq!(parse("# x\nzipp==1\nFlask_WTF==1.3.0\n").unwrap(), pins(&[("flask-wtf", "1.3.0"), ("zipp", "1")]));
        assert_eq!(parse("six @ file:///x\n").unwrap_err().kind(), Kind::Input);
    }
}
