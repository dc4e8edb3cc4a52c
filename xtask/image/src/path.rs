//! Which paths of foreign archives are acceptable in an image.

/// The longest name of one file that Linux file systems hold, in bytes (NAME_MAX).
const LONGEST_NAME: usize = 255;
/// The longest path that Linux system calls take, in bytes (PATH_MAX, with the closing NUL).
const LONGEST_PATH: usize = 4095;

/// Checks a relative path of an archive: it stays below the root that it is unpacked into, means
/// the same file to every reader, and fits on a file system. Tells the reason where it does not.
pub(crate) fn check(path: &str) -> Result<(), String> {
    if path.is_empty() {
        return Err("an empty path".to_owned());
    }
    if path.starts_with('/') || path.as_bytes().get(1) == Some(&b':') {
        return Err("an absolute path".to_owned());
    }
    if let Some(c) = path.chars().find(|&c| c == '\\' || c.is_control()) {
        return Err(format!("a path with the character {c:?}"));
    }
    if path.len() > LONGEST_PATH {
        return Err(format!("a path of {} bytes", path.len()));
    }
    for name in path.split('/') {
        match name {
            ".." => return Err("a path that leaves its folder".to_owned()),
            "" | "." => return Err("a path with an empty part".to_owned()),
            _ if name.len() > LONGEST_NAME => return Err(format!("a file name of {} bytes", name.len())),
            _ => {}
        }
    }
    Ok(())
}

/// Resolves the relative target of the symbolic link `link` to a path below the root. `None`: it
/// leaves the root.
pub(crate) fn resolve(link: &str, target: &str) -> Option<String> {
    let mut parts: Vec<&str> = link.split('/').collect();
    parts.pop();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            name => parts.push(name),
        }
    }
    Some(parts.join("/"))
}

/// The parents of a path, nearest last: `a/b/c` gives `a`, `a/b`.
pub(crate) fn parents(path: &str) -> impl Iterator<Item = &str> {
    path.match_indices('/').map(|(at, _)| &path[..at])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_relative_paths_pass() {
        let long = "n".repeat(256);
        let deep = "abc/".repeat(1025) + "x";
        for (path, expected) in [
            ("a", ""),
            ("a/b.py", ""),
            ("a/ü/日本.py", ""),
            ("a b/[c]", ""),
            ("..a/b..", ""),
            ("", "empty path"),
            ("/etc/passwd", "absolute"),
            ("C:/x", "absolute"),
            ("..", "leaves"),
            ("a/../../b", "leaves"),
            ("a/../b", "leaves"),
            ("a//b", "empty part"),
            ("a/./b", "empty part"),
            ("a/", "empty part"),
            ("a\\b", "character '\\\\'"),
            ("a\0b", "character '\\0'"),
            ("a\nb", "character '\\n'"),
            (long.as_str(), "file name of 256"),
            (deep.as_str(), "path of 4101"),
        ] {
            match check(path) {
                Ok(()) => assert_eq!(expected, "", "{path:?}"),
                Err(problem) => assert!(!expected.is_empty() && problem.contains(expected), "{path:?}: {problem}"),
            }
        }
    }

    #[test]
    fn links_resolve_below_the_root_or_not_at_all() {
        for (link, target, expected) in [
            ("usr/bin/python", "python3.13", Some("usr/bin/python3.13")),
            ("usr/lib/x/y.so", "../y.so.1", Some("usr/lib/y.so.1")),
            ("etc/mtab", "../proc/mounts", Some("proc/mounts")),
            ("bin", "usr/bin", Some("usr/bin")),
            ("bin", "../usr", None),
            ("a/b", "../../../etc", None),
        ] {
            assert_eq!(resolve(link, target).as_deref(), expected, "{link} -> {target}");
        }
    }

    #[test]
    fn parents_are_given_from_the_root_down() {
        assert_eq!(parents("a/b/c").collect::<Vec<_>>(), ["a", "a/b"]);
        assert_eq!(parents("a").count(), 0);
    }
}
