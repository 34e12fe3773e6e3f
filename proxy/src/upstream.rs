//! The upstream side of an exchange: the request rebuilt, the answer's head guarded.

use aegis_action::Timestamp;
use aegis_broker::{Broker, permit::Outcome};
use aegis_connectors::UpstreamBody;
use aegis_receipts::OutcomeState;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use pingora_error::{Error, ErrorType, Result};
use pingora_http::{RequestHeader, ResponseHeader};

use crate::{
    exchange::Exchange,
    rewrite::{moved, moved_link},
};

/// The request from its one parse, with the credential.
pub(crate) fn rebuild(x: &mut Exchange) -> Result<RequestHeader> {
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
    sending.started = true;
    // Made from parts, it has no table of header spellings to keep beside the headers.
    Ok(head.into())
}

/// Strips, scrubs and rewrites the answer's head; refuses an answer that cannot be looked into.
pub(crate) fn guard_head(broker: &Broker, answer: &mut ResponseHeader, x: &mut Exchange) -> Result<()> {
    let route = x.scope.as_ref().map(|s| s.label().to_owned()).unwrap_or_default();
    let is_head = x.is_head();
    if answer.status.is_informational() {
        // Interim answers are for the connection that asked: the agent's own was answered by us.
        let names: Vec<HeaderName> = answer.headers.keys().cloned().collect();
        names.iter().for_each(|name| drop(answer.remove_header(name)));
        return Ok(());
    }
    let ours = std::mem::take(&mut x.headers);
    let asked = x.path.clone();
    let sending = x.sending()?;
    sending.status = Some(answer.status.as_u16());
    broker.metrics.upstream_seconds.observe(sending.leased.elapsed().as_secs_f64());
    let class = match answer.status.as_u16() {
        200..=299 => "2xx",
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
    let encoded =
        answer.headers.get(header::CONTENT_ENCODING).is_some_and(|v| !v.as_bytes().eq_ignore_ascii_case(b"identity"));
    if encoded && !bodyless && sending.credential.is_some() {
        sending.fail("encoded_answer");
        return Err(Error::explain(ErrorType::HTTPStatus(502), "upstream encoded an answer that was asked for plain"));
    }
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
    for (name, value) in ours {
        answer.insert_header(HeaderName::from_static(name), value)?;
    }
    Ok(())
}

/// An outcome for a permit that was spent without anything leaving the gateway.
pub(crate) fn nothing_sent(now: Timestamp) -> Outcome {
    Outcome::ended(OutcomeState::Aborted, now)
}

fn mask_headers(answer: &mut ResponseHeader, sending: &mut crate::exchange::Sending) {
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
