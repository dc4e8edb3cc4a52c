//! A table of `deploy.toml` that is read key by key: each read notes the key and its origin, and
//! what nobody read is an unknown key.

use std::fmt;

use crate::error::{Error, Kind, Result};

use super::FILE;

/// One resolved setting.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Setting {
    /// The dotted key in `deploy.toml`.
    pub key: String,
    /// The value; `None` where the default is to have none.
    pub value: Option<String>,
    /// Where it came from.
    pub origin: Origin,
}

/// Where a setting came from.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// Built in.
    Default,
    /// `deploy.toml`.
    File,
    /// An environment variable.
    Variable(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File => f.write_str(FILE),
            Self::Variable(name) => f.write_str(name),
        }
    }
}

/// A table that is being read.
pub struct Table<'v, 's> {
    path: String,
    values: &'v toml::Table,
    vars: &'s dyn Fn(&str) -> Option<String>,
    known: Vec<&'static str>,
    settings: &'s mut Vec<Setting>,
}

impl<'v, 's> Table<'v, 's> {
    /// `path` is the dotted key of the table, empty for the file itself.
    pub fn new(
        path: &str,
        values: &'v toml::Table,
        vars: &'s dyn Fn(&str) -> Option<String>,
        settings: &'s mut Vec<Setting>,
    ) -> Self {
        Self { path: path.to_owned(), values, vars, known: Vec::new(), settings }
    }

    /// A table inside this one.
    pub fn table(&mut self, key: &str, empty: &'v toml::Table) -> Result<&'v toml::Table> {
        if let Some(known) = ["image", "environment"].into_iter().find(|known| *known == key) {
            self.known.push(known);
        }
        match self.values.get(key) {
            None => Ok(empty),
            Some(toml::Value::Table(table)) => Ok(table),
            Some(other) => Err(self.wrong(key, "a table", other)),
        }
    }

    /// A text.
    pub fn string(&mut self, key: &'static str, default: Option<String>) -> Result<Option<String>> {
        if let Some((name, value)) = self.variable(key) {
            self.note(key, Some(value.clone()), Origin::Variable(name));
            return Ok(Some(value));
        }
        match self.values.get(key) {
            None => {
                self.note(key, default.clone(), Origin::Default);
                Ok(default)
            }
            Some(toml::Value::String(text)) => {
                self.note(key, Some(text.clone()), Origin::File);
                Ok(Some(text.clone()))
            }
            Some(other) => Err(self.wrong(key, "a string", other)),
        }
    }

    /// A number in the range of `T`.
    pub fn integer<T: TryFrom<i64> + ToString>(&mut self, key: &'static str, default: Option<T>) -> Result<Option<T>> {
        let (number, origin) = match (self.variable(key), self.values.get(key)) {
            (Some((name, value)), _) => {
                let number = value.parse::<i64>().map_err(|error| {
                    Error::new(Kind::Config, format!("{name}={value} is not a number")).source(error)
                })?;
                (number, Origin::Variable(name))
            }
            (None, Some(toml::Value::Integer(number))) => (*number, Origin::File),
            (None, Some(other)) => return Err(self.wrong(key, "a number", other)),
            (None, None) => {
                self.note(key, default.as_ref().map(ToString::to_string), Origin::Default);
                return Ok(default);
            }
        };
        let value = T::try_from(number).map_err(|_| {
            Error::new(Kind::Config, format!("{origin}: {}: {number} is out of range", self.dotted(key)))
        })?;
        self.note(key, Some(value.to_string()), origin);
        Ok(Some(value))
    }

    /// A list of texts; as a variable, separated by commas.
    pub fn strings(&mut self, key: &'static str, default: &[&str]) -> Result<Vec<String>> {
        let (list, origin) = match (self.variable(key), self.values.get(key)) {
            (Some((name, value)), _) => {
                (value.split(',').map(|text| text.trim().to_owned()).collect::<Vec<_>>(), Origin::Variable(name))
            }
            (None, Some(value)) => {
                let texts = value.as_array().and_then(|array| {
                    array.iter().map(|item| item.as_str().map(str::to_owned)).collect::<Option<Vec<_>>>()
                });
                (texts.ok_or_else(|| self.wrong(key, "a list of strings", value))?, Origin::File)
            }
            (None, None) => (default.iter().map(|text| (*text).to_owned()).collect(), Origin::Default),
        };
        self.note(key, Some(list.join(", ")), origin);
        Ok(list)
    }

    /// Refuses keys that nobody read, naming the nearest one that exists.
    pub fn finish(self) -> Result<()> {
        match self.values.keys().find(|key| !self.known.contains(&key.as_str())) {
            None => Ok(()),
            Some(key) => Err(Error::new(Kind::Config, format!("{FILE}: unknown key {}", self.dotted(key)))
                .hint(did_you_mean(key, &self.known))),
        }
    }

    fn variable(&mut self, key: &'static str) -> Option<(String, String)> {
        self.known.push(key);
        let prefix = if self.path == "image" { "XTASK_IMAGE_" } else { "XTASK_" };
        let name = format!("{prefix}{}", key.to_uppercase().replace('-', "_"));
        (self.vars)(&name).filter(|value| !value.is_empty()).map(|value| (name, value))
    }

    fn note(&mut self, key: &str, value: Option<String>, origin: Origin) {
        let key = self.dotted(key);
        self.settings.push(Setting { key, value, origin });
    }

    fn dotted(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    fn wrong(&self, key: &str, expected: &str, found: &toml::Value) -> Error {
        Error::new(
            Kind::Config,
            format!("{FILE}: {} is {} where {expected} belongs", self.dotted(key), found.type_str()),
        )
    }
}

/// A hint with the nearest name, or all of them.
pub fn did_you_mean(wrong: &str, known: &[&str]) -> String {
    let nearest = known.iter().map(|name| (strsim::damerau_levenshtein(wrong, name), name)).min();
    match nearest {
        Some((distance, name)) if distance <= 2.max(wrong.len() / 3) => format!("did you mean {name:?}?"),
        _ => format!("known: {}", known.join(", ")),
    }
}
