//! Values go in and never come out; reloads.

use http::Method;
use serde_json::{Value, json};

use super::Rig;

const VALUE: &str = "hunter2-hunter2-hunter2";

#[tokio::test]
async fn a_value_is_stored_used_listed_without_it_and_removed() {
    let rig = Rig::new().await;
    let listed = rig.admin(Method::GET, "/v1/credentials", None).await;
    let names: Vec<_> = listed.body["credentials"].as_array().unwrap().iter().map(|c| c["name"].clone()).collect();
    assert_eq!(names, ["elsewhere", "shop"]);
    assert_eq!(listed.body["credentials"][1]["stored"], false);
    assert!(listed.str("/credentials/0/problem").contains("not configured"), "the rig has no `env` vault");

    let stored = rig.admin(Method::PUT, "/v1/credentials/shop", Some(json!({"value": VALUE}))).await;
    assert_eq!((stored.status.as_u16(), &stored.body["vault"]), (200, &json!("embedded")), "{}", stored.text);
    let vault = &rig.broker.vaults["embedded"];
    assert_eq!(vault.lease("shop").await.unwrap().value.expose(), VALUE.as_bytes());
    let again = rig.admin(Method::PUT, "/v1/credentials/shop", Some(json!({"value": VALUE}))).await;
    assert_ne!(stored.body["version"], again.body["version"]);

    let listed = rig.admin(Method::GET, "/v1/credentials", None).await;
    let shop = &listed.body["credentials"][1];
    assert_eq!(
        (&shop["stored"], &shop["version"], &shop["routes"]),
        (&json!(true), &again.body["version"], &json!(["shop"]))
    );
    let event = rig.leaves().into_iter().rfind(|l| l["kind"] == "credential_stored").unwrap();
    let said = &event["body"];
    assert_eq!((&said["credential"], &said["version"]), (&json!("shop"), &again.body["version"]), "{event}");
    assert!(said["person_id"].as_str().unwrap().starts_with("per_"));

    assert_eq!(rig.admin(Method::DELETE, "/v1/credentials/shop", None).await.status, 204);
    rig.admin(Method::DELETE, "/v1/credentials/shop", None).await.is_problem(404, "not_found");
    assert_eq!(rig.events().iter().filter(|e| *e == "credential_removed").count(), 1);
    let all = format!("{} {} {} {}", stored.text, again.text, listed.text, Value::Array(rig.leaves()));
    assert!(!all.contains("hunter2"));
}

#[tokio::test]
async fn a_value_in_the_wrong_place_is_not_repeated() {
    let rig = Rig::new().await;
    let put =
        async |name: &str, body: Value| rig.admin(Method::PUT, &format!("/v1/credentials/{name}"), Some(body)).await;
    for body in
        [json!(VALUE), json!([VALUE]), json!({"value": [VALUE]}), json!({"value": "a\nb"}), json!({"value": ""})]
    {
        let answer = put("shop", body).await;
        answer.is_problem(400, "bad_field");
        assert!(!answer.text.contains("hunter2"), "{}", answer.text);
    }
    put("elsewhere", json!({"value": VALUE})).await.is_problem(409, "credential_elsewhere");
    // Before `routes.toml` names it, a credential is its own key.
    assert_eq!(put("later", json!({"value": VALUE})).await.status, 200);
    let listed = rig.admin(Method::GET, "/v1/credentials", None).await;
    assert_eq!(listed.body["credentials"][2]["name"], "later");
    assert_eq!(listed.body["credentials"][2]["kind"], Value::Null);
}

#[tokio::test]
async fn a_bad_configuration_is_refused_with_everything_that_is_wrong() {
    let rig = Rig::new().await;
    let before = rig.broker.snapshot().hash;
    assert_eq!(rig.admin(Method::POST, "/v1/reload", None).await.body["result"], "unchanged");
    *rig.sources.lock() = Some(super::sources("[[route]]\nname = \"x\"\nflavour = 1\n"));
    let refused = rig.admin(Method::POST, "/v1/reload", None).await;
    refused.is_problem(422, "bad_configuration");
    let problems = refused.body["problems"].as_array().unwrap();
    assert!(problems.iter().any(|p| p["line"] == 3 && p["file"] == "routes.toml"), "{}", refused.text);
    assert!(problems.len() > 1, "all at once");
    *rig.sources.lock() = None;
    rig.admin(Method::POST, "/v1/reload", None).await.is_problem(409, "configuration_unreadable");
    assert_eq!(rig.broker.snapshot().hash, before);
    *rig.sources.lock() = Some(super::sources(&super::ROUTES.replace("writes a note", "writes notes")));
    let swapped = rig.admin(Method::POST, "/v1/reload", None).await;
    assert_eq!(swapped.body["result"], "swapped");
    assert_eq!(swapped.str("/snapshot"), rig.broker.snapshot().hash.to_hex());
}
