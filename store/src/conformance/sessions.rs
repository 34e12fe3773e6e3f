//! Sessions.

use aegis_broker::store::AgentState::{Active, Frozen, Revoked};
use aegis_broker::store::TokenRecord;

use super::*;

pub async fn a_session_is_a_token_of_its_own(made: &Made) {
    with_agent(&*made.one, "a1").await;
    made.one.start_session(&session("a1", "run_1"), &event("start")).await.unwrap();
    let found = made.two.agent_by_token(&hash("token of run_1")).await.unwrap();
    assert_eq!(found, Some((agent("a1"), session("a1", "run_1"))));
    assert_eq!(made.two.agent_by_token(&hash("first token of a1")).await.unwrap().unwrap().1.session_id, None);
    let twice = TokenRecord { token_hash: hash("another"), ..session("a1", "run_1") };
    conflict(made.one.start_session(&twice, &event("no")).await, "session_id");
    conflict(made.one.start_session(&token("a1", "no session"), &event("no")).await, "not a session's");
    assert_eq!(waiting(&*made.one).await, ["add a1", "start"]);
}

pub async fn only_an_active_agent_starts_a_session(made: &Made) {
    with_agent(&*made.one, "a1").await;
    for (from, to, says) in [(Active, Frozen, "`frozen`"), (Frozen, Revoked, "`revoked`")] {
        made.one.transition_agent("a1", &[from], to, &event(says)).await.unwrap();
        conflict(made.two.start_session(&session("a1", "run_1"), &event("no")).await, says);
    }
    not_found(made.two.start_session(&session("a9", "run_1"), &event("no")).await);
    assert_eq!(made.two.agent_by_token(&hash("token of run_1")).await.unwrap(), None);
}

pub async fn a_session_is_renewed_until_it_ends_and_not_after(made: &Made) {
    with_agent(&*made.one, "a1").await;
    with_agent(&*made.one, "a2").await;
    made.one.start_session(&session("a1", "run_1"), &event("start")).await.unwrap();
    let renew = async |agent: &str, id: &str, now, until, name: &str| {
        made.two.renew_session(agent, id, later(now), later(until), &event(name)).await
    };
    assert_eq!(renew("a1", "run_1", 30, 90, "renew 1").await.unwrap(), later(90));
    assert_eq!(renew("a1", "run_1", 31, 40, "renew 2").await.unwrap(), later(90), "a renewal shortens nothing");
    not_found(renew("a2", "run_1", 32, 99, "no").await);
    not_found(renew("a1", "run_2", 32, 99, "no").await);
    conflict(renew("a1", "run_1", 90, 150, "no").await, "is over");
    made.one.start_session(&session("a1", "run_2"), &event("start 2")).await.unwrap();
    made.one.transition_agent("a1", &[Active], Frozen, &event("freeze")).await.unwrap();
    renew("a1", "run_2", 10, 70, "renew frozen").await.unwrap();
    made.one.transition_agent("a1", &[Frozen], Revoked, &event("revoke")).await.unwrap();
    conflict(renew("a1", "run_2", 11, 71, "no").await, "is over");
    let waiting = waiting(&*made.one).await;
    assert!(!waiting.contains(&"no".to_owned()) && waiting.contains(&"renew frozen".to_owned()), "{waiting:?}");
}

pub async fn a_session_ends_once_and_alone(made: &Made) {
    let ends = async |name: &str| made.two.agent_by_token(&hash(name)).await.unwrap().unwrap().1.expires_at;
    with_agent(&*made.one, "a1").await;
    made.one.start_session(&session("a1", "run_1"), &event("start 1")).await.unwrap();
    made.one.start_session(&session("a1", "run_2"), &event("start 2")).await.unwrap();
    assert!(!made.two.end_session("a2", "run_1", later(5), &event("no")).await.unwrap(), "another agent's");
    assert!(made.two.end_session("a1", "run_1", later(5), &event("end")).await.unwrap());
    assert!(!made.two.end_session("a1", "run_1", later(6), &event("no")).await.unwrap(), "it ended");
    assert!(!made.two.end_session("a1", "run_9", later(6), &event("no")).await.unwrap(), "there is none");
    assert!(!made.two.end_session("a1", "run_2", later(60), &event("no")).await.unwrap(), "it ended by itself");
    assert_eq!(ends("token of run_1").await, later(5));
    assert_eq!(ends("token of run_2").await, later(60));
    assert_eq!(ends("first token of a1").await, later(3600));
    assert_eq!(waiting(&*made.one).await, ["add a1", "start 1", "start 2", "end"]);
}

pub async fn rotation_leaves_sessions_alone(made: &Made) {
    with_agent(&*made.one, "a1").await;
    made.one.start_session(&session("a1", "run_1"), &event("start")).await.unwrap();
    made.one.rotate_token("a1", &token("a1", "second"), NOW, &event("rotate")).await.unwrap();
    let found = made.two.agent_by_token(&hash("token of run_1")).await.unwrap().unwrap();
    assert_eq!(found.1.expires_at, later(60));
}

pub async fn long_ended_sessions_are_forgotten(made: &Made) {
    with_agent(&*made.one, "a1").await;
    made.one.start_session(&session("a1", "run_1"), &event("start 1")).await.unwrap();
    let much_later =
        TokenRecord { created_at: later(31 * 86_400), expires_at: later(31 * 86_400 + 60), ..session("a1", "run_2") };
    made.one.start_session(&much_later, &event("start 2")).await.unwrap();
    assert_eq!(made.two.agent_by_token(&hash("token of run_1")).await.unwrap(), None);
    assert!(made.two.agent_by_token(&hash("token of run_2")).await.unwrap().is_some());
}
