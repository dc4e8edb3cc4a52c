//! YAML files of Kubernetes objects: several documents, each typed by its kind, no field unknown.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::error::{Context as _, Error, Kind, Result};

/// One object of a file.
#[derive(Clone, Debug)]
pub struct Document {
    /// The file, as it is named in messages.
    pub file: String,
    /// The document, moved to its own lines in the file, so that errors name the right ones.
    text: String,
    /// The document as JSON.
    pub value: Value,
}

/// The objects of a file. Documents that hold nothing but comments are left out.
///
/// # Errors
/// `Input`, naming the file and the line.
pub fn documents(file: &str, text: &str) -> Result<Vec<Document>> {
    let mut documents = Vec::new();
    for text in split(text) {
        let value: Value = read(file, &text)?;
        match value {
            Value::Null => {}
            Value::Object(_) => {
                if let Some(key) = ["apiVersion", "kind"].iter().find(|key| !value[**key].is_string()) {
                    return Err(Error::new(Kind::Input, format!("{file} holds an object without {key}")));
                }
                documents.push(Document { file: file.to_owned(), text, value });
            }
            _ => return Err(Error::new(Kind::Input, format!("{file} holds something that is not an object"))),
        }
    }
    Ok(documents)
}

impl Document {
    /// `kind`, or nothing.
    pub fn kind(&self) -> &str {
        self.value.get("kind").and_then(Value::as_str).unwrap_or_default()
    }

    /// `metadata.name`, or nothing.
    pub fn name(&self) -> &str {
        self.value.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default()
    }

    /// The object as its type.
    ///
    /// # Errors
    /// `Input` for a value of the wrong type and for a field that the type does not have.
    pub fn typed<T: DeserializeOwned + Serialize>(&self) -> Result<T> {
        let typed: T = read(&self.file, &self.text)?;
        let known = serde_json::to_value(&typed)
            .context(Kind::Internal, || format!("{}: the object cannot be written as JSON", self.file))?;
        match unknown(&self.value, &known, "") {
            None => Ok(typed),
            Some(path) => Err(Error::new(Kind::Input, format!("{}: {path} is no field of {}", self.file, self.kind()))
                .hint("take it out, or correct its name or its indentation")),
        }
    }
}

/// A marker at the start of a line always ends a document, in a block scalar too.
fn split(text: &str) -> Vec<String> {
    let mut documents = vec![String::new()];
    for (number, line) in text.split_inclusive('\n').enumerate() {
        match line.strip_prefix("---").filter(|rest| rest.is_empty() || rest.starts_with(char::is_whitespace)) {
            Some(rest) => documents.push("\n".repeat(number) + "   " + rest),
            None => documents.iter_mut().last().into_iter().for_each(|document| document.push_str(line)),
        }
    }
    documents
}

fn read<T: DeserializeOwned>(file: &str, text: &str) -> Result<T> {
    // As kube reads them: `on` is a text, and so is `012`.
    let options = serde_saphyr::options! { strict_booleans: true, leading_zero_numbers_as_strings: true };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        // Its excerpt would repeat the file's lines.
        let cause = error.without_snippet().to_string();
        Error::new(Kind::Input, format!("{file} cannot be read")).source(cause)
    })
}

/// The path of a field that `found` has and `known` does not.
fn unknown(found: &Value, known: &Value, path: &str) -> Option<String> {
    let is_empty = |value: &Value| match value {
        Value::Null => true,
        Value::Object(map) => map.is_empty(),
        Value::Array(list) => list.is_empty(),
        _ => false,
    };
    match (found, known) {
        (Value::Object(found), Value::Object(known)) => found.iter().find_map(|(key, value)| {
            let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            match known.get(key) {
                Some(known) => unknown(value, known, &path),
                None => (!is_empty(value)).then_some(path),
            }
        }),
        (Value::Array(found), Value::Array(known)) => found
            .iter()
            .zip(known)
            .enumerate()
            .find_map(|(index, (found, known))| unknown(found, known, &format!("{path}[{index}]"))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{ConfigMap, Service};

    use super::*;

    fn error(text: &str) -> String {
        let read = || documents("a.yaml", text)?.first().map_or(Ok(()), |first| first.typed::<Service>().map(|_| ()));
        let error = read().unwrap_err();
        assert_eq!(error.kind(), Kind::Input);
        error.lines().join(": ")
    }

    #[test]
    fn a_mistake_names_file_and_line() {
        let service = "# comment\napiVersion: v1\nkind: Service\nspec:\n";
        for (text, expected) in [
            (format!("{service}  ports: 5000\n"), "line 5"),
            (format!("---\n# nothing\n---\n{service}  ports: 5000\n"), "line 8"),
            (format!("{service}  publishNotReadyAddresses: yes\n"), "line 5"),
            (format!("{service}  port: 1\n"), "a.yaml: spec.port is no field of Service"),
            (format!("{service}  ports: [{{port: 1, tarGet: 2}}]\n"), "spec.ports[0].tarGet is no field"),
            ("a: [".to_owned(), "a.yaml cannot be read"),
            ("- a\n".to_owned(), "not an object"),
            ("kind: Service\n".to_owned(), "without apiVersion"),
            ("a: 1\na: 2\n".to_owned(), "line 2"),
            ("apiVersion: v2\nkind: Service\n".to_owned(), "v1"),
        ] {
            let found = error(&text);
            assert!(found.contains(expected), "{text}: {found} should contain {expected:?}");
        }
    }

    #[test]
    fn words_stay_words() {
        let text = "apiVersion: v1\nkind: ConfigMap\ndata: {a: on, y: '012', b: 012, c: no}\n";
        let config: ConfigMap = documents("a.yaml", text).unwrap()[0].typed().unwrap();
        let data: Vec<_> = config.data.unwrap().into_iter().map(|(key, value)| key + "=" + &value).collect();
        assert_eq!(data, ["a=on", "b=012", "c=no", "y=012"]);
    }

    #[test]
    fn a_file_may_hold_several_objects() {
        let text =
            "# first\n---\n{apiVersion: v1, kind: A}\n--- # second\napiVersion: v1\nkind: B\ntext: |\n  ---\n---\n";
        let kinds: Vec<_> = documents("a.yaml", text).unwrap().iter().map(|one| one.kind().to_owned()).collect();
        assert_eq!(kinds, ["A", "B"]);
    }
}
