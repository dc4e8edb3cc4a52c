//! Whether what is pinned follows from what is asked for. Offline and without a resolver: each
//! lock records the digest of the inputs that it was resolved from.

use std::collections::BTreeSet;

use mlflow_image::Platform;
use mlflow_image::lock::{DebianLock, Header, ImageLock, Requirements};

use super::{DebianInputs, Inputs, Locks, PythonInputs, Set};

/// What is wrong, one sentence each; empty when the locks are up to date.
pub fn problems(inputs: &Inputs, locks: &Locks) -> Vec<String> {
    let mut problems = Vec::new();
    match &locks.requirements {
        None => problems.push("requirements.lock does not exist".to_owned()),
        Some((header, requirements)) => {
            problems.extend(python_problems(&inputs.python, header, requirements));
            match &locks.image {
                None => problems.push("image.lock does not exist".to_owned()),
                Some(image) => problems.extend(image_problems(requirements, image)),
            }
        }
    }
    match &locks.debian {
        None => problems.push("debian.lock does not exist".to_owned()),
        Some(lock) => problems.extend(debian_problems(&inputs.debian, lock)),
    }
    problems
}

fn python_problems(inputs: &PythonInputs, header: &Header, lock: &Requirements) -> Vec<String> {
    let set = match header.set.parse::<Set>() {
        Ok(set) => set,
        Err(error) => return vec![error.to_string()],
    };
    let mut problems = Vec::new();
    if inputs.digest(set) != header.inputs {
        let files = if set == Set::Server { "requirements.in or overrides.txt" } else { "requirements.in" };
        problems.push(format!("{files} changed since requirements.lock was written"));
    }
    let locked: BTreeSet<&str> = lock.0.iter().map(|one| one.name.as_str()).collect();
    let listed = inputs.names();
    for name in listed.iter().filter(|name| !locked.contains(name.as_str())) {
        problems.push(format!("requirements.in lists {name}, requirements.lock does not"));
    }
    if set == Set::Server {
        for name in inputs.dropped().iter().filter(|name| locked.contains(name.as_str()) && !listed.contains(name)) {
            problems.push(format!("overrides.txt drops {name}, requirements.lock lists it"));
        }
    }
    problems
}

fn debian_problems(inputs: &DebianInputs, lock: &DebianLock) -> Vec<String> {
    let mut problems = Vec::new();
    if inputs.digest != Some(lock.inputs) {
        problems.push("debian.in changed since debian.lock was written".to_owned());
    }
    for platform in Platform::ALL {
        let locked: BTreeSet<&str> =
            lock.package.get(&platform).into_iter().flatten().map(|package| package.name.as_str()).collect();
        let listed: BTreeSet<&str> = inputs.packages.iter().map(String::as_str).collect();
        for name in listed.difference(&locked) {
            problems.push(format!("debian.in lists {name}, debian.lock has none for {platform}"));
        }
        for name in locked.difference(&listed) {
            problems.push(format!("debian.lock has {name} for {platform}, debian.in does not list it"));
        }
    }
    problems
}

/// The wheels of image.lock are exactly those whose hashes requirements.lock holds.
fn image_problems(lock: &Requirements, image: &ImageLock) -> Vec<String> {
    let mut problems = Vec::new();
    let mut used = BTreeSet::new();
    for platform in Platform::ALL {
        let wheels = image.wheel.get(&platform).map_or(&[][..], Vec::as_slice);
        let pins = lock.0.iter().map(|one| (one.name.as_str(), one.version.as_str()));
        if !pins.eq(wheels.iter().map(|wheel| (wheel.name.as_str(), wheel.version.as_str()))) {
            problems.push(format!("image.lock's wheels for {platform} are not the pins of requirements.lock"));
            continue;
        }
        for (pin, wheel) in lock.0.iter().zip(wheels) {
            used.insert(wheel.sha256);
            if !pin.hashes.contains(&wheel.sha256) {
                problems.push(format!(
                    "image.lock's {} for {platform} has a hash that requirements.lock lacks",
                    wheel.file
                ));
            }
        }
    }
    if problems.is_empty() {
        let unused = lock.0.iter().filter(|pin| pin.hashes.iter().any(|hash| !used.contains(hash)));
        problems
            .extend(unused.map(|pin| format!("requirements.lock has a hash of {} that no platform uses", pin.name)));
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;
    use mlflow_image::Digest;
    use mlflow_image::lock::{DebPackage, Requirement, Wheel};

    const DEBIAN_IN: &str = "suite trixie\nlibc6\n";

    fn inputs() -> Inputs {
        let python = PythonInputs {
            requirements: "mlflow\n".to_owned(),
            overrides: "scipy ; python_version < '3'\n".to_owned(),
        };
        Inputs { python, debian: DebianInputs::parse(DEBIAN_IN).unwrap() }
    }

    fn locks() -> Locks {
        let requirement =
            |name: &str| Requirement { name: name.to_owned(), version: "1".to_owned(), hashes: vec![Digest::of(name)] };
        let wheel = |name: &str| Wheel {
            name: name.to_owned(),
            version: "1".to_owned(),
            file: format!("{name}-1-py3-none-any.whl"),
            sha256: Digest::of(name),
            size: 1,
        };
        let deb = DebPackage {
            name: "libc6".to_owned(),
            version: "2".to_owned(),
            sha256: Digest::of("libc6"),
            size: 1,
            path: "pool/x".to_owned(),
            archive: "debian".to_owned(),
        };
        let header = Header { set: "server".to_owned(), inputs: inputs().python.digest(Set::Server) };
        Locks {
            requirements: Some((header, Requirements(vec![requirement("mlflow"), requirement("six")]))),
            debian: Some(DebianLock {
                suite: "trixie".to_owned(),
                date: String::new(),
                inputs: Digest::of(DEBIAN_IN),
                package: Platform::ALL.map(|platform| (platform, vec![deb.clone()])).into(),
            }),
            image: Some(ImageLock {
                layout: 1,
                wheel: Platform::ALL.map(|platform| (platform, vec![wheel("mlflow"), wheel("six")])).into(),
                layer: Default::default(),
            }),
        }
    }

    fn check(change: impl FnOnce(&mut Inputs, &mut Locks), expected: &[&str]) {
        let (mut inputs, mut locks) = (inputs(), locks());
        change(&mut inputs, &mut locks);
        let found = problems(&inputs, &locks);
        assert_eq!(found.len(), expected.len(), "{found:?}");
        for (found, expected) in found.iter().zip(expected) {
            assert!(found.contains(expected), "{found:?} should contain {expected:?}");
        }
    }

    #[test]
    fn locks_that_follow_from_their_inputs_pass() {
        check(|_, _| {}, &[]);
        check(|inputs, _| inputs.python.requirements = "# why\n mlflow \n".to_owned(), &[]);
    }

    #[test]
    fn each_disagreement_is_named() {
        check(
            |_, locks| *locks = Locks::default(),
            &["requirements.lock does not exist", "debian.lock does not exist"],
        );
        check(|_, locks| locks.image = None, &["image.lock does not exist"]);
        check(|inputs, _| inputs.python.requirements = "mlflow>=3\n".to_owned(), &["requirements.in or overrides.txt"]);
        check(
            |inputs, _| inputs.python.requirements = "mlflow\nnumpy\n".to_owned(),
            &["changed since", "requirements.in lists numpy"],
        );
        check(
            |inputs, _| inputs.python.overrides = "six ; x".to_owned(),
            &["changed since", "overrides.txt drops six"],
        );
        check(
            |_, locks| locks.requirements.as_mut().unwrap().0.set = "tiny".to_owned(),
            &["set \"tiny\" is neither server nor full"],
        );
        check(
            |inputs, _| inputs.debian = DebianInputs::parse("suite trixie\nzlib1g").unwrap(),
            &["debian.in changed", "lists zlib1g", "has libc6", "lists zlib1g", "has libc6"],
        );
        check(
            |_, locks| drop(locks.image.as_mut().unwrap().wheel.remove(&Platform::LinuxArm64)),
            &["image.lock's wheels for linux/arm64 are not the pins"],
        );
        check(
            |_, locks| locks.requirements.as_mut().unwrap().1.0[1].hashes = vec![Digest::of("other")],
            &["six-1-py3-none-any.whl for linux/amd64", "six-1-py3-none-any.whl for linux/arm64"],
        );
        check(
            |_, locks| locks.requirements.as_mut().unwrap().1.0[1].hashes.push(Digest::of("other")),
            &["hash of six that no platform uses"],
        );
    }
}
