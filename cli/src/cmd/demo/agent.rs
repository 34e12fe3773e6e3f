//! The agent's side: plain HTTP/1.1 that keeps every byte it was answered.

use std::{net::SocketAddr, time::Duration};

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use crate::error::CliError;

/// An answer as it came.
#[derive(Debug)]
pub struct Answer {
    /// Status.
    pub status: u16,
    /// Names in lower case.
    headers: Vec<(String, String)>,
    /// All of it: head and body.
    pub raw: Vec<u8>,
}

impl Answer {
    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// Whether a header has this value.
    pub fn is(&self, name: &str, value: &str) -> bool {
        self.header(name) == Some(value)
    }
}

/// One request on a connection of its own.
pub async fn call(
    at: SocketAddr,
    token: &str,
    method: &str,
    path: &str,
    body: Option<Value>,
) -> Result<Answer, CliError> {
    let body = body.map(|b| b.to_string()).unwrap_or_default();
    let mut request = format!(
        "{method} {path} HTTP/1.1\r\nHost: {at}\r\nAuthorization: Bearer {token}\r\n\
         User-Agent: demo-agent\r\nAccept: application/json\r\nConnection: close\r\n"
    );
    if !body.is_empty() {
        request.push_str(&format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len()));
    }
    request.push_str("\r\n");
    request.push_str(&body);
    let exchange = async {
        let mut stream = TcpStream::connect(at).await?;
        stream.write_all(request.as_bytes()).await?;
        let mut raw = Vec::new();
        stream.read_to_end(&mut raw).await?;
        Ok::<_, std::io::Error>(raw)
    };
    let raw = timeout(PATIENCE, exchange)
        .await
        .map_err(|_| CliError::failed(format!("{method} {path}: no answer within {} s", PATIENCE.as_secs())))?
        .map_err(|e| CliError::failed(format!("{method} {path}: {e}")))?;
    parse(raw).ok_or_else(|| CliError::failed(format!("{method} {path}: the answer is not HTTP")))
}

fn parse(raw: Vec<u8>) -> Option<Answer> {
    let end = raw.windows(4).position(|w| w == b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(raw.get(..end)?).into_owned();
    let mut lines = head.split("\r\n");
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let header = |line: &str| {
        let (name, value) = line.split_once(':')?;
        Some((name.to_ascii_lowercase(), value.trim().to_owned()))
    };
    let headers = lines.filter_map(header).collect();
    Some(Answer { status, headers, raw })
}

const PATIENCE: Duration = Duration::from_secs(20);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_keeps_every_byte() {
        let raw = b"HTTP/1.1 403 Forbidden\r\nAegis-Decision: deny\r\nX: a: b\r\n\r\n{}".to_vec();
        let answer = parse(raw.clone()).unwrap();
        assert_eq!((answer.status, answer.raw.as_slice()), (403, raw.as_slice()));
        assert!(answer.is("aegis-decision", "deny") && answer.is("x", "a: b"));
        assert!(parse(b"HTTP/1.1 200 OK\r\n".to_vec()).is_none());
    }
}
