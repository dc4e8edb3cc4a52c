//! The objects of a release, as its ConfigMap holds them.

use std::io::{Read as _, Write as _};

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use serde_json::Value;

use crate::cluster::object::{Object, ObjectKind};
use crate::error::{Context as _, Error, Kind, Result};

/// What an object of the cluster may hold, less some room for its metadata and base64.
const LARGEST: usize = 700 * 1024;

/// The most that stored objects may unpack to.
const LARGEST_UNPACKED: u64 = 16 << 20;

/// The objects as gzipped JSON; of Secrets only what names them.
pub fn pack(objects: &[Object]) -> Result<Vec<u8>> {
    let stored: Vec<Value> = objects.iter().map(stored).collect();
    let cannot = || "cannot store the objects of a release";
    let json = serde_json::to_vec(&stored).context(Kind::Internal, cannot)?;
    let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
    gzip.write_all(&json).context(Kind::Internal, cannot)?;
    let packed = gzip.finish().context(Kind::Internal, cannot)?;
    if packed.len() > LARGEST {
        let message = format!("the objects are too large to be stored with the release: {} bytes", packed.len());
        return Err(Error::new(Kind::Refused, message).hint("the ConfigMaps in kubernetes/ hold too much"));
    }
    Ok(packed)
}

fn stored(object: &Object) -> Value {
    if object.kind != ObjectKind::Secret {
        return object.value.clone();
    }
    let field = |name: &str| object.value.get(name).cloned().unwrap_or_default();
    serde_json::json!({
        "apiVersion": field("apiVersion"),
        "kind": field("kind"),
        "metadata": {"name": object.name()},
    })
}

pub fn unpack(packed: &[u8]) -> Result<Vec<Object>, Box<dyn std::error::Error + Send + Sync>> {
    let mut json = Vec::new();
    GzDecoder::new(packed).take(LARGEST_UNPACKED).read_to_end(&mut json)?;
    let stored: Vec<Value> = serde_json::from_slice(&json)?;
    stored.iter().map(|value| Object::new(value).ok_or_else(|| "an object of an unknown kind".into())).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_secret_is_stored_by_name_alone() {
        let metadata = json!({"name": "mlflow-1a2b", "labels": {"a": "b"}, "annotations": {"note": "c2VjcmV0"}});
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": "Opaque",
            "data": {"uri": "c2VjcmV0"}, "stringData": {"uri": "secret"},
        });
        let config = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"a": "b"}});
        let objects = [Object::new(&secret).unwrap(), Object::new(&config).unwrap()];
        let stored = unpack(&pack(&objects).unwrap()).unwrap();
        let named = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "mlflow-1a2b"}});
        assert_eq!(stored, [Object::new(&named).unwrap(), objects[1].clone()]);
    }

    #[test]
    fn what_the_cluster_cannot_store_is_refused_before() {
        let noise: String = (0..1_000_000).map(|_| char::from(rand::random_range(b'a'..=b'z'))).collect();
        let config = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"a": noise}});
        // Letters at random: 4.7 bits of each 8 remain.
        let objects = [Object::new(&config).unwrap(), Object::new(&config).unwrap()];
        assert_eq!(pack(&objects).unwrap_err().kind(), Kind::Refused);
    }
}
