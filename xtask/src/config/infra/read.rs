//! `[environment.NAME.infra]` -> [`InfraConfig`].

use crate::config::cluster::ClusterKind;
use crate::config::table::{Check, Table};
use crate::error::Result;

use super::checks;
use super::{ClusterShape, GitHubConfig, InfraConfig, KeysConfig, RegistryNames, SqlConfig, SqlLogin, Via};

/// What `cluster` may be.
#[derive(Clone, Copy)]
enum Shape {
    None,
    Autopilot,
    Standard,
}

/// Reads the table `infra` of the environment `env`; `None` where it has none. `namespace` is the
/// server's.
pub fn read(env: &str, kind: ClusterKind, namespace: &str, table: &mut Table<'_, '_>) -> Result<Option<InfraConfig>> {
    if !table.says(&["infra"]) {
        return Ok(None);
    }
    let mut table = table.nested("infra")?;
    let is_gke = kind == ClusterKind::Gke;
    let via = table.choice("via", &Via::NAMES, "terraform")?;
    let project = required(&mut table, "project", "the project's id", checks::project)?;
    let region = required(&mut table, "region", "a region such as europe-west1", checks::region)?;
    let name = table.checked("name", "mlflow", checks::name)?;
    let bucket = table.checked("bucket", &format!("{project}-{name}"), checks::bucket)?;
    let sql = sql(&mut table, &name, is_gke)?;
    let deletion_protection = table.boolean("deletion-protection", true)?;
    let registry =
        table.choice("registry", &[("pkg.dev", RegistryNames::PkgDev), ("gcr.io", RegistryNames::GcrIo)], "pkg.dev")?;
    let cluster = cluster(&mut table, is_gke)?;
    let keys = KeysConfig { server: table.boolean("server-key", false)?, pull: table.boolean("pull-key", false)? };
    let github = github(env, &mut table)?;
    let state_bucket = table.optional("state-bucket", checks::bucket)?;
    let labels = table.texts("labels")?;
    for (key, value) in &labels {
        let checked = checks::label(key, true).and_then(|()| checks::label(value, false));
        checked.map_err(|why| table.refuse(&format!("labels.{key}"), why))?;
    }
    if state_bucket.is_some() && via == Via::Gcloud {
        let why = "only terraform keeps a state, and via is gcloud";
        return Err(table.refuse("state-bucket", why).hint("leave it out: gcloud asks Google what there is"));
    }
    table.finish()?;
    let namespace = namespace.to_owned();
    Ok(Some(InfraConfig {
        via,
        project,
        region,
        name,
        bucket,
        sql,
        deletion_protection,
        registry,
        cluster,
        namespace,
        keys,
        github,
        state_bucket,
        labels,
    }))
}

fn sql(table: &mut Table<'_, '_>, name: &str, is_gke: bool) -> Result<SqlConfig> {
    let words = |words: [&'static str; 2]| words.map(|word| (word, word));
    let sql = SqlConfig {
        instance: table.checked("instance", name, checks::sql_instance)?,
        version: table.checked("database-version", "POSTGRES_17", checks::database_version)?,
        edition: table.choice("edition", &words(["ENTERPRISE", "ENTERPRISE_PLUS"]), "ENTERPRISE")?.to_owned(),
        tier: table.checked("tier", "db-custom-1-3840", checks::tier)?,
        availability: table.choice("availability", &words(["ZONAL", "REGIONAL"]), "ZONAL")?.to_owned(),
        disk_gb: table.integer("disk-gb", Some(10))?.unwrap_or(10),
        login: table.choice("login", &[("iam", SqlLogin::Iam), ("password", SqlLogin::Password)], "iam")?,
        private_ip: table.boolean("private-ip", is_gke)?,
    };
    if sql.disk_gb < 10 {
        return Err(table.refuse("disk-gb", "Cloud SQL's smallest disk has 10 GB"));
    }
    let is_shared = ["db-f1-micro", "db-g1-small"].contains(&sql.tier.as_str());
    let is_plus = sql.edition == "ENTERPRISE_PLUS";
    if is_plus != sql.tier.starts_with("db-perf-optimized-") {
        let why = format!("{} does not exist in edition {}", sql.tier, sql.edition);
        return Err(table.refuse("tier", why).hint(
            "ENTERPRISE has db-custom-CPUS-MB, db-f1-micro and db-g1-small, ENTERPRISE_PLUS db-perf-optimized-*",
        ));
    }
    if is_shared && sql.availability == "REGIONAL" {
        return Err(table.refuse("availability", format!("{} cannot be in two zones", sql.tier)));
    }
    Ok(sql)
}

fn cluster(table: &mut Table<'_, '_>, is_gke: bool) -> Result<Option<ClusterShape>> {
    let shapes = [("none", Shape::None), ("autopilot", Shape::Autopilot), ("standard", Shape::Standard)];
    let shape = table.choice("cluster", &shapes, if is_gke { "autopilot" } else { "none" })?;
    let nodes = ["node-type", "node-count", "spot"];
    let says = nodes.into_iter().find(|key| table.says(&[key]));
    let standard = ClusterShape::Standard {
        node_type: table.checked("node-type", "e2-standard-2", checks::machine)?,
        node_count: table.integer("node-count", Some(1))?.unwrap_or(1),
        spot: table.boolean("spot", false)?,
    };
    match (shape, says) {
        (Shape::Standard, _) => match &standard {
            ClusterShape::Standard { node_count: 0, .. } => Err(table.refuse("node-count", "at least 1 is needed")),
            _ => Ok(Some(standard)),
        },
        (_, Some(key)) => {
            Err(table.refuse(key, "nodes are chosen with cluster = \"standard\" only, and this would be ignored"))
        }
        (Shape::Autopilot, None) => Ok(Some(ClusterShape::Autopilot)),
        (Shape::None, None) => Ok(None),
    }
}

fn github(env: &str, table: &mut Table<'_, '_>) -> Result<Option<GitHubConfig>> {
    let repository = table.optional("github", checks::github_repository)?;
    let repository_id = table.optional("github-repository-id", checks::github_id)?;
    let owner_id = table.optional("github-owner-id", checks::github_id)?;
    let environment = table.string("github-environment", repository.as_ref().map(|_| env.to_owned()))?;
    match (repository, repository_id, owner_id) {
        (None, None, None) => Ok(None),
        (Some(repository), Some(repository_id), Some(owner_id)) => {
            let environment = environment.unwrap_or_default();
            Ok(Some(GitHubConfig { repository, repository_id, owner_id, environment }))
        }
        _ => Err(table.refuse("github", "github, github-repository-id and github-owner-id belong together").hint(
            "https://api.github.com/repos/OWNER/REPOSITORY answers with both: id and owner.id; names can change hands",
        )),
    }
}

fn required(table: &mut Table<'_, '_>, key: &str, what: &str, check: Check) -> Result<String> {
    let value = table.required(key, what)?;
    check(&value).map(|()| value).map_err(|why| table.refuse(key, why))
}
