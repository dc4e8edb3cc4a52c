//! The mirrors that a Debian host's own apt configuration names: both of apt's file formats
//! (sources.list(5)). Pure; only the roots of the mirrors are of interest, not the suites.

use mlflow_image::packages::stanzas;
use url::Url;

/// The archive of security updates; mirrors serve it beside `debian`.
pub const SECURITY_ARCHIVE: &str = "debian-security";

/// One line or stanza that names binary packages.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Source {
    uris: Vec<String>,
    suites: Vec<String>,
    components: Vec<String>,
}

/// A file of apt's configuration.
pub struct AptFile {
    /// Its path, which decides the format.
    pub path: String,
    /// Its text.
    pub text: String,
}

/// The roots for `archive`, in the order of the files, none twice. `os_release` is the text of
/// `/etc/os-release`: on Debian itself, mirrors in the distribution's own files count whatever
/// they are called; elsewhere only what is called `debian`.
pub fn roots(os_release: &str, files: &[AptFile], archive: &str) -> Vec<Url> {
    let on_debian = os_release.lines().any(|line| matches!(line.trim(), "ID=debian" | "ID=\"debian\""));
    let mut roots = Vec::new();
    for file in files {
        let own = on_debian && matches!(file.path.rsplit('/').next(), Some("sources.list" | "debian.sources"));
        let sources = if file.path.ends_with(".sources") { read_deb822(&file.text) } else { read_list(&file.text) };
        for source in sources.iter().filter(|source| source.components.iter().any(|name| name == "main")) {
            let security = source.suites.iter().any(|suite| suite.ends_with("-security") || suite.contains("/updates"));
            let serves = if security { SECURITY_ARCHIVE } else { "debian" };
            for uri in source.uris.iter().filter(|_| serves == archive) {
                let Some(root) = root(uri) else { continue };
                let named = root.path_segments().and_then(|mut path| path.next_back().map(str::to_owned));
                if (own || named.as_deref() == Some(archive)) && !roots.contains(&root) {
                    roots.push(root);
                }
            }
        }
    }
    roots
}

/// A mirror's root without a trailing slash; only what can be downloaded from.
pub fn root(uri: &str) -> Option<Url> {
    let mut url = Url::parse(uri).ok()?;
    if !matches!(url.scheme(), "http" | "https" | "file") || url.query().is_some() || url.fragment().is_some() {
        return None;
    }
    let path = url.path().trim_end_matches('/').to_owned();
    url.set_path(&path);
    Some(url)
}

/// `deb [options] uri suite component...`
fn read_list(text: &str) -> Vec<Source> {
    text.lines().filter_map(read_line).collect()
}

fn read_line(line: &str) -> Option<Source> {
    let line = line.split('#').next()?.trim();
    let rest = line.strip_prefix("deb")?.strip_prefix([' ', '\t'])?.trim_start();
    let rest = match rest.strip_prefix('[') {
        Some(options) => options.split_once(']')?.1,
        None => rest,
    };
    let mut words = rest.split_whitespace().map(str::to_owned);
    let (uri, suite) = (words.next()?, words.next()?);
    Some(Source { uris: vec![uri], suites: vec![suite], components: words.collect() })
}

fn read_deb822(text: &str) -> Vec<Source> {
    let mut sources = Vec::new();
    // What apt itself would refuse names no mirror.
    for stanza in stanzas("sources", text).flatten() {
        let words = |field| {
            let value: &str = stanza.get(field).unwrap_or_default();
            let lines = value.lines().filter(|line| !line.trim_start().starts_with('#'));
            lines.flat_map(str::split_whitespace).map(str::to_owned).collect::<Vec<_>>()
        };
        let disabled = matches!(stanza.get("Enabled"), Some("no" | "false" | "0" | "off" | "without" | "disable"));
        if !disabled && words("Types").iter().any(|word| word == "deb") {
            sources.push(Source { uris: words("URIs"), suites: words("Suites"), components: words("Components") });
        }
    }
    sources
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(os: &str, path: &str, text: &str, expected: (&[&str], &[&str])) {
        let files = [AptFile { path: path.to_owned(), text: text.to_owned() }];
        let found = |archive| roots(os, &files, archive).iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!((found("debian"), found(SECURITY_ARCHIVE)), (owned(expected.0), owned(expected.1)), "{text}");
    }

    fn owned(list: &[&str]) -> Vec<String> {
        list.iter().map(|text| (*text).to_owned()).collect()
    }

    const DEBIAN: &str = "NAME=\"Debian GNU/Linux\"\nID=debian\n";
    const UBUNTU: &str = "ID=ubuntu\nID_LIKE=debian\n";
    const LIST: &str = "/etc/apt/sources.list";
    const DEB822: &str = "/etc/apt/sources.list.d/debian.sources";

    #[test]
    fn one_line_sources_name_mirrors() {
        let m = "http://m.example/debian";
        check(DEBIAN, LIST, "deb http://m.example/debian/ bookworm main contrib", (&[m], &[]));
        check(DEBIAN, LIST, "deb [arch=amd64 signed-by=/k] http://m.example/debian bookworm main # x", (&[m], &[]));
        check(
            DEBIAN,
            LIST,
            "# deb http://m.example/debian bookworm main\ndeb-src http://m.example/debian x main",
            (&[], &[]),
        );
        check(DEBIAN, LIST, "deb http://m.example/debian x main\ndeb http://m.example/debian y main", (&[m], &[]));
        check(
            DEBIAN,
            LIST,
            "deb http://m.example/debian-security trixie-security main",
            (&[], &["http://m.example/debian-security"]),
        );
        check(
            DEBIAN,
            LIST,
            "deb http://s.example/debian-security buster/updates main",
            (&[], &["http://s.example/debian-security"]),
        );
        check(DEBIAN, LIST, "deb cdrom:[Debian]/ trixie main\ndeb\ndeb [x", (&[], &[]));
        check(DEBIAN, LIST, "deb mirror+file:/x trixie main", (&[], &[]));
    }

    #[test]
    fn a_mirror_of_another_name_counts_in_debians_own_files_only() {
        let line = "deb https://art.example/api/deb-remote trixie main";
        check(DEBIAN, LIST, line, (&["https://art.example/api/deb-remote"], &[]));
        check(UBUNTU, LIST, line, (&[], &[]));
        check(DEBIAN, "/etc/apt/sources.list.d/other.list", line, (&[], &[]));
        check(UBUNTU, LIST, "deb http://a.example/ubuntu noble main", (&[], &[]));
        check(UBUNTU, LIST, "deb http://m.example/debian trixie main", (&["http://m.example/debian"], &[]));
        check(
            DEBIAN,
            "/etc/apt/sources.list.d/d.list",
            "deb https://d.example/linux/debian bookworm stable",
            (&[], &[]),
        );
    }

    #[test]
    fn deb822_sources_name_mirrors() {
        let text = "Types: deb\n# a comment\nURIs: http://m.example/debian\nSuites: trixie trixie-updates\n\
                    Components: main\nSigned-By: /k\n\nTypes: deb deb-src\nURIs: http://m.example/debian-security/\n\
                    Suites: trixie-security\nComponents: main\n";
        check(DEBIAN, DEB822, text, (&["http://m.example/debian"], &["http://m.example/debian-security"]));
        check(DEBIAN, DEB822, &format!("Enabled: no\n{text}"), (&[], &["http://m.example/debian-security"]));
        let two = "Types: deb\nURIs: http://a.example/debian http://b.example/debian\nSuites: x\nComponents: main\n";
        check(DEBIAN, DEB822, two, (&["http://a.example/debian", "http://b.example/debian"], &[]));
        check(DEBIAN, DEB822, "garbage", (&[], &[]));
    }
}
