//! The forward proxy's tunnels: `CONNECT host:port` as the first request of a connection.
//!
//! A host that a route serves is never reached through an opaque tunnel: its TLS is ended here and what
//! is inside goes the one way of every request. Any other host is denied, unless policies permit
//! `tunnel.connect` for it.

mod head;
mod opaque;

use std::{sync::Arc, time::Duration};

use aegis_broker::{
    config::ProxyAuth,
    hosts::{Miss, Spoken},
    identity::{AuthError, Identity},
    refuse::Refusal,
    snapshot::{Scope, Snapshot},
};
use aegis_connectors::ErrorReply;
use http::StatusCode;
use pingora_core::{
    protocols::{GetSocketDigest as _, Stream, l4::stream::Stream as L4Stream},
    server::ShutdownWatch,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::{Instant, timeout, timeout_at},
};
use zeroize::Zeroizing;

use crate::{
    agent,
    conn::{Ingress, Tunnel, peer_of},
    exchange::Exchange,
    front::Front,
    reply::{self, Reply},
    way,
};
use head::Head;

/// The stream that is HTTP in the end, and how it came; `None` where the connection is over.
pub(crate) async fn enter(
    front: &Arc<Front>,
    mut stream: L4Stream,
    shutdown: &ShutdownWatch,
) -> Option<(Stream, Ingress)> {
    for _ in 0..MAX_TRIES {
        let head = match first_bytes(&mut stream, shutdown).await? {
            First::Other(bytes) => {
                stream.rewind(&bytes);
                return Some((Box::new(stream), Ingress::default()));
            }
            First::Connect(head) => head,
        };
        match attempt(front, stream, &head, shutdown).await {
            Next::Again(same) => stream = *same,
            Next::Http(inside, ingress) => return Some((inside, ingress)),
            Next::Over => return None,
        }
    }
    None
}

/// What a connection starts with.
enum First {
    /// Not a tunnel: these bytes were read.
    Other(Vec<u8>),
    /// The head of a `CONNECT`, or what came of it in the time there was, and what came after it.
    Connect(Head),
}

/// What comes after a `CONNECT`.
enum Next {
    /// It was asked who it is, and may say so on the same connection.
    Again(Box<L4Stream>),
    /// HTTP, inside.
    Http(Stream, Ingress),
    /// Nothing.
    Over,
}

/// As little as tells a tunnel from a request; of a tunnel, the whole head.
async fn first_bytes(stream: &mut L4Stream, shutdown: &ShutdownWatch) -> Option<First> {
    let mut bytes = Vec::with_capacity(FIRST_READ);
    let mut stopping = shutdown.clone();
    tokio::select! {
        read = timeout(IDLE, stream.read_buf(&mut bytes)) => match read { Ok(Ok(n)) if n > 0 => {} _ => return None },
        // Nothing was asked yet, and nothing will be.
        _ = stopping.wait_for(|stop| *stop) => return None,
    }
    let deadline = Instant::now() + HEAD_TIME;
    loop {
        let known = bytes.len().min(CONNECT.len());
        if bytes.get(..known) != CONNECT.get(..known) {
            return Some(First::Other(bytes));
        }
        if known == CONNECT.len()
            && let Some(end) = head::end(&bytes)
        {
            let rest = bytes.split_off(end);
            return Some(First::Connect(Head { bytes, rest, whole: true }));
        }
        let read = timeout_at(deadline, stream.read_buf(&mut bytes)).await;
        if !matches!(read, Ok(Ok(n)) if n > 0) || bytes.len() > MAX_HEAD {
            return Some(First::Connect(Head { bytes, rest: Vec::new(), whole: false }));
        }
    }
}

/// One `CONNECT`, from its head to whatever follows.
async fn attempt(front: &Arc<Front>, mut stream: L4Stream, head: &Head, shutdown: &ShutdownWatch) -> Next {
    let mut x = Exchange::new(front.broker.clone());
    x.peer = peer_of(stream.get_socket_digest());
    x.door = aegis_broker::admit::Door::Connect;
    let snapshot = front.broker.snapshot();
    x.scope = Some(snapshot.tunnel.clone());
    let refusal = match decide(front, head, &snapshot, &mut x).await {
        Ok(Decided::Inside(tunnel)) => return inside(front, stream, head, &snapshot, tunnel, &x).await,
        Ok(Decided::Opaque(wanted)) => match opaque::open(front, &wanted, &snapshot, &mut x).await {
            Ok(opened) => {
                if stream.write_all(ESTABLISHED).await.is_ok() && stream.flush().await.is_ok() {
                    stream.rewind(&head.rest);
                }
                opened.run(front, stream, &wanted, x.peer, shutdown).await;
                return Next::Over;
            }
            Err(refusal) => refusal,
        },
        Err(refusal) => refusal,
    };
    refuse(front, stream, head, refusal, &mut x).await
}

/// What a `CONNECT` comes to.
enum Decided {
    /// A route serves the host.
    Inside(Inside),
    /// Nobody does: policies are asked.
    Opaque(Box<Wanted>),
}

/// A tunnel whose TLS is ended here.
struct Inside {
    host: String,
    port: u16,
    token: Option<Zeroizing<String>>,
    scope: Arc<Scope>,
}

/// A tunnel that leads out, if it may.
struct Wanted {
    host: String,
    port: u16,
    token: Zeroizing<String>,
    identity: Arc<Identity>,
    request: head::Parsed,
}

async fn decide(front: &Front, head: &Head, snapshot: &Snapshot, x: &mut Exchange) -> Result<Decided, Reply> {
    let request = head.parse()?;
    x.trace_id.clone_from(&request.trace.trace_id);
    let (host, port) = (request.host.clone(), request.port);
    let found = snapshot.hosts.find(&host, Some(port), Spoken::Tls, None);
    if let Ok(entry) = found {
        x.scope = Some(entry.scope.clone());
    }
    let asks = found.is_ok_and(|e| e.scope.route.as_ref().is_some_and(|r| r.proxy_auth == ProxyAuth::Inner));
    let token = match agent::proxy_token(&request.headers) {
        Ok(token) => Some(token),
        // Who it is will be asked inside.
        Err(AuthError::Missing) if asks => None,
        Err(error) => return Err(Reply::proxy_auth(error, None)),
    };
    if token.is_some() {
        x.identity = Some(agent::proxy_identity(&front.broker, &request.headers, x.peer).await?);
    }
    match (found, token, x.identity.clone()) {
        (Ok(entry), token, _) => Ok(Decided::Inside(Inside { host, port, token, scope: entry.scope.clone() })),
        (Err(Miss::Unrouted), Some(token), Some(identity)) => {
            Ok(Decided::Opaque(Box::new(Wanted { host, port, token, identity, request })))
        }
        (Err(miss), _, _) => Err(way::not_routed(miss)),
    }
}

/// Opens the tunnel, ends the TLS in it, and gives back what is inside.
async fn inside(
    front: &Front,
    mut stream: L4Stream,
    head: &Head,
    snapshot: &Snapshot,
    tunnel: Inside,
    x: &Exchange,
) -> Next {
    let Inside { host, port, token, scope } = tunnel;
    let agent_id = x.identity.as_ref().map(|i| i.agent.agent_id.clone());
    let about = Refusal {
        agent_id: agent_id.as_deref(),
        route: Some(scope.label()),
        door: x.door,
        reason: "",
        detail: None,
        status: 421,
        peer: x.peer,
        trace_id: x.trace_id.clone(),
    };
    let certificate = match front.tls.certificate(snapshot, &host).await {
        Ok(certificate) => certificate,
        Err(error) => {
            tracing::error!(%error, "no certificate can be issued");
            let words = "no certificate can be issued for this host; see the gateway's log";
            let refusal = Reply::closing(StatusCode::SERVICE_UNAVAILABLE, "no_certificate", words);
            let mut x = Exchange::new(front.broker.clone());
            (x.peer, x.door, x.scope) = (about.peer, about.door, Some(scope.clone()));
            return refuse(front, stream, head, refusal, &mut x).await;
        }
    };
    if stream.write_all(ESTABLISHED).await.is_err() || stream.flush().await.is_err() {
        return Next::Over;
    }
    // A client in a hurry has begun to speak already.
    stream.rewind(&head.rest);
    match front.tls.terminate(stream, &host, certificate).await {
        Ok(stream) => Next::Http(Box::new(stream), Ingress::Tunnel(Tunnel { host, port, token })),
        Err(error) => {
            front.no_tls(error, &about);
            Next::Over
        }
    }
}

/// Answers a refusal. The connection goes on only after a challenge, and only if nothing else was sent.
async fn refuse(front: &Front, mut stream: L4Stream, head: &Head, refusal: Reply, x: &mut Exchange) -> Next {
    let challenge =
        matches!(&refusal, Reply::Refused { reason, .. } if *reason == AuthError::Missing.reason()) && head.may_go_on();
    let (answer, close) = reply::answer(&front.broker, x, refusal);
    let again = challenge && !close;
    let bytes = wire(&answer, again);
    let sent = stream.write_all(&bytes).await.is_ok() && stream.flush().await.is_ok();
    if again && sent {
        return Next::Again(Box::new(stream));
    }
    // What the client still sends is read for a moment: a reset could overtake the answer.
    let _ = stream.shutdown().await;
    let mut sink = [0; 1024];
    let deadline = Instant::now() + LINGER;
    while matches!(timeout_at(deadline, stream.read(&mut sink)).await, Ok(Ok(n)) if n > 0) {}
    Next::Over
}

fn wire(answer: &ErrorReply, again: bool) -> Vec<u8> {
    let reason = answer.status.canonical_reason().unwrap_or("Refused");
    let mut out = format!("HTTP/1.1 {} {reason}\r\n", answer.status.as_u16()).into_bytes();
    for (name, value) in answer.headers.iter().filter(|(n, _)| *n != http::header::CONTENT_LENGTH) {
        out.extend_from_slice(name.as_str().as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    let connection = if again { "keep-alive" } else { "close" };
    let end = format!(
        "content-length: {}\r\ncache-control: private, no-store\r\nconnection: {connection}\r\n\r\n",
        answer.body.len()
    );
    out.extend_from_slice(end.as_bytes());
    out.extend_from_slice(&answer.body);
    out
}

const CONNECT: &[u8] = b"CONNECT ";
const ESTABLISHED: &[u8] = b"HTTP/1.1 200 Connection established\r\n\r\n";
/// A client may be asked once who it is, and be wrong once.
const MAX_TRIES: usize = 3;
const FIRST_READ: usize = 1024;
const MAX_HEAD: usize = 16 * 1024;
const HEAD_TIME: Duration = Duration::from_secs(10);
/// As Pingora waits for the next request of a connection.
const IDLE: Duration = Duration::from_secs(60);
const LINGER: Duration = Duration::from_millis(300);
