//! A strict stand-in for GitHub: answers only who has the real credential, and writes down what it saw.

use std::{net::SocketAddr, sync::Arc};

use aegis_broker::secret::Secret;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::AbortHandle,
};

use crate::error::CliError;

/// The running stand-in.
pub struct Origin {
    /// Where it listens.
    pub address: SocketAddr,
    shared: Arc<Shared>,
    task: AbortHandle,
}

struct Shared {
    expected: String,
    seen: Mutex<Vec<Seen>>,
}

/// A request as it arrived.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Method and path.
    pub line: String,
    /// `Authorization`, if it came.
    pub authorization: Option<String>,
    raw: Vec<u8>,
}

impl Origin {
    /// Listens on a port of its own.
    pub async fn start(credential: &Secret) -> Result<Self, CliError> {
        let failed = |e: std::io::Error| CliError::failed(format!("the sample origin cannot listen: {e}"));
        let listener = TcpListener::bind("127.0.0.1:0").await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let expected = format!("Bearer {}", String::from_utf8_lossy(credential.expose()));
        let shared = Arc::new(Shared { expected, seen: Mutex::default() });
        let theirs = shared.clone();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, theirs.clone()));
            }
        });
        Ok(Self { address, shared, task: task.abort_handle() })
    }

    /// Listens no more.
    pub fn stop(&self) {
        self.task.abort();
    }

    /// How many requests arrived.
    pub fn count(&self) -> usize {
        self.shared.seen.lock().len()
    }

    /// The newest request.
    pub fn last(&self) -> Option<Seen> {
        self.shared.seen.lock().last().cloned()
    }

    /// How many merges arrived.
    pub fn merges(&self) -> usize {
        self.shared.seen.lock().iter().filter(|s| s.line == MERGE).count()
    }

    /// How many requests came without the real credential.
    pub fn unauthorised(&self) -> usize {
        let seen = self.shared.seen.lock();
        seen.iter().filter(|s| s.authorization.as_deref() != Some(self.shared.expected.as_str())).count()
    }

    /// Whether these bytes arrived anywhere in a request.
    pub fn mentions(&self, needle: &[u8]) -> bool {
        self.shared.seen.lock().iter().any(|s| super::scan::contains(&s.raw, needle))
    }
}

/// One connection, request by request.
async fn serve(mut stream: TcpStream, shared: Arc<Shared>) {
    let mut buffer = Vec::new();
    while let Some(request) = read(&mut stream, &mut buffer).await {
        let seen = Seen::of(request);
        let (status, body) = if seen.authorization.as_deref() == Some(shared.expected.as_str()) {
            answer(&seen.line)
        } else {
            (401, json!({"message": "Bad credentials"}))
        };
        shared.seen.lock().push(seen);
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let head = format!(
            "HTTP/1.1 {status} {}\r\nContent-Type: application/json; charset=utf-8\r\nContent-Length: {}\r\n\r\n",
            reason(status),
            body.len()
        );
        if stream.write_all((head + &body).as_bytes()).await.is_err() {
            return;
        }
    }
}

/// Head and body of the next request; `None` at the end or for anything that is not plain HTTP/1.1.
async fn read(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<Vec<u8>> {
    loop {
        if let Some(end) = buffer.windows(4).position(|w| w == b"\r\n\r\n").map(|at| at + 4) {
            let head = String::from_utf8_lossy(buffer.get(..end)?).to_ascii_lowercase();
            let length = head.split("\r\n").find_map(|line| line.strip_prefix("content-length:"));
            let length: usize = length.map_or(Some(0), |l| l.trim().parse().ok()).filter(|l| *l <= MAX_REQUEST)?;
            if buffer.len() >= end + length {
                let rest = buffer.split_off(end + length);
                return Some(std::mem::replace(buffer, rest));
            }
        }
        let mut chunk = [0; 8192];
        let read = stream.read(&mut chunk).await.ok().filter(|n| *n > 0)?;
        buffer.extend_from_slice(chunk.get(..read)?);
        if buffer.len() > MAX_REQUEST {
            return None;
        }
    }
}

impl Seen {
    fn of(raw: Vec<u8>) -> Self {
        let text = String::from_utf8_lossy(&raw).into_owned();
        let mut lines = text.split("\r\n");
        let line = lines.next().unwrap_or_default().trim_end_matches(" HTTP/1.1").to_owned();
        let authorization = lines.take_while(|l| !l.is_empty()).find_map(|l| {
            let (name, value) = l.split_once(':')?;
            name.eq_ignore_ascii_case("authorization").then(|| value.trim().to_owned())
        });
        Self { line, authorization, raw }
    }
}

/// What GitHub would say, as far as the tour asks.
fn answer(line: &str) -> (u16, Value) {
    match line {
        "GET /repos/octo/hello" => (
            200,
            json!({
                "id": 1, "name": "hello", "full_name": "octo/hello", "private": true, "default_branch": "main",
                "owner": {"login": "octo", "id": 1, "type": "User"},
            }),
        ),
        "POST /repos/octo/hello/issues" => {
            (201, json!({"id": 11, "number": 8, "state": "open", "title": "Flaky test in CI"}))
        }
        "GET /repos/octo/hello/pulls/7" => (
            200,
            json!({
                "id": 7, "number": 7, "state": "open", "draft": false, "title": "Speed up CI", "user": {"login": "octo"},
                "head": {"ref": "faster", "sha": HEAD}, "base": {"ref": "main", "sha": BASE},
            }),
        ),
        "GET /repos/octo/hello/branches/main" => {
            (200, json!({"name": "main", "protected": true, "commit": {"sha": BASE}}))
        }
        MERGE => (200, json!({"merged": true, "sha": HEAD, "message": "Pull Request successfully merged"})),
        "DELETE /repos/octo/hello" => (204, Value::Null),
        _ => (404, json!({"message": "Not Found"})),
    }
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        204 => "No Content",
        401 => "Unauthorized",
        _ => "Not Found",
    }
}

const MERGE: &str = "PUT /repos/octo/hello/pulls/7/merge";
const HEAD: &str = "6dcb09b5b57875f334f61aebed695e2e4193db5e";
const BASE: &str = "c5b97d5ae6c19d5c5df71a34c7fbeeda2479ccbc";
const MAX_REQUEST: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_arrived_is_kept_as_it_was() {
        let seen = Seen::of(b"GET /a HTTP/1.1\r\nauthorization:  Bearer x \r\n\r\nauthorization: no".to_vec());
        assert_eq!(seen.line, "GET /a");
        assert_eq!(seen.authorization.as_deref(), Some("Bearer x"));
        assert_eq!(Seen::of(b"GET /a HTTP/1.1\r\n\r\nauthorization: no".to_vec()).authorization, None);
    }
}
