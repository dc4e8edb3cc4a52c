//! Waiting until a server serves: the port answers, then the database does.

use std::time::{Duration, Instant};

use reqwest::Method;
use url::Url;

use crate::commands::Run;
use crate::error::{Error, Kind, Result};
use crate::mlflow::client::{self, Class, Client, DATABASE_PROBE, Failure};

/// Between two questions. A start takes seconds; a refused connection costs microseconds.
const PAUSE: Duration = Duration::from_millis(100);

/// How often the user hears that it still waits.
const PROGRESS: Duration = Duration::from_secs(5);

/// The longest that one question may take: the first that reaches a database may initialise it.
const QUESTION: Duration = Duration::from_secs(20);

/// Waits until the server answers `/health` and then a request that reaches its database, and
/// says how long that took.
///
/// A server that asks for a login counts as healthy once it does so: nothing behind the login can
/// be asked without one.
///
/// # Errors
/// `Failed` when `alive` says that the server's process has ended, or after `deadline`, with the
/// last that was seen; `Interrupted`.
pub async fn wait_until_healthy(
    run: &Run,
    url: &Url,
    deadline: Duration,
    alive: impl Fn() -> bool,
) -> Result<Duration> {
    let client = Client::new(url, None, None, QUESTION)?;
    let begun = Instant::now();
    let mut told = begun;
    let mut seen = String::from("nothing was asked yet");
    loop {
        // The order matters: an answer may come from another server on the same port.
        if !alive() {
            return Err(Error::new(Kind::Failed, format!("the server at {url} ended before it served")).source(seen));
        }
        let left = deadline.saturating_sub(begun.elapsed());
        if left.is_zero() {
            let message = format!("the server at {url} did not serve within {} s", deadline.as_secs());
            return Err(Error::new(Kind::Failed, message).source(seen));
        }
        let asked = tokio::select! {
            asked = tokio::time::timeout(left, ask(&client)) => asked,
            () = died(&alive) => continue,
            () = run.cancel.cancelled() => return Err(Run::interrupted()),
        };
        match asked {
            Ok(Ok(())) => return Ok(begun.elapsed()),
            Ok(Err(failure)) => seen = failure.detail,
            Err(_) => continue,
        }
        if told.elapsed() >= PROGRESS {
            told = Instant::now();
            run.ui.step("Waiting", format!("for {url} since {} s ({seen})", begun.elapsed().as_secs()));
        }
        tokio::select! {
            () = tokio::time::sleep(PAUSE) => {}
            () = run.cancel.cancelled() => return Err(Run::interrupted()),
        }
    }
}

async fn ask(client: &Client) -> client::Outcome<()> {
    client::send("GET", "/health", client.request(Method::GET, "/health")).await?;
    match client::send("GET", DATABASE_PROBE, client.request(Method::GET, DATABASE_PROBE)).await {
        Ok(_) => Ok(()),
        Err(Failure { class: Class::Status(401), .. }) => Ok(()),
        Err(failure) => Err(failure),
    }
}

/// Resolves when the process is gone, so that a hanging question does not outlive it.
async fn died(alive: &impl Fn() -> bool) {
    while alive() {
        tokio::time::sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;
    use crate::ui::Ui;

    /// A server that answers the requests in turn with these statuses, the last one for ever;
    /// status 0 hangs.
    async fn server(statuses: &'static [u16]) -> Url {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        tokio::spawn(async move {
            let mut at = 0;
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let status = statuses[at.min(statuses.len() - 1)];
                at += 1;
                tokio::spawn(async move {
                    let _ = stream.read(&mut [0; 4096]).await;
                    if status == 0 {
                        std::future::pending::<()>().await;
                    }
                    let answer = format!("HTTP/1.1 {status} x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
                    let _ = stream.write_all(answer.as_bytes()).await;
                });
            }
        });
        url
    }

    fn run() -> Run {
        let _ = rustls::crypto::ring::default_provider().install_default();
        Run { ui: Ui::silent(), cancel: tokio_util::sync::CancellationToken::new(), offline: false }
    }

    async fn check(statuses: &'static [u16], alive: impl Fn() -> bool, expected: std::result::Result<(), &str>) {
        let url = server(statuses).await;
        let found = wait_until_healthy(&run(), &url, Duration::from_secs(1), alive).await;
        match (found, expected) {
            (Ok(_), Ok(())) => {}
            (Err(error), Err(text)) => assert!(error.lines().join(" | ").contains(text), "{:?}", error.lines()),
            (found, expected) => panic!("{statuses:?}: {found:?}, expected {expected:?}"),
        }
    }

    #[tokio::test]
    async fn it_serves_when_port_and_database_answer() {
        check(&[200, 200], || true, Ok(())).await;
        check(&[503, 200, 503, 200, 200], || true, Ok(())).await;
        check(&[200, 401], || true, Ok(())).await;
        check(&[500], || true, Err("/health answered 500")).await;
        check(&[200, 503, 200, 503], || true, Err("did not serve within 1 s")).await;
    }

    #[tokio::test]
    async fn a_dead_process_is_not_waited_for() {
        let begun = Instant::now();
        check(&[0], || false, Err("ended before it served")).await;
        let questions = Cell::new(0);
        check(&[0], || questions.replace(questions.get() + 1) < 3, Err("ended before it served")).await;
        assert!(begun.elapsed() < Duration::from_millis(900), "{:?}", begun.elapsed());
    }

    #[tokio::test]
    async fn an_interruption_ends_the_wait() {
        let (url, run) = (server(&[0]).await, run());
        run.cancel.cancel();
        let error = wait_until_healthy(&run, &url, Duration::from_secs(60), || true).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Interrupted);
    }
}
