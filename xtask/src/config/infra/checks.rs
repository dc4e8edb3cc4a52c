//! What a text of `[environment.NAME.infra]` must look like, as Google's own rules say.

/// A project's id (<https://cloud.google.com/resource-manager/docs/creating-managing-projects>).
pub fn project(text: &str) -> Result<(), String> {
    match lower(text, 6, 30) && !text.ends_with('-') {
        true => Ok(()),
        false => Err(format!("{text:?} is not a project's id: 6 to 30 of a-z, 0-9 and '-', a letter first")),
    }
}

/// A region: `europe-west1`.
pub fn region(text: &str) -> Result<(), String> {
    let parts: Vec<&str> = text.split('-').collect();
    let good = parts.len() == 2
        && parts
            .iter()
            .all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()))
        && text.ends_with(|c: char| c.is_ascii_digit())
        && text.starts_with(|c: char| c.is_ascii_lowercase());
    match good {
        true => Ok(()),
        false => Err(format!("{text:?} is not a region: write it like europe-west1")),
    }
}

/// What names begin with. The shortest name of a service account has 6 characters, the longest 30, and
/// `-deploy` comes after it.
pub fn name(text: &str) -> Result<(), String> {
    match lower(text, 6, 22) && !text.ends_with('-') {
        true => Ok(()),
        false => Err(format!("{text:?} cannot begin names: 6 to 22 of a-z, 0-9 and '-', a letter first")),
    }
}

/// A bucket (<https://cloud.google.com/storage/docs/buckets#naming>).
pub fn bucket(text: &str) -> Result<(), String> {
    let good = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_.".contains(&byte);
    let ends = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let fits = (3..=63).contains(&text.len()) && text.bytes().all(good);
    match fits && text.starts_with(ends) && text.ends_with(ends) && !text.starts_with("goog") {
        true => Ok(()),
        false => Err(format!("{text:?} is not a bucket's name: 3 to 63 of a-z, 0-9, '-', '_' and '.'")),
    }
}

/// A Cloud SQL instance's own name.
pub fn sql_instance(text: &str) -> Result<(), String> {
    match lower(text, 1, 75) && !text.ends_with('-') {
        true => Ok(()),
        false => Err(format!("{text:?} is not an instance's name: a-z, 0-9 and '-', a letter first")),
    }
}

/// A version of PostgreSQL that Cloud SQL has and MLflow works with.
pub fn database_version(text: &str) -> Result<(), String> {
    let number = text.strip_prefix("POSTGRES_").and_then(|number| number.parse::<u32>().ok());
    match number.is_some_and(|number| number >= 13) {
        true => Ok(()),
        false => Err(format!("{text:?} is not a version of PostgreSQL, 13 or newer: write it like POSTGRES_17")),
    }
}

/// A machine of Cloud SQL: `db-custom-1-3840`, `db-f1-micro`, `db-perf-optimized-N-2`.
pub fn tier(text: &str) -> Result<(), String> {
    match text.starts_with("db-") && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
        true => Ok(()),
        false => Err(format!("{text:?} is not a machine of Cloud SQL: write it like db-custom-1-3840")),
    }
}

/// A machine type of Compute Engine.
pub fn machine(text: &str) -> Result<(), String> {
    match lower(text, 3, 63) && text.contains('-') {
        true => Ok(()),
        false => Err(format!("{text:?} is not a machine type: write it like e2-standard-2")),
    }
}

/// `OWNER/REPOSITORY`.
pub fn github_repository(text: &str) -> Result<(), String> {
    let part = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    match text.split_once('/').is_some_and(|(owner, name)| part(owner) && part(name)) {
        true => Ok(()),
        false => Err(format!("{text:?} is not a repository of GitHub: write it as OWNER/REPOSITORY")),
    }
}

/// An id of GitHub's.
pub fn github_id(text: &str) -> Result<(), String> {
    match !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        true => Ok(()),
        false => Err(format!("{text:?} is not a number: ask https://api.github.com/repos/OWNER/REPOSITORY")),
    }
}

/// A label's key or value (<https://cloud.google.com/resource-manager/docs/labels-overview>).
pub fn label(text: &str, is_key: bool) -> Result<(), String> {
    let good = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_".contains(&byte);
    let begins = !is_key || text.starts_with(|c: char| c.is_ascii_lowercase());
    match text.len() <= 63 && text.bytes().all(good) && begins {
        true => Ok(()),
        false => Err(format!("{text:?} is not a label: at most 63 of a-z, 0-9, '-' and '_'")),
    }
}

fn lower(text: &str, least: usize, most: usize) -> bool {
    (least..=most).contains(&text.len())
        && text.starts_with(|c: char| c.is_ascii_lowercase())
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_as_google_has_them() {
        type Check = fn(&str) -> Result<(), String>;
        for (check, text, good) in [
            (project as Check, "my-project", true),
            (project, "short", false),
            (project, "My-Project", false),
            (project, "1project", false),
            (project, "project-", false),
            (region, "europe-west1", true),
            (region, "us-central1", true),
            (region, "us-central1-a", false),
            (region, "europe", false),
            (region, "global", false),
            (name, "mlflow", true),
            (name, "ml", false),
            (name, "mlflow-of-the-whole-research", false),
            (bucket, "my-project-mlflow", true),
            (bucket, "a", false),
            (bucket, "goog-a", false),
            (bucket, "A-b", false),
            (bucket, "gs://a", false),
            (sql_instance, "mlflow-2", true),
            (sql_instance, "2-mlflow", false),
            (database_version, "POSTGRES_17", true),
            (database_version, "POSTGRES_9_6", false),
            (database_version, "MYSQL_8_0", false),
            (tier, "db-custom-1-3840", true),
            (tier, "e2-small", false),
            (machine, "e2-standard-2", true),
            (machine, "big", false),
            (github_repository, "me/mlflow", true),
            (github_repository, "https://github.com/me/mlflow", false),
            (github_id, "123", true),
            (github_id, "me", false),
        ] {
            assert_eq!(check(text).is_ok(), good, "{text:?}: {:?}", check(text));
        }
        assert!(label("team", true).is_ok() && label("1", true).is_err() && label("1", false).is_ok());
    }
}
