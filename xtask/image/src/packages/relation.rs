//! Dependencies between packages (Debian Policy, 7.1).

use std::cmp::Ordering;
use std::fmt;

use super::{Version, is_package_name};

/// One dependency: any of the alternatives satisfies it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relation<'a>(pub Vec<Alternative<'a>>);

/// A package's name, with a constraint on its version or without.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alternative<'a> {
    /// The package's name.
    pub name: &'a str,
    /// How its version must compare, and with which.
    pub constraint: Option<(&'a str, Version<'a>)>,
}

impl Alternative<'_> {
    /// Whether `version` satisfies the constraint. A package provided without a version (`None`)
    /// satisfies only dependencies without a constraint (Debian Policy, 7.5).
    pub fn allows(&self, version: Option<&Version<'_>>) -> bool {
        let Some((operator, wanted)) = &self.constraint else { return true };
        let Some(version) = version else { return false };
        let order = version.cmp(wanted);
        match *operator {
            "<<" => order == Ordering::Less,
            "<=" => order != Ordering::Greater,
            "=" => order == Ordering::Equal,
            ">=" => order != Ordering::Less,
            _ => order == Ordering::Greater,
        }
    }
}

impl fmt::Display for Alternative<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)?;
        match &self.constraint {
            Some((operator, version)) => write!(f, " ({operator} {version})"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Relation<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, alternative) in self.0.iter().enumerate() {
            write!(f, "{}{alternative}", if at == 0 { "" } else { " | " })?;
        }
        Ok(())
    }
}

/// Reads `a (>= 1), b | c:any`; the error says what is wrong.
pub fn parse_relations(text: &str) -> Result<Vec<Relation<'_>>, String> {
    let relations = text.split(',').map(str::trim).filter(|relation| !relation.is_empty());
    relations.map(|relation| relation.split('|').map(alternative).collect::<Result<_, _>>().map(Relation)).collect()
}

fn alternative(text: &str) -> Result<Alternative<'_>, String> {
    let text = text.trim();
    let wrong = || format!("dependency {text:?} is not understood");
    let (name, constraint) = match text.split_once('(') {
        None => (text, None),
        Some((name, constraint)) => {
            let constraint = constraint.strip_suffix(')').ok_or_else(wrong)?.trim();
            let operator = ["<<", "<=", "=", ">=", ">>"].into_iter().find(|operator| constraint.starts_with(operator));
            let operator = operator.ok_or_else(wrong)?;
            (name, Some((operator, Version::parse(constraint[operator.len()..].trim())?)))
        }
    };
    // `:any` says which architecture may satisfy it; ours always does.
    let name = name.trim();
    let name = name.split_once(':').map_or(name, |(name, _)| name);
    if is_package_name(name) { Ok(Alternative { name, constraint }) } else { Err(wrong()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Result<&[&str], ()>) {
        let found = parse_relations(text);
        let shown = found.as_ref().map(|list| list.iter().map(ToString::to_string).collect::<Vec<_>>());
        match (shown, expected) {
            (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{text:?}"),
            (Err(_), Err(())) => {}
            (found, expected) => panic!("{text:?}: {found:?}, expected {expected:?}"),
        }
    }

    #[test]
    fn dependencies_are_read() {
        check("", Ok(&[]));
        check("libc6 (>= 2.38), zlib1g", Ok(&["libc6 (>= 2.38)", "zlib1g"]));
        check("media-types | mime-support , netbase", Ok(&["media-types | mime-support", "netbase"]));
        check("python3:any (<<3.14~)", Ok(&["python3 (<< 3.14~)"]));
        check("debconf (>= 0.5) | debconf-2.0", Ok(&["debconf (>= 0.5) | debconf-2.0"]));
        check("a (>= 1", Err(()));
        check("aa (~ 1)", Err(()));
        check("aa (>= )", Err(()));
        check("aa | ", Err(()));
        check("../aa", Err(()));
    }

    #[test]
    fn constraints_compare_versions() {
        let rows = [
            ("aa", Some("1"), true),
            ("aa", None, true),
            ("aa (>= 1)", None, false),
            ("aa (>= 1.2)", Some("1.10"), true),
            ("aa (>= 1.2)", Some("1.2~rc1"), false),
            ("aa (= 1.2-1)", Some("1.2-1"), true),
            ("aa (<< 1.2)", Some("1.2"), false),
            ("aa (<= 1.2)", Some("1.2"), true),
            ("aa (>> 1.2)", Some("1.2"), false),
            ("aa (>> 1.2)", Some("1.2-1"), true),
        ];
        for (relation, version, expected) in rows {
            let version = version.map(|text| Version::parse(text).unwrap());
            let relations = parse_relations(relation).unwrap();
            assert_eq!(relations[0].0[0].allows(version.as_ref()), expected, "{relation} {version:?}");
        }
    }
}
