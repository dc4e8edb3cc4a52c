//! The image's own Python as compiler of its bytecode.
//!
//! Bytecode does not depend on the CPU: whatever platform is built, the interpreter of this
//! machine's platform compiles. It is unpacked from the locked Debian packages into the cache and
//! started through its own dynamic loader, which needs neither root nor namespaces.

use std::path::{Path, PathBuf};

use mlflow_image::bytecode::{self, Compiler, Pyc, PythonSource};
use mlflow_image::lock::{DebPackage, DebianLock};
use mlflow_image::{Digest, Platform, layer, python};

use crate::cache::{self, Cache};
use crate::commands::Run;
use crate::error::{Context as _, Error, Kind, Result};
use crate::process::{self, Program};

/// Raised when the .pyc files change for the same interpreter and sources.
const VERSION: u32 = 1;
const SCRIPT: &str = include_str!("bytecode.py");
/// Stands for a source that does not compile.
const NONE: u32 = u32::MAX;

/// The identity of the interpreter that the locked packages hold, without having it: all that a
/// plan needs. The same for every machine.
///
/// # Errors
/// A lock without Python, or whose platforms have different versions of it.
pub fn identity(lock: &DebianLock) -> Result<String> {
    let mut versions = lock.package.iter().map(|(platform, packages)| {
        let package = packages.iter().find(|package| package.name == python::PACKAGE);
        package
            .map(|package| python::upstream_version(&package.version))
            .ok_or_else(|| Error::new(Kind::Input, format!("debian.lock: no {} for {platform}", python::PACKAGE)))
    });
    let first = versions.next().ok_or_else(|| Error::new(Kind::Input, "debian.lock: no packages"))??;
    for version in versions {
        if version? != first {
            return Err(Error::new(Kind::Input, "debian.lock: the platforms have different versions of Python")
                .hint("run `cargo xtask lock`"));
        }
    }
    Ok(format!("cpython-{first}/{VERSION}"))
}

/// An interpreter of the image's version that runs on this machine.
pub struct ImagePython {
    identity: String,
    interpreter: Interpreter,
    kept: PathBuf,
}

/// How to start it.
enum Interpreter {
    /// Unpacked from the image's packages: the root folder.
    Unpacked(PathBuf),
    /// This machine's.
    Host(PathBuf),
}

impl ImagePython {
    /// The packages that must be downloaded before [`ImagePython::prepare`]; none if the
    /// interpreter is unpacked already.
    pub fn wanted<'a>(cache: &Cache, lock: &'a DebianLock) -> Result<&'a [DebPackage]> {
        let packages = lock.packages(Platform::host())?;
        let unpacked = !runs_linux() || root(cache, packages)?.is_dir();
        Ok(if unpacked { &[] } else { packages })
    }

    /// Gets the interpreter ready. `None`, after a warning that says why: this machine has none of
    /// the image's version, and the image will have no .pyc files.
    pub fn prepare(run: &Run, cache: &Cache, lock: &DebianLock) -> Result<Option<Self>> {
        let identity = identity(lock)?;
        let kept = cache.dir("bytecode")?;
        let version = identity.trim_start_matches("cpython-").split('/').next().unwrap_or_default().to_owned();
        let unpacked = if runs_linux() {
            let interpreter = Interpreter::Unpacked(unpack(run, cache, lock.packages(Platform::host())?)?);
            interpreter.version().map(|found| (interpreter, found))
        } else {
            Err(Error::new(Kind::Machine, "the image's Python runs on Linux only"))
        };
        let reason = match unpacked {
            Ok((interpreter, found)) if found == version => return Ok(Some(Self { identity, interpreter, kept })),
            Ok((_, found)) => format!("the unpacked Python says that it is {found}"),
            Err(error) => error.lines().join(": "),
        };
        if let Some(path) = process::find(&["python3.13"]) {
            let interpreter = Interpreter::Host(path);
            if interpreter.version().is_ok_and(|found| found == version) {
                return Ok(Some(Self { identity, interpreter, kept }));
            }
        }
        run.ui.warn(format!(
            "the image gets no .pyc files and another digest, its server starts slower: {reason}, \
             and there is no python3.13 of version {version} on the PATH"
        ));
        Ok(None)
    }

    fn run(&self, sources: &[PythonSource<'_>]) -> Result<Vec<Option<Pyc>>> {
        let mut request = Vec::with_capacity(sources.iter().map(|source| source.content.len() + 256).sum());
        for bytes in sources.iter().flat_map(|source| [source.path.as_bytes(), source.content]) {
            let length = u32::try_from(bytes.len())
                .context(Kind::Input, || "a Python source of 4 GB or more cannot be compiled")?;
            request.extend_from_slice(&length.to_le_bytes());
            request.extend_from_slice(bytes);
        }
        let answer = self.interpreter.program().arg("-c").arg(SCRIPT).stdin(request).read()?;
        parse_answer(&answer, sources.len())
            .ok_or_else(|| Error::new(Kind::Internal, "Python's answer with the .pyc files ends early"))
    }
}

impl Compiler for ImagePython {
    fn identity(&self) -> &str {
        &self.identity
    }

    fn compile(&self, key: &Digest, sources: &[PythonSource<'_>]) -> mlflow_image::Result<Vec<Option<Pyc>>> {
        let kept = self.kept.join(Digest::of(format!("{}\n{key}", self.identity)).hex());
        if let Some(known) = read_kept(&kept).filter(|known| known.len() == sources.len()) {
            return Ok(known);
        }
        let compiled = self
            .run(sources)
            .map_err(|error| mlflow_image::Error::refused("cannot compile Python sources", error.lines().join(": ")))?;
        // What cannot be kept is compiled again next time.
        if let Ok(packed) = zstd::encode_all(bytecode::encode(&compiled).as_slice(), 1) {
            let _ = cache::write(&kept, &packed);
        }
        Ok(compiled)
    }
}

impl Interpreter {
    /// The interpreter with an empty environment, deaf to what the user or the host has set up.
    fn program(&self) -> Program {
        let program = match self {
            Self::Host(path) => Program::new(path),
            Self::Unpacked(root) => {
                let multiarch = Platform::host().multiarch();
                let libraries = root.join("usr/lib").join(multiarch);
                let loader = match Platform::host() {
                    Platform::LinuxAmd64 => "ld-linux-x86-64.so.2",
                    Platform::LinuxArm64 => "ld-linux-aarch64.so.1",
                };
                Program::new(libraries.join(loader))
                    .arg("--inhibit-cache")
                    .arg("--library-path")
                    .arg(libraries)
                    .arg(root.join(python::BASE_INTERPRETER))
            }
        };
        // -I: no variables, no user folder; -S: no site; -B: write no .pyc of its own.
        program.args(["-I", "-S", "-B", "-X", "utf8"]).clear_env().env("PYTHONHASHSEED", "0").dir("/")
    }

    fn version(&self) -> Result<String> {
        let script = "import sys; print(sys.implementation.name, '.'.join(map(str, sys.version_info[:3])))";
        let answer = self.program().arg("-c").arg(script).read()?;
        let answer = String::from_utf8_lossy(&answer);
        let found = answer.trim().strip_prefix("cpython ");
        found.map(str::to_owned).ok_or_else(|| Error::new(Kind::Machine, format!("not CPython: {}", answer.trim())))
    }
}

const fn runs_linux() -> bool {
    cfg!(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))
}

fn root(cache: &Cache, packages: &[DebPackage]) -> Result<PathBuf> {
    let digests: Vec<String> = packages.iter().map(|package| package.sha256.hex()).collect();
    Ok(cache.dir("python")?.join(Digest::of(digests.join("\n")).hex()))
}

/// Unpacks beside the final place and renames: a folder that is there is whole.
fn unpack(run: &Run, cache: &Cache, packages: &[DebPackage]) -> Result<PathBuf> {
    let root = root(cache, packages)?;
    if root.is_dir() {
        return Ok(root);
    }
    run.ui.step("Unpacking", format!("Python from {} Debian packages", packages.len()));
    let beside = root.parent().unwrap_or(Path::new("."));
    let downloads = cache.dir("downloads")?;
    let part = tempfile::Builder::new()
        .prefix(".part-")
        .tempdir_in(beside)
        .on_machine(|| format!("cannot create a folder in {}", beside.display()))?;
    layer::extract_base(packages, &|digest| downloads.join(digest.hex()), part.path())?;
    let part = part.keep();
    if let Err(error) = std::fs::rename(&part, &root) {
        let _ = std::fs::remove_dir_all(&part);
        // Another run was faster; its folder holds the same.
        if !root.is_dir() {
            return Err(error).on_machine(|| format!("cannot create {}", root.display()));
        }
    }
    Ok(root)
}

/// What an earlier run has compiled; `None` if there is nothing or it is damaged.
fn read_kept(path: &Path) -> Option<Vec<Option<Pyc>>> {
    let packed = std::fs::File::open(path).ok()?;
    bytecode::decode(&zstd::decode_all(packed).ok()?)
}

fn parse_answer(mut answer: &[u8], sources: usize) -> Option<Vec<Option<Pyc>>> {
    let mut compiled = Vec::with_capacity(sources);
    while let Some((length, rest)) = answer.split_first_chunk::<4>() {
        let length = u32::from_le_bytes(*length);
        if length == NONE {
            compiled.push(None);
            answer = rest;
        } else {
            let (pyc, rest) = rest.split_at_checked(length as usize)?;
            compiled.push(Some(pyc.to_vec()));
            answer = rest;
        }
    }
    (answer.is_empty() && compiled.len() == sources).then_some(compiled)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_whole_or_nothing() {
        let pyc = |bytes: &[u8]| [&(bytes.len() as u32).to_le_bytes(), bytes].concat();
        let none = NONE.to_le_bytes();
        let check = |answer: &[u8], sources: usize, expected: Option<&[Option<u64>]>| {
            let found = parse_answer(answer, sources);
            let sizes =
                found.map(|found| found.iter().map(|pyc| pyc.as_ref().map(|pyc| pyc.len() as u64)).collect::<Vec<_>>());
            assert_eq!(sizes.as_deref(), expected);
        };
        check(&[], 0, Some(&[]));
        check(&[pyc(b"abc"), none.to_vec()].concat(), 2, Some(&[Some(3), None]));
        check(&pyc(b"abc"), 2, None);
        check(&pyc(b"abc")[..6], 1, None);
        check(&[pyc(b"abc"), vec![0]].concat(), 1, None);
    }

    #[test]
    fn the_identity_is_the_locked_version_and_the_same_for_all_platforms() {
        let lock = |versions: &[(Platform, &str, &str)]| {
            let package = versions.iter().map(|(platform, name, version)| {
                let (name, version) = ((*name).to_owned(), (*version).to_owned());
                let (archive, path) = ("debian".to_owned(), "pool/p.deb".to_owned());
                (*platform, vec![DebPackage { name, version, sha256: Digest::of(""), size: 1, path, archive }])
            });
            DebianLock { suite: "s".into(), date: "d".into(), inputs: Digest::of(""), package: package.collect() }
        };
        let check = |versions: &[(Platform, &str, &str)], expected: &str| {
            let found = identity(&lock(versions)).unwrap_or_else(|error| error.to_string());
            assert_eq!(found, expected);
        };
        let (amd64, arm64, python) = (Platform::LinuxAmd64, Platform::LinuxArm64, python::PACKAGE);
        check(&[(amd64, python, "3.13.5-2"), (arm64, python, "3.13.5-2+b1")], "cpython-3.13.5/1");
        check(
            &[(amd64, python, "3.13.5-2"), (arm64, python, "3.13.6-1")],
            "debian.lock: the platforms have different versions of Python",
        );
        check(&[(amd64, "libc6", "2.41-12")], "debian.lock: no python3.13-minimal for linux/amd64");
        check(&[], "debian.lock: no packages");
    }
}
