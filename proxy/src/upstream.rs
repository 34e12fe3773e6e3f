//! The upstream side of an exchange: the request rebuilt, the answer's head guarded.

use aegis_action::Timestamp;
use aegis_broker::{Broker, permit::Outcome};
use aegis_connectors::UpstreamBody;
use aegis_receipts::OutcomeState;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Version, header};
use pingora_error::{Error, ErrorType, Result};
use pingora_http::{RequestHeader, ResponseHeader};

use crate::{
    decode::Coding,
    exchange::{Exchange, Sending},
    grpc,
    peer::Kind,
    rewrite::{moved, moved_link},
    websocket,
};

/// The request from its one parse, with the credential, for a connection of this HTTP version.
pub(crate) fn rebuild(version: Version, x: &mut Exchange) -> Result<RequestHeader> {
    let (kind, coding) = (x.kind, x.coding());
    let scope = x.scope.clone().ok_or_else(|| internal("no route"))?;
    let route = scope.route.as_ref().ok_or_else(|| internal("no route"))?;
    let host = scope.upstream_host.clone().ok_or_else(|| internal("no host"))?;
    let sending = x.sending()?;
    let mut path = format!("{}{}", route.upstream.base_path, sending.request.path_and_query);
    let credential = sending.credential.clone();
    if let Some(credential) = &credential {
        credential.apply_query(&mut path);
    }
    let method = sending.request.method.clone();
    let mut headers = HeaderMap::with_capacity(sending.request.headers.len() + 4);
    headers.insert(header::HOST, host);
    for (name, value) in &sending.request.headers {
        headers.append(name.clone(), value.clone());
    }
    match kind {
        Kind::Http | Kind::Fact => {
            // Connectors ask for plain answers; what we can take off again may come encoded.
            headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static(coding));
        }
        Kind::Grpc => {
            headers.insert(header::TE, HeaderValue::from_static("trailers"));
        }
        Kind::WebSocket => websocket::ask(&mut headers),
    }
    match &sending.request.body {
        UpstreamBody::Bytes(body) => {
            headers.insert(header::CONTENT_LENGTH, body.len().into());
        }
        UpstreamBody::Empty if matches!(method, http::Method::POST | http::Method::PUT | http::Method::PATCH) => {
            headers.insert(header::CONTENT_LENGTH, 0.into());
        }
        // A stream keeps the framing that Pingora gives it.
        UpstreamBody::Empty | UpstreamBody::Stream => {}
    }
    if let Some(credential) = &credential {
        // Last, so that nothing of the request can stand in its place.
        if let Some((name, value)) = credential.header().map_err(|_| internal("credential cannot be sent"))? {
            headers.insert(name, value);
        }
    }
    let (mut head, ()) = http::Request::new(()).into_parts();
    head.uri = path.parse().map_err(|_| internal("the path is not a URI"))?;
    (head.method, head.headers) = (method, headers);
    if version == Version::HTTP_2 {
        head.version = version;
    }
    sending.started = true;
    // Made from parts, it has no table of header spellings to keep beside the headers.
    Ok(head.into())
}

/// Strips, scrubs and rewrites the answer's head; refuses an answer that cannot be looked into.
pub(crate) fn guard_head(broker: &Broker, answer: &mut ResponseHeader, x: &mut Exchange) -> Result<()> {
    let route = x.scope.as_ref().map(|s| s.label().to_owned()).unwrap_or_default();
    let (is_head, kind) = (x.is_head(), x.kind);
    let switched = answer.status == StatusCode::SWITCHING_PROTOCOLS;
    if answer.status.is_informational() && !switched {
        // Interim answers are for the connection that asked: the agent's own was answered by us.
        let names: Vec<HeaderName> = answer.headers.keys().cloned().collect();
        names.iter().for_each(|name| drop(answer.remove_header(name)));
        return Ok(());
    }
    let asked = x.path.clone();
    let sending = x.sending()?;
    sending.status = Some(answer.status.as_u16());
    broker.metrics.upstream_seconds.observe(sending.leased.elapsed().as_secs_f64());
    let class = match answer.status.as_u16() {
        101 | 200..=299 => "2xx",
        300..=399 => "3xx",
        400..=499 => "4xx",
        _ => "5xx",
    };
    broker.metrics.upstream_answers.with_label_values(&[&route, class]).inc();
    let _ = answer.set_reason_phrase(None);
    let stripped: Vec<HeaderName> = answer.headers.keys().filter(|name| STRIPPED.contains(name)).cloned().collect();
    for name in stripped {
        answer.remove_header(&name);
    }
    let bodyless = is_head || matches!(answer.status.as_u16(), 204 | 304);
    if switched {
        websocket::keep_to(&sending.request.headers, answer).map_err(|why| refused(sending, "bad_handshake", why))?;
        sending.switched();
    } else if kind == Kind::Grpc && grpc::is_grpc(&answer.headers) {
        if grpc::is_compressed(&answer.headers) && sending.credential.is_some() {
            return Err(refused(sending, "encoded_answer", "upstream compressed messages unasked"));
        }
        sending.guard.messages();
    }
    take_off_coding(answer, sending, bodyless)?;
    mask_headers(answer, sending);
    if let Some((fields, from, to)) = sending.guard.urls() {
        rewrite_header(answer, header::LOCATION, |v| moved(v, &from, &to));
        let page = |url: &str| {
            let (path, query) = url.strip_prefix(&from)?.split_once('?')?;
            let same = fields.page(&asked, path)?;
            // The base already has what Enterprise clients put in front.
            Some(format!("{to}{}?{query}", same.strip_prefix("/api/v3").unwrap_or(same)))
        };
        rewrite_header(answer, header::LINK, |v| moved_link(v, |url| page(url).or_else(|| moved(url, &from, &to))));
        let json = answer.headers.get(header::CONTENT_TYPE).is_some_and(|v| is_json(v.as_bytes()));
        if json && !bodyless && sending.guard.rewrite_json() {
            answer.remove_header(&header::CONTENT_LENGTH);
            answer.insert_header(header::TRANSFER_ENCODING, "chunked")?;
        }
    }
    // Kept as well: what breaks before the head has gone is answered by us.
    for (name, value) in &x.headers {
        answer.insert_header(HeaderName::from_static(name), value.as_str())?;
    }
    Ok(())
}

/// An answer that must be looked into goes on plain; one that cannot be is refused.
fn take_off_coding(answer: &mut ResponseHeader, sending: &mut Sending, bodyless: bool) -> Result<()> {
    let coding = Coding::of(&answer.headers);
    if coding == Coding::Identity || (sending.credential.is_none() && sending.guard.urls().is_none()) {
        return Ok(());
    }
    if coding == Coding::Unknown || answer.status == StatusCode::PARTIAL_CONTENT {
        return match sending.credential {
            Some(_) if !bodyless => {
                Err(refused(sending, "encoded_answer", "upstream encoded an answer beyond reading"))
            }
            _ => Ok(()),
        };
    }
    // What describes the encoded bytes describes nothing that the agent gets. Its length included.
    for name in OF_THE_CODED {
        answer.remove_header(&name);
    }
    let strong = answer.headers.get(header::ETAG).filter(|tag| tag.as_bytes().starts_with(b"\""));
    if let Some(weak) = strong.and_then(|tag| HeaderValue::from_bytes(&[b"W/", tag.as_bytes()].concat()).ok()) {
        answer.insert_header(header::ETAG, weak)?;
    }
    if !bodyless {
        sending.guard.decode(coding);
        answer.insert_header(header::TRANSFER_ENCODING, "chunked")?;
    }
    Ok(())
}

/// gRPC has its status in the trailers; elsewhere they are dropped, and what the guard still held
/// becomes the end of the body.
pub(crate) fn guard_trailers(trailers: &mut HeaderMap, x: &mut Exchange) -> Result<Option<Bytes>> {
    let kind = x.kind;
    let sending = x.sending()?;
    let mut rest = None;
    sending.guard_body(&mut rest, true)?;
    if kind == Kind::Grpc {
        let masked = grpc::guard_trailers(trailers, sending.guard.echoes());
        sending.guard.note_masked(masked);
        // A broken stream could leave a part of a message; its status matters more.
        return Ok(None);
    }
    trailers.clear();
    Ok(rest)
}

fn refused(sending: &mut Sending, fault: &'static str, why: &'static str) -> Box<Error> {
    sending.fail(fault);
    Error::explain(ErrorType::HTTPStatus(502), why)
}

/// An outcome for a permit that was spent without anything leaving the gateway.
pub(crate) fn nothing_sent(now: Timestamp) -> Outcome {
    Outcome::ended(OutcomeState::Aborted, now)
}

fn mask_headers(answer: &mut ResponseHeader, sending: &mut Sending) {
    let Some(echoes) = sending.guard.echoes().cloned() else { return };
    let echoing: Vec<HeaderName> =
        answer.headers.iter().filter(|(_, v)| echoes.found_in(v.as_bytes())).map(|(n, _)| n.clone()).collect();
    for name in echoing {
        let values: Vec<Vec<u8>> = answer.headers.get_all(&name).iter().map(|v| v.as_bytes().to_vec()).collect();
        answer.remove_header(&name);
        for mut value in values {
            sending.guard.note_masked(echoes.mask(&mut value));
            if let Ok(value) = HeaderValue::from_bytes(&value) {
                let _ = answer.append_header(name.clone(), value);
            }
        }
    }
    // A header name can be an echo as well; such a header goes.
    let named: Vec<HeaderName> =
        answer.headers.keys().filter(|n| echoes.found_in(n.as_str().as_bytes())).cloned().collect();
    for name in named {
        answer.remove_header(&name);
        sending.guard.note_masked(1);
    }
}

fn rewrite_header(answer: &mut ResponseHeader, name: HeaderName, rewrite: impl Fn(&str) -> Option<String>) {
    let moved = answer.headers.get(&name).and_then(|v| v.to_str().ok()).and_then(rewrite);
    if let Some(value) = moved {
        let _ = answer.insert_header(name, value);
    }
}

fn is_json(content_type: &[u8]) -> bool {
    let essence = content_type.split(|b| *b == b';').next().unwrap_or_default().trim_ascii();
    essence.eq_ignore_ascii_case(b"application/json") || essence.to_ascii_lowercase().ends_with(b"+json")
}

fn internal(what: &'static str) -> Box<Error> {
    Error::explain(ErrorType::InternalError, what)
}

const OF_THE_CODED: [HeaderName; 6] = [
    header::CONTENT_ENCODING,
    header::CONTENT_LENGTH,
    header::ACCEPT_RANGES,
    HeaderName::from_static("content-md5"),
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("digest"),
];
/// Hop-by-hop, ways around the gateway, and state of the upstream's own with the credential's owner.
const STRIPPED: [HeaderName; 7] = [
    HeaderName::from_static("alt-svc"),
    HeaderName::from_static("set-cookie"),
    HeaderName::from_static("set-cookie2"),
    HeaderName::from_static("aegis-decision"),
    HeaderName::from_static("aegis-receipt"),
    HeaderName::from_static("aegis-action-hash"),
    HeaderName::from_static("aegis-reason"),
];
