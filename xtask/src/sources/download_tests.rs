use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;
use crate::ui::Ui;

const CONTENT: &[u8] = b"the content of a wheel";

/// What the server does with one request.
#[derive(Clone, Copy, Debug)]
enum Act {
    Serve(&'static [u8]),
    Status(u16, &'static str),
    /// Announces all, sends half, closes.
    Truncate,
    /// Announces all, sends half, says nothing more.
    Stall,
    Reset,
}

/// A server that does one act after the other; the last one again and again.
async fn server(acts: &[Act]) -> (SocketAddr, Arc<Mutex<usize>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (mut acts, served) = (VecDeque::from(acts.to_vec()), Arc::new(Mutex::new(0)));
    let count = Arc::clone(&served);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let act = if acts.len() > 1 { acts.pop_front().unwrap() } else { acts[0] };
            *count.lock().unwrap() += 1;
            tokio::spawn(async move {
                let mut request = [0; 4096];
                let _ = stream.read(&mut request).await;
                let ok =
                    |body: &[u8]| format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len()).into_bytes();
                let (head, body) = match act {
                    Act::Serve(body) => (ok(body), body),
                    Act::Status(code, headers) => {
                        (format!("HTTP/1.1 {code} x\r\n{headers}content-length: 0\r\n\r\n").into_bytes(), &b""[..])
                    }
                    Act::Truncate | Act::Stall => (ok(CONTENT), &CONTENT[..CONTENT.len() / 2]),
                    Act::Reset => (Vec::new(), &b""[..]),
                };
                let _ = stream.write_all(&head).await;
                let _ = stream.write_all(body).await;
                if matches!(act, Act::Stall) {
                    tokio::time::sleep(Duration::from_secs(60)).await;
                }
            });
        }
    });
    (address, served)
}

fn quick() -> Downloader {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let patience = Patience {
        stall: Duration::from_millis(200),
        first_wait: Duration::from_millis(1),
        longest_wait: Duration::from_millis(5),
        attempts: 3,
        deadline: Duration::from_secs(20),
    };
    Downloader::with_patience(patience).unwrap()
}

fn run() -> Run {
    Run { ui: Ui::silent(), cancel: Default::default(), offline: false }
}

/// Fetches the content from servers that do `acts`; `Ok` with the number of requests at all of
/// them, or the error's kind and a part of what it says.
async fn check(mirrors: &[&[Act]], expected: std::result::Result<usize, (Option<Kind>, &str)>) {
    let home = tempfile::tempdir().unwrap();
    let cache = Cache::at(home.path()).unwrap();
    let (mut urls, mut counts) = (Vec::new(), Vec::new());
    for acts in mirrors {
        let (address, count) = server(acts).await;
        urls.push(Url::parse(&format!("http://user:secret@{address}/a/b.whl")).unwrap());
        counts.push(count);
    }
    let size = Some(CONTENT.len() as u64);
    let item = Item { what: "b.whl".to_owned(), urls, sha256: Digest::of(CONTENT), size };
    let fetched = quick().fetch(&run(), &cache, std::slice::from_ref(&item)).await;
    let kept: Vec<_> = fs::read_dir(cache.dir("downloads").unwrap()).unwrap().flatten().map(|e| e.path()).collect();
    match (fetched, expected) {
        (Ok(fetched), Ok(requests)) => {
            assert_eq!(fetched, Fetched { bytes: CONTENT.len() as u64, gone: Vec::new() }, "{mirrors:?}");
            assert_eq!(counts.iter().map(|count| *count.lock().unwrap()).sum::<usize>(), requests, "{mirrors:?}");
            assert_eq!(kept, [cache.download(&item.sha256).unwrap()]);
            assert_eq!(fs::read(&kept[0]).unwrap(), CONTENT);
            assert!(is_cached(&cache, &item.sha256, item.size).unwrap());
        }
        (Ok(fetched), Err((None, _))) => {
            assert_eq!(fetched, Fetched { bytes: 0, gone: vec![0] }, "{mirrors:?}");
            assert!(kept.is_empty(), "{kept:?}");
        }
        (Err(error), Err((Some(kind), part))) => {
            let text = format!("{} {}", error.lines().join(" | "), error.hint_text().unwrap_or_default());
            assert_eq!(error.kind(), kind, "{text}");
            assert!(text.contains(part) && text.contains("b.whl"), "{text:?} should contain {part:?}");
            assert!(!text.contains("secret"), "{text}");
            assert!(kept.is_empty(), "{kept:?}");
        }
        (found, expected) => panic!("{mirrors:?}: {found:?}, expected {expected:?}"),
    }
}

#[tokio::test]
async fn what_may_pass_is_tried_again() {
    use Act::{Reset, Serve, Stall, Status, Truncate};
    check(&[&[Serve(CONTENT)]], Ok(1)).await;
    check(&[&[Status(503, ""), Serve(CONTENT)]], Ok(2)).await;
    check(&[&[Status(429, "retry-after: 0\r\n"), Status(500, ""), Serve(CONTENT)]], Ok(3)).await;
    check(&[&[Truncate, Serve(CONTENT)]], Ok(2)).await;
    check(&[&[Stall, Serve(CONTENT)]], Ok(2)).await;
    check(&[&[Reset, Serve(CONTENT)]], Ok(2)).await;
}

#[tokio::test]
async fn what_does_not_pass_names_file_and_server() {
    use Act::{Reset, Serve, Stall, Status, Truncate};
    check(&[&[Status(503, "")]], Err((Some(Kind::Remote), "HTTP 503"))).await;
    check(&[&[Status(403, "")]], Err((Some(Kind::Auth), "HTTP 403"))).await;
    check(&[&[Status(301, "location: /x\r\n"), Status(302, "")]], Err((Some(Kind::Remote), "HTTP 302"))).await;
    check(&[&[Truncate]], Err((Some(Kind::Remote), "cannot fetch b.whl from http://127.0.0.1"))).await;
    check(&[&[Stall]], Err((Some(Kind::Remote), "cannot fetch b.whl from http://127.0.0.1"))).await;
    check(&[&[Reset]], Err((Some(Kind::Remote), "check the network"))).await;
    check(&[&[Serve(b"the content of a whee!")]], Err((Some(Kind::Input), "instead of sha256:"))).await;
    check(&[&[Serve(b"short")]], Err((Some(Kind::Input), "5 bytes instead of 22"))).await;
    check(&[&[Serve(b"much longer than what was announced")]], Err((Some(Kind::Input), "larger than"))).await;
}

#[tokio::test]
async fn another_server_is_asked_where_one_will_not_do() {
    use Act::{Serve, Status};
    check(&[&[Status(404, "")], &[Serve(CONTENT)]], Ok(2)).await;
    check(&[&[Status(403, "")], &[Serve(CONTENT)]], Ok(2)).await;
    check(&[&[Serve(b"the content of a whee!")], &[Serve(CONTENT)]], Ok(2)).await;
    check(&[&[Status(404, "")], &[Status(410, "")]], Err((None, ""))).await;
    check(&[&[Status(403, "")], &[Status(404, "")]], Err((Some(Kind::Auth), "HTTP 403"))).await;
}

#[tokio::test]
async fn many_files_come_at_once_and_those_that_are_gone_are_told() {
    let home = tempfile::tempdir().unwrap();
    let cache = Cache::at(home.path()).unwrap();
    let (address, _) = server(&[Act::Serve(CONTENT)]).await;
    let (nothing, _) = server(&[Act::Status(404, "")]).await;
    let item = |at: SocketAddr| Item {
        what: "b.whl".to_owned(),
        urls: vec![Url::parse(&format!("http://{at}/x")).unwrap()],
        sha256: Digest::of(CONTENT),
        size: None,
    };
    let mut items: Vec<_> = (0..20).map(|_| item(address)).collect();
    items[7] = item(nothing);
    let fetched = quick().fetch(&run(), &cache, &items).await.unwrap();
    assert_eq!(fetched, Fetched { bytes: 19 * CONTENT.len() as u64, gone: vec![7] });
}

#[tokio::test]
async fn an_interruption_ends_a_download_at_once() {
    let home = tempfile::tempdir().unwrap();
    let cache = Cache::at(home.path()).unwrap();
    let (address, _) = server(&[Act::Stall]).await;
    let _ = rustls::crypto::ring::default_provider().install_default();
    let patient =
        Downloader::with_patience(Patience { stall: Duration::from_secs(30), ..Patience::default() }).unwrap();
    let item = Item {
        what: "b.whl".to_owned(),
        urls: vec![Url::parse(&format!("http://{address}/x")).unwrap()],
        sha256: Digest::of(CONTENT),
        size: None,
    };
    let run = run();
    let cancel = run.cancel.clone();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(50)).await;
        cancel.cancel();
    });
    let began = Instant::now();
    let error = patient.fetch(&run, &cache, &[item]).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Interrupted);
    assert!(began.elapsed() < Duration::from_secs(5));
    assert_eq!(fs::read_dir(cache.dir("downloads").unwrap()).unwrap().count(), 0, "no part of a file is left");
}

#[test]
fn offline_downloads_nothing_and_says_what_is_missing() {
    let run = Run { offline: true, ..run() };
    let error = Downloader::new(&run, "six-1.17.0-py2.py3-none-any.whl").map(drop).unwrap_err();
    assert!(error.to_string().contains("six-1.17.0"), "{error}");
    assert!(error.hint_text().unwrap().contains("--offline"));
}

#[test]
fn only_old_parts_are_removed() {
    let dir = tempfile::tempdir().unwrap();
    let old = dir.path().join(".part-old");
    for path in [&old, &dir.path().join(".part-new"), &dir.path().join("complete")] {
        fs::write(path, "x").unwrap();
    }
    let long_ago = std::time::SystemTime::now() - 2 * STALE;
    fs::File::options().write(true).open(&old).unwrap().set_modified(long_ago).unwrap();
    remove_stale(dir.path());
    assert!(!old.exists());
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
}
