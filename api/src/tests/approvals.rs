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

#[tokio::test]
async fn what_is_over_is_on_record_once() {
    let rig = Rig::new().await;
    let (_, agent) = rig.enrol("a").await;
    let (_, lead) = rig.approver(&["leads"]).await;
    ask(&rig, &agent, json!({})).await;
    let (approved, _) = ask(&rig, &agent, json!({"n": 1})).await;
    settle(&rig, &lead, &approved, "approve").await;
    let (rejected, _) = ask(&rig, &agent, json!({"n": 2})).await;
    settle(&rig, &lead, &rejected, "reject").await;
    rig.clock.advance(899);
    rig.broker.expire_approvals().await.unwrap();
    assert!(!rig.events().contains(&"approval_expired".to_owned()));
    rig.clock.advance(1);
    rig.broker.expire_approvals().await.unwrap();
    rig.broker.expire_approvals().await.unwrap();
    assert_eq!(rig.events().iter().filter(|e| *e == "approval_expired").count(), 2);
}

#[tokio::test]
async fn an_agent_cannot_bury_people_in_questions() {
    let rig = Rig::new().await;
    let (_, agent) = rig.enrol("a").await;
    let (_, other) = rig.enrol("b").await;
    let (_, lead) = rig.approver(&["leads"]).await;
    let (first, _) = ask(&rig, &agent, json!({"n": 0})).await;
    ask(&rig, &agent, json!({"n": 1})).await;
    ask(&rig, &agent, json!({"n": 2})).await;
    let fourth = rig.authorize(&agent, deploy(json!({"n": 3}))).await;
    assert_eq!((&fourth.body["decision"], &fourth.body["reason"]), (&json!("deny"), &json!("approval_quota")));
    assert_eq!(ask(&rig, &agent, json!({"n": 0})).await.0, first, "what was asked is not asked again");
    ask(&rig, &other, json!({"n": 3})).await;
    settle(&rig, &lead, &first, "reject").await;
    ask(&rig, &agent, json!({"n": 3})).await;
}

#[tokio::test]
async fn nobody_approves_critical_actions_of_their_own_agent() {
    let rig = Rig::new().await;
    let (agent_id, agent) = rig.enrol("a").await;
    let approver = async |email: Value| {
        let body = json!({"name": "Lee", "groups": ["leads"], "email": email});
        rig.admin(Method::POST, "/v1/approvers", Some(body)).await.str("/approver_token")
    };
    let owner = approver(json!("A@example.test")).await;
    let unnamed = approver(Value::Null).await;
    let apart = approver(json!("lee@example.test")).await;
    rig.admin(Method::POST, "/v1/approvers", Some(json!({"name": "Lee", "groups": ["leads"], "email": "lee"})))
        .await
        .is_problem(400, "bad_field");
    let raze = json!({"tool_call": {"tool": "desk", "action": "raze", "resource": null, "mutates_state": true, "parameters": {}}});
    let asked = rig.authorize(&agent, raze).await;
    let id = asked.str("/approval/approval_id");
    settle(&rig, &owner, &id, "approve").await.is_problem(403, "not_apart");
    settle(&rig, &unnamed, &id, "approve").await.is_problem(403, "not_apart");
    let grant = json!({"agent_id": agent_id, "action": "desk.raze", "ttl_seconds": 60});
    rig.call(To::Admins, Method::POST, "/v1/grants", &owner, Some(grant.clone())).await.is_problem(403, "not_apart");
    assert_eq!(settle(&rig, &apart, &id, "approve").await.body["status"], "approved");
    assert_eq!(rig.call(To::Admins, Method::POST, "/v1/grants", &apart, Some(grant)).await.status, 201);

    let (ordinary, _) = ask(&rig, &agent, json!({})).await;
    assert_eq!(settle(&rig, &owner, &ordinary, "approve").await.body["status"], "approved", "high is not critical");
    let again = rig.authorize(&agent, deploy(json!({"n": 2}))).await.str("/approval/approval_id");
    assert_eq!(settle(&rig, &owner, &again, "reject").await.body["status"], "rejected", "a no is always theirs");
}

#[tokio::test]
async fn a_grant_lifts_the_gate_for_its_time_and_on_record() {
    let rig = Rig::new().await;
    let (agent_id, agent) = rig.enrol("a").await;
    let (_, other) = rig.enrol("b").await;
    let (person, lead) = rig.approver(&["leads", "ops"]).await;
    let (_, finance) = rig.approver(&["finance"]).await;
    let give =
        async |token: &str, body: Value| rig.call(To::Admins, Method::POST, "/v1/grants", token, Some(body)).await;
    let wanted = json!({"agent_id": agent_id, "action": "desk.deploy", "resource": "shop", "groups": ["leads"],
        "ttl_seconds": 600, "reason": "release"});
    let with = |member: &str, value: Value| {
        let mut body = wanted.clone();
        body[member] = value;
        body
    };
    give(&rig.admin, wanted.clone()).await.is_problem(403, "wrong_credential");
    give(&finance, wanted.clone()).await.is_problem(403, "not_in_group");
    give(&lead, with("agent_id", json!("agt_none"))).await.is_problem(404, "not_found");
    give(&lead, with("action", json!("desk.fly"))).await.is_problem(400, "bad_field");
    give(&lead, with("resource", Value::Null)).await.is_problem(400, "bad_field");
    give(&lead, with("ttl_seconds", json!(0))).await.is_problem(400, "bad_field");
    give(&lead, with("ttl_seconds", json!(2_592_001))).await.is_problem(400, "bad_field");
    give(&lead, with("groups", json!([]))).await.is_problem(400, "bad_field");

    let given = give(&lead, wanted.clone()).await;
    assert_eq!((given.status.as_u16(), &given.body["holds"]), (201, &json!(true)), "{}", given.text);
    let id = given.str("/grant_id");
    for n in 0..2 {
        let decided = rig.authorize(&agent, deploy(json!({"n": n}))).await;
        assert_eq!(decided.body["decision"], "allow", "{}", decided.text);
        assert_eq!(decided.body["approval"]["approval_id"], id);
    }
    let leaves = rig.leaves();
    let intent = leaves.iter().rfind(|l| l["type"] == "intent.v1").unwrap();
    assert_eq!(intent["approval"], json!({"id": id, "approvers": [person]}));
    assert_eq!(rig.authorize(&other, deploy(json!({}))).await.body["decision"], "require_approval");
    let elsewhere = json!({"tool_call": {"tool": "desk", "action": "deploy", "resource": "bank", "mutates_state": true, "parameters": {}}});
    assert_eq!(rig.authorize(&agent, elsewhere).await.body["decision"], "require_approval");

    let path = format!("/v1/grants/{id}/revoke");
    assert_eq!(rig.admin(Method::POST, &path, None).await.status, 204);
    rig.admin(Method::POST, &path, None).await.is_problem(404, "not_found");
    assert_eq!(rig.authorize(&agent, deploy(json!({"n": 9}))).await.body["decision"], "require_approval");
    assert_eq!(give(&lead, wanted).await.status, 201);
    rig.clock.advance(600);
    assert_eq!(rig.authorize(&agent, deploy(json!({"n": 10}))).await.body["decision"], "require_approval");
    let listed = rig.admin(Method::GET, &format!("/v1/grants?agent_id={agent_id}"), None).await;
    let states: Vec<bool> = listed.body["grants"].as_array().unwrap().iter().map(|g| g["holds"] == true).collect();
    assert_eq!(states, [false, false]);
    let steps: Vec<String> = rig.events().into_iter().filter(|e| e.starts_with("grant_")).collect();
    assert_eq!(steps, ["grant_given", "grant_revoked", "grant_given"]);
}

#[tokio::test]
async fn a_swap_is_told_to_those_who_watch() {
    let rig = Rig::new().await;
    let (_, agent) = rig.enrol("a").await;
    let (_, lead) = rig.approver(&["leads"]).await;
    let (id, hash) = ask(&rig, &agent, json!({"version": 7})).await;
    settle(&rig, &lead, &id, "approve").await;
    let swapped = deploy(json!({"version": 8}))["tool_call"].clone();
    consume(&rig, &agent, &id, json!({"action_hash": hash, "tool_call": swapped})).await;
    let metrics = rig.admin(Method::GET, "/metrics", None).await;
    assert!(metrics.text.contains("aegis_detections_total{rule=\"approval_swap\"} 1"), "{}", metrics.text);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_racing_consumers_one_runs_and_the_rest_are_told_why() {
    let rig = std::sync::Arc::new(Rig::new().await);
    let (_, agent) = rig.enrol("a").await;
    let (_, lead) = rig.approver(&["leads"]).await;
    let (id, hash) = ask(&rig, &agent, json!({"version": 7})).await;
    settle(&rig, &lead, &id, "approve").await;
    let racers: Vec<_> = (0..64)
        .map(|_| {
            let (rig, agent, id, hash) = (rig.clone(), agent.clone(), id.clone(), hash.clone());
            tokio::spawn(async move { consume(&rig, &agent, &id, json!({"action_hash": hash})).await })
        })
        .collect();
    let mut through = 0;
    for racer in racers {
        let answer = racer.await.unwrap();
        match answer.status.as_u16() {
            200 => through += 1,
            _ => answer.is_problem(409, "approval_settled"),
        }
    }
    assert_eq!(through, 1);
    let asked = rig.events().iter().filter(|e| *e == "approval_asked").count();
    assert_eq!(asked, 1, "nobody is asked again by those who came too late");
}

#[tokio::test]
async fn a_gate_that_wants_two_people_is_never_lifted_in_advance() {
    let rig = Rig::new().await;
    let (agent_id, agent) = rig.enrol("a").await;
    let grant = json!({"agent_id": agent_id, "action": "desk.launch", "ttl_seconds": 600});
    for _ in 0..2 {
        let (_, lead) = rig.approver(&["leads"]).await;
        let given = rig.call(To::Admins, Method::POST, "/v1/grants", &lead, Some(grant.clone())).await;
        assert_eq!(given.status, 201, "{}", given.text);
    }
    let launch = json!({"tool_call": {"tool": "desk", "action": "launch", "resource": null, "mutates_state": true, "parameters": {}}});
    assert_eq!(rig.authorize(&agent, launch).await.body["decision"], "require_approval");
}

#[tokio::test]
async fn a_grant_does_not_outlive_the_access_of_who_gave_it() {
    let rig = Rig::new().await;
    let (agent_id, agent) = rig.enrol("a").await;
    let approver = async |ttl: Value| {
        let body = json!({"name": "Lee", "groups": ["leads"], "ttl_seconds": ttl});
        let made = rig.admin(Method::POST, "/v1/approvers", Some(body)).await;
        (made.str("/person_id"), made.str("/approver_token"))
    };
    let give = async |token: &str| {
        let body = json!({"agent_id": agent_id, "action": "desk.deploy", "resource": "shop", "ttl_seconds": 600});
        rig.call(To::Admins, Method::POST, "/v1/grants", token, Some(body)).await
    };
    let decided = async |n: i64| rig.authorize(&agent, deploy(json!({"n": n}))).await.body["decision"].clone();
    let (_, short) = approver(json!(60)).await;
    assert_eq!(give(&short).await.str("/expires_at"), "2026-01-01T00:01:00.000Z");
    assert_eq!(decided(1).await, "allow");
    rig.clock.advance(60);
    assert_eq!(decided(2).await, "require_approval");

    let (person, lead) = approver(Value::Null).await;
    assert_eq!(give(&lead).await.status, 201);
    assert_eq!(decided(3).await, "allow");
    assert_eq!(rig.admin(Method::POST, &format!("/v1/approvers/{person}/revoke"), None).await.status, 204);
    assert_eq!(decided(4).await, "require_approval");
    assert_eq!(rig.admin(Method::GET, "/v1/grants", None).await.body["grants"][0]["holds"], false);
}
