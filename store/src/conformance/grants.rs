//! Grants.

use aegis_broker::store::GrantRecord;

use super::*;

fn grant(id: &str) -> GrantRecord {
    GrantRecord {
        grant_id: id.into(),
        tenant: "default".into(),
        agent_id: "a1".into(),
        action: "github.merge_pull_request".into(),
        resource: Some("octo/payments#482".into()),
        groups: vec!["payments".into()],
        person_id: "p1".into(),
        reason: Some("release".into()),
        created_at: NOW,
        expires_at: later(600),
        revoked_at: None,
    }
}

pub async fn a_grant_holds_for_its_agent_action_and_resource_until_its_end(made: &Made) {
    with_agent(&*made.one, "a1").await;
    with_agent(&*made.one, "a2").await;
    with_people(&*made.one, &["p1"]).await;
    let (first, free) = (grant("g1"), GrantRecord { resource: None, action: "desk.note".into(), ..grant("g2") });
    made.one.insert_grant(&first, &event("g1")).await.unwrap();
    made.one.insert_grant(&free, &event("g2")).await.unwrap();
    let live = async |agent: &str, action: &str, resource: Option<&str>, at| {
        made.two.live_grants(agent, action, resource, at).await.unwrap()
    };
    let (merge, payments) = ("github.merge_pull_request", Some("octo/payments#482"));
    assert_eq!(live("a1", merge, payments, later(599)).await, std::slice::from_ref(&first));
    assert_eq!(live("a1", "desk.note", None, NOW).await, std::slice::from_ref(&free));
    assert_eq!(live("a1", merge, payments, later(600)).await, []);
    assert_eq!(live("a2", merge, payments, NOW).await, []);
    assert_eq!(live("a1", "github.merge", payments, NOW).await, []);
    assert_eq!(live("a1", merge, Some("octo/payments#48"), NOW).await, []);
    assert_eq!(live("a1", merge, None, NOW).await, []);
    assert_eq!(made.two.grants(None, 10).await.unwrap(), [free.clone(), first.clone()]);
    assert_eq!(made.two.grants(None, 1).await.unwrap(), [free]);
    assert_eq!(made.two.grants(Some("a2"), 10).await.unwrap(), []);
    not_found(made.one.insert_grant(&GrantRecord { agent_id: "nobody".into(), ..grant("g3") }, &event("no")).await);
    not_found(made.one.insert_grant(&GrantRecord { person_id: "nobody".into(), ..grant("g3") }, &event("no")).await);
    conflict(made.one.insert_grant(&grant("g1"), &event("no")).await, "is taken");
}

pub async fn a_grant_ends_once(made: &Made) {
    with_agent(&*made.one, "a1").await;
    with_people(&*made.one, &["p1"]).await;
    made.one.insert_grant(&grant("g1"), &event("g1")).await.unwrap();
    made.one.insert_grant(&grant("g2"), &event("g2")).await.unwrap();
    assert!(!made.one.revoke_grant("g9", NOW, &event("none")).await.unwrap());
    assert!(made.one.revoke_grant("g1", later(5), &event("end g1")).await.unwrap());
    assert!(!made.two.revoke_grant("g1", later(6), &event("again")).await.unwrap());
    assert!(!made.two.revoke_grant("g2", later(600), &event("over")).await.unwrap());
    let (merge, payments) = ("github.merge_pull_request", Some("octo/payments#482"));
    let live = made.two.live_grants("a1", merge, payments, NOW).await.unwrap();
    assert_eq!(live.iter().map(|g| g.grant_id.as_str()).collect::<Vec<_>>(), ["g2"]);
    let ended = made.two.grants(None, 10).await.unwrap();
    assert_eq!(ended.last().unwrap().revoked_at, Some(later(5)));
    assert_eq!(waiting(&*made.one).await.last().unwrap(), "end g1");
}

pub async fn grants_end_with_the_access_of_who_gave_them(made: &Made) {
    with_agent(&*made.one, "a1").await;
    with_people(&*made.one, &["p1", "p2"]).await;
    made.one.insert_grant(&grant("g1"), &event("g1")).await.unwrap();
    made.one.insert_grant(&GrantRecord { person_id: "p2".into(), ..grant("g2") }, &event("g2")).await.unwrap();
    assert!(made.one.revoke_person("p1", &event("revoke p1")).await.unwrap());
    let (merge, payments) = ("github.merge_pull_request", Some("octo/payments#482"));
    let live = made.two.live_grants("a1", merge, payments, NOW).await.unwrap();
    assert_eq!(live.iter().map(|g| g.grant_id.as_str()).collect::<Vec<_>>(), ["g2"]);
    assert_eq!(made.two.grants(None, 10).await.unwrap().last().unwrap().revoked_at, Some(NOW));
}
