//! `hashFiles`: a digest of the files that patterns name.

use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::{Result, error};

/// The digest. GitHub's is empty where nothing is named; here that is an error.
pub(super) fn files(root: &Path, patterns: &[String]) -> Result<String> {
    let mut found = Vec::new();
    for pattern in patterns {
        let mut paths = vec![root.to_owned()];
        for part in pattern.split('/') {
            paths = paths.iter().flat_map(|dir| children(dir, part)).collect();
        }
        paths.retain(|path| path.is_file());
        if paths.is_empty() {
            return Err(error(format!("hashFiles: {pattern} names no file")));
        }
        found.append(&mut paths);
    }
    found.sort();
    found.dedup();
    let mut whole = Sha256::new();
    for file in found {
        let bytes = std::fs::read(&file).map_err(|problem| error(format!("{}: {problem}", file.display())))?;
        whole.update(Sha256::digest(bytes));
    }
    Ok(whole.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// What a part of a pattern names in a folder; `*` stands for any text, once.
fn children(dir: &Path, part: &str) -> Vec<PathBuf> {
    let Some((start, end)) = part.split_once('*') else { return vec![dir.join(part)] };
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let fits = |name: &String| name.len() >= start.len() + end.len() && name.starts_with(start) && name.ends_with(end);
    names.filter(fits).map(|name| dir.join(name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Home;

    #[test]
    fn the_digest_follows_the_files_that_are_named() {
        let home = Home::new();
        let root = home.path();
        for (name, text) in [("a.lock", "1"), ("b.lock", "2"), ("dir/x/go.sum", "3"), ("dir/y/go.sum", "4")] {
            std::fs::write(home.file(name), text).expect("a file");
        }
        let hash = |patterns: &[&str]| files(root, &patterns.iter().map(|&text| text.to_owned()).collect::<Vec<_>>());
        let all = hash(&["*.lock", "dir/*/go.sum"]).expect("a digest");
        assert_eq!(hash(&["dir/x/go.sum", "a.lock", "b.lock", "dir/y/go.sum", "*.lock"]), Ok(all.clone()));
        assert_ne!(hash(&["*.lock"]), Ok(all.clone()));
        std::fs::write(home.file("dir/y/go.sum"), "5").expect("a file");
        assert_ne!(hash(&["*.lock", "dir/*/go.sum"]), Ok(all));
        assert!(hash(&["a.lock", "*.toml"]).is_err() && hash(&["dir/*"]).is_err());
    }
}
