//! The `WWW-Authenticate` header of registries (RFC 9110, section 11.6.1; RFC 6750, section 3).

/// How a registry wants to be logged in to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Challenge {
    /// User and password with every request (RFC 7617).
    Basic,
    /// A token from the service at `realm` (distribution, "Token Authentication").
    Bearer {
        /// The token service's URL.
        realm: String,
        /// The service's name for this registry.
        service: Option<String>,
        /// The scope of the refused request.
        scope: Option<String>,
    },
}

impl Challenge {
    /// The best challenge of a header: Bearer before Basic. `None` when neither is offered.
    pub fn parse(header: &str) -> Option<Self> {
        let challenges = challenges(header);
        let find = |scheme: &str| challenges.iter().find(|(found, _)| found.eq_ignore_ascii_case(scheme));
        if let Some((_, params)) = find("bearer") {
            let get = |name: &str| {
                params.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.clone())
            };
            if let Some(realm) = get("realm") {
                return Some(Self::Bearer { realm, service: get("service"), scope: get("scope") });
            }
        }
        find("basic").map(|_| Self::Basic)
    }
}

type Params = Vec<(String, String)>;

/// Splits the header into schemes with their parameters; what is malformed ends the list.
fn challenges(header: &str) -> Vec<(String, Params)> {
    let mut found: Vec<(String, Params)> = Vec::new();
    let mut rest = header;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let end = rest.find(|c: char| !is_token_char(c)).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        if word.is_empty() {
            return found;
        }
        let after = after.trim_start_matches([' ', '\t']);
        match (after.strip_prefix('='), found.last_mut()) {
            (Some(value), Some((_, params))) => {
                let Some((value, after)) = value_of(value.trim_start()) else { return found };
                params.push((word.to_owned(), value));
                rest = after;
            }
            (Some(_), None) => return found,
            (None, _) => {
                found.push((word.to_owned(), Vec::new()));
                rest = after;
            }
        }
    }
}

/// A token or a quoted string, and what follows.
fn value_of(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find(|c: char| !is_token_char(c)).unwrap_or(text.len());
        return (end > 0).then(|| (text[..end].to_owned(), &text[end..]));
    };
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, &quoted[at + 1..])),
            '\\' => value.push(chars.next()?.1),
            c => value.push(c),
        }
    }
    None
}

fn is_token_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bearer(realm: &str, service: Option<&str>, scope: Option<&str>) -> Option<Challenge> {
        Some(Challenge::Bearer {
            realm: realm.to_owned(),
            service: service.map(str::to_owned),
            scope: scope.map(str::to_owned),
        })
    }

    #[test]
    fn challenges_are_read_as_registries_write_them() {
        for (header, expected) in [
            (
                r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push""#,
                bearer("https://auth.docker.io/token", Some("registry.docker.io"), Some("repository:a/b:pull,push")),
            ),
            (r#"bearer Realm="https://a/t""#, bearer("https://a/t", None, None)),
            (r#"Bearer realm = "https://a/t" , service=plain"#, bearer("https://a/t", Some("plain"), None)),
            (r#"Basic realm="x", Bearer realm="https://a/t""#, bearer("https://a/t", None, None)),
            (r#"Basic realm="a \"quoted\" realm""#, Some(Challenge::Basic)),
            ("Basic", Some(Challenge::Basic)),
            (r#"Bearer service="no realm", Basic realm="x""#, Some(Challenge::Basic)),
            (r#"Negotiate"#, None),
            (r#"Bearer realm="unterminated"#, None),
            ("=\"", None),
            ("", None),
            ("\u{e4}", None),
        ] {
            assert_eq!(Challenge::parse(header), expected, "{header}");
        }
    }
}
