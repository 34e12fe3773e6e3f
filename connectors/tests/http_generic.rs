//! The grammar of routes without a catalog.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may fail loudly; clippy sees only `#[test]` functions as tests"
)]

mod support;

use aegis_connectors::{Connector, Denial, UpstreamBody, http_generic::HttpConnector};
use http::{StatusCode, header as names};
use proptest::prelude::*;
use serde_json::{Value, json};
use support::{Request, five, header, sdk, sent};

fn http() -> HttpConnector {
    HttpConnector::new("https://api.example.com", "example")
}

#[test]
fn a_request_is_its_method_and_url() {
    let mapped = Request::new("POST /v1/things?dry=1&flag").json(&json!({"b":1.0,"a":[null]})).send(&http()).unwrap();
    let want = json!({"tool":"http","action":"post","resource":"https://api.example.com/v1/things","mutates_state":true,
        "parameters":{"query":{"dry":"1","flag":null},"body":{"a":[null],"b":1.0},"content_type":"application/json"}});
    assert_eq!(five(&mapped), want);
    assert_eq!(mapped.upstream.path_and_query, "/v1/things?dry=1&flag");
    assert_eq!(sent(&mapped), r#"{"a":[null],"b":1}"#);
    let ids: Vec<_> = mapped.calls[0].resource.iter().map(|r| format!("{}::{}", r.ty, r.id)).collect();
    assert_eq!(ids, ["Http::Resource::https://api.example.com/v1/things", "Http::Host::api.example.com"]);
    assert_eq!(sdk(&http(), &want).unwrap().action.hash(), mapped.calls[0].action.hash());
}

#[test]
fn classes_follow_the_method() {
    for (line, name, class, risk) in [
        ("GET /", "get", "read", "low"),
        ("HEAD /a", "head", "read", "low"),
        ("OPTIONS /a", "options", "read", "low"),
        ("POST /a", "post", "write", "medium"),
        ("PUT /a", "put", "write", "medium"),
        ("PATCH /a", "patch", "write", "medium"),
        ("DELETE /a", "delete", "delete", "high"),
    ] {
        let call = Request::new(line).send(&http()).unwrap().calls.remove(0);
        assert_eq!((call.entry.name.as_str(), call.class.as_str(), call.entry.risk.as_str()), (name, class, risk));
        assert_eq!(call.action.mutates_state(), class != "read");
    }
    assert_eq!(Request::new("PROPFIND /a").refusal(&http()), "unknown_operation");
}

#[test]
fn paths_have_one_spelling() {
    for (line, resource) in [
        ("GET /", "https://api.example.com/"),
        ("GET /a/b/", "https://api.example.com/a/b/"),
        ("GET /caf%c3%a9/%20x", "https://api.example.com/caf%C3%A9/%20x"),
        ("GET /A/[x]", "https://api.example.com/A/%5Bx%5D"),
    ] {
        let mapped = Request::new(line).send(&http()).unwrap();
        assert_eq!(five(&mapped)["resource"], resource);
        assert_eq!(format!("https://api.example.com{}", mapped.upstream.path_and_query), resource);
    }
    for path in [
        "/a/../b",
        "/a/%2e%2e",
        "/a%2Fb",
        "//a",
        "/a//b",
        "/a;b",
        "/a\\b",
        "/%61",
        "/%252e",
        "/%00",
        "/%ff",
        "/a b",
        "/\u{e9}",
    ] {
        assert_eq!(Request::new(&format!("GET {path}")).refusal(&http()), "bad_path", "{path}");
    }
    let below = HttpConnector::new("https://api.example.com:8443/base/", "example");
    let mapped = Request::new("GET /x").send(&below).unwrap();
    assert_eq!(five(&mapped)["resource"], "https://api.example.com:8443/base/x");
    assert_eq!(mapped.calls[0].resource[1].id, "api.example.com:8443");
}

#[test]
fn headers_are_neutral_counted_or_dropped() {
    let mapped = Request::new("POST /a")
        .header("accept", "application/json")
        .header("idempotency-key", "k1")
        .header("x-tenant", "blue")
        .header("cookie", "s=1")
        .header("authorization", "Bearer x")
        .header("x-forwarded-for", "1.2.3.4")
        .header("x_tenant", "red")
        .header("x-api-key", "k")
        .header("forwarded", "for=x")
        .header("te", "trailers")
        .header("accept-encoding", "gzip")
        .send(&http())
        .unwrap();
    let mut names: Vec<_> = mapped.upstream.headers.iter().map(|(n, _)| n.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["accept", "accept-encoding", "idempotency-key", "x-tenant"]);
    assert_eq!(header(&mapped, "accept-encoding"), Some("identity"));
    assert_eq!(five(&mapped)["parameters"], json!({"headers":{"x-tenant":"blue"}}));
    assert_eq!(mapped.calls[0].sending["idempotency-key"], "k1");

    let cookies = http().allow_cookies();
    let mapped = Request::new("GET /a").header("cookie", "s=1").send(&cookies).unwrap();
    assert_eq!(five(&mapped)["parameters"]["headers"]["cookie"], "s=1");
    assert_eq!(Request::new("POST /a").header("x-http-method-override", "DELETE").refusal(&http()), "method_override");
    assert_eq!(Request::new("POST /a").header("x-tenant", "\u{e9}").refusal(&http()), "bad_header");
}

#[test]
fn json_is_read_and_the_rest_is_streamed() {
    for (body, reason) in [
        (r#"{"a":1,"a":2}"#, "bad_body"),
        ("{", "bad_body"),
        (r#"{"a":1e999}"#, "bad_body"),
        (r#"{"$stream":{}}"#, "bad_action"),
    ] {
        let request = Request::new("POST /a").header("content-type", "application/json").body(body);
        assert_eq!(request.refusal(&http()), reason, "{body}");
    }
    let utf7 = Request::new("POST /a").header("content-type", "application/json; charset=utf-7").body("{}");
    assert_eq!(utf7.refusal(&http()), "bad_media_type");
    let gzip = Request::new("POST /a")
        .header("content-type", "application/json")
        .header("content-encoding", "gzip")
        .body("{}");
    assert_eq!(gzip.refusal(&http()), "bad_content_encoding");
    assert_eq!(Request::new("GET /a").body("x").refusal(&http()), "unexpected_body");

    let request = Request::new("PUT /a")
        .header("content-type", "application/octet-stream")
        .header("content-digest", "sha-256=:abc=:")
        .body("xyz");
    let mapped = request.send(&http()).unwrap();
    assert!(matches!(mapped.upstream.body, UpstreamBody::Stream));
    assert_eq!(five(&mapped)["parameters"]["body"], json!({"$stream":{"bytes":3,"declared_digest":"sha-256=:abc=:"}}));
    assert_eq!(header(&mapped, "content-type"), Some("application/octet-stream"));
}

#[test]
fn grpc_is_streamed_where_the_route_takes_it_and_refused_elsewhere() {
    let call = Request::new("POST /pkg.Service/Call")
        .header("content-type", "application/grpc+proto")
        .header("grpc-timeout", "5S")
        .header("grpc-accept-encoding", "gzip")
        .header("x-tenant", "blue")
        .body("xyz");
    assert_eq!(call.refusal(&http()), "grpc_refused");
    let mapped = call.send(&http().allow_grpc()).unwrap();
    assert!(matches!(mapped.upstream.body, UpstreamBody::Stream));
    assert_eq!(five(&mapped)["action"], "post");
    assert_eq!(five(&mapped)["resource"], "https://api.example.com/pkg.Service/Call");
    let want =
        json!({"content_type":"application/grpc+proto","headers":{"x-tenant":"blue"},"body":{"$stream":{"bytes":3}}});
    assert_eq!(five(&mapped)["parameters"], want);
    assert_eq!((header(&mapped, "grpc-timeout"), header(&mapped, "grpc-accept-encoding")), (Some("5S"), None));
    let empty = Request::new("POST /pkg.Service/Call").header("content-type", "application/grpc");
    assert!(matches!(empty.send(&http().allow_grpc()).unwrap().upstream.body, UpstreamBody::Stream));
    let get = Request::new("GET /pkg.Service/Call").header("content-type", "application/grpc");
    assert_eq!(get.refusal(&http().allow_grpc()), "bad_method");
}

#[test]
fn a_websocket_is_an_action_of_its_own() {
    let shake = Request::new("GET /live?room=1")
        .websocket()
        .header("sec-websocket-protocol", "chat")
        .header("sec-websocket-extensions", "permessage-deflate");
    assert_eq!(shake.refusal(&http()), "upgrade_refused");
    let mapped = shake.send(&http().allow_websocket()).unwrap();
    assert!(matches!(mapped.upstream.body, UpstreamBody::Stream));
    let want = json!({"tool":"http","action":"websocket","resource":"https://api.example.com/live","mutates_state":true,
        "parameters":{"query":{"room":"1"},"headers":{"sec-websocket-protocol":"chat"},"body":{"$stream":{}}}});
    assert_eq!(five(&mapped), want);
    assert_eq!(header(&mapped, "sec-websocket-key"), Some("dGhlIHNhbXBsZSBub25jZQ=="));
    assert_eq!(header(&mapped, "sec-websocket-extensions"), None);
    // A method of that name is none.
    assert_eq!(Request::new("UPGRADE /live").refusal(&http().allow_websocket()), "unknown_operation");
    let plain = Request::new("GET /live").header("sec-websocket-key", "x").send(&http().allow_websocket()).unwrap();
    assert_eq!(header(&plain, "sec-websocket-key"), None);
}

#[test]
fn queries_are_refused_where_servers_differ() {
    for (line, reason) in [
        ("GET /a?x=1&x=2", "bad_query"),
        ("GET /a?x=1;y=2", "bad_query"),
        ("GET /a?_method=DELETE", "method_override"),
        ("GET /a?access_token=t", "credential_in_query"),
        ("GET /a?X-Amz-Signature=t", "credential_in_query"),
    ] {
        assert_eq!(Request::new(line).refusal(&http()), reason, "{line}");
    }
}

#[test]
fn an_sdk_call_names_the_url_in_its_one_spelling() {
    let call = |resource: &str| {
        let call = json!({"tool":"http","action":"get","resource":resource,"mutates_state":false,"parameters":{}});
        sdk(&http(), &call).map(|_| ()).map_err(|r| r.reason)
    };
    assert_eq!(call("https://api.example.com/a"), Ok(()));
    for resource in [
        "https://api.example.com",
        "https://api.example.com.evil/a",
        "https://evil/a",
        "http://api.example.com/a",
        "https://api.example.com/[a]",
        "https://api.example.com/caf%c3%a9",
    ] {
        assert_eq!(call(resource), Err("bad_resource"), "{resource}");
    }
    assert_eq!(call("https://api.example.com/a/../b"), Err("bad_path"));
    let lie = json!({"tool":"http","action":"post","resource":"https://api.example.com/a","mutates_state":false,"parameters":{}});
    assert_eq!(sdk(&http(), &lie).unwrap_err().reason, "bad_mutates_state");
}

#[test]
fn denials_are_problem_json() {
    let denial = Denial {
        status: StatusCode::FORBIDDEN,
        reason: "denied".into(),
        message: "no".into(),
        receipt: None,
        approval: None,
    };
    let reply = http().denial(&denial);
    let body: Value = serde_json::from_slice(&reply.body).unwrap();
    assert_eq!((body["status"].as_u64(), body["reason"].as_str()), (Some(403), Some("denied")));
    assert_eq!(reply.headers[0].1, "application/problem+json");
    let challenge = http().challenge();
    assert_eq!(challenge.status, StatusCode::UNAUTHORIZED);
    let schemes: Vec<_> = challenge.headers.iter().filter(|(n, _)| *n == names::WWW_AUTHENTICATE).collect();
    assert!(schemes.iter().any(|(_, v)| v.as_bytes().starts_with(b"Basic")), "git sends nothing without it");
}

proptest! {
    #[test]
    fn what_is_sent_reads_as_what_was_judged(path in "/[a-zA-Z0-9%/.;\\\\ _~+&=@:!-]{0,30}", query in proptest::option::of("[a-z0-9=&%+;]{0,20}")) {
        let target = match &query { Some(q) => format!("{path}?{q}"), None => path };
        let Ok(mapped) = (Request { method: "GET", target: &target, ..Request::default() }).send(&http()) else { return Ok(()) };
        let again = Request { method: "GET", target: &mapped.upstream.path_and_query, ..Request::default() }.send(&http()).unwrap();
        prop_assert_eq!(mapped.calls[0].action.hash(), again.calls[0].action.hash());
    }
}
