//! Image references: `[host[:port]/]path[:tag][@digest]`.
//!
//! The grammar is that of the `reference` package which Docker, containerd and podman share, and
//! the defaults are theirs: no host means Docker Hub, a Hub name without a slash lies below
//! `library/`, no tag and no digest means `latest`. `oci-client` has a parser too, but its regular
//! expression takes longer to compile in a debug build than a whole warm push, and it knows no
//! IPv6 addresses; a test below keeps both in agreement.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use mlflow_image::Digest;

use crate::error::{Error, Kind, Result};

/// What Docker Hub is called in references, and the host that answers for it.
const HUB: &str = "docker.io";
const HUB_HOST: &str = "registry-1.docker.io";
/// Names of Docker Hub that older references carry.
const HUB_ALIASES: [&str; 3] = [HUB, "index.docker.io", HUB_HOST];
/// The longest name of a repository, host included (distribution-spec, "Pulling manifests").
const LONGEST_NAME: usize = 255;
const LONGEST_TAG: usize = 128;

/// The name of an image in a registry.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Reference {
    /// Reads a reference. The error is of kind [`Kind::Usage`] and quotes the text.
    pub fn parse(text: &str) -> Result<Self> {
        let wrong = |why: String| {
            Error::new(Kind::Usage, format!("{text:?} is not an image reference: {why}"))
                .hint("write it as HOST[:PORT]/PATH[:TAG][@sha256:DIGEST]")
        };
        let (name, digest) = match text.split_once('@') {
            None => (text, None),
            Some((name, digest)) => {
                let digest = digest.parse::<Digest>().map_err(|_| wrong(format!("{digest:?} is not a digest")))?;
                (name, Some(digest))
            }
        };
        let (name, tag) = match name.rsplit_once(':') {
            // A colon before a slash belongs to a port.
            Some((name, tag)) if !tag.contains('/') && !tag.contains(']') => (name, Some(tag)),
            _ => (name, None),
        };
        if let Some(tag) = tag
            && !is_tag(tag)
        {
            return Err(wrong(format!("{tag:?} is not a tag")));
        }
        let (registry, path) = match name.split_once('/') {
            Some((host, path)) if host.contains(['.', ':']) || host == "localhost" => (host, path),
            _ => (HUB, name),
        };
        if !is_host(registry) {
            return Err(wrong(format!("{registry:?} is not a host")));
        }
        let registry = if HUB_ALIASES.contains(&registry) { HUB } else { registry };
        let repository =
            if registry == HUB && !path.contains('/') { format!("library/{path}") } else { path.to_owned() };
        if path.is_empty() {
            return Err(wrong("it names no repository".to_owned()));
        }
        if let Some(part) = repository.split('/').find(|part| !is_path_component(part)) {
            let why = match part.chars().find(char::is_ascii_uppercase) {
                Some(_) => format!("{part:?} has upper-case letters"),
                None => format!("{part:?} is not a path component"),
            };
            return Err(wrong(why));
        }
        if registry.len() + 1 + repository.len() > LONGEST_NAME {
            return Err(wrong(format!("it is longer than {LONGEST_NAME} characters")));
        }
        let tag = match (tag, digest) {
            (None, None) => Some("latest".to_owned()),
            (tag, _) => tag.map(str::to_owned),
        };
        Ok(Self { registry: registry.to_owned(), repository, tag, digest })
    }

    /// The registry as people name it: host and port.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The path below the registry.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The last part of the path: what people call the image.
    pub fn last_part(&self) -> &str {
        self.repository.rsplit('/').next().unwrap_or(&self.repository)
    }

    /// The tag, if the reference has one.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest, if the reference has one.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// What selects the manifest: the digest, else the tag.
    pub fn selector(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, Some(tag)) => tag.clone(),
            (None, None) => "latest".to_owned(),
        }
    }

    /// Registry and repository, without tag and digest.
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// The same repository, by digest alone: the only form that is deployed.
    pub fn with_digest(&self, digest: Digest) -> Self {
        Self { tag: None, digest: Some(digest), ..self.clone() }
    }

    /// The same repository under another tag.
    pub fn with_tag(&self, tag: &str) -> Result<Self> {
        if !is_tag(tag) {
            return Err(Error::new(Kind::Usage, format!("{tag:?} is not a tag"))
                .hint("use letters, digits, '_', '.' and '-', at most 128"));
        }
        Ok(Self { tag: Some(tag.to_owned()), digest: None, ..self.clone() })
    }

    /// The host and port that answer for the registry.
    pub fn host(&self) -> &str {
        if self.registry == HUB { HUB_HOST } else { &self.registry }
    }

    /// Whether the registry is on this machine: the only case in which plain HTTP is spoken.
    pub fn is_loopback(&self) -> bool {
        is_loopback(host_without_port(self.host()))
    }

    /// `http` for loopback hosts, `https` for all others.
    pub fn scheme(&self) -> &'static str {
        if self.is_loopback() { "http" } else { "https" }
    }

    /// Whether Google serves it: Artifact Registry, or its gcr.io domain.
    pub fn is_google(&self) -> bool {
        let host = host_without_port(self.host());
        host == "gcr.io" || host.ends_with(".gcr.io") || host.ends_with(".pkg.dev")
    }

    /// Whether it is on Docker Hub.
    pub fn is_hub(&self) -> bool {
        self.registry == HUB
    }

    /// The same as `oci-client` has it.
    pub(super) fn to_oci(&self) -> oci_distribution::Reference {
        let (registry, repository) = (self.host().to_owned(), self.repository.clone());
        match self.digest {
            Some(digest) => oci_distribution::Reference::with_digest(registry, repository, digest.to_string()),
            None => oci_distribution::Reference::with_tag(registry, repository, self.selector()),
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

impl FromStr for Reference {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::parse(text)
    }
}

impl serde::Serialize for Reference {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Whether `host` (no port) is this machine: 127.0.0.0/8, ::1 or localhost.
pub(super) fn is_loopback(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn host_without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

fn is_host(host: &str) -> bool {
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => (name, Some(port)),
        _ => (host, None),
    };
    if port.is_some_and(|port| port.parse::<u16>().is_err() || port.starts_with('+')) {
        return false;
    }
    if let Some(inner) = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')) {
        return inner.parse::<std::net::Ipv6Addr>().is_ok();
    }
    name.split('.').all(|label| {
        let bytes = label.as_bytes();
        let ends = bytes.first().is_some_and(u8::is_ascii_alphanumeric) && bytes[bytes.len() - 1] != b'-';
        ends && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'-')
    })
}

fn is_tag(tag: &str) -> bool {
    let bytes = tag.as_bytes();
    let word = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    bytes.first().is_some_and(word)
        && bytes.len() <= LONGEST_TAG
        && bytes.iter().all(|byte| word(byte) || matches!(byte, b'.' | b'-'))
}

/// Lower-case letters and digits, separated by one `.`, one or two `_`, or any number of `-`.
fn is_path_component(part: &str) -> bool {
    let alphanumeric = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = part.as_bytes();
    if !bytes.first().copied().is_some_and(alphanumeric) || !bytes.last().copied().is_some_and(alphanumeric) {
        return false;
    }
    part.split(|c: char| c.is_ascii() && alphanumeric(c as u8))
        .all(|separator| matches!(separator, "" | "." | "_" | "__") || separator.bytes().all(|byte| byte == b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    fn check(text: &str, expected: &str) {
        assert_eq!(Reference::parse(text).unwrap().to_string(), expected, "{text}");
    }

    #[test]
    fn names_get_the_defaults_of_the_field() {
        check("ubuntu", "docker.io/library/ubuntu:latest");
        check("ubuntu:24.04", "docker.io/library/ubuntu:24.04");
        check("grafana/grafana", "docker.io/grafana/grafana:latest");
        check("index.docker.io/ubuntu", "docker.io/library/ubuntu:latest");
        check("ghcr.io/mlflow/mlflow:v3", "ghcr.io/mlflow/mlflow:v3");
        check("localhost/mlflow", "localhost/mlflow:latest");
        check("localhost:5000/mlflow", "localhost:5000/mlflow:latest");
        check("127.0.0.1:5000/a/b/c:x", "127.0.0.1:5000/a/b/c:x");
        check("[::1]:5000/a", "[::1]:5000/a:latest");
        check("[::1]/a:x", "[::1]/a:x");
        check("europe-west1-docker.pkg.dev/project/repo/mlflow:1", "europe-west1-docker.pkg.dev/project/repo/mlflow:1");
        check(&format!("a.b/c@{DIGEST}"), &format!("a.b/c@{DIGEST}"));
        check(&format!("a.b/c:t@{DIGEST}"), &format!("a.b/c:t@{DIGEST}"));
    }

    #[test]
    fn what_is_no_reference_is_refused_with_the_reason() {
        let long = "a".repeat(129);
        for (text, why) in [
            ("", "names no repository"),
            ("host.io/", "names no repository"),
            ("host.io/A", "upper-case"),
            ("host.io/a//b", "not a path component"),
            ("host.io/a..b", "not a path component"),
            ("host.io/a___b", "not a path component"),
            ("host.io/-a", "not a path component"),
            ("host.io/a:", "not a tag"),
            ("host.io/a:.x", "not a tag"),
            (&format!("host.io/a:{long}"), "not a tag"),
            ("host.io/a@sha256:12", "not a digest"),
            ("host.io:port/a", "not a host"),
            ("host.io:70000/a", "not a host"),
            ("-host.io/a", "not a host"),
            ("https://host.io/a", "not a host"),
            ("host.io/a b", "not a path component"),
            ("host.io/../etc", "not a path component"),
        ] {
            let error = Reference::parse(text).unwrap_err();
            assert!(error.to_string().contains(why), "{text}: {error}");
            assert_eq!(error.kind(), Kind::Usage);
        }
    }

    #[test]
    fn plain_http_is_spoken_to_this_machine_only() {
        for (text, scheme) in [
            ("localhost/a", "http"),
            ("localhost:5000/a", "http"),
            ("127.0.0.1:5000/a", "http"),
            ("127.9.9.9/a", "http"),
            ("[::1]:5000/a", "http"),
            ("[::2]:5000/a", "https"),
            ("10.0.0.1:5000/a", "https"),
            ("localhost.example.com/a", "https"),
            ("127.0.0.1.example.com/a", "https"),
            ("ubuntu", "https"),
        ] {
            assert_eq!(Reference::parse(text).unwrap().scheme(), scheme, "{text}");
        }
    }

    #[test]
    fn google_serves_pkg_dev_and_gcr_io() {
        for (text, google) in [
            ("gcr.io/p/a", true),
            ("eu.gcr.io/p/a", true),
            ("europe-west1-docker.pkg.dev/p/r/a", true),
            ("notgcr.io/p/a", false),
            ("pkg.dev.example.com/p/a", false),
        ] {
            assert_eq!(Reference::parse(text).unwrap().is_google(), google, "{text}");
        }
    }

    #[test]
    fn the_parser_of_oci_client_agrees() {
        for text in [
            "ubuntu",
            "ubuntu:24.04",
            "grafana/grafana",
            "ghcr.io/mlflow/mlflow:v3",
            "localhost:5000/a/b-c/d__e:x",
            "host.io/a..b",
            "host.io/A",
            "host.io/a:.x",
            "host.io/a--b",
        ] {
            let ours = Reference::parse(text).ok().map(|reference| reference.to_string());
            let theirs = text.parse::<oci_distribution::Reference>().ok().map(|reference| reference.whole());
            assert_eq!(ours, theirs, "{text}");
        }
    }
}
