//! Any text as Debian's indices: packages or an error, never a panic; versions have one order.
#![no_main]

use mlflow_image::packages::{Package, Release, Version, parse_relations, stanzas};

libfuzzer_sys::fuzz_target!(|text: &str| {
    let _ = Release::parse("Release", text);
    let mut versions = Vec::new();
    for stanza in stanzas("Packages", text).flatten() {
        if let Ok(package) = Package::read("Packages", &stanza) {
            assert!(!package.filename.starts_with('/') && !package.filename.split('/').any(|part| part == ".."));
            versions.push(package.version);
        }
    }
    versions.extend(text.lines().take(16).filter_map(|line| Version::parse(line).ok()));
    for a in &versions {
        for b in &versions {
            assert_eq!(a.cmp(b), b.cmp(a).reverse(), "{a} {b}");
        }
    }
    for relation in parse_relations(text).unwrap_or_default() {
        let shown = relation.to_string();
        assert_eq!(parse_relations(&shown).as_deref(), Ok(&[relation.clone()][..]), "{shown:?}");
    }
});
