//! A call of gcloud as data.

/// The words of one call, without those that every call gets.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Call {
    words: Vec<String>,
    file: Option<(&'static str, String)>,
    has_secret: bool,
}

impl Call {
    /// From words with spaces between them: `sql instances describe`.
    pub fn new(words: &str) -> Self {
        Self { words: words.split_whitespace().map(str::to_owned).collect(), ..Self::default() }
    }

    /// Adds one word, or a flag as it is written.
    pub fn arg(mut self, word: impl Into<String>) -> Self {
        self.words.push(word.into());
        self
    }

    /// Adds words.
    pub fn args<I: IntoIterator<Item = S>, S: Into<String>>(mut self, words: I) -> Self {
        self.words.extend(words.into_iter().map(Into::into));
        self
    }

    /// Adds `--name=value`.
    pub fn flag(self, name: &str, value: impl std::fmt::Display) -> Self {
        self.arg(format!("--{name}={value}"))
    }

    /// Adds the flag where it is wanted.
    pub fn when(self, wanted: bool, flag: &str) -> Self {
        if wanted { self.arg(flag) } else { self }
    }

    /// Adds `--name=FILE`, with a file of this text.
    pub fn file(mut self, name: &'static str, text: impl Into<String>) -> Self {
        self.file = Some((name, text.into()));
        self
    }

    /// The password comes by stdin, as a file of flags.
    pub fn secret(mut self) -> Self {
        self.has_secret = true;
        self
    }

    /// The words alone.
    pub fn words(&self) -> &[String] {
        &self.words
    }

    /// The flag that is given a file, and the file's text.
    pub fn attachment(&self) -> Option<(&'static str, &str)> {
        self.file.as_ref().map(|(name, text)| (*name, text.as_str()))
    }

    /// Whether the password comes by stdin.
    pub fn has_secret(&self) -> bool {
        self.has_secret
    }

    /// What of Google's it is about: `sql`, `storage`.
    pub fn area(&self) -> &str {
        self.words.iter().find(|word| !["alpha", "beta"].contains(&word.as_str())).map_or("", String::as_str)
    }
}

impl std::fmt::Display for Call {
    /// As people would type it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("gcloud")?;
        for word in &self.words {
            let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@,+".contains(c);
            match word.chars().all(is_plain) {
                true => write!(f, " {word}")?,
                false => write!(f, " '{}'", word.replace('\'', r"'\''"))?,
            }
        }
        if let Some((name, _)) = self.file {
            write!(f, " --{name}={name}.json")?;
        }
        if self.has_secret {
            f.write_str(" --flags-file=/dev/stdin")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_written_as_people_type_it() {
        for (call, expected, area) in [
            (Call::new("sql instances describe").arg("a"), "gcloud sql instances describe a", "sql"),
            (Call::new("beta sql x").flag("a", 1).when(false, "--b"), "gcloud beta sql x --a=1", "sql"),
            (Call::new("iam x").flag("c", "a == 'b'"), r"gcloud iam x '--c=a == '\''b'\'''", "iam"),
            (
                Call::new("storage x").file("lifecycle-file", "{}"),
                "gcloud storage x --lifecycle-file=lifecycle-file.json",
                "storage",
            ),
            (Call::new("sql users create").secret(), "gcloud sql users create --flags-file=/dev/stdin", "sql"),
        ] {
            assert_eq!((call.to_string().as_str(), call.area()), (expected, area));
        }
    }
}
