//! `POST /v1/authorize` and what closes its decisions.

use std::sync::Arc;

use axum::body::Body;
use http::{Method, Request};
use serde_json::{Value, json};

use super::{Rig, To, deploy, write_note};

#[tokio::test]
async fn every_decision_is_a_200_with_a_receipt() {
    let rig = Rig::new().await;
    let (id, token) = rig.enrol("a").await;
    let allowed = rig.authorize(&token, write_note()).await;
    assert_eq!((allowed.status.as_u16(), &allowed.body["decision"]), (200, &json!("allow")), "{}", allowed.text);
    assert_eq!(allowed.body["matched_policies"], json!(["write"]));
    assert_eq!(allowed.body["risk"], json!({"level": "medium", "class": "write"}));
    let shred =
        json!({"tool_call":{"tool":"desk","action":"shred","resource":"n1","mutates_state":true,"parameters":{}}});
    let denied = rig.authorize(&token, shred).await;
    assert_eq!((denied.status.as_u16(), &denied.body["decision"]), (200, &json!("deny")));
    let asked = rig.authorize(&token, deploy(json!({}))).await;
    assert_eq!((asked.status.as_u16(), &asked.body["decision"]), (200, &json!("require_approval")));
    assert_eq!(asked.body["approval"]["status"], "pending");
    let leaves = rig.leaves();
    for answer in [allowed, denied, asked] {
        let receipt = answer.str("/receipt/receipt_id");
        let seq: usize = receipt.rsplit('_').next().unwrap().parse().unwrap();
        assert_eq!(leaves[seq]["decision"], answer.body["decision"]);
        assert_eq!(leaves[seq]["agent_id"], id);
    }
}

#[tokio::test]
async fn a_malformed_request_is_told_which_field_and_leaves_a_refusal() {
    let rig = Rig::new().await;
    let (_, token) = rig.enrol("a").await;
    let call = r#""tool_call":{"tool":"desk","action":"write_note","resource":"n1","mutates_state":true,"parameters":{"text":"a"}}"#;
    let no_resource = r#""tool_call":{"tool":"desk","action":"write_note","mutates_state":true,"parameters":{}}"#;
    let cases: &[(String, &str, &str)] = &[
        ("".into(), "bad_json", "EOF"),
        ("[1]".into(), "bad_field", "`body`: expected an object"),
        (
            r#"[{"tool":"desk","action":"write_note","resource":"n1","mutates_state":true,"parameters":{}}]"#.into(),
            "bad_field",
            "`body`",
        ),
        (r#"{"tool_call":["desk","write_note","n1",true,{}]}"#.into(), "bad_field", "`tool_call`: expected an object"),
        (
            format!("{{{call},\"context\":{{\"source_trust\":{{\"unknown\":null}}}}}}"),
            "bad_field",
            "`context.source_trust`: expected a word",
        ),
        (format!("{{{call},{call}}}"), "bad_json", "duplicate key `tool_call`"),
        (format!("{{{call},\"agent_id\":\"x\"}}"), "bad_field", "unknown field `agent_id`"),
        (format!("{{{no_resource}}}"), "bad_field", "missing field `resource`"),
        (
            format!("{{{call},\"context\":{{\"source_trust\":\"very\"}}}}"),
            "bad_field",
            "`context.source_trust`: expected",
        ),
        (format!("{{{call},\"request_id\":5}}"), "bad_field", "`request_id`: expected a string"),
        (format!("{{{call},\"request_id\":\"\"}}"), "bad_field", "`request_id`"),
        (format!("{{{call},\"user\":{{}}}}"), "bad_field", "missing field `id`"),
        (call_with("true", "\"a\"").replace("n1", "n\\n1"), "bad_action", "`resource`"),
        (call_with("true", "9007199254740993"), "bad_json", "2^53"),
        (call_with("true", "5"), "bad_parameter", "`tool_call.parameters.text`"),
        (call_with("false", "\"a\""), "mutates_state_mismatch", "mutates_state"),
        (call_with("true", "\"a\"").replace("desk", "nowhere"), "unknown_tool", "nowhere"),
        (call_with("true", "\"a\"").replace("write_note", "sing"), "unknown_action", "desk.sing"),
    ];
    for (n, (body, code, words)) in cases.iter().enumerate() {
        let answer =
            rig.send(To::Agents, post(&token, body.clone().into_bytes(), "application/json"), "203.0.113.7").await;
        answer.is_problem(400, code);
        assert!(answer.str("/detail").contains(words), "{body}: {}", answer.text);
        assert_eq!(rig.refusals().len(), n + 1, "{body}");
        assert!(answer.str("/receipt").starts_with("rcp_n1_"));
        assert_eq!(answer.header("aegis-receipt"), answer.str("/receipt"));
    }
}

#[tokio::test]
async fn other_media_and_too_much_are_refused_on_record() {
    let rig = Rig::new().await;
    let (_, token) = rig.enrol("a").await;
    let send = |body: Vec<u8>, media| rig.send(To::Agents, post(&token, body, media), "203.0.113.7");
    send(b"{}".to_vec(), "text/plain").await.is_problem(415, "bad_media_type");
    send(vec![b' '; (1 << 20) + 1], "application/json").await.is_problem(413, "body_too_large");
    let mut declared = post(&token, Vec::new(), "application/json");
    declared.headers_mut().insert("content-length", "2000000".parse().unwrap());
    rig.send(To::Agents, declared, "203.0.113.7").await.is_problem(413, "body_too_large");
    // Exactly at the bound it is read.
    let mut body = write_note().to_string().into_bytes();
    body.resize(1 << 20, b' ');
    assert_eq!(send(body, "application/json; charset=utf-8").await.status, 200);
    assert_eq!(rig.refusals(), ["bad_media_type", "body_too_large", "body_too_large"]);
}

#[tokio::test]
async fn a_resend_finds_the_first_answer_and_another_body_a_conflict() {
    let rig = Rig::new().await;
    let (_, token) = rig.enrol("a").await;
    let mut body = write_note();
    body["request_id"] = json!("r-1");
    let first = rig.authorize(&token, body.clone()).await;
    let again = rig.authorize(&token, body.clone()).await;
    assert_eq!(first.body, again.body);
    // The same value in another spelling is the same body.
    let spelt = format!("{{\"request_id\": \"r-\\u0031\",\n{}", write_note().to_string().strip_prefix('{').unwrap());
    let respelt = rig.send(To::Agents, post(&token, spelt.into_bytes(), "application/json"), "203.0.113.7").await;
    assert_eq!(first.body, respelt.body);
    assert_eq!(rig.leaves().iter().filter(|l| l["type"] == "intent.v1").count(), 1);
    body["dry_run"] = json!(true);
    rig.authorize(&token, body.clone()).await.is_problem(409, "request_id_reused");
    // Keys are the agent's own.
    let (_, other) = rig.enrol("b").await;
    assert_eq!(rig.authorize(&other, body).await.status, 200);
}

#[tokio::test]
async fn a_resend_does_not_outlive_a_freeze() {
    let rig = Rig::new().await;
    let (id, token) = rig.enrol("a").await;
    let mut body = write_note();
    body["request_id"] = json!("r-1");
    assert_eq!(rig.authorize(&token, body.clone()).await.status, 200);
    for (verb, status, code) in
        [("freeze", 403, "agent_frozen"), ("quarantine", 403, "agent_quarantined"), ("revoke", 401, "agent_revoked")]
    {
        assert_eq!(rig.admin(Method::POST, &format!("/v1/agents/{id}/{verb}"), None).await.status, 200);
        let refused = rig.authorize(&token, body.clone()).await;
        refused.is_problem(status, code);
        assert!(refused.body["receipt"].is_string());
        assert_eq!(rig.leaves().last().unwrap()["agent_id"], id);
    }
    assert_eq!(rig.refusals(), ["agent_frozen", "agent_quarantined", "agent_revoked"]);
}

#[tokio::test]
async fn racing_resends_are_one_decision() {
    let rig = Arc::new(Rig::new().await);
    let (_, token) = rig.enrol("a").await;
    let mut body = write_note();
    body["request_id"] = json!("r-1");
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..16 {
        let (rig, token, body) = (rig.clone(), token.clone(), body.clone());
        tasks.spawn(async move { rig.authorize(&token, body).await });
    }
    let mut decisions = std::collections::BTreeSet::new();
    while let Some(answer) = tasks.join_next().await {
        let answer = answer.unwrap();
        match answer.status.as_u16() {
            200 => drop(decisions.insert(answer.str("/decision_id"))),
            _ => {
                answer.is_problem(409, "request_in_flight");
                assert_eq!(answer.header("retry-after"), "1");
            }
        }
    }
    assert_eq!(decisions.len(), 1);
    assert_eq!(rig.leaves().iter().filter(|l| l["type"] == "intent.v1").count(), 1);
}

#[tokio::test]
async fn nothing_happens_that_cannot_be_recorded_and_it_recovers_by_itself() {
    let rig = Rig::new().await;
    let (id, token) = rig.enrol("a").await;
    rig.disk.fill_up(true);
    let answer = rig.authorize(&token, write_note()).await;
    answer.is_problem(503, "not_recorded");
    assert!(!answer.text.contains("segment") && !answer.text.contains("disk"), "internals stay inside");
    let ready = rig.call(To::Admins, Method::GET, "/ready", "", None).await;
    ready.is_problem(503, "not_ready");
    assert_eq!(ready.str("/detail"), "not ready: log");
    assert_eq!(ready.body["checks"][0], json!({"name": "store", "ok": true}));
    let outside = rig.call(To::Agents, Method::GET, "/ready", "", None).await;
    outside.is_problem(503, "not_ready");
    assert!(!outside.text.contains("log") && !outside.text.contains("store"), "{}", outside.text);
    let put = async || rig.admin(Method::PUT, "/v1/credentials/shop", Some(json!({"value": "hunter22"}))).await;
    put().await.is_problem(503, "not_recorded");
    let listed = rig.admin(Method::GET, "/v1/credentials", None).await;
    assert_eq!(
        listed.body["credentials"][1]["stored"], false,
        "a log that is known to fail changes nothing: {}",
        listed.text
    );
    // Containment must not wait for a disk.
    rig.admin(Method::POST, &format!("/v1/agents/{id}/freeze"), None).await.is_problem(503, "not_recorded");
    rig.authorize(&token, write_note()).await.is_problem(403, "agent_frozen");

    rig.disk.fill_up(false);
    assert_eq!(rig.call(To::Admins, Method::GET, "/ready", "", None).await.status, 200);
    assert_eq!(put().await.status, 200);
    assert_eq!(rig.admin(Method::POST, &format!("/v1/agents/{id}/unfreeze"), None).await.status, 200);
    assert_eq!(rig.authorize(&token, write_note()).await.body["decision"], "allow");
    let events = rig.events();
    assert!(events.contains(&"agent_frozen".to_owned()), "recorded once that was possible: {events:?}");
}

#[tokio::test]
async fn an_outcome_closes_its_decision_once_and_only_for_its_agent() {
    let rig = Rig::new().await;
    let (_, token) = rig.enrol("a").await;
    let (_, other) = rig.enrol("b").await;
    let decision = rig.authorize(&token, write_note()).await.str("/decision_id");
    let path = format!("/v1/decisions/{decision}/outcome");
    let report = json!({"status": "completed", "result_digest": "ab".repeat(32), "result_bytes": 12});
    let send = |token: String, body: Value| rig.call_owned(path.clone(), token, body);
    send(other, report.clone()).await.is_problem(404, "not_found");
    send(token.clone(), json!({"status": "unknown"})).await.is_problem(400, "bad_field");
    send(token.clone(), json!({"status": "failed", "result_bytes": 1})).await.is_problem(400, "bad_field");
    send(token.clone(), json!({"status": "completed", "result_digest": "AB".repeat(32)}))
        .await
        .is_problem(400, "bad_field");
    assert_eq!(send(token.clone(), report.clone()).await.status, 204);
    send(token, report).await.is_problem(404, "not_found");
    rig.broker.log.shutdown();
    let outcome = rig.leaves().into_iter().find(|l| l["type"] == "outcome.v1").unwrap();
    assert_eq!(outcome["decision_id"], decision);
    assert_eq!(outcome["received"], json!({"bytes": 12, "sha256": "ab".repeat(32)}));
}

impl Rig {
    async fn call_owned(&self, path: String, token: String, body: Value) -> super::Answer {
        self.call(To::Agents, Method::POST, &path, &token, Some(body)).await
    }
}

fn call_with(mutates: &str, text: &str) -> String {
    format!(
        r#"{{"tool_call":{{"tool":"desk","action":"write_note","resource":"n1","mutates_state":{mutates},"parameters":{{"text":{text}}}}}}}"#
    )
}

fn post(token: &str, body: Vec<u8>, media: &str) -> Request<Body> {
    let request = Request::builder().method(Method::POST).uri("/v1/authorize").header("content-type", media);
    request.header("authorization", format!("Bearer {token}")).body(Body::from(body)).unwrap()
}
