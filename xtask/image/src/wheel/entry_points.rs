//! `entry_points.txt` -> scripts (PyPA specifications, "Entry points specification").

/// A script to generate.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Script {
    pub(super) name: String,
    module: String,
    object: String,
}

/// The scripts of the sections `console_scripts` and `gui_scripts`, which differ on Windows only.
pub(super) fn scripts(text: &str) -> Result<Vec<Script>, String> {
    let mut scripts = Vec::new();
    let mut wanted = false;
    for line in text.lines().map(str::trim) {
        if line.is_empty() || line.starts_with(['#', ';']) {
            continue;
        }
        if let Some(section) = line.strip_prefix('[') {
            let section = section.strip_suffix(']').ok_or_else(|| format!("entry_points.txt: {line:?}"))?;
            wanted = matches!(section.trim(), "console_scripts" | "gui_scripts");
        } else if wanted {
            scripts.push(script(line).ok_or_else(|| format!("entry_points.txt: {line:?} is no script"))?);
        }
    }
    Ok(scripts)
}

/// `name = module:object.attribute [extra]`
fn script(line: &str) -> Option<Script> {
    let (name, reference) = line.split_once('=')?;
    let reference = reference.split('[').next()?;
    let (module, object) = reference.split_once(':')?;
    let script =
        Script { name: name.trim().to_owned(), module: module.trim().to_owned(), object: object.trim().to_owned() };
    let well_named = !script.name.is_empty()
        && !matches!(script.name.as_str(), "." | "..")
        && script.name.chars().all(|c| c.is_alphanumeric() || "-_.+ ".contains(c));
    (well_named && is_dotted(&script.module) && is_dotted(&script.object)).then_some(script)
}

/// Whether this is a Python name or several with dots between.
fn is_dotted(name: &str) -> bool {
    name.split('.').all(|part| {
        part.starts_with(|c: char| c.is_alphabetic() || c == '_')
            && part.chars().all(|c| c.is_alphanumeric() || c == '_')
    })
}

impl Script {
    /// The script's text. Under the guard, a process that multiprocessing spawns does not run it again.
    pub(super) fn text(&self, interpreter: &str) -> String {
        let Self { module, object, .. } = self;
        let import = object.split('.').next().unwrap_or(object);
        format!(
            "#!{interpreter}\nimport sys\n\nfrom {module} import {import}\n\nif __name__ == \"__main__\":\n    sys.exit({object}())\n"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_are_found_in_their_sections_only() {
        let text = "[mlflow.app]\nbasic-auth = mlflow.server.auth:create_app\n\n[console_scripts]\n# no\n ; no\n\
                    mlflow=mlflow.cli:cli\nf2py = numpy.f2py.f2py2e:main [extra]\n[ gui_scripts ]\nx = a.b:C.d\n[z]\ny = q\n";
        let found: Vec<_> = scripts(text).unwrap().into_iter().map(|s| (s.name, s.module, s.object)).collect();
        let expected = [("mlflow", "mlflow.cli", "cli"), ("f2py", "numpy.f2py.f2py2e", "main"), ("x", "a.b", "C.d")];
        assert_eq!(found, expected.map(|(name, module, object)| (name.into(), module.into(), object.into())));
    }

    #[test]
    fn what_is_no_script_is_refused() {
        for line in [
            "x",
            "x = ",
            "x = module",
            "= a:b",
            "../x = a:b",
            "a/b = a:b",
            ".. = a:b",
            "x = a:b; import os",
            "x = a b:c",
            "x = a:1b",
            "x = a..b:c",
            "x = os:system('x')",
        ] {
            assert!(scripts(&format!("[console_scripts]\n{line}")).is_err(), "{line}");
        }
        assert!(scripts("[console_scripts\n").is_err());
    }

    #[test]
    fn a_nested_object_is_reached_from_its_module() {
        let script = Script { name: "x".into(), module: "a.b".into(), object: "C.d".into() };
        let text = script.text("/opt/mlflow/bin/python");
        assert!(text.starts_with("#!/opt/mlflow/bin/python\n"));
        assert!(text.contains("from a.b import C\n") && text.contains("sys.exit(C.d())"), "{text}");
    }
}
