//! The software bill of materials: CycloneDX 1.6 as JSON (ECMA-424), from the locks alone, so that
//! it is known whenever the image's digest is. Packages are named by purl (ECMA-427).

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;

use crate::lock::{DebPackage, Wheel};
use crate::manifest::Document;
use crate::{Digest, Platform};

/// The media type, also the artifact type of the referrer that carries the document.
pub const MEDIA_TYPE: &str = "application/vnd.cyclonedx+json";

/// What the document describes.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// The image's name, the last part of its repository.
    pub name: &'a str,
    /// MLflow's version.
    pub version: &'a str,
    /// Digest of the manifest or index.
    pub digest: Digest,
    /// RFC 3339.
    pub created: &'a str,
    /// Debian's code name.
    pub suite: &'a str,
}

/// What one platform's image consists of.
#[derive(Clone, Copy, Debug)]
pub struct Contents<'a> {
    /// The platform.
    pub platform: Platform,
    /// Its Debian packages.
    pub debs: &'a [DebPackage],
    /// Its wheels.
    pub wheels: &'a [Wheel],
}

/// The bill over the given platforms; a package that several share is listed once.
pub fn cyclonedx(subject: &Subject<'_>, contents: &[Contents<'_>]) -> Document {
    let mut components: BTreeMap<String, Component> = BTreeMap::new();
    for contents in contents {
        for deb in contents.debs {
            let architecture = if deb.path.ends_with("_all.deb") { "all" } else { contents.platform.architecture() };
            let version = encode(&deb.version);
            let purl =
                format!("pkg:deb/debian/{}@{version}?arch={architecture}&distro={}", encode(&deb.name), subject.suite);
            components
                .entry(purl.clone())
                .or_insert_with(|| Component::library(&deb.name, &deb.version, deb.sha256, purl));
        }
        for wheel in contents.wheels {
            let purl = format!(
                "pkg:pypi/{}@{}?file_name={}",
                encode(&wheel.name),
                encode(&wheel.version),
                encode(&wheel.file)
            );
            let component = || Component::library(&wheel.name, &wheel.version, wheel.sha256, purl.clone());
            components.entry(purl.clone()).or_insert_with(component);
        }
    }
    let purl = format!("pkg:oci/{}@{}", encode(subject.name), encode(&subject.digest.to_string()));
    let root =
        Component { kind: "container", ..Component::library(subject.name, subject.version, subject.digest, purl) };
    let mut dependencies = vec![Dependency { of: &root.bom_ref, on: components.keys().collect() }];
    dependencies.extend(components.keys().map(|purl| Dependency { of: purl, on: Vec::new() }));
    let bom = Bom {
        schema: "http://cyclonedx.org/schema/bom-1.6.schema.json",
        bom_format: "CycloneDX",
        spec_version: "1.6",
        serial_number: serial_number(subject.digest),
        version: 1,
        metadata: Metadata { timestamp: subject.created, component: &root },
        components: components.values().collect(),
        dependencies,
    };
    Document::json(MEDIA_TYPE, &bom)
}

/// A version 8 UUID (RFC 9562, section 5.8) of the image's digest: the same image, the same serial.
fn serial_number(digest: Digest) -> String {
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&Digest::of(format!("cyclonedx {digest}")).bytes()[..16]);
    bytes[6] = bytes[6] & 0x0f | 0x80;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("urn:uuid:{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

/// Percent-encodes all but purl's unreserved characters.
fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            // Writing to a string does not fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Bom<'a> {
    #[serde(rename = "$schema")]
    schema: &'static str,
    bom_format: &'static str,
    spec_version: &'static str,
    serial_number: String,
    version: u32,
    metadata: Metadata<'a>,
    components: Vec<&'a Component<'a>>,
    dependencies: Vec<Dependency<'a>>,
}

#[derive(Serialize)]
struct Metadata<'a> {
    timestamp: &'a str,
    component: &'a Component<'a>,
}

#[derive(Serialize)]
struct Component<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(rename = "bom-ref")]
    bom_ref: String,
    name: &'a str,
    version: &'a str,
    hashes: [Hash; 1],
    purl: String,
}

impl<'a> Component<'a> {
    fn library(name: &'a str, version: &'a str, digest: Digest, purl: String) -> Self {
        let hashes = [Hash { alg: "SHA-256", content: digest.hex() }];
        Self { kind: "library", bom_ref: purl.clone(), name, version, hashes, purl }
    }
}

#[derive(Serialize)]
struct Hash {
    alg: &'static str,
    content: String,
}

#[derive(Serialize)]
struct Dependency<'a> {
    #[serde(rename = "ref")]
    of: &'a str,
    #[serde(rename = "dependsOn", skip_serializing_if = "Vec::is_empty")]
    on: Vec<&'a String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bill() -> (Document, serde_json::Value) {
        let deb = |path: &str, version: &str| DebPackage {
            name: "libstdc++6".to_owned(),
            version: version.to_owned(),
            sha256: Digest::of(path),
            size: 1,
            path: path.to_owned(),
            archive: "debian".to_owned(),
        };
        let wheel = |file: &str| Wheel {
            name: "six".to_owned(),
            version: "1.17.0+local".to_owned(),
            file: file.to_owned(),
            sha256: Digest::of(file),
            size: 1,
        };
        let digest = Digest::of("image");
        let created = "2026-11-01T00:00:00Z";
        let subject = Subject { name: "mlflow", version: "3.17.2", digest, created, suite: "trixie" };
        let wheels = [wheel("six-1.17.0-py3-none-any.whl")];
        let amd64 = [deb("libstdc++6_1%3a14.2~r+2_amd64.deb", "1:14.2~r+2")];
        let arm64 = [deb("libstdc++6_1%3a14.2~r+2_arm64.deb", "1:14.2~r+2"), deb("x_all.deb", "2")];
        let bill = cyclonedx(
            &subject,
            &[
                Contents { platform: Platform::LinuxAmd64, debs: &amd64, wheels: &wheels },
                Contents { platform: Platform::LinuxArm64, debs: &arm64, wheels: &wheels },
            ],
        );
        let value = serde_json::from_slice(&bill.bytes).unwrap();
        (bill, value)
    }

    #[test]
    fn every_package_is_named_once_by_purl() {
        let (_, bill) = bill();
        let purls: Vec<_> = bill["components"]
            .as_array()
            .unwrap()
            .iter()
            .map(|component| component["purl"].as_str().unwrap())
            .collect();
        assert_eq!(
            purls,
            [
                "pkg:deb/debian/libstdc%2B%2B6@1%3A14.2~r%2B2?arch=amd64&distro=trixie",
                "pkg:deb/debian/libstdc%2B%2B6@1%3A14.2~r%2B2?arch=arm64&distro=trixie",
                "pkg:deb/debian/libstdc%2B%2B6@2?arch=all&distro=trixie",
                "pkg:pypi/six@1.17.0%2Blocal?file_name=six-1.17.0-py3-none-any.whl",
            ]
        );
    }

    #[test]
    fn the_image_depends_on_every_package() {
        let (_, bill) = bill();
        assert_eq!(bill["dependencies"][0]["ref"], bill["metadata"]["component"]["bom-ref"]);
        assert_eq!(bill["dependencies"][0]["dependsOn"].as_array().unwrap().len(), 4);
    }

    #[test]
    fn the_same_image_has_the_same_bill() {
        assert_eq!(bill().0, bill().0);
        let serial = bill().1["serialNumber"].as_str().unwrap().to_owned();
        assert!(serial.starts_with("urn:uuid:") && serial.len() == 45 && serial.as_bytes()[23] == b'8', "{serial}");
    }
}
