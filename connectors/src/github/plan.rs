//! The head of a request: operation, path variables, query, headers.

use std::{collections::BTreeSet, sync::Arc};

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use serde_json::{Map, Value};

use super::{
    catalog::{Body, Catalog, Kind, Operation, Piece},
    resource::{self, Variables},
    route::Found,
};
use crate::{
    BodyNeed, Head, ParamType, Plan, Refusal,
    wire::{
        bad, headers,
        path::{self, BAD_PATH, Path, Segment},
        query::{self, BAD_QUERY, Pair},
        refuse,
    },
};

/// What `plan` hands to `map`.
pub(super) struct Parsed {
    /// Where in the catalog.
    pub operation: usize,
    pub method: Method,
    /// Path variables, canonical.
    pub variables: Variables,
    /// Path and query as they are sent, rebuilt.
    pub path_and_query: String,
    /// Parameters from path, query and headers.
    pub parameters: Map<String, Value>,
    /// What is sent upstream, `Content-Type` apart.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// As declared by the client.
    pub media_type: Option<String>,
    pub content_length: Option<u64>,
}

pub(super) fn plan(catalog: &Catalog, head: &Head<'_>) -> Result<Plan, Refusal> {
    headers::refuse_method_override(head.headers)?;
    let mut path = path::parse(head.path)?;
    strip_server_prefix(&mut path);
    // HEAD is GET without the answer's body.
    let method = if head.method == Method::HEAD { &Method::GET } else { head.method };
    if head.websocket {
        return Err(unknown(head, &path));
    }
    let found = catalog.router.find(method, &path.segments)?.ok_or_else(|| unknown(head, &path))?;
    let operation = catalog.at(found.operation).ok_or_else(|| unknown(head, &path))?;
    let (variables, mut parameters, mut path_and_query) = read_path(operation, &found, &path)?;
    let pairs = query::parse(head.query)?;
    read_query(operation, &pairs, &mut parameters)?;
    path_and_query.push_str(&query::write(&pairs));
    let media_type = headers::media_type(head.headers)?;
    let body = body_need(operation, head, media_type.as_ref())?;
    let parsed = Parsed {
        operation: found.operation,
        method: head.method.clone(),
        variables,
        path_and_query,
        headers: read_headers(operation, head.headers, &mut parameters)?,
        parameters,
        media_type: media_type.map(|(media, _)| media),
        content_length: head.content_length,
    };
    Ok(Plan { entry: Some(operation.entry.clone()), body, parsed: Box::new(parsed) })
}

/// `gh` and others put `/api/v3` in front on a host that is not `github.com`.
fn strip_server_prefix(path: &mut Path) {
    if let [api, version, ..] = path.segments.as_slice()
        && (api.text.as_str(), version.text.as_str()) == ("api", "v3")
        && !api.encoded
        && !version.encoded
    {
        path.segments.drain(..2);
        // `/api/v3/` is the root, as `/` is.
        path.trailing_slash &= !path.segments.is_empty();
    }
}

fn unknown(head: &Head<'_>, path: &Path) -> Refusal {
    if path.segments.iter().any(Segment::has_slash) {
        return bad(BAD_PATH, "an encoded slash where no operation takes one");
    }
    let words: Vec<&str> = path.segments.iter().map(|s| s.text.as_str()).collect();
    let detail = match words.as_slice() {
        ["graphql"] | ["api", "graphql"] => "GraphQL is not in this catalog; use the REST operation".to_owned(),
        _ => format!("no GitHub operation has the request line `{} {}`", head.method, printable(head.path)),
    };
    refuse("unknown_operation", StatusCode::NOT_FOUND, detail)
}

fn printable(path: &str) -> &str {
    path.char_indices().nth(200).map_or(path, |(end, _)| path.get(..end).unwrap_or_default())
}

/// Canonical variables, those of them that are parameters, and the path as it is sent.
fn read_path(
    operation: &Operation,
    found: &Found,
    path: &Path,
) -> Result<(Variables, Map<String, Value>, String), Refusal> {
    let mut variables = Variables::new();
    let mut sent = String::with_capacity(128);
    let mut captures = found.captures.iter();
    let mut tail_missing = false;
    for piece in &operation.pieces {
        let (name, kind) = match piece {
            Piece::Literal(text) => {
                sent.push('/');
                sent.push_str(text);
                continue;
            }
            Piece::Variable { name, kind } => (name, kind),
        };
        let captured = captures.next().and_then(|(from, to)| path.segments.get(*from..*to)).unwrap_or_default();
        // Only an optional tail captures nothing.
        let text = captured.iter().map(|s| s.text.as_str()).collect::<Vec<_>>().join("/");
        if !captured.is_empty() && !resource::is_valid(name, &text) {
            return Err(bad(BAD_PATH, format!("the path variable `{name}` has a value that GitHub never has there")));
        }
        if captured.is_empty() {
            tail_missing = true;
        } else {
            sent.push('/');
            sent.push_str(&encode(captured));
        }
        if *kind == Kind::Integer && !resource::is_integer(&text) {
            return Err(bad(BAD_PATH, format!("the path variable `{name}` must be a whole number")));
        }
        variables.insert(name.clone(), resource::canonical(name, &text));
    }
    if path.trailing_slash && !tail_missing {
        return Err(bad(BAD_PATH, "a slash at the end"));
    }
    if sent.is_empty() {
        sent.push('/');
    }
    let parameters = parameters_of(operation, &variables);
    Ok((variables, parameters, sent))
}

/// The path variables that the resource does not hold already.
pub(super) fn parameters_of(operation: &Operation, variables: &Variables) -> Map<String, Value> {
    let in_resource: Vec<&str> = operation.entities.first().map(|(_, t)| t.variables().collect()).unwrap_or_default();
    let mut parameters = Map::new();
    for (name, kind) in operation.pieces.iter().filter_map(variable) {
        let (Some(text), false) = (variables.get(name), in_resource.contains(&&**name)) else { continue };
        let value = match kind {
            Kind::Integer => text.parse::<i64>().map_or(Value::Null, Value::from),
            _ => Value::from(text.as_str()),
        };
        parameters.insert(name.to_string(), value);
    }
    parameters
}

fn variable(piece: &Piece) -> Option<(&Arc<str>, &Kind)> {
    match piece {
        Piece::Literal(_) => None,
        Piece::Variable { name, kind } => Some((name, kind)),
    }
}

/// Slashes stay as they were sent: all as `/`, or, if any was encoded, all as `%2F`.
fn encode(captured: &[Segment]) -> String {
    let separator = if captured.iter().any(Segment::has_slash) { "%2F" } else { "/" };
    let pieces: Vec<String> = captured.iter().map(|s| path::encode(&s.text).to_string()).collect();
    pieces.join(separator)
}

fn read_query(operation: &Operation, pairs: &[Pair], parameters: &mut Map<String, Value>) -> Result<(), Refusal> {
    let mut seen = BTreeSet::new();
    for pair in pairs {
        let (name, in_list) = pair.key.strip_suffix("[]").map_or((pair.key.as_str(), false), |name| (name, true));
        let text = pair.value.as_deref().unwrap_or_default();
        let ty = match operation.query.get(name) {
            Some(parameter) => &parameter.ty,
            // Paging changes only which part of the same answer comes.
            None if operation.method == Method::GET && matches!(name, "page" | "per_page") => &ParamType::Integer,
            None => {
                let detail = format!("`{}` has no query parameter `{name}`", operation.entry.name);
                return Err(bad("unknown_parameter", detail));
            }
        };
        if !seen.insert((name, in_list)) && !in_list || seen.contains(&(name, !in_list)) {
            return Err(bad(BAD_QUERY, format!("the query parameter `{name}` stands twice")));
        }
        match (ty, in_list) {
            (ParamType::List(item), _) => push(parameters, name, typed(name, item, text)?),
            (ParamType::Opaque, true) => push(parameters, name, Value::from(text)),
            (_, true) => return Err(bad(BAD_QUERY, format!("the query parameter `{name}` is not a list"))),
            (ty, false) => {
                parameters.insert(name.to_owned(), typed(name, ty, text)?);
            }
        }
    }
    Ok(())
}

fn push(parameters: &mut Map<String, Value>, name: &str, item: Value) {
    if let Value::Array(items) = parameters.entry(name).or_insert_with(|| Value::Array(Vec::new())) {
        items.push(item);
    }
}

/// A text of the query as the JSON value that it stands for.
fn typed(name: &str, ty: &ParamType, text: &str) -> Result<Value, Refusal> {
    match (ty, text) {
        (ParamType::Boolean, "true") => Ok(Value::Bool(true)),
        (ParamType::Boolean, "false") => Ok(Value::Bool(false)),
        (ParamType::Boolean, _) => {
            Err(bad(BAD_QUERY, format!("the query parameter `{name}` must be `true` or `false`")))
        }
        (ParamType::Integer, _) if !resource::is_integer(text) => {
            Err(bad(BAD_QUERY, format!("the query parameter `{name}` must be a whole number")))
        }
        (ParamType::Integer, _) => Ok(text.parse::<i64>().map_or(Value::Null, Value::from)),
        _ => Ok(Value::from(text)),
    }
}

fn body_need(
    operation: &Operation,
    head: &Head<'_>,
    media_type: Option<&(String, Option<String>)>,
) -> Result<BodyNeed, Refusal> {
    if !head.has_body {
        return Ok(if matches!(operation.body, Body::Stream) { BodyNeed::Stream } else { BodyNeed::Nothing });
    }
    headers::refuse_encoded_body(head.headers)?;
    let media = media_type.map(|(media, _)| media.as_str());
    let utf8 = media_type.is_none_or(|(_, charset)| charset.as_deref().is_none_or(|c| c == "utf-8"));
    let wrong = |wanted: &str| {
        Err(refuse("bad_media_type", StatusCode::UNSUPPORTED_MEDIA_TYPE, format!("send the body as `{wanted}`")))
    };
    let max = if BIG_BODIES.contains(&operation.entry.operation.as_str()) { MAX_BIG_BODY } else { MAX_BODY };
    match &operation.body {
        Body::None if matches!(operation.method, Method::GET | Method::DELETE) => {
            Err(bad("unexpected_body", format!("`{}` takes no body", operation.entry.name)))
        }
        Body::Stream => Ok(BodyNeed::Stream),
        Body::Text if !utf8 || !matches!(media, None | Some("text/plain" | "text/x-markdown")) => wrong("text/plain"),
        Body::None | Body::Json { .. } if !utf8 || !media.is_none_or(is_json) => wrong("application/json"),
        Body::None | Body::Json { .. } | Body::Text => Ok(BodyNeed::Buffer { max }),
    }
}

fn is_json(media: &str) -> bool {
    media == "application/json" || (media.starts_with("application/vnd.github") && media.ends_with("+json"))
}

/// Conditions (`If-Match` and the like) are passed on without being part of the action: they
/// can only turn a request into none. `Time-Zone` dates the commits that a write makes, so there it counts.
fn read_headers(
    operation: &Operation,
    all: &HeaderMap,
    parameters: &mut Map<String, Value>,
) -> Result<Vec<(HeaderName, HeaderValue)>, Refusal> {
    let mut kept = Vec::with_capacity(8);
    for name in all.keys().filter(|name| PASSED_ON.contains(name)) {
        if *name == header::ACCEPT {
            for value in all.get_all(name) {
                headers::visible(name, value)?;
                kept.push((name.clone(), value.clone()));
            }
        } else if headers::one(all, name)?.is_some() {
            kept.extend(all.get(name).map(|value| (name.clone(), value.clone())));
        }
    }
    if let Some(zone) = headers::one(all, &TIME_ZONE)? {
        kept.extend(all.get(&TIME_ZONE).map(|value| (TIME_ZONE.clone(), value.clone())));
        if operation.entry.mutates_state {
            parameters.insert("header.time-zone".into(), zone.into());
        }
    }
    // What is compressed cannot be scrubbed or rewritten.
    kept.push((header::ACCEPT_ENCODING, HeaderValue::from_static("identity")));
    Ok(kept)
}

const TIME_ZONE: HeaderName = HeaderName::from_static("time-zone");
const PASSED_ON: [HeaderName; 10] = [
    header::ACCEPT,
    header::USER_AGENT,
    header::IF_MATCH,
    header::IF_NONE_MATCH,
    header::IF_MODIFIED_SINCE,
    header::IF_UNMODIFIED_SINCE,
    header::RANGE,
    HeaderName::from_static("x-github-api-version"),
    HeaderName::from_static("traceparent"),
    HeaderName::from_static("tracestate"),
];

/// Bytes of a body that is read whole.
const MAX_BODY: usize = 10 << 20;
/// Bytes of a body that holds a file in base64.
const MAX_BIG_BODY: usize = 60 << 20;
const BIG_BODIES: [&str; 2] = ["repos/create-or-update-file-contents", "git/create-blob"];
