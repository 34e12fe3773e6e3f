//! Facts: which reads are asked for, what is learned, and what is made conditional.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may fail loudly; clippy sees only `#[test]` functions as tests"
)]

mod support;

use aegis_connectors::{Call, Connector, FactStep, github::GithubConnector};
use http::StatusCode;
use serde_json::{Map, Value, json};
use support::{Request, header, sent};

/// Reads until the fact is known or cannot be; returns the paths read.
fn learn(
    call: &Call,
    fact: &str,
    known: &mut Map<String, Value>,
    answer: impl Fn(&str) -> (u16, Value),
) -> Vec<String> {
    let github = GithubConnector::new();
    let mut paths = Vec::new();
    while let FactStep::Read(read) = github.fact_step(call, fact, known) {
        assert!(!read.call.action.mutates_state() && read.call.class.as_str() == "read");
        let path = read.upstream.path_and_query.clone();
        let (status, body) = answer(&path);
        github.learn(&read, StatusCode::from_u16(status).unwrap(), &body, known);
        assert!(!paths.contains(&path), "`{path}` was read twice");
        paths.push(path);
    }
    paths
}

fn call(line: &str, body: Value) -> Call {
    Request::new(line).json(&body).send(&GithubConnector::new()).unwrap().calls.remove(0)
}

fn origin(path: &str) -> (u16, Value) {
    match path {
        "/repos/octo/payments/pulls/482" => (
            200,
            json!({"head":{"sha":"6dcb09b5","ref":"fix"},"base":{"ref":"release/1.x"},"user":{"login":"Mona"},"draft":false}),
        ),
        "/repos/octo/payments/branches/release%2F1.x" => (200, json!({"name":"release/1.x","protected":true})),
        "/repos/octo/payments" => (200, json!({"default_branch":"main"})),
        "/repos/octo/payments/branches/main" => (200, json!({"name":"main","protected":true})),
        "/repos/octo/payments/branches/locked" => (403, json!({"name":"locked","protected":false})),
        "/repos/octo/payments/branches/dev" => (200, json!({"name":"dev","protected":false})),
        _ => (404, json!({"message":"Not Found"})),
    }
}

#[test]
fn a_merge_knows_its_base_branch_and_head() {
    let merge = call("PUT /repos/Octo/payments/pulls/482/merge", json!({}));
    let mut known = Map::new();
    let paths = learn(&merge, "base_protected", &mut known, origin);
    assert_eq!(paths, ["/repos/octo/payments/pulls/482", "/repos/octo/payments/branches/release%2F1.x"]);
    assert_eq!(
        Value::Object(known.clone()),
        json!({"author":"mona","base_branch":"release/1.x","base_protected":true,"draft":false,"head_branch":"fix","head_sha":"6dcb09b5"})
    );
    for fact in merge.entry.facts.keys() {
        assert!(learn(&merge, fact, &mut known, origin).is_empty(), "{fact}");
    }
    assert_eq!(GithubConnector::new().version_fact(&merge), Some("head_sha"));
    assert_eq!(call("PUT /repos/o/r/pulls/1/merge-async", json!({})).entry.facts, merge.entry.facts);
}

#[test]
fn a_fact_that_cannot_be_read_is_absent_and_not_asked_for_again() {
    let merge = call("PUT /repos/octo/other/pulls/1/merge", json!({}));
    let mut known = Map::new();
    assert_eq!(learn(&merge, "base_protected", &mut known, origin), ["/repos/octo/other/pulls/1"]);
    assert!(known.get("base_protected").is_none_or(Value::is_null));
    assert_eq!(known["head_sha"], Value::Null);
    let github = GithubConnector::new();
    assert!(matches!(github.fact_step(&merge, "base_protected", &known), FactStep::Unknown));
    assert!(matches!(github.fact_step(&merge, "colour", &known), FactStep::Unknown));
}

#[test]
fn a_write_knows_whether_its_branch_is_protected() {
    let put = "PUT /repos/octo/payments/contents/a";
    for (line, body, reads, protected) in [
        (
            put,
            json!({"message":"m","content":""}),
            vec!["/repos/octo/payments", "/repos/octo/payments/branches/main"],
            json!(true),
        ),
        (
            put,
            json!({"message":"m","content":"","branch":"dev"}),
            vec!["/repos/octo/payments/branches/dev"],
            json!(false),
        ),
        (
            put,
            json!({"message":"m","content":"","branch":"refs/heads/main"}),
            vec!["/repos/octo/payments/branches/main"],
            json!(true),
        ),
        (
            put,
            json!({"message":"m","content":"","branch":"gone"}),
            vec!["/repos/octo/payments/branches/gone"],
            Value::Null,
        ),
        (
            put,
            json!({"message":"m","content":"","branch":"locked"}),
            vec!["/repos/octo/payments/branches/locked"],
            Value::Null,
        ),
        (
            "PATCH /repos/octo/payments/git/refs/heads/main",
            json!({"sha":"x"}),
            vec!["/repos/octo/payments/branches/main"],
            json!(true),
        ),
        ("PATCH /repos/octo/payments/git/refs/tags/v1", json!({"sha":"x"}), vec![], Value::Null),
        (
            "POST /repos/octo/payments/merges",
            json!({"base":"main","head":"x"}),
            vec!["/repos/octo/payments/branches/main"],
            json!(true),
        ),
    ] {
        let mut known = Map::new();
        assert_eq!(learn(&call(line, body.clone()), "branch_protected", &mut known, origin), reads, "{line} {body}");
        assert_eq!(known.get("branch_protected").cloned().unwrap_or_default(), protected, "{line} {body}");
    }
}

#[test]
fn a_merge_is_made_conditional_on_the_head_that_was_judged() {
    let github = GithubConnector::new();
    for (body, want) in [
        (None, r#"{"sha":"abc"}"#),
        (Some(r#"{"merge_method":"squash"}"#), r#"{"merge_method":"squash","sha":"abc"}"#),
        (Some(r#"{"sha":"abc"}"#), r#"{"sha":"abc"}"#),
        // Neither the judged head nor the agent's: no commit at all.
        (Some(r#"{"sha":"def"}"#), r#"{"sha":"0000000000000000000000000000000000000000"}"#),
    ] {
        let mut request = Request::new("PUT /repos/o/r/pulls/1/merge");
        request.body = body.map(Into::into);
        let mut mapped = request.send(&github).unwrap();
        let call = mapped.calls[0].clone();
        github.add_precondition(&call, &json!("abc"), &mut mapped.upstream);
        assert_eq!(sent(&mapped), want);
        assert_eq!(header(&mapped, "content-type"), Some("application/json"));
    }
    let mut other = Request::new("DELETE /repos/o/r").send(&github).unwrap();
    let call = other.calls[0].clone();
    github.add_precondition(&call, &json!("abc"), &mut other.upstream);
    assert_eq!(sent(&other), "");
}
