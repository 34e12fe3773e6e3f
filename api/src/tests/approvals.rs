//! An approval from the question to the one use.

use http::Method;
use serde_json::{Value, json};

use super::{Answer, Rig, To, deploy};

/// Asks for a deployment; approval id and action hash.
async fn ask(rig: &Rig, token: &str, parameters: Value) -> (String, String) {
    let asked = rig.authorize(token, deploy(parameters)).await;
    assert_eq!(asked.body["decision"], "require_approval", "{}", asked.text);
    (asked.str("/approval/approval_id"), asked.str("/action_hash"))
}

async fn settle(rig: &Rig, token: &str, id: &str, verb: &str) -> Answer {
    rig.call(To::Admins, Method::POST, &format!("/v1/approvals/{id}/{verb}"), token, None).await
}

async fn consume(rig: &Rig, token: &str, id: &str, body: Value) -> Answer {
    rig.call(To::Agents, Method::POST, &format!("/v1/approvals/{id}/consume"), token, Some(body)).await
}

#[tokio::test]
async fn approved_once_means_used_once() {
    let rig = Rig::new().await;
    let (_, agent) = rig.enrol("a").await;
    let (person, lead) = rig.approver(&["leads"]).await;
    let (id, hash) = ask(&rig, &agent, json!({"version": 7})).await;
    consume(&rig, &agent, &id, json!({"action_hash": hash})).await.is_problem(409, "approval_settled");

    let shown = rig.call(To::Admins, Method::GET, &format!("/v1/approvals/{id}"), &lead, None).await;
    assert_eq!(shown.body["payload"][0]["tool_call"]["parameters"], json!({"version": 7}), "{}", shown.text);
    assert_eq!(shown.str("/expires_at"), "2026-01-01T00:15:00.000Z");
    let own = rig.call(To::Agents, Method::GET, &format!("/v1/approvals/{id}"), &agent, None).await;
    assert_eq!((&own.body["status"], own.body.get("payload")), (&json!("pending"), None));

    let settled = settle(&rig, &lead, &id, "approve").await;
    assert_eq!(
        (&settled.body["status"], &settled.body["settled_by"]),
        (&json!("approved"), &json!([person])),
        "{}",
        settled.text
    );
    settle(&rig, &lead, &id, "approve").await.is_problem(409, "approval_settled");

    let used = consume(&rig, &agent, &id, json!({"action_hash": hash})).await;
    assert_eq!((used.status.as_u16(), &used.body["decision"]), (200, &json!("allow")), "{}", used.text);
    assert_eq!(used.body["action_hash"], hash);
    consume(&rig, &agent, &id, json!({"action_hash": hash})).await.is_problem(409, "approval_settled");
    let after = rig.call(To::Admins, Method::GET, &format!("/v1/approvals/{id}"), &lead, None).await;
    assert_eq!((&after.body["status"], after.body.get("payload")), (&json!("consumed"), None), "erased once used");
    let events = rig.events();
    let steps: Vec<_> = events.iter().filter(|e| e.starts_with("approval_")).collect();
    assert_eq!(steps, ["approval_asked", "approval_granted", "approval_consumed"]);
}

#[tokio::test]
async fn an_approval_is_for_its_agent_and_its_action() {
    let rig = Rig::new().await;
    let (_, agent) = rig.enrol("a").await;
    let (_, other) = rig.enrol("b").await;
    let (_, lead) = rig.approver(&["leads"]).await;
    let (id, hash) = ask(&rig, &agent, json!({"version": 7})).await;
    let (_, another) = ask(&rig, &agent, json!({"version": 8})).await;
    assert_eq!(settle(&rig, &lead, &id, "approve").await.status, 200);
    rig.call(To::Agents, Method::GET, &format!("/v1/approvals/{id}"), &other, None).await.is_problem(404, "not_found");
    consume(&rig, &other, &id, json!({"action_hash": hash})).await.is_problem(404, "not_found");
    consume(&rig, &agent, &id, json!({"action_hash": another})).await.is_problem(409, "approval_hash_mismatch");
    let swapped = deploy(json!({"version": 8}))["tool_call"].clone();
    consume(&rig, &agent, &id, json!({"action_hash": hash, "tool_call": swapped}))
        .await
        .is_problem(409, "approval_hash_mismatch");
    consume(&rig, &agent, &id, json!({"action_hash": "zz"})).await.is_problem(400, "bad_field");
    assert_eq!(rig.refusals(), ["approval_hash_mismatch", "approval_hash_mismatch", "bad_field"]);
    assert_eq!(consume(&rig, &agent, &id, json!({"action_hash": hash})).await.status, 200);
}

#[tokio::test]
async fn what_is_masked_has_to_be_said_again() {
    let rig = Rig::new().await;
    let (_, agent) = rig.enrol("a").await;
    let (_, lead) = rig.approver(&["leads"]).await;
    let parameters = json!({"api_token": "hunter2-hunter2"});
    let (id, hash) = ask(&rig, &agent, parameters.clone()).await;
    let shown = settle(&rig, &lead, &id, "approve").await;
    assert_eq!(shown.status, 200);
    let read = rig.call(To::Admins, Method::GET, &format!("/v1/approvals/{id}"), &lead, None).await;
    assert!(!read.text.contains("hunter2") && !shown.text.contains("hunter2"));
    consume(&rig, &agent, &id, json!({"action_hash": hash})).await.is_problem(400, "tool_call_needed");
    let call = deploy(parameters)["tool_call"].clone();
    assert_eq!(consume(&rig, &agent, &id, json!({"action_hash": hash, "tool_call": call})).await.status, 200);
}

#[tokio::test]
async fn a_no_a_stranger_and_time_do_not_approve() {
    let rig = Rig::new().await;
    let (_, agent) = rig.enrol("a").await;
    let (_, lead) = rig.approver(&["leads"]).await;
    let (_, stranger) = rig.approver(&["finance"]).await;
    let (id, hash) = ask(&rig, &agent, json!({})).await;
    let refused = settle(&rig, &stranger, &id, "approve").await;
    refused.is_problem(403, "not_in_group");
    assert!(refused.str("/detail").contains("leads"));
    assert_eq!(settle(&rig, &lead, &id, "reject").await.body["status"], "rejected");
    consume(&rig, &agent, &id, json!({"action_hash": hash})).await.is_problem(409, "approval_settled");
    settle(&rig, &lead, "apr_none", "approve").await.is_problem(404, "not_found");

    let (id, hash) = ask(&rig, &agent, json!({"n": 1})).await;
    assert_eq!(settle(&rig, &lead, &id, "approve").await.status, 200);
    rig.clock.advance(900);
    let late = consume(&rig, &agent, &id, json!({"action_hash": hash})).await;
    late.is_problem(409, "approval_settled");
    assert!(late.str("/detail").contains("expired"));
}

#[tokio::test]
async fn a_frozen_agent_uses_no_approval_up() {
    let rig = Rig::new().await;
    let (agent_id, agent) = rig.enrol("a").await;
    let (_, lead) = rig.approver(&["leads"]).await;
    let (id, hash) = ask(&rig, &agent, json!({})).await;
    settle(&rig, &lead, &id, "approve").await;
    rig.admin(Method::POST, &format!("/v1/agents/{agent_id}/freeze"), None).await;
    consume(&rig, &agent, &id, json!({"action_hash": hash})).await.is_problem(403, "agent_frozen");
    rig.admin(Method::POST, &format!("/v1/agents/{agent_id}/unfreeze"), None).await;
    assert_eq!(consume(&rig, &agent, &id, json!({"action_hash": hash})).await.status, 200);
}

#[tokio::test]
async fn policies_have_the_last_word_when_an_approval_is_used() {
    let rig = Rig::new().await;
    let (_, agent) = rig.enrol("a").await;
    let (_, lead) = rig.approver(&["leads"]).await;
    let (id, hash) = ask(&rig, &agent, json!({})).await;
    settle(&rig, &lead, &id, "approve").await;
    let mut sources = super::sources(super::ROUTES);
    sources.policies[0].text.push_str("@id(\"stop\") forbid (principal, action == Action::\"desk.deploy\", resource);");
    *rig.sources.lock() = Some(sources);
    assert_eq!(rig.admin(Method::POST, "/v1/reload", None).await.body["result"], "swapped");
    let refused = consume(&rig, &agent, &id, json!({"action_hash": hash})).await;
    refused.is_problem(409, "not_allowed_any_more");
    assert_eq!(refused.body["decision"]["decision"], "deny", "{}", refused.text);
    assert_eq!(refused.body["receipt"], refused.body["decision"]["receipt"]["receipt_id"]);
}

#[tokio::test]
async fn approvals_are_listed_by_agent_and_status() {
    let rig = Rig::new().await;
    let (a, agent) = rig.enrol("a").await;
    let (_, other) = rig.enrol("b").await;
    let (_, lead) = rig.approver(&["leads"]).await;
    let (first, _) = ask(&rig, &agent, json!({"n": 1})).await;
    rig.clock.advance(1);
    let (second, _) = ask(&rig, &agent, json!({"n": 2})).await;
    ask(&rig, &other, json!({"n": 1})).await;
    settle(&rig, &lead, &first, "approve").await;
    let ids = async |query: &str| -> Vec<String> {
        let page = rig.call(To::Admins, Method::GET, &format!("/v1/approvals{query}"), &lead, None).await;
        page.body["approvals"]
            .as_array()
            .unwrap()
            .iter()
            .map(|x| x["approval_id"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(ids("").await.len(), 3);
    assert_eq!(ids(&format!("?agent_id={a}")).await, [second.clone(), first.clone()]);
    assert_eq!(ids(&format!("?agent_id={a}&status=approved")).await, [first]);
    assert_eq!(ids(&format!("?agent_id={a}&limit=1")).await, [second]);
    rig.admin(Method::GET, "/v1/approvals?status=maybe", None).await.is_problem(400, "bad_query");
}
