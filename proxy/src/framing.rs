//! The head, read strictly: what Pingora lets pass and we do not.

use std::sync::Arc;

use aegis_action::SourceTrust;
use aegis_broker::{admit::Trace, snapshot::Scope};
use aegis_connectors::{Connector, Head, Plan, Refusal};
use http::{HeaderMap, HeaderName, Method, StatusCode, Version, header};
use memchr::{memchr, memchr2_iter};
use pingora_core::protocols::http::ServerSession;
use pingora_proxy::Session;

use crate::{
    conn::{ConnState, Ingress},
    exchange::Exchange,
    grpc,
    reply::Reply,
    target::Target,
    websocket,
};

/// A head that passed.
pub(crate) struct Request {
    pub(crate) method: Method,
    /// Origin-form, as sent.
    pub(crate) path: String,
    pub(crate) query: Option<String>,
    /// Lower case, with port if one was sent.
    pub(crate) host: String,
    /// The same, taken apart; `None` where HTTP/1.0 sent none.
    pub(crate) target: Option<Target>,
    /// The request line named the whole URL: the gateway is used as a forward proxy.
    pub(crate) absolute: bool,
    /// End-to-end headers only; the agent's credential is still among `credentials`.
    pub(crate) headers: HeaderMap,
    /// Headers in which clients put credentials.
    pub(crate) credentials: HeaderMap,
    pub(crate) content_length: Option<u64>,
    pub(crate) has_body: bool,
    /// HTTP/2, and the body's length is not known.
    pub(crate) unsized_h2: bool,
    pub(crate) expects_continue: bool,
    /// A WebSocket handshake, checked.
    pub(crate) websocket: bool,
    pub(crate) version: Version,
    pub(crate) trace: Trace,
    pub(crate) declared_trust: Option<SourceTrust>,
}

/// Reads and checks the head of the session's request.
pub(crate) fn read(session: &Session, conn: &ConnState) -> Result<Request, Reply> {
    let head = session.req_header();
    match session.as_downstream() {
        ServerSession::H1(h1) => check_wire(&h1.get_headers_raw_bytes())?,
        _ => check_fields(&head.headers)?,
    }
    // Without TLS, HTTP/2 is spoken on the listeners of gRPC routes alone.
    let scheme = conn.ingress().scheme();
    // Where `Host` stands in for `:authority` the parser keeps no scheme.
    let other = head.uri.scheme_str().is_some_and(|s| s != scheme);
    if head.version == Version::HTTP_2 && head.method != Method::CONNECT && other {
        return Err(bad("bad_scheme", &format!("`:scheme` must be `{scheme}`")));
    }
    let websocket =
        websocket::asked_for(&head.method, head.version, &head.headers).map_err(|why| bad("upgrade_refused", why))?;
    if ![Version::HTTP_10, Version::HTTP_11, Version::HTTP_2].contains(&head.version) {
        return Err(bad("bad_version", "unsupported HTTP version"));
    }
    let method = head.method.clone();
    if method == Method::CONNECT {
        let words = "`CONNECT` is taken as the first request of a connection to the agents' listener only";
        return Err(Reply::closing(StatusCode::METHOD_NOT_ALLOWED, "bad_method", words));
    }
    if !METHODS.contains(&method) {
        return Err(Reply::refusal(StatusCode::METHOD_NOT_ALLOWED, "bad_method", "this method is never forwarded"));
    }
    let raw = std::str::from_utf8(head.raw_path()).map_err(|_| bad("bad_path", "the path is not ASCII"))?;
    let (raw, named) = target_form(raw, conn)?;
    if !raw.starts_with('/')
        || raw.len() > MAX_TARGET
        || raw.bytes().any(|b| !(0x21..=0x7e).contains(&b))
        || raw.contains('#')
    {
        return Err(bad("bad_path", "the request target must be an origin-form path of visible ASCII"));
    }
    let (path, query) = raw.split_once('?').map_or((raw, None), |(p, q)| (p, Some(q)));
    let host = match named {
        Some(named) => named_host(&head.headers, named)?,
        None => host(&head.headers, head.version, head.uri.authority().map(|a| a.as_str()))?,
    };
    let target = Target::parse(&host);
    if target.is_none() && !(host.is_empty() && head.version == Version::HTTP_10) {
        return Err(bad("bad_host", "`Host` is not a host name or address with an optional port"));
    }
    let (content_length, chunked) = framing_headers(&head.headers, head.version)?;
    let has_body = chunked
        || content_length.is_some_and(|n| n > 0)
        || (head.version == Version::HTTP_2 && content_length.is_none() && !end_of_stream(session));
    let (headers, credentials) = split(&head.headers)?;
    Ok(Request {
        path: path.to_owned(),
        query: query.map(str::to_owned),
        host,
        target,
        absolute: named.is_some(),
        content_length,
        has_body,
        unsized_h2: head.version == Version::HTTP_2 && content_length.is_none(),
        expects_continue: expects_continue(&head.headers)?,
        websocket,
        version: head.version,
        trace: trace(&headers, &head.headers)?,
        declared_trust: declared_trust(&head.headers)?,
        headers,
        credentials,
        method,
    })
}

/// Origin-form as it is; absolute-form taken apart, where the connection takes it.
fn target_form<'r>(raw: &'r str, conn: &ConnState) -> Result<(&'r str, Option<&'r str>), Reply> {
    let Some((scheme, rest)) = raw.split_once("://").filter(|(s, _)| s.bytes().all(|b| b.is_ascii_alphabetic())) else {
        return Ok((raw, None));
    };
    if !matches!(conn.ingress(), Ingress::Plain { route: None }) {
        return Err(bad("bad_path", "the request target must be an origin-form path"));
    }
    if !scheme.eq_ignore_ascii_case("http") {
        let words = "only `http://` can be asked for by its whole URL; for `https://` open a tunnel with `CONNECT`";
        return Err(bad("bad_scheme", words));
    }
    match rest.find('/') {
        Some(at) => rest.split_at_checked(at).map(|(host, path)| (path, Some(host))),
        None => Some(("/", Some(rest))),
    }
    .ok_or_else(|| bad("bad_path", "the request target is not a URL"))
}

/// The host of an absolute-form target; a `Host` beside it must be the same (RFC 9112, section 3.2.2).
fn named_host(headers: &HeaderMap, named: &str) -> Result<String, Reply> {
    let same = headers.get_all(header::HOST).iter().all(|h| h.as_bytes().eq_ignore_ascii_case(named.as_bytes()));
    if !same || named.is_empty() {
        return Err(bad("bad_host", "`Host` and the request target differ"));
    }
    Ok(named.to_ascii_lowercase())
}

/// Whether the route takes what the request wants to become.
pub(crate) fn suits(request: &Request, x: &Exchange) -> Result<(), Reply> {
    let egress = &x.route()?.egress;
    if !egress.websocket {
        no_upgrade(request)?;
    }
    if egress.grpc && grpc::is_grpc(&request.headers) && request.version != Version::HTTP_2 {
        return Err(bad("grpc_needs_http2", "gRPC has its status in trailers, which need HTTP/2"));
    }
    Ok(())
}

/// Where nothing takes an upgrade.
pub(crate) fn no_upgrade(request: &Request) -> Result<(), Reply> {
    if request.websocket { Err(bad("upgrade_refused", "this takes no protocol upgrade")) } else { Ok(()) }
}

/// The grammar that knows the request: the route's own, else generic HTTP where the route says so.
pub(crate) fn plan(scope: &Scope, head: &Head<'_>) -> Result<(Arc<dyn Connector>, Plan), Refusal> {
    match (scope.connector.plan(head), &scope.fallback) {
        (Ok(plan), _) => Ok((scope.connector.clone(), plan)),
        (Err(refusal), Some(fallback)) if refusal.reason == "unknown_operation" => {
            Ok((fallback.clone(), fallback.plan(head)?))
        }
        (Err(refusal), _) => Err(refusal),
    }
}

/// Line ends, header names and blanks as they stood on the wire: a lenient parser would let them pass.
pub(crate) fn check_wire(raw: &[u8]) -> Result<(), Reply> {
    for at in memchr2_iter(b'\n', 0, raw) {
        if raw.get(at) == Some(&0) {
            return Err(bad("bad_header", "NUL in the head"));
        }
        if at.checked_sub(1).and_then(|before| raw.get(before)) != Some(&b'\r') {
            return Err(bad("bare_lf", "lines must end with CRLF"));
        }
        if matches!(raw.get(at + 1), Some(b' ' | b'\t')) {
            return Err(bad("obs_fold", "folded header lines are not accepted"));
        }
    }
    if raw.len() > MAX_HEAD {
        return Err(too_large());
    }
    // A lenient parser looks for the end of the target from either side.
    let line = raw.split(|b| *b == b'\r').next().unwrap_or_default();
    if line.iter().filter(|b| **b == b' ').count() != 2 || line.contains(&b'#') || line.contains(&b'\t') {
        return Err(bad(
            "bad_path",
            "the request line must be method, target and version, with one blank between them",
        ));
    }
    // `Name : value` and lines without a name are refused as a whole.
    let mut rest = raw.get(line.len()..).unwrap_or_default();
    while let Some(line) = rest.strip_prefix(b"\r\n").filter(|line| !line.is_empty() && !line.starts_with(b"\r\n")) {
        let (end, colon) = (memchr(b'\r', line), memchr(b':', line));
        let name = line.get(..colon.unwrap_or_default()).unwrap_or_default();
        if name.is_empty() || !name.iter().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(b)) {
            return Err(bad("bad_header", "a header name is not a token"));
        }
        rest = end.and_then(|end| line.get(end..)).unwrap_or_default();
    }
    if !rest.is_empty() && !rest.starts_with(b"\r\n") {
        return Err(bad("bad_header", "a carriage return without a line feed"));
    }
    Ok(())
}

/// The bounds of [`check_wire`] for a head that came in frames, counted as RFC 9113, section 10.5.1.
fn check_fields(headers: &HeaderMap) -> Result<(), Reply> {
    let size: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + FIELD_OVERHEAD).sum();
    if headers.len() > MAX_FIELDS || size > MAX_HEAD { Err(too_large()) } else { Ok(()) }
}

fn too_large() -> Reply {
    Reply::refusal(
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
        "head_too_large",
        "the head is larger than 32 KiB, or has more than 256 fields",
    )
}

/// Exactly one framing, spelled one way.
fn framing_headers(headers: &HeaderMap, version: Version) -> Result<(Option<u64>, bool), Reply> {
    let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
    let length = match (lengths.next(), lengths.next()) {
        (None, _) => None,
        (Some(value), None) => {
            let text = value.to_str().unwrap_or_default();
            let plain = !text.is_empty()
                && text.len() <= 15
                && text.bytes().all(|b| b.is_ascii_digit())
                && (text == "0" || !text.starts_with('0'));
            Some(
                text.parse::<u64>()
                    .ok()
                    .filter(|_| plain)
                    .ok_or_else(|| bad("bad_framing", "`Content-Length` must be one plain number"))?,
            )
        }
        (Some(_), Some(_)) => return Err(bad("bad_framing", "more than one `Content-Length`")),
    };
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    let chunked = match (codings.next(), codings.next()) {
        (None, _) => false,
        (Some(value), None) if value.as_bytes() == b"chunked" && version == Version::HTTP_11 => true,
        _ => return Err(bad("bad_framing", "`Transfer-Encoding` must be `chunked` and nothing else")),
    };
    if chunked && length.is_some() {
        return Err(bad("bad_framing", "both `Content-Length` and `Transfer-Encoding`"));
    }
    Ok((length, chunked))
}

fn host(headers: &HeaderMap, version: Version, authority: Option<&str>) -> Result<String, Reply> {
    let mut hosts = headers.get_all(header::HOST).iter();
    let host = match (hosts.next(), hosts.next()) {
        (Some(value), None) => value.to_str().map_err(|_| bad("bad_host", "`Host` is not ASCII"))?,
        (None, _) if version == Version::HTTP_2 => authority.unwrap_or_default(),
        (None, _) if version == Version::HTTP_10 => "",
        _ => return Err(bad("bad_host", "exactly one `Host` is required")),
    };
    if let Some(authority) = authority.filter(|a| version == Version::HTTP_2 && *a != host) {
        return Err(bad(
            "bad_host",
            if authority.is_empty() { "empty `:authority`" } else { "`:authority` and `Host` differ" },
        ));
    }
    Ok(host.to_ascii_lowercase())
}

/// Hop-by-hop, forwarding and ambiguous headers are dropped; credentials are set aside.
fn split(all: &HeaderMap) -> Result<(HeaderMap, HeaderMap), Reply> {
    let mut nominated: Vec<HeaderName> = Vec::new();
    for value in all.get_all(header::CONNECTION) {
        let text = value.to_str().map_err(|_| bad("bad_header", "`Connection` is not ASCII"))?;
        for token in text.split(',').map(str::trim).filter(|t| !t.is_empty()) {
            match HeaderName::from_bytes(token.to_ascii_lowercase().as_bytes()) {
                // Nominating what frames a message or names its target is an attempt to have it dropped half-way.
                Ok(name) if PROTECTED.contains(&name.as_str()) => {
                    return Err(bad("bad_connection", "`Connection` names a header that is not hop-by-hop"));
                }
                Ok(name) => nominated.push(name),
                Err(_) => return Err(bad("bad_connection", "`Connection` holds something that is not a header name")),
            }
        }
    }
    let mut headers = HeaderMap::with_capacity(all.len());
    let mut credentials = HeaderMap::new();
    for (name, value) in all {
        let text = name.as_str();
        if CREDENTIALS.contains(&text) {
            credentials.append(name.clone(), value.clone());
        } else if !(HOP_BY_HOP.contains(&text)
            || text.contains('_')
            || text.starts_with("x-forwarded")
            || text.starts_with("aegis-")
            || nominated.contains(name))
        {
            headers.append(name.clone(), value.clone());
        }
    }
    Ok((headers, credentials))
}

fn expects_continue(headers: &HeaderMap) -> Result<bool, Reply> {
    match headers.get(header::EXPECT) {
        None => Ok(false),
        Some(value) if value.as_bytes().eq_ignore_ascii_case(b"100-continue") => Ok(true),
        Some(_) => {
            Err(Reply::refusal(StatusCode::EXPECTATION_FAILED, "bad_expect", "only `100-continue` can be expected"))
        }
    }
}

pub(crate) fn declared_trust(headers: &HeaderMap) -> Result<Option<SourceTrust>, Reply> {
    let mut labels = headers.get_all("aegis-source-trust").iter();
    match (labels.next(), labels.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => match value.to_str().ok().and_then(SourceTrust::parse) {
            Some(label) => Ok(Some(label)),
            None => Err(bad("bad_source_trust", "`Aegis-Source-Trust` is not a known label")),
        },
        (Some(_), Some(_)) => Err(bad("bad_source_trust", "more than one `Aegis-Source-Trust`")),
    }
}

/// W3C trace context is passed on and recorded; a malformed one is dropped, as its specification says.
pub(crate) fn trace(kept: &HeaderMap, all: &HeaderMap) -> Result<Trace, Reply> {
    let trace_id = kept
        .get("traceparent")
        .and_then(|v| v.to_str().ok())
        .and_then(|t| t.split('-').nth(1))
        .filter(|id| id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit() && !b.is_ascii_uppercase()))
        .map(str::to_owned);
    let run_id = match all.get("aegis-run-id").map(|v| v.to_str()) {
        None => None,
        Some(Ok(text)) if (1..=200).contains(&text.len()) => Some(text.to_owned()),
        Some(_) => return Err(bad("bad_run_id", "`Aegis-Run-Id` must be 1 to 200 visible characters")),
    };
    Ok(Trace { trace_id, run_id, parent_run_id: None, user: None })
}

fn end_of_stream(session: &Session) -> bool {
    match session.as_downstream() {
        ServerSession::H2(h2) => h2.is_body_done(),
        _ => true,
    }
}

fn bad(reason: &'static str, message: &str) -> Reply {
    Reply::refusal(StatusCode::BAD_REQUEST, reason, message)
}

const METHODS: [Method; 7] =
    [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::OPTIONS];
const CREDENTIALS: [&str; 6] =
    ["authorization", "x-api-key", "aegis-agent-token", "proxy-authorization", "cookie", "private-token"];
const HOP_BY_HOP: [&str; 14] = [
    "connection",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "host",
    "content-length",
    "expect",
    "forwarded",
    "x-real-ip",
    "via",
    "http2-settings",
];
const PROTECTED: [&str; 4] = ["host", "content-length", "transfer-encoding", "content-type"];
const MAX_HEAD: usize = 32 * 1024;
/// As Pingora takes on HTTP/1.1.
const MAX_FIELDS: usize = 256;
const FIELD_OVERHEAD: usize = 32;
const MAX_TARGET: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wire_form_is_strict() {
        assert!(check_wire(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").is_ok());
        for bad in [
            &b"GET / HTTP/1.1\nHost: x\n\n"[..],
            b"GET / HTTP/1.1\r\nHost: x\r\n folded\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost : x\r\n\r\n",
            b"GET / HTTP/1.1\r\n: x\r\n\r\n",
            b"GET / HTTP/1.1\r\nA\0: x\r\n\r\n",
            b"GET / HTTP/1.1\r\nA: b\rc\r\nHost: x\r\n\r\n",
            b"GET / HTTP/1.1\r\nno name\r\nHost: x\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: x\r\n: no name\r\n\r\n",
        ] {
            assert!(check_wire(bad).is_err(), "{}", String::from_utf8_lossy(bad));
        }
        assert!(check_wire(&[b'a'; MAX_HEAD + 1]).is_err());
    }

    #[test]
    fn framing_has_one_spelling() {
        let read = |pairs: &[(&str, &str)]| {
            let mut map = HeaderMap::new();
            for (k, v) in pairs {
                map.append(HeaderName::from_bytes(k.as_bytes()).unwrap(), v.parse().unwrap());
            }
            framing_headers(&map, Version::HTTP_11).ok()
        };
        assert_eq!(read(&[("content-length", "3")]), Some((Some(3), false)));
        assert_eq!(read(&[("transfer-encoding", "chunked")]), Some((None, true)));
        for bad in [
            &[("content-length", "3"), ("content-length", "3")][..],
            &[("content-length", "3, 3")],
            &[("content-length", "+3")],
            &[("content-length", "03")],
            &[("content-length", "3"), ("transfer-encoding", "chunked")],
            &[("transfer-encoding", "gzip, chunked")],
            &[("transfer-encoding", "Chunked")],
            &[("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")],
        ] {
            assert_eq!(read(bad), None, "{bad:?}");
        }
    }
}
