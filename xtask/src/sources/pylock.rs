//! uv's answer to "where are these wheels": `pylock.toml` (PEP 751), the fields that matter here.

use mlflow_image::Digest;
use mlflow_image::lock::normalize;
use serde::Deserialize;

use crate::error::{Context as _, Error, Kind, Result};

/// A wheel that an index offers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The distribution's normalized name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The wheel's file name.
    pub file: String,
    /// Where it is: an URL, or a path for a local index.
    pub location: String,
    /// Bytes, where the index tells.
    pub size: Option<u64>,
    /// The digest that the index gives.
    pub sha256: Digest,
}

#[derive(Deserialize)]
struct File {
    #[serde(rename = "lock-version")]
    lock_version: String,
    #[serde(default)]
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    #[serde(default)]
    version: String,
    #[serde(default)]
    wheels: Vec<Wheel>,
}

#[derive(Deserialize)]
struct Wheel {
    name: Option<String>,
    url: Option<String>,
    path: Option<String>,
    size: Option<u64>,
    #[serde(default)]
    hashes: std::collections::BTreeMap<String, String>,
}

/// Reads all wheels of all packages. A wheel without a SHA-256 is of no use and left out.
pub fn parse(text: &str) -> Result<Vec<Candidate>> {
    let file: File = toml::from_str(text).context(Kind::Tool, || "uv answered with an unreadable pylock.toml")?;
    if !file.lock_version.starts_with("1.") {
        return Err(Error::new(Kind::Tool, format!("uv answered with pylock.toml version {}", file.lock_version)));
    }
    let mut found = Vec::new();
    for package in file.packages {
        for wheel in package.wheels {
            let Some(location) = wheel.url.or(wheel.path) else { continue };
            let Some(sha256) = wheel.hashes.get("sha256").and_then(|hex| Digest::from_hex(hex)) else { continue };
            let file = wheel.name.unwrap_or_else(|| file_name(&location));
            found.push(Candidate {
                name: normalize(&package.name),
                version: package.version.clone(),
                file,
                location,
                size: wheel.size,
                sha256,
            });
        }
    }
    Ok(found)
}

/// The last path segment, with `%2B` and its like decoded.
fn file_name(location: &str) -> String {
    let path = match url::Url::parse(location) {
        Ok(url) => url.path().to_owned(),
        Err(_) => location.to_owned(),
    };
    let last = path.rsplit('/').next().unwrap_or_default();
    percent_decoded(last)
}

fn percent_decoded(text: &str) -> String {
    url::form_urlencoded::parse(format!("k={}", text.replace('+', "%2B")).as_bytes())
        .next()
        .map_or_else(String::new, |(_, value)| value.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wheels_are_read_with_place_size_and_digest() {
        let hash = Digest::of("x").hex();
        let text = format!(
            r#"lock-version = "1.0"
            created-by = "uv"
            [[packages]]
            name = "Flask_WTF"
            version = "1.3.0"
            wheels = [
                {{ url = "http://127.0.0.1/a%2Bb/flask_wtf-1.3.0%2Blocal-py3-none-any.whl#f", upload-time = 2026-01-01T00:00:00Z, size = 12, hashes = {{ sha256 = "{hash}" }} }},
                {{ path = "wheels/flask_wtf-1.3.0-1-py3-none-any.whl", hashes = {{ sha256 = "{hash}" }} }},
                {{ url = "http://127.0.0.1/weak.whl", hashes = {{ md5 = "00" }} }},
            ]
            [[packages]]
            name = "sdist-only"
            version = "1"
            sdist = {{ url = "http://127.0.0.1/x.tar.gz" }}"#
        );
        let found = parse(&text).unwrap();
        let shown: Vec<_> = found.iter().map(|c| (c.name.as_str(), c.file.as_str(), c.size)).collect();
        assert_eq!(
            shown,
            [
                ("flask-wtf", "flask_wtf-1.3.0+local-py3-none-any.whl", Some(12)),
                ("flask-wtf", "flask_wtf-1.3.0-1-py3-none-any.whl", None)
            ]
        );
    }

    #[test]
    fn what_is_no_pylock_is_refused() {
        for text in ["", "lock-version = \"2.0\"", "lock-version = 1", "not toml"] {
            assert_eq!(parse(text).unwrap_err().kind(), Kind::Tool, "{text}");
        }
    }
}
