//! From the wire to `http.<method>` and back.

use std::{collections::BTreeMap, sync::Arc};

use aegis_action::{Action, ActionError, CanonError, ToolCall, canonicalize, parse_strict_bounded, stream_marker};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, StatusCode, header};
use serde_json::{Map, Value};

use super::{
    HttpConnector, SYSTEM,
    entries::{self, HOST, RESOURCE},
};
use crate::{
    BodyNeed, Call, EntityRef, Entry, Head, Mapped, Plan, Refusal, UpstreamBody, UpstreamRequest,
    wire::{
        bad, headers,
        path::{self, BAD_PATH},
        query::{self, BAD_QUERY, Pair},
        refuse,
    },
};

/// What `plan` hands to `map`.
struct Parsed {
    entry: Arc<Entry>,
    method: Method,
    /// Path alone, rebuilt.
    path: String,
    query: String,
    parameters: Map<String, Value>,
    headers: Vec<(HeaderName, HeaderValue)>,
    /// The marker for a body that is streamed.
    stream: Option<Value>,
    /// What only identifies the sending.
    sending: BTreeMap<String, String>,
}

pub(super) fn plan(http: &HttpConnector, head: &Head<'_>) -> Result<Plan, Refusal> {
    headers::refuse_method_override(head.headers)?;
    if head.websocket && !http.allow_websocket {
        return Err(bad("upgrade_refused", "the route takes no protocol upgrade"));
    }
    let name = if head.websocket { Some(entries::WEBSOCKET) } else { entries::name(head.method) };
    let entry = name.and_then(|name| http.entries.iter().find(|e| e.name == name)).cloned();
    let entry = entry.ok_or_else(|| refuse("unknown_operation", StatusCode::METHOD_NOT_ALLOWED, "no such method"))?;
    let path = normalise(head.path)?;
    let pairs = query::parse(head.query)?;
    let mut parameters = Map::new();
    if !pairs.is_empty() {
        parameters.insert("query".into(), Value::Object(query_object(&pairs)?));
    }
    let media = headers::media_type(head.headers)?;
    let grpc = media.as_ref().is_some_and(|(media, _)| is_grpc(media));
    if grpc && !http.allow_grpc {
        return Err(refuse("grpc_refused", StatusCode::UNSUPPORTED_MEDIA_TYPE, "the route takes no gRPC"));
    }
    if grpc && *head.method != Method::POST {
        return Err(bad("bad_method", "a gRPC call is a POST"));
    }
    let mut kept = read_headers(http, head, grpc, &mut parameters)?;
    let mut need = BodyNeed::Nothing;
    let mut stream = None;
    if head.websocket {
        stream = Some(stream_marker(None, None));
        need = BodyNeed::Stream;
    } else if head.has_body || grpc {
        if matches!(*head.method, Method::GET | Method::HEAD) {
            return Err(bad("unexpected_body", format!("a {} takes no body", head.method)));
        }
        if let Some(value) = headers::one(head.headers, &header::CONTENT_TYPE)? {
            parameters.insert("content_type".into(), value.into());
            kept.extend(head.headers.get(header::CONTENT_TYPE).map(|v| (header::CONTENT_TYPE, v.clone())));
        }
        if media.as_ref().is_some_and(|(media, _)| is_json(media)) {
            headers::refuse_encoded_body(head.headers)?;
            if media.and_then(|(_, charset)| charset).is_some_and(|c| c != "utf-8") {
                return Err(refuse("bad_media_type", StatusCode::UNSUPPORTED_MEDIA_TYPE, "send JSON as UTF-8"));
            }
            need = BodyNeed::Buffer { max: MAX_JSON };
        } else {
            let digest = match headers::one(head.headers, &CONTENT_DIGEST)? {
                Some(digest) => Some(digest),
                None => headers::one(head.headers, &DIGEST)?,
            };
            stream = Some(stream_marker(head.content_length, digest));
            need = BodyNeed::Stream;
        }
    }
    let parsed = Parsed {
        entry: entry.clone(),
        method: head.method.clone(),
        path,
        query: query::write(&pairs),
        parameters,
        headers: kept,
        stream,
        sending: headers::one(head.headers, &IDEMPOTENCY_KEY)?
            .map(|key| (IDEMPOTENCY_KEY.to_string(), key.to_owned()))
            .into_iter()
            .collect(),
    };
    Ok(Plan { entry: Some(entry), body: need, parsed: Box::new(parsed) })
}

pub(super) fn map(http: &HttpConnector, plan: Plan, body: Option<Bytes>) -> Result<Mapped, Refusal> {
    let foreign = |_| refuse("internal", StatusCode::INTERNAL_SERVER_ERROR, "the plan is another connector's");
    let Parsed { entry, method, path, query, mut parameters, headers, stream, sending } =
        *plan.parsed.downcast().map_err(foreign)?;
    let upstream = match body.filter(|b| !b.is_empty()) {
        _ if stream.is_some() => UpstreamBody::Stream,
        None => UpstreamBody::Empty,
        Some(bytes) => {
            let value = parse_strict_bounded(&bytes, MAX_JSON).map_err(|e| bad(BAD_BODY, e.to_string()))?;
            let sent = canonicalize(&value).map_err(|e| bad(BAD_BODY, e.to_string()))?;
            parameters.insert("body".into(), value);
            UpstreamBody::Bytes(sent.into())
        }
    };
    let call = Call { sending, ..call(http, entry, &path, parameters, stream)? };
    let upstream = UpstreamRequest { method, path_and_query: format!("{path}{query}"), headers, body: upstream };
    Ok(Mapped { calls: vec![call], upstream, rewrite: None })
}

/// An SDK call names the URL as the action has it: this route's origin and a path in its one spelling.
pub(super) fn validate(http: &HttpConnector, call: ToolCall) -> Result<Call, Refusal> {
    let entry = http.entries.iter().find(|e| e.name == call.action && call.tool == SYSTEM).cloned();
    let entry = entry.ok_or_else(|| refuse("unknown_action", StatusCode::NOT_FOUND, "no such action of `http`"))?;
    if call.mutates_state != entry.mutates_state {
        return Err(bad("bad_mutates_state", format!("`mutates_state` of this action is {}", entry.mutates_state)));
    }
    let form = || bad("bad_resource", format!("`resource` must be `{}` and a normalised path", http.origin));
    let path = call.resource.as_deref().and_then(|r| r.strip_prefix(http.origin.as_str())).ok_or_else(form)?;
    if !path.starts_with('/') || normalise(path)? != path {
        return Err(form());
    }
    let path = path.to_owned();
    if call.parameters.get("query").is_some_and(|q| !q.is_object()) {
        return Err(bad("bad_parameter", "`query` must be an object"));
    }
    if call.parameters.get("content_type").is_some_and(|v| !v.is_string()) {
        return Err(bad("bad_parameter", "`content_type` must be a string"));
    }
    self::call(http, entry, &path, call.parameters, None)
}

fn call(
    http: &HttpConnector,
    entry: Arc<Entry>,
    path: &str,
    parameters: Map<String, Value>,
    stream: Option<Value>,
) -> Result<Call, Refusal> {
    let url = format!("{}{path}", http.origin);
    let call = ToolCall {
        tool: SYSTEM.into(),
        action: entry.name.clone(),
        resource: Some(url.clone()),
        mutates_state: entry.mutates_state,
        parameters,
    };
    let action = match stream {
        Some(marker) => Action::with_stream(call, marker),
        None => Action::new(call),
    };
    let action = action.map_err(|e| match e {
        ActionError::Parameters(CanonError::TooLarge(_)) => {
            refuse("too_large", StatusCode::PAYLOAD_TOO_LARGE, e.to_string())
        }
        ActionError::BadName { .. } | ActionError::BadResource | ActionError::Parameters(_) => {
            bad("bad_action", e.to_string())
        }
    })?;
    let resource =
        vec![EntityRef { ty: Arc::from(RESOURCE), id: url }, EntityRef { ty: Arc::from(HOST), id: http.host.clone() }];
    Ok(Call { action, class: entry.class, entry, resource, sending: BTreeMap::new() })
}

/// The path in its one spelling. A slash at its end is kept: to many servers it is another path.
fn normalise(path: &str) -> Result<String, Refusal> {
    let read = path::parse(path)?;
    let mut out = String::with_capacity(path.len());
    for segment in &read.segments {
        if segment.has_slash() {
            return Err(bad(BAD_PATH, "an encoded slash"));
        }
        out.push('/');
        out.push_str(&path::encode(&segment.text).to_string());
    }
    if read.trailing_slash || out.is_empty() {
        out.push('/');
    }
    Ok(out)
}

fn query_object(pairs: &[Pair]) -> Result<Map<String, Value>, Refusal> {
    let mut object = Map::new();
    for pair in pairs {
        // `?acl` and `?acl=` are not the same to all servers.
        let value = pair.value.clone().map_or(Value::Null, Value::from);
        if object.insert(pair.key.clone(), value).is_some() {
            return Err(bad(BAD_QUERY, format!("the query parameter `{}` stands twice", pair.key)));
        }
    }
    Ok(object)
}

/// Neutral headers are passed on; what may change the effect is passed on and counted;
/// what could speak for someone else is dropped.
fn read_headers(
    http: &HttpConnector,
    head: &Head<'_>,
    grpc: bool,
    parameters: &mut Map<String, Value>,
) -> Result<Vec<(HeaderName, HeaderValue)>, Refusal> {
    let mut kept = Vec::with_capacity(8);
    let mut counted = Map::new();
    let all = head.headers;
    for name in all.keys() {
        let text = name.as_str();
        if is_dropped(text)
            || (text.starts_with("sec-websocket-") && !(head.websocket && HANDSHAKE.contains(&text)))
            || (grpc && text == GRPC_ACCEPT_ENCODING)
            || (text == "cookie" && !http.allow_cookies)
            || *name == header::CONTENT_TYPE
        {
            continue;
        }
        let mut values = Vec::new();
        for value in all.get_all(name) {
            values.push(headers::visible(name, value)?);
            kept.push((name.clone(), value.clone()));
        }
        let neutral = NEUTRAL.contains(&text) || (grpc && text == GRPC_TIMEOUT) || HANDSHAKE_OF_ITS_OWN.contains(&text);
        if !neutral {
            counted.insert(text.to_owned(), values.join(", ").into());
        }
    }
    // What is compressed cannot be scrubbed.
    kept.push((header::ACCEPT_ENCODING, HeaderValue::from_static("identity")));
    if !counted.is_empty() {
        parameters.insert("headers".into(), Value::Object(counted));
    }
    Ok(kept)
}

fn is_dropped(name: &str) -> bool {
    // Servers that turn `-` into `_` would take one for the other.
    name.contains('_') || name.starts_with("x-forwarded-") || name.starts_with("aegis-") || DROPPED.contains(&name)
}

fn is_json(media: &str) -> bool {
    media == "application/json" || (media.starts_with("application/") && media.ends_with("+json"))
}

/// `application/grpc` and its kin, `application/grpc-web` included.
fn is_grpc(media: &str) -> bool {
    media.starts_with("application/grpc")
}

const BAD_BODY: &str = "bad_body";
const MAX_JSON: usize = aegis_action::MAX_BYTES;
const CONTENT_DIGEST: HeaderName = HeaderName::from_static("content-digest");
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const DIGEST: HeaderName = HeaderName::from_static("digest");

/// Without it messages come uncompressed, so that they can be scrubbed.
const GRPC_ACCEPT_ENCODING: &str = "grpc-accept-encoding";
const GRPC_TIMEOUT: &str = "grpc-timeout";
/// A WebSocket handshake without its extensions: compressed frames could not be scrubbed.
const HANDSHAKE: [&str; 3] = ["sec-websocket-key", "sec-websocket-protocol", "sec-websocket-version"];
/// What is new in every handshake, or the same in all.
const HANDSHAKE_OF_ITS_OWN: [&str; 2] = ["sec-websocket-key", "sec-websocket-version"];

/// Headers that choose a representation or set a condition, and change nothing at the other end.
const NEUTRAL: [&str; 14] = [
    "accept",
    "accept-language",
    "cache-control",
    "content-digest",
    "digest",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-unmodified-since",
    "idempotency-key",
    "pragma",
    "traceparent",
    "tracestate",
    "user-agent",
];

/// Hop-by-hop, framing, forwarding and credentials.
const DROPPED: [&str; 26] = [
    "accept-encoding",
    "authorization",
    "connection",
    "content-length",
    "expect",
    "forwarded",
    "host",
    "http2-settings",
    "keep-alive",
    "origin",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "referer",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "via",
    "x-amz-security-token",
    "x-api-key",
    "x-auth-token",
    "x-client-cert",
    "x-original-url",
    "x-real-ip",
    "x-rewrite-url",
];
