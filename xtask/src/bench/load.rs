//! One run of wrk, and one request by hand that shows what would be measured.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    path::Path,
    process::Command,
    time::Duration,
};

use serde::Deserialize;

use super::process;

/// What to send, where to.
#[derive(Debug, Clone)]
pub struct Target {
    /// `127.0.0.1:…`
    pub address: String,
    /// In front of every path, e.g. `/github`.
    pub base: String,
    /// An agent's token.
    pub token: Option<String>,
}

/// Kinds of request that `load.lua` knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// GET with an answer of 100 bytes.
    Read,
    /// GET with an answer of 2 KiB that has links.
    Repository,
    /// POST.
    Write,
    /// `POST /v1/authorize`.
    Authorize,
}

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Repository => "repository",
            Self::Write => "write",
            Self::Authorize => "authorize",
        }
    }
}

/// What wrk saw.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Seen {
    /// Answers.
    pub requests: u64,
    /// Time under load.
    pub duration_us: u64,
    /// Median latency.
    pub p50_us: u64,
    /// 99th percentile.
    pub p99_us: u64,
    /// Answers of 400 and above.
    pub refused: u64,
    /// Connections that failed, broke or timed out.
    pub broken: u64,
}

/// Loads a target.
pub fn run(
    root: &Path,
    cores: &str,
    target: &Target,
    kind: Kind,
    connections: usize,
    time: Duration,
) -> Result<Seen, String> {
    let mut wrk = Command::new("wrk");
    wrk.args(["--threads", "1", "--timeout", "10"])
        .args(["--connections", &connections.to_string(), "--duration", &format!("{}s", time.as_secs().max(1))])
        .arg("--script")
        .arg(root.join("tests").join("bench").join("load.lua"))
        .arg(format!("http://{}{}", target.address, target.base))
        .args(["--", kind.word()])
        .args(&target.token);
    let output = process::pinned(cores, &wrk).output().map_err(|e| format!("wrk: {e}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().rev().find(|l| l.starts_with('{'));
    let seen: Option<Seen> = line.and_then(|l| serde_json::from_str(l).ok());
    let seen = seen.ok_or_else(|| format!("wrk did not finish: {}{text}", String::from_utf8_lossy(&output.stderr)))?;
    seen.sound()
}

impl Seen {
    /// Any refusal fails: refusing is cheaper than what is to be measured.
    fn sound(self) -> Result<Self, String> {
        if self.requests == 0 || self.refused > 0 || self.broken > 0 {
            let Self { requests, refused, broken, .. } = self;
            return Err(format!("{requests} requests, {refused} of them refused, {broken} connections broken"));
        }
        Ok(self)
    }
}

/// One GET outside of any load; the value of the answer's `Aegis-Receipt` if it has one.
pub fn probe(target: &Target) -> Result<Option<String>, String> {
    let failed = |e: std::io::Error| format!("{}: {e}", target.address);
    let mut stream = TcpStream::connect(&target.address).map_err(failed)?;
    stream.set_read_timeout(Some(Duration::from_secs(10))).map_err(failed)?;
    let token = target.token.as_ref().map(|t| format!("Authorization: Bearer {t}\r\n")).unwrap_or_default();
    let (address, base) = (&target.address, &target.base);
    let request = format!(
        "GET {base}/repos/octo/r1/languages HTTP/1.1\r\nHost: {address}\r\nUser-Agent: bench\r\n{token}Connection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).map_err(failed)?;
    let mut answer = Vec::new();
    // An upstream that keeps the connection open ends the wait by the read time-out.
    let mut chunk = [0; 4096];
    while !answer.windows(4).any(|w| w == b"\r\n\r\n") {
        match stream.read(&mut chunk).map_err(failed)? {
            0 => break,
            n => answer.extend_from_slice(chunk.get(..n).unwrap_or_default()),
        }
    }
    let text = String::from_utf8_lossy(&answer);
    if !text.starts_with("HTTP/1.1 200 ") {
        return Err(format!("{} answered: {}", target.address, text.lines().next().unwrap_or("nothing")));
    }
    Ok(header(&text, "aegis-receipt"))
}

fn header(answer: &str, name: &str) -> Option<String> {
    answer.lines().take_while(|l| !l.is_empty()).find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_with_one_refusal_is_no_figure() {
        let seen = Seen { requests: 1000, duration_us: 1, p50_us: 1, p99_us: 1, refused: 0, broken: 0 };
        assert!(seen.clone().sound().is_ok());
        assert!(Seen { refused: 1, ..seen.clone() }.sound().is_err());
        assert!(Seen { broken: 1, ..seen.clone() }.sound().is_err());
        assert!(Seen { requests: 0, ..seen }.sound().is_err());
    }

    #[test]
    fn headers_are_found_in_any_case_and_not_in_the_body() {
        let answer = "HTTP/1.1 200 OK\r\nAegis-Receipt: rcp_n1_12\r\n\r\nx-in-body: 1\r\n";
        assert_eq!(header(answer, "aegis-receipt").as_deref(), Some("rcp_n1_12"));
        assert_eq!(header(answer, "x-in-body"), None);
    }
}
