//! As much of HTTP/1.1 (RFC 9112) as a proxy between two well-behaved programs needs.

use std::io;

use tokio::io::{AsyncBufRead, AsyncBufReadExt as _};

/// The start line and headers of a message.
#[derive(Clone, Debug)]
pub struct Head {
    /// The first line, without its line break.
    pub start: String,
    /// Names as they were written, and values.
    pub headers: Vec<(String, String)>,
}

impl Head {
    /// Reads up to the empty line. `None` when the other side has closed the connection.
    pub async fn read(reader: &mut (impl AsyncBufRead + Unpin)) -> io::Result<Option<Self>> {
        let mut start = String::new();
        if reader.read_line(&mut start).await? == 0 {
            return Ok(None);
        }
        let mut headers = Vec::new();
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).await? == 0 {
                return Ok(None);
            }
            let line = line.trim_end();
            if line.is_empty() {
                return Ok(Some(Self { start: start.trim_end().to_owned(), headers }));
            }
            if let Some((name, value)) = line.split_once(':') {
                headers.push((name.to_owned(), value.trim().to_owned()));
            }
        }
    }

    /// A header's value.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// Part of the start line: method, path and version, or version, status and reason.
    pub fn word(&self, number: usize) -> &str {
        self.start.split(' ').nth(number).unwrap_or_default()
    }

    /// How the body's length is told.
    pub fn length(&self) -> Length {
        if self.get("transfer-encoding").is_some_and(|value| value.contains("chunked")) {
            return Length::Chunked;
        }
        Length::Bytes(self.get("content-length").and_then(|value| value.parse().ok()).unwrap_or(0))
    }

    /// The bytes on the wire.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut text = format!("{}\r\n", self.start);
        for (name, value) in &self.headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        text.push_str("\r\n");
        text.into_bytes()
    }
}

/// The length of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    /// So many bytes.
    Bytes(u64),
    /// Until a chunk of no bytes.
    Chunked,
}

/// An answer with a body.
pub fn answer(status: u16, headers: &[(&str, &str)], body: &str) -> Vec<u8> {
    let mut text = format!("HTTP/1.1 {status} Test\r\nContent-Length: {}\r\n", body.len());
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    format!("{text}\r\n{body}").into_bytes()
}
