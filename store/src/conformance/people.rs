//! Approvers and admins.

use aegis_broker::store::{PersonRecord, PersonRole};

use super::*;

pub async fn a_person_comes_back_as_they_were_added(made: &Made) {
    let approver = person("p1");
    let admin = PersonRecord {
        role: PersonRole::Admin,
        groups: vec![],
        slack_user: None,
        expires_at: None,
        created_at: later(-1),
        ..person("p2")
    };
    made.one.insert_person(&approver, &event("p1")).await.unwrap();
    made.one.insert_person(&admin, &event("p2")).await.unwrap();
    assert_eq!(made.two.person_by_token(&approver.token_hash).await.unwrap().as_ref(), Some(&approver));
    assert_eq!(made.two.person_by_token(&hash("nobody")).await.unwrap(), None);
    assert_eq!(made.two.people().await.unwrap(), [admin, approver]);
    conflict(made.two.insert_person(&person("p1"), &event("again")).await, "is taken");
    let same_token = PersonRecord { token_hash: person("p1").token_hash, ..person("p3") };
    conflict(made.two.insert_person(&same_token, &event("again")).await, "token_hash");
    assert_eq!(waiting(&*made.one).await, ["p1", "p2"]);
}

pub async fn a_slack_user_is_of_one_person_with_access(made: &Made) {
    let with = |id: &str, slack: &str| PersonRecord { slack_user: Some(slack.into()), ..person(id) };
    made.one.insert_person(&with("p1", "U1"), &event("p1")).await.unwrap();
    conflict(made.two.insert_person(&with("p2", "U1"), &event("p2")).await, "slack_user");
    made.one.insert_person(&with("p3", "U3"), &event("p3")).await.unwrap();
    assert!(made.one.revoke_person("p1", &event("revoke")).await.unwrap());
    made.two.insert_person(&with("p2", "U1"), &event("p2")).await.unwrap();
    let people = made.one.people().await.unwrap();
    let of: Vec<_> = people.iter().map(|p| (p.person_id.as_str(), p.slack_user.as_deref())).collect();
    assert_eq!(of, [("p1", Some("U1")), ("p3", Some("U3")), ("p2", Some("U1"))]);
}

pub async fn access_ends_once(made: &Made) {
    with_people(&*made.one, &["p1"]).await;
    assert!(made.one.revoke_person("p1", &event("revoke")).await.unwrap());
    assert!(!made.two.revoke_person("p1", &event("again")).await.unwrap());
    assert!(!made.two.revoke_person("p2", &event("nobody")).await.unwrap());
    assert!(made.two.person_by_token(&person("p1").token_hash).await.unwrap().unwrap().revoked);
    assert_eq!(waiting(&*made.one).await, ["add p1", "revoke"]);
}
