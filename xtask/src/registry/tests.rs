//! The client against a real registry, where no command shows what it does.

use std::collections::HashMap;
use std::path::PathBuf;

use mlflow_image::manifest::{Descriptor, Document, INDEX, MANIFEST};
use mlflow_image::{Digest, Platform};
use serde_json::{Value, json};
use testbed::{Fault, Proxy, Registry, Rule};
use tokio_util::sync::CancellationToken;

use crate::cache::Cache;
use crate::commands::Run;
use crate::error::{Kind, Result};
use crate::ui::Ui;

use super::{Access, Attachment, Blob, Client, CredentialSource, Manifest, Reference};

/// An image for both platforms, its files in a folder.
struct Image {
    dir: tempfile::TempDir,
    manifests: Vec<Manifest>,
    files: HashMap<Digest, PathBuf>,
}

impl Image {
    fn new() -> Self {
        let mut image = Self { dir: tempfile::tempdir().unwrap(), manifests: Vec::new(), files: HashMap::new() };
        let shared = image.file(&vec![7; 300_000]);
        let mut entries = Vec::new();
        for platform in Platform::ALL {
            let own = image.file(platform.to_string().repeat(5_000).as_bytes());
            let labels = json!({ "for": platform });
            let config =
                json!({ "architecture": platform.architecture(), "os": "linux", "config": { "Labels": labels } });
            let config = image.file(config.to_string().as_bytes());
            let layer = |blob: &Blob| json!({ "mediaType": "l", "digest": blob.digest, "size": blob.size });
            let manifest = json!({
                "schemaVersion": 2, "mediaType": MANIFEST, "config": layer(&config), "layers": [layer(&shared), layer(&own)],
            });
            let bytes = manifest.to_string().into_bytes();
            entries.push(json!({
                "mediaType": MANIFEST, "digest": Digest::of(&bytes), "size": bytes.len(),
                "platform": { "architecture": platform.architecture(), "os": "linux" },
            }));
            image.manifests.push(Manifest { media_type: MANIFEST.to_owned(), bytes, blobs: vec![config, shared, own] });
        }
        let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": entries });
        let bytes = index.to_string().into_bytes();
        image.manifests.push(Manifest { media_type: INDEX.to_owned(), bytes, blobs: Vec::new() });
        image
    }

    fn file(&mut self, bytes: &[u8]) -> Blob {
        let blob = Blob { digest: Digest::of(bytes), size: bytes.len() as u64 };
        let path = self.dir.path().join(blob.digest.hex());
        std::fs::write(&path, bytes).unwrap();
        self.files.insert(blob.digest, path);
        blob
    }

    async fn push(&self, client: &Client) -> Digest {
        let files = self.files.clone();
        client.push(&self.manifests, Some("1"), |_| std::future::ready(Ok(files))).await.unwrap().digest
    }
}

fn client(cache: &Cache, reference: &str, access: Access) -> Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let run = Run { ui: Ui::silent(), cancel: CancellationToken::new(), offline: false };
    let reference = Reference::parse(reference).unwrap();
    Client::connect(&run, cache, &reference, access, CredentialSource::Anonymous).unwrap()
}

fn cache() -> (tempfile::TempDir, Cache) {
    let dir = tempfile::tempdir().unwrap();
    let cache = Cache::at(dir.path()).unwrap();
    (dir, cache)
}

#[tokio::test]
async fn the_commands_futures_can_move_between_threads() {
    fn assert_send<T: Send>(_: T) {}
    let (_dir, cache) = cache();
    let client = client(&cache, "127.0.0.1:1/a", Access::Push);
    let none = HashMap::new();
    assert_send(client.missing_blobs(&[]));
    assert_send(client.upload_all(&[], &none));
    assert_send(client.pull(&cache, Platform::LinuxAmd64));
    assert_send(client.push(&[], None, |_| std::future::ready(Ok(HashMap::new()))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_fetches_one_platform_once() -> Result<()> {
    let Some(registry) = Registry::start() else { return Ok(()) };
    let (_dir, pushing) = cache();
    let image = Image::new();
    let name = format!("{}/team/mlflow:1", registry.host());
    image.push(&client(&pushing, &name, Access::Push)).await;

    let proxy = Proxy::start(registry.address());
    let name = format!("{}/team/mlflow:1", proxy.host());
    let (_dir, cache) = cache();
    let pulled = client(&cache, &name, Access::Pull).pull(&cache, Platform::LinuxArm64).await?;
    assert_eq!(pulled.manifest, image.manifests[1].bytes);
    assert_eq!(pulled.digest, image.manifests[1].digest());
    for blob in &image.manifests[1].blobs {
        assert_eq!(Digest::of(std::fs::read(cache.blob(&blob.digest)?).unwrap()), blob.digest);
    }

    let by_digest = format!("{}/team/mlflow@{}", proxy.host(), image.manifests[2].digest());
    proxy.reset();
    client(&cache, &by_digest, Access::Pull).pull(&cache, Platform::LinuxArm64).await?;
    assert!(proxy.log().is_empty(), "a digest that is in the cache needs no registry: {:?}", proxy.log());
    let again = client(&cache, &name, Access::Pull).pull(&cache, Platform::LinuxArm64).await?;
    assert_eq!((again.digest, again.downloaded_bytes), (pulled.digest, 0));
    assert_eq!(proxy.count("GET", "/blobs/"), 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_survives_what_a_network_does() -> Result<()> {
    let Some(registry) = Registry::start() else { return Ok(()) };
    let (_dir, pushing) = cache();
    let image = Image::new();
    image.push(&client(&pushing, &format!("{}/team/mlflow:1", registry.host()), Access::Push)).await;
    let answer = |status, body| Fault::Answer { status, headers: Vec::new(), body };
    let unknown = r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#;
    let limit = r#"{"errors":[{"code":"TOOMANYREQUESTS","message":"pull rate limit"}]}"#;
    for (rule, expected) in [
        (Rule::once("GET", "/manifests/", Fault::Truncate), Ok(())),
        (Rule::once("GET", "/manifests/", answer(502, "")), Ok(())),
        (Rule::once("GET", "/manifests/", answer(429, limit)), Ok(())),
        (Rule::once("GET", "/blobs/", Fault::Truncate), Ok(())),
        (Rule::once("GET", "/blobs/", Fault::ResetAnswer), Ok(())),
        (Rule::once("GET", "/blobs/", answer(503, "later")), Ok(())),
        (Rule::once("GET", "/manifests/1", answer(404, unknown)), Err((Kind::Remote, "no such image"))),
        (Rule::always("GET", "/blobs/", answer(403, "no")), Err((Kind::Auth, "does not let"))),
        (Rule::once("GET", "/blobs/", answer(200, "short")), Ok(())),
    ] {
        let proxy = Proxy::start(registry.address());
        let shown = format!("{rule:?}");
        proxy.set_rules(vec![rule]);
        let (_dir, cache) = cache();
        let client = client(&cache, &format!("{}/team/mlflow:1", proxy.host()), Access::Pull);
        let pulled = client.pull(&cache, Platform::LinuxAmd64).await;
        match (pulled, expected) {
            (Ok(pulled), Ok(())) => assert_eq!(pulled.digest, image.manifests[0].digest(), "{shown}"),
            (Err(error), Err((kind, words))) => {
                assert_eq!(error.kind(), kind, "{shown}: {error}");
                assert!(error.to_string().contains(words), "{shown}: {error}");
            }
            (found, expected) => panic!("{shown}: {found:?}, expected {expected:?}"),
        }
        let half: Vec<_> = std::fs::read_dir(cache.dir("blobs")?)
            .unwrap()
            .flatten()
            .filter(|entry| entry.file_name().to_string_lossy().starts_with('.'))
            .collect();
        assert!(half.is_empty(), "{shown}: {half:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_download_goes_on_in_the_middle() -> Result<()> {
    let Some(registry) = Registry::start() else { return Ok(()) };
    let (_dir, pushing) = cache();
    let image = Image::new();
    image.push(&client(&pushing, &format!("{}/team/mlflow:1", registry.host()), Access::Push)).await;
    let proxy = Proxy::start(registry.address());
    let largest = image.manifests[0].blobs[1].digest.to_string();
    proxy.set_rules(vec![Rule::once("GET", &largest, Fault::Truncate)]);
    let (_dir, cache) = cache();
    let name = format!("{}/team/mlflow:1", proxy.host());
    client(&cache, &name, Access::Pull).pull(&cache, Platform::LinuxAmd64).await?;
    let statuses: Vec<u16> = proxy.log().iter().filter(|e| e.path.contains(&largest)).map(|e| e.status).collect();
    assert_eq!(statuses, [200, 206]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_that_was_needed_can_be_passed_on() -> Result<()> {
    let Some(registry) = Registry::start() else { return Ok(()) };
    let proxy = Proxy::start(registry.address());
    let (_dir, cache) = cache();
    let reference = Reference::parse(&format!("{}/team/mlflow:1", proxy.host()))?;
    let run = Run { ui: Ui::silent(), cancel: CancellationToken::new(), offline: false };
    let password = super::Secret::new(format!("{:x}", rand::random::<u64>()));
    let source = CredentialSource::Given { username: "ada".to_owned(), password: password.clone() };
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = Client::connect(&run, &cache, &reference, Access::Pull, source)?;
    assert_eq!(client.inspect().await?, None);
    assert!(!client.asked_for_login().await);

    let headers = vec![("WWW-Authenticate", "Basic realm=\"r\"")];
    proxy.set_rules(vec![Rule::once("GET", "/manifests/", Fault::Answer { status: 401, headers, body: "" })]);
    assert_eq!(client.inspect().await?, None);
    assert!(client.asked_for_login().await);
    assert_eq!(client.login().await?, super::Passable::Password("ada".to_owned(), password));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_is_described_without_its_layers() -> Result<()> {
    let Some(registry) = Registry::start() else { return Ok(()) };
    let (_dir, cache) = cache();
    let image = Image::new();
    let name = format!("{}/team/mlflow", registry.host());
    let index = image.push(&client(&cache, &format!("{name}:1"), Access::Push)).await;
    let arm = image.manifests[1].digest();
    let described = |reference: String| {
        let client = client(&cache, &reference, Access::Pull);
        async move {
            let found = client.inspect().await?;
            Ok(found.map(|found| (found.digest, found.platforms.join(" "), found.labels["for"].clone())))
        }
    };
    let expected = (index, "linux/amd64 linux/arm64".to_owned(), "linux/amd64".to_owned());
    assert_eq!(described(format!("{name}:1")).await?, Some(expected.clone()));
    assert_eq!(described(format!("{name}@{index}")).await?, Some(expected));
    let alone = (arm, "linux/arm64".to_owned(), "linux/arm64".to_owned());
    assert_eq!(described(format!("{name}@{arm}")).await?, Some(alone));
    assert_eq!(described(format!("{name}:2")).await?, None);
    assert_eq!(described(format!("{}/team/other:1", registry.host())).await?, None);
    let error: crate::error::Error = described("127.0.0.1:1/a:1".to_owned()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Remote);
    Ok(())
}

fn subject(image: &Image) -> Descriptor {
    let root = image.manifests.last().unwrap();
    let document = Document { media_type: INDEX, bytes: root.bytes.clone(), digest: root.digest() };
    document.descriptor()
}

fn attachment<'a>(artifact_type: &'a str, bytes: &'a [u8]) -> Attachment<'a> {
    Attachment { artifact_type, annotations: &[], bytes }
}

async fn referrers(client: &Client, subject: &Digest) -> Value {
    let answer = client.manifest(&format!("sha256-{}", subject.hex())).await.unwrap();
    answer.map_or(Value::Null, |answer| serde_json::from_slice(&answer.body).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_attached_stays_attached() -> Result<()> {
    let Some(registry) = Registry::start() else { return Ok(()) };
    let proxy = Proxy::start(registry.address());
    let (_dir, cache) = cache();
    let client = client(&cache, &format!("{}/team/mlflow:1", proxy.host()), Access::Push);
    let image = Image::new();
    let root = image.push(&client).await;
    let subject = subject(&image);

    let first = client.attach(&subject, &attachment("application/vnd.cyclonedx+json", br#"{"bill":1}"#)).await?;
    let second = client.attach(&subject, &attachment("application/spdx+json", br#"{"bill":2}"#)).await?;
    proxy.reset();
    assert_eq!(client.attach(&subject, &attachment("application/vnd.cyclonedx+json", br#"{"bill":1}"#)).await?, first);
    assert_eq!(proxy.received_bytes(), 0, "attached once is enough: {:?}", proxy.log());

    let index = referrers(&client, &root).await;
    let listed: Vec<_> = index["manifests"].as_array().unwrap().iter().map(|entry| &entry["digest"]).collect();
    assert_eq!(listed, [&json!(first), &json!(second)]);
    assert_eq!(index["manifests"][0]["artifactType"], "application/vnd.cyclonedx+json");
    let manifest = client.manifest(&first.to_string()).await?.unwrap();
    let manifest: Value = serde_json::from_slice(&manifest.body).unwrap();
    assert_eq!(manifest["subject"]["digest"], json!(root));

    // With annotations, which the list repeats.
    let annotations = [("b", "2"), ("a", "1")];
    let third = Attachment { artifact_type: "a/b", annotations: &annotations, bytes: b"x" };
    let third = client.attach(&subject, &third).await?;
    let read = client.referrers(&root).await?;
    let read: Vec<_> = read.iter().map(|found| (found.digest, found.annotations.len())).collect();
    assert_eq!(read, [(first, 0), (second, 0), (third, 2)]);
    assert_eq!(referrers(&client, &root).await["manifests"][2]["annotations"], json!({ "a": "1", "b": "2" }));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attachment_that_was_interrupted_is_completed() -> Result<()> {
    let Some(registry) = Registry::start() else { return Ok(()) };
    let proxy = Proxy::start(registry.address());
    let (_dir, cache) = cache();
    let client = client(&cache, &format!("{}/team/mlflow:1", proxy.host()), Access::Push);
    let image = Image::new();
    let root = image.push(&client).await;
    let refused = Fault::Answer { status: 403, headers: Vec::new(), body: "" };
    proxy.set_rules(vec![Rule::always("PUT", "/manifests/sha256-", refused)]);
    assert!(client.attach(&subject(&image), &attachment("a/b", b"x")).await.is_err());
    assert_eq!(referrers(&client, &root).await, Value::Null);
    proxy.set_rules(Vec::new());
    let artifact = client.attach(&subject(&image), &attachment("a/b", b"x")).await?;
    assert_eq!(referrers(&client, &root).await["manifests"][0]["digest"], json!(artifact));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_knows_referrers_gets_no_tag() -> Result<()> {
    let Some(registry) = Registry::start() else { return Ok(()) };
    let proxy = Proxy::start(registry.address());
    let (_dir, cache) = cache();
    let client = client(&cache, &format!("{}/team/mlflow:1", proxy.host()), Access::Push);
    let image = Image::new();
    let root = image.push(&client).await;
    proxy.set_rules(vec![Rule::always("PUT", "/manifests/", Fault::AddHeader("OCI-Subject", root.to_string()))]);
    client.attach(&subject(&image), &attachment("a/b", b"x")).await?;
    assert_eq!(referrers(&client, &root).await, Value::Null);
    Ok(())
}
