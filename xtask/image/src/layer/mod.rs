//! A layer's inputs -> its blob.

mod codec;
pub(crate) mod deflate;
mod tar;
pub(crate) mod tree;
mod wheels;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use self::codec::Blob;
use self::tree::{Content, EntryData, Form, Kind, Node, Tree};
use crate::bytecode::{self, Compiler, PythonSource};
use crate::exclude::Exclude;
use crate::lock::{DebPackage, LayerInfo, Wheel};
use crate::plan::{Format, LayerPlan, OwnFile, Source};
use crate::{Digest, Error, Result, deb, path, python};

/// What building a layer needs besides its plan.
pub struct Inputs<'a> {
    /// Where the .deb or wheel with this digest is; the content is verified while it is read.
    pub file: &'a (dyn Fn(&Digest) -> PathBuf + Sync),
    /// What is left out of wheels.
    pub exclude: &'a Exclude,
    /// Compiles Python sources; `None` leaves the .pyc files out.
    pub compiler: Option<&'a (dyn Compiler + Sync)>,
    /// How to compress.
    pub format: Format,
}

/// Builds the layer into `out` and tells its digests. The bytes depend on the plan's sources, the
/// excluded paths, the compiler and the format alone.
///
/// In memory are the layer's packages as they were downloaded (unpacked for Debian packages), its
/// Python sources while they are compiled, and for [`Format::Gzip`] the layer's whole tar.
///
/// # Errors
/// An input that is not what the plan says is refused with the package's and the file's name, and so
/// is what no package of good faith holds: paths or links that leave the root, devices, names that
/// collide or differ only in case, two different files in one place, archives that two readers would
/// read differently, sizes or hashes that are not true, bombs. Anything written to `out` until then
/// is to be thrown away.
pub fn write(plan: &LayerPlan, inputs: &Inputs<'_>, out: &mut dyn Write) -> Result<LayerInfo> {
    match &plan.source {
        Source::Debs(debs) => write_debs(read_debs(debs, inputs.file), inputs.compiler, inputs.format, out),
        Source::Wheels(wheels) => {
            let read = |wheel: &Wheel| {
                let bytes = read(&wheel.file, &(inputs.file)(&wheel.sha256), &wheel.sha256, wheel.size)?;
                Ok((wheel.clone(), bytes))
            };
            let wheels = wheels.iter().map(read).collect::<Result<_>>()?;
            write_wheels(wheels, inputs.exclude, inputs.compiler, inputs.format, out)
        }
        Source::Own(files) => own(files)?.write(blob(inputs.format, out)?, no_entries),
    }
}

type AnyCompiler<'a> = Option<&'a (dyn Compiler + Sync)>;

/// A base layer of packages with their content.
pub(crate) fn write_debs(
    debs: impl IntoIterator<Item = Result<(DebPackage, Vec<u8>)>>,
    compiler: AnyCompiler<'_>,
    format: Format,
    out: &mut dyn Write,
) -> Result<LayerInfo> {
    let mut tree = deb::flatten(debs.into_iter())?;
    if let Some(compiler) = compiler {
        compile_stdlib(&mut tree, compiler)?;
    }
    tree.write(blob(format, out)?, no_entries)
}

/// A layer of wheels with their content.
pub(crate) fn write_wheels(
    wheels: Vec<(Wheel, Vec<u8>)>,
    exclude: &Exclude,
    compiler: AnyCompiler<'_>,
    format: Format,
    out: &mut dyn Write,
) -> Result<LayerInfo> {
    let installed = wheels::install(wheels, exclude, compiler)?;
    installed.tree.write(blob(format, out)?, |archive, entry| installed.entry(archive, entry))
}

fn blob(format: Format, out: &mut dyn Write) -> Result<Blob<'_>> {
    Blob::new(format, out).map_err(|error| Error::io("cannot write the layer", error))
}

/// Unpacks what the packages' Python needs to run into `root`, a new and empty folder.
pub fn extract_base(debs: &[DebPackage], file: &dyn Fn(&Digest) -> PathBuf, root: &Path) -> Result<()> {
    deb::extract(&deb::flatten(read_debs(debs, file))?, root)
}

fn read_debs<'a>(
    debs: &'a [DebPackage],
    file: &'a dyn Fn(&Digest) -> PathBuf,
) -> impl Iterator<Item = Result<(DebPackage, Vec<u8>)>> + 'a {
    debs.iter().map(move |deb| Ok((deb.clone(), read(&deb.name, &file(&deb.sha256), &deb.sha256, deb.size)?)))
}

/// Reads a package whole and checks its digest, so that what is used is what was checked.
pub(crate) fn read(subject: &str, path: &Path, expected: &Digest, size: u64) -> Result<Vec<u8>> {
    let bytes = std::fs::read(path).map_err(|error| Error::io(format_args!("{subject}: {}", path.display()), error))?;
    if bytes.len() as u64 != size {
        return Err(Error::refused(subject, format_args!("{} bytes, the lock says {size}", bytes.len())));
    }
    let found = Digest::of(&bytes);
    if found != *expected {
        return Err(Error::refused(subject, format_args!("its digest is {found}, the lock says {expected}")));
    }
    Ok(bytes)
}

fn no_entries<'a>(_: usize, _: usize) -> EntryData<'a> {
    EntryData { form: Form::Stored { data: &[], crc32: 0 }, sha256: None }
}

fn compile_stdlib(tree: &mut Tree, compiler: &(dyn Compiler + Sync)) -> Result<()> {
    let sources: Vec<PythonSource<'_>> = tree
        .iter()
        .filter(|(path, _)| python::STDLIB.iter().any(|folder| path.starts_with(folder)) && path.ends_with(".py"))
        .filter_map(|(path, node)| match &node.kind {
            Kind::File(Content::Plain(content)) => Some(PythonSource { path, content }),
            _ => None,
        })
        .collect();
    let compiled = compile(&"Python's library".into(), &sources, compiler)?;
    compiled.into_iter().try_for_each(|(path, node)| tree.add_new(&path, node))
}

/// The .pyc files of one package's sources, which are sorted.
fn compile(
    package: &Arc<str>,
    sources: &[PythonSource<'_>],
    compiler: &(dyn Compiler + Sync),
) -> Result<Vec<(String, Node)>> {
    if sources.is_empty() {
        return Ok(Vec::new());
    }
    let compiled = compiler.compile(&bytecode::key(sources), sources)?;
    if compiled.len() != sources.len() {
        let problem = format_args!("{} .pyc files for {} sources", compiled.len(), sources.len());
        return Err(Error::refused(package, problem));
    }
    let files = sources.iter().zip(compiled).filter_map(|(source, pyc)| {
        let (path, pyc) = (python::pyc_path(source.path)?, pyc?);
        let kind = Kind::File(Content::Plain(pyc));
        Some((path, Node { mode: 0o644, id: 0, package: package.clone(), kind }))
    });
    Ok(files.collect())
}

fn own(files: &[OwnFile]) -> Result<Tree> {
    let package: Arc<str> = "our own files".into();
    let mut tree = Tree::default();
    for file in files {
        path::check(&file.path)
            .map_err(|problem| Error::refused(&package, format_args!("{}: {problem}", file.path)))?;
        let mode = if file.executable { 0o755 } else { 0o644 };
        let kind = Kind::File(Content::Plain(file.content.clone()));
        tree.add_new(&file.path, Node { mode, id: 0, package: package.clone(), kind })?;
    }
    Ok(tree)
}
