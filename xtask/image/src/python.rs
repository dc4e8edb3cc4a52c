//! Where Python and the virtual environment are in the image. Without leading slashes, as in a tar.

/// The version of Python that the image holds: Debian trixie's.
pub const VERSION: &str = "3.13";
/// The virtual environment that the wheels are installed into.
pub const VENV: &str = "opt/mlflow";
/// Its folder for libraries.
pub const SITE_PACKAGES: &str = "opt/mlflow/lib/python3.13/site-packages";
/// Its folder for programs.
pub const BIN: &str = "opt/mlflow/bin";
/// What scripts start with after `#!`.
pub const INTERPRETER: &str = "/opt/mlflow/bin/python";
/// The interpreter of the base layer.
pub const BASE_INTERPRETER: &str = "usr/bin/python3.13";
/// Debian's name of the package that holds [`BASE_INTERPRETER`].
pub const PACKAGE: &str = "python3.13-minimal";
/// Where the base layer's Python sources are.
pub(crate) const STDLIB: [&str; 2] = ["usr/lib/python3.13/", "usr/lib/python3/"];

/// Where the interpreter looks for the bytecode of a source (PEP 3147).
pub(crate) fn pyc_path(source: &str) -> Option<String> {
    let stem = source.strip_suffix(".py")?;
    let (folder, name) = stem.rsplit_once('/').unwrap_or(("", stem));
    let slash = if folder.is_empty() { "" } else { "/" };
    Some(format!("{folder}{slash}__pycache__/{name}.cpython-313.pyc"))
}

/// Python's version in a Debian version: `3.13.5-2` is `3.13.5`.
pub fn upstream_version(debian: &str) -> &str {
    let version = debian.split_once(':').map_or(debian, |(_epoch, version)| version);
    let end = version.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(version.len());
    &version[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytecode_is_where_the_interpreter_looks() {
        for (source, expected) in [
            ("a/b.py", Some("a/__pycache__/b.cpython-313.pyc")),
            ("b.py", Some("__pycache__/b.cpython-313.pyc")),
            ("a/b.pyi", None),
            ("a/b.d.py", Some("a/__pycache__/b.d.cpython-313.pyc")),
        ] {
            assert_eq!(pyc_path(source).as_deref(), expected, "{source}");
        }
    }

    #[test]
    fn a_debian_version_tells_pythons() {
        for (debian, expected) in [("3.13.5-2", "3.13.5"), ("3.13.5-2+deb13u1", "3.13.5"), ("1:3.13.0~rc1-1", "3.13.0")]
        {
            assert_eq!(upstream_version(debian), expected);
        }
    }
}
