//! The request body, read before the decision where the decision needs it: bounded in bytes and in time.

use std::time::Duration;

use aegis_broker::config::Route;
use aegis_connectors::BodyNeed;
use bytes::{Bytes, BytesMut};
use http::{Method, StatusCode};
use pingora_proxy::Session;
use tokio::time::{Instant, timeout_at};

use crate::{framing::Request, peer::Kind, reply::Reply};

/// On HTTP/2 a request may end in a frame of its own without having a body: that frame is waited for,
/// where a body would be refused anyway.
pub(crate) async fn settle(session: &mut Session, request: &mut Request) {
    if request.has_body
        && request.unsized_h2
        && matches!(request.method, Method::GET | Method::HEAD)
        && ends_here(session).await
    {
        request.has_body = false;
    }
}

/// What the plan asked for. A body that must not be there is refused, not passed over.
pub(crate) async fn read(
    session: &mut Session,
    need: BodyNeed,
    request: &Request,
    route: &Route,
) -> Result<Option<Bytes>, Reply> {
    match need {
        BodyNeed::Nothing if request.has_body => {
            if request.unsized_h2 && ends_here(session).await {
                return Ok(None);
            }
            Err(Reply::refusal(StatusCode::BAD_REQUEST, "unexpected_body", "this operation takes no body"))
        }
        BodyNeed::Nothing => Ok(None),
        BodyNeed::Stream => {
            proceed(session, request).await?;
            Ok(None)
        }
        BodyNeed::Buffer { max } if request.has_body => {
            let bound = max.min(route.max_body);
            if request.content_length.is_some_and(|n| n > bound as u64) {
                return Err(too_large(bound));
            }
            proceed(session, request).await?;
            buffer(session, bound, request, route.body_timeout).await.map(Some)
        }
        BodyNeed::Buffer { .. } => Ok(Some(Bytes::new())),
    }
}

/// All of it, or a refusal. Used for the gateway's own API as well.
pub(crate) async fn buffer(
    session: &mut Session,
    bound: usize,
    request: &Request,
    limit: Duration,
) -> Result<Bytes, Reply> {
    let length = request.content_length;
    let deadline = Instant::now() + limit;
    let mut read = BytesMut::new();
    // Pingora sends a body that was read before the decision only out of its retry buffer of
    // 64 KiB, and only if that is not empty: it is switched on for the last part of a longer body.
    if length.is_none_or(|n| n <= RETRY_BUFFER) {
        session.enable_retry_buffering();
    }
    loop {
        if length.is_some_and(|n| n.saturating_sub(read.len() as u64) <= RETRY_BUFFER) {
            session.enable_retry_buffering();
        }
        match timeout_at(deadline, session.read_request_body()).await {
            Err(_) => {
                return Err(Reply::closing(
                    StatusCode::REQUEST_TIMEOUT,
                    "body_timeout",
                    "the request body did not arrive in time",
                ));
            }
            Ok(Err(_)) => {
                return Err(Reply::closing(
                    StatusCode::BAD_REQUEST,
                    "bad_body_framing",
                    "the request body is cut short or badly framed",
                ));
            }
            Ok(Ok(None)) => break,
            Ok(Ok(Some(chunk))) => {
                if read.len() + chunk.len() > bound {
                    return Err(too_large(bound));
                }
                read.extend_from_slice(&chunk);
            }
        }
    }
    if length.is_none() && session.retry_buffer_truncated() {
        return Err(Reply::closing(
            StatusCode::LENGTH_REQUIRED,
            "length_required",
            "a body of more than 64 KiB needs a `Content-Length`",
        ));
    }
    // HTTP/2 needs no length to say that there is nothing.
    if length.is_none() && read.is_empty() && !request.unsized_h2 {
        return Err(Reply::closing(
            StatusCode::BAD_REQUEST,
            "bad_body_framing",
            "an empty chunked body; send `Content-Length: 0`",
        ));
    }
    Ok(read.freeze())
}

/// Whether the body turns out to be empty.
async fn ends_here(session: &mut Session) -> bool {
    let deadline = Instant::now() + DRAIN_TIME;
    loop {
        match timeout_at(deadline, session.read_request_body()).await {
            Ok(Ok(Some(chunk))) if chunk.is_empty() => {}
            Ok(Ok(None)) => return true,
            Ok(Ok(Some(_)) | Err(_)) | Err(_) => return false,
        }
    }
}

/// How long the agent may be silent within a body that is passed on as it comes.
pub(crate) fn pace(session: &mut Session, route: &Route, kind: Kind) {
    let silence = match kind {
        Kind::Http | Kind::Fact => route.body_timeout,
        Kind::Grpc | Kind::WebSocket => route.egress.stream_idle,
    };
    session.set_read_timeout(Some(silence));
}

/// Reads what is left of a refused request's body, so that the client gets to read the refusal.
/// `false` where it is too much or too slow: the connection is closed instead.
pub(crate) async fn drain(session: &mut Session) -> bool {
    let deadline = Instant::now() + DRAIN_TIME;
    let mut drained = 0;
    while drained < DRAIN_BYTES {
        match timeout_at(deadline, session.read_request_body()).await {
            Ok(Ok(Some(chunk))) => drained += chunk.len(),
            Ok(Ok(None)) => return true,
            Ok(Err(_)) | Err(_) => return false,
        }
    }
    false
}

async fn proceed(session: &mut Session, request: &Request) -> Result<(), Reply> {
    if request.expects_continue {
        session
            .write_continue_response()
            .await
            .map_err(|_| Reply::closing(StatusCode::BAD_REQUEST, "client_gone", "the client closed the connection"))?;
    }
    Ok(())
}

fn too_large(bound: usize) -> Reply {
    Reply::closing(
        StatusCode::PAYLOAD_TOO_LARGE,
        "body_too_large",
        &format!("the request body may have {bound} bytes at most"),
    )
}

const RETRY_BUFFER: u64 = 64 * 1024;
const DRAIN_BYTES: usize = 256 * 1024;
const DRAIN_TIME: Duration = Duration::from_millis(500);
