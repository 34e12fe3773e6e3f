//! No path, query or body makes the GitHub grammar panic, and what it maps it maps to itself again.
#![no_main]
use std::sync::LazyLock;

use aegis_connectors::{BodyNeed, Connector, Head, UpstreamBody, github::GithubConnector};
use http::{HeaderMap, Method};
use libfuzzer_sys::fuzz_target;

static GITHUB: LazyLock<GithubConnector> = LazyLock::new(GithubConnector::new);

fuzz_target!(|input: (u8, &str, Option<&str>, &[u8])| {
    let (method, path, query, body) = input;
    let methods = [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE];
    let method = &methods[usize::from(method) % methods.len()];
    let mut headers = HeaderMap::new();
    headers.insert("content-type", http::HeaderValue::from_static("application/json"));
    let map = |path: &str, query: Option<&str>, body: &[u8]| {
        let head = Head { method, path, query, headers: &headers, content_length: Some(body.len() as u64), has_body: !body.is_empty(), websocket: false };
        let plan = GITHUB.plan(&head).ok()?;
        let body = matches!(plan.body, BodyNeed::Buffer { .. }).then(|| body.to_vec().into());
        GITHUB.map(plan, body).ok()
    };
    let Some(first) = map(path, query, body) else { return };
    let (sent_path, sent_query) = first.upstream.path_and_query.split_once('?').map_or((first.upstream.path_and_query.as_str(), None), |(p, q)| (p, Some(q)));
    let sent_body = match &first.upstream.body {
        UpstreamBody::Bytes(bytes) => bytes.to_vec(),
        UpstreamBody::Empty => Vec::new(),
        UpstreamBody::Stream => return,
    };
    let again = map(sent_path, sent_query, &sent_body).expect("what is sent is in the grammar");
    assert_eq!(first.calls[0].action, again.calls[0].action, "what was judged is what is sent");
});
