//! Decisions, leaves, bundles and explanations.

use aegis_action::sha256;
use aegis_receipts::{Bundle, open_commitments};
use http::Method;
use serde_json::{Value, json};

use super::{Rig, To, deploy, write_note};

#[tokio::test]
async fn decisions_are_listed_newest_first_by_filter_and_page() {
    let rig = Rig::new().await;
    let (a, token) = rig.enrol("a").await;
    let (_, other) = rig.enrol("b").await;
    for _ in 0..3 {
        rig.authorize(&token, write_note()).await;
    }
    rig.authorize(&token, deploy(json!({}))).await;
    rig.authorize(&other, write_note()).await;
    let list = async |query: &str| rig.admin(Method::GET, &format!("/v1/decisions{query}"), None).await;
    let all = list("").await;
    let seqs: Vec<u64> = all.body["decisions"].as_array().unwrap().iter().map(|d| d["seq"].as_u64().unwrap()).collect();
    assert_eq!(seqs.len(), 5);
    assert!(seqs.is_sorted_by(|x, y| x > y));
    assert_eq!(all.body["projected_through"], rig.broker.log.head().next_seq);
    assert_eq!(list(&format!("?agent_id={a}")).await.body["decisions"].as_array().unwrap().len(), 4);
    assert_eq!(
        list("?decision=require_approval&action=desk.deploy").await.body["decisions"].as_array().unwrap().len(),
        1
    );
    let page = list("?limit=2").await;
    assert_eq!(page.body["next"], seqs[1]);
    let next = list(&format!("?limit=2&before_seq={}", page.body["next"])).await;
    assert_eq!(next.body["decisions"][0]["seq"], seqs[2]);
    list("?decision=perhaps").await.is_problem(400, "bad_query");
    list("?limit=501").await.is_problem(400, "bad_query");
}

#[tokio::test]
async fn leaves_come_with_their_exact_bytes() {
    let rig = Rig::new().await;
    let (_, token) = rig.enrol("a").await;
    let receipt = rig.authorize(&token, write_note()).await.str("/receipt/receipt_id");
    let one = rig.admin(Method::GET, &format!("/v1/receipts/{receipt}"), None).await;
    assert_eq!(sha256(one.str("/leaf_text").as_bytes()).to_hex(), one.str("/receipt_hash"));
    assert_eq!(one.body["leaf"]["type"], "intent.v1");

    let mut walked = Vec::new();
    let mut from = 0;
    loop {
        let page = rig.admin(Method::GET, &format!("/v1/receipts?from_seq={from}&limit=2"), None).await;
        walked.extend(page.body["receipts"].as_array().unwrap().iter().map(|r| r["leaf"].clone()));
        from = page.body["next"].as_u64().unwrap();
        if from == page.body["head"].as_u64().unwrap() {
            break;
        }
    }
    assert_eq!(walked, rig.leaves());
    let newest = rig.admin(Method::GET, "/v1/receipts?limit=1", None).await;
    assert_eq!(newest.body["receipts"][0]["leaf"], *walked.last().unwrap());
    let beyond = rig.admin(Method::GET, "/v1/receipts?from_seq=999999", None).await;
    assert_eq!(beyond.body["receipts"], json!([]), "{}", beyond.text);
    for id in ["rcp_n1_999999", "rcp_other_1", "rcp_n1_01", "nonsense"] {
        rig.admin(Method::GET, &format!("/v1/receipts/{id}"), None).await.is_problem(404, "not_found");
        rig.admin(Method::GET, &format!("/v1/receipts/{id}/bundle"), None).await.is_problem(404, "not_found");
    }
}

#[tokio::test]
async fn a_bundle_opens_what_its_leaf_commits_to() {
    let rig = Rig::new().await;
    let (_, token) = rig.enrol("a").await;
    let allowed = rig.authorize(&token, write_note()).await;
    let (receipt, decision) = (allowed.str("/receipt/receipt_id"), allowed.str("/decision_id"));
    let report = json!({"status": "completed"});
    rig.call(To::Agents, Method::POST, &format!("/v1/decisions/{decision}/outcome"), &token, Some(report)).await;
    let answer = loop {
        let answer = rig.admin(Method::GET, &format!("/v1/receipts/{receipt}/bundle"), None).await;
        // The outcome is queued, and written within moments.
        if answer.body["leaves"].as_array().unwrap().len() == 2 {
            break answer;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    };
    let bundle: Bundle = serde_json::from_value(answer.body).unwrap();
    let opening = bundle.leaves[0].opening.as_ref().unwrap();
    assert_eq!(opening.action_hash.to_hex(), allowed.str("/action_hash"));
    let leaf: Value = serde_json::from_str(&bundle.leaves[0].leaf).unwrap();
    let (action, parameters) = open_commitments(&opening.salt, opening.action.as_bytes()).unwrap();
    assert_eq!((&leaf["action_commitment"], &leaf["parameters_commitment"]), (&json!(action), &json!(parameters)));

    let masked = json!({"tool_call":{"tool":"desk","action":"write_note","resource":"n1","mutates_state":true,
        "parameters":{"text":"a","password":"hunter2"}}});
    let receipt = rig.authorize(&token, masked).await.str("/receipt/receipt_id");
    let answer = rig.admin(Method::GET, &format!("/v1/receipts/{receipt}/bundle"), None).await;
    assert_eq!(answer.body["leaves"][0].get("opening"), None, "what is masked cannot be opened");
    assert!(!answer.text.contains("hunter2"));
}

#[tokio::test]
async fn an_agent_may_wonder_about_its_own_receipts_only() {
    let rig = Rig::new().await;
    let (_, token) = rig.enrol("a").await;
    let (_, other) = rig.enrol("b").await;
    let asked = rig.authorize(&token, deploy(json!({"api_key": "hunter2"}))).await.str("/receipt/receipt_id");
    let path = format!("/v1/why/{asked}");
    let why = rig.call(To::Agents, Method::GET, &path, &token, None).await;
    assert_eq!(why.body["action"]["action"], "deploy", "{}", why.text);
    assert_eq!(why.body["explanation"]["ask"], json!(["leads"]));
    assert!(!why.text.contains("hunter2") && !why.text.contains("\"salt\""));
    rig.call(To::Agents, Method::GET, &path, &other, None).await.is_problem(404, "not_found");
    let (_, lead) = rig.approver(&["leads"]).await;
    for token in [&rig.admin, &lead] {
        assert_eq!(rig.call(To::Admins, Method::GET, &path, token, None).await.status, 200);
    }
    let refusal = rig.authorize("aegis_agt_x", write_note()).await.str("/receipt");
    rig.call(To::Agents, Method::GET, &format!("/v1/why/{refusal}"), &token, None).await.is_problem(404, "not_found");
    let why = rig.admin(Method::GET, &format!("/v1/why/{refusal}"), None).await;
    assert_eq!((&why.body["leaf"]["reason"], &why.body["action"]), (&json!("unknown_token"), &Value::Null));
}

#[tokio::test]
async fn the_catalog_is_searched_by_words() {
    let rig = Rig::new().await;
    let (_, token) = rig.enrol("a").await;
    let find =
        async |query: &str| rig.call(To::Agents, Method::GET, &format!("/v1/actions?{query}"), &token, None).await;
    let exact = find("q=github.merge_pull_request").await;
    assert_eq!(exact.body["actions"][0]["name"], "github.merge_pull_request");
    assert_eq!(exact.body["actions"][0]["mutates_state"], true);
    let words = find("q=MERGE+pull&limit=3").await;
    assert!(words.body["total"].as_u64().unwrap() > 3);
    assert_eq!(words.body["actions"].as_array().unwrap().len(), 3);
    assert_eq!(find("q=desk.deploy").await.body["total"], 1);
    assert_eq!(find("q=no+such+thing+anywhere").await.body, json!({"actions": [], "total": 0}));
    assert!(find("").await.body["total"].as_u64().unwrap() > 1200);
    find("query=x").await.is_problem(400, "bad_query");
}

#[tokio::test]
async fn an_entry_is_found_by_its_whole_name_with_the_aliases_of_its_arguments() {
    let rig = Rig::new().await;
    let (_, token) = rig.enrol("a").await;
    let get = async |name: &str| rig.call(To::Agents, Method::GET, &format!("/v1/actions/{name}"), &token, None).await;
    let merge = get("github.merge_pull_request").await;
    assert_eq!((&merge.body["name"], &merge.body["class"]), (&json!("github.merge_pull_request"), &json!("write")));
    assert_eq!(merge.body["aliases"]["pr_number"], "pull_number");
    assert_eq!(get("desk.deploy").await.body["tool"], "desk");
    for unknown in ["github.merge", "github", "desk.deploy.now", "merge_pull_request"] {
        get(unknown).await.is_problem(404, "not_found");
    }
    let seen = rig.admin(Method::GET, "/v1/actions/github.merge_pull_request", None).await;
    assert_eq!(seen.body, merge.body);
}
