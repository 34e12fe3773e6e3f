//! Idempotency keys.

use aegis_action::{Digest, Timestamp};
use aegis_broker::store::AgentState::{Active, Expired, Frozen, Quarantined, Revoked};
use aegis_broker::store::IdempotencyClaim::{self, Fresh, InFlight, Mismatch, Replay};
use serde_json::json;

use super::*;

async fn claim_at(made: &Made, agent: &str, key: &str, body: Digest, now: Timestamp) -> IdempotencyClaim {
    made.one.idempotency_claim(agent, key, &body, now, now.plus_seconds(60)).await.unwrap()
}

async fn claim(made: &Made, agent: &str, key: &str, body: &str) -> IdempotencyClaim {
    claim_at(made, agent, key, hash(body), NOW).await
}

pub async fn a_key_binds_to_its_body(made: &Made) {
    with_agent(&*made.one, "a1").await;
    assert_eq!(claim(made, "a1", "k", "body").await, Fresh);
    assert_eq!(claim(made, "a1", "k", "body").await, InFlight);
    assert_eq!(claim(made, "a1", "k", "other").await, Mismatch);
    assert_eq!(claim(made, "a1", "k2", "other").await, Fresh);
    made.two.idempotency_finish("a1", "k", &json!({"n": 1})).await.unwrap();
    assert_eq!(claim(made, "a1", "k", "body").await, Replay(json!({"n": 1})));
    assert_eq!(claim(made, "a1", "k", "other").await, Mismatch);
}

pub async fn an_answer_is_replayed_until_the_key_expires(made: &Made) {
    with_agent(&*made.one, "a1").await;
    assert_eq!(claim(made, "a1", "k", "body").await, Fresh);
    let answer = json!({"decision": "allow", "list": [1, 2.5, null], "text": "ü\u{0}"});
    made.two.idempotency_finish("a1", "k", &answer).await.unwrap();
    not_found(made.two.idempotency_finish("a1", "k", &json!("another")).await);
    not_found(made.two.idempotency_finish("a1", "unclaimed", &answer).await);
    assert_eq!(claim_at(made, "a1", "k", hash("body"), Timestamp(later(60).0 - 1)).await, Replay(answer));
    assert_eq!(claim_at(made, "a1", "k", hash("other"), later(60)).await, Fresh, "an expired key counts as absent");
    assert_eq!(claim_at(made, "a1", "k", hash("other"), later(61)).await, InFlight, "without the old answer");
    assert_eq!(claim_at(made, "a1", "k", hash("body"), later(61)).await, Mismatch);
}

pub async fn a_released_key_starts_anew_and_an_answered_one_stays(made: &Made) {
    with_agent(&*made.one, "a1").await;
    assert_eq!(claim(made, "a1", "k", "body").await, Fresh);
    made.two.idempotency_release("a1", "k").await.unwrap();
    made.two.idempotency_release("a1", "k").await.unwrap();
    assert_eq!(claim(made, "a1", "k", "other").await, Fresh);
    made.two.idempotency_finish("a1", "k", &json!(true)).await.unwrap();
    made.two.idempotency_release("a1", "k").await.unwrap();
    assert_eq!(claim(made, "a1", "k", "other").await, Replay(json!(true)));
}

pub async fn keys_do_not_outlive_a_freeze(made: &Made) {
    for (n, state) in [Frozen, Quarantined, Expired].into_iter().enumerate() {
        let id = format!("a{n}");
        with_agent(&*made.one, &id).await;
        assert_eq!(claim(made, &id, "answered", "body").await, Fresh);
        assert_eq!(claim(made, &id, "in flight", "body").await, Fresh);
        made.one.idempotency_finish(&id, "answered", &json!("allow")).await.unwrap();
        made.two.transition_agent(&id, &[Active], state, &event(&format!("stop {id}"))).await.unwrap();
        not_found(made.one.idempotency_finish(&id, "in flight", &json!("allow")).await);
        made.two.transition_agent(&id, &[state], Active, &event(&format!("start {id}"))).await.unwrap();
        assert_eq!(claim(made, &id, "answered", "other body").await, Fresh);
        assert_eq!(claim(made, &id, "in flight", "other body").await, Fresh);
    }
}

pub async fn an_inactive_agent_claims_nothing(made: &Made) {
    let claim = async |id: &str| made.one.idempotency_claim(id, "k", &hash("b"), NOW, later(60)).await;
    not_found(claim("nobody").await);
    with_agent(&*made.one, "a1").await;
    made.two.transition_agent("a1", &[Active], Frozen, &event("freeze")).await.unwrap();
    conflict(claim("a1").await, "`frozen`");
    made.two.transition_agent("a1", &[Frozen], Revoked, &event("revoke")).await.unwrap();
    conflict(claim("a1").await, "`revoked`");
}

pub async fn agents_do_not_share_keys(made: &Made) {
    with_agent(&*made.one, "a1").await;
    with_agent(&*made.one, "a2").await;
    assert_eq!(claim(made, "a1", "k", "body").await, Fresh);
    assert_eq!(claim(made, "a2", "k", "other").await, Fresh);
    made.two.idempotency_finish("a1", "k", &json!("of a1")).await.unwrap();
    made.two.transition_agent("a2", &[Active], Frozen, &event("freeze")).await.unwrap();
    assert_eq!(claim(made, "a1", "k", "body").await, Replay(json!("of a1")));
}

pub async fn expired_keys_do_not_pile_up(made: &Made) {
    with_agent(&*made.one, "a1").await;
    for n in 0..20 {
        assert_eq!(claim(made, "a1", &format!("old {n}"), "body").await, Fresh);
    }
    for n in 0..4 {
        assert_eq!(claim_at(made, "a1", &format!("new {n}"), hash("body"), later(3600)).await, Fresh);
    }
    // At the old time the old keys would still be live, had they not been removed.
    for n in 0..20 {
        assert_eq!(claim(made, "a1", &format!("old {n}"), "other").await, Fresh);
    }
}
