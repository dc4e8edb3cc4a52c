//! Signed suites: `InRelease` -> `Packages`, each step verified by the one before.

use std::io::Read as _;
use std::time::SystemTime;

use mlflow_image::packages::{IndexFile, Release};
use mlflow_image::{Digest, Platform};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;
use url::Url;

use super::{Keyring, Mirrors, snapshot};
use crate::cache::Cache;
use crate::commands::Run;
use crate::error::{Context as _, Error, Kind, Result};
use crate::sources::download::{Downloader, Item, is_cached};

/// The largest `InRelease` that is read.
const LARGEST_RELEASE: u64 = 8 << 20;
/// The largest `Packages` that is unpacked; trixie's is 57 MB.
const LARGEST_PACKAGES: u64 = 512 << 20;
/// How far the archive's clock may be ahead of ours.
const CLOCK_SKEW: time::Duration = time::Duration::hours(24);

/// A suite to resolve from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suite {
    /// Its code name: `trixie`, `trixie-security`.
    pub name: String,
    /// The archive: `debian`, `debian-security`.
    pub archive: String,
}

/// A suite's packages.
#[derive(Debug)]
pub struct Index {
    /// The suite.
    pub suite: Suite,
    /// When it was signed.
    pub date: OffsetDateTime,
    /// The text of `Packages` by platform, verified.
    pub packages: Vec<(Platform, String)>,
}

/// Fetches and verifies a suite's index for all platforms.
pub async fn fetch(run: &Run, cache: &Cache, mirrors: &Mirrors, keys: &Keyring, suite: &Suite) -> Result<Index> {
    let downloader = Downloader::new(run, &format!("the index of {}", suite.name))?;
    let path = format!("dists/{}/InRelease", suite.name);
    let mut urls = mirrors.urls(&suite.archive, &path);
    let now = OffsetDateTime::now_utc();
    urls.extend(snapshot(&suite.archive, now, &path));
    let what = format!("{} InRelease", suite.name);
    let (message, found_at) = downloader.read(run, &what, &urls, LARGEST_RELEASE).await?.ok_or_else(|| {
        Error::new(Kind::Remote, format!("no mirror has the suite {}", suite.name))
            .hint("check the suites in mlflow_server/debian.in, or name a --debian-mirror")
    })?;
    let message = String::from_utf8(message).context(Kind::Input, || format!("{what} is not text"))?;
    let text = keys.verify(&what, &message, SystemTime::now())?;
    let release = Release::parse(&what, &text)?;
    let date = check(&what, suite, &release, now)?;

    let mut packages = Vec::new();
    for platform in Platform::ALL {
        let packed = format!("main/binary-{}/Packages.xz", platform.architecture());
        let file = release.file(&packed).ok_or_else(|| {
            Error::new(Kind::Input, format!("{what} names no {packed}")).hint("check the suites in debian.in")
        })?;
        let text = fetch_packages(run, cache, &downloader, &found_at, &release, file).await?;
        packages.push((platform, text));
    }
    Ok(Index { suite: suite.clone(), date, packages })
}

/// A mirror could serve another suite's or an old index, both with good signatures.
fn check(what: &str, suite: &Suite, release: &Release<'_>, now: OffsetDateTime) -> Result<OffsetDateTime> {
    let refused = |problem: String| {
        Err(Error::new(Kind::Input, format!("{what} is refused: {problem}"))
            .hint("the mirror is out of date or not Debian's: name another with --debian-mirror"))
    };
    if release.codename != suite.name {
        return refused(format!("it is the index of {}", release.codename));
    }
    let date = parse_date(what, release.date)?;
    if date > now + CLOCK_SKEW {
        return refused(format!("it is from the future ({})", release.date));
    }
    if let Some(until) = release.valid_until
        && parse_date(what, until)? < now
    {
        return refused(format!("it expired on {until}"));
    }
    Ok(date)
}

/// `Sat, 21 Nov 2026 09:15:44 UTC`.
fn parse_date(what: &str, text: &str) -> Result<OffsetDateTime> {
    let text = text.strip_suffix("UTC").map_or_else(|| text.to_owned(), |date| format!("{date}+0000"));
    OffsetDateTime::parse(&text, &Rfc2822).context(Kind::Input, || format!("{what}: {text:?} is not a date"))
}

async fn fetch_packages(
    run: &Run,
    cache: &Cache,
    downloader: &Downloader,
    found_at: &Url,
    release: &Release<'_>,
    file: &IndexFile<'_>,
) -> Result<String> {
    let what = format!("{} {}", release.codename, file.path);
    if !is_cached(cache, &file.sha256, Some(file.size))? {
        let mut urls = Vec::new();
        if release.by_hash {
            // A mirror that is being updated serves the old and the new index by hash.
            let folder = file.path.rsplit_once('/').map_or("", |(folder, _)| folder);
            urls.extend(found_at.join(&format!("{folder}/by-hash/SHA256/{}", file.sha256.hex())).ok());
        }
        urls.extend(found_at.join(file.path).ok());
        let item = Item { what: what.clone(), urls, sha256: file.sha256, size: Some(file.size) };
        let fetched = downloader.fetch(run, cache, &[item]).await?;
        if !fetched.gone.is_empty() {
            return Err(Error::new(Kind::Remote, format!("the mirror has no {what}"))
                .hint("the mirror is being updated: try again in a few minutes, or name another --debian-mirror"));
        }
    }
    let path = cache.download(&file.sha256)?;
    let packed = std::fs::read(&path).on_machine(|| format!("cannot read {}", path.display()))?;
    if Digest::of(&packed) != file.sha256 {
        // The disk lied; the next run fetches it again.
        let _ = std::fs::remove_file(&path);
        return Err(Error::new(Kind::Machine, format!("{what} in the cache is damaged"))
            .hint("it was removed: run the same command again"));
    }
    let mut text = String::new();
    liblzma::read::XzDecoder::new(packed.as_slice())
        .take(LARGEST_PACKAGES)
        .read_to_string(&mut text)
        .context(Kind::Input, || format!("{what} cannot be unpacked"))?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(text: &str) -> Result<OffsetDateTime> {
        let suite = Suite { name: "trixie".to_owned(), archive: "debian".to_owned() };
        let release = Release::parse("InRelease", text).unwrap();
        check("InRelease", &suite, &release, time::macros::datetime!(2026-11-23 12:00 UTC))
    }

    #[test]
    fn an_old_future_or_foreign_index_is_refused() {
        let text = |codename: &str, date: &str, until: &str| {
            format!("Suite: stable\nCodename: {codename}\nDate: {date}\n{until}SHA256:\n")
        };
        let (yesterday, tomorrow) = ("Sun, 22 Nov 2026 12:00:00 UTC", "Wed, 25 Nov 2026 12:00:00 UTC");
        assert!(judge(&text("trixie", yesterday, "")).is_ok());
        assert!(judge(&text("trixie", yesterday, &format!("Valid-Until: {tomorrow}\n"))).is_ok());
        for (text, expected) in [
            (text("bookworm", yesterday, ""), "index of bookworm"),
            (text("trixie", tomorrow, ""), "from the future"),
            (text("trixie", yesterday, &format!("Valid-Until: {yesterday}\n")), "expired"),
            (text("trixie", "yesterday", ""), "is not a date"),
        ] {
            let error = judge(&text).unwrap_err();
            assert_eq!(error.kind(), Kind::Input);
            assert!(error.to_string().contains(expected), "{error}");
        }
    }
}
