//! Records to test with.

use aegis_action::{Digest, SourceTrust, Timestamp, sha256};
use aegis_broker::store::*;
use serde_json::json;

/// The present of every case.
pub const NOW: Timestamp = Timestamp(1_800_000_000_000);

/// More approvals than a case asks for.
pub const MANY: u32 = 1000;

pub fn later(seconds: i64) -> Timestamp {
    NOW.plus_seconds(seconds)
}

pub fn hash(of: &str) -> Digest {
    sha256(of.as_bytes())
}

pub fn event(id: &str) -> OutboxEvent {
    OutboxEvent {
        event_id: id.into(),
        kind: "something_happened".into(),
        at: NOW,
        body: json!({"event": id, "nested": {"n": 1.5, "list": [1, null, "ü"]}}),
    }
}

pub fn agent(id: &str) -> AgentRecord {
    AgentRecord {
        agent_id: id.into(),
        agent_key: format!("key-of-{id}"),
        tenant: "default".into(),
        name: "Robert'); DROP TABLE agents;--".into(),
        owner_team: "payments".into(),
        owner_email: "owner@example.com".into(),
        environment: "production".into(),
        risk_tier: "high".into(),
        framework: Some("none".into()),
        purpose: None,
        model_provider: None,
        model_name: Some("m".into()),
        bind_cidr: vec!["10.0.0.0/8".into(), "::1/128".into()],
        state: AgentState::Active,
        created_at: NOW,
        version: 1,
    }
}

pub fn token(agent_id: &str, name: &str) -> TokenRecord {
    TokenRecord {
        token_hash: hash(name),
        agent_id: agent_id.into(),
        session_id: None,
        created_at: NOW,
        expires_at: later(3600),
    }
}

/// The token of a session that lasts a minute.
pub fn session(agent_id: &str, id: &str) -> TokenRecord {
    TokenRecord { session_id: Some(id.into()), expires_at: later(60), ..token(agent_id, &format!("token of {id}")) }
}

pub fn person(id: &str) -> PersonRecord {
    PersonRecord {
        person_id: id.into(),
        name: "Ada".into(),
        email: Some("ada@example.com".into()),
        slack_user: Some(format!("U{id}")),
        role: PersonRole::Approver,
        groups: vec!["payments".into(), "security".into()],
        token_hash: hash(&format!("token of {id}")),
        created_at: NOW,
        expires_at: Some(later(86_400)),
        revoked: false,
    }
}

pub fn approval(id: &str, agent_id: &str) -> ApprovalRecord {
    ApprovalRecord {
        approval_id: id.into(),
        tenant: "default".into(),
        agent_id: agent_id.into(),
        route: "github".into(),
        action_hash: hash("the action"),
        version: Some("head-1".into()),
        groups: vec!["payments".into()],
        quorum: 1,
        status: ApprovalStatus::Pending,
        action: "github.merge_pull_request".into(),
        resource: Some("octo/payments#482".into()),
        risk: "high".into(),
        source_trust: SourceTrust::SemiTrustedCustomer,
        sealed_payload: Some(PAYLOAD.to_vec()),
        policies: vec!["merge-needs-approval".into()],
        snapshot: hash("snapshot"),
        created_at: NOW,
        expires_at: later(600),
        settled_at: None,
        settled_by: vec![],
    }
}

/// Sealed bytes that a test can look for in files.
pub const PAYLOAD: &[u8] = b"sealed-payload-canary-7c1d9e44";

pub fn intent(node: &str, seq: u64) -> ProjectedLeaf {
    ProjectedLeaf {
        node: node.into(),
        seq,
        receipt_hash: hash(&format!("{node}/{seq}")),
        kind: "intent.v1".into(),
        at: Timestamp(NOW.0 + seq as i64),
        decision_id: Some(format!("dec-{node}-{seq}")),
        agent_id: Some("a1".into()),
        action: Some("github.get_repo".into()),
        resource: Some("octo/payments".into()),
        decision: Some("allow".into()),
        leaf: json!({"type": "intent.v1", "seq": seq}),
    }
}

pub async fn with_agent(store: &dyn Store, id: &str) {
    store
        .insert_agent(&agent(id), &token(id, &format!("first token of {id}")), &event(&format!("add {id}")))
        .await
        .unwrap();
}

pub async fn with_people(store: &dyn Store, ids: &[&str]) {
    for id in ids {
        store.insert_person(&person(id), &event(&format!("add {id}"))).await.unwrap();
    }
}

/// Agent `a1`, person `p1`, and their approved approval `q1`.
pub async fn with_approved(store: &dyn Store) {
    with_agent(store, "a1").await;
    with_people(store, &["p1"]).await;
    store.ask_approval(&approval("q1", "a1"), NOW, MANY, &event("ask q1")).await.unwrap();
    store.settle_approval("q1", "p1", true, None, NOW, &event("yes q1")).await.unwrap();
}

/// Kinds of the events that wait, in order.
pub async fn waiting(store: &dyn Store) -> Vec<String> {
    store.outbox(10_000).await.unwrap().into_iter().map(|e| e.event_id).collect()
}

#[track_caller]
pub fn conflict<T: std::fmt::Debug>(answer: Result<T, StoreError>, says: &str) {
    match answer {
        Err(StoreError::Conflict(text)) => assert!(text.contains(says), "`{text}` should say `{says}`"),
        other => panic!("expected a conflict, got {other:?}"),
    }
}

#[track_caller]
pub fn not_found<T: std::fmt::Debug>(answer: Result<T, StoreError>) {
    assert!(matches!(answer, Err(StoreError::NotFound(_))), "expected not found, got {answer:?}");
}
