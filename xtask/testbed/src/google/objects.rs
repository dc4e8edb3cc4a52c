//! Objects: in memory, or in a fake-gcs-server.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::Method;
use md5::{Digest as _, Md5};
use serde_json::{Value, json};

use super::call::{Call, Reply};
use super::core::Core;
use super::failure::{Failure, Outcome};
use super::operations::merge;
use super::state::{State, Upload, now};

const OBJECTS: &str = "storage.objects";

fn broken(error: &reqwest::Error) -> Failure {
    Failure::new(503, format!("The server of the objects does not answer: {error}"))
}

/// Makes the bucket where the objects are, too.
pub(crate) async fn create_bucket(core: &Core, name: &str) -> Outcome<()> {
    let Some(server) = &core.options.objects else { return Ok(()) };
    let url = format!("{server}/storage/v1/b");
    let body = json!({ "name": name }).to_string();
    let sent = core.http.post(url).header("Content-Type", "application/json").body(body).send().await;
    let status = sent.map_err(|error| broken(&error))?.status();
    // One that is there already keeps its objects.
    if status.is_success() || status == 409 { Ok(()) } else { Err(Failure::new(503, format!("objects: {status}"))) }
}

/// Whether there is nothing in a bucket.
pub(crate) async fn is_empty(core: &Core, bucket: &str) -> Outcome<bool> {
    let Some(server) = &core.options.objects else {
        return Ok(core.state().list(OBJECTS, &format!("{bucket}/")).is_empty());
    };
    let sent = core.http.get(format!("{server}/storage/v1/b/{bucket}/o")).send().await;
    let body = sent.map_err(|error| broken(&error))?.bytes().await.map_err(|error| broken(&error))?;
    let list: Value = serde_json::from_slice(&body).unwrap_or_default();
    Ok(list["items"].as_array().is_none_or(Vec::is_empty))
}

/// Removes the bucket where the objects are, too.
pub(crate) async fn delete_bucket(core: &Core, bucket: &str) -> Outcome<()> {
    let Some(server) = &core.options.objects else { return Ok(()) };
    let sent = core.http.delete(format!("{server}/storage/v1/b/{bucket}")).send().await;
    sent.map(drop).map_err(|error| broken(&error))
}

/// An object's bytes.
pub(crate) async fn read(core: &Core, bucket: &str, name: &str) -> Outcome<Bytes> {
    let missing = || Failure::not_found(format!("No such object: {bucket}/{name}"));
    let Some(server) = &core.options.objects else {
        return core.state().contents.get(&(bucket.to_owned(), name.to_owned())).cloned().ok_or_else(missing);
    };
    let mut url = url::Url::parse(&format!("{server}/storage/v1/b/{bucket}/o")).expect("the option is a URL");
    url.path_segments_mut().expect("an http URL has a path").push(name);
    let sent = core.http.get(format!("{url}?alt=media")).send().await.map_err(|error| broken(&error))?;
    if !sent.status().is_success() {
        return Err(missing());
    }
    sent.bytes().await.map_err(|error| broken(&error))
}

/// Answers a call about objects.
pub(crate) async fn serve(core: &Arc<Core>, call: &Call) -> Outcome<Reply> {
    if let Some(server) = &core.options.objects {
        return forward(core, call, server).await;
    }
    let mut state = core.state();
    let parts = call.parts();
    let at = parts.iter().position(|part| *part == "b").unwrap_or(0);
    let target = parts.get(at + 1..).unwrap_or_default();
    match (&call.method, parts[0], target) {
        (_, "upload", _) if parts.get(1) == Some(&"resumable") => {
            resume(&mut state, call, parts.get(2).copied().unwrap_or_default())
        }
        (&Method::POST | &Method::PUT, "upload", [bucket, "o"]) => upload(&mut state, call, bucket),
        (&Method::GET, "storage", [bucket, "o"]) => Ok(list(&state, call, bucket).into()),
        (&Method::POST, "storage", [bucket, "o", name, "rewriteTo" | "copyTo", "b", to, "o", to_name]) => {
            let found = find(&state, bucket, name)?;
            let bytes = state.contents[&((*bucket).to_owned(), (*name).to_owned())].clone();
            let change = call.json()?;
            let mut metadata = found;
            merge(&mut metadata, &change);
            let size = bytes.len().to_string();
            let stored = store(&mut state, call, to, to_name, &metadata, bytes)?;
            Ok(json!({ "kind": "storage#rewriteResponse", "done": true, "objectSize": size,
                "totalBytesRewritten": size, "resource": stored })
            .into())
        }
        // The names of objects may have slashes that a client has not encoded.
        (method, _, [bucket, "o", name @ ..]) if !name.is_empty() => {
            item(&mut state, call, method, bucket, &name.join("/"))
        }
        _ => Err(call.unknown()),
    }
}

fn key(bucket: &str, name: &str) -> String {
    format!("{bucket}/{name}")
}

fn find(state: &State, bucket: &str, name: &str) -> Outcome<Value> {
    let found = state.get(OBJECTS, &key(bucket, name)).cloned();
    found.ok_or_else(|| Failure::not_found(format!("No such object: {bucket}/{name}")))
}

fn item(state: &mut State, call: &Call, method: &Method, bucket: &str, name: &str) -> Outcome<Reply> {
    let found = find(state, bucket, name)?;
    check(state, call, bucket, name)?;
    match *method {
        Method::GET if call.query("alt") == Some("media") || call.path.starts_with("download/") => {
            media(state, call, bucket, name)
        }
        Method::GET => Ok(found.into()),
        Method::PATCH | Method::PUT => {
            let change = call.json()?;
            let object = state.get_mut(OBJECTS, &key(bucket, name)).expect("it was found");
            merge(object, &change);
            Ok(object.clone().into())
        }
        Method::DELETE => {
            state.remove(OBJECTS, &key(bucket, name));
            state.contents.remove(&(bucket.to_owned(), name.to_owned()));
            Ok(Reply::empty(204))
        }
        _ => Err(call.unknown()),
    }
}

/// An object's bytes, or a part of them (RFC 9110, section 14).
pub(crate) fn media(state: &State, call: &Call, bucket: &str, name: &str) -> Outcome<Reply> {
    let found = find(state, bucket, name)?;
    let bytes = state.contents.get(&(bucket.to_owned(), name.to_owned())).cloned().unwrap_or_default();
    let kind = found["contentType"].as_str().unwrap_or("application/octet-stream").to_owned();
    let range = call.header("range").and_then(|range| range.strip_prefix("bytes="));
    let mut reply = match range.and_then(|range| range.split_once('-')) {
        Some((begin, end)) if !bytes.is_empty() => {
            let last = bytes.len() - 1;
            let (begin, end) = match begin.parse::<usize>() {
                Ok(begin) => (begin, end.parse::<usize>().map_or(last, |end| end.min(last))),
                Err(_) => (bytes.len().saturating_sub(end.parse().unwrap_or(0)), last),
            };
            if begin > end {
                return Err(Failure::new(416, "The requested range cannot be satisfied."));
            }
            let mut reply = Reply::bytes(&kind, bytes.slice(begin..=end));
            reply.status = 206;
            reply.headers.push(("Content-Range", format!("bytes {begin}-{end}/{}", bytes.len())));
            reply
        }
        _ => Reply::bytes(&kind, bytes),
    };
    let text = |field: &str| found[field].as_str().unwrap_or_default().to_owned();
    reply.headers.push(("X-Goog-Generation", text("generation")));
    reply.headers.push(("X-Goog-Metageneration", text("metageneration")));
    reply.headers.push(("X-Goog-Hash", format!("crc32c={}", text("crc32c"))));
    reply.headers.push(("X-Goog-Stored-Content-Length", text("size")));
    reply.headers.push(("ETag", text("etag")));
    Ok(reply)
}

fn list(state: &State, call: &Call, bucket: &str) -> Value {
    let prefix = call.query("prefix").unwrap_or_default();
    let delimiter = call.query("delimiter").filter(|text| !text.is_empty());
    let (mut items, mut prefixes) = (Vec::new(), Vec::<String>::new());
    for object in state.list(OBJECTS, &key(bucket, prefix)) {
        let name = object["name"].as_str().unwrap_or_default();
        let rest = &name[prefix.len()..];
        match delimiter.and_then(|delimiter| rest.find(delimiter).map(|at| at + delimiter.len())) {
            Some(end) => {
                let folder = format!("{prefix}{}", &rest[..end]);
                if prefixes.last() != Some(&folder) {
                    prefixes.push(folder);
                }
            }
            None => items.push(object),
        }
    }
    let (items, next) = super::usage::page(call, items, 1000);
    let mut answer = json!({ "kind": "storage#objects" });
    if !items.is_empty() {
        answer["items"] = json!(items);
    }
    if !prefixes.is_empty() {
        answer["prefixes"] = json!(prefixes);
    }
    if let Some(next) = next {
        answer["nextPageToken"] = next.into();
    }
    answer
}

/// Refuses where the object is not as the caller expects it.
fn check(state: &State, call: &Call, bucket: &str, name: &str) -> Outcome<()> {
    let found = state.get(OBJECTS, &key(bucket, name));
    let is = found.and_then(|found| found["generation"].as_str()).unwrap_or("0");
    let refused = || Failure::new(412, "At least one of the pre-conditions you specified did not hold.");
    if call.query("ifGenerationMatch").is_some_and(|wanted| wanted != is) {
        return Err(refused());
    }
    if call.query("ifGenerationNotMatch").is_some_and(|wanted| wanted == is) {
        return Err(refused());
    }
    Ok(())
}

fn upload(state: &mut State, call: &Call, bucket: &str) -> Outcome<Reply> {
    let named = call.query("name").map(str::to_owned);
    let kind = call.header("content-type").unwrap_or_default().to_owned();
    match call.query("uploadType") {
        Some("multipart") => {
            let (metadata, part, bytes) = multipart(&kind, &call.body)
                .ok_or_else(|| Failure::invalid("The body is not made of two parts.").reason("badRequest"))?;
            let mut metadata: Value =
                serde_json::from_slice(&metadata).map_err(|_| Failure::invalid("The first part is not JSON."))?;
            if metadata["contentType"].is_null() && !part.is_empty() {
                metadata["contentType"] = part.into();
            }
            let name = metadata["name"].as_str().map(str::to_owned).or(named);
            let name = name.ok_or_else(|| Failure::invalid("Required object name"))?;
            store(state, call, bucket, &name, &metadata, bytes).map(Reply::from)
        }
        Some("resumable") => {
            let mut metadata = call.json()?;
            if let Some(name) = named {
                metadata["name"] = name.into();
            }
            if let Some(kind) = call.header("x-upload-content-type").filter(|_| metadata["contentType"].is_null()) {
                metadata["contentType"] = kind.into();
            }
            check(state, call, bucket, metadata["name"].as_str().unwrap_or_default())?;
            let id = format!("{:032x}", rand::random::<u128>());
            let mut reply = Reply::empty(200);
            let place = format!("{}/storage/upload/resumable/{id}", call.base());
            reply.headers.push(("Location", place));
            reply.headers.push(("X-GUploader-UploadID", id.clone()));
            state.uploads.insert(id, Upload { bucket: bucket.to_owned(), metadata, bytes: Vec::new() });
            Ok(reply)
        }
        _ => {
            let name = named.ok_or_else(|| Failure::invalid("Required object name"))?;
            let metadata = json!({ "contentType": kind });
            store(state, call, bucket, &name, &metadata, call.body.clone()).map(Reply::from)
        }
    }
}

/// A part of an upload, or the question how far it is.
fn resume(state: &mut State, call: &Call, id: &str) -> Outcome<Reply> {
    if call.method == Method::DELETE {
        state.uploads.remove(id);
        return Ok(Reply::empty(499));
    }
    let range = call.header("content-range").unwrap_or_default().trim_start_matches("bytes ").to_owned();
    let (span, total) = range.split_once('/').unwrap_or(("", "*"));
    let upload = state.uploads.get_mut(id).ok_or_else(|| Failure::not_found("No such upload."))?;
    let begin = span.split_once('-').and_then(|(begin, _)| begin.parse::<usize>().ok());
    match begin {
        Some(begin) if begin <= upload.bytes.len() => {
            upload.bytes.truncate(begin);
            upload.bytes.extend_from_slice(&call.body);
        }
        Some(_) => return Err(Failure::new(503, "The range does not follow what is there.")),
        None if range.is_empty() => upload.bytes.extend_from_slice(&call.body),
        None => {}
    }
    let complete = range.is_empty() || total.parse() == Ok(upload.bytes.len());
    if !complete {
        let mut reply = Reply::empty(308);
        if !upload.bytes.is_empty() {
            reply.headers.push(("Range", format!("bytes=0-{}", upload.bytes.len() - 1)));
        }
        return Ok(reply);
    }
    let upload = state.uploads.remove(id).expect("it was found");
    let name = upload.metadata["name"].as_str().unwrap_or_default().to_owned();
    store(state, call, &upload.bucket, &name, &upload.metadata, upload.bytes.into()).map(Reply::from)
}

fn store(state: &mut State, call: &Call, bucket: &str, name: &str, metadata: &Value, bytes: Bytes) -> Outcome<Value> {
    if name.is_empty() {
        return Err(Failure::invalid("Required object name"));
    }
    check(state, call, bucket, name)?;
    let generation = (1_700_000_000_000_000 + state.next()).to_string();
    let path: String = url::form_urlencoded::byte_serialize(name.as_bytes()).collect();
    let path = path.replace('+', "%20");
    let mut object = metadata.clone();
    if object["contentType"].as_str().is_none_or(str::is_empty) {
        object["contentType"] = "application/octet-stream".into();
    }
    merge(
        &mut object,
        &json!({
            "kind": "storage#object",
            "id": format!("{bucket}/{name}/{generation}"),
            "name": name,
            "bucket": bucket,
            "generation": generation,
            "metageneration": "1",
            "size": bytes.len().to_string(),
            "crc32c": STANDARD.encode(crc32c::crc32c(&bytes).to_be_bytes()),
            "md5Hash": STANDARD.encode(Md5::digest(&bytes)),
            "etag": STANDARD.encode(&generation),
            "storageClass": "STANDARD",
            "timeCreated": now(),
            "updated": now(),
            "timeStorageClassUpdated": now(),
            "selfLink": format!("{}/storage/storage/v1/b/{bucket}/o/{path}", call.base()),
            "mediaLink": format!(
                "{}/storage/download/storage/v1/b/{bucket}/o/{path}?generation={generation}&alt=media", call.base()),
        }),
    );
    state.contents.insert((bucket.to_owned(), name.to_owned()), bytes);
    state.put(OBJECTS, key(bucket, name), object.clone());
    Ok(object)
}

/// The two parts of an upload (RFC 2387): metadata, the second part's type, and its bytes. gcloud
/// ends its lines with LF alone.
fn multipart(kind: &str, body: &Bytes) -> Option<(Bytes, String, Bytes)> {
    let boundary = kind.split("boundary=").nth(1)?.split(';').next()?.trim().trim_matches(['"', '\'']);
    let mark = format!("--{boundary}");
    let at = |from: usize| find_bytes(&body[from..], mark.as_bytes()).map(|at| at + from);
    let first = at(0)?;
    let second = at(first + mark.len())?;
    let last = body.windows(mark.len()).rposition(|window| window == mark.as_bytes())?;
    let part = |begin: usize, end: usize| -> Option<(String, Bytes)> {
        let part = &body[begin + mark.len()..end];
        let line = if part.starts_with(b"\r\n") { "\r\n" } else { "\n" };
        let empty = line.repeat(2);
        let head = find_bytes(part, empty.as_bytes())?;
        let text = String::from_utf8_lossy(&part[..head]).into_owned();
        let from = begin + mark.len() + head + empty.len();
        Some((text, body.slice(from..end.checked_sub(line.len())?.max(from))))
    };
    if last <= second {
        return None;
    }
    let (_, metadata) = part(first, second)?;
    let (head, bytes) = part(second, last)?;
    let kind = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-type").then(|| value.trim().to_owned())
    });
    Some((metadata, kind.unwrap_or_default(), bytes))
}

fn find_bytes(text: &[u8], wanted: &[u8]) -> Option<usize> {
    text.windows(wanted.len()).position(|window| window == wanted)
}

/// Passes a call to the server of the objects, and its answer back.
async fn forward(core: &Core, call: &Call, server: &str) -> Outcome<Reply> {
    let kept = call.query.iter().filter(|(name, _)| name != "access_token");
    let query = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(kept).finish();
    let url = format!("{server}/{}{}{query}", call.path, if query.is_empty() { "" } else { "?" });
    let mut request = core.http.request(call.method.clone(), url).body(call.body.clone());
    let kept = ["content-type", "content-range", "range", "x-upload-content-type", "x-upload-content-length", "accept"];
    for name in kept {
        if let Some(value) = call.headers.get(name) {
            request = request.header(name, value);
        }
    }
    let answer = request.send().await.map_err(|error| broken(&error))?;
    let status = answer.status().as_u16();
    if call.method == Method::DELETE && answer.status().is_success() {
        // Google says nothing, that server says null.
        return Ok(Reply::empty(204));
    }
    let ours = format!("{}/storage", call.base());
    let mut headers = Vec::new();
    let mut is_json = false;
    for (name, value) in answer.headers() {
        let Ok(value) = value.to_str() else { continue };
        is_json |= name == "content-type" && value.starts_with("application/json");
        let passed = [
            "content-type",
            "content-range",
            "range",
            "location",
            "etag",
            "x-goog-hash",
            "x-goog-generation",
            "x-goog-metageneration",
            "x-goog-stored-content-length",
            "x-guploader-uploadid",
        ];
        if let Some(name) = passed.iter().find(|passed| **passed == name.as_str()) {
            headers.push((*name, value.replace(server, &ours)));
        }
    }
    let mut body = answer.bytes().await.map_err(|error| broken(&error))?;
    if is_json && call.query("alt") != Some("media") {
        body = String::from_utf8_lossy(&body).replace(server, &ours).into();
    }
    Ok(Reply { status, headers, body })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_parts_are_read_with_either_line_end() {
        for line in ["\r\n", "\n"] {
            let body = [
                "--==x==",
                "Content-Type: application/json",
                "",
                "{\"name\":\"a\"}",
                "--==x==",
                "content-type: text/plain",
                "",
                "one\ntwo",
                "--==x==--",
                "",
            ]
            .join(line);
            for kind in ["multipart/related; boundary=\"==x==\"", "multipart/related; boundary='==x=='"] {
                let (metadata, kind, bytes) = multipart(kind, &Bytes::from(body.clone())).unwrap();
                assert_eq!(
                    (&metadata[..], kind.as_str(), &bytes[..]),
                    (&b"{\"name\":\"a\"}"[..], "text/plain", &b"one\ntwo"[..])
                );
            }
        }
    }
}
