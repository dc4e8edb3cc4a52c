//! Locks -> the list of layers, without touching a single package file.

use std::collections::BTreeMap;
use std::fmt;
use std::fmt::Write as _;
use std::str::FromStr;

use crate::lock::{DebPackage, ImageLock, LayerInfo, LayerKind, Wheel};
use crate::{Digest, Error, Platform, Result};

/// Raised when the bytes of any layer change for the same inputs; part of every layer's key.
pub const LAYOUT: u32 = 2;

/// A wheel of at least this many bytes has a layer of its own.
const LARGE: u64 = 1_000_000;

/// The small wheels without machine code share this many layers, which both platforms have in
/// common. So many, because one changed wheel pushes its whole bucket again: about 1 MB.
const PURE_BUCKETS: u8 = 16;

/// The small wheels with machine code share this many.
const NATIVE_BUCKETS: u8 = 8;

/// Distributions that are released together and ship the same files: one layer, so that a file is
/// stored once. Named after the first.
const FAMILIES: [&[&str]; 1] = [&["mlflow", "mlflow-skinny", "mlflow-tracing"]];

/// containerd's overlayfs snapshotter refuses more.
const MOST_LAYERS: usize = 127;

/// How layers are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// Gzip whose members are the wheels' own deflate streams (RFC 1952, section 2.2).
    #[default]
    Splice,
    /// One ordinary gzip member, libdeflate level 6.
    Gzip,
    /// Zstandard, level 3.
    Zstd,
}

impl Format {
    /// All formats, in the order in which help texts list them.
    pub const ALL: [Self; 3] = [Self::Splice, Self::Gzip, Self::Zstd];

    /// The name on the command line and in layer keys.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Splice => "splice",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        }
    }

    /// The media type of such a layer (image-spec, layer.md).
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::Splice | Self::Gzip => "application/vnd.oci.image.layer.v1.tar+gzip",
            Self::Zstd => "application/vnd.oci.image.layer.v1.tar+zstd",
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Format {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::ALL
            .into_iter()
            .find(|format| format.name() == text)
            .ok_or_else(|| Error::refused(format_args!("layer format {text:?}"), "not one of splice, gzip, zstd"))
    }
}

/// What a layer is made from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Debian packages, flattened.
    Debs(Vec<DebPackage>),
    /// Wheels, installed into the virtual environment.
    Wheels(Vec<Wheel>),
    /// Our own files.
    Own(Vec<OwnFile>),
}

/// A file of ours, by its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnFile {
    /// The path in the image, without a leading slash.
    pub path: String,
    /// Whether it is executable (mode 0755, else 0644).
    pub executable: bool,
    /// Its content.
    pub content: Vec<u8>,
}

/// One layer to be: what goes in, and what comes out where that is known already.
#[derive(Clone, Debug)]
pub struct LayerPlan {
    /// For people: `base`, a wheel's name, `pure-3`, `own`.
    pub name: String,
    /// What it is made of.
    pub kind: LayerKind,
    /// The platform.
    pub platform: Platform,
    /// What goes in.
    pub source: Source,
    /// Digest over all that the bytes depend on.
    pub key: Digest,
    /// The result, where the image lock foretells it.
    pub known: Option<LayerInfo>,
}

impl LayerPlan {
    /// The digests and sizes of the files that building it reads.
    pub fn inputs(&self) -> Vec<(Digest, u64)> {
        match &self.source {
            Source::Debs(debs) => debs.iter().map(|deb| (deb.sha256, deb.size)).collect(),
            Source::Wheels(wheels) => wheels.iter().map(|wheel| (wheel.sha256, wheel.size)).collect(),
            Source::Own(_) => Vec::new(),
        }
    }
}

/// All that decides which layers an image of one platform has.
#[derive(Clone, Copy, Debug)]
pub struct PlanInputs<'a> {
    /// The platform.
    pub platform: Platform,
    /// The packages of the base layer.
    pub debs: &'a [DebPackage],
    /// The wheel of each requirement.
    pub wheels: &'a [Wheel],
    /// Our own files.
    pub own: &'a [OwnFile],
    /// [`crate::exclude::Exclude::digest`].
    pub exclude: Digest,
    /// [`crate::bytecode::Compiler::identity`]; `None` where no .pyc files are wanted.
    pub compiler: Option<&'a str>,
    /// How layers are compressed.
    pub format: Format,
    /// What is known about layers that were built before.
    pub locked: &'a ImageLock,
}

/// The layers of an image, lowest first: the base, large wheels by name, buckets of small wheels,
/// our own files. None is empty. Adding a package changes at most one layer and moves no other
/// package from one layer to another.
pub fn layers(inputs: &PlanInputs<'_>) -> Result<Vec<LayerPlan>> {
    let mut plans = Vec::new();
    if !inputs.debs.is_empty() {
        let mut debs = inputs.debs.to_vec();
        debs.sort_by(|a, b| a.name.cmp(&b.name));
        plans.push(plan(inputs, "base".to_owned(), LayerKind::Base, Source::Debs(debs)));
    }
    for (group, mut wheels) in grouped(inputs.wheels) {
        wheels.sort_by(|a, b| a.name.cmp(&b.name));
        if let Some(twice) = wheels.windows(2).find(|pair| pair[0].name == pair[1].name) {
            return Err(Error::refused(&twice[0].name, "two wheels of one distribution"));
        }
        let (name, kind) = match group {
            Group::Large(name) => (name, LayerKind::Wheel),
            Group::Native(number) => (format!("native-{number}"), LayerKind::Wheels),
            Group::Pure(number) => (format!("pure-{number}"), LayerKind::Wheels),
        };
        plans.push(plan(inputs, name, kind, Source::Wheels(wheels)));
    }
    if !inputs.own.is_empty() {
        let mut own = inputs.own.to_vec();
        own.sort_by(|a, b| a.path.cmp(&b.path));
        plans.push(plan(inputs, "own".to_owned(), LayerKind::Own, Source::Own(own)));
    }
    if plans.len() > MOST_LAYERS {
        let problem = format_args!("{} layers, but containerd runs at most {MOST_LAYERS}", plans.len());
        return Err(Error::refused("image", problem));
    }
    Ok(plans)
}

/// Sorts as layers do: large wheels by name, then the buckets.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Group {
    Large(String),
    Native(u8),
    Pure(u8),
}

fn grouped(wheels: &[Wheel]) -> BTreeMap<Group, Vec<Wheel>> {
    let mut groups: BTreeMap<Group, Vec<Wheel>> = BTreeMap::new();
    for wheel in wheels {
        let family = FAMILIES.iter().find(|family| family.contains(&wheel.name.as_str()));
        let group = match family {
            Some(family) => Group::Large(family[0].to_owned()),
            None if wheel.size >= LARGE => Group::Large(wheel.name.clone()),
            None if is_pure(wheel) => Group::Pure(bucket(&wheel.name, PURE_BUCKETS)),
            None => Group::Native(bucket(&wheel.name, NATIVE_BUCKETS)),
        };
        groups.entry(group).or_default().push(wheel.clone());
    }
    groups
}

/// Whether the same wheel serves every platform (PEP 425).
fn is_pure(wheel: &Wheel) -> bool {
    wheel.file.ends_with("-any.whl")
}

fn bucket(name: &str, buckets: u8) -> u8 {
    Digest::of(name).bytes()[0] % buckets
}

fn plan(inputs: &PlanInputs<'_>, name: String, kind: LayerKind, source: Source) -> LayerPlan {
    let key = key(inputs, &source);
    LayerPlan { name, kind, platform: inputs.platform, source, key, known: inputs.locked.layer(inputs.platform, &key) }
}

/// The digest of a text with one line for each thing that the layer's bytes depend on. A wheel's
/// layer does not depend on the platform except through the wheel itself, so that both platforms
/// share the layers of wheels without machine code.
fn key(inputs: &PlanInputs<'_>, source: &Source) -> Digest {
    let mut text = format!("layout {LAYOUT}\nformat {}\n", inputs.format);
    let compiler = inputs.compiler.unwrap_or("none");
    // Writing to a string does not fail.
    let _ = match source {
        Source::Debs(debs) => {
            let _ = writeln!(text, "base {}\ncompiler {compiler}", inputs.platform);
            debs.iter().try_for_each(|deb| writeln!(text, "deb {} {}", deb.name, deb.sha256))
        }
        Source::Wheels(wheels) => {
            let _ = writeln!(text, "wheels\ncompiler {compiler}\nexclude {}", inputs.exclude);
            wheels.iter().try_for_each(|wheel| writeln!(text, "wheel {} {}", wheel.name, wheel.sha256))
        }
        Source::Own(files) => {
            let _ = writeln!(text, "own");
            files.iter().try_for_each(|file| {
                writeln!(text, "file {:?} {} {}", file.path, file.executable, Digest::of(&file.content))
            })
        }
    };
    Digest::of(text)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::lock::LockedLayer;

    fn wheel(name: &str, size: u64) -> Wheel {
        let sha256 = Digest::of(format!("{name} {size}"));
        Wheel {
            name: name.to_owned(),
            version: "1".to_owned(),
            file: format!("{name}-1-py3-none-any.whl"),
            sha256,
            size,
        }
    }

    fn deb(name: &str) -> DebPackage {
        let path = format!("pool/{name}.deb");
        let archive = crate::lock::MAIN_ARCHIVE.to_owned();
        DebPackage { name: name.to_owned(), version: "1".to_owned(), sha256: Digest::of(name), size: 9, path, archive }
    }

    struct Case {
        platform: Platform,
        debs: Vec<DebPackage>,
        wheels: Vec<Wheel>,
        own: Vec<OwnFile>,
        exclude: &'static str,
        compiler: Option<&'static str>,
        format: Format,
        locked: ImageLock,
    }

    impl Default for Case {
        fn default() -> Self {
            Self {
                platform: Platform::LinuxAmd64,
                debs: vec![deb("libc6")],
                wheels: vec![wheel("numpy", 16_000_000), wheel("six", 11_000), wheel("mlflow", 9_000_000)],
                own: vec![OwnFile { path: "etc/x".to_owned(), executable: false, content: b"x".to_vec() }],
                exclude: "",
                compiler: Some("cpython"),
                format: Format::Splice,
                locked: ImageLock::default(),
            }
        }
    }

    impl Case {
        fn plan(&self) -> Result<Vec<LayerPlan>> {
            layers(&PlanInputs {
                platform: self.platform,
                debs: &self.debs,
                wheels: &self.wheels,
                own: &self.own,
                exclude: Digest::of(self.exclude),
                compiler: self.compiler,
                format: self.format,
                locked: &self.locked,
            })
        }

        fn keys(&self) -> BTreeMap<String, Digest> {
            self.plan().unwrap().into_iter().map(|plan| (plan.name, plan.key)).collect()
        }
    }

    #[test]
    fn layers_are_base_large_wheels_buckets_own() {
        let check = |wheels: &[(&str, u64)], expected: &[&str]| {
            let wheels = wheels.iter().map(|(name, size)| wheel(name, *size)).collect();
            let plans = Case { wheels, ..Case::default() }.plan().unwrap();
            let names: Vec<_> = plans.iter().map(|plan| plan.name.as_str()).collect();
            assert_eq!(names, expected);
        };
        check(&[], &["base", "own"]);
        check(&[("six", 999_999)], &["base", "pure-4", "own"]);
        check(&[("six", 1_000_000)], &["base", "six", "own"]);
        check(&[("zlib-ng", 2_000_000), ("numpy", 16_000_000)], &["base", "numpy", "zlib-ng", "own"]);
        check(&[("mlflow-skinny", 900), ("mlflow", 9_000_000)], &["base", "mlflow", "own"]);
        check(&[("mlflow-tracing", 900_000)], &["base", "mlflow", "own"]);
    }

    #[test]
    fn small_wheels_with_machine_code_have_buckets_of_their_own() {
        let cffi = Wheel { file: "cffi-1-cp313-cp313-manylinux_2_17_x86_64.whl".to_owned(), ..wheel("cffi", 9) };
        let plans = Case { wheels: vec![wheel("six", 9), cffi], ..Case::default() }.plan().unwrap();
        let names: Vec<_> = plans.iter().map(|plan| plan.name.as_str()).collect();
        assert_eq!(names, ["base", "native-3", "pure-4", "own"]);
    }

    #[test]
    fn empty_layers_do_not_exist() {
        let case = Case { debs: Vec::new(), wheels: Vec::new(), own: Vec::new(), ..Case::default() };
        assert!(case.plan().unwrap().is_empty());
    }

    #[test]
    fn a_distribution_cannot_be_there_twice() {
        let case = Case { wheels: vec![wheel("six", 1), wheel("six", 2)], ..Case::default() };
        assert!(case.plan().unwrap_err().to_string().contains("six: two wheels"));
    }

    #[test]
    fn too_many_layers_are_refused() {
        let wheels = (0..126).map(|n| wheel(&format!("w{n}"), LARGE)).collect();
        assert!(Case { wheels, ..Case::default() }.plan().unwrap_err().to_string().contains("128 layers"));
    }

    #[test]
    fn adding_a_package_touches_one_layer() {
        let names = ["six", "click", "flask", "jinja2", "certifi", "idna", "pytz", "rich", "mako", "alembic", "attrs"];
        let mut wheels: Vec<_> = names.iter().map(|name| wheel(name, 10_000)).collect();
        let before = Case { wheels: wheels.clone(), ..Case::default() }.keys();
        for (added, size, layer) in [("tzdata", 300_000, "pure-"), ("pandas", 12_000_000, "pandas")] {
            wheels.push(wheel(added, size));
            let after = Case { wheels: wheels.clone(), ..Case::default() }.keys();
            wheels.pop();
            let changed: BTreeSet<_> =
                after.iter().filter(|(name, key)| before.get(*name) != Some(key)).map(|(name, _)| name).collect();
            assert_eq!(changed.len(), 1, "{added}: {changed:?}");
            assert!(changed.iter().all(|name| name.starts_with(layer)), "{added}: {changed:?}");
        }
    }

    #[test]
    fn a_key_changes_with_what_the_bytes_depend_on_and_with_nothing_else() {
        let check = |what: &str, case: Case, expected: &[&str]| {
            let before = Case::default().keys();
            let changed: Vec<_> = case
                .keys()
                .into_iter()
                .filter(|(name, key)| before.get(name) != Some(key))
                .map(|(name, _)| name)
                .collect();
            assert_eq!(changed, expected, "{what}");
        };
        let default = Case::default;
        check("nothing", default(), &[]);
        check("platform", Case { platform: Platform::LinuxArm64, ..default() }, &["base"]);
        check("compiler", Case { compiler: Some("other"), ..default() }, &["base", "mlflow", "numpy", "pure-4"]);
        check("no compiler", Case { compiler: None, ..default() }, &["base", "mlflow", "numpy", "pure-4"]);
        check("exclude", Case { exclude: "numpy/tests", ..default() }, &["mlflow", "numpy", "pure-4"]);
        check("format", Case { format: Format::Zstd, ..default() }, &["base", "mlflow", "numpy", "own", "pure-4"]);
        check("a deb", Case { debs: vec![deb("libc7")], ..default() }, &["base"]);
        let mut wheels = default().wheels;
        wheels.reverse();
        check("the wheels' order", Case { wheels, ..default() }, &[]);
        let own = vec![OwnFile { path: "etc/x".to_owned(), executable: true, content: b"x".to_vec() }];
        check("a mode", Case { own, ..default() }, &["own"]);
    }

    #[test]
    fn the_lock_foretells_layers_by_key() {
        let mut case = Case::default();
        let info = LayerInfo { digest: Digest::of("blob"), diff_id: Digest::of("tar"), size: 7 };
        let numpy = case.plan().unwrap().into_iter().find(|plan| plan.name == "numpy").unwrap();
        let locked = LockedLayer { name: numpy.name, kind: numpy.kind, key: numpy.key, info };
        case.locked.layer.insert(case.platform, vec![locked]);
        let known: Vec<_> = case.plan().unwrap().into_iter().filter(|plan| plan.known.is_some()).collect();
        assert_eq!(
            known.iter().map(|plan| (plan.name.as_str(), plan.known)).collect::<Vec<_>>(),
            [("numpy", Some(info))]
        );
    }
}
