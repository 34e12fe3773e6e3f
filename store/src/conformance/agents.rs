//! Agents and tokens.

use aegis_broker::store::AgentState::{Active, Frozen, Quarantined, Revoked};
use aegis_broker::store::{AgentRecord, AgentState, TokenRecord};

use super::*;

pub async fn an_agent_comes_back_as_it_was_added(made: &Made) {
    with_agent(&*made.one, "a1").await;
    let expected = agent("a1");
    let token = token("a1", "first token of a1");
    assert_eq!(made.two.agent("a1").await.unwrap().as_ref(), Some(&expected));
    assert_eq!(made.two.agent_by_key("key-of-a1").await.unwrap().as_ref(), Some(&expected));
    assert_eq!(made.two.agent_by_token(&token.token_hash).await.unwrap(), Some((expected, token)));
    assert_eq!(made.two.agent("a2").await.unwrap(), None);
    assert_eq!(made.two.agent_by_key("a1").await.unwrap(), None);
    assert_eq!(made.two.agent_by_token(&hash("another")).await.unwrap(), None);
}

pub async fn keys_ids_and_tokens_are_taken_once(made: &Made) {
    with_agent(&*made.one, "a1").await;
    let add = async |agent: AgentRecord, token: TokenRecord| made.two.insert_agent(&agent, &token, &event("e")).await;
    conflict(add(AgentRecord { agent_id: "a2".into(), ..agent("a1") }, token("a2", "t2")).await, "agent_key");
    conflict(add(AgentRecord { agent_key: "other".into(), ..agent("a1") }, token("a1", "t2")).await, "agent_id");
    conflict(add(agent("a3"), token("a3", "first token of a1")).await, "token_hash");
    conflict(add(agent("a4"), token("a1", "t4")).await, "not one of agent `a4`");
    assert_eq!(made.one.agents().await.unwrap().len(), 1);
    assert_eq!(waiting(&*made.one).await, ["add a1"]);
}

pub async fn a_transition_needs_its_starting_state_and_counts_the_version(made: &Made) {
    with_agent(&*made.one, "a1").await;
    let frozen = made.one.transition_agent("a1", &[Active, Quarantined], Frozen, &event("freeze")).await.unwrap();
    assert_eq!((frozen.state, frozen.version), (Frozen, 2));
    assert_eq!(made.two.agent("a1").await.unwrap(), Some(frozen));
    conflict(made.two.transition_agent("a1", &[Active], Quarantined, &event("no")).await, "`frozen`");
    conflict(made.two.transition_agent("a1", &[], Active, &event("no")).await, "`frozen`");
    not_found(made.two.transition_agent("a2", &[Active], Frozen, &event("no")).await);
    let active = made.two.transition_agent("a1", &[Frozen], Active, &event("unfreeze")).await.unwrap();
    assert_eq!((active.state, active.version), (Active, 3));
    assert_eq!(waiting(&*made.one).await, ["add a1", "freeze", "unfreeze"]);
}

pub async fn revoked_is_final(made: &Made) {
    with_agent(&*made.one, "a1").await;
    made.one.transition_agent("a1", &[Active], Revoked, &event("revoke")).await.unwrap();
    for to in [Active, Frozen, Quarantined, Revoked, AgentState::Expired] {
        conflict(made.one.transition_agent("a1", &[Revoked, Active], to, &event("no")).await, "`revoked`");
    }
    conflict(made.one.rotate_token("a1", &token("a1", "t2"), NOW, &event("no")).await, "`revoked`");
    assert_eq!(made.two.agent_by_token(&hash("t2")).await.unwrap(), None);
}

pub async fn rotation_ends_earlier_tokens_and_never_prolongs_them(made: &Made) {
    let ends = async |name: &str| made.two.agent_by_token(&hash(name)).await.unwrap().unwrap().1.expires_at;
    with_agent(&*made.one, "a1").await;
    with_agent(&*made.one, "a2").await;
    made.one.rotate_token("a1", &token("a1", "second"), later(60), &event("rotate 1")).await.unwrap();
    assert_eq!(ends("first token of a1").await, later(60));
    assert_eq!(ends("second").await, later(3600));
    made.one.rotate_token("a1", &token("a1", "third"), later(120), &event("rotate 2")).await.unwrap();
    assert_eq!(ends("first token of a1").await, later(60), "a later rotation must not prolong an ended token");
    assert_eq!(ends("second").await, later(120));
    assert_eq!(ends("first token of a2").await, later(3600), "another agent's token is not touched");

    not_found(made.one.rotate_token("a9", &token("a9", "ninth"), NOW, &event("no")).await);
    conflict(made.one.rotate_token("a1", &token("a2", "tenth"), NOW, &event("no")).await, "not one of agent `a1`");
    conflict(made.one.rotate_token("a1", &token("a1", "first token of a2"), NOW, &event("no")).await, "token_hash");
    assert_eq!(ends("third").await, later(3600), "a refused rotation ends nothing");

    let long_after = TokenRecord { created_at: later(100 * 86_400), ..token("a1", "last") };
    made.one.rotate_token("a1", &long_after, later(100 * 86_400), &event("rotate 3")).await.unwrap();
    assert_eq!(made.two.agent_by_token(&hash("second")).await.unwrap(), None, "long ended tokens are forgotten");
}

pub async fn rotation_changes_the_version_that_caches_are_keyed_by(made: &Made) {
    with_agent(&*made.one, "a1").await;
    made.one.rotate_token("a1", &token("a1", "second"), NOW, &event("rotate")).await.unwrap();
    assert_eq!(made.two.agent("a1").await.unwrap().unwrap().version, 2);
}

pub async fn agents_are_listed_oldest_first(made: &Made) {
    for (id, at) in [("b", 2), ("c", 0), ("a", 1), ("d", 2)] {
        let agent = AgentRecord { created_at: later(at), ..agent(id) };
        made.one.insert_agent(&agent, &token(id, id), &event(id)).await.unwrap();
    }
    let listed: Vec<_> = made.two.agents().await.unwrap().into_iter().map(|a| a.agent_id).collect();
    assert_eq!(listed, ["c", "a", "b", "d"]);
}
