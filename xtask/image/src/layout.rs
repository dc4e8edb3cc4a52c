//! An image as files: a folder in OCI image layout (image-spec, image-layout.md), or one tar that
//! `docker load` reads.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::lock::LayerInfo;
use crate::manifest::{Descriptor, Document, INDEX};
use crate::{Digest, Error, HashWriter, Result};

/// Names a reference in `index.json` (image-spec, annotations.md).
const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// Names an image in the `index.json` of an archive, as containerd and docker write it.
const IMAGE_NAME: &str = "io.containerd.image.name";
/// The content of the file `oci-layout`.
const LAYOUT: &str = r#"{"imageLayoutVersion":"1.0.0"}"#;

/// All content of an image.
pub struct Content<'a> {
    /// What the reference points to.
    pub root: &'a Document,
    /// Manifests and configs below it.
    pub documents: Vec<&'a Document>,
    /// Layers, in any order, duplicates allowed.
    pub layers: Vec<LayerInfo>,
    /// Where the layer with this digest is.
    pub blob: &'a dyn Fn(&Digest) -> PathBuf,
}

/// Writes the image into the folder `dir` and lets `reference` point to it. Blobs that are there
/// already are kept, other references too. Readers see the old image or the new one, never half of
/// it. Refuses a folder that holds something else.
pub fn write_oci(dir: &Path, reference: &str, content: &Content<'_>) -> Result<()> {
    let named = |error| Error::io(dir.display(), error);
    let marker = dir.join("oci-layout");
    let empty = match fs::read_dir(dir) {
        Ok(mut entries) => entries.next().is_none(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => true,
        Err(error) => return Err(named(error)),
    };
    if !empty && !marker.is_file() {
        return Err(Error::refused(dir.display(), "not empty and not an OCI layout; name another folder"));
    }
    let others = other_references(dir, reference)?;
    let blobs = dir.join("blobs/sha256");
    fs::create_dir_all(&blobs).map_err(named)?;
    write_file(&marker, LAYOUT.as_bytes())?;
    for layer in &content.layers {
        let path = blobs.join(layer.digest.hex());
        if !holds(&path, &layer.digest, layer.size) {
            copy(&(content.blob)(&layer.digest), &path, &layer.digest)?;
        }
    }
    for document in content.documents.iter().chain([&content.root]) {
        write_file(&blobs.join(document.digest.hex()), &document.bytes)?;
    }
    let mut descriptor = content.root.descriptor();
    descriptor.annotations.insert(REF_NAME.to_owned(), reference.to_owned());
    write_file(&dir.join("index.json"), &index_json(&descriptor, others))
}

/// Writes the image of one platform as a tar for `docker load`, `podman load` and `ctr image
/// import`: docker's `manifest.json` beside an OCI layout, as docker itself writes since version 25.
/// `manifest` and `config` are the image's; `name` is `repository:tag`.
pub fn write_docker_archive(
    out: &mut dyn Write,
    name: &str,
    manifest: &Document,
    config: &Document,
    layers: &[LayerInfo],
    blob: &dyn Fn(&Digest) -> PathBuf,
) -> Result<()> {
    let failed = |error| Error::io("docker archive", error);
    let path = |digest: &Digest| format!("blobs/sha256/{}", digest.hex());
    let mut tar = tar::Builder::new(out);
    let mut written = Vec::new();
    for layer in layers {
        if written.contains(&layer.digest) {
            continue;
        }
        written.push(layer.digest);
        let source = blob(&layer.digest);
        let file = File::open(&source).map_err(|error| Error::io(source.display(), error))?;
        let mut reader = HashReader(HashWriter::new(io::sink()), file);
        tar.append_data(&mut header(layer.size), path(&layer.digest), &mut reader).map_err(failed)?;
        check(&source, &layer.digest, reader.0.finish().0)?;
    }
    let mut descriptor = manifest.descriptor();
    let tag = name.rsplit_once(':').map_or("latest", |(_, tag)| tag);
    descriptor.annotations.insert(IMAGE_NAME.to_owned(), name.to_owned());
    descriptor.annotations.insert(REF_NAME.to_owned(), tag.to_owned());
    let docker = json!([{
        "Config": path(&config.digest),
        "RepoTags": [name],
        "Layers": layers.iter().map(|layer| path(&layer.digest)).collect::<Vec<_>>(),
    }]);
    let files = [
        (path(&config.digest), config.bytes.clone()),
        (path(&manifest.digest), manifest.bytes.clone()),
        ("oci-layout".to_owned(), LAYOUT.as_bytes().to_vec()),
        ("index.json".to_owned(), index_json(&descriptor, Vec::new())),
        ("manifest.json".to_owned(), docker.to_string().into_bytes()),
    ];
    for (path, bytes) in files {
        tar.append_data(&mut header(bytes.len() as u64), path, bytes.as_slice()).map_err(failed)?;
    }
    tar.into_inner().and_then(|out| out.flush()).map_err(failed)
}

/// Whether the file has this size and digest.
pub fn holds(path: &Path, digest: &Digest, size: u64) -> bool {
    fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.len() == size)
        && File::open(path).and_then(Digest::of_reader).is_ok_and(|found| found == *digest)
}

fn header(size: u64) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    header.set_size(size);
    header.set_mode(0o644);
    header.set_entry_type(tar::EntryType::Regular);
    header
}

fn index_json(ours: &Descriptor, mut manifests: Vec<Value>) -> Vec<u8> {
    manifests.push(json!(ours));
    json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": manifests }).to_string().into_bytes()
}

fn other_references(dir: &Path, reference: &str) -> Result<Vec<Value>> {
    let path = dir.join("index.json");
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::io(path.display(), error)),
    };
    let index: Value = serde_json::from_slice(&text).map_err(|error| Error::refused(path.display(), error))?;
    let manifests = index["manifests"].as_array().ok_or_else(|| Error::refused(path.display(), "no manifests"))?;
    let other = |entry: &&Value| entry["annotations"][REF_NAME].as_str() != Some(reference);
    Ok(manifests.iter().filter(other).cloned().collect())
}

fn write_file(path: &Path, bytes: &[u8]) -> Result<()> {
    place(path, |file| file.write_all(bytes).map_err(|error| Error::io(path.display(), error)))
}

fn copy(source: &Path, path: &Path, digest: &Digest) -> Result<()> {
    place(path, |file| {
        let mut from = File::open(source).map_err(|error| Error::io(source.display(), error))?;
        let mut to = HashWriter::new(file);
        io::copy(&mut from, &mut to).map_err(|error| Error::io(path.display(), error))?;
        check(source, digest, to.finish().0)
    })
}

fn check(source: &Path, expected: &Digest, found: Digest) -> Result<()> {
    if found == *expected {
        return Ok(());
    }
    Err(Error::refused(
        source.display(),
        format_args!("its content is {found}, not {expected}; delete it and run again"),
    ))
}

/// Writes to a temporary name and renames.
fn place(path: &Path, fill: impl FnOnce(&mut File) -> Result<()>) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let failed = |error| Error::io(path.display(), error);
    let dir = path.parent().unwrap_or(Path::new("."));
    let mut temporary = tempfile::Builder::new().prefix(".part-").tempfile_in(dir).map_err(failed)?;
    fill(temporary.as_file_mut())?;
    temporary.as_file().set_permissions(fs::Permissions::from_mode(0o644)).map_err(failed)?;
    temporary.persist(path).map_err(|error| failed(error.error))?;
    Ok(())
}

struct HashReader<R>(HashWriter<io::Sink>, R);

impl<R: Read> Read for HashReader<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.1.read(buf)?;
        self.0.write_all(&buf[..n])?;
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::manifest::{CONFIG, MANIFEST};

    struct Case {
        folder: tempfile::TempDir,
        root: Document,
        config: Document,
        layer: LayerInfo,
    }

    impl Case {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let layer = LayerInfo { digest: Digest::of("layer"), diff_id: Digest::of("tar"), size: 5 };
            fs::write(folder.path().join(layer.digest.hex()), "layer").unwrap();
            let json = |kind, key: &str| Document::json(kind, &BTreeMap::from([(key, 1)]));
            Self { folder, root: json(MANIFEST, "m"), config: json(CONFIG, "c"), layer }
        }

        fn write(&self, reference: &str) -> Result<()> {
            let blob = |digest: &Digest| self.folder.path().join(digest.hex());
            let (documents, layers) = (vec![&self.config], vec![self.layer, self.layer]);
            let content = Content { root: &self.root, documents, layers, blob: &blob };
            write_oci(&self.out(), reference, &content)
        }

        fn out(&self) -> PathBuf {
            self.folder.path().join("out")
        }

        fn references(&self) -> Vec<String> {
            let index: Value = serde_json::from_slice(&fs::read(self.out().join("index.json")).unwrap()).unwrap();
            let name = |entry: &Value| entry["annotations"][REF_NAME].as_str().unwrap().to_owned();
            index["manifests"].as_array().unwrap().iter().map(name).collect()
        }
    }

    #[test]
    fn a_layout_holds_every_blob_once_and_can_be_written_again() {
        let case = Case::new();
        for _ in 0..2 {
            case.write("latest").unwrap();
            assert_eq!(fs::read_dir(case.out().join("blobs/sha256")).unwrap().count(), 3);
            assert_eq!(case.references(), ["latest"]);
        }
    }

    #[test]
    fn other_references_stay() {
        let case = Case::new();
        for name in ["v1", "latest", "v1"] {
            case.write(name).unwrap();
        }
        assert_eq!(case.references(), ["latest", "v1"]);
    }

    #[test]
    fn a_damaged_blob_in_the_layout_is_replaced() {
        let case = Case::new();
        case.write("latest").unwrap();
        let blob = case.out().join("blobs/sha256").join(case.layer.digest.hex());
        fs::write(&blob, "LAYER").unwrap();
        case.write("latest").unwrap();
        assert_eq!(fs::read(&blob).unwrap(), b"layer");
    }

    #[test]
    fn a_damaged_source_is_named_and_leaves_no_reference() {
        let case = Case::new();
        fs::write(case.folder.path().join(case.layer.digest.hex()), "LAYER").unwrap();
        let error = case.write("latest").unwrap_err().to_string();
        assert!(error.contains(&case.layer.digest.hex()), "{error}");
        assert!(!case.out().join("index.json").exists());
        assert_eq!(fs::read_dir(case.out().join("blobs/sha256")).unwrap().count(), 0);
    }

    #[test]
    fn a_folder_with_something_else_is_left_alone() {
        let case = Case::new();
        fs::create_dir(case.out()).unwrap();
        fs::write(case.out().join("thesis.tex"), "").unwrap();
        assert!(case.write("latest").unwrap_err().to_string().contains("not an OCI layout"));
        assert_eq!(fs::read_dir(case.out()).unwrap().count(), 1);
    }

    #[test]
    fn an_archive_names_config_and_layers() {
        let case = Case::new();
        let blob = |digest: &Digest| case.folder.path().join(digest.hex());
        let mut bytes = Vec::new();
        let layers = [case.layer, case.layer];
        write_docker_archive(&mut bytes, "a.b:5000/mlflow:v1", &case.root, &case.config, &layers, &blob).unwrap();
        let mut files = BTreeMap::new();
        for entry in tar::Archive::new(bytes.as_slice()).entries().unwrap() {
            let mut entry = entry.unwrap();
            let mut text = String::new();
            entry.read_to_string(&mut text).unwrap();
            files.insert(entry.path().unwrap().display().to_string(), text);
        }
        assert_eq!(files.len(), 6);
        let manifest: Value = serde_json::from_str(&files["manifest.json"]).unwrap();
        assert_eq!(manifest[0]["RepoTags"][0], "a.b:5000/mlflow:v1");
        assert_eq!(files[manifest[0]["Layers"][1].as_str().unwrap()], "layer");
        assert_eq!(files[manifest[0]["Config"].as_str().unwrap()], r#"{"c":1}"#);
        let index: Value = serde_json::from_str(&files["index.json"]).unwrap();
        assert_eq!(index["manifests"][0]["annotations"][REF_NAME], "v1");
    }
}
