//! One run of wrk, and one request by hand that shows what would be measured.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    path::PathBuf,
    process::Command,
    time::Duration,
};

use serde::Deserialize;

use super::{Options, process};

/// What to send, where to.
#[derive(Debug, Clone)]
pub struct Target {
    /// `127.0.0.1:…`
    pub address: String,
    /// In front of every path, e.g. `/github`.
    pub base: String,
    /// An agent's token.
    pub token: Option<String>,
    /// What is needed to speak TLS to it.
    pub tls: Option<Tls>,
}

/// TLS, through a tunnel or at once.
#[derive(Debug, Clone)]
pub struct Tls {
    /// File of the root that its certificates lead to.
    pub ca: PathBuf,
    /// Whether `CONNECT` comes first.
    pub tunnel: bool,
}

/// Kinds of request that `load.lua` knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// GET with an answer of 100 bytes.
    Read,
    /// The same, a millisecond after the last answer: as many requests a second whoever answers, so that
    /// the machine's own stalls fall on every row alike.
    PacedRead,
    /// GET with an answer of 2 KiB that has links.
    Repository,
    /// POST.
    Write,
    /// `POST /v1/authorize`.
    Authorize,
    /// The read of 100 bytes in TLS, HTTP/1.1.
    Tls1,
    /// The same in HTTP/2, 8 requests at once on each connection.
    Tls2,
    /// One such read on each connection, always the same host.
    Handshake,
    /// One such read for each of some hosts that no certificate was issued for yet.
    ColdHandshake,
}

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::PacedRead => "paced",
            Self::Repository => "repository",
            Self::Write => "write",
            Self::Authorize => "authorize",
            Self::Tls1 => "tls1",
            Self::Tls2 => "tls2",
            Self::Handshake => "handshake",
            Self::ColdHandshake => "cold handshake",
        }
    }

    /// Whether it goes through TLS, which wrk does not know in a tunnel.
    pub fn is_tls(self) -> bool {
        matches!(self, Self::Tls1 | Self::Tls2 | Self::Handshake | Self::ColdHandshake)
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
    options: &Options,
    cores: &str,
    target: &Target,
    kind: Kind,
    connections: usize,
    time: Duration,
) -> Result<Seen, String> {
    if kind.is_tls() {
        return run_tls(options, cores, target, kind, connections, time);
    }
    let root = &options.root;
    let mut wrk = Command::new("wrk");
    wrk.args(["--threads", "1", "--timeout", "10"])
        .args(["--connections", &connections.to_string(), "--duration", &format!("{}s", time.as_secs().max(1))])
        .arg("--script")
        .arg(root.join("tests").join("bench").join("load.lua"))
        .arg(format!("http://{}{}", target.address, target.base))
        .args(["--", kind.word()])
        .args(&target.token);
    seen_by("wrk", cores, &wrk)
}

/// The same by `proxy/examples/tunnel_load.rs`.
fn run_tls(
    options: &Options,
    cores: &str,
    target: &Target,
    kind: Kind,
    connections: usize,
    time: Duration,
) -> Result<Seen, String> {
    let tls = target.tls.as_ref().ok_or_else(|| format!("{} speaks no TLS", target.address))?;
    let mut load = Command::new(options.binaries().join("examples").join("tunnel_load"));
    load.args(["--connect", &target.address, "--path", "/repos/octo/r1/languages"]).arg("--ca").arg(&tls.ca);
    load.args(["--connections", &connections.to_string(), "--seconds", &time.as_secs().max(1).to_string()]);
    match kind {
        Kind::Tls2 => {
            load.args(["--http", "2", "--streams", "8"]);
        }
        Kind::Handshake => {
            load.arg("--handshakes");
        }
        Kind::ColdHandshake => {
            load.args(["--handshakes", "--once"]);
        }
        _ => {}
    }
    if !tls.tunnel {
        load.arg("--no-tunnel");
    }
    if let Some(token) = &target.token {
        load.args(["--token", token]);
    }
    let hosts = if kind == Kind::ColdHandshake { HOSTS } else { 1 };
    load.args((0..hosts).flat_map(|n| ["--name".to_owned(), host(n)]));
    seen_by("tunnel_load", cores, &load)
}

/// The hosts that tunnels lead to.
pub fn host(n: usize) -> String {
    format!("h{n}.bench.test")
}

fn seen_by(name: &str, cores: &str, command: &Command) -> Result<Seen, String> {
    let output = process::pinned(cores, command).output().map_err(|e| format!("{name}: {e}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().rev().find(|l| l.starts_with('{'));
    let seen: Option<Seen> = line.and_then(|l| serde_json::from_str(l).ok());
    let seen =
        seen.ok_or_else(|| format!("{name} did not finish: {}{text}", String::from_utf8_lossy(&output.stderr)))?;
    seen.sound()
}

/// Hosts of the gateway's route: handshakes of one cold row.
pub const HOSTS: usize = 100;

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
