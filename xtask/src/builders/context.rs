//! The build context as Cloud Build gets it: the files that `.dockerignore` leaves, in a tar.gz that
//! depends on nothing but their names, contents and executable bits.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use flate2::{Compression, GzBuilder};
use tar::{EntryType, Header};

use super::dockerignore::DockerIgnore;
use crate::error::{Context as _, Error, Kind, Result};

/// Sent whatever `.dockerignore` says: the build itself reads them.
const ALWAYS: [&str; 2] = ["Dockerfile", ".dockerignore"];

/// From this size on a file is named before it is sent, in bytes.
const LARGE: u64 = 10_000_000;

/// One thing to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Relative to the context, with slashes.
    pub path: String,
    /// What it is.
    pub kind: EntryKind,
}

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A folder.
    Folder,
    /// A symbolic link, kept as it is.
    Link(PathBuf),
    /// A file.
    File {
        /// Bytes.
        size: u64,
        /// Whether its owner may execute it.
        executable: bool,
    },
}

/// Lists what a build of the folder `context` gets to see, sorted by path.
pub fn list(context: &Path) -> Result<Vec<Entry>> {
    let path = context.join(".dockerignore");
    let ignore = match fs::read_to_string(&path) {
        Ok(text) => DockerIgnore::parse(&path.display().to_string(), &text)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => DockerIgnore::default(),
        Err(error) => return Err(error).context(Kind::Input, || format!("cannot read {}", path.display())),
    };
    let mut entries = Vec::new();
    walk(context, "", &ignore, &mut entries)?;
    entries.sort_by(|a, b| a.path.split('/').cmp(b.path.split('/')));
    Ok(entries)
}

/// Adds what is in the folder `inside` and tells whether anything was. An excluded folder is walked
/// too, because an exception may bring back what lies in it; it is sent only if one does.
fn walk(context: &Path, inside: &str, ignore: &DockerIgnore, entries: &mut Vec<Entry>) -> Result<bool> {
    use std::os::unix::fs::PermissionsExt as _;
    let before = entries.len();
    let folder = context.join(inside);
    let named = || format!("cannot list {}", folder.display());
    for entry in fs::read_dir(&folder).on_machine(named)? {
        let entry = entry.on_machine(named)?;
        let file = entry.path();
        let refused = |problem: &str| Error::new(Kind::Input, format!("{}: {problem}", file.display()));
        let name = entry.file_name().into_string().map_err(|_| refused("its name is not UTF-8"))?;
        let path = if inside.is_empty() { name } else { format!("{inside}/{name}") };
        let excluded = ignore.excludes(&path) && !ALWAYS.contains(&path.as_str());
        let meta = fs::symlink_metadata(&file).on_machine(|| format!("cannot read {}", file.display()))?;
        let kind = if meta.is_dir() {
            if !walk(context, &path, ignore, entries)? && excluded {
                continue;
            }
            EntryKind::Folder
        } else if excluded {
            continue;
        } else if meta.is_symlink() {
            EntryKind::Link(fs::read_link(&file).on_machine(|| format!("cannot read {}", file.display()))?)
        } else if meta.is_file() {
            EntryKind::File { size: meta.len(), executable: meta.permissions().mode() & 0o100 != 0 }
        } else {
            return Err(refused("neither a file nor a folder nor a link").hint("name it in .dockerignore"));
        };
        entries.push(Entry { path, kind });
    }
    Ok(entries.len() > before)
}

/// What the user should know before it leaves the machine: large files, and names of secrets.
pub fn remarks(entries: &[Entry]) -> Vec<String> {
    let mut found = Vec::new();
    for entry in entries {
        let EntryKind::File { size, .. } = entry.kind else { continue };
        if size >= LARGE {
            found.push(format!("the context holds {}, {}", entry.path, crate::report::bytes(size)));
        }
        if may_be_secret(&entry.path) {
            found.push(format!(
                "the context holds {}, which looks like a secret: name it in .dockerignore if the image does not need it",
                entry.path
            ));
        }
    }
    found
}

fn may_be_secret(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path).to_ascii_lowercase();
    let names = [".env", ".netrc", ".npmrc", ".pypirc", ".htpasswd", "id_rsa", "id_ecdsa", "id_ed25519", "credentials"];
    let endings = [".pem", ".key", ".p12", ".pfx", ".jks", ".kdbx"];
    let parts = ["service-account", "service_account", "credentials.", "secret"];
    names.contains(&name.as_str())
        || name.starts_with(".env.")
        || endings.iter().any(|ending| name.ends_with(ending))
        || parts.iter().any(|part| name.contains(part))
}

/// Writes the entries as tar.gz: sorted, times and owners 0, modes 0644 and 0755.
pub fn pack(context: &Path, entries: &[Entry], out: impl Write) -> Result<()> {
    let gzip = GzBuilder::new().mtime(0).write(out, Compression::default());
    let mut tar = tar::Builder::new(gzip);
    for entry in entries {
        let file = context.join(&entry.path);
        let named = || format!("cannot pack {}", file.display());
        match &entry.kind {
            EntryKind::Folder => {
                let mut header = header(EntryType::Directory, 0o755, 0);
                tar.append_data(&mut header, format!("{}/", entry.path), io::empty()).on_machine(named)?;
            }
            EntryKind::Link(target) => {
                tar.append_link(&mut header(EntryType::Symlink, 0o777, 0), &entry.path, target).on_machine(named)?;
            }
            EntryKind::File { size, executable } => {
                let mode = if *executable { 0o755 } else { 0o644 };
                let content = File::open(&file).on_machine(named)?;
                let mut content = Exactly { content: io::Read::take(content, size + 1), left: *size };
                tar.append_data(&mut header(EntryType::Regular, mode, *size), &entry.path, &mut content)
                    .on_machine(named)?;
            }
        }
    }
    let written = tar.into_inner().and_then(flate2::write::GzEncoder::finish);
    written.and_then(|mut out| out.flush()).on_machine(|| "cannot write the build context")
}

/// A file that is as long as it was when it was listed; a tar would be garbage otherwise.
struct Exactly {
    content: io::Take<File>,
    left: u64,
}

impl io::Read for Exactly {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = io::Read::read(&mut self.content, buf)?;
        match (self.left.checked_sub(n as u64), n) {
            (Some(left), n) if n > 0 || left == 0 || buf.is_empty() => {
                self.left = left;
                Ok(n)
            }
            _ => Err(io::Error::other("the file changed while it was packed")),
        }
    }
}

fn header(kind: EntryType, mode: u32, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (path, content) in files {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        dir
    }

    fn paths(dir: &Path) -> Vec<String> {
        list(dir).unwrap().into_iter().map(|entry| entry.path).collect()
    }

    fn packed(dir: &Path) -> Vec<u8> {
        let mut out = Vec::new();
        pack(dir, &list(dir).unwrap(), &mut out).unwrap();
        out
    }

    #[test]
    fn the_dockerfile_is_always_sent() {
        let files = [("Dockerfile", "FROM a"), (".dockerignore", "*\n!kept"), ("kept/a", ""), ("b", ""), ("c/d", "")];
        assert_eq!(paths(folder(&files).path()), [".dockerignore", "Dockerfile", "kept", "kept/a"]);
    }

    #[test]
    fn an_exception_brings_its_folders_with_it() {
        let dir = folder(&[(".dockerignore", "a\n!a/b/c"), ("a/b/c", ""), ("a/b/d", ""), ("a/e/f", "")]);
        assert_eq!(paths(dir.path()), [".dockerignore", "a", "a/b", "a/b/c"]);
        fs::write(dir.path().join(".dockerignore"), "a\n!a/**/f").unwrap();
        assert_eq!(paths(dir.path()), [".dockerignore", "a", "a/e", "a/e/f"]);
    }

    #[test]
    fn the_projects_own_context_is_what_the_dockerfile_copies() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../mlflow_server");
        let copied = ["requirements.lock", "exclude", "rootfs"];
        for path in paths(&dir) {
            let top = path.split('/').next().unwrap();
            assert!(copied.contains(&top) || ALWAYS.contains(&top), "{path}");
        }
    }

    #[test]
    fn the_archive_depends_on_names_contents_and_executable_bits_alone() {
        let dir = folder(&[("b", "1"), ("a/c", "2")]);
        symlink("b", dir.path().join("l")).unwrap();
        let first = packed(dir.path());
        fs::set_permissions(dir.path().join("b"), fs::Permissions::from_mode(0o600)).unwrap();
        let then = fs::FileTimes::new().set_modified(std::time::UNIX_EPOCH);
        File::options().write(true).open(dir.path().join("b")).unwrap().set_times(then).unwrap();
        assert_eq!(packed(dir.path()), first);
        fs::set_permissions(dir.path().join("b"), fs::Permissions::from_mode(0o700)).unwrap();
        assert_ne!(packed(dir.path()), first);
        let mut tar = tar::Archive::new(flate2::read::GzDecoder::new(first.as_slice()));
        let entries: Vec<_> = tar
            .entries()
            .unwrap()
            .map(|entry| {
                let header = entry.unwrap().header().clone();
                let path = header.path().unwrap().display().to_string();
                (path, header.mode().unwrap(), header.mtime().unwrap(), header.uid().unwrap())
            })
            .collect();
        let expected = [("a/", 0o755), ("a/c", 0o644), ("b", 0o644), ("l", 0o777)];
        assert_eq!(entries, expected.map(|(path, mode)| (path.to_owned(), mode, 0, 0)));
    }

    #[test]
    fn a_file_that_changes_while_it_is_packed_is_refused() {
        for content in ["shorter", "longer than it was"] {
            let dir = folder(&[("a", "as it was")]);
            let entries = list(dir.path()).unwrap();
            fs::write(dir.path().join("a"), content).unwrap();
            let error = pack(dir.path(), &entries, io::sink()).unwrap_err();
            assert!(error.lines().join("\n").contains("changed while it was packed"), "{error}");
        }
    }

    #[test]
    fn what_is_no_file_is_refused_unless_ignored() {
        let dir = folder(&[("a", "")]);
        let _socket = std::os::unix::net::UnixListener::bind(dir.path().join("s")).unwrap();
        assert!(list(dir.path()).unwrap_err().to_string().contains("/s: neither"));
        fs::write(dir.path().join(".dockerignore"), "s").unwrap();
        assert_eq!(paths(dir.path()), [".dockerignore", "a"]);
    }

    #[test]
    fn large_files_and_names_of_secrets_are_remarked() {
        for (path, size, remarks_expected) in [
            ("a", 9_999_999, 0),
            ("a", 10_000_000, 1),
            ("x/.env", 1, 1),
            (".env.local", 1, 1),
            ("key.pem", 20_000_000, 2),
            ("my-service-account.json", 1, 1),
            ("environment.py", 1, 0),
            ("keys.txt", 1, 0),
        ] {
            let entry = Entry { path: path.to_owned(), kind: EntryKind::File { size, executable: false } };
            assert_eq!(remarks(&[entry]).len(), remarks_expected, "{path}");
        }
    }
}
