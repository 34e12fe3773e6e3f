//! Sessions: a token for one run, that ends with the run.

use http::Method;
use serde_json::{Value, json};

use super::{Answer, Rig, To, write_note};

async fn start(rig: &Rig, agent_id: &str, body: Option<Value>) -> Answer {
    rig.admin(Method::POST, &format!("/v1/agents/{agent_id}/sessions"), body).await
}

#[tokio::test]
async fn a_session_has_a_token_of_its_own_that_ends_with_its_lease() {
    let rig = Rig::new().await;
    let (id, token) = rig.enrol("a").await;
    let session = start(&rig, &id, None).await;
    assert_eq!((session.status.as_u16(), session.str("/agent_id")), (201, id.clone()));
    assert_eq!(session.str("/expires_at"), "2026-01-01T00:15:00.000Z");
    let own = session.str("/agent_token");
    assert_ne!(own, token);
    assert_eq!(rig.authorize(&own, write_note()).await.status, 200);
    rig.clock.advance(899);
    assert_eq!(rig.authorize(&own, write_note()).await.status, 200);
    rig.clock.advance(1);
    rig.authorize(&own, write_note()).await.is_problem(401, "expired_token");
    assert_eq!(rig.authorize(&token, write_note()).await.status, 200);
}

#[tokio::test]
async fn renewals_move_the_end_and_never_revive() {
    let rig = Rig::new().await;
    let (id, _) = rig.enrol("a").await;
    let session = start(&rig, &id, Some(json!({"lease_seconds": 60}))).await;
    let own = session.str("/agent_token");
    let path = format!("/v1/agents/{id}/sessions/{}/renew", session.str("/session_id"));
    let lease = Some(json!({"lease_seconds": 60}));
    // In the cache, so that a renewal has to reach it there.
    assert_eq!(rig.authorize(&own, write_note()).await.status, 200);
    for _ in 0..3 {
        rig.clock.advance(40);
        rig.admin(Method::POST, &path, lease.clone()).await;
        assert_eq!(rig.authorize(&own, write_note()).await.status, 200);
    }
    let renewed = rig.admin(Method::POST, &path, lease.clone()).await;
    assert_eq!(renewed.str("/expires_at"), "2026-01-01T00:03:00.000Z");
    rig.clock.advance(60);
    rig.authorize(&own, write_note()).await.is_problem(401, "expired_token");
    rig.admin(Method::POST, &path, lease.clone()).await.is_problem(409, "conflict");
    let other = format!("/v1/agents/{id}/sessions/run_none/renew");
    rig.admin(Method::POST, &other, lease).await.is_problem(404, "not_found");
    for bad in [0, 3601] {
        let answer = rig.admin(Method::POST, &path, Some(json!({"lease_seconds": bad}))).await;
        answer.is_problem(400, "bad_field");
    }
}

#[tokio::test]
async fn an_ended_session_ends_for_what_is_in_flight_and_alone() {
    let rig = Rig::new().await;
    let (id, token) = rig.enrol("a").await;
    let (other, _) = rig.enrol("b").await;
    let (first, second) = (start(&rig, &id, None).await, start(&rig, &id, None).await);
    let (ended, kept) = (first.str("/agent_token"), second.str("/agent_token"));
    let now = aegis_action::Clock::now(&*rig.clock);
    let in_flight = rig.broker.auth.agent(&ended, None, now).await.unwrap_or_else(|_| panic!("not let in"));
    let path = |agent: &str| format!("/v1/agents/{agent}/sessions/{}", first.str("/session_id"));
    rig.admin(Method::DELETE, &path(&other), None).await.is_problem(404, "not_found");
    assert!(in_flight.refusal(now).is_none());
    assert_eq!(rig.admin(Method::DELETE, &path(&id), None).await.status, 204);
    assert!(in_flight.refusal(now).is_some(), "the end reaches what is in flight");
    rig.authorize(&ended, write_note()).await.is_problem(401, "expired_token");
    for token in [&kept, &token] {
        assert_eq!(rig.authorize(token, write_note()).await.status, 200);
    }
    rig.admin(Method::DELETE, &path(&id), None).await.is_problem(404, "not_found");
    rig.admin(Method::DELETE, &format!("/v1/agents/{id}/sessions/%2e%2e%2fx"), None).await.is_problem(400, "bad_id");
    let events = rig.events();
    let of_sessions: Vec<_> = events.iter().filter(|e| e.starts_with("session_")).collect();
    assert_eq!(of_sessions, ["session_started", "session_started", "session_ended"]);
}

#[tokio::test]
async fn containment_holds_for_sessions_and_a_contained_agent_starts_none() {
    let rig = Rig::new().await;
    let (id, _) = rig.enrol("a").await;
    let own = start(&rig, &id, None).await.str("/agent_token");
    let step = async |verb: &str| rig.admin(Method::POST, &format!("/v1/agents/{id}/{verb}"), None).await;
    step("freeze").await;
    rig.authorize(&own, write_note()).await.is_problem(403, "agent_frozen");
    start(&rig, &id, None).await.is_problem(409, "conflict");
    step("unfreeze").await;
    assert_eq!(rig.authorize(&own, write_note()).await.status, 200);
    step("rotate").await;
    assert_eq!(rig.authorize(&own, write_note()).await.status, 200, "a session is not the agent's other tokens");
    step("revoke").await;
    rig.authorize(&own, write_note()).await.is_problem(401, "agent_revoked");
    start(&rig, "agt_none", None).await.is_problem(404, "not_found");
}

#[tokio::test]
async fn a_session_names_the_run_in_every_receipt_whatever_the_caller_says() {
    let rig = Rig::new().await;
    let (id, token) = rig.enrol("a").await;
    let session = start(&rig, &id, None).await;
    let mut call = write_note();
    call["trace"] = json!({"run_id": "another"});
    rig.authorize(&session.str("/agent_token"), call.clone()).await;
    rig.authorize(&session.str("/agent_token"), write_note()).await;
    rig.authorize(&token, call).await;
    let leaves = rig.leaves();
    let runs: Vec<_> = leaves.iter().filter(|l| l["type"] == "intent.v1").map(|l| l["run_id"].clone()).collect();
    let own = json!(session.str("/session_id"));
    assert_eq!(runs, [own.clone(), own, json!("another")]);
}

#[tokio::test]
async fn a_session_cannot_turn_itself_into_a_token_that_outlives_it() {
    let rig = Rig::new().await;
    let (id, token) = rig.enrol("a").await;
    let own = start(&rig, &id, None).await.str("/agent_token");
    let rotated = rig.call(To::Agents, Method::POST, "/v1/agents/self/rotate", &own, None).await;
    rotated.is_problem(403, "wrong_credential");
    assert_eq!(rig.authorize(&token, write_note()).await.status, 200, "nor end the agent's own");
}
