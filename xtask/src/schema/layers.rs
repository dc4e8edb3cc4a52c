//! Which layers hold MLflow's migrations, and what they come to when all lie on each other.

use std::collections::{BTreeMap, BTreeSet};

use mlflow_image::find::Found;
use mlflow_image::manifest::Made;
use serde::Deserialize;

use super::{Revisions, Schema, Store};
use crate::error::{Error, Kind, Result};

/// The part of a config that is read (image-spec, config.md).
#[derive(Deserialize)]
struct Config {
    #[serde(default)]
    history: Option<Vec<Made>>,
}

/// The layers that may hold MLflow, the topmost first. Our own builder notes in the history which
/// packages a layer holds; a layer of any other builder may hold anything.
pub fn candidates(config: &[u8], layers: usize) -> Vec<usize> {
    let history = serde_json::from_slice::<Config>(config).ok().and_then(|config| config.history).unwrap_or_default();
    let made: Vec<&str> =
        history.iter().filter(|entry| !entry.empty_layer).map(|entry| entry.created_by.as_str()).collect();
    let told = made.len() == layers;
    (0..layers).rev().filter(|layer| !told || may_hold_mlflow(made[*layer])).collect()
}

/// A list of `NAME==VERSION` (Python) or `NAME=VERSION` (Debian) is complete.
fn may_hold_mlflow(created_by: &str) -> bool {
    let mut packages = created_by.split_whitespace().peekable();
    if packages.peek().is_none() {
        return true;
    }
    packages.any(|package| match package.split_once('=') {
        Some((name, _)) => name.starts_with("mlflow"),
        None => true,
    })
}

/// Whether a file may be a migration.
pub fn is_wanted(path: &str) -> bool {
    place(path).is_some()
}

/// The folder of Python's packages that a migration is in, its store and its name.
fn place(path: &str) -> Option<(&str, Store, &str)> {
    let (folder, name) = path.rsplit_once('/')?;
    let [store] = [Store::Tracking, Store::Login]
        .map(|store| Some((folder.strip_suffix(store.folder())?, store)))
        .into_iter()
        .flatten()
        .collect::<Vec<_>>()[..]
    else {
        return None;
    };
    let (packages, store) = store;
    let packages = packages.strip_suffix('/')?;
    let is_python = packages.ends_with("/site-packages") || packages.ends_with("/dist-packages");
    // As alembic's own list of files.
    let is_migration = name.ends_with(".py") && !name.starts_with("__init__") && !name.starts_with(".#");
    (is_python && is_migration).then_some((packages, store, name))
}

/// Layers from the topmost downwards: what is seen of them.
#[derive(Debug, Default)]
pub struct Overlay {
    files: BTreeMap<String, Vec<u8>>,
    hidden: BTreeSet<String>,
    emptied: BTreeSet<String>,
}

impl Overlay {
    /// Adds the next layer below.
    pub fn add(&mut self, layer: Vec<Found>) {
        let (mut hidden, mut emptied) = (Vec::new(), Vec::new());
        for found in layer {
            match found {
                Found::File { path, content } => {
                    if !self.is_hidden(&path) {
                        self.files.entry(path).or_insert(content);
                    }
                }
                Found::Hidden { path } => hidden.push(path),
                Found::Emptied { path } => emptied.push(path),
            }
        }
        // They hide what is below, not what is beside them.
        self.hidden.extend(hidden);
        self.emptied.extend(emptied);
    }

    fn is_hidden(&self, path: &str) -> bool {
        let mut folders = path.match_indices('/').map(|(at, _)| &path[..at]);
        self.hidden.contains(path)
            || self.emptied.contains("")
            || folders.any(|folder| self.hidden.contains(folder) || self.emptied.contains(folder))
    }

    /// The schema, once both stores' migrations are seen whole: a root, one head and all between.
    /// What lies below cannot add to that.
    pub fn complete(&self) -> Option<Schema> {
        let schema = self.schema().ok()?;
        schema.login.is_some().then_some(schema)
    }

    /// The schema of all layers.
    ///
    /// # Errors
    /// `Input` where MLflow is not there, there twice, or its migrations do not fit together.
    pub fn schema(&self) -> Result<Schema> {
        let mut sites: BTreeMap<&str, BTreeMap<Store, BTreeMap<String, Vec<u8>>>> = BTreeMap::new();
        for (path, content) in &self.files {
            if let Some((packages, store, name)) = place(path) {
                let files = sites.entry(packages).or_default().entry(store).or_default();
                files.insert(name.to_owned(), content.clone());
            }
        }
        let mut sites = sites.into_iter();
        let (packages, stores) = match (sites.next(), sites.next()) {
            (Some(site), None) => site,
            (Some((one, _)), Some((two, _))) => {
                return Err(Error::new(Kind::Input, format!("there is an MLflow in /{one} and one in /{two}"))
                    .hint("use an image with one of them"));
            }
            (None, _) => return Err(Error::new(Kind::Input, "no MLflow with a database's migrations is in it")),
        };
        let read = |store: Store| {
            let Some(files) = stores.get(&store) else { return Ok(None) };
            let wrong = |error: Error| {
                Error::new(Kind::Input, format!("the {store} migrations in /{packages} do not fit together"))
                    .source(error)
            };
            Revisions::read(files).map(Some).map_err(wrong)
        };
        let tracking = read(Store::Tracking)?
            .ok_or_else(|| Error::new(Kind::Input, format!("MLflow in /{packages} has no tracking migrations")))?;
        Ok(Schema { tracking, login: read(Store::Login)? })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_layers_that_may_hold_mlflow_are_read() {
        let check = |history: serde_json::Value, layers: usize, expected: &[usize]| {
            let config = json!({ "history": history }).to_string();
            assert_eq!(candidates(config.as_bytes(), layers), expected, "{history}");
        };
        let made = |created_by: &str| json!({ "created_by": created_by });
        let ours =
            ["libc6=2.41-12", "mlflow==3.17.2 mlflow-skinny==3.17.2", "numpy==2.5.5", "/etc/mlflow/logging.yaml"];
        check(json!(ours.map(made)), 4, &[3, 1]);
        check(json!([made("COPY /opt /opt"), made("numpy==2.5.5"), made("RUN pip install mlflow==3")]), 3, &[2, 0]);
        let empty = json!({ "created_by": "ENV a=b", "empty_layer": true });
        check(json!([made("numpy==2.5.5"), empty, made("mlflow-skinny==3")]), 2, &[1]);
        check(json!([made(""), {}]), 2, &[1, 0]);
        // A history that does not tell which layer is which.
        check(json!([made("numpy==2.5.5")]), 2, &[1, 0]);
        check(json!(null), 2, &[1, 0]);
        assert_eq!(candidates(b"no config", 1), [0]);
    }

    #[test]
    fn migrations_are_known_by_their_place() {
        let check = |path: &str, expected: Option<(&str, Store, &str)>| assert_eq!(place(path), expected, "{path}");
        let (tracking, login) = ("mlflow/store/db_migrations/versions", "mlflow/server/auth/db/migrations/versions");
        let site = "opt/mlflow/lib/python3.13/site-packages";
        check(&format!("{site}/{tracking}/1_a.py"), Some((site, Store::Tracking, "1_a.py")));
        check(&format!("{site}/{login}/1_a.py"), Some((site, Store::Login, "1_a.py")));
        let debian = "usr/lib/python3/dist-packages";
        check(&format!("{debian}/{tracking}/1.py"), Some((debian, Store::Tracking, "1.py")));
        for other in [
            format!("{site}/{tracking}/__init__.py"),
            format!("{site}/{tracking}/.#1_a.py"),
            format!("{site}/{tracking}/1_a.pyc"),
            format!("{site}/{tracking}/__pycache__/1_a.py"),
            format!("{site}/other/store/db_migrations/versions/1_a.py"),
            format!("{site}/not{tracking}/1_a.py"),
            format!("src/{tracking}/1_a.py"),
            format!("{tracking}/1_a.py"),
            "1_a.py".to_owned(),
        ] {
            check(&other, None);
        }
    }

    const SITE: &str = "opt/lib/site-packages";

    /// Layers, topmost first, of `t:REVISION<PARENT` (tracking), `l:REVISION<PARENT` (login), `-PATH`
    /// (hidden) and `!PATH` (emptied).
    fn overlay(layers: &[&str]) -> Overlay {
        let item = |text: &str| {
            if let Some(path) = text.strip_prefix('-') {
                return Found::Hidden { path: path.replace("SITE", SITE) };
            }
            if let Some(path) = text.strip_prefix('!') {
                return Found::Emptied { path: path.replace("SITE", SITE) };
            }
            let (kind, text) = text.split_once(':').unwrap();
            let (revision, parent) = text.split_once('<').unwrap_or((text, ""));
            let parent = if parent.is_empty() { "None".to_owned() } else { format!("{parent:?}") };
            let (site, store) = match kind {
                "t" => (SITE, Store::Tracking),
                "l" => (SITE, Store::Login),
                _ => ("usr/lib/site-packages", Store::Tracking),
            };
            let path = format!("{site}/{}/{revision}.py", store.folder());
            let content = format!("revision = {revision:?}\ndown_revision = {parent}\n").into_bytes();
            Found::File { path, content }
        };
        let mut overlay = Overlay::default();
        for layer in layers {
            overlay.add(layer.split_whitespace().map(item).collect());
        }
        overlay
    }

    fn heads(schema: &Schema) -> String {
        let login = schema.login.as_ref().map_or("none", Revisions::head);
        format!("{} {login}", schema.tracking.head())
    }

    #[test]
    fn upper_layers_hide_lower_ones() {
        let check = |layers: &[&str], expected: std::result::Result<&str, &str>| match (
            overlay(layers).schema().map(|schema| heads(&schema)),
            expected,
        ) {
            (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{layers:?}"),
            (Err(error), Err(expected)) => {
                let lines = error.lines().join(": ");
                assert!(lines.contains(expected), "{layers:?}: {lines}");
            }
            (found, _) => panic!("{layers:?}: {found:?}"),
        };
        check(&["t:b<a t:a l:z"], Ok("b z"));
        check(&["t:b<a t:a"], Ok("b none"));
        check(&["t:b<a", "t:a l:z"], Ok("b z"));
        check(&["t:a l:z -SITE/mlflow", "t:b<a t:a l:y"], Ok("a z"));
        check(&["-SITE/mlflow/store/db_migrations/versions/b.py", "t:b<a t:a l:z"], Ok("a z"));
        check(&["!SITE/mlflow/store t:a l:z", "t:b<a t:a l:y<z l:z"], Ok("a y"));
        check(&["!", "t:a l:z"], Err("no MLflow"));
        check(&["-opt", "t:a l:z"], Err("no MLflow"));
        check(&[], Err("no MLflow"));
        check(&["l:z"], Err("has no tracking migrations"));
        check(&["t:a o:a l:z"], Err("an MLflow in /opt/lib/site-packages and one in /usr/lib/site-packages"));
        check(&["t:b<a l:z"], Err("the tracking migrations in /opt/lib/site-packages do not fit together"));
    }

    #[test]
    fn what_is_seen_whole_needs_no_more_layers() {
        let check = |layers: &[&str], expected: Option<&str>| {
            let found = overlay(layers).complete().map(|schema| heads(&schema));
            assert_eq!(found.as_deref(), expected, "{layers:?}");
        };
        check(&["t:b<a t:a l:z"], Some("b z"));
        check(&["t:b<a t:a"], None);
        check(&["t:b<a l:z"], None);
        check(&[""], None);
    }
}
