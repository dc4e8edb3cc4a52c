//! Which wheel of several fits best: compatibility tags in their order (PEP 425, PEP 600).

use mlflow_image::Platform;

/// The image's CPython.
const PYTHON_MINOR: u32 = 13;

/// The newest glibc (2.x) that wheels may ask for; Debian trixie has 2.41. Held at what the large
/// packages build for, so that the Dockerfile's base may be an older distribution.
const GLIBC_MINOR: u32 = 28;

/// The oldest glibc (2.x) that manylinux tags name, by CPU.
const fn oldest_glibc(platform: Platform) -> u32 {
    match platform {
        Platform::LinuxAmd64 => 5,
        Platform::LinuxArm64 => 17,
    }
}

/// The tags that the image's Python accepts, best first.
#[derive(Debug)]
pub struct Tags(Vec<String>);

impl Tags {
    /// As `packaging.tags.sys_tags()` orders them for CPython on glibc.
    pub fn of(platform: Platform) -> Self {
        let platforms = platform_tags(platform);
        let minors = || (0..=PYTHON_MINOR).rev();
        let mut tags = Vec::new();
        let mut add = |python: &str, abi: &str| {
            tags.extend(platforms.iter().map(|platform| format!("{python}-{abi}-{platform}")));
        };
        let own = format!("cp3{PYTHON_MINOR}");
        add(&own, &own);
        add(&own, "abi3");
        add(&own, "none");
        for minor in (2..PYTHON_MINOR).rev() {
            add(&format!("cp3{minor}"), "abi3");
        }
        let generic: Vec<String> = [format!("py3{PYTHON_MINOR}"), "py3".to_owned()]
            .into_iter()
            .chain(minors().skip(1).map(|minor| format!("py3{minor}")))
            .collect();
        for python in &generic {
            add(python, "none");
        }
        tags.push(format!("{own}-none-any"));
        tags.extend(generic.iter().map(|python| format!("{python}-none-any")));
        Self(tags)
    }

    /// How well a wheel's file name fits, smaller is better; `None`: not at all. Among wheels with
    /// the same tag the higher build number is better (PEP 427).
    pub fn rank(&self, file: &str) -> Option<(usize, std::cmp::Reverse<u64>)> {
        let parts: Vec<&str> = file.strip_suffix(".whl")?.split('-').collect();
        let (build, [python, abi, platform]) = match *parts.as_slice() {
            [_, _, python, abi, platform] => (0, [python, abi, platform]),
            [_, _, build, python, abi, platform] => {
                let digits = build.bytes().take_while(u8::is_ascii_digit).count();
                (build[..digits].parse().ok()?, [python, abi, platform])
            }
            _ => return None,
        };
        let at = self.0.iter().position(|tag| {
            let mut wanted = tag.splitn(3, '-');
            [python, abi, platform]
                .iter()
                .all(|set| wanted.next().is_some_and(|wanted| set.split('.').any(|tag| tag == wanted)))
        })?;
        Some((at, std::cmp::Reverse(build)))
    }
}

fn platform_tags(platform: Platform) -> Vec<String> {
    let cpu = platform.wheel_cpu();
    let mut tags = Vec::new();
    for minor in (oldest_glibc(platform)..=GLIBC_MINOR).rev() {
        tags.push(format!("manylinux_2_{minor}_{cpu}"));
        let legacy = match minor {
            17 => Some("manylinux2014"),
            12 => Some("manylinux2010"),
            5 => Some("manylinux1"),
            _ => None,
        };
        tags.extend(legacy.map(|legacy| format!("{legacy}_{cpu}")));
    }
    tags.push(format!("linux_{cpu}"));
    tags
}

/// What tells uv to resolve for the Python and the platform that [`Tags`] describes, from wheels.
pub fn uv_args(platform: Platform) -> Vec<String> {
    let platform = format!("{}-manylinux_2_{GLIBC_MINOR}", platform.wheel_cpu());
    let python = format!("3.{PYTHON_MINOR}");
    let args = ["--only-binary", ":all:", "--no-header", "--python-platform", &platform, "--python-version", &python];
    args.map(str::to_owned).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(platform: Platform, candidates: &[&str], expected: Option<&str>) {
        let tags = Tags::of(platform);
        let ranked = candidates.iter().filter_map(|file| Some((tags.rank(file)?, *file)));
        assert_eq!(ranked.min().map(|(_, file)| file), expected, "{candidates:?}");
    }

    #[test]
    fn the_most_specific_wheel_wins() {
        use Platform::{LinuxAmd64, LinuxArm64};
        let pure = "a-1-py3-none-any.whl";
        let native = "a-1-cp313-cp313-manylinux2014_x86_64.manylinux_2_17_x86_64.manylinux_2_28_x86_64.whl";
        check(LinuxAmd64, &[pure, native], Some(native));
        check(LinuxArm64, &[pure, native], Some(pure));
        let newer = "a-1-cp313-cp313-manylinux_2_28_x86_64.whl";
        let older = "a-1-cp313-cp313-manylinux_2_17_x86_64.whl";
        check(LinuxAmd64, &[older, newer], Some(newer));
        let abi3 = "a-1-cp39-abi3-manylinux_2_28_x86_64.whl";
        check(LinuxAmd64, &[abi3, older], Some(older));
        check(
            LinuxAmd64,
            &[abi3, "a-1-cp311-abi3-manylinux_2_28_x86_64.whl"],
            Some("a-1-cp311-abi3-manylinux_2_28_x86_64.whl"),
        );
        check(LinuxAmd64, &[abi3, "a-1-py3-none-manylinux_2_28_x86_64.whl"], Some(abi3));
        check(LinuxAmd64, &["a-1-py2.py3-none-any.whl"], Some("a-1-py2.py3-none-any.whl"));
        check(
            LinuxAmd64,
            &["a-1-py3-none-any.whl", "a-1-2b-py3-none-any.whl", "a-1-1-py3-none-any.whl"],
            Some("a-1-2b-py3-none-any.whl"),
        );
        check(LinuxAmd64, &["a-1-cp313-cp313-manylinux1_x86_64.whl"], Some("a-1-cp313-cp313-manylinux1_x86_64.whl"));
    }

    #[test]
    fn what_the_image_cannot_run_is_left_alone() {
        use Platform::{LinuxAmd64, LinuxArm64};
        for file in [
            "a-1-cp313-cp313t-manylinux_2_28_x86_64.whl",
            "a-1-cp312-cp312-manylinux_2_28_x86_64.whl",
            "a-1-cp314-abi3-manylinux_2_28_x86_64.whl",
            "a-1-cp313-cp313-manylinux_2_34_x86_64.whl",
            "a-1-cp313-cp313-musllinux_1_2_x86_64.whl",
            "a-1-cp313-cp313-macosx_11_0_arm64.whl",
            "a-1-cp313-cp313-win_amd64.whl",
            "a-1-py2-none-any.whl",
            "a-1.tar.gz",
            "a-1.whl",
            "a-1-x-py3-none-any.whl",
        ] {
            check(LinuxAmd64, &[file], None);
        }
        check(LinuxArm64, &["a-1-cp313-cp313-manylinux_2_12_aarch64.whl"], None);
    }
}
