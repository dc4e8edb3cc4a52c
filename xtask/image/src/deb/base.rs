//! Several packages -> one tree: Debian's merged /usr, and what the maintainer scripts would have
//! made, because no script of a package ever runs.

use std::path::Path;
use std::sync::Arc;
use std::{fs, io};

use super::archive::{Data, Deb};
use crate::layer::tree::{Content, Kind, Node, Tree};
use crate::lock::DebPackage;
use crate::{Error, Result, path, python};

/// Folders of the root that are links into /usr on every merged system, in base-files.
const MERGED: [&str; 4] = ["bin", "sbin", "lib", "lib64"];

/// Documentation, translations and what belongs to programs that are not in a server's image.
/// The copyright files stay: the licences demand it.
const DROPPED: [&str; 12] = [
    "usr/share/bash-completion/",
    "usr/share/bug/",
    "usr/share/doc-base/",
    "usr/share/info/",
    "usr/share/lintian/",
    "usr/share/locale/",
    "usr/share/man/",
    "usr/share/menu/",
    "usr/share/applications/",
    "usr/share/pixmaps/",
    "usr/lib/systemd/",
    "usr/lib/tmpfiles.d/",
];

/// Stands for what is in a folder.
const INSIDE: &str = "x";

/// User and group of the server, and its home.
const NONROOT: u32 = 65532;

/// Reads the packages (each with its content) into one tree.
pub(crate) fn flatten(debs: impl Iterator<Item = Result<(DebPackage, Vec<u8>)>>) -> Result<Tree> {
    let mut tree = Tree::default();
    let mut python_version = None;
    for deb in debs {
        let (package, bytes) = deb?;
        if package.name == python::PACKAGE {
            python_version = Some(python::upstream_version(&package.version).to_owned());
        }
        add_package(&mut tree, &package, &bytes)?;
    }
    finish(&mut tree, python_version.as_deref())?;
    Ok(tree)
}

fn is_kept(path: &str) -> bool {
    let path = merged(path);
    if let Some(file) = path.strip_prefix("usr/share/doc/") {
        return file.ends_with("/copyright") || !file.contains('/');
    }
    // Converters for iconv(3), which Python does not use: its codecs are its own.
    let converters = path.starts_with("usr/lib/") && path.split('/').nth(3) == Some("gconv");
    !converters && !is_spare_postgresql(&path) && !DROPPED.iter().any(|folder| path.starts_with(folder))
}

/// Of PostgreSQL's programs those for backups are kept; psql, for one, would not start without readline.
fn is_spare_postgresql(path: &str) -> bool {
    let Some(below) = path.strip_prefix("usr/lib/postgresql/") else { return false };
    match below.split('/').collect::<Vec<_>>()[..] {
        // The folder itself is asked for by something in it.
        [_, "bin", name] => !["pg_dump", "pg_restore", INSIDE].contains(&name),
        [_, _, ..] => !below.ends_with(&format!("/{INSIDE}")) || below.contains("/lib/"),
        _ => false,
    }
}

fn add_package(tree: &mut Tree, package: &DebPackage, bytes: &[u8]) -> Result<()> {
    let name: Arc<str> = package.name.as_str().into();
    let deb = Deb::read(&name, bytes, is_kept)?;
    let mut hardlinks = Vec::new();
    for entry in deb.entries {
        let path = merged(&entry.path);
        if matches!(entry.kind, Data::Dir)
            && (MERGED.contains(&entry.path.as_str()) || !is_kept(&format!("{path}/{INSIDE}")))
        {
            continue;
        }
        if let Data::Hardlink(target) = &entry.kind {
            hardlinks.push((path, merged(target), entry.mode));
            continue;
        }
        let link = |target: String| {
            relative_link(&path, &target)
                .ok_or_else(|| Error::refused(&name, format_args!("{path}: a link to {target}, which leaves the root")))
        };
        let Some(kind) = entry.kind.into_kind(link)? else { continue };
        let mode = if matches!(kind, Kind::Symlink(_)) { 0o777 } else { entry.mode & 0o1777 };
        tree.add(&path, Node { mode, id: 0, package: name.clone(), kind }, is_same)?;
    }
    // A layer's tar has them as copies: a hard link's target would have to come first.
    for (path, target, mode) in hardlinks {
        let Some(kind @ Kind::File(_)) = tree.get(&target).map(|node| node.kind.clone()) else {
            return Err(Error::refused(&name, format_args!("{path}: a hard link to {target}, which is no file")));
        };
        tree.add(&path, Node { mode: mode & 0o777, id: 0, package: name.clone(), kind }, is_same)?;
    }
    // Where scanners of images look for packages.
    let status = format!("var/lib/dpkg/status.d/{name}");
    path::check(&status).map_err(|problem| Error::refused(&name, problem))?;
    tree.add_new(&status, file(&name, deb.control.into_bytes()))
}

fn is_same(present: &mut Node, node: &Node) -> Result<bool> {
    Ok(match (&present.kind, &node.kind) {
        (Kind::File(Content::Plain(one)), Kind::File(Content::Plain(other))) => {
            one == other && present.mode == node.mode
        }
        _ => false,
    })
}

/// The path with /bin, /sbin, /lib and /lib64 below /usr.
fn merged(path: &str) -> String {
    match path.split_once('/') {
        Some((first, _)) if MERGED.contains(&first) => format!("usr/{path}"),
        _ => path.to_owned(),
    }
}

/// A link's target as a relative path, so that it stays in the image wherever that is unpacked.
/// Debian's policy (section 10.5) makes links between top-level folders absolute.
fn relative_link(link: &str, target: &str) -> Option<String> {
    let Some(absolute) = target.strip_prefix('/') else {
        return path::resolve(link, target).map(|_| target.to_owned());
    };
    let below = path::resolve("", absolute)?;
    let up = "../".repeat(link.matches('/').count());
    Some(format!("{up}{below}"))
}

fn file(package: &Arc<str>, content: Vec<u8>) -> Node {
    Node { mode: 0o644, id: 0, package: package.clone(), kind: Kind::File(Content::Plain(content)) }
}

/// What the packages' scripts and an administrator would have made.
fn finish(tree: &mut Tree, python_version: Option<&str>) -> Result<()> {
    let own: Arc<str> = "the base layer".into();
    let dir = |mode, id| Node { mode, id, package: own.clone(), kind: Kind::Dir };
    let link = |target: &str| Node { mode: 0o777, id: 0, package: own.clone(), kind: Kind::Symlink(target.to_owned()) };
    let text = |text: &str| file(&own, text.as_bytes().to_vec());
    for name in MERGED {
        // base-files has these links; without that package (tests) they are made.
        if tree.get(name).is_none() && tree.iter().any(|(path, _)| path.starts_with(&format!("usr/{name}/"))) {
            tree.add_new(name, link(&format!("usr/{name}")))?;
        }
    }
    for (path, mode, id) in
        [("tmp", 0o1777, 0), ("root", 0o700, 0), ("home", 0o755, 0), ("home/nonroot", 0o700, NONROOT)]
    {
        tree.set(path, dir(mode, id))?;
    }
    let users = [("root", 0, "/root"), ("nobody", 65534, "/nonexistent"), ("nonroot", NONROOT, "/home/nonroot")];
    let passwd = users.map(|(name, id, home)| format!("{name}:x:{id}:{id}:{name}:{home}:/usr/sbin/nologin\n"));
    tree.set("etc/passwd", text(&passwd.concat()))?;
    tree.set("etc/group", text("root:x:0:\nnogroup:x:65534:\nnonroot:x:65532:\n"))?;
    let nsswitch = "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\nnetworks: files\n\
                    protocols: files\nservices: files\n";
    tree.set("etc/nsswitch.conf", text(nsswitch))?;
    let certificates = certificates(tree);
    if !certificates.is_empty() {
        tree.set("etc/ssl/certs/ca-certificates.crt", file(&own, certificates))?;
        // Where OpenSSL looks: the package openssl, a dependency of the scripts only, has these.
        for (path, target) in [("cert.pem", "certs/ca-certificates.crt"), ("certs", "../../../etc/ssl/certs")] {
            let path = format!("usr/lib/ssl/{path}");
            if tree.get(&path).is_none() {
                tree.add_new(&path, link(target))?;
            }
        }
    }
    if let Some(version) = python_version {
        let home = python::BASE_INTERPRETER.trim_end_matches("/python3.13");
        let config = format!(
            "home = /{home}\ninclude-system-site-packages = false\nversion = {version}\nexecutable = /{}\n",
            python::BASE_INTERPRETER
        );
        tree.add_new(&format!("{}/pyvenv.cfg", python::VENV), text(&config))?;
        tree.add_new(&format!("{}/python", python::BIN), link(&format!("/{}", python::BASE_INTERPRETER)))?;
        for name in ["python3", "python3.13"] {
            tree.add_new(&format!("{}/{name}", python::BIN), link("python"))?;
        }
    }
    Ok(())
}

/// All certificates of the package ca-certificates, as update-ca-certificates joins them.
fn certificates(tree: &Tree) -> Vec<u8> {
    let mut joined = Vec::new();
    for (path, node) in tree.iter() {
        if let Kind::File(Content::Plain(content)) = &node.kind
            && path.starts_with("usr/share/ca-certificates/mozilla/")
            && path.ends_with(".crt")
        {
            joined.extend_from_slice(content);
            if !content.ends_with(b"\n") {
                joined.push(b'\n');
            }
        }
    }
    joined
}

/// Writes the parts of the tree that Python needs to run below `root`, a new and empty folder.
pub(crate) fn extract(tree: &Tree, root: &Path) -> Result<()> {
    use std::os::unix::fs::{OpenOptionsExt as _, symlink};
    for (path, node) in tree.iter().filter(|(path, _)| !path.starts_with("usr/share/") && !path.starts_with("var/")) {
        let target = root.join(path);
        let made = match &node.kind {
            Kind::Dir => fs::create_dir(&target),
            Kind::Symlink(to) => symlink(to, &target),
            Kind::File(Content::Plain(content)) => fs::OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(if node.mode & 0o111 == 0 { 0o644 } else { 0o755 })
                .open(&target)
                .and_then(|mut file| io::Write::write_all(&mut file, content)),
            Kind::File(_) => Ok(()),
        };
        made.map_err(|error| Error::io(target.display(), error))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absolute_links_become_relative_and_escaping_ones_are_refused() {
        for (link, target, expected) in [
            (
                "usr/lib/python3.13/sitecustomize.py",
                "/etc/python3.13/sitecustomize.py",
                Some("../../../etc/python3.13/sitecustomize.py"),
            ),
            ("usr/bin/python3", "python3.13", Some("python3.13")),
            ("etc/os-release", "../usr/lib/os-release", Some("../usr/lib/os-release")),
            ("bin", "usr/bin", Some("usr/bin")),
            ("bin", "/usr/bin", Some("usr/bin")),
            ("a/b", "../../etc/passwd", None),
            ("a/b", "/../etc/passwd", None),
        ] {
            assert_eq!(relative_link(link, target).as_deref(), expected, "{link} -> {target}");
        }
    }

    #[test]
    fn licences_stay_and_manuals_go() {
        for (path, expected) in [
            ("usr/share/doc/libc6/copyright", true),
            ("usr/share/doc/libc6/changelog.Debian.gz", false),
            ("usr/share/doc/libpython3.13-stdlib", true),
            ("usr/share/man/man1/python3.13.1.gz", false),
            ("usr/share/zoneinfo/UTC", true),
            ("lib/systemd/system/x.service", false),
            ("usr/bin/python3.13", true),
            ("usr/lib/x86_64-linux-gnu/gconv/BIG5.so", false),
            ("usr/lib/x86_64-linux-gnu/libc.so.6", true),
            ("usr/lib/postgresql/17/bin/pg_dump", true),
            ("usr/lib/postgresql/17/bin/pg_restore", true),
            ("usr/lib/postgresql/17/bin/psql", false),
            ("usr/lib/postgresql/17/bin/x", true),
            ("usr/lib/postgresql/17/x", true),
            ("usr/lib/postgresql/17/lib/x", false),
            ("usr/lib/postgresql/17/lib/pgxs/src/Makefile.port", false),
        ] {
            assert_eq!(is_kept(path), expected, "{path}");
        }
    }
}
