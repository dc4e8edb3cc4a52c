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
    /// What `infra` has made and noted.
    Infra,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File => f.write_str(FILE),
            Self::Variable(name) => f.write_str(name),
            Self::Infra => f.write_str("infra's outputs"),
        }
    }
}

/// Where environment variables are looked up.
pub type Vars<'s> = &'s dyn Fn(&str) -> Option<String>;

/// Looks at a text and answers with what is wrong with it.
pub type Check = fn(&str) -> Result<(), String>;

/// A table that is being read.
pub struct Table<'v, 's> {
    path: String,
    /// What the variables that override its keys begin with.
    prefix: String,
    /// `None`: the file does not have it.
    values: Option<&'v toml::Table>,
    vars: Vars<'s>,
    /// What `infra` has noted, by the key below the environment; stands where nobody says otherwise.
    made: Option<&'s Made>,
    /// The keys of the tables around this one, as [`Made`] has them.
    below: String,
    known: Vec<String>,
    settings: &'s mut Vec<Setting>,
}

/// Settings that follow from what `infra` has made: `artifacts.uri` and its value.
pub type Made = BTreeMap<&'static str, String>;

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
        let (made, below) = (None, String::new());
        Self { path, prefix, values: Some(values), vars, made, below, known: Vec::new(), settings }
    }

    /// Lets what `infra` has made stand where nobody says otherwise. `below` is what the names of this
    /// table's keys begin with there.
    pub fn with_made(mut self, made: Option<&'s Made>, below: &str) -> Self {
        (self.made, self.below) = (made, below.to_owned());
        self
    }

    /// Whether the file or a variable says something about one of `keys`.
    pub fn says(&self, keys: &[&str]) -> bool {
        let variable = |key: &&str| (self.vars)(&format!("{}{}", self.prefix, upper(key)));
        keys.iter().any(|key| self.get(key).is_some() || variable(key).is_some_and(|value| !value.is_empty()))
    }

    /// Whether `infra` has made what `key` names.
    pub fn has_made(&self, key: &str) -> bool {
        self.made(key).is_some()
    }

    /// Reads on without what `infra` has made.
    pub fn forget_made(&mut self) {
        self.made = None;
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
            made: self.made,
            below: format!("{}{key}.", self.below),
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
                let made = self.made(key);
                let origin = if made.is_some() { Origin::Infra } else { Origin::Default };
                let value = made.or(default);
                self.note(key, value.clone(), origin);
                Ok(value)
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
            (None, None) => match self.made(key).and_then(|made| made.parse().ok()) {
                Some(made) => (made, Origin::Infra),
                None => {
                    self.note(key, default.as_ref().map(ToString::to_string), Origin::Default);
                    return Ok(default);
                }
            },
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
            (None, None) => match self.made(key) {
                Some(made) => (made == "true", Origin::Infra),
                None => (default, Origin::Default),
            },
        };
        self.note(key, Some(value.to_string()), origin);
        Ok(value)
    }

    /// A text that must be there; `what` says what it is.
    pub fn required(&mut self, key: &str, what: &str) -> Result<String> {
        let value = self.string(key, None)?.filter(|value| !value.is_empty());
        value.ok_or_else(|| self.refuse(key, "it is missing").hint(format!("set it: {what}")))
    }

    /// A text that may be there, and must look right then.
    pub fn optional(&mut self, key: &str, check: Check) -> Result<Option<String>> {
        let value = self.string(key, None)?;
        match value.as_deref().map(check) {
            Some(Err(why)) => Err(self.refuse(key, why)),
            _ => Ok(value),
        }
    }

    /// A text that must look right.
    pub fn checked(&mut self, key: &str, default: &str, check: Check) -> Result<String> {
        let value = self.string(key, Some(default.to_owned()))?.unwrap_or_default();
        check(&value).map(|()| value).map_err(|why| self.refuse(key, why))
    }

    /// One of several words.
    pub fn choice<T: Copy>(&mut self, key: &str, words: &[(&str, T)], default: &str) -> Result<T> {
        let text = self.string(key, Some(default.to_owned()))?.unwrap_or_default();
        let found = words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
        found.ok_or_else(|| {
            let words: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            self.refuse(key, format!("{text:?} is unknown")).hint(did_you_mean(&text, &words))
        })
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

    fn made(&self, key: &str) -> Option<String> {
        self.made?.get(format!("{}{key}", self.below).as_str()).cloned()
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
