//! A table of `deploy.toml` that is read key by key: each read notes the key and its origin, and
//! what nobody read is an unknown key.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

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

/// Where environment variables are looked up.
pub type Vars<'s> = &'s dyn Fn(&str) -> Option<String>;

/// A table that is being read.
pub struct Table<'v, 's> {
    path: String,
    /// What the variables that override its keys begin with.
    prefix: String,
    /// `None`: the file does not have it.
    values: Option<&'v toml::Table>,
    vars: Vars<'s>,
    known: Vec<String>,
    settings: &'s mut Vec<Setting>,
}

impl<'v, 's> Table<'v, 's> {
    /// `path` is the dotted key of the table, empty for the file itself; `prefix` is what the
    /// variables that override its keys begin with.
    pub fn new(
        path: &str,
        prefix: &str,
        values: &'v toml::Table,
        vars: Vars<'s>,
        settings: &'s mut Vec<Setting>,
    ) -> Self {
        let (path, prefix) = (path.to_owned(), prefix.to_owned());
        Self { path, prefix, values: Some(values), vars, known: Vec::new(), settings }
    }

    /// A table inside this one as it is, without reading it.
    pub fn raw(&mut self, key: &str) -> Result<Option<&'v toml::Table>> {
        self.known.push(key.to_owned());
        match self.get(key) {
            None => Ok(None),
            Some(toml::Value::Table(table)) => Ok(Some(table)),
            Some(other) => Err(self.wrong(key, "a table", other)),
        }
    }

    /// A table inside this one. Its variables carry its name.
    pub fn nested(&mut self, key: &str) -> Result<Table<'v, '_>> {
        let values = self.raw(key)?;
        let prefix = format!("{}{}_", self.prefix, upper(key));
        Ok(Table {
            path: self.dotted(key),
            prefix,
            values,
            vars: self.vars,
            known: Vec::new(),
            settings: self.settings,
        })
    }

    /// A text.
    pub fn string(&mut self, key: &str, default: Option<String>) -> Result<Option<String>> {
        if let Some((name, value)) = self.variable(key) {
            self.note(key, Some(value.clone()), Origin::Variable(name));
            return Ok(Some(value));
        }
        match self.get(key) {
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
    pub fn integer<T: TryFrom<i64> + ToString>(&mut self, key: &str, default: Option<T>) -> Result<Option<T>> {
        let (number, origin) = match (self.variable(key), self.get(key)) {
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
    pub fn strings(&mut self, key: &str, default: &[&str]) -> Result<Vec<String>> {
        let (list, origin) = match (self.variable(key), self.get(key)) {
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
        self.note(key, Some(list.join(", ")).filter(|text| !text.is_empty()), origin);
        Ok(list)
    }

    /// Yes or no.
    pub fn boolean(&mut self, key: &str, default: bool) -> Result<bool> {
        let (value, origin) = match (self.variable(key), self.get(key)) {
            (Some((name, value)), _) => match value.as_str() {
                "true" | "1" => (true, Origin::Variable(name)),
                "false" | "0" => (false, Origin::Variable(name)),
                _ => return Err(Error::new(Kind::Config, format!("{name}={value} is neither true nor false"))),
            },
            (None, Some(toml::Value::Boolean(value))) => (*value, Origin::File),
            (None, Some(other)) => return Err(self.wrong(key, "true or false", other)),
            (None, None) => (default, Origin::Default),
        };
        self.note(key, Some(value.to_string()), origin);
        Ok(value)
    }

    /// A time in whole seconds, within `range`.
    pub fn seconds(&mut self, key: &str, default: u32, range: std::ops::RangeInclusive<u32>) -> Result<Duration> {
        let seconds = self.integer::<u32>(key, Some(default))?.unwrap_or(default);
        if !range.contains(&seconds) {
            let message = format!("{}: {seconds} seconds are out of range", self.dotted(key));
            return Err(Error::new(Kind::Config, message).hint(format!(
                "use {} to {} seconds",
                range.start(),
                range.end()
            )));
        }
        Ok(Duration::from_secs(seconds.into()))
    }

    /// A table of texts whose keys are free. Numbers and booleans count as their text.
    pub fn texts(&mut self, key: &str) -> Result<BTreeMap<String, String>> {
        let Some(table) = self.raw(key)? else { return Ok(BTreeMap::new()) };
        let mut texts = BTreeMap::new();
        for (name, value) in table {
            let full = format!("{key}.{name}");
            let text = match value {
                toml::Value::String(text) => text.clone(),
                toml::Value::Integer(number) => number.to_string(),
                toml::Value::Boolean(value) => value.to_string(),
                other => return Err(self.wrong(&full, "a string", other)),
            };
            self.note(&full, Some(text.clone()), Origin::File);
            texts.insert(name.clone(), text);
        }
        Ok(texts)
    }

    /// Refuses keys that nobody read, naming the nearest one that exists.
    pub fn finish(self) -> Result<()> {
        match self.values.iter().flat_map(|values| values.keys()).find(|key| !self.known.contains(key)) {
            None => Ok(()),
            Some(key) => Err(Error::new(Kind::Config, format!("{FILE}: unknown key {}", self.dotted(key)))
                .hint(did_you_mean(key, &self.known))),
        }
    }

    /// The key in full, as it is named in messages.
    pub fn dotted(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// An error about the value of `key`.
    pub fn refuse(&self, key: &str, why: impl fmt::Display) -> Error {
        Error::new(Kind::Config, format!("{}: {why}", self.dotted(key)))
    }

    fn get(&self, key: &str) -> Option<&'v toml::Value> {
        self.values.and_then(|values| values.get(key))
    }

    fn variable(&mut self, key: &str) -> Option<(String, String)> {
        self.known.push(key.to_owned());
        let name = format!("{}{}", self.prefix, upper(key));
        (self.vars)(&name).filter(|value| !value.is_empty()).map(|value| (name, value))
    }

    fn note(&mut self, key: &str, value: Option<String>, origin: Origin) {
        let key = self.dotted(key);
        self.settings.push(Setting { key, value, origin });
    }

    fn wrong(&self, key: &str, expected: &str, found: &toml::Value) -> Error {
        Error::new(
            Kind::Config,
            format!("{FILE}: {} is {} where {expected} belongs", self.dotted(key), found.type_str()),
        )
    }
}

fn upper(key: &str) -> String {
    key.to_uppercase().replace('-', "_")
}

/// A hint with the nearest name, or all of them.
pub fn did_you_mean<S: AsRef<str>>(wrong: &str, known: &[S]) -> String {
    let known: Vec<&str> = known.iter().map(AsRef::as_ref).collect();
    let nearest = known.iter().map(|name| (strsim::damerau_levenshtein(wrong, name), name)).min();
    match nearest {
        Some((distance, name)) if distance <= 2.max(wrong.len() / 3) => format!("did you mean {name:?}?"),
        _ => format!("known: {}", known.join(", ")),
    }
}
