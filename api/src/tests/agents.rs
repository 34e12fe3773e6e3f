//! Enrolment, tokens, containment, approvers.

use http::Method;
use serde_json::{Value, json};

use super::{Rig, To, enrolment, write_note};

#[tokio::test]
async fn a_known_key_is_a_conflict_and_lifts_no_freeze() {
    let rig = Rig::new().await;
    let (id, token) = rig.enrol("a").await;
    assert!(token.starts_with("aegis_agt_"));
    assert_eq!(rig.admin(Method::POST, &format!("/v1/agents/{id}/freeze"), None).await.body["state"], "frozen");
    let again = rig.admin(Method::POST, "/v1/agents/register", Some(enrolment("a"))).await;
    again.is_problem(409, "conflict");
    assert!(again.str("/detail").contains("rotate"));
    assert_eq!(rig.admin(Method::GET, &format!("/v1/agents/{id}"), None).await.body["state"], "frozen");
    rig.authorize(&token, write_note()).await.is_problem(403, "agent_frozen");
}

#[tokio::test]
async fn enrolment_is_checked_field_by_field() {
    let rig = Rig::new().await;
    let cases = [
        ("risk_tier", json!("extreme"), "`risk_tier`"),
        ("owner_email", json!(""), "`owner_email`"),
        ("ttl_seconds", json!(0), "`ttl_seconds`"),
        ("ttl_seconds", json!(2_592_001), "`ttl_seconds`"),
        ("credential_shapes", json!(["aws"]), "`credential_shapes`"),
        ("bind", json!({"mtls": {}}), "`bind`"),
        ("bind", json!({"cidr": ["everywhere"]}), "`bind`"),
        ("bind", json!({"cidr": []}), "`bind`"),
        ("bind", json!({"cidr": 5}), "`bind.cidr`: expected a CIDR block or a list of them"),
        ("bind", json!({"host": "x"}), "unknown field `host`"),
        ("admin", json!(true), "unknown field `admin`"),
        ("name", json!(5), "`name`: expected a string"),
    ];
    for (field, value, words) in cases {
        let mut body = enrolment("x");
        body[field] = value;
        let answer = rig.admin(Method::POST, "/v1/agents/register", Some(body)).await;
        answer.is_problem(400, "bad_field");
        assert!(answer.str("/detail").contains(words), "{}", answer.text);
    }
    let mut body = enrolment("x");
    body.as_object_mut().unwrap().remove("owner_team");
    let answer = rig.admin(Method::POST, "/v1/agents/register", Some(body)).await;
    assert!(answer.str("/detail").contains("missing field `owner_team`"));
    assert_eq!(rig.admin(Method::GET, "/v1/agents", None).await.body["agents"], json!([]));
}

#[tokio::test]
async fn transitions_follow_the_life_of_an_agent_and_are_events() {
    let rig = Rig::new().await;
    let (id, token) = rig.enrol("a").await;
    let step = async |verb: &str| rig.admin(Method::POST, &format!("/v1/agents/{id}/{verb}"), Some(json!({}))).await;
    step("unfreeze").await.is_problem(409, "conflict");
    assert_eq!(step("freeze").await.body["state"], "frozen");
    step("freeze").await.is_problem(409, "conflict");
    assert_eq!(step("unfreeze").await.body["state"], "active");
    assert_eq!(rig.authorize(&token, write_note()).await.status, 200);
    assert_eq!(step("quarantine").await.body["state"], "quarantined");
    assert_eq!(step("revoke").await.body["state"], "revoked");
    for verb in ["freeze", "unfreeze", "quarantine", "revoke", "rotate"] {
        step(verb).await.is_problem(409, "conflict");
    }
    rig.admin(Method::POST, "/v1/agents/agt_none/freeze", None).await.is_problem(404, "not_found");
    let body = json!({"reason": "x"});
    rig.admin(Method::POST, &format!("/v1/agents/{id}/freeze"), Some(body)).await.is_problem(400, "bad_field");
    let events = rig.events();
    let of_agents: Vec<_> = events.iter().filter(|e| e.starts_with("agent_")).collect();
    assert_eq!(of_agents, ["agent_registered", "agent_frozen", "agent_unfrozen", "agent_quarantined", "agent_revoked"]);
}

#[tokio::test]
async fn an_admins_rotation_ends_the_old_token_at_once_unless_told_otherwise() {
    let rig = Rig::new().await;
    let (id, old) = rig.enrol("a").await;
    let path = format!("/v1/agents/{id}/rotate");
    let new = rig.admin(Method::POST, &path, None).await.str("/agent_token");
    rig.authorize(&old, write_note()).await.is_problem(401, "expired_token");
    assert_eq!(rig.authorize(&new, write_note()).await.status, 200);
    let newer = rig.admin(Method::POST, &path, Some(json!({"overlap_seconds": 30, "ttl_seconds": 600}))).await;
    assert_eq!(newer.str("/expires_at"), "2026-01-01T00:10:00.000Z");
    assert_eq!(rig.authorize(&new, write_note()).await.status, 200);
    rig.clock.advance(30);
    rig.authorize(&new, write_note()).await.is_problem(401, "expired_token");
    assert_eq!(rig.authorize(&newer.str("/agent_token"), write_note()).await.status, 200);
    rig.admin(Method::POST, &path, Some(json!({"overlap_seconds": 3601}))).await.is_problem(400, "bad_field");
}

#[tokio::test]
async fn an_agent_rotates_itself_and_gains_nothing_by_it() {
    let rig = Rig::new().await;
    let mut body = enrolment("a");
    body["ttl_seconds"] = json!(3600);
    let token = rig.admin(Method::POST, "/v1/agents/register", Some(body)).await.str("/agent_token");
    let rotate = async |token: &str, body: Option<Value>| {
        rig.call(To::Agents, Method::POST, "/v1/agents/self/rotate", token, body).await
    };
    rotate(&token, Some(json!({"ttl_seconds": 3601}))).await.is_problem(400, "bad_field");
    rotate(&token, Some(json!({"overlap_seconds": 9}))).await.is_problem(400, "bad_field");
    rig.clock.advance(1800);
    let rotated = rotate(&token, None).await;
    assert_eq!(rotated.str("/expires_at"), "2026-01-01T01:30:00.000Z");
    let new = rotated.str("/agent_token");
    assert_eq!(rig.authorize(&token, write_note()).await.status, 200, "for a moment both work");
    rig.clock.advance(60);
    rig.authorize(&token, write_note()).await.is_problem(401, "expired_token");
    assert_eq!(rig.authorize(&new, write_note()).await.status, 200);
}

#[tokio::test]
async fn agents_come_in_pages() {
    let rig = Rig::new().await;
    let mut ids = Vec::new();
    for n in 0..5 {
        ids.push(rig.enrol(&format!("a{n}")).await.0);
    }
    let mut seen = Vec::new();
    let mut path = "/v1/agents?limit=2".to_owned();
    let pages = loop {
        let page = rig.admin(Method::GET, &path, None).await;
        seen.extend(page.body["agents"].as_array().unwrap().iter().map(|a| a["agent_id"].as_str().unwrap().to_owned()));
        match page.body["next"].as_str() {
            Some(next) => path = format!("/v1/agents?limit=2&after={next}"),
            None => break seen.len(),
        }
    };
    assert_eq!((pages, seen), (5, ids));
    rig.admin(Method::GET, "/v1/agents?after=agt_none", None).await.is_problem(404, "not_found");
    rig.admin(Method::GET, "/v1/agents/agt_none", None).await.is_problem(404, "not_found");
}

#[tokio::test]
async fn approvers_are_added_listed_and_ended() {
    let rig = Rig::new().await;
    let (id, token) = rig.approver(&["leads"]).await;
    assert!(token.starts_with("aegis_apr_"));
    let add = async |body: Value| rig.admin(Method::POST, "/v1/approvers", Some(body)).await;
    add(json!({"name": "x", "groups": []})).await.is_problem(400, "bad_field");
    add(json!({"name": "x", "groups": ["g"], "role": "admin"})).await.is_problem(400, "bad_field");
    add(json!({"name": "x", "groups": ["g"], "ttl_seconds": 0})).await.is_problem(400, "bad_field");
    let short = add(json!({"name": "x", "groups": ["g"], "ttl_seconds": 60})).await;
    assert_eq!(short.str("/expires_at"), "2026-01-01T00:01:00.000Z");
    let listed = rig.admin(Method::GET, "/v1/approvers", None).await;
    assert_eq!(listed.body["approvers"].as_array().unwrap().len(), 2, "admins are not approvers");
    assert!(!listed.text.contains("hash"));
    let list = async |token: &str| rig.call(To::Admins, Method::GET, "/v1/approvals", token, None).await;
    assert_eq!(list(&token).await.status, 200);
    assert_eq!(rig.admin(Method::POST, &format!("/v1/approvers/{id}/revoke"), None).await.status, 204);
    list(&token).await.is_problem(401, "agent_revoked");
    rig.clock.advance(60);
    list(&short.str("/approver_token")).await.is_problem(401, "expired_token");
    // Admins are people of the store too.
    let admin = rig.broker.store.people().await.unwrap().into_iter().find(|p| p.name == "root").unwrap();
    rig.admin(Method::POST, &format!("/v1/approvers/{}/revoke", admin.person_id), None)
        .await
        .is_problem(404, "not_found");
}
