//! Small images in OCI layouts.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use mlflow_image::Digest;
use serde_json::{Value, json};

/// The static program of `server.rs`, compiled once.
fn program() -> &'static [u8] {
    static PROGRAM: OnceLock<Vec<u8>> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        let (source, out) = (dir.path().join("server.rs"), dir.path().join("server"));
        std::fs::write(&source, include_str!("server.rs")).unwrap();
        let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
        let built = testbed::command(rustc)
            .args(["--edition=2024", "-Copt-level=1", "-Cstrip=symbols", "-Ctarget-feature=+crt-static", "-o"])
            .arg(&out)
            .arg(&source)
            .output()
            .unwrap();
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        std::fs::read(out).unwrap()
    })
}

/// An image of the test's server; `settings` are its environment variables.
pub fn image(dir: &Path, name: &str, settings: &[(&str, &str)]) -> PathBuf {
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o755);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(program().len() as u64);
    tar.append_data(&mut header, "bin/mlflow", program()).unwrap();
    let layer = tar.into_inner().unwrap();

    let layout = dir.join(name);
    std::fs::create_dir_all(layout.join("blobs/sha256")).unwrap();
    let put = |kind: &str, bytes: &[u8]| -> Value {
        let digest = Digest::of(bytes);
        std::fs::write(layout.join("blobs/sha256").join(digest.hex()), bytes).unwrap();
        json!({ "mediaType": format!("application/vnd.oci.image.{kind}"), "digest": digest, "size": bytes.len() })
    };
    let mut env = vec!["PATH=/bin".to_owned(), format!("NAME={name}")];
    env.extend(settings.iter().map(|(key, value)| format!("{key}={value}")));
    let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let config = put(
        "config.v1+json",
        &serde_json::to_vec(&json!({
            "architecture": architecture, "os": "linux",
            "rootfs": { "type": "layers", "diff_ids": [Digest::of(&layer)] },
            "config": { "User": "65532:65532", "Env": env, "Entrypoint": ["mlflow"], "Cmd": ["server"] },
        }))
        .unwrap(),
    );
    let manifest = put("manifest.v1+json", &serde_json::to_vec(&json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": config, "layers": [put("layer.v1.tar", &layer)],
    }))
    .unwrap());
    std::fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    let index = json!({ "schemaVersion": 2, "manifests": [manifest] });
    std::fs::write(layout.join("index.json"), index.to_string()).unwrap();
    layout
}
