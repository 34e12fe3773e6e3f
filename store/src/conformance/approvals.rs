//! Approvals.

use aegis_broker::store::ApprovalStatus::{Approved, Consumed, Expired, Pending, Rejected};
use aegis_broker::store::{ApprovalRecord, ApprovalStatus, PersonRecord, StoreError};

use aegis_action::Timestamp;

use super::*;

async fn setting(made: &Made) {
    with_agent(&*made.one, "a1").await;
    with_agent(&*made.one, "a2").await;
    with_people(&*made.one, &["p1", "p2", "p3"]).await;
    let done = waiting(&*made.one).await;
    made.one.outbox_done(&done).await.unwrap();
}

async fn ask(made: &Made, approval: &ApprovalRecord) -> ApprovalRecord {
    let event = event(&format!("ask {}", approval.approval_id));
    made.one.ask_approval(approval, NOW, MANY, &event).await.unwrap()
}

pub async fn the_same_question_is_asked_once(made: &Made) {
    setting(made).await;
    let first = approval("q1", "a1");
    assert_eq!(ask(made, &first).await, first);
    assert_eq!(made.two.approval("q1", NOW).await.unwrap(), Some(first.clone()));
    assert_eq!(ask(made, &approval("q2", "a1")).await, first);
    assert_eq!(waiting(&*made.one).await, ["ask q1"]);
    assert_eq!(made.two.approval("q2", NOW).await.unwrap(), None);

    let after = made.one.ask_approval(&approval("q3", "a1"), later(600), MANY, &event("ask q3")).await.unwrap();
    assert_eq!(after.approval_id, "q3", "an expired question is asked anew");
    made.one.settle_approval("q3", "p1", true, None, NOW, &event("yes")).await.unwrap();
    assert_eq!(ask(made, &approval("q4", "a1")).await.approval_id, "q1", "q1 is live again at the earlier time");
}

pub async fn another_version_route_or_action_is_another_question(made: &Made) {
    setting(made).await;
    let first = approval("q1", "a1");
    let others = [
        ApprovalRecord { version: Some("head-2".into()), ..first.clone() },
        ApprovalRecord { version: None, ..first.clone() },
        ApprovalRecord { route: "other".into(), ..first.clone() },
        ApprovalRecord { action_hash: hash("another"), ..first.clone() },
        ApprovalRecord { agent_id: "a2".into(), ..first.clone() },
    ];
    ask(made, &first).await;
    for (n, other) in others.into_iter().enumerate() {
        let id = format!("other-{n}");
        let other = ApprovalRecord { approval_id: id.clone(), ..other };
        assert_eq!(ask(made, &other).await.approval_id, id);
        let again = ApprovalRecord { approval_id: "again".into(), ..other };
        assert_eq!(ask(made, &again).await.approval_id, id);
    }
}

pub async fn an_approval_must_start_pending(made: &Made) {
    setting(made).await;
    let asked = async |a: ApprovalRecord| made.one.ask_approval(&a, NOW, MANY, &event("no")).await;
    conflict(asked(ApprovalRecord { status: Approved, ..approval("q1", "a1") }).await, "`approved`");
    conflict(asked(ApprovalRecord { settled_by: vec!["p1".into()], ..approval("q1", "a1") }).await, "pending");
    conflict(asked(ApprovalRecord { quorum: 0, ..approval("q1", "a1") }).await, "quorum");
    not_found(asked(approval("q1", "nobody")).await);
    assert_eq!(waiting(&*made.one).await, Vec::<String>::new());
}

pub async fn a_yes_approves_and_a_no_rejects(made: &Made) {
    setting(made).await;
    ask(made, &approval("q1", "a1")).await;
    let yes = made.one.settle_approval("q1", "p1", true, None, later(5), &event("yes")).await.unwrap();
    assert_eq!((yes.status, yes.settled_at, &yes.settled_by[..]), (Approved, Some(later(5)), &["p1".to_owned()][..]));
    assert_eq!(yes.sealed_payload.as_deref(), Some(PAYLOAD));
    assert_eq!(made.two.approval("q1", later(5)).await.unwrap(), Some(yes.clone()));
    assert_eq!(made.two.granted_approvals("a1", "github", &hash("the action"), later(5)).await.unwrap(), [yes]);
    assert_eq!(made.two.granted_approvals("a2", "github", &hash("the action"), NOW).await.unwrap(), []);
    assert_eq!(made.two.granted_approvals("a1", "other", &hash("the action"), NOW).await.unwrap(), []);
    assert_eq!(made.two.granted_approvals("a1", "github", &hash("another"), NOW).await.unwrap(), []);
    conflict(made.two.settle_approval("q1", "p2", false, None, NOW, &event("late")).await, "`approved`");

    ask(made, &approval("q2", "a2")).await;
    let no = made.one.settle_approval("q2", "p2", false, None, later(6), &event("no")).await.unwrap();
    assert_eq!((no.status, no.settled_at, &no.settled_by[..]), (Rejected, Some(later(6)), &["p2".to_owned()][..]));
    assert_eq!(made.two.granted_approvals("a2", "github", &hash("the action"), NOW).await.unwrap(), []);
    conflict(made.two.settle_approval("q2", "p1", true, None, NOW, &event("late")).await, "`rejected`");
    assert_eq!(waiting(&*made.one).await, ["ask q1", "yes", "ask q2", "no"]);
}

pub async fn a_quorum_is_of_distinct_people(made: &Made) {
    setting(made).await;
    ask(made, &ApprovalRecord { quorum: 2, ..approval("q1", "a1") }).await;
    let first = made.one.settle_approval("q1", "p1", true, None, NOW, &event("yes 1")).await.unwrap();
    assert_eq!((first.status, first.settled_at), (Pending, None));
    conflict(made.two.settle_approval("q1", "p1", true, None, NOW, &event("yes again")).await, "already");
    assert_eq!(made.two.granted_approvals("a1", "github", &hash("the action"), NOW).await.unwrap(), []);
    let second = made.two.settle_approval("q1", "p2", true, None, later(1), &event("yes 2")).await.unwrap();
    assert_eq!((second.status, second.settled_at), (Approved, Some(later(1))));
    assert_eq!(second.settled_by, ["p1", "p2"]);
    conflict(made.two.settle_approval("q1", "p3", true, None, NOW, &event("late")).await, "`approved`");
    assert_eq!(waiting(&*made.one).await, ["ask q1", "yes 1", "yes 2"]);
}

pub async fn one_no_ends_a_quorum(made: &Made) {
    setting(made).await;
    ask(made, &ApprovalRecord { quorum: 3, ..approval("q1", "a1") }).await;
    made.one.settle_approval("q1", "p1", true, None, NOW, &event("yes")).await.unwrap();
    let ended = made.one.settle_approval("q1", "p1", false, None, NOW, &event("changed mind")).await.unwrap();
    assert_eq!((ended.status, &ended.settled_by[..]), (Rejected, &["p1".to_owned()][..]));
    conflict(made.two.settle_approval("q1", "p2", true, None, NOW, &event("late")).await, "`rejected`");
}

pub async fn only_people_with_access_settle(made: &Made) {
    setting(made).await;
    ask(made, &approval("q1", "a1")).await;
    let short = PersonRecord { expires_at: Some(later(10)), ..person("short") };
    made.one.insert_person(&short, &event("short")).await.unwrap();
    made.one.revoke_person("p1", &event("revoke")).await.unwrap();
    for yes in [true, false] {
        not_found(made.two.settle_approval("q1", "p1", yes, None, NOW, &event("revoked")).await);
        not_found(made.two.settle_approval("q1", "short", yes, None, later(10), &event("expired")).await);
        not_found(made.two.settle_approval("q1", "a1", yes, None, NOW, &event("an agent")).await);
        not_found(made.two.settle_approval("q9", "p2", yes, None, NOW, &event("no approval")).await);
    }
    assert_eq!(made.two.approval("q1", NOW).await.unwrap().unwrap().status, Pending);
    let settled = made.two.settle_approval("q1", "short", true, None, later(9), &event("in time")).await.unwrap();
    assert_eq!(settled.status, Approved);
}

pub async fn the_hour_of_expiry_counts_as_expired(made: &Made) {
    setting(made).await;
    ask(made, &approval("q1", "a1")).await;
    let just_before = Timestamp(later(600).0 - 1);
    let read = async |at| made.two.approval("q1", at).await.unwrap().unwrap();
    assert_eq!(read(just_before).await.status, Pending);
    assert_eq!(read(later(600)).await.status, Expired);
    made.one.settle_approval("q1", "p1", true, None, just_before, &event("yes")).await.unwrap();
    assert_eq!(read(just_before).await.status, Approved);
    assert_eq!(read(later(600)).await.status, Expired);
    let granted = async |at| made.two.granted_approvals("a1", "github", &hash("the action"), at).await.unwrap().len();
    assert_eq!((granted(just_before).await, granted(later(600)).await), (1, 0));
}

pub async fn expired_approvals_cannot_be_settled_or_consumed(made: &Made) {
    setting(made).await;
    ask(made, &approval("q1", "a1")).await;
    for yes in [true, false] {
        conflict(made.one.settle_approval("q1", "p1", yes, None, later(600), &event("late")).await, "`expired`");
    }
    made.one.settle_approval("q1", "p1", true, None, NOW, &event("yes")).await.unwrap();
    let consume = async |at| made.two.consume_approval("q1", "a1", &hash("the action"), at, &event("consume")).await;
    assert!(!consume(later(600)).await.unwrap());
    assert!(consume(later(599)).await.unwrap());
    assert_eq!(
        made.two.approval("q1", later(9999)).await.unwrap().unwrap().status,
        Consumed,
        "a consumed one stays so"
    );
}

pub async fn consumption_needs_the_agent_and_the_hash_and_happens_once(made: &Made) {
    setting(made).await;
    ask(made, &approval("q1", "a1")).await;
    let consume = async |id: &str, agent: &str, action: &str| {
        made.two.consume_approval(id, agent, &hash(action), NOW, &event("consume")).await.unwrap()
    };
    assert!(!consume("q1", "a1", "the action").await, "pending is not approved");
    made.one.settle_approval("q1", "p1", true, None, NOW, &event("yes")).await.unwrap();
    assert!(!consume("q1", "a2", "the action").await);
    assert!(!consume("q1", "a1", "another").await);
    assert!(!consume("q9", "a1", "the action").await);
    assert!(consume("q1", "a1", "the action").await);
    assert!(!consume("q1", "a1", "the action").await);
    assert_eq!(waiting(&*made.one).await, ["ask q1", "yes", "consume"]);
    let read = made.one.approval("q1", NOW).await.unwrap().unwrap();
    assert_eq!((read.status, &read.settled_by[..]), (Consumed, &["p1".to_owned()][..]));
    ask(made, &approval("q2", "a1")).await;
    made.one.settle_approval("q2", "p1", false, None, NOW, &event("no")).await.unwrap();
    assert!(!consume("q2", "a1", "the action").await, "rejected is not approved");
}

pub async fn settlement_erases_the_payload(made: &Made) {
    setting(made).await;
    let payload = async |id: &str| made.two.approval(id, NOW).await.unwrap().unwrap().sealed_payload;
    ask(made, &approval("q1", "a1")).await;
    assert_eq!(payload("q1").await.as_deref(), Some(PAYLOAD));
    made.one.settle_approval("q1", "p1", true, None, NOW, &event("yes")).await.unwrap();
    assert_eq!(payload("q1").await.as_deref(), Some(PAYLOAD), "still to be carried out");
    made.one.consume_approval("q1", "a1", &hash("the action"), NOW, &event("consume")).await.unwrap();
    assert_eq!(payload("q1").await, None);
    ask(made, &approval("q2", "a2")).await;
    made.one.settle_approval("q2", "p1", false, None, NOW, &event("no")).await.unwrap();
    assert_eq!(payload("q2").await, None);
}

pub async fn expiry_erases_the_payload(made: &Made) {
    setting(made).await;
    ask(made, &approval("q1", "a1")).await;
    let payload = async |at| made.two.approval("q1", at).await.unwrap().unwrap().sealed_payload;
    assert_eq!(payload(later(600)).await, None, "an expired one is shown without");
    assert_eq!(payload(NOW).await.as_deref(), Some(PAYLOAD));
    made.one.ask_approval(&approval("q2", "a2"), later(600), MANY, &event("ask q2")).await.unwrap();
    assert_eq!(payload(NOW).await, None, "the next write erases it");
}

pub async fn approvals_are_listed_newest_first_by_the_status_they_read_as(made: &Made) {
    setting(made).await;
    let at = |id: &str, agent: &str, created: i64, expires: i64| ApprovalRecord {
        action_hash: hash(id),
        created_at: later(created),
        expires_at: later(expires),
        ..approval(id, agent)
    };
    for a in [at("q1", "a1", 0, 100), at("q2", "a1", 1, 900), at("q3", "a2", 3, 900), at("q4", "a2", 2, 900)] {
        ask(made, &a).await;
    }
    made.one.settle_approval("q2", "p1", true, None, NOW, &event("yes")).await.unwrap();
    made.one.settle_approval("q4", "p1", false, None, NOW, &event("no")).await.unwrap();
    let list = async |agent: Option<&str>, status: Option<ApprovalStatus>, limit: u32, t: i64| -> Vec<String> {
        let listed = made.two.approvals(agent, status, limit, later(t)).await.unwrap();
        assert!(status.is_none_or(|s| listed.iter().all(|a| a.status == s)));
        listed.into_iter().map(|a| a.approval_id).collect()
    };
    assert_eq!(list(None, None, 10, 50).await, ["q3", "q4", "q2", "q1"]);
    assert_eq!(list(None, None, 2, 50).await, ["q3", "q4"]);
    assert_eq!(list(Some("a1"), None, 10, 50).await, ["q2", "q1"]);
    assert_eq!(list(None, Some(Pending), 10, 50).await, ["q3", "q1"]);
    assert_eq!(list(None, Some(Pending), 10, 100).await, ["q3"]);
    assert_eq!(list(None, Some(Approved), 10, 100).await, ["q2"]);
    assert_eq!(list(None, Some(Rejected), 10, 9999).await, ["q4"]);
    assert_eq!(list(None, Some(Expired), 10, 100).await, ["q1"]);
    assert_eq!(list(None, Some(Expired), 10, 900).await, ["q3", "q2", "q1"]);
    assert_eq!(list(Some("a1"), Some(Expired), 10, 900).await, ["q2", "q1"]);
    assert_eq!(list(None, Some(Consumed), 10, 900).await, Vec::<String>::new());
}

pub async fn an_agent_has_so_many_questions_open(made: &Made) {
    setting(made).await;
    let asked = |id: &str, agent: &str| ApprovalRecord { action_hash: hash(id), ..approval(id, agent) };
    let ask = async |a: ApprovalRecord, at| made.one.ask_approval(&a, at, 2, &event(&a.approval_id)).await;
    ask(asked("q1", "a1"), NOW).await.unwrap();
    ask(asked("q2", "a1"), NOW).await.unwrap();
    let third = ask(asked("q3", "a1"), NOW).await;
    assert!(matches!(third, Err(StoreError::TooMany(_))), "{third:?}");
    assert_eq!(made.two.approval("q3", NOW).await.unwrap(), None);
    assert_eq!(ask(asked("q1", "a1"), NOW).await.unwrap().approval_id, "q1", "what was asked already is still found");
    ask(asked("q4", "a2"), NOW).await.unwrap();
    made.one.settle_approval("q1", "p1", false, None, NOW, &event("no")).await.unwrap();
    ask(asked("q5", "a1"), NOW).await.unwrap();
    ask(ApprovalRecord { expires_at: later(1200), ..asked("q6", "a1") }, later(600)).await.unwrap();
    assert_eq!(waiting(&*made.one).await, ["q1", "q2", "q4", "no", "q5", "q6"]);
}

pub async fn a_vote_on_what_was_seen_needs_that_still_to_be_so(made: &Made) {
    setting(made).await;
    ask(made, &ApprovalRecord { quorum: 3, ..approval("q1", "a1") }).await;
    let first: [String; 0] = [];
    made.one.settle_approval("q1", "p1", true, Some(&first), NOW, &event("p1")).await.unwrap();
    let stale = made.two.settle_approval("q1", "p2", true, Some(&first), NOW, &event("p2")).await;
    conflict(stale, "meanwhile");
    let seen = ["p1".to_owned()];
    let second = made.two.settle_approval("q1", "p2", true, Some(&seen), NOW, &event("p2")).await.unwrap();
    assert_eq!(second.settled_by, ["p1", "p2"]);
}

pub async fn what_is_over_is_told_once(made: &Made) {
    setting(made).await;
    ask(made, &approval("q1", "a1")).await;
    ask(made, &ApprovalRecord { expires_at: later(900), action_hash: hash("b"), ..approval("q2", "a1") }).await;
    ask(made, &ApprovalRecord { action_hash: hash("c"), ..approval("q3", "a1") }).await;
    made.one.settle_approval("q3", "p1", true, None, NOW, &event("yes q3")).await.unwrap();
    ask(made, &ApprovalRecord { action_hash: hash("d"), ..approval("q4", "a1") }).await;
    made.one.settle_approval("q4", "p1", false, None, NOW, &event("no q4")).await.unwrap();
    let due = async |at| -> Vec<String> {
        made.two.due_approvals(at, 10).await.unwrap().into_iter().map(|a| a.approval_id).collect()
    };
    assert_eq!(due(later(599)).await, Vec::<String>::new());
    assert_eq!(due(later(600)).await, ["q1", "q3"]);
    assert!(!made.one.expire_approval("q1", later(599), &event("early")).await.unwrap());
    assert!(made.one.expire_approval("q1", later(600), &event("over q1")).await.unwrap());
    assert!(!made.two.expire_approval("q1", later(600), &event("again")).await.unwrap());
    assert!(!made.two.expire_approval("q4", later(600), &event("rejected")).await.unwrap());
    assert_eq!(due(later(600)).await, ["q3"]);
    let told = made.two.approval("q1", NOW).await.unwrap().unwrap();
    assert_eq!((told.status, told.sealed_payload), (Expired, None));
    assert_eq!(waiting(&*made.one).await.last().unwrap(), "over q1");
}
