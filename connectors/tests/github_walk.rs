//! Every operation of the catalog, as a client would send it: synthesised from the published
//! table, by code that shares nothing with the connector but that table.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may fail loudly; clippy sees only `#[test]` functions as tests"
)]

mod support;

use std::collections::{BTreeMap, BTreeSet};

use aegis_connectors::{Connector, github::GithubConnector};
use serde_json::{Map, Value, json};
use support::{Request, five, sdk};

const TABLE: &str = include_str!("../data/github.jsonl");
const LOCK: &str = include_str!("../data/github.lock");

fn table() -> Vec<Value> {
    TABLE.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// A value for a path variable of this kind.
fn path_value(name: &str, kind: &str) -> String {
    match kind {
        "integer" => "482".into(),
        "segments" => "some/deep/value".into(),
        "slashed" => "blue/green".into(),
        "string" if name == "repo" => "payments.api".into(),
        "string" => format!("{}x", name.replace('_', "-").to_lowercase()),
        words => words.split('|').next_back().unwrap().into(),
    }
}

fn value_of(ty: &Value) -> Value {
    match ty {
        Value::String(word) => match word.as_str() {
            "string" => json!("téxt \"quoted\""),
            "integer" => json!(7),
            "boolean" => json!(true),
            "strings" => json!(["a", "b"]),
            "integers" => json!([1, 2]),
            "booleans" => json!([false]),
            "opaque" => json!({"any": [1, "thing", null]}),
            other => panic!("{other}"),
        },
        Value::Object(members) => {
            members.iter().map(|(k, t)| (k.trim_end_matches('!').to_owned(), value_of(t))).collect()
        }
        other => panic!("{other}"),
    }
}

struct Synthesised {
    target: String,
    body: Option<Value>,
    resource: Value,
    parameters: Map<String, Value>,
}

fn fill(template: &str, values: &BTreeMap<String, String>) -> String {
    values.iter().fold(template.to_owned(), |text, (name, value)| text.replace(&format!("{{{name}}}"), value))
}

fn synthesise(row: &Value, encoded_slashes: bool) -> Synthesised {
    let empty = Map::new();
    let object = |key: &str| row[key].as_object().unwrap_or(&empty).clone();
    let slash = if encoded_slashes { "%2F" } else { "/" };
    let mut target = row["wire"].as_str().unwrap().split_once(' ').unwrap().1.to_owned();
    let mut values = BTreeMap::new();
    let mut parameters = Map::new();
    let template = row["entities"][0][1].as_str().unwrap_or_default().to_owned();
    for (name, kind) in object("path") {
        let kind = kind.as_str().unwrap();
        let value = path_value(&name, kind);
        let spelled = value.replace('/', if kind == "slashed" { "%2F" } else { slash });
        target = target.replace(&format!("{{{name}}}"), &spelled);
        if !template.contains(&format!("{{{name}}}")) {
            let value = if kind == "integer" { json!(482) } else { json!(value) };
            parameters.insert(name.clone(), value);
        }
        values.insert(name, value);
    }
    let mut query = Vec::new();
    for (name, ty) in object("query") {
        let name = name.trim_end_matches('!');
        let (text, value) = match ty.as_str().unwrap() {
            "string" | "opaque" => (format!("{name}=a%20b"), json!("a b")),
            "integer" => (format!("{name}=30"), json!(30)),
            "boolean" => (format!("{name}=true"), json!(true)),
            "strings" => (format!("{name}[]=x&{name}[]=y"), json!(["x", "y"])),
            "integers" => (format!("{name}[]=1&{name}[]=2"), json!([1, 2])),
            other => panic!("{other}"),
        };
        query.push(text);
        parameters.insert(name.to_owned(), value);
    }
    if !query.is_empty() {
        target.push_str(&format!("?{}", query.join("&")));
    }
    let body = row.get("body").map(value_of);
    for (member, value) in body.iter().flat_map(|b| b.as_object().unwrap()) {
        let taken = parameters.contains_key(member) || values.contains_key(member);
        let name = if taken { format!("body.{member}") } else { member.clone() };
        assert!(parameters.insert(name, value.clone()).is_none());
    }
    let resource = if template.is_empty() { Value::Null } else { json!(fill(&template, &values)) };
    Synthesised { target, body, resource, parameters }
}

#[test]
fn every_operation_maps_to_itself_on_the_wire_and_through_an_sdk() {
    let github = GithubConnector::new();
    let table = table();
    assert_eq!(table.len(), 1223);
    let (mut walked, mut same) = (0, 0);
    for row in &table {
        let name = row["name"].as_str().unwrap();
        if let Some(canonical) = row["same_as"].as_str() {
            // Its request line is another operation's: that one answers.
            let mapped = Request::new("GET /repos/o/r/compare/main...dev").send(&github).unwrap();
            assert_eq!(mapped.calls[0].action.name(), canonical);
            same += 1;
            continue;
        }
        for encoded_slashes in [true, false] {
            let made = synthesise(row, encoded_slashes);
            let method = row["wire"].as_str().unwrap().split_once(' ').unwrap().0;
            let mut request = Request { method, target: &made.target, ..Request::default() };
            let mut parameters = made.parameters.clone();
            if let Some(body) = &made.body {
                request = request.json(body);
            }
            if row["text"] == true {
                request = request.header("content-type", "text/plain").body("# héllo");
                parameters.insert("body".into(), json!("# héllo"));
            }
            if row["stream"] == true {
                request = request.header("content-type", "application/zip").body("PK");
                parameters.insert("content_type".into(), json!("application/zip"));
                parameters.insert("body".into(), json!({"$stream": {"bytes": 2}}));
            }
            let mapped = request.send(&github).unwrap_or_else(|e| panic!("{name} {}: {e}", made.target));
            let want = json!({"tool": "github", "action": name, "resource": made.resource,
                "mutates_state": row["mutates"], "parameters": parameters});
            assert_eq!(five(&mapped), want, "{}", made.target);
            assert_eq!(mapped.upstream.method.as_str(), method);
            assert_eq!(mapped.upstream.path_and_query.replace("[]", "%5B%5D"), made.target.replace("[]", "%5B%5D"));
            if let Some(body) = &made.body {
                assert_eq!(serde_json::from_str::<Value>(&support::sent(&mapped)).unwrap(), *body);
            }
            let call = &mapped.calls[0];
            // A tree that cannot be read counts as one that plants a workflow.
            let class = if name == "create_tree" { "persist" } else { row["class"].as_str().unwrap() };
            assert_eq!(call.class.as_str(), class, "{name}");
            let types: Vec<_> = call.resource.iter().map(|r| r.ty.to_string()).collect();
            assert_eq!(types, call.entry.resource_types.iter().map(ToString::to_string).collect::<Vec<_>>());
            if row["stream"] != true {
                let through_sdk = sdk(&github, &want).unwrap_or_else(|e| panic!("{name}: {e}"));
                assert_eq!(through_sdk.action.hash(), call.action.hash(), "{name}");
                assert_eq!((through_sdk.class, &through_sdk.resource), (call.class, &call.resource));
            }
        }
        walked += 1;
    }
    assert_eq!((walked, same), (1222, 1));
}

#[test]
fn names_are_unique_valid_and_locked() {
    let github = GithubConnector::new();
    let lock: BTreeMap<&str, &str> =
        LOCK.lines().filter(|l| !l.starts_with('#')).map(|l| l.split_once(' ').unwrap()).collect();
    let names: BTreeSet<&str> = lock.values().copied().collect();
    assert_eq!(names.len(), lock.len(), "a name was given twice");
    assert_eq!(github.catalog().len(), 1223);
    for entry in github.catalog() {
        assert_eq!(lock.get(entry.operation.as_str()), Some(&entry.name.as_str()), "{}", entry.operation);
        assert!(
            entry.name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'),
            "{}",
            entry.name
        );
        assert!(!entry.parameters.keys().any(|k| k.is_empty()), "{}", entry.name);
        assert_eq!(entry.resource.is_some(), !entry.resource_types.is_empty());
        let found = github.entry(&entry.name).unwrap();
        assert_eq!(found.operation, entry.operation);
    }
    assert!(github.catalog().windows(2).all(|pair| pair[0].name < pair[1].name), "entries are in name order");
}

#[test]
fn well_known_names_stay() {
    let github = GithubConnector::new();
    for (name, wire, class, risk) in [
        ("merge_pull_request", "PUT /repos/{owner}/{repo}/pulls/{pull_number}/merge", "write", "high"),
        ("add_issue_comment", "POST /repos/{owner}/{repo}/issues/{issue_number}/comments", "write", "medium"),
        ("create_or_update_file", "PUT /repos/{owner}/{repo}/contents/{path}", "write", "medium"),
        ("get_file_contents", "GET /repos/{owner}/{repo}/contents/{path}", "read", "low"),
        ("list_issues", "GET /repos/{owner}/{repo}/issues", "read", "low"),
        ("create_issue", "POST /repos/{owner}/{repo}/issues", "write", "medium"),
        ("create_pull_request", "POST /repos/{owner}/{repo}/pulls", "write", "medium"),
        ("delete_repository", "DELETE /repos/{owner}/{repo}", "delete", "critical"),
        ("update_reference", "PATCH /repos/{owner}/{repo}/git/refs/{ref}", "write", "high"),
        ("create_deployment", "POST /repos/{owner}/{repo}/deployments", "write", "high"),
        ("delete_branch_protection", "DELETE /repos/{owner}/{repo}/branches/{branch}/protection", "admin", "critical"),
        (
            "create_installation_access_token_for_app",
            "POST /app/installations/{installation_id}/access_tokens",
            "mint",
            "critical",
        ),
        ("create_repository_webhook", "POST /repos/{owner}/{repo}/hooks", "persist", "high"),
        ("create_deploy_key", "POST /repos/{owner}/{repo}/keys", "persist", "high"),
        (
            "actions_create_or_update_repository_secret",
            "PUT /repos/{owner}/{repo}/actions/secrets/{secret_name}",
            "persist",
            "high",
        ),
        ("run_workflow", "POST /repos/{owner}/{repo}/actions/workflows/{workflow_id}/dispatches", "persist", "high"),
        ("add_repository_collaborator", "PUT /repos/{owner}/{repo}/collaborators/{username}", "admin", "high"),
        ("render_markdown_document", "POST /markdown", "read", "low"),
        ("update_repository", "PATCH /repos/{owner}/{repo}", "admin", "high"),
        ("transfer_repository", "POST /repos/{owner}/{repo}/transfer", "admin", "critical"),
        ("list_secret_scanning_alerts", "GET /repos/{owner}/{repo}/secret-scanning/alerts", "mint", "critical"),
        ("dependabot_list_organization_secrets", "GET /orgs/{org}/dependabot/secrets", "read", "low"),
    ] {
        let entry = github.entry(name).unwrap_or_else(|| panic!("{name}"));
        assert_eq!((entry.wire.as_str(), entry.class.as_str(), entry.risk.as_str()), (wire, class, risk), "{name}");
    }
}

#[test]
fn only_reads_leave_no_trace() {
    for entry in GithubConnector::new().catalog() {
        let read_only = !entry.mutates_state;
        if read_only {
            assert!(
                matches!(entry.class.as_str(), "read" | "mint"),
                "{} changes nothing but is {:?}",
                entry.name,
                entry.class
            );
        } else {
            assert_ne!(entry.class.as_str(), "read", "{}", entry.name);
        }
    }
}
