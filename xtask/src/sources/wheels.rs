//! Wheels: which of those that an index offers fits, and getting it into the cache.

use std::collections::BTreeMap;
use std::path::Path;

use mlflow_image::lock::{Requirements, Wheel};
use mlflow_image::{Digest, Platform};
use url::Url;

use super::download::{Downloader, Item, is_cached};
use super::pylock::{self, Candidate};
use super::tags::{self, Tags};
use super::uv;
use crate::cache::{self, Cache};
use crate::commands::Run;
use crate::error::{Context as _, Error, Kind, Result};

/// The best wheel of each requirement for `platform`, in the order of the requirements. Only
/// wheels whose digest is among the requirement's hashes are considered.
pub async fn select(run: &Run, cache: &Cache, platform: Platform, requirements: &Requirements) -> Result<Vec<Wheel>> {
    let offered = offers(run, cache, platform, &pins(requirements)).await?;
    let mut wheels = choose(&Tags::of(platform), requirements, &offered)
        .map_err(|problem| Error::new(Kind::Input, format!("{platform}: {problem}")).hint(MOVED))?;
    measure(run, cache, &offered, &mut wheels).await?;
    Ok(wheels.into_iter().map(|(wheel, _)| wheel).collect())
}

/// Gets the wheels that the cache lacks; gives the bytes that were downloaded.
pub async fn fetch(run: &Run, cache: &Cache, root: &Path, platform: Platform, wheels: &[Wheel]) -> Result<u64> {
    let mut missing = Vec::new();
    for wheel in wheels {
        if !is_cached(cache, &wheel.sha256, Some(wheel.size))? {
            missing.push(wheel);
        }
    }
    let Some(first) = missing.first() else { return Ok(0) };
    let others = match missing.len() {
        1 => String::new(),
        n => format!(" and {} other wheels", n - 1),
    };
    let downloader = Downloader::new(run, &format!("{}{others}", first.file))?;
    let path = root.join(crate::lock::REQUIREMENTS_LOCK);
    let text = std::fs::read_to_string(&path).on_machine(|| format!("cannot read {}", path.display()))?;
    let requirements = Requirements::parse("requirements.lock", &text)?;
    let pins = pins(&requirements);
    let mut offered = offers(run, cache, platform, &pins).await?;
    if missing.iter().any(|wheel| place(&offered, wheel).is_none()) {
        // The index may have moved its files since the answer was kept.
        forget(cache, platform, &pins)?;
        offered = offers(run, cache, platform, &pins).await?;
    }
    let mut items = Vec::new();
    for wheel in &missing {
        let candidate = place(&offered, wheel).ok_or_else(|| {
            Error::new(Kind::Remote, format!("the package index does not offer {} with its locked hash", wheel.file))
                .hint(MOVED)
        })?;
        let urls = vec![url_of(&candidate.location)?];
        items.push(Item { what: wheel.file.clone(), urls, sha256: wheel.sha256, size: Some(wheel.size) });
    }
    let fetched = downloader.fetch(run, cache, &items).await?;
    if let Some(gone) = fetched.gone.first() {
        forget(cache, platform, &pins)?;
        return Err(Error::new(Kind::Remote, format!("{} is no longer where the index said", items[*gone].what))
            .hint("run the same command again: the index will be asked anew"));
    }
    Ok(fetched.bytes)
}

const MOVED: &str = "cargo xtask lock resolves again and shows what moved";

/// All wheels that uv finds for the pins; kept in the cache, so that a second run asks nobody.
pub async fn offers(run: &Run, cache: &Cache, platform: Platform, pins: &str) -> Result<Vec<Candidate>> {
    let kept = kept_answer(cache, platform, pins)?;
    if let Ok(text) = std::fs::read_to_string(&kept)
        && let Ok(candidates) = pylock::parse(&text)
    {
        return Ok(candidates);
    }
    run.ui.step("Locating", format!("wheels for {platform}"));
    let args = ["pip", "compile", "-", "--no-deps", "--format", "pylock.toml"].map(str::to_owned);
    let args = args.into_iter().chain(tags::uv_args(platform)).collect();
    let text = uv::read(run, cache, args, pins.to_owned()).await?;
    let candidates = pylock::parse(&text)?;
    cache::write(&kept, text.as_bytes())?;
    Ok(candidates)
}

/// `name==version` lines.
fn pins(requirements: &Requirements) -> String {
    requirements.0.iter().map(|one| format!("{}=={}\n", one.name, one.version)).collect()
}

fn kept_answer(cache: &Cache, platform: Platform, pins: &str) -> Result<std::path::PathBuf> {
    let name = format!("{}-{}.toml", Digest::of(pins).hex(), platform.architecture());
    Ok(cache.dir("pylock")?.join(name))
}

fn forget(cache: &Cache, platform: Platform, pins: &str) -> Result<()> {
    match std::fs::remove_file(kept_answer(cache, platform, pins)?) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).on_machine(|| "cannot remove a file of the cache")
        }
        _ => Ok(()),
    }
}

fn place<'a>(offered: &'a [Candidate], wheel: &Wheel) -> Option<&'a Candidate> {
    offered.iter().find(|candidate| candidate.sha256 == wheel.sha256)
}

fn url_of(location: &str) -> Result<Url> {
    if let Ok(url) = Url::parse(location) {
        return Ok(url);
    }
    let path = std::path::absolute(location).on_machine(|| format!("cannot find {location}"))?;
    Url::from_file_path(path)
        .map_err(|()| Error::new(Kind::Tool, format!("uv answered with the location {location:?}")))
}

/// The best wheel of each requirement, with its size where the index tells; the error names the
/// requirement that has none.
pub fn choose(
    tags: &Tags,
    requirements: &Requirements,
    offered: &[Candidate],
) -> std::result::Result<Vec<(Wheel, Option<u64>)>, String> {
    let mut by_name: BTreeMap<&str, Vec<&Candidate>> = BTreeMap::new();
    for candidate in offered {
        by_name.entry(&candidate.name).or_default().push(candidate);
    }
    let mut wheels = Vec::new();
    for requirement in &requirements.0 {
        let candidates = by_name.get(requirement.name.as_str()).map_or(&[][..], Vec::as_slice);
        let fitting = candidates
            .iter()
            .filter(|candidate| candidate.version == requirement.version)
            .filter(|candidate| requirement.hashes.is_empty() || requirement.hashes.contains(&candidate.sha256))
            .filter_map(|candidate| Some((tags.rank(&candidate.file)?, &candidate.file, *candidate)));
        let Some((_, _, best)) = fitting.min_by_key(|(rank, file, _)| (*rank, *file)) else {
            return Err(format!("no wheel of {}=={} fits", requirement.name, requirement.version));
        };
        let wheel = Wheel {
            name: requirement.name.clone(),
            version: requirement.version.clone(),
            file: best.file.clone(),
            sha256: best.sha256,
            size: best.size.unwrap_or(0),
        };
        wheels.push((wheel, best.size));
    }
    Ok(wheels)
}

/// Simple indices tell no sizes: such wheels are downloaded to know them.
async fn measure(run: &Run, cache: &Cache, offered: &[Candidate], wheels: &mut [(Wheel, Option<u64>)]) -> Result<()> {
    let mut items = Vec::new();
    for (wheel, _) in wheels.iter().filter(|(_, size)| size.is_none()) {
        if !is_cached(cache, &wheel.sha256, None)? {
            let candidate = place(offered, wheel);
            let urls = candidate.map(|candidate| url_of(&candidate.location)).transpose()?.into_iter().collect();
            items.push(Item { what: wheel.file.clone(), urls, sha256: wheel.sha256, size: None });
        }
    }
    if let Some(first) = items.first() {
        let fetched = Downloader::new(run, &first.what)?.fetch(run, cache, &items).await?;
        if let Some(gone) = fetched.gone.first() {
            return Err(Error::new(Kind::Remote, format!("{} is not where the index says", items[*gone].what)));
        }
    }
    for (wheel, _) in wheels.iter_mut().filter(|(_, size)| size.is_none()) {
        let path = cache.download(&wheel.sha256)?;
        wheel.size = std::fs::metadata(&path).on_machine(|| format!("cannot read {}", path.display()))?.len();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use mlflow_image::lock::Requirement;

    fn candidate(file: &str) -> Candidate {
        let (name, rest) = file.split_once('-').unwrap();
        Candidate {
            name: name.to_owned(),
            version: rest.split('-').next().unwrap().to_owned(),
            file: file.to_owned(),
            location: format!("http://127.0.0.1/{file}"),
            size: Some(1),
            sha256: Digest::of(file),
        }
    }

    fn check(offered: &[&str], hashes: &[&str], expected: std::result::Result<&str, &str>) {
        let requirement = Requirement {
            name: "six".to_owned(),
            version: "1".to_owned(),
            hashes: hashes.iter().map(Digest::of).collect(),
        };
        let offered: Vec<_> = offered.iter().map(|file| candidate(file)).collect();
        let found = choose(&Tags::of(Platform::LinuxAmd64), &Requirements(vec![requirement]), &offered);
        match (found, expected) {
            (Ok(found), Ok(expected)) => assert_eq!(found[0].0.file, expected),
            (Err(problem), Err(expected)) => assert!(problem.contains(expected), "{problem}"),
            (found, expected) => panic!("{found:?}, expected {expected:?}"),
        }
    }

    #[test]
    fn the_best_locked_wheel_is_chosen() {
        let (pure, native) = ("six-1-py3-none-any.whl", "six-1-cp313-cp313-manylinux_2_28_x86_64.whl");
        check(&[pure, native], &[pure, native], Ok(native));
        check(&[pure, native], &[], Ok(native));
        check(&[pure, native], &[pure], Ok(pure));
        check(&["six-2-py3-none-any.whl", pure], &[], Ok(pure));
        check(&[pure], &["something else"], Err("no wheel of six==1 fits"));
        check(&["zipp-1-py3-none-any.whl"], &[], Err("no wheel of six==1 fits"));
        check(&[], &[], Err("no wheel of six==1 fits"));
    }
}
