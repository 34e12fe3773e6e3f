//! Who gets in where, and what the lost are told.

use axum::body::Body;
use http::{Method, Request, StatusCode};
use serde_json::json;

use super::{Rig, To, write_note};
use crate::{doors::to_the_end, error::Failure};

const FORGED: &str = "aegis_agt_00000000000000000000000000000000000000";

#[tokio::test]
async fn agents_door_knows_agents_only() {
    let rig = Rig::new().await;
    let (_, approver) = rig.approver(&["leads"]).await;
    for token in [FORGED, "ghp_something", &rig.admin, &approver] {
        let answer = rig.authorize(token, write_note()).await;
        answer.is_problem(401, "unknown_token");
        assert_eq!(answer.header("www-authenticate"), "Bearer realm=\"aegis\", error=\"invalid_token\"");
    }
    assert_eq!(rig.refusals(), ["unknown_token"; 4]);
    let missing = rig.authorize("", write_note()).await;
    missing.is_problem(401, "no_credential");
    assert_eq!(missing.header("www-authenticate"), "Bearer realm=\"aegis\"");
    assert_eq!(rig.refusals().len(), 4, "a challenge is not a denial");
}

#[tokio::test]
async fn admins_paths_are_not_at_the_agents_door_nor_the_other_way_round() {
    let rig = Rig::new().await;
    let (_, token) = rig.enrol("a").await;
    for path in ["/v1/agents", "/v1/approvals", "/v1/decisions", "/v1/receipts", "/v1/credentials", "/metrics"] {
        for token in [&token, &rig.admin] {
            rig.call(To::Agents, Method::GET, path, token, None).await.is_problem(404, "no_such_path");
        }
    }
    rig.admin(Method::POST, "/v1/authorize", Some(write_note())).await.is_problem(404, "no_such_path");
}

#[tokio::test]
async fn each_role_does_its_own_work_only() {
    let rig = Rig::new().await;
    let (_, agent) = rig.enrol("a").await;
    let (_, approver) = rig.approver(&["leads"]).await;
    let admin = rig.admin.clone();
    let admins = [
        (Method::GET, "/v1/agents"),
        (Method::POST, "/v1/agents/register"),
        (Method::POST, "/v1/agents/x/freeze"),
        (Method::POST, "/v1/agents/x/sessions"),
        (Method::POST, "/v1/agents/x/sessions/y/renew"),
        (Method::DELETE, "/v1/agents/x/sessions/y"),
        (Method::POST, "/v1/approvers"),
        (Method::GET, "/v1/decisions"),
        (Method::GET, "/v1/receipts"),
        (Method::GET, "/v1/receipts/rcp_n1_0/bundle"),
        (Method::GET, "/v1/credentials"),
        (Method::PUT, "/v1/credentials/shop"),
        (Method::DELETE, "/v1/credentials/shop"),
        (Method::POST, "/v1/reload"),
    ];
    for (method, path) in admins {
        for token in [&agent, &approver] {
            let answer = rig.call(To::Admins, method.clone(), path, token, None).await;
            answer.is_problem(403, "wrong_credential");
            assert!(answer.body["receipt"].is_string());
        }
        rig.call(To::Admins, method, path, FORGED, None).await.is_problem(401, "unknown_token");
        rig.clock.advance(10);
    }
    for verb in ["approve", "reject"] {
        for token in [&agent, &admin] {
            let path = format!("/v1/approvals/apr_x/{verb}");
            rig.call(To::Admins, Method::POST, &path, token, None).await.is_problem(403, "wrong_credential");
        }
    }
    for token in [&approver, &admin] {
        assert_eq!(rig.call(To::Admins, Method::GET, "/v1/approvals", token, None).await.status, 200);
        assert_eq!(rig.call(To::Admins, Method::GET, "/v1/actions?q=desk.deploy", token, None).await.status, 200);
    }
    rig.call(To::Admins, Method::GET, "/v1/approvals", &agent, None).await.is_problem(403, "wrong_credential");
}

#[tokio::test]
async fn one_token_from_one_place() {
    let rig = Rig::new().await;
    let (_, a) = rig.enrol("a").await;
    let (_, b) = rig.enrol("b").await;
    let get = |headers: Vec<(&'static str, String)>| {
        let mut request = Request::builder().uri("/v1/actions?q=desk");
        for (name, value) in headers {
            request = request.header(name, value);
        }
        rig.send(To::Agents, request.body(Body::empty()).unwrap(), "203.0.113.7")
    };
    let (auth, own) = ("authorization", "aegis-agent-token");
    assert_eq!(get(vec![(auth, format!("bEARER {a}"))]).await.status, 200);
    assert_eq!(get(vec![(own, a.clone())]).await.status, 200);
    assert_eq!(get(vec![(own, a.clone()), (auth, format!("Bearer {a}"))]).await.status, 200);
    get(vec![(own, a.clone()), (auth, format!("Bearer {b}"))]).await.is_problem(400, "conflicting_credentials");
    get(vec![(auth, format!("Bearer {a}")), (auth, format!("Bearer {a}"))])
        .await
        .is_problem(400, "conflicting_credentials");
    get(vec![(own, a.clone()), (own, a.clone())]).await.is_problem(400, "conflicting_credentials");
    get(vec![(auth, format!("Basic {a}"))]).await.is_problem(401, "unknown_token");
    get(vec![(auth, "Bearer".into())]).await.is_problem(401, "unknown_token");
    get(vec![(auth, format!("Bearer {a}, Bearer {b}"))]).await.is_problem(401, "unknown_token");
    assert_eq!(rig.refusals().len(), 6);
}

#[tokio::test]
async fn failures_are_slowed_down_and_a_good_token_still_gets_in() {
    let rig = Rig::new().await;
    let mut throttled = 0;
    for _ in 0..30 {
        let answer = rig.call(To::Admins, Method::GET, "/v1/agents", FORGED, None).await;
        if answer.status == StatusCode::TOO_MANY_REQUESTS {
            answer.is_problem(429, "too_many_failures");
            assert_eq!(answer.header("retry-after"), "2");
            throttled += 1;
        }
    }
    assert_eq!(throttled, 10);
    assert_eq!(rig.admin(Method::GET, "/v1/agents", None).await.status, 200, "nobody locks the admin out");
    rig.clock.advance(2);
    rig.call(To::Admins, Method::GET, "/v1/agents", FORGED, None).await.is_problem(401, "unknown_token");
}

#[tokio::test]
async fn the_lost_are_told_in_problems() {
    let rig = Rig::new().await;
    let (_, token) = rig.enrol("a").await;
    for to in [To::Agents, To::Admins] {
        rig.call(to, Method::GET, "/nowhere", &token, None).await.is_problem(404, "no_such_path");
        let method = rig.call(to, Method::DELETE, "/v1/actions", &token, None).await;
        method.is_problem(405, "method_not_allowed");
        assert_eq!(method.header("allow"), "GET");
        let head = rig.call(to, Method::HEAD, "/health", "", None).await;
        assert_eq!((head.status.as_u16(), head.header("allow"), head.text.as_str()), (405, "GET", ""));
        assert_eq!(rig.call(to, Method::GET, "/health", "", None).await.body, json!({"status": "ok"}));
        let document = rig.call(to, Method::GET, "/openapi.json", "", None).await;
        assert_eq!(document.text, crate::document());
    }
    let bad = rig.admin(Method::GET, "/v1/agents?limit=0", None).await;
    bad.is_problem(400, "bad_query");
    rig.admin(Method::GET, "/v1/agents?limit=many", None).await.is_problem(400, "bad_query");
    rig.admin(Method::GET, "/v1/agents?limit=1&limit=2", None).await.is_problem(400, "bad_query");
    rig.admin(Method::GET, "/v1/agents?token=x", None).await.is_problem(400, "bad_query");
    rig.admin(Method::GET, "/v1/agents/a%2Fb", None).await.is_problem(400, "bad_id");
    rig.admin(Method::GET, "/v1/agents/%ff", None).await.is_problem(400, "bad_id");
}

#[tokio::test]
async fn a_bound_token_is_refused_elsewhere() {
    let rig = Rig::new().await;
    for (key, block) in [("one", json!("198.51.100.0/24")), ("many", json!(["192.0.2.1/32", "198.51.100.0/24"]))] {
        let mut body = super::enrolment(key);
        body["bind"] = json!({"cidr": block});
        let token = rig.admin(Method::POST, "/v1/agents/register", Some(body)).await.str("/agent_token");
        let get = || Request::builder().uri("/v1/actions").header("aegis-agent-token", &token).body(Body::empty());
        assert_eq!(rig.send(To::Agents, get().unwrap(), "198.51.100.9").await.status, 200);
        rig.send(To::Agents, get().unwrap(), "203.0.113.7").await.is_problem(403, "token_binding");
    }
    assert_eq!(rig.refusals(), ["token_binding", "token_binding"]);
}

#[tokio::test]
async fn operations_say_what_works() {
    let rig = Rig::new().await;
    let ready = rig.call(To::Admins, Method::GET, "/ready", "", None).await;
    assert_eq!(ready.status, 200);
    let names: Vec<_> = ready.body["checks"].as_array().unwrap().iter().map(|c| c["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["store", "log", "vault:embedded"]);
    let outside = rig.call(To::Agents, Method::GET, "/ready", "", None).await;
    assert_eq!(outside.status, 200);
    assert_eq!(outside.body["checks"], serde_json::json!([]), "the state of each part is the admins' to know");
    let metrics = rig.call(To::Admins, Method::GET, "/metrics", "", None).await;
    assert!(metrics.header("content-type").starts_with("text/plain"));
    let leaves = rig.broker.log.head().next_seq;
    assert!(metrics.text.contains(&format!("\naegis_log_leaves {leaves}\n")), "{}", metrics.text);
    assert!(metrics.text.contains("\naegis_policies 4\n"));
}

#[tokio::test]
async fn a_client_that_goes_away_cancels_nothing_that_was_begun() {
    let (begin, begun) = tokio::sync::oneshot::channel();
    let (go_on, gone_on) = tokio::sync::oneshot::channel::<()>();
    let (end, ended) = tokio::sync::oneshot::channel();
    let mut handler = Box::pin(to_the_end(async move {
        begin.send(()).unwrap();
        gone_on.await.unwrap();
        end.send("stored").unwrap();
        Ok::<_, Failure>(())
    }));
    assert!(futures_util::poll!(&mut handler).is_pending());
    begun.await.unwrap();
    drop(handler);
    go_on.send(()).unwrap();
    assert_eq!(ended.await, Ok("stored"));
}
