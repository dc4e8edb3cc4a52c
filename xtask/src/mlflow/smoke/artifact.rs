//! The artifact check: random bytes up through the server, listed, down again, compared by SHA-256.
//! Streamed both ways, so that its size is not bounded by memory.

use std::io::Write as _;

use bytes::Bytes;
use mlflow_image::{Digest, HashWriter};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use reqwest::Method;
use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE};
use serde_json::Value;

use crate::mlflow::client::{self, Client, Failure, Outcome};
use crate::mlflow::smoke::Made;
use crate::mlflow::smoke::checks::equal;
use crate::report;

/// Where the server passes artifacts through.
pub const ROUTE: &str = "/api/2.0/mlflow-artifacts/artifacts";

/// One piece of the stream.
const CHUNK: usize = 64 << 10;

const FOLDER: &str = "smoke";
const FILE: &str = "random.bin";

/// Sends, lists, reads.
pub async fn check(client: &Client, size: u64, made: &mut Made) -> Outcome<String> {
    let run = made.run()?;
    let root = proxied_path(&run.artifact_uri).ok_or_else(|| {
        let detail = format!("artifacts do not go through the server: they go to {}", run.artifact_uri);
        Failure::wrong(detail).hint("start the server with --serve-artifacts, or leave this check out")
    })?;
    made.artifact_folder = Some(format!("{root}/{FOLDER}"));
    let seed: [u8; 32] = rand::random();
    let mut hash = HashWriter::new(std::io::sink());
    for chunk in chunks(seed, size) {
        // A sink takes everything.
        let _ = hash.write_all(&chunk);
    }
    let expected = hash.finish().0;

    let path = format!("{ROUTE}/{root}/{FOLDER}/{FILE}");
    let body = reqwest::Body::wrap_stream(futures::stream::iter(chunks(seed, size).map(Ok::<_, std::io::Error>)));
    let request = client.request(Method::PUT, &path);
    let request = request.header(CONTENT_TYPE, "application/octet-stream").header(CONTENT_LENGTH, size).body(body);
    client::send("PUT", ROUTE, request).await?;

    let list = client.get(&format!("/api/2.0/mlflow/artifacts/list?run_id={}&path={FOLDER}", run.id)).await?;
    let listed = listed_size(&list, &format!("{FOLDER}/{FILE}"))
        .ok_or_else(|| Failure::wrong(format!("the list lacks {FOLDER}/{FILE}")))?;
    equal("the listed size", &listed, &size)?;

    let (digest, received) = download(client, &path).await?;
    equal("the size that came back", &received, &size)?;
    equal("the SHA-256 that came back", &digest, &expected)?;
    Ok(format!("{} up, listed, down, {digest}", report::bytes(size)))
}

async fn download(client: &Client, path: &str) -> Outcome<(Digest, u64)> {
    let mut answer = client::send("GET", ROUTE, client.request(Method::GET, path)).await?;
    let mut hash = HashWriter::new(std::io::sink());
    while let Some(chunk) =
        answer.chunk().await.map_err(|error| client::Failure::transport(&format!("GET {ROUTE}"), &error))?
    {
        let _ = hash.write_all(&chunk);
    }
    let (digest, received, _) = hash.finish();
    Ok((digest, received))
}

/// Random bytes that can be made again from their seed.
fn chunks(seed: [u8; 32], size: u64) -> impl Iterator<Item = Bytes> + Send {
    let mut random = StdRng::from_seed(seed);
    let mut left = size;
    std::iter::from_fn(move || {
        let length = usize::try_from(left).unwrap_or(usize::MAX).min(CHUNK);
        left -= length as u64;
        let mut chunk = vec![0; length];
        random.fill_bytes(&mut chunk);
        (length > 0).then(|| Bytes::from(chunk))
    })
}

/// The path below the server's artifact root of `mlflow-artifacts:/path` or
/// `mlflow-artifacts://host/path`. `None`: clients write elsewhere, not through the server.
pub fn proxied_path(uri: &str) -> Option<String> {
    let rest = uri.strip_prefix("mlflow-artifacts:")?;
    let path = match rest.strip_prefix("//") {
        Some(rest) => rest.split_once('/')?.1,
        None => rest,
    };
    let path = path.trim_matches('/');
    (!path.is_empty()).then(|| path.to_owned())
}

fn listed_size(list: &Value, path: &str) -> Option<u64> {
    let files = list.get("files")?.as_array()?;
    let file = files.iter().find(|file| file.get("path").and_then(Value::as_str) == Some(path))?;
    // Protobuf's JSON writes 64-bit numbers as text, and may leave out a zero.
    match file.get("file_size") {
        None => Some(0),
        Some(size) => size.as_u64().or_else(|| size.as_str()?.parse().ok()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_proxied_artifacts_have_a_path() {
        for (uri, expected) in [
            ("mlflow-artifacts:/1/abc/artifacts", Some("1/abc/artifacts")),
            ("mlflow-artifacts://host:5000/1/abc/artifacts/", Some("1/abc/artifacts")),
            ("mlflow-artifacts:/", None),
            ("mlflow-artifacts://host", None),
            ("gs://bucket/1/abc/artifacts", None),
            ("/mlruns/1/abc/artifacts", None),
        ] {
            assert_eq!(proxied_path(uri).as_deref(), expected, "{uri}");
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_bytes() {
        let all = |size| chunks([7; 32], size).flatten().collect::<Vec<u8>>();
        assert_eq!(all(200_000), all(200_000));
        assert_eq!(all(CHUNK as u64 + 1).len(), CHUNK + 1);
        assert!(all(0).is_empty());
    }

    #[test]
    fn sizes_are_numbers_or_text() {
        let list = serde_json::json!({"files": [{"path": "a", "file_size": 3}, {"path": "b", "file_size": "4"}, {"path": "e"}]});
        assert_eq!(listed_size(&list, "a"), Some(3));
        assert_eq!(listed_size(&list, "b"), Some(4));
        assert_eq!(listed_size(&list, "e"), Some(0));
        assert_eq!(listed_size(&list, "c"), None);
    }
}
