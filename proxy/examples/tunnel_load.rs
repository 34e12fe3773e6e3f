//! The benchmark's load inside TLS: `tunnel_load <options>`, and `tunnel_load certificate <folder> <name>`
//! for a baseline that needs a certificate of its own.
//!
//! wrk speaks neither CONNECT nor HTTP/2. Prints one line of JSON as `tests/bench/load.lua` does.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

type AnyError = Box<dyn std::error::Error + Send + Sync>;

const USAGE: &str = "usage: tunnel_load --connect ADDRESS --name HOST [--name HOST …] --ca FILE [--token TOKEN] \
                     [--http 1|2] [--streams N] [--connections N] [--seconds N] [--path PATH] [--handshakes] [--once] [--no-tunnel]\n\
                     \x20      tunnel_load certificate FOLDER NAME";

/// What is asked for.
struct Options {
    /// Proxy, or server where there is no tunnel.
    connect: String,
    /// Hosts that are asked for, in turn.
    names: Vec<String>,
    /// Root that certificates lead to.
    ca: String,
    token: Option<String>,
    h2: bool,
    /// Requests at once on one HTTP/2 connection.
    streams: usize,
    connections: usize,
    time: Duration,
    path: String,
    /// Each request on a connection of its own, TLS without resumption.
    handshakes: bool,
    /// No host twice; ends when each was asked.
    once: bool,
    tunnel: bool,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), AnyError> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let [first, folder, name] = args.as_slice()
        && first == "certificate"
    {
        return certificate(folder, name);
    }
    let load = Arc::new(Load::new(Options::read(args)?)?);
    let until = Instant::now() + load.options.time;
    let started = Instant::now();
    let mut tasks = JoinSet::new();
    for _ in 0..load.options.connections {
        let load = load.clone();
        tasks.spawn(async move { load.connection(until).await });
    }
    let (mut took, mut broken) = (Vec::new(), 0);
    while let Some(done) = tasks.join_next().await {
        let (times, failed) = done?;
        took.extend(times);
        if let Some(error) = failed {
            eprintln!("tunnel_load: {error}");
            broken += 1;
        }
    }
    let duration = started.elapsed().as_micros();
    took.sort_unstable();
    let at = |part: usize| took.get((took.len() * part / 100).min(took.len().saturating_sub(1))).copied().unwrap_or(0);
    let refused = load.refused.load(Ordering::Relaxed);
    println!(
        "{{\"requests\":{},\"duration_us\":{duration},\"p50_us\":{},\"p99_us\":{},\"refused\":{refused},\"broken\":{broken}}}",
        took.len(),
        at(50),
        at(99)
    );
    Ok(())
}

impl Options {
    fn read(args: Vec<String>) -> Result<Self, AnyError> {
        let mut options = Self {
            connect: String::new(),
            names: Vec::new(),
            ca: String::new(),
            token: None,
            h2: false,
            streams: 1,
            connections: 1,
            time: Duration::from_secs(1),
            path: "/".into(),
            handshakes: false,
            once: false,
            tunnel: true,
        };
        let mut args = args.into_iter();
        while let Some(arg) = args.next() {
            let mut value = || args.next().ok_or(USAGE);
            match arg.as_str() {
                "--connect" => options.connect = value()?,
                "--name" => options.names.push(value()?),
                "--ca" => options.ca = value()?,
                "--token" => options.token = Some(value()?),
                "--http" => options.h2 = value()? == "2",
                "--streams" => options.streams = value()?.parse()?,
                "--connections" => options.connections = value()?.parse()?,
                "--seconds" => options.time = Duration::from_secs(value()?.parse()?),
                "--path" => options.path = value()?,
                "--handshakes" => options.handshakes = true,
                "--once" => options.once = true,
                "--no-tunnel" => options.tunnel = false,
                _ => return Err(USAGE.into()),
            }
        }
        if options.connect.is_empty() || options.names.is_empty() || options.ca.is_empty() {
            return Err(USAGE.into());
        }
        Ok(options)
    }
}

struct Load {
    options: Options,
    tls: TlsConnector,
    /// Which host is next.
    turn: AtomicU64,
    refused: AtomicU64,
}

impl Load {
    fn new(options: Options) -> Result<Self, AnyError> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(&options.ca)? {
            roots.add(certificate?)?;
        }
        let mut config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![if options.h2 { b"h2".to_vec() } else { b"http/1.1".to_vec() }];
        // A handshake that is measured is a whole one.
        config.resumption = rustls::client::Resumption::disabled();
        let tls = TlsConnector::from(Arc::new(config));
        Ok(Self { options, tls, turn: AtomicU64::new(0), refused: AtomicU64::new(0) })
    }

    /// Requests until the end; how long each took, and what ended it early.
    async fn connection(&self, until: Instant) -> (Vec<u32>, Option<AnyError>) {
        let mut took = Vec::new();
        let result = match (self.options.handshakes, self.options.h2) {
            (true, _) => self.handshakes(until, &mut took).await,
            (false, false) => self.http1(until, &mut took).await,
            (false, true) => self.http2(until, &mut took).await,
        };
        (took, result.err())
    }

    async fn handshakes(&self, until: Instant, took: &mut Vec<u32>) -> Result<(), AnyError> {
        let last = if self.options.once { self.options.names.len() as u64 } else { u64::MAX };
        while Instant::now() < until {
            let turn = self.turn.fetch_add(1, Ordering::Relaxed);
            if turn >= last {
                break;
            }
            let started = Instant::now();
            let (mut stream, name) = self.open(turn).await?;
            self.exchange(&mut stream, &name, &mut Vec::new()).await?;
            took.push(micros(started));
        }
        Ok(())
    }

    async fn http1(&self, until: Instant, took: &mut Vec<u32>) -> Result<(), AnyError> {
        let (mut stream, name) = self.open(self.turn.fetch_add(1, Ordering::Relaxed)).await?;
        let mut buffer = Vec::with_capacity(16 * 1024);
        while Instant::now() < until {
            let started = Instant::now();
            self.exchange(&mut stream, &name, &mut buffer).await?;
            took.push(micros(started));
        }
        Ok(())
    }

    async fn http2(&self, until: Instant, took: &mut Vec<u32>) -> Result<(), AnyError> {
        let (stream, name) = self.open(self.turn.fetch_add(1, Ordering::Relaxed)).await?;
        let (send, connection) = h2::client::handshake(stream).await?;
        tokio::spawn(connection);
        let mut streams = JoinSet::new();
        for _ in 0..self.options.streams {
            let (mut send, request) = (send.clone(), self.request(&name)?);
            streams.spawn(async move {
                let (mut took, mut refused) = (Vec::new(), 0);
                while Instant::now() < until {
                    let started = Instant::now();
                    send = send.ready().await?;
                    let (answer, _) = send.send_request(request.clone(), true)?;
                    let answer = timeout(PATIENCE, answer).await??;
                    refused += u64::from(answer.status().as_u16() >= 400);
                    let mut body = answer.into_body();
                    while let Some(chunk) = body.data().await {
                        let length = chunk?.len();
                        body.flow_control().release_capacity(length)?;
                    }
                    took.push(micros(started));
                }
                Ok::<_, AnyError>((took, refused))
            });
        }
        while let Some(done) = streams.join_next().await {
            let (times, refused) = done??;
            took.extend(times);
            self.refused.fetch_add(refused, Ordering::Relaxed);
        }
        Ok(())
    }

    /// A tunnel with TLS in it, to the host whose turn it is.
    async fn open(&self, turn: u64) -> Result<(TlsStream<TcpStream>, String), AnyError> {
        let name = self.options.names.get(turn as usize % self.options.names.len()).ok_or(USAGE)?.clone();
        let mut stream = TcpStream::connect(&self.options.connect).await?;
        stream.set_nodelay(true)?;
        if self.options.tunnel {
            let identity = self.options.token.as_ref().map(|t| format!("Proxy-Authorization: Bearer {t}\r\n"));
            let head =
                format!("CONNECT {name}:443 HTTP/1.1\r\nHost: {name}:443\r\n{}\r\n", identity.unwrap_or_default());
            stream.write_all(head.as_bytes()).await?;
            let mut answer = Vec::new();
            while !answer.ends_with(b"\r\n\r\n") {
                if timeout(PATIENCE, stream.read_buf(&mut answer)).await?? == 0 {
                    return Err("the proxy closed the tunnel".into());
                }
            }
            if !answer.starts_with(b"HTTP/1.1 200 ") {
                return Err(format!("the proxy answered `{}`", String::from_utf8_lossy(&answer)).into());
            }
        }
        let tls = timeout(PATIENCE, self.tls.connect(ServerName::try_from(name.clone())?, stream)).await??;
        Ok((tls, name))
    }

    async fn exchange(
        &self,
        stream: &mut TlsStream<TcpStream>,
        name: &str,
        buffer: &mut Vec<u8>,
    ) -> Result<(), AnyError> {
        let request = format!(
            "GET {} HTTP/1.1\r\nHost: {name}\r\nUser-Agent: bench\r\nAccept: application/vnd.github+json\r\n\r\n",
            self.options.path
        );
        stream.write_all(request.as_bytes()).await?;
        buffer.clear();
        loop {
            if timeout(PATIENCE, stream.read_buf(buffer)).await?? == 0 {
                return Err("the server closed the connection".into());
            }
            if let Some((status, end)) = whole(buffer) {
                self.refused.fetch_add(u64::from(status >= 400), Ordering::Relaxed);
                return if end == buffer.len() { Ok(()) } else { Err("more came than one answer".into()) };
            }
        }
    }

    fn request(&self, name: &str) -> Result<http::Request<()>, AnyError> {
        let request = http::Request::get(format!("https://{name}{}", self.options.path))
            .header("user-agent", "bench")
            .header("accept", "application/vnd.github+json");
        Ok(request.body(())?)
    }
}

/// Status and length of an answer that is all there: by its length, or by its chunks.
fn whole(bytes: &[u8]) -> Option<(u16, usize)> {
    let head_end = bytes.windows(4).position(|w| w == b"\r\n\r\n")? + 4;
    let head = std::str::from_utf8(bytes.get(..head_end)?).ok()?.to_ascii_lowercase();
    let status = head.get(9..12)?.parse().ok()?;
    if let Some(length) = head.lines().find_map(|l| l.strip_prefix("content-length:")) {
        let end = head_end + length.trim().parse::<usize>().ok()?;
        return (bytes.len() >= end).then_some((status, end));
    }
    bytes.ends_with(b"\r\n0\r\n\r\n").then_some((status, bytes.len()))
}

fn micros(since: Instant) -> u32 {
    u32::try_from(since.elapsed().as_micros()).unwrap_or(u32::MAX)
}

/// Writes `root.pem`, and a leaf under it as `cert.pem` and `key.pem`. P-256, as the gateway's own.
fn certificate(folder: &str, name: &str) -> Result<(), AnyError> {
    let root_key = rcgen::KeyPair::generate()?;
    let mut root = rcgen::CertificateParams::new(Vec::new())?;
    root.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    root.distinguished_name.push(rcgen::DnType::CommonName, "benchmark root");
    let root_certificate = root.self_signed(&root_key)?;
    let issuer = rcgen::Issuer::from_params(&root, &root_key);
    let key = rcgen::KeyPair::generate()?;
    let leaf = rcgen::CertificateParams::new(vec![name.to_owned()])?.signed_by(&key, &issuer)?;
    let folder = std::path::Path::new(folder);
    std::fs::write(folder.join("root.pem"), pem("CERTIFICATE", root_certificate.der()))?;
    std::fs::write(folder.join("cert.pem"), pem("CERTIFICATE", leaf.der()))?;
    std::fs::write(folder.join("key.pem"), pem("PRIVATE KEY", &key.serialize_der()))?;
    Ok(())
}

/// RFC 7468. A line of any length is read by whoever reads it here.
fn pem(label: &str, der: &[u8]) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    format!("-----BEGIN {label}-----\n{text}\n-----END {label}-----\n")
}

const PATIENCE: Duration = Duration::from_secs(10);
