//! Images that fail in one way each: the real image's layers under another configuration, so that
//! what is pulled, mounted and started is the real thing up to its entry point.

use flate2::Compression;
use flate2::write::GzEncoder;
use mlflow_image::Digest;
use serde_json::{Value, json};

use crate::place::Login;
use crate::site::Site;
use crate::world::World;
use crate::{Result, ensure};

const PYTHON: &str = "/opt/mlflow/bin/python";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// Says something and exits with code 3.
pub const EXITS: &str = "import sys; print('FATAL: the settings cannot be read', flush=True); sys.exit(3)";

/// Lives, but is never ready: only `/health` is answered well.
pub const NEVER_READY: &str = "
import http.server
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == '/health' else 503)
        self.send_header('Content-Length', '0')
        self.end_headers()
    def log_message(self, *args):
        pass
print('waiting for a lock that nobody gives back', flush=True)
http.server.ThreadingHTTPServer(('', 5000), Handler).serve_forever()
";

/// Takes 64 MiB after 64 MiB.
pub const EATS_MEMORY: &str = "
held = []
while True:
    held.append(b'x' * (64 << 20))
";

/// A registry, spoken to directly.
pub struct Registry<'w> {
    world: &'w World,
    http: reqwest::Client,
    address: String,
    login: Option<Login>,
}

impl<'w> Registry<'w> {
    /// The open one.
    ///
    /// # Errors
    /// When no client can be made.
    pub fn open(world: &'w World) -> Result<Self> {
        Self::at(world, world.place.registry.clone(), None)
    }

    /// The one that asks for a login.
    ///
    /// # Errors
    /// When there is none.
    pub fn with_login(world: &'w World) -> Result<Self> {
        let address = world.place.login_registry.clone().ok_or("there is no registry with a login")?;
        Self::at(world, address, Some(world.place.login()?))
    }

    fn at(world: &'w World, address: String, login: Option<Login>) -> Result<Self> {
        let http = reqwest::Client::builder().no_proxy().build()?;
        Ok(Self { world, http, address, login })
    }

    /// The real image's configuration with another program, under a tag of its own. Gives the
    /// reference by tag.
    ///
    /// # Errors
    /// When the registry refuses.
    pub fn python(&self, tag: &str, program: &str) -> Result<String> {
        let (mut manifest, mut config) = self.real()?;
        config["config"]["Entrypoint"] = json!([PYTHON, "-c", program]);
        config["config"]["Cmd"] = Value::Null;
        self.push(tag, &mut manifest, &config)
    }

    /// The real image once more, with one label more: another digest that works as well.
    ///
    /// # Errors
    /// When the registry refuses.
    pub fn relabelled(&self, tag: &str) -> Result<String> {
        let (mut manifest, mut config) = self.real()?;
        config["config"]["Labels"]["e2e"] = json!(tag);
        self.push(tag, &mut manifest, &config)
    }

    /// The real image in this registry too, with another digest. It is pushed as its users push it.
    ///
    /// # Errors
    /// When the registry refuses.
    pub fn copy_of_the_real(&self, tag: &str) -> Result<String> {
        let login = self.login.as_ref().map(|Login { user, password }| (user.as_str(), password.as_str()));
        crate::world::build(&format!("{}/mlflow/server", self.address), login)?;
        self.relabelled(tag)
    }

    /// Logs a site's user in to this registry, as `docker login` does.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn lend_login(&self, site: &Site<'_>) -> Result<()> {
        let Login { user, password } = self.login.as_ref().ok_or("this registry asks for no login")?;
        crate::world::write_login(&site.home, &self.address, (user, password))
    }

    /// An index that has the image for arm64 alone.
    ///
    /// # Errors
    /// When the registry refuses.
    pub fn other_platform(&self, tag: &str) -> Result<String> {
        let (mut manifest, mut config) = self.real()?;
        let other = if cfg!(target_arch = "aarch64") { "amd64" } else { "arm64" };
        config["architecture"] = json!(other);
        self.push(tag, &mut manifest, &config)?;
        let bytes = serde_json::to_vec(&manifest)?;
        let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [{
            "mediaType": MANIFEST, "digest": Digest::of(&bytes), "size": bytes.len(),
            "platform": { "os": "linux", "architecture": other },
        }] });
        self.put_manifest(tag, INDEX, serde_json::to_vec(&index)?)?;
        Ok(self.reference(tag))
    }

    /// An image that was whole when it was pushed and has lost a layer since.
    ///
    /// # Errors
    /// When the registry refuses.
    pub fn with_a_lost_layer(&self, tag: &str) -> Result<String> {
        let (mut manifest, mut config) = self.real()?;
        let (layer, diff_id) = layer(tag)?;
        let digest = self.put_blob(&layer)?;
        let entry = json!({ "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": digest, "size": layer.len() });
        push(&mut manifest["layers"], entry)?;
        push(&mut config["rootfs"]["diff_ids"], json!(diff_id))?;
        let reference = self.push(tag, &mut manifest, &config)?;
        self.send(self.http.delete(self.url(&format!("blobs/{digest}"))))?;
        Ok(reference)
    }

    fn reference(&self, tag: &str) -> String {
        format!("{}/mlflow/server:{tag}", self.address)
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}/v2/mlflow/server/{path}", self.address)
    }

    /// The manifest and the configuration of the real image.
    fn real(&self) -> Result<(Value, Value)> {
        let (_, digest) = self.world.image.split_once('@').ok_or("an image without a digest")?;
        let mut manifest = self.manifest(digest)?;
        if let Some(first) = manifest["manifests"][0]["digest"].as_str().map(str::to_owned) {
            manifest = self.manifest(&first)?;
        }
        let config = manifest["config"]["digest"].as_str().ok_or("a manifest without a configuration")?;
        let config = self.send(self.http.get(self.url(&format!("blobs/{config}"))))?;
        Ok((manifest, serde_json::from_slice(&config)?))
    }

    fn manifest(&self, digest: &str) -> Result<Value> {
        let accept = format!("{MANIFEST}, {INDEX}");
        let bytes = self.send(self.http.get(self.url(&format!("manifests/{digest}"))).header("Accept", accept))?;
        Ok(serde_json::from_slice(&bytes)?)
    }

    fn push(&self, tag: &str, manifest: &mut Value, config: &Value) -> Result<String> {
        let bytes = serde_json::to_vec(config)?;
        manifest["config"]["digest"] = json!(self.put_blob(&bytes)?);
        manifest["config"]["size"] = json!(bytes.len());
        self.put_manifest(tag, MANIFEST, serde_json::to_vec(manifest)?)?;
        Ok(self.reference(tag))
    }

    fn put_manifest(&self, tag: &str, kind: &str, bytes: Vec<u8>) -> Result<()> {
        let request = self.http.put(self.url(&format!("manifests/{tag}"))).header("Content-Type", kind);
        self.send(request.body(bytes)).map(drop)
    }

    fn put_blob(&self, bytes: &[u8]) -> Result<String> {
        let digest = Digest::of(bytes).to_string();
        let begun = self.world.runtime.block_on(self.authorized(self.http.post(self.url("blobs/uploads/"))).send())?;
        ensure!(begun.status().is_success(), "an upload is answered with {}", begun.status());
        let location = begun.headers().get("Location").ok_or("an upload without a Location")?.to_str()?.to_owned();
        let location = if location.starts_with('/') { format!("http://{}{location}", self.address) } else { location };
        let mut location = url::Url::parse(&location)?;
        location.query_pairs_mut().append_pair("digest", &digest);
        let request = self.http.put(location).header("Content-Type", "application/octet-stream");
        self.send(request.body(bytes.to_vec()))?;
        Ok(digest)
    }

    fn authorized(&self, request: reqwest::RequestBuilder) -> reqwest::RequestBuilder {
        match &self.login {
            Some(Login { user, password }) => request.basic_auth(user, Some(password)),
            None => request,
        }
    }

    fn send(&self, request: reqwest::RequestBuilder) -> Result<Vec<u8>> {
        self.world.runtime.block_on(async {
            let answer = self.authorized(request).send().await?;
            let (status, url) = (answer.status(), answer.url().clone());
            let bytes = answer.bytes().await?;
            ensure!(status.is_success(), "{url} answered {status}: {}", String::from_utf8_lossy(&bytes));
            Ok(bytes.to_vec())
        })
    }
}

fn push(list: &mut Value, entry: Value) -> Result<()> {
    list.as_array_mut().ok_or("no list")?.push(entry);
    Ok(())
}

/// A layer that nobody has: its bytes, and the digest of what it holds.
fn layer(text: &str) -> Result<(Vec<u8>, String)> {
    let mut tar = tar::Builder::new(Vec::new());
    let text = format!("{text} {}", crate::stamp::Stamp::now().unique());
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o644);
    header.set_size(text.len() as u64);
    tar.append_data(&mut header, "etc/e2e", text.as_bytes())?;
    let tar = tar.into_inner()?;
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    std::io::Write::write_all(&mut gzip, &tar)?;
    Ok((gzip.finish()?, Digest::of(&tar).to_string()))
}
