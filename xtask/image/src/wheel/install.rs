//! Where a wheel's files go in the virtual environment, and the files that installing makes.

use std::collections::{BTreeMap, BTreeSet};

use super::archive::{Archive, Entry};
use super::entry_points;
use super::record::{self, Row};
use crate::exclude::Exclude;
use crate::lock::Wheel;
use crate::{Digest, Error, Result, path, python};

/// One file to be installed.
pub(crate) struct File {
    /// The path in the image.
    pub(crate) path: String,
    pub(crate) executable: bool,
    pub(crate) source: Source,
}

pub(crate) enum Source {
    /// The entry with this number, unchanged, and the SHA-256 that RECORD promises.
    Entry(usize, Digest),
    /// Made by the installation.
    Made(Vec<u8>),
}

/// The files that are not copied but belong to the wheel alone.
struct Info {
    /// `name-version.dist-info`
    folder: String,
    /// `name-version.data`
    data: String,
}

/// Lists what installing the wheel gives, in no particular order.
pub(crate) fn files(wheel: &Wheel, archive: &Archive, exclude: &Exclude) -> Result<Vec<File>> {
    let install = Install { wheel, archive, exclude, info: info(wheel, archive)? };
    install.check_format()?;
    install.files()
}

struct Install<'a> {
    wheel: &'a Wheel,
    archive: &'a Archive,
    exclude: &'a Exclude,
    info: Info,
}

impl Install<'_> {
    fn refused(&self, problem: impl std::fmt::Display) -> Error {
        Error::refused(&self.wheel.file, problem)
    }

    /// The content of a file in the dist-info folder.
    fn info_file(&self, name: &str) -> Result<Option<String>> {
        let path = format!("{}/{name}", self.info.folder);
        let Some(entry) = self.archive.entries().iter().find(|entry| entry.path == path) else { return Ok(None) };
        let content = self.archive.content(&self.wheel.file, entry)?;
        String::from_utf8(content).map(Some).map_err(|_| self.refused(format_args!("{path}: not UTF-8")))
    }

    /// "A wheel installer should [...] abort if Wheel-Version is greater than the version it
    /// supports" in its major part.
    fn check_format(&self) -> Result<()> {
        let text = self.info_file("WHEEL")?.ok_or_else(|| self.refused("has no WHEEL file"))?;
        let version = text.lines().find_map(|line| line.strip_prefix("Wheel-Version:")).map(str::trim);
        match version.map(|version| version.split('.').next()) {
            Some(Some("1")) => Ok(()),
            _ => Err(self.refused(format_args!("Wheel-Version {version:?} is not 1"))),
        }
    }

    fn files(&self) -> Result<Vec<File>> {
        let text = self.info_file("RECORD")?.ok_or_else(|| self.refused("has no RECORD file"))?;
        let mut listed = record::parse(&text).map_err(|problem| self.refused(problem))?;
        let (mut files, mut rows) = (Vec::new(), BTreeMap::new());
        for (number, entry) in self.archive.entries().iter().enumerate() {
            let own = entry.path.strip_prefix(&self.info.folder).and_then(|rest| rest.strip_prefix('/'));
            if matches!(own, Some("RECORD" | "RECORD.jws" | "RECORD.p7s")) {
                continue;
            }
            let row = listed.remove(&entry.path);
            let sha256 = row.as_ref().and_then(|row| row.sha256);
            let Some(sha256) = sha256 else {
                return Err(self.refused(format_args!("{}: RECORD has no hash of it", entry.path)));
            };
            if row.and_then(|row| row.size).is_some_and(|size| size != entry.size) {
                return Err(self.refused(format_args!("{}: RECORD tells another size", entry.path)));
            }
            let Some(file) = self.place(number, entry, sha256)? else { continue };
            let row = match &file.source {
                Source::Entry(..) => Row { sha256: Some(sha256), size: Some(entry.size) },
                Source::Made(bytes) => Row { sha256: Some(Digest::of(bytes)), size: Some(bytes.len() as u64) },
            };
            rows.insert(relative(&file.path), row);
            files.push(file);
        }
        let mut missing = listed.keys().filter(|path| !path.starts_with(&format!("{}/RECORD", self.info.folder)));
        if let Some(path) = missing.next() {
            return Err(self.refused(format_args!("{path}: is in RECORD but not in the wheel")));
        }
        for script in entry_points::scripts(&self.info_file("entry_points.txt")?.unwrap_or_default())
            .map_err(|problem| self.refused(problem))?
        {
            let path = format!("{}/{}", python::BIN, script.name);
            self.check_place(&path)?;
            // A wheel may bring the script that it also asks for; the generated one wins, as with pip.
            files.retain(|file| file.path != path);
            let text = script.text(python::INTERPRETER).into_bytes();
            rows.insert(relative(&path), Row { sha256: Some(Digest::of(&text)), size: Some(text.len() as u64) });
            files.push(File { path, executable: true, source: Source::Made(text) });
        }
        let path = format!("{}/{}/RECORD", python::SITE_PACKAGES, self.info.folder);
        rows.insert(relative(&path), Row::default());
        files.push(File { path, executable: false, source: Source::Made(record::write(&rows).into_bytes()) });
        let mut seen = BTreeSet::new();
        if let Some(twice) = files.iter().find(|file| !seen.insert(file.path.as_str())) {
            return Err(self.refused(format_args!("{}: two of its files are installed there", twice.path)));
        }
        Ok(files)
    }

    /// Where an entry goes; `None` if it is not installed.
    fn place(&self, number: usize, entry: &Entry, sha256: Digest) -> Result<Option<File>> {
        let in_data = entry.path.strip_prefix(&self.info.data).and_then(|rest| rest.strip_prefix('/'));
        let (path, script) = match in_data {
            None => (format!("{}/{}", python::SITE_PACKAGES, entry.path), false),
            Some(rest) => {
                let unknown = || self.refused(format_args!("{}: an unknown installation scheme", entry.path));
                let (scheme, rest) = rest.split_once('/').ok_or_else(unknown)?;
                let folder = match scheme {
                    "purelib" | "platlib" => python::SITE_PACKAGES.to_owned(),
                    "scripts" => python::BIN.to_owned(),
                    "data" => python::VENV.to_owned(),
                    "headers" => {
                        format!("{}/include/site/python{}/{}", python::VENV, python::VERSION, self.wheel.name)
                    }
                    _ => return Err(unknown()),
                };
                (format!("{folder}/{rest}"), scheme == "scripts")
            }
        };
        path::check(&path).map_err(|problem| self.refused(format_args!("{}: {problem}", entry.path)))?;
        self.check_place(&path)?;
        if let Some(below) = path.strip_prefix(python::SITE_PACKAGES).and_then(|rest| rest.strip_prefix('/')) {
            // Bytecode that a wheel brings is of no use: its sources have other times here.
            let bytecode = below.ends_with(".pyc") && below.split('/').rev().nth(1) == Some("__pycache__");
            let installer = below.strip_prefix(&self.info.folder) == Some("/INSTALLER");
            if bytecode || installer || self.exclude.matches(below) {
                return Ok(None);
            }
        }
        let rewritten = if script { self.with_interpreter(entry, sha256)? } else { None };
        let source = rewritten.map_or(Source::Entry(number, sha256), Source::Made);
        Ok(Some(File { path, executable: entry.executable || script, source }))
    }

    /// A script whose first line is `#!python...` gets the environment's interpreter.
    fn with_interpreter(&self, entry: &Entry, sha256: Digest) -> Result<Option<Vec<u8>>> {
        let content = self.archive.content(&self.wheel.file, entry)?;
        let Some(rest) = content.strip_prefix(b"#!python") else { return Ok(None) };
        if Digest::of(&content) != sha256 {
            return Err(self.refused(format_args!("{}: its SHA-256 is not the one in RECORD", entry.path)));
        }
        let mut text = format!("#!{}", python::INTERPRETER).into_bytes();
        // `#!pythonw` means the same where there is no console to hide; arguments stay.
        text.extend_from_slice(rest.strip_prefix(b"w").unwrap_or(rest));
        Ok(Some(text))
    }

    /// The environment's own files are not a wheel's to replace.
    fn check_place(&self, path: &str) -> Result<()> {
        let name = path.strip_prefix(python::BIN).and_then(|rest| rest.strip_prefix('/'));
        let interpreter = name.is_some_and(|name| matches!(name, "python" | "python3" | "python3.13"));
        if interpreter || path.strip_prefix(python::VENV) == Some("/pyvenv.cfg") {
            return Err(self.refused(format_args!("{path}: would replace the environment's own file")));
        }
        Ok(())
    }
}

/// Finds the one dist-info folder and checks that it is this distribution's.
fn info(wheel: &Wheel, archive: &Archive) -> Result<Info> {
    let refused = |problem: String| Error::refused(&wheel.file, problem);
    let folders: BTreeSet<&str> = archive
        .entries()
        .iter()
        .filter_map(|entry| entry.path.split_once('/'))
        .map(|(folder, _)| folder)
        .filter(|folder| folder.ends_with(".dist-info"))
        .collect();
    let mut folders = folders.into_iter();
    let (Some(folder), None) = (folders.next(), folders.next()) else {
        return Err(refused("not exactly one .dist-info folder".to_owned()));
    };
    let stem = folder.trim_end_matches(".dist-info");
    let (name, _version) = stem.split_once('-').unwrap_or((stem, ""));
    if normalize(name) != normalize(&wheel.name) {
        return Err(refused(format!("{folder}: belongs to another distribution than {}", wheel.name)));
    }
    Ok(Info { folder: folder.to_owned(), data: format!("{stem}.data") })
}

/// PEP 503, with `_` for the separator as in file names.
fn normalize(name: &str) -> String {
    let mut out = String::new();
    for c in name.chars() {
        match c {
            '-' | '_' | '.' if out.ends_with('_') => {}
            '-' | '_' | '.' => out.push('_'),
            c => out.push(c.to_ascii_lowercase()),
        }
    }
    out
}

/// A path of the image as RECORD tells it: relative to site-packages.
fn relative(path: &str) -> String {
    if let Some(below) = path.strip_prefix(python::SITE_PACKAGES).and_then(|rest| rest.strip_prefix('/')) {
        return below.to_owned();
    }
    let below = path.strip_prefix(python::VENV).unwrap_or(path);
    format!("../../..{below}")
}
