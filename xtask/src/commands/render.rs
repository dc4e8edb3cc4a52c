//! `render`: the objects that `deploy` would apply, for those who apply them with another tool.

use std::io;
use std::process::ExitCode;

use serde_json::Value;

use crate::builders::draft::{Draft, Options};
use crate::cluster::budget;
use crate::cluster::render::{Inputs, Manifests, Secrets, render};
use crate::cluster::{Object, ObjectKind, exposure};
use crate::commands::Run;
use crate::config::Config;
use crate::error::{Context as _, Error, Kind, Result};
use crate::registry::Reference;
use crate::report::Report;

/// Print the Kubernetes objects of an environment as YAML, as deploy would apply them
///
/// Values of Secrets are left out. Nothing is built, pushed or asked; the image is the one that the
/// locks foretell.
#[derive(clap::Args)]
pub struct Args {
    /// The environment in deploy.toml: one of kind kubernetes or gke.
    #[arg(long)]
    env: String,
    /// The image, as REGISTRY/PATH@sha256:DIGEST [default: what the locks foretell, in
    /// image.repository of deploy.toml].
    #[arg(long, value_name = "REF")]
    image: Option<Reference>,
    /// Print the values of Secrets too.
    #[arg(long)]
    show_secrets: bool,
}

pub async fn run(args: Args, run: &Run) -> Result<ExitCode> {
    let config = Config::load(&args.env)?;
    let cluster = config.cluster()?;
    budget::check(cluster)?.into_iter().for_each(|warning| run.ui.warn(warning));
    let manifests = Manifests::read(&config.root)?;
    exposure::check(cluster, &manifests)?;
    let secrets = Secrets::read(cluster)?;
    let (image, version) = match args.image {
        Some(reference) => (reference, None),
        None => {
            let (image, version) = foretold(run, &config).await?;
            (image, Some(version))
        }
    };
    let image = image.to_string();
    let inputs =
        Inputs { env: &config.env, config: cluster, image: &image, version: version.as_deref(), secrets: &secrets };
    let objects = render(&manifests, &inputs)?;
    let documents = documents(&objects, args.show_secrets)?;
    let objects = objects.into_iter().map(|object| shown(object, args.show_secrets)).collect();
    run.answer(&Answer { env: config.env, image, objects, documents })
}

/// The image that the locks foretell, and MLflow's version in it.
async fn foretold(run: &Run, config: &Config) -> Result<(Reference, String)> {
    let repository = config.image.repository.as_ref().ok_or_else(|| {
        Error::new(Kind::Config, format!("environment {} has no image.repository", config.env))
            .hint("set it in deploy.toml, or name the image with --image REGISTRY/PATH@sha256:DIGEST")
    })?;
    let options = Options { locked: true, ..Options::new(config) };
    let draft = Draft::plan(run, config, &options).await?;
    let digest = draft.built(0)?.digest();
    Ok((Reference::parse(repository)?.with_digest(digest), draft.project.version))
}

/// The object without what a Secret holds.
fn shown(mut object: Object, secrets: bool) -> Value {
    if let (ObjectKind::Secret, false, Some(map)) = (object.kind, secrets, object.value.as_object_mut()) {
        map.remove("data");
    }
    object.value
}

/// One YAML document for each object.
fn documents(objects: &[Object], secrets: bool) -> Result<Vec<String>> {
    objects
        .iter()
        .map(|object| {
            let keys = object.value.get("data").and_then(Value::as_object);
            let keys: Vec<&str> = keys.into_iter().flat_map(|data| data.keys().map(String::as_str)).collect();
            // Long values on one line, as kubectl prints them.
            let options = serde_saphyr::ser_options! { folded_wrap_chars: usize::MAX };
            let mut text = serde_saphyr::to_string_with_options(&shown(object.clone(), secrets), options)
                .context(Kind::Internal, || format!("{object} cannot be written as YAML"))?;
            if object.kind == ObjectKind::Secret && !secrets {
                text += &format!("# data: {} (left out; --show-secrets prints it)\n", keys.join(", "));
            }
            Ok(text)
        })
        .collect()
}

#[derive(serde::Serialize)]
struct Answer {
    env: String,
    image: String,
    objects: Vec<Value>,
    #[serde(skip)]
    documents: Vec<String>,
}

impl Report for Answer {
    fn human(&self, out: &mut dyn io::Write) -> io::Result<()> {
        self.documents.iter().enumerate().try_for_each(|(index, document)| {
            let mark = if index == 0 { "" } else { "---\n" };
            write!(out, "{mark}{document}")
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_of_secrets_are_left_out_and_named() {
        let (metadata, long) = (json!({"name": "a"}), ["a-long-word"; 12].join(","));
        let objects = [
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata,
                "data": {"ON": "on", "NUMBER": "012", "LONG": long}}),
            json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": {"key": "c2VjcmV0", "uri": "YQ=="}}),
        ];
        let objects =
            objects.map(|value| Object { kind: ObjectKind::of(value["kind"].as_str().unwrap()).unwrap(), value });
        insta::assert_snapshot!(documents(&objects, false).unwrap().join("---\n"), @r#"
        apiVersion: v1
        data:
          LONG: a-long-word,a-long-word,a-long-word,a-long-word,a-long-word,a-long-word,a-long-word,a-long-word,a-long-word,a-long-word,a-long-word,a-long-word
          NUMBER: "012"
          "ON": "on"
        kind: ConfigMap
        metadata:
          name: a
        ---
        apiVersion: v1
        kind: Secret
        metadata:
          name: a
        # data: key, uri (left out; --show-secrets prints it)
        "#);
        assert!(documents(&objects, true).unwrap()[1].contains("key: c2VjcmV0"));
        assert_eq!(shown(objects[1].clone(), false)["data"], Value::Null);
    }
}
