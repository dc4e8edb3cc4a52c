//! Programs that stand at the head of a runner's PATH.

use std::fmt::Write as _;
use std::path::Path;

use crate::run;

/// Makes `cargo xtask` run a program that is already built. It is told of the checkout as cargo
/// would tell it.
pub fn built_cargo(dir: &Path, xtask: &Path) {
    let xtask = quoted(&xtask.to_string_lossy());
    let script = format!(
        "[ \"$1\" = xtask ] || {{ echo \"only cargo xtask is known here, not: $*\" >&2; exit 101; }}\n\
         shift\nexport CARGO_MANIFEST_DIR=\"$GITHUB_WORKSPACE/xtask\"\nexec {xtask} \"$@\"\n"
    );
    program(dir, "cargo", &script);
}

/// What a program says when it is called in one way.
#[derive(Clone, Debug)]
pub struct Says<'a> {
    /// Its arguments, separated by spaces; `*` stands for anything.
    pub to: &'a str,
    /// What it prints on stdout.
    pub text: &'a str,
    /// Its exit code.
    pub code: i32,
}

/// A program that says what a test wants it to, fails when it is called in any other way, and adds
/// its arguments to the file `NAME.calls` beside it.
pub fn scripted(dir: &Path, name: &str, answers: &[Says<'_>]) {
    let mut script = "printf '%s\\n' \"$*\" >> \"$0.calls\"\ncase \"$*\" in\n".to_owned();
    for Says { to, text, code } in answers {
        let pattern = to.split('*').map(quoted).collect::<Vec<_>>().join("*");
        let _ = writeln!(script, "{pattern}) printf '%s' {}; exit {code} ;;", quoted(text));
    }
    script.push_str("*) echo \"nobody expected: $*\" >&2; exit 99 ;;\nesac\n");
    program(dir, name, &script);
}

/// Puts a program in front of a real one: it adds its arguments to the file `NAME.calls`, and then
/// is the real one.
pub fn watched(dir: &Path, name: &str, real: &Path) {
    let real = quoted(&real.to_string_lossy());
    program(dir, name, &format!("printf '%s\\n' \"$*\" >> \"$0.calls\"\nexec {real} \"$@\"\n"));
}

/// How a scripted or watched program was called since it was written.
pub fn calls(dir: &Path, name: &str) -> Vec<String> {
    let text = std::fs::read_to_string(dir.join(format!("{name}.calls"))).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

fn program(dir: &Path, name: &str, script: &str) {
    let (file, draft) = (dir.join(name), dir.join(format!("{name}.sh")));
    let _ = std::fs::remove_file(dir.join(format!("{name}.calls")));
    std::fs::write(&draft, format!("#!/bin/sh\n{script}")).expect("a script");
    // Written by this process, a program that another thread starts in the meantime would keep it
    // open, and the system starts nothing that is open for writing.
    run("install".as_ref(), &["-m", "755", &draft.to_string_lossy(), &file.to_string_lossy()]);
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}
