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
use pingora_core::protocols::{Stream, l4::stream::Stream as L4Stream};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::{Instant, timeout_at},
};
use zeroize::Zeroizing;

use crate::{
    agent,
    caller::{Caller, Heard, Place, tells},
    conn::{ConnState, Ingress, Tunnel},
    exchange::Exchange,
    front::Front,
    reply::{self, Reply},
    way,
};
use head::Head;

/// The stream that is HTTP in the end, and how it came; `None` where the connection is over.
pub(crate) async fn enter(front: &Arc<Front>, mut heard: Heard) -> Option<(Stream, Ingress, Place)> {
    for _ in 0..MAX_TRIES {
        let known = heard.bytes.len().min(CONNECT.len());
        if heard.bytes.get(..known) != CONNECT.get(..known) {
            let Heard { caller: Caller { mut stream, place }, bytes, .. } = heard;
            stream.rewind(&bytes);
            return Some((Box::new(stream), Ingress::default(), place));
        }
        let (caller, head) = whole(heard).await?;
        match attempt(front, caller, &head).await {
            Next::Again(same) => heard = same.hear(Vec::new(), |bytes| tells(bytes, CONNECT)).await?,
            Next::Http(inside, ingress, place) => return Some((inside, ingress, place)),
            Next::Over => return None,
        }
    }
    None
}

/// The whole head, or what came of it in the time there was.
async fn whole(heard: Heard) -> Option<(Caller, Head)> {
    let Heard { caller, mut bytes, .. } = if heard.ended {
        heard
    } else {
        heard.caller.hear(heard.bytes, |bytes| bytes.len() > MAX_HEAD || head::end(bytes).is_some()).await?
    };
    let end = head::end(&bytes).filter(|end| *end <= MAX_HEAD && bytes.starts_with(CONNECT));
    let rest = end.map(|end| bytes.split_off(end)).unwrap_or_default();
    Some((caller, Head { bytes, rest, whole: end.is_some() }))
}

/// What comes after a `CONNECT`.
enum Next {
    /// It was asked who it is, and may say so on the same connection.
    Again(Box<Caller>),
    /// HTTP, inside.
    Http(Stream, Ingress, Place),
    /// Nothing.
    Over,
}

/// One `CONNECT`, from its head to whatever follows.
async fn attempt(front: &Arc<Front>, mut caller: Caller, head: &Head) -> Next {
    let mut x = Exchange::new(front.broker.clone());
    x.arrive(ConnState::new(Ingress::default(), caller.place.life().clone()));
    x.conn.judging();
    x.peer = x.conn.peer();
    x.door = aegis_broker::admit::Door::Connect;
    let snapshot = front.broker.snapshot();
    x.scope = Some(snapshot.tunnel.clone());
    let refusal = match decide(front, head, &snapshot, &mut x).await {
        Ok(Decided::Inside(tunnel)) => return inside(front, caller, head, &snapshot, tunnel, x).await,
        Ok(Decided::Opaque(wanted)) => match opaque::open(front, &wanted, &snapshot, &mut x).await {
            Ok(opened) => {
                x.sent();
                established(&mut caller.stream, head).await;
                opened.run(front, caller, &wanted).await;
                return Next::Over;
            }
            Err(refusal) => refusal,
        },
        Err(refusal) => refusal,
    };
    refuse(front, caller, head, refusal, &mut x).await
}

/// Says that the tunnel is open. A client in a hurry has begun to speak already.
async fn established(stream: &mut L4Stream, head: &Head) -> bool {
    let said = stream.write_all(ESTABLISHED).await.is_ok() && stream.flush().await.is_ok();
    stream.rewind(&head.rest);
    said
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
    mut caller: Caller,
    head: &Head,
    snapshot: &Snapshot,
    tunnel: Inside,
    mut x: Exchange,
) -> Next {
    let Inside { host, port, token, scope } = tunnel;
    let certificate = match front.tls.certificate(snapshot, &host).await {
        Ok(certificate) => certificate,
        Err(error) => {
            tracing::error!(%error, "no certificate can be issued");
            let words = "no certificate can be issued for this host; see the gateway's log";
            let refusal = Reply::closing(StatusCode::SERVICE_UNAVAILABLE, "no_certificate", words);
            return refuse(front, caller, head, refusal, &mut x).await;
        }
    };
    caller.place.takes_root();
    if !established(&mut caller.stream, head).await {
        return Next::Over;
    }
    let agent_id = x.identity.as_ref().map(|i| i.agent.agent_id.clone());
    let (peer, door, trace_id) = (x.peer, x.door, x.trace_id.clone());
    // The request is answered: what follows is another's.
    drop(x);
    let Caller { stream, place } = caller;
    place.greeting();
    let terminated = tokio::select! {
        biased;
        terminated = front.tls.terminate(stream, &host, certificate) => terminated,
        verdict = place.forsaken() => {
            place.note(&verdict);
            return Next::Over;
        }
    };
    match terminated {
        Ok(stream) => {
            place.rests();
            Next::Http(Box::new(stream), Ingress::Tunnel(Tunnel { host, port, token }), place)
        }
        Err(error) => {
            let agent_id = agent_id.as_deref();
            let route = Some(scope.label());
            let about = Refusal { agent_id, route, door, reason: "", detail: None, status: 421, peer, trace_id };
            front.no_tls(error, &about);
            Next::Over
        }
    }
}

/// Answers a refusal. The connection goes on only after a challenge, and only if nothing else was sent.
async fn refuse(front: &Front, mut caller: Caller, head: &Head, refusal: Reply, x: &mut Exchange) -> Next {
    let challenge =
        matches!(&refusal, Reply::Refused { reason, .. } if *reason == AuthError::Missing.reason()) && head.may_go_on();
    let (answer, close) = reply::answer(&front.broker, x, refusal);
    let again = challenge && !close && !x.conn.leaving();
    let bytes = wire(&answer, again);
    let stream = &mut caller.stream;
    let sent = stream.write_all(&bytes).await.is_ok() && stream.flush().await.is_ok();
    if again && sent {
        return Next::Again(Box::new(caller));
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

pub(crate) const CONNECT: &[u8] = b"CONNECT ";
const ESTABLISHED: &[u8] = b"HTTP/1.1 200 Connection established\r\n\r\n";
/// A client may be asked once who it is, and be wrong once.
const MAX_TRIES: usize = 3;
const MAX_HEAD: usize = 16 * 1024;
const LINGER: Duration = Duration::from_millis(300);
