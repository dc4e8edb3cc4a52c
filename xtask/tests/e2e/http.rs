//! Answers, read to their end.

use crate::{Result, ensure};

/// Of an answer that is none, so much is told.
const MOST: usize = 500;

/// What a request is answered.
///
/// # Errors
/// When it is not answered, or not with success.
pub async fn answer(request: reqwest::RequestBuilder) -> Result<Vec<u8>> {
    let answer = request.send().await?;
    let (status, url) = (answer.status(), answer.url().clone());
    let bytes = answer.bytes().await?;
    let text = || String::from_utf8_lossy(&bytes).chars().take(MOST).collect::<String>();
    ensure!(status.is_success(), "{url} answered {status}: {}", text());
    Ok(bytes.to_vec())
}
