//! What an environment with an infrastructure means.

use super::super::*;

/// An environment `e` with an infrastructure, and lines more in that table.
fn with_infra(kind: &str, lines: &str) -> String {
    let context = if kind == "gke" { "" } else { "context = \"desktop\"" };
    let infra = "project = \"my-project\"\nregion = \"europe-west1\"";
    // A line that sets a key again takes its place.
    let key = lines.split(" = ").next().unwrap_or_default();
    let kept = infra.lines().filter(|line| key.is_empty() || !line.starts_with(key)).collect::<Vec<_>>().join("\n");
    format!("[environment.e]\nkind = \"{kind}\"\n{context}\n[environment.e.infra]\n{kept}\n{lines}\n")
}

fn load(text: &str, is_made: bool) -> Result<Config> {
    let planned = resolve(Path::new("/repo"), "e", text, &|_| None, &|_| Ok(None))?;
    let outputs = Outputs::foretold(planned.infra()?);
    resolve(Path::new("/repo"), "e", text, &|_| None, &|_| Ok(is_made.then(|| outputs.clone())))
}

#[test]
fn what_infra_has_made_needs_no_second_mention() {
    use cluster::{Identity, PullSecret, Secret};
    let config = load(&with_infra("gke", ""), true).unwrap();
    let server = config.cluster().unwrap();
    assert_eq!(server.context, "gke_my-project_europe-west1_mlflow");
    assert_eq!(server.kubeconfig.as_deref(), Some(Path::new("/repo/.infra/e/kubeconfig")));
    let database = server.database.cloud_sql().unwrap();
    assert_eq!(
        (database.instance.as_str(), database.user.as_str(), database.private_ip),
        ("my-project:europe-west1:mlflow", "mlflow@my-project.iam", true)
    );
    assert_eq!((&database.password, server.artifacts.uri.as_str()), (&None, "gs://my-project-mlflow"));
    let account = "mlflow@my-project.iam.gserviceaccount.com";
    assert_eq!(server.artifacts.identity, Identity::Workload(account.to_owned()));
    assert_eq!(config.image.repository.as_deref(), Some("europe-west1-docker.pkg.dev/my-project/mlflow/server"));
    let origin = config.settings.iter().find(|setting| setting.key == "image.repository").map(|found| &found.origin);
    assert_eq!(origin, Some(&Origin::Infra));

    // Any cluster, with keys.
    let keys = "server-key = true\npull-key = true\nlogin = \"password\"\nregistry = \"gcr.io\"";
    let config = load(&with_infra("kubernetes", keys), true).unwrap();
    let server = config.cluster().unwrap();
    let secret = |key: &str| Secret::Existing { name: outputs::SECRET.to_owned(), key: key.to_owned() };
    assert_eq!((server.context.as_str(), &server.kubeconfig), ("desktop", &None));
    assert_eq!(server.artifacts.identity, Identity::Key(secret("key.json")));
    let database = server.database.cloud_sql().unwrap();
    assert_eq!((&database.password, database.private_ip), (&Some(secret("password")), false));
    assert_eq!(server.pull_secret, PullSecret::Existing(outputs::PULL_SECRET.to_owned()));
    assert_eq!(config.image.repository.as_deref(), Some("gcr.io/my-project/server"));
}

#[test]
fn a_database_takes_what_its_tier_allows_or_the_file_says() {
    let check = |text: &str, expected: Option<u32>| {
        assert_eq!(load(text, true).unwrap().cluster().unwrap().max_connections, expected, "{text}");
    };
    let database = |lines: &str| format!("{}[environment.e.database]\n{lines}\n", with_infra("gke", ""));
    check(&with_infra("gke", ""), Some(100));
    check(&with_infra("gke", "tier = \"db-g1-small\""), Some(50));
    check(&database("max-connections = 300"), Some(300));
    // Another instance is none of infra's.
    check(&database("instance = \"p:r:other\""), None);
    let uri = with_infra("kubernetes", "") + "[environment.e.database]\nuri-variable = \"URI\"\n";
    check(&uri, None);
    check(&format!("{uri}max-connections = 80\n"), Some(80));
}

#[test]
fn the_file_beats_what_infra_has_made() {
    let text = with_infra("gke", "") + "[environment.e.artifacts]\nuri = \"gs://other\"\nkey-file = \"key\"\n";
    let config = load(&text, true).unwrap();
    let artifacts = &config.cluster().unwrap().artifacts;
    assert_eq!(artifacts.uri, "gs://other");
    assert_eq!(artifacts.identity, cluster::Identity::Key(cluster::Secret::File("/repo/key".into())));
    let text = with_infra("kubernetes", "") + "[environment.e.database]\nuri-variable = \"URI\"\n";
    let config = load(&text, true).unwrap();
    let database = &config.cluster().unwrap().database;
    assert_eq!(*database, cluster::Database::Uri(cluster::Secret::Variable("URI".to_owned())));
}

#[test]
fn nothing_is_deployed_to_what_is_not_there() {
    let config = load(&with_infra("gke", ""), false).unwrap();
    let error = config.cluster().map(|_| ()).unwrap_err();
    assert_eq!(error.kind(), Kind::Check);
    assert!(error.hint_text().unwrap().contains("infra apply --env e"), "{error:?}");
    assert_eq!(config.foretold().unwrap().artifacts.uri, "gs://my-project-mlflow");
}

#[test]
fn a_mistake_about_an_infrastructure_is_named() {
    for (line, expected) in [
        ("project = \"\"", "environment.e.infra.project: it is missing"),
        ("project = \"P\"", "not a project's id"),
        ("region = \"europe\"", "environment.e.infra.region: \"europe\" is not a region"),
        ("regoin = \"europe\"", "did you mean \"region\"?"),
        ("via = \"pulumi\"", "environment.e.infra.via: \"pulumi\" is unknown | known: terraform, gcloud"),
        ("name = \"ml\"", "environment.e.infra.name"),
        ("tier = \"db-perf-optimized-N-2\"", "does not exist in edition ENTERPRISE"),
        ("tier = \"db-f1-micro\"\navailability = \"REGIONAL\"", "cannot be in two zones"),
        ("disk-gb = 5", "smallest disk"),
        ("spot = true", "environment.e.infra.spot: nodes are chosen with cluster = \"standard\" only"),
        ("cluster = \"standard\"\nnode-count = 0", "environment.e.infra.node-count"),
        ("github = \"me/mlflow\"", "belong together"),
        ("via = \"gcloud\"\nstate-bucket = \"state\"", "only terraform keeps a state"),
        ("[environment.e.infra.labels]\nteam = \"A B\"", "environment.e.infra.labels.team"),
    ] {
        let error = load(&with_infra("gke", line), true).map(|_| ()).expect_err(line);
        let text = format!("{} | {}", error.lines().join(" | "), error.hint_text().unwrap_or(""));
        assert!(
            error.kind() == Kind::Config && text.contains(expected),
            "{line}: {text:?} should contain {expected:?}"
        );
    }
    let error = load(
        "[environment.e]\nkind = \"kubernetes\"\ncontext = \"c\"\n[environment.e.artifacts]\nuri = \"gs://b\"\n[environment.e.database]\nsecret = \"s\"",
        true,
    );
    assert!(error.unwrap_err().to_string().contains("no table [environment.e.infra]"));
}
