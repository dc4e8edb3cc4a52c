//! What a layer of wheels holds.

use std::sync::Mutex;

use mlflow_image::bytecode::{Compiler, Pyc, PythonSource};
use mlflow_image::plan::Format;
use mlflow_image::{Digest, Result};

use crate::archives::{MadeWheel, Options, SITE, build_made, read};
use crate::zip::{Descriptor, Entry};

fn paths(wheels: &[MadeWheel], options: Options<'_>) -> Vec<String> {
    let (_, blob) = build_made(wheels, options).unwrap();
    read(&blob).into_keys().map(|path| path.replace(SITE, "SITE").replace("opt/mlflow", "VENV")).collect()
}

#[test]
fn a_wheel_is_spread_as_the_specification_says() {
    let wheel = MadeWheel::new(
        "p_q",
        [
            Entry::new("p/__init__.py", "x = 1\n"),
            Entry::new("p/tool", "#!/bin/sh\n").with(|entry| entry.mode = 0o100_755),
            Entry::new("p/", ""),
            Entry::new("p/__pycache__/__init__.cpython-313.pyc", "stale"),
            Entry::new("p_q-1.data/purelib/pure.py", ""),
            Entry::new("p_q-1.data/platlib/plat.so", ""),
            Entry::new("p_q-1.data/scripts/run", "#!python -u\nprint()\n"),
            Entry::new("p_q-1.data/scripts/runw", "#!pythonw\nprint()\n"),
            Entry::new("p_q-1.data/scripts/shell", "#!/bin/sh\n"),
            Entry::new("p_q-1.data/data/share/man/p.1", ""),
            Entry::new("p_q-1.data/headers/p.h", ""),
            Entry::new("p_q-1.dist-info/INSTALLER", "someone\n"),
            Entry::new("p_q-1.dist-info/entry_points.txt", "[console_scripts]\np = p:main\n[gui_scripts]\ng = p:gui\n"),
        ],
    );
    let found = read(&build_made(&[wheel], Options::default()).unwrap().1);
    let listed: Vec<String> =
        found.keys().map(|path| path.replace(SITE, "SITE").replace("opt/mlflow", "VENV")).collect();
    assert_eq!(
        listed,
        [
            "VENV/bin/g",
            "VENV/bin/p",
            "VENV/bin/run",
            "VENV/bin/runw",
            "VENV/bin/shell",
            "VENV/include/site/python3.13/p-q/p.h",
            "SITE/p/__init__.py",
            "SITE/p/tool",
            "SITE/p_q-1.dist-info/METADATA",
            "SITE/p_q-1.dist-info/RECORD",
            "SITE/p_q-1.dist-info/WHEEL",
            "SITE/p_q-1.dist-info/entry_points.txt",
            "SITE/plat.so",
            "SITE/pure.py",
            "VENV/share/man/p.1",
        ]
    );
    let at = |path: &str| &found[&path.replace("SITE", SITE).replace("VENV", "opt/mlflow")];
    let text = |path: &str| String::from_utf8(at(path).content.clone()).unwrap();
    assert_eq!(text("VENV/bin/run"), "#!/opt/mlflow/bin/python -u\nprint()\n");
    assert_eq!(text("VENV/bin/runw"), "#!/opt/mlflow/bin/python\nprint()\n");
    assert_eq!(text("VENV/bin/shell"), "#!/bin/sh\n");
    assert!(text("VENV/bin/p").starts_with("#!/opt/mlflow/bin/python\n"));
    for (path, mode) in [
        ("VENV/bin/p", 0o755),
        ("VENV/bin/shell", 0o755),
        ("SITE/p/tool", 0o755),
        ("SITE/p/__init__.py", 0o644),
        ("SITE/p_q-1.dist-info/RECORD", 0o644),
    ] {
        assert_eq!(at(path).mode, mode, "{path}");
    }
    // RECORD lists exactly what is there, with its hashes.
    let record = text("SITE/p_q-1.dist-info/RECORD");
    assert_eq!(record.lines().count(), found.len());
    for line in record.lines() {
        let (path, rest) = line.split_once(',').unwrap();
        let path = path.strip_prefix("../../../").map_or_else(|| format!("SITE/{path}"), |path| format!("VENV/{path}"));
        if path.ends_with("/RECORD") {
            assert_eq!(rest, ",");
            continue;
        }
        use base64::Engine as _;
        let hash = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(Digest::of(&at(&path).content).bytes());
        assert_eq!(rest, format!("sha256={hash},{}", at(&path).content.len()), "{path}");
    }
}

#[test]
fn every_form_of_entry_gives_the_same_layer() {
    let content =
        |n: usize| (0..n).flat_map(|n| (n as u32).wrapping_mul(2_654_435_761).to_le_bytes()).collect::<Vec<u8>>();
    let long = format!("p/{}", ["d".repeat(200), "e".repeat(200), "f.py".to_owned()].join("/"));
    let files = |change: fn(&mut Entry)| {
        [
            Entry::new("p/empty.py", ""),
            Entry::new("p/small.py", "x = 1\n"),
            Entry::new("p/large.bin", content(50_000)),
            Entry::new("p/huge.bin", content(400_000)),
            Entry::new("p/ünï/日本.py", "y = 2\n"),
            Entry::new(&long, "z = 3\n"),
        ]
        .map(|entry| entry.with(change))
    };
    let layer = |change: fn(&mut Entry), format| {
        let wheel = MadeWheel::new("p", files(change));
        build_made(&[wheel], Options { format, ..Options::default() }).unwrap()
    };
    let (info, blob) = layer(|_| {}, Format::Splice);
    assert_eq!((info.digest, info.size), (Digest::of(&blob), blob.len() as u64));
    let found = read(&blob);
    for entry in files(|_| {}) {
        let path = format!("{SITE}/{}", String::from_utf8(entry.name).unwrap());
        assert!(found[&path].content == entry.content, "{path}");
    }
    for (what, change) in [
        ("stored", (|entry| entry.method = 0) as fn(&mut Entry)),
        ("descriptor", |entry| entry.descriptor = Some(Descriptor::Signed)),
        ("descriptor without signature", |entry| entry.descriptor = Some(Descriptor::Unsigned)),
        ("no mode", |entry| entry.mode = 0),
    ] {
        assert_eq!(layer(change, Format::Splice).0.diff_id, info.diff_id, "{what}");
    }
    for format in [Format::Gzip, Format::Zstd] {
        let (other, blob) = layer(|_| {}, format);
        assert_eq!(other.diff_id, info.diff_id, "{format}");
        let tar = match format {
            Format::Zstd => zstd::decode_all(blob.as_slice()).unwrap(),
            _ => {
                let mut tar = Vec::new();
                // One member: what readers that stop after the first need.
                std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(blob.as_slice()), &mut tar).unwrap();
                tar
            }
        };
        assert_eq!(Digest::of(tar), info.diff_id, "{format}");
    }
}

#[test]
fn identical_files_of_several_wheels_are_stored_once() {
    let shared = || Entry::new("shared/__init__.py", "same = 1\n");
    let one = MadeWheel::new("one", [shared()]);
    let two = MadeWheel::new("two", [shared().with(|entry| entry.mode = 0o100_755), Entry::new("shared/two.py", "")]);
    let found = read(&build_made(&[one, two], Options::default()).unwrap().1);
    assert_eq!(found.keys().filter(|path| path.ends_with("shared/__init__.py")).count(), 1);
    assert_eq!(found[&format!("{SITE}/shared/__init__.py")].mode, 0o755);
    for name in ["one", "two"] {
        let record = &found[&format!("{SITE}/{name}-1.dist-info/RECORD")].content;
        assert!(String::from_utf8_lossy(record).contains("shared/__init__.py,"), "{name}");
    }
}

/// Compiles to the source in capitals; `broken.py` does not compile. Remembers what was asked.
#[derive(Default)]
struct Capitals(Mutex<Vec<Vec<String>>>);

impl Compiler for Capitals {
    fn identity(&self) -> &str {
        "capitals"
    }

    fn compile(&self, _: &Digest, sources: &[PythonSource<'_>]) -> Result<Vec<Option<Pyc>>> {
        self.0.lock().unwrap().push(sources.iter().map(|source| source.path.to_owned()).collect());
        let compile = |source: &PythonSource<'_>| {
            (!source.path.ends_with("broken.py")).then(|| source.content.to_ascii_uppercase())
        };
        Ok(sources.iter().map(compile).collect())
    }
}

#[test]
fn excluded_files_have_neither_source_nor_bytecode_nor_a_line_in_record() {
    let entries = ["p/a.py", "p/b/broken.py", "p/b/c.py", "p/tests/t.py", "p-1.data/scripts/s.py"];
    let wheel = MadeWheel::new("p", entries.map(|name| Entry::new(name, name)));
    let compiler = Capitals::default();
    let options = Options { exclude: "p/tests\n", compiler: Some(&compiler), ..Options::default() };
    let listed = paths(std::slice::from_ref(&wheel), options);
    let info = ["METADATA", "RECORD", "WHEEL"].map(|name| format!("SITE/p-1.dist-info/{name}"));
    let mut expected: Vec<String> = [
        "VENV/bin/s.py",
        "SITE/p/__pycache__/a.cpython-313.pyc",
        "SITE/p/a.py",
        "SITE/p/b/__pycache__/c.cpython-313.pyc",
        "SITE/p/b/broken.py",
        "SITE/p/b/c.py",
    ]
    .map(str::to_owned)
    .to_vec();
    expected.extend(info);
    expected.sort_by_key(|path| path.replace("SITE", SITE).replace("VENV", "opt/mlflow"));
    assert_eq!(listed, expected);
    let asked = compiler.0.lock().unwrap().clone();
    assert_eq!(asked, [["p/a.py", "p/b/broken.py", "p/b/c.py"].map(|path| format!("{SITE}/{path}")).to_vec()]);
    let found = read(&build_made(&[wheel], options).unwrap().1);
    assert_eq!(found[&format!("{SITE}/p/__pycache__/a.cpython-313.pyc")].content, b"P/A.PY");
    let record = String::from_utf8(found[&format!("{SITE}/p-1.dist-info/RECORD")].content.clone()).unwrap();
    assert!(!record.contains("tests") && record.contains("p/b/c.py"), "{record}");
}
