//! What a release of this environment means for its process: command, environment, user, folders.

use std::os::unix::fs::{MetadataExt as _, chown};
use std::path::{Path, PathBuf};

use crate::cache;
use crate::error::{Context as _, Error, Kind, Result};
use crate::report;

use super::image::Config;
use super::rootfs;
use super::spec::{DATA, Role, Spec, USER};
use super::state::Release;

/// The database, as the server sees it.
const DATABASE_URI: &str = "sqlite:////data/mlflow.db";
/// How long uvicorn lets requests finish after SIGTERM; below the time after which we end it.
const GRACE: &str = "--timeout-graceful-shutdown 15";

/// The database file in the data folder.
pub fn database(data: &Path) -> PathBuf {
    data.join("mlflow.db")
}

/// Where an image is to run.
#[derive(Clone, Copy, Debug)]
pub enum Place<'a> {
    /// In namespaces, on the host's network, from this folder.
    Sandbox(&'a Path),
    /// In a container with a network of its own; the image is the engine's.
    Container,
}

/// The process of a server.
pub fn spec(place: Place<'_>, image: &Config, release: &Release, role: Role) -> Result<Spec> {
    let mut command = image.entrypoint.clone();
    command.extend(image.cmd.iter().cloned());
    if command.is_empty() {
        return Err(Error::new(Kind::Input, format!("image {} names no program to run", release.image.short())));
    }
    task(place, image, release, command, role)
}

/// The process that brings the database to the image's schema.
pub fn migration(place: Place<'_>, image: &Config, release: &Release) -> Result<Spec> {
    let command = ["mlflow", "db", "upgrade", DATABASE_URI].map(str::to_owned).to_vec();
    task(place, image, release, command, Role::Task)
}

fn task(place: Place<'_>, image: &Config, release: &Release, command: Vec<String>, role: Role) -> Result<Spec> {
    let (root, host) = match place {
        Place::Sandbox(root) => (root, "127.0.0.1"),
        // The engine publishes the port on the host's loopback only.
        Place::Container => (Path::new(""), "0.0.0.0"),
    };
    let (uid, gid) = match place {
        Place::Sandbox(root) => user(root, &image.user)?,
        Place::Container => numbers(&image.user),
    };
    let workdir = if image.working_dir.is_empty() { "/".into() } else { PathBuf::from(&image.working_dir) };
    let env = environment(&image.env, release.port, release.workers, host);
    Ok(Spec { root: root.to_path_buf(), data: release.data.clone(), command, env, workdir, uid, gid, role })
}

/// The image's environment with the environment's own settings (names: `mlflow server --help`).
pub fn environment(image: &[String], port: u16, workers: u16, host: &str) -> Vec<(String, String)> {
    let mut env: Vec<(String, String)> = Vec::new();
    for (key, value) in image.iter().filter_map(|pair| pair.split_once('=')) {
        env.retain(|(name, _)| name != key);
        env.push((key.to_owned(), value.to_owned()));
    }
    let options = env.iter().find(|(key, _)| key == "MLFLOW_UVICORN_OPTS").map_or("", |(_, value)| value);
    let options = match options.contains("--timeout-graceful-shutdown") {
        true => options.to_owned(),
        false => format!("{options} {GRACE}").trim().to_owned(),
    };
    let own = [
        ("MLFLOW_BACKEND_STORE_URI", DATABASE_URI.to_owned()),
        ("MLFLOW_ARTIFACTS_DESTINATION", format!("{DATA}/artifacts")),
        ("MLFLOW_SERVE_ARTIFACTS", "true".to_owned()),
        ("MLFLOW_HOST", host.to_owned()),
        ("MLFLOW_PORT", port.to_string()),
        ("MLFLOW_WORKERS", workers.to_string()),
        // Whatever port a tunnel gives it, but no other name: a page elsewhere must not reach it.
        ("MLFLOW_SERVER_ALLOWED_HOSTS", "localhost,localhost:*,127.0.0.1,127.0.0.1:*".to_owned()),
        ("MLFLOW_UVICORN_OPTS", options),
        // Artifacts pass through here whole: a tmpfs would limit their size.
        ("TMPDIR", format!("{DATA}/tmp")),
    ];
    for (key, value) in own {
        env.retain(|(name, _)| name != key);
        env.push((key.to_owned(), value));
    }
    env
}

/// User and group of an image (image-spec, config.md, `User`), by number or by name. Root becomes
/// [`USER`]: a server on someone's machine needs no root.
fn user(root: &Path, text: &str) -> Result<(u32, u32)> {
    let (user, group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (text, None),
    };
    let unknown =
        |what: &str| Error::new(Kind::Input, format!("the image runs as {text:?}, but has no {what} {text:?}"));
    let (uid, primary) = match user.parse::<u32>() {
        Ok(uid) => (uid, entry(root, "etc/passwd", |fields| fields.get(2) == Some(&user))),
        Err(_) if user.is_empty() => (0, None),
        Err(_) => {
            let entry =
                entry(root, "etc/passwd", |fields| fields.first() == Some(&user)).ok_or_else(|| unknown("user"))?;
            (entry.0, Some(entry))
        }
    };
    let gid = match group {
        Some(group) => match group.parse::<u32>() {
            Ok(gid) => gid,
            Err(_) => {
                entry(root, "etc/group", |fields| fields.first() == Some(&group)).ok_or_else(|| unknown("group"))?.0
            }
        },
        None => primary.map_or(if uid == 0 { USER } else { uid }, |(_, gid)| gid),
    };
    Ok(if uid == 0 { (USER, USER) } else { (uid, gid) })
}

/// User and group where the image's files cannot be looked at: what is not a number becomes [`USER`].
fn numbers(text: &str) -> (u32, u32) {
    let (user, group) = text.split_once(':').unwrap_or((text, text));
    match (user.parse(), group.parse()) {
        (Ok(0), _) | (Err(_), _) => (USER, USER),
        (Ok(uid), gid) => (uid, gid.unwrap_or(uid)),
    }
}

/// Fields 3 and 4 of the line that fits.
fn entry(root: &Path, file: &str, fits: impl Fn(&[&str]) -> bool) -> Option<(u32, u32)> {
    let path = root.join(file);
    // A link would lead out of the image.
    let text =
        path.symlink_metadata().ok().filter(|meta| meta.is_file()).and_then(|_| std::fs::read_to_string(path).ok())?;
    text.lines().map(|line| line.split(':').collect::<Vec<_>>()).find(|fields| fits(fields)).and_then(|fields| {
        let number = |field: usize| fields.get(field).and_then(|text| text.parse::<u32>().ok());
        Some((number(2)?, number(3).unwrap_or(0)))
    })
}

/// Makes the data folder ready for `uid`; its `tmp` is emptied.
pub fn prepare_data(data: &Path, uid: u32, gid: u32) -> Result<()> {
    let named = || format!("cannot prepare the data folder {}", data.display());
    let fresh = !data.exists();
    cache::create_dir(data)?;
    if fresh {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::set_permissions(data, std::fs::Permissions::from_mode(0o700)).on_machine(named)?;
    }
    if rootfs::is_root() {
        let owner = data.metadata().on_machine(named)?.uid();
        let empty = std::fs::read_dir(data).on_machine(named)?.flatten().all(|entry| entry.file_name() == ".lock");
        if owner != uid && !empty {
            return Err(Error::new(Kind::Machine, format!("{} belongs to user {owner}", data.display())).hint(
                format!("run as that user, or give it to the server's: chown -R {uid}:{gid} {}", data.display()),
            ));
        }
        chown(data, Some(uid), Some(gid)).on_machine(named)?;
    }
    let tmp = data.join("tmp");
    match std::fs::remove_dir_all(&tmp) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error).on_machine(named),
        _ => {}
    }
    for dir in [tmp, data.join("artifacts")] {
        cache::create_dir(&dir)?;
        if rootfs::is_root() {
            chown(&dir, Some(uid), Some(gid)).on_machine(named)?;
        }
    }
    Ok(())
}

/// Refuses to begin where the disk has no room for a backup of the database, its migration and the
/// server's first files: better an old server than none.
pub fn require_space(data: &Path) -> Result<()> {
    /// What a server writes before it serves, generously.
    const RESERVE: u64 = 32 << 20;
    let database = database(data).metadata().map_or(0, |meta| meta.len());
    let needed = RESERVE + 3 * database;
    let folder = data.ancestors().find(|dir| dir.is_dir()).unwrap_or(Path::new("/"));
    match rootfs::free_space(folder) {
        Some(free) if free < needed => {
            let (free, needed) = (report::bytes(free), report::bytes(needed));
            Err(Error::new(Kind::Machine, format!("{} has {free} left, {needed} are needed", data.display()))
                .hint("free some space, then run the same command again; nothing was changed"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environments_settings_beat_the_images() {
        let image = ["MLFLOW_PORT=5000", "HOME=/", "HOME=/tmp", "MLFLOW_UVICORN_OPTS=--log-config x", "broken"];
        let env = environment(&image.map(str::to_owned), 5001, 2, "127.0.0.1");
        let get = |key: &str| {
            let found: Vec<&str> =
                env.iter().filter(|(name, _)| name == key).map(|(_, value)| value.as_str()).collect();
            assert!(found.len() <= 1, "{key} is set twice");
            found.first().copied()
        };
        for (key, value) in [
            ("MLFLOW_PORT", Some("5001")),
            ("MLFLOW_WORKERS", Some("2")),
            ("MLFLOW_HOST", Some("127.0.0.1")),
            ("HOME", Some("/tmp")),
            ("TMPDIR", Some("/data/tmp")),
            ("MLFLOW_UVICORN_OPTS", Some("--log-config x --timeout-graceful-shutdown 15")),
            ("broken", None),
        ] {
            assert_eq!(get(key), value, "{key}");
        }
    }

    #[test]
    fn the_images_user_is_found_and_never_root() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("etc")).unwrap();
        std::fs::write(root.path().join("etc/passwd"), "root:x:0:0::/:\nml:x:7:8::/:\n").unwrap();
        std::fs::write(root.path().join("etc/group"), "root:x:0:\nops:x:9:\n").unwrap();
        for (text, expected) in [
            ("", Some((USER, USER))),
            ("0", Some((USER, USER))),
            ("root", Some((USER, USER))),
            ("0:0", Some((USER, USER))),
            ("65532:65532", Some((65532, 65532))),
            ("1000", Some((1000, 1000))),
            ("7", Some((7, 8))),
            ("ml", Some((7, 8))),
            ("ml:ops", Some((7, 9))),
            ("7:5", Some((7, 5))),
            ("nobody", None),
            ("ml:none", None),
        ] {
            assert_eq!(user(root.path(), text).ok(), expected, "{text:?}");
        }
    }
}
