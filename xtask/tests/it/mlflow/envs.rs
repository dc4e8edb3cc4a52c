//! Python environments for the tests, kept below cargo's target folder: the server's, from the
//! lock alone, the client's, with everything that MLflow asks for, and those of single tools.

use std::fs::File;
use std::path::{Path, PathBuf};

use testbed::{Home, command, run, skip};

/// The version of uv that is installed where none is on the PATH.
const UV: &str = "uv==0.13.9";

/// A virtual environment.
pub struct Python {
    dir: PathBuf,
}

impl Python {
    /// The server's packages, exactly as locked, without what the image leaves out.
    pub fn server() -> Option<Self> {
        Self::make("server", &locked(), &["--require-hashes", "--no-deps"], &mlflow_server("exclude"))
    }

    /// The whole of MLflow in the locked version; the walk reads its routes.
    pub fn client() -> Option<Self> {
        let lock = locked();
        let version = lock.lines().find_map(|line| line.strip_prefix("mlflow==")).expect("mlflow in the lock");
        let version: String = version.chars().take_while(|c| !c.is_whitespace() && *c != '\\').collect();
        Self::make("client", &format!("mlflow=={version}\nprometheus-flask-exporter\nFlask-WTF\n"), &[], "")
    }

    /// A program from Python's package index, exactly as locked.
    pub fn tool(name: &str, lock: &str) -> Option<Self> {
        Self::make(name, lock, &["--require-hashes", "--no-deps"], "")
    }

    /// Its interpreter.
    pub fn interpreter(&self) -> PathBuf {
        self.program("python")
    }

    /// A program of its packages.
    pub fn program(&self, name: &str) -> PathBuf {
        self.dir.join("bin").join(name)
    }

    fn make(name: &str, requirements: &str, options: &[&str], exclude: &str) -> Option<Self> {
        let inputs = format!("{requirements}{exclude}");
        let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join("mlflow");
        std::fs::create_dir_all(&root).unwrap();
        // Two tests, and two test runs, make it once.
        let lock = File::create(root.join(format!("{name}.lock"))).unwrap();
        lock.lock().unwrap();
        let dir = root.join(name);
        let done = dir.join("made-from");
        if std::fs::read_to_string(&done).is_ok_and(|made| made == inputs) {
            return Some(Self { dir });
        }
        let Some(python) = python() else {
            let why = "no Python 3.13 (python3.13 on the PATH, or its path in XTASK_PYTHON)";
            assert!(std::env::var_os("CI").is_none(), "{why}");
            skip(why);
            return None;
        };
        let _ = std::fs::remove_dir_all(&dir);
        let file = root.join(format!("{name}.txt"));
        std::fs::write(&file, requirements).unwrap();
        let (uv, home) = (uv(&root), Home::new());
        let uv = |args: &[&str]| {
            // uv's own settings say where packages come from; its cache is the user's.
            let output = command(&uv).args(args).current_dir(home.path()).output().expect("uv starts");
            assert!(output.status.success(), "uv {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        };
        let (target, requirements_file) = (dir.to_str().unwrap(), file.to_str().unwrap());
        uv(&["venv", "--quiet", "--no-project", "--python", python.to_str().unwrap(), target]);
        let interpreter = dir.join("bin/python");
        let install = ["pip", "install", "--quiet", "--only-binary", ":all:", "--compile-bytecode", "--python"];
        let args = [&install[..], &[interpreter.to_str().unwrap()], options, &["-r", requirements_file]].concat();
        uv(&args);
        leave_out(&dir, exclude);
        std::fs::write(done, inputs).unwrap();
        Some(Self { dir })
    }
}

/// Deletes what mlflow_server/exclude lists.
fn leave_out(dir: &Path, exclude: &str) {
    let packages = dir.join("lib/python3.13/site-packages");
    let patterns = exclude.lines().map(|line| line.split('#').next().unwrap_or("").trim());
    for pattern in patterns.filter(|pattern| !pattern.is_empty()) {
        // The shell knows what `*` means.
        let rm = format!("cd \"$0\" && rm -rf -- {pattern}");
        let status = command("sh").args(["-c", &rm]).arg(&packages).status().expect("sh starts");
        assert!(status.success(), "rm {pattern}");
    }
}

fn locked() -> String {
    mlflow_server("requirements.lock")
}

/// A file of the image's sources.
fn mlflow_server(name: &str) -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../mlflow_server").join(name);
    std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

/// uv from the PATH, else from the user's package index into the target folder.
fn uv(root: &Path) -> PathBuf {
    if let Some(uv) = on_path("uv") {
        return uv;
    }
    let uv = root.join("uv/bin/uv");
    if !uv.is_file() {
        let lock = File::create(root.join("uv.lock")).unwrap();
        lock.lock().unwrap();
        let python = on_path("python3").expect("python3 on the PATH");
        run(&python, &["-m", "venv", root.join("uv").to_str().unwrap()]);
        run(&root.join("uv/bin/pip"), &["install", "--quiet", UV]);
    }
    uv
}

/// A Python 3.13 that starts: a pyenv shim may be there and refuse.
fn python() -> Option<PathBuf> {
    let pyenv = std::env::var_os("PYENV_ROOT").map(PathBuf::from);
    let pyenv = pyenv.or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".pyenv")));
    let versions = pyenv.and_then(|root| std::fs::read_dir(root.join("versions")).ok());
    let versions = versions.into_iter().flatten().flatten().map(|entry| entry.path().join("bin/python3.13"));
    let given = std::env::var_os("XTASK_PYTHON").map(PathBuf::from);
    given.into_iter().chain(on_path("python3.13")).chain(versions).find(|python| {
        let check = "import sys, venv; sys.exit(sys.version_info[:2] != (3, 13))";
        command(python).args(["-c", check]).output().is_ok_and(|output| output.status.success())
    })
}

fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(name)).find(|file| file.is_file())
}
