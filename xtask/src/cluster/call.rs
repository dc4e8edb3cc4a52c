//! One question to the API server: with a deadline, and asked again when the way there failed.

use std::time::Duration;

use tokio::time::Instant;

use crate::error::Kind;

use super::failure;

/// How long one attempt may take, in which kube itself repeats after 429, 503 and 504.
const ATTEMPT: Duration = Duration::from_secs(10);

/// The wait before the second attempt; doubled for each further one.
const FIRST_WAIT: Duration = Duration::from_millis(250);

/// The longest wait between two attempts.
const LONGEST_WAIT: Duration = Duration::from_secs(2);

/// Sends a request that may be sent twice, again and again until `deadline` has passed, as long as
/// only the connection or the server's health is to blame.
///
/// # Errors
/// The server's answer, or the last failure of the way there.
pub async fn repeat<T, F>(deadline: Duration, request: impl Fn() -> F) -> kube::Result<T>
where
    F: Future<Output = kube::Result<T>>,
{
    let end = Instant::now() + deadline;
    let mut wait = FIRST_WAIT;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let error = match once(left.min(ATTEMPT), request()).await {
            Err(error) if is_passing(&error) => error,
            answer => return answer,
        };
        if Instant::now() + wait >= end {
            return Err(error);
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(LONGEST_WAIT);
    }
}

/// Sends a request that may not be sent twice.
///
/// # Errors
/// The server's answer, or that there was none in time: then the request may have been carried out.
pub async fn once<T>(deadline: Duration, request: impl Future<Output = kube::Result<T>>) -> kube::Result<T> {
    match tokio::time::timeout(deadline, request).await {
        Ok(answer) => answer,
        Err(_) => Err(kube::Error::Service(format!("no answer within {} s", deadline.as_secs_f32().ceil()).into())),
    }
}

/// Whether the same request may fare better in a moment.
fn is_passing(error: &kube::Error) -> bool {
    match error {
        kube::Error::Api(status) => match status.code {
            429 | 502 | 503 | 504 => true,
            // A new leader of etcd, or one that is slow; not a webhook that cannot be reached.
            500 => status.message.contains("etcdserver") || status.message.contains("leader changed"),
            _ => false,
        },
        kube::Error::Service(_) => failure::kind(error) == Kind::Remote && !failure::is_untrusted(error),
        kube::Error::HyperError(_) | kube::Error::ReadEvents(_) => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use kube::core::Status;

    use super::*;

    fn answer(code: u16, message: &str) -> kube::Error {
        kube::Error::Api(Status::failure(message, "").with_code(code).boxed())
    }

    #[test]
    fn only_what_may_pass_is_repeated() {
        let check = |error: kube::Error, expected: bool| assert_eq!(is_passing(&error), expected, "{error}");
        check(answer(429, "too many requests"), true);
        check(answer(503, "the server is currently unable to handle the request"), true);
        check(answer(500, "etcdserver: leader changed"), true);
        check(answer(500, "Internal error occurred: failed calling webhook \"a\""), false);
        check(answer(401, "Unauthorized"), false);
        check(answer(403, "forbidden"), false);
        check(answer(404, "not found"), false);
        check(answer(409, "conflict"), false);
        check(kube::Error::Service("connection refused".into()), true);
        let untrusted = rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer);
        check(kube::Error::Service(Box::new(std::io::Error::other(untrusted))), false);
        check(kube::Error::Service(Box::new(kube::client::AuthError::ExecPluginFailed)), false);
    }

    #[tokio::test]
    async fn a_request_is_repeated_until_it_is_answered() {
        let asked = AtomicUsize::new(0);
        let answered = repeat(Duration::from_secs(30), || async {
            match asked.fetch_add(1, Ordering::Relaxed) {
                0 => Err(kube::Error::Service("connection refused".into())),
                _ => Ok("answer"),
            }
        });
        assert_eq!(answered.await.unwrap(), "answer");
        assert_eq!(asked.into_inner(), 2);
    }

    #[tokio::test]
    async fn a_server_that_stays_away_is_given_up_at_the_deadline() {
        let begun = Instant::now();
        let deadline = Duration::from_millis(600);
        let refused = || async { Err::<(), _>(kube::Error::Service("connection refused".into())) };
        let error = repeat(deadline, refused).await.unwrap_err();
        assert!(error.to_string().contains("connection refused"), "{error}");
        assert!(begun.elapsed() <= deadline, "{:?}", begun.elapsed());
    }

    #[tokio::test]
    async fn silence_is_an_answer_at_the_deadline() {
        let silence = repeat(Duration::from_millis(100), std::future::pending::<kube::Result<()>>);
        assert!(silence.await.unwrap_err().to_string().contains("no answer within"));
    }
}
