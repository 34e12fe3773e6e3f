//! The outbox: an event exists if and only if its transition happened.

use std::time::Duration;

use aegis_broker::store::AgentState::{Active, Frozen};
use aegis_broker::store::OutboxEvent;

use super::*;

pub async fn events_come_back_in_order_until_they_are_done(made: &Made) {
    for n in [3, 1, 2] {
        with_agent(&*made.one, &format!("a{n}")).await;
    }
    assert_eq!(waiting(&*made.two).await, ["add a3", "add a1", "add a2"]);
    let first: Vec<OutboxEvent> = made.two.outbox(1).await.unwrap();
    assert_eq!(first, [event("add a3")]);
    assert_eq!(made.two.outbox(1).await.unwrap(), first, "not done, so it comes again");
    made.two.outbox_done(&["add a3".into(), "unheard of".into()]).await.unwrap();
    assert_eq!(waiting(&*made.one).await, ["add a1", "add a2"]);
    made.two.outbox_done(&["add a2".into()]).await.unwrap();
    with_agent(&*made.one, "a0").await;
    assert_eq!(waiting(&*made.one).await, ["add a1", "add a0"]);
    made.two.outbox_done(&[]).await.unwrap();
    assert_eq!(made.two.outbox(0).await.unwrap(), []);
}

pub async fn a_refused_transition_leaves_no_event(made: &Made) {
    with_approved(&*made.one).await;
    let before = waiting(&*made.one).await;
    conflict(made.one.insert_agent(&agent("a1"), &token("a1", "t"), &event("e")).await, "is taken");
    conflict(made.one.transition_agent("a1", &[Frozen], Active, &event("e")).await, "`active`");
    not_found(made.one.rotate_token("a9", &token("a9", "t"), NOW, &event("e")).await);
    conflict(made.one.insert_person(&person("p1"), &event("e")).await, "is taken");
    assert!(!made.one.revoke_person("p9", &event("e")).await.unwrap());
    conflict(made.one.settle_approval("q1", "p1", false, None, NOW, &event("e")).await, "`approved`");
    assert!(!made.one.consume_approval("q1", "a1", &hash("another"), NOW, &event("e")).await.unwrap());
    assert_eq!(waiting(&*made.two).await, before);
}

pub async fn a_refused_event_leaves_no_transition(made: &Made) {
    with_approved(&*made.one).await;
    made.one.ask_approval(&approval("q2", "a1"), NOW, MANY, &event("ask q2")).await.unwrap();
    let taken = event("add a1");
    conflict(made.one.insert_agent(&agent("a2"), &token("a2", "t2"), &taken).await, "event_id");
    assert_eq!(made.two.agent("a2").await.unwrap(), None);
    assert_eq!(made.two.agent_by_token(&hash("t2")).await.unwrap(), None);
    conflict(made.one.transition_agent("a1", &[Active], Frozen, &taken).await, "event_id");
    assert_eq!(made.two.agent("a1").await.unwrap(), Some(agent("a1")));
    conflict(made.one.rotate_token("a1", &token("a1", "t3"), NOW, &taken).await, "event_id");
    let first = made.two.agent_by_token(&hash("first token of a1")).await.unwrap().unwrap().1;
    assert_eq!(first.expires_at, later(3600));
    conflict(made.one.insert_person(&person("p2"), &taken).await, "event_id");
    conflict(made.one.revoke_person("p1", &taken).await, "event_id");
    assert_eq!(made.two.people().await.unwrap(), [person("p1")]);
    let other = aegis_broker::store::ApprovalRecord { route: "other".into(), ..approval("q3", "a1") };
    conflict(made.one.ask_approval(&other, NOW, MANY, &taken).await, "event_id");
    assert_eq!(made.two.approval("q3", NOW).await.unwrap(), None);
    conflict(made.one.settle_approval("q2", "p1", true, None, NOW, &taken).await, "event_id");
    assert_eq!(made.two.approval("q2", NOW).await.unwrap(), Some(approval("q2", "a1")));
    conflict(made.one.consume_approval("q1", "a1", &hash("the action"), NOW, &taken).await, "event_id");
    assert_eq!(made.two.granted_approvals("a1", "github", &hash("the action"), NOW).await.unwrap().len(), 1);
}

/// Calls are dropped at many different moments; each leaves its transition with its event, or neither.
pub async fn a_dropped_call_leaves_all_or_nothing(made: &Made) {
    with_agent(&*made.one, "a1").await;
    for n in 0..60_u32 {
        let (from, to) = match made.one.agent("a1").await.unwrap().unwrap().state {
            Active => (Active, Frozen),
            _ => (Frozen, Active),
        };
        let event = event(&format!("change {n}"));
        let change = made.one.transition_agent("a1", std::slice::from_ref(&from), to, &event);
        let _ = tokio::time::timeout(Duration::from_micros(u64::from(n) * 40), change).await;
    }
    // The last call may still be rolling back; a write waits for it.
    made.one.health().await.unwrap();
    let changes = made.two.agent("a1").await.unwrap().unwrap().version - 1;
    let events = waiting(&*made.two).await.len() as u64 - 1;
    assert_eq!(changes, events);
}
