use aegis_action::SourceTrust;
use serde_json::json;

use super::fake::{Question, ask, engine};
use crate::policy::{Explanation, PolicyEngine};

const REPO: Option<&str> = Some("octo/payments");

fn explain(engine: &PolicyEngine, question: &Question) -> Explanation {
    engine.explain(&question.slice(engine), &question.input())
}

#[test]
fn an_allow_names_the_permit_and_the_values_it_holds_for() {
    let engine = engine(
        r#"@id("a") @description("people may look")
        permit (principal, action in Action::"read", resource) when { context.route == "github" && true };"#,
    );
    let said = explain(&engine, &ask("list_issues", REPO, json!({})));
    assert!(said.would_have_to_be_true.is_empty());
    let note = &said.policies[0];
    assert_eq!((note.id.as_str(), note.line, note.description.as_str()), ("a", 1, "people may look"));
    assert_eq!(note.because, [r#"`context.route == "github"` holds (`route` is `github`)"#, "`true` holds"]);
}

#[test]
fn a_missing_permit_names_the_condition_that_fails() {
    let engine = engine(
        r#"@id("a") permit (principal, action in Action::"read", resource)
        when { context.route == "github" && context.source_trust == "trusted_internal_signed" }
        unless { principal.environment == "staging" };"#,
    );
    let mut question = ask("list_issues", REPO, json!({}));
    question.trust = SourceTrust::Unknown;
    let said = explain(&engine, &question).would_have_to_be_true;
    assert_eq!(
        said,
        [
            r#"permit `a` (p.cedar:1) would apply if `context.source_trust == "trusted_internal_signed"` held (`source_trust` is `unknown`)"#
        ]
    );
    question.trust = SourceTrust::TrustedInternalSigned;
    question.principal.environment = "staging".into();
    let said = explain(&engine, &question).would_have_to_be_true;
    assert_eq!(
        said,
        [
            r#"permit `a` (p.cedar:1) would apply if `principal.environment == "staging"` did not hold (`environment` is `staging`)"#
        ]
    );
}

#[test]
fn a_missing_permit_names_whom_and_what_the_nearest_is_for() {
    let engine = engine(
        r#"@id("both") permit (principal in Team::"ops", action in Action::"read", resource in GitHub::Repository::"octo/other");
        @id("team") permit (principal in Team::"ops", action in Action::"read", resource);"#,
    );
    let said = explain(&engine, &ask("list_issues", REPO, json!({}))).would_have_to_be_true;
    assert_eq!(said[0], r#"permit `team` (p.cedar:2) is for `principal in Team::"ops"`"#);
    assert!(said[1].contains(r#"and is for `resource in GitHub::Repository::"octo/other"`"#), "{}", said[1]);
    let said = explain(&engine, &ask("create_issue", REPO, json!({"title": "t"}))).would_have_to_be_true;
    assert_eq!(said, ["no permit is about `github.create_issue` at all: one would have to be written"]);
}

#[test]
fn a_forbid_says_what_would_lift_it() {
    let engine = engine(
        r#"@id("all") permit (principal, action, resource);
@id("no") @reason("not from outside") forbid (principal, action in Action::"write", resource)
unless { context.source_trust == "trusted_internal_signed" };
@id("never") forbid (principal, action in Action::"delete", resource);"#,
    );
    let mut question = ask("create_issue", REPO, json!({"title": "t"}));
    question.trust = SourceTrust::UntrustedExternal;
    let said = explain(&engine, &question);
    assert_eq!(said.policies[0].description, "not from outside");
    assert_eq!(
        said.would_have_to_be_true,
        [
            r#"forbid `no` (p.cedar:2) would not apply if `context.source_trust == "trusted_internal_signed"` held (`source_trust` is `untrusted_external`)"#
        ]
    );
    let said = explain(&engine, &ask("delete_repository", REPO, json!({})));
    assert_eq!(said.would_have_to_be_true, ["forbid `never` (p.cedar:4) forbids this whatever the conditions"]);
}

#[test]
fn an_approval_says_whom_to_ask() {
    let engine = engine(
        r#"@id("all") permit (principal, action, resource);
        @id("g") @require_approval("leads") forbid (principal, action in Action::"delete", resource)
        unless { context.approval.groups.contains("leads") };"#,
    );
    let said = explain(&engine, &ask("delete_repository", REPO, json!({})));
    assert_eq!(said.ask, ["leads"]);
    assert_eq!(said.would_have_to_be_true, ["one person of `leads` would have to approve"]);
}
