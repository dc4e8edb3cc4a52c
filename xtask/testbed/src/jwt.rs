//! JSON Web Tokens (RFC 7519) that are signed as OpenID Connect's providers do: RS256.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::rsa::KeyPair;
use ring::signature::RSA_PKCS1_SHA256;
use rsa::pkcs8::EncodePrivateKey as _;
use rsa::traits::PublicKeyParts as _;
use serde_json::{Value, json};

/// A key pair of its own.
#[derive(Debug)]
pub struct Signer {
    pair: KeyPair,
    jwk: Value,
}

impl Default for Signer {
    fn default() -> Self {
        Self::new()
    }
}

impl Signer {
    /// Makes the keys; takes a second or more.
    pub fn new() -> Self {
        let key = rsa::RsaPrivateKey::new(&mut rand08::thread_rng(), 2048).expect("a key");
        let pair = KeyPair::from_pkcs8(key.to_pkcs8_der().expect("a key").as_bytes()).expect("a key");
        let number = |number: &rsa::BigUint| URL_SAFE_NO_PAD.encode(number.to_bytes_be());
        let id = number(key.n()).chars().take(16).collect::<String>();
        let jwk = json!({ "kty": "RSA", "use": "sig", "alg": "RS256", "kid": id, "n": number(key.n()), "e": number(key.e()) });
        Self { pair, jwk }
    }

    /// The public key (RFC 7517).
    pub fn jwk(&self) -> &Value {
        &self.jwk
    }

    /// A token with these claims.
    pub fn sign(&self, claims: &Value) -> String {
        let header = json!({ "typ": "JWT", "alg": "RS256", "kid": self.jwk["kid"] });
        let signed = [&header, claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string())).join(".");
        let mut signature = vec![0; self.pair.public().modulus_len()];
        self.pair
            .sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), signed.as_bytes(), &mut signature)
            .expect("a signature");
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}
