//! Programs that are run to their end, and where they are. No secret in arguments: those are
//! visible to every user of the machine.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::Command;

use super::error::{Context as _, Error, Kind, Result};

/// Where else programs for root are, when the PATH of the user leaves them out.
const SYSTEM: &[&str] = &["/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/local/bin", "/usr/bin", "/bin"];

/// The folders in which programs are looked for.
pub(crate) fn search_path() -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut dirs: Vec<PathBuf> = std::env::split_paths(&path).collect();
    for dir in SYSTEM.iter().map(PathBuf::from) {
        if !dirs.contains(&dir) {
            dirs.push(dir);
        }
    }
    dirs
}

/// All programs of that name, in the order of the search path.
pub(crate) fn all(name: &str) -> Vec<PathBuf> {
    search_path().into_iter().map(|dir| dir.join(name)).filter(|file| is_executable(file)).collect()
}

/// The first program of that name.
pub(crate) fn find(name: &str) -> Option<PathBuf> {
    all(name).into_iter().next()
}

/// Whether this file can be run.
pub(crate) fn is_executable(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    file.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// A program that ends with the future that waits for it.
pub(crate) fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::from(crate::tool::command(program));
    command.stdin(Stdio::null()).kill_on_drop(true);
    command
}

/// Runs a program and gives what it printed on stdout; what it printed on stderr is in the error.
pub(crate) async fn read(mut command: Command, stdin: &[u8], deadline: Duration) -> Result<String> {
    let name = name(&command);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = spawn(command, &name)?;
    let mut pipe = child.stdin.take().expect("stdin is piped");
    let work = async {
        // It may end without reading all of it; its exit code says what that means.
        let _ = pipe.write_all(stdin).await;
        drop(pipe);
        child.wait_with_output().await
    };
    let Ok(ended) = tokio::time::timeout(deadline, work).await else {
        return Err(Error::new(Kind::Tool, format!("{name} did not end within {} s", deadline.as_secs())));
    };
    let output = ended.on_machine(|| format!("cannot wait for {name}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let complaint = tail(&String::from_utf8_lossy(&output.stderr), 15);
    Err(Error::new(Kind::Tool, format!("{name} failed ({})", output.status)).source(complaint))
}

/// Runs a program, with each line that it prints on stderr as it comes.
pub(crate) async fn watch(mut command: Command, mut on_line: impl FnMut(&str)) -> Result<()> {
    let name = name(&command);
    command.stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = spawn(command, &name)?;
    let mut lines = BufReader::new(child.stderr.take().expect("stderr is piped"));
    let (mut said, mut line) = (Vec::new(), Vec::new());
    while lines.read_until(b'\n', &mut line).await.on_machine(|| format!("cannot read what {name} prints"))? > 0 {
        let text = String::from_utf8_lossy(&line).trim_end().to_owned();
        on_line(&text);
        said.push(text);
        line.clear();
    }
    let status = child.wait().await.on_machine(|| format!("cannot wait for {name}"))?;
    if status.success() {
        return Ok(());
    }
    Err(Error::new(Kind::Tool, format!("{name} failed ({status})")).source(tail(&said.join("\n"), 15)))
}

/// The last lines of a text.
pub(crate) fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

/// The last lines of a file, of which only the end is read.
pub(crate) async fn tail_of(file: &Path, lines: usize) -> String {
    let read = async {
        let mut file = tokio::fs::File::open(file).await?;
        let length = file.metadata().await?.len();
        tokio::io::AsyncSeekExt::seek(&mut file, std::io::SeekFrom::Start(length.saturating_sub(8192))).await?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).await?;
        std::io::Result::Ok(bytes)
    };
    tail(&String::from_utf8_lossy(&read.await.unwrap_or_default()), lines)
}

fn name(command: &Command) -> String {
    let program = Path::new(command.as_std().get_program());
    program.file_name().unwrap_or(program.as_os_str()).to_string_lossy().into_owned()
}

fn spawn(mut command: Command, name: &str) -> Result<tokio::process::Child> {
    command.spawn().map_err(|error| Error::new(Kind::Tool, format!("cannot start {name}")).source(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_program_that_hangs_or_fails_is_named() {
        let mut sleep = command("sleep");
        sleep.arg("60");
        let error = read(sleep, b"", Duration::from_millis(50)).await.unwrap_err();
        assert!(error.to_string().starts_with("sleep did not end"), "{error}");
        let mut fails = command("sh");
        fails.args(["-c", "cat >&2; exit 3"]);
        let error = read(fails, b"the reason", Duration::from_secs(20)).await.unwrap_err();
        assert_eq!(std::error::Error::source(&error).unwrap().to_string(), "the reason");
    }

    #[test]
    fn a_tail_is_the_end() {
        assert_eq!(tail("a\nb\nc", 2), "b\nc");
        assert_eq!(tail("a", 2), "a");
    }
}
