//! The shipped policies against the real catalogs.

use std::{collections::BTreeSet, path::PathBuf, sync::Arc, time::Instant};

use aegis_action::{AccessClass, Risk};
use aegis_connectors::{
    Connector, ParamType, declared::DeclaredTools, github::GithubConnector, http_generic::HttpConnector,
};
use cedar_policy::Schema;

use super::fake::entry;
use crate::policy::{
    CaseFile, PolicyEngine, PolicySource, run_cases,
    schema::{Vocabulary, qualified},
};

fn folder() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../policies"))
}

fn connectors() -> Vec<Arc<dyn Connector>> {
    vec![Arc::new(GithubConnector::new()), Arc::new(HttpConnector::new("https://api.example.com", "internal-api"))]
}

fn shipped() -> PolicySource {
    PolicySource {
        file: "policies/default.cedar".into(),
        text: std::fs::read_to_string(folder().join("default.cedar")).unwrap(),
    }
}

fn load(sources: &[PolicySource], connectors: &[Arc<dyn Connector>]) -> PolicyEngine {
    match PolicyEngine::load(sources, connectors, &[], &["github".into(), "internal-api".into()]) {
        Ok((engine, warnings)) => {
            assert!(warnings.is_empty(), "{warnings:?}");
            engine
        }
        Err(problems) => panic!("{}", problems.iter().map(|p| format!("{p}\n")).collect::<String>()),
    }
}

fn cases() -> Vec<CaseFile> {
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(folder().join("cases")).unwrap().map(|f| f.unwrap().path()).collect();
    files.sort();
    let read = |path: &PathBuf| {
        let name = path.file_name().unwrap().to_str().unwrap();
        CaseFile::parse(name, &std::fs::read_to_string(path).unwrap()).unwrap()
    };
    files.iter().map(read).collect()
}

#[test]
fn every_case_goes_as_written() {
    let report = run_cases(&load(&[shipped()], &connectors()), &connectors(), &cases());
    assert_eq!(report.failed(), 0, "{report}");
    assert!(report.passed() >= 40, "{report}");
}

#[test]
fn every_policy_decides_some_case() {
    let engine = load(&[shipped()], &connectors());
    let report = run_cases(&engine, &connectors(), &cases());
    let decisive: BTreeSet<&str> = report.results.iter().flat_map(|r| r.policies.iter().map(String::as_str)).collect();
    let idle: Vec<&str> = engine.policies().map(|p| p.id.as_str()).filter(|id| !decisive.contains(id)).collect();
    // Nothing that ships moves money, so that gate has a test of its own.
    assert_eq!(idle, ["money"]);
}

#[test]
fn money_that_a_permit_would_move_waits_for_the_finance_leads() {
    let mut refund = entry(
        "refund",
        AccessClass::Money,
        Risk::High,
        &[],
        [("amount".into(), aegis_connectors::Parameter { ty: ParamType::Integer, required: true })],
    );
    refund.tool = "billing".into();
    let mut connectors = connectors();
    connectors.push(Arc::new(DeclaredTools::new(vec![Arc::new(refund)])));
    let own = PolicySource {
        file: "own.cedar".into(),
        text: r#"@id("refunds") permit (principal, action == Action::"billing.refund", resource);"#.into(),
    };
    let engine = load(&[shipped(), own], &connectors);
    let case = |approved: &str, expected: &str| {
        let text = format!(
            r#"[{{"name": "refund", "call": {{"tool": "billing", "action": "refund", "resource": null,
            "mutates_state": true, "parameters": {{"amount": 5}}}}, "trust": "trusted_internal_signed",
            "approval_groups": [{approved}], "expect": {{"decision": "{expected}"}}}}]"#
        );
        let report = run_cases(&engine, &connectors, &[CaseFile::parse("money", &text).unwrap()]);
        assert_eq!(report.failed(), 0, "{report}");
    };
    case("", "require_approval");
    case(r#""platform-leads""#, "require_approval");
    case(r#""finance-leads""#, "allow");
}

#[test]
fn a_wrong_case_is_reported_with_its_difference() {
    let text = r#"[{"name": "x", "call": {"tool": "github", "action": "get_me", "resource": null, "mutates_state": false,
        "parameters": {}}, "trust": "unknown", "expect": {"decision": "allow", "policies": ["read"]}},
        {"name": "y", "call": {"tool": "github", "action": "no_such", "resource": null, "mutates_state": false,
        "parameters": {}}, "trust": "unknown", "expect": {"decision": "deny"}}]"#;
    let engine = load(&[shipped()], &connectors());
    let report = run_cases(&engine, &connectors(), &[CaseFile::parse("f", text).unwrap()]);
    assert_eq!(report.failed(), 2);
    assert_eq!(
        report.results[0].differences,
        ["decision: expected `allow`, got `deny`", "policies: expected [read], got []"]
    );
    assert!(report.results[1].differences[0].starts_with("call: refused: "), "{report}");
    let problem = CaseFile::parse("f", "[{\"name\": 1}]").unwrap_err();
    assert_eq!((problem.line, problem.file.as_str()), (1, "f"));
}

#[test]
fn every_action_of_the_catalogs_has_a_schema() {
    let entries: Vec<_> = connectors().iter().flat_map(|c| c.catalog().to_vec()).collect();
    let vocabulary = Vocabulary::new(entries.clone()).unwrap();
    for some in entries.chunks(100) {
        let heads = some.iter().map(|e| qualified(e)).collect();
        Schema::from_json_value(vocabulary.schema(&heads, &BTreeSet::new())).unwrap();
    }
    Schema::from_json_value(vocabulary.schema(&BTreeSet::new(), &BTreeSet::new())).unwrap();
}

#[test]
fn a_systems_own_teams_and_ours_can_stand_in_one_policy() {
    let own = |resource: &str| PolicySource {
        file: "own.cedar".into(),
        text: format!(
            r#"@id("t") permit (principal in Team::"ops", action == Action::"github.get_team_by_name", resource {resource});"#
        ),
    };
    load(&[own(r#"in GitHub::Team::"octo/ops""#)], &connectors());
    load(&[own(r#"is GitHub::Team in GitHub::Organization::"octo""#)], &connectors());
    let problems = PolicyEngine::check(&[own(r#"in GitHub::Team::Team::"x""#)], &connectors(), &[], &[]);
    assert!(problems[0].to_string().contains("`GitHub::Team::Team`"), "{problems:?}");
}

#[test]
fn the_shipped_policies_load_quickly() {
    connectors();
    let started = Instant::now();
    load(&[shipped()], &connectors());
    // Unoptimised, on a shared machine; the bound only catches a change of kind.
    assert!(started.elapsed().as_secs() < 5, "{:?}", started.elapsed());
}
