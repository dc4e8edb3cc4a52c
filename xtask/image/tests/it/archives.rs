//! Made wheels, and layers of them.

use std::collections::BTreeMap;
use std::io::Read as _;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use flate2::read::MultiGzDecoder;
use mlflow_image::bytecode::Compiler;
use mlflow_image::exclude::Exclude;
use mlflow_image::layer::{self, Inputs};
use mlflow_image::lock::{LayerInfo, LayerKind, Wheel};
use mlflow_image::plan::{Format, LayerPlan, Source};
use mlflow_image::{Digest, Platform, Result};

use crate::zip::{Entry, zip};

/// Where wheels are installed.
pub const SITE: &str = "opt/mlflow/lib/python3.13/site-packages";

/// A wheel to be: the distribution `name`, version 1, and its files.
#[derive(Clone)]
pub struct MadeWheel {
    pub name: String,
    pub entries: Vec<Entry>,
    /// Appended to RECORD as it is.
    pub more_record: String,
    /// A path and the line that RECORD has instead of the honest one.
    pub instead: Option<(String, String)>,
}

impl MadeWheel {
    /// A wheel with these files and an honest RECORD.
    pub fn new(name: &str, entries: impl IntoIterator<Item = Entry>) -> Self {
        let mut entries: Vec<_> = entries.into_iter().collect();
        let metadata = format!("Metadata-Version: 2.1\nName: {name}\nVersion: 1\n");
        entries.push(Entry::new(&format!("{name}-1.dist-info/METADATA"), metadata));
        let wheel = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n";
        entries.push(Entry::new(&format!("{name}-1.dist-info/WHEEL"), wheel));
        Self { name: name.to_owned(), entries, more_record: String::new(), instead: None }
    }

    /// Changes it before it is packed.
    pub fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    /// The text of RECORD.
    pub fn record(&self) -> String {
        let mut record = String::new();
        for entry in self.entries.iter().filter(|entry| !entry.name.ends_with(b"/")) {
            let name = String::from_utf8_lossy(&entry.name);
            if let Some((_, line)) = self.instead.as_ref().filter(|(path, _)| *path == name) {
                record.push_str(&format!("{line}\n"));
                continue;
            }
            let special = name.contains([',', '"', '\n']);
            let quoted = if special { format!("\"{}\"", name.replace('"', "\"\"")) } else { name.into() };
            let hash = URL_SAFE_NO_PAD.encode(Digest::of(&entry.content).bytes());
            record.push_str(&format!("{quoted},sha256={hash},{}\n", entry.content.len()));
        }
        record + &format!("{}-1.dist-info/RECORD,,\n{}", self.name, self.more_record)
    }

    /// The wheel's bytes.
    pub fn bytes(&self) -> Vec<u8> {
        let mut entries = self.entries.clone();
        entries.push(Entry::new(&format!("{}-1.dist-info/RECORD", self.name), self.record()));
        zip(&entries)
    }

    /// How many bytes its files have, without the one of this name.
    pub fn other_bytes(&self, name: &str) -> usize {
        let others = self.entries.iter().filter(|entry| entry.name != name.as_bytes());
        others.map(|entry| entry.content.len()).sum::<usize>() + self.record().len()
    }

    /// The file name of the wheel.
    pub fn file(&self) -> String {
        format!("{}-1-py3-none-any.whl", self.name)
    }
}

/// What is compiled and how; the default leaves nothing out and compiles nothing.
#[derive(Clone, Copy, Default)]
pub struct Options<'a> {
    pub exclude: &'a str,
    pub compiler: Option<&'a (dyn Compiler + Sync)>,
    pub format: Format,
}

/// Builds one layer of these wheels.
pub fn build(wheels: &[(String, String, Vec<u8>)], options: Options<'_>) -> Result<(LayerInfo, Vec<u8>)> {
    let dir = tempfile::tempdir().unwrap();
    let mut locked = Vec::new();
    for (name, file, bytes) in wheels {
        let sha256 = Digest::of(bytes);
        std::fs::write(dir.path().join(sha256.hex()), bytes).unwrap();
        seed("wheel", bytes);
        let (name, size) = (name.replace('_', "-"), bytes.len() as u64);
        locked.push(Wheel { name, version: "1".to_owned(), file: file.clone(), sha256, size });
    }
    let plan = plan(Source::Wheels(locked), LayerKind::Wheels);
    let exclude = Exclude::parse("exclude", options.exclude)?;
    let file = |digest: &Digest| dir.path().join(digest.hex());
    let inputs = Inputs { file: &file, exclude: &exclude, compiler: options.compiler, format: options.format };
    let mut blob = Vec::new();
    let info = layer::write(&plan, &inputs, &mut blob)?;
    Ok((info, blob))
}

/// Keeps an archive as a seed of the fuzz target, where a corpus is asked for.
pub fn seed(target: &str, bytes: &[u8]) {
    if let Some(corpus) = std::env::var_os("XTASK_FUZZ_CORPUS") {
        let folder = std::path::Path::new(&corpus).join(target);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join(Digest::of(bytes).hex()), bytes).unwrap();
    }
}

/// Checks these made wheels against each other.
pub fn check_overlap(wheels: &[MadeWheel]) -> Result<()> {
    let dir = tempfile::tempdir().unwrap();
    let mut locked = Vec::new();
    for wheel in wheels {
        let bytes = wheel.bytes();
        let (name, file, sha256) = (wheel.name.clone(), wheel.file(), Digest::of(&bytes));
        locked.push(Wheel { name, version: "1".to_owned(), file, sha256, size: bytes.len() as u64 });
        std::fs::write(dir.path().join(sha256.hex()), bytes).unwrap();
    }
    mlflow_image::overlap::check(&locked, &Exclude::default(), &|digest| dir.path().join(digest.hex()))
}

/// A plan for one layer.
pub fn plan(source: Source, kind: LayerKind) -> LayerPlan {
    let (name, platform) = ("test".to_owned(), Platform::LinuxAmd64);
    LayerPlan { name, kind, platform, source, key: Digest::of(""), known: None }
}

/// Builds one layer of these made wheels.
pub fn build_made(wheels: &[MadeWheel], options: Options<'_>) -> Result<(LayerInfo, Vec<u8>)> {
    let wheels: Vec<_> = wheels.iter().map(|wheel| (wheel.name.clone(), wheel.file(), wheel.bytes())).collect();
    build(&wheels, options)
}

/// An entry of a layer's tar.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    pub mode: u32,
    pub content: Vec<u8>,
    pub link: Option<String>,
}

/// Reads a spliced or gzipped blob back: every entry by path, folders left out.
pub fn read(blob: &[u8]) -> BTreeMap<String, Found> {
    let mut archive = tar::Archive::new(MultiGzDecoder::new(blob));
    let mut found = BTreeMap::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let header = entry.header();
        assert_eq!(header.mtime().unwrap(), 0);
        if header.entry_type().is_dir() {
            continue;
        }
        let mode = header.mode().unwrap();
        let path = String::from_utf8(entry.path_bytes().into_owned()).unwrap();
        let link = entry.link_name_bytes().map(|link| String::from_utf8(link.into_owned()).unwrap());
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        assert!(found.insert(path.clone(), Found { mode, content, link }).is_none(), "{path} is there twice");
    }
    found
}
