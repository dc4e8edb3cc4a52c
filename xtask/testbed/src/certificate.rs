//! A certificate that nobody trusts by itself, made anew for each test.

use std::path::PathBuf;

use crate::tool;

/// A self-signed certificate and its key, in a temporary folder.
#[derive(Debug)]
pub struct Certificate {
    dir: tempfile::TempDir,
}

impl Certificate {
    /// A certificate for a host name; `None` without openssl.
    pub fn for_host(host: &str) -> Option<Self> {
        let openssl = tool::require("openssl", "openssl")?;
        let this = Self { dir: tempfile::Builder::new().prefix("certificate-").tempdir().expect("a folder") };
        let (name, subject) = (format!("subjectAltName=DNS:{host}"), format!("/CN={host}"));
        let (key, chain) = (this.key().display().to_string(), this.chain().display().to_string());
        let arguments = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", &subject];
        // An end entity, not an authority: TLS libraries refuse an authority as a server.
        let extensions = ["-addext", &name, "-addext", "basicConstraints=critical,CA:FALSE"];
        tool::run(&openssl, &[&arguments[..], &extensions, &["-keyout", &key, "-out", &chain]].concat());
        Some(this)
    }

    /// The certificate's file, PEM.
    pub fn chain(&self) -> PathBuf {
        self.dir.path().join("certificate.pem")
    }

    /// The key's file, PEM.
    pub fn key(&self) -> PathBuf {
        self.dir.path().join("key.pem")
    }

    /// The certificate in base64, as JSON Web Tokens carry it.
    pub(crate) fn base64(&self) -> String {
        let pem = std::fs::read_to_string(self.chain()).expect("the certificate");
        pem.lines().filter(|line| !line.starts_with('-')).collect()
    }
}
