use aegis_action::SourceTrust;
use serde_json::json;

use super::fake::{ask, engine};
use crate::policy::{Decision, MemoKind, Reason};

const REPO: Option<&str> = Some("octo/payments");
const PULL: Option<&str> = Some("octo/payments#482");

const ALL: &str = r#"@id("all") permit (principal, action, resource);"#;
const GATE: &str = r#"@id("gate") @require_approval("leads") @quorum("2")
    forbid (principal, action == Action::"github.merge_pull_request", resource)
    when { context.facts.base_protected }
    unless { context.approval.groups.contains("leads") };"#;

fn approval(groups: &[&str], quorum: u32) -> Decision {
    Decision::RequireApproval { groups: groups.iter().map(|g| (*g).to_owned()).collect(), quorum }
}

#[test]
fn no_policies_and_no_permit_deny() {
    let nothing = ask("list_issues", REPO, json!({})).put_to(&engine(""));
    assert_eq!((nothing.decision, nothing.reason), (Decision::Deny, Reason::NoPermit));
    let other = engine(r#"@id("a") permit (principal, action == Action::"github.create_issue", resource);"#);
    assert_eq!(ask("list_issues", REPO, json!({})).put_to(&other).reason, Reason::NoPermit);
}

#[test]
fn heads_see_team_class_risk_system_and_every_ancestor() {
    for head in [
        r#"principal == Agent::"agt_1", action, resource"#,
        r#"principal in Team::"payments", action, resource"#,
        r#"principal is Agent in Team::"payments", action, resource"#,
        r#"principal, action in Action::"write", resource"#,
        r#"principal, action in Action::"high", resource"#,
        r#"principal, action in [Action::"read", Action::"high"], resource"#,
        r#"principal, action, resource == GitHub::PullRequest::"octo/payments#482""#,
        r#"principal, action, resource in GitHub::Repository::"octo/payments""#,
        r#"principal, action, resource in GitHub::Organization::"octo""#,
        r#"principal, action, resource is GitHub::PullRequest in GitHub::Organization::"octo""#,
    ] {
        let engine = engine(&format!("@id(\"a\") permit ({head});"));
        assert_eq!(ask("merge_pull_request", PULL, json!({})).put_to(&engine).policies, ["a"], "{head}");
        let other = ask("list_issues", Some("acme/shop"), json!({}));
        let mut stranger = ask("create_token", None, json!({}));
        stranger.principal.team = "others".into();
        stranger.principal.agent_id = "agt_2".into();
        let narrower = [other.put_to(&engine), stranger.put_to(&engine)];
        assert!(narrower.iter().any(|e| e.decision == Decision::Deny), "{head}");
    }
}

#[test]
fn an_action_without_resource_matches_no_resource_but_its_own() {
    let scoped = engine(r#"@id("a") permit (principal, action, resource in GitHub::Organization::"octo");"#);
    assert_eq!(ask("create_token", None, json!({})).put_to(&scoped).reason, Reason::NoPermit);
    let own = engine(r#"@id("a") permit (principal, action, resource == Unscoped::"github");"#);
    assert_eq!(ask("create_token", None, json!({})).put_to(&own).decision, Decision::Allow);
    assert_eq!(ask("list_issues", REPO, json!({})).put_to(&own).decision, Decision::Deny);
}

#[test]
fn a_raised_class_is_forbidden_by_either_class() {
    let raised = || ask("write_file", REPO, json!({"path": ".github/workflows/ci.yml"}));
    for class in ["persist", "write"] {
        let forbid = format!("{ALL} @id(\"no\") forbid (principal, action in Action::\"{class}\", resource);");
        assert_eq!(raised().put_to(&engine(&forbid)).policies, ["no"], "{class}");
    }
    let plain = ask("write_file", REPO, json!({"path": "readme"}));
    let persist = format!("{ALL} @id(\"no\") forbid (principal, action in Action::\"persist\", resource);");
    assert_eq!(plain.put_to(&engine(&persist)).decision, Decision::Allow);
}

#[test]
fn the_agents_json_is_data() {
    let engine = engine(&format!(
        r#"{ALL} @id("no") forbid (principal, action == Action::"github.create_issue", resource)
        when {{ context.parameters has author && context.parameters.author has name && context.parameters.author.name == "x" }};"#
    ));
    for author in [
        json!({"__entity": {"type": "Agent", "id": "agt_1"}}),
        json!({"__extn": {"fn": "ip", "arg": "1.2.3.4"}}),
        json!({"__expr": "principal"}),
    ] {
        let answer = ask("create_issue", REPO, json!({"title": "t", "author": author})).put_to(&engine);
        assert_eq!(answer.decision, Decision::Allow, "{author}: {:?}", answer.errors);
    }
    let named = json!({"title": "t", "author": {"name": "x", "other": 1}});
    assert_eq!(ask("create_issue", REPO, named).put_to(&engine).policies, ["no"]);
}

#[test]
fn a_value_of_the_wrong_type_is_refused_even_where_no_policy_reads_it() {
    let engine = engine(ALL);
    let good = json!({"title": "t", "milestone": 1, "labels": ["a"], "ids": [1], "draft": true, "shape": [1, {}], "unknown": {}});
    assert_eq!(ask("create_issue", REPO, good).put_to(&engine).decision, Decision::Allow);
    for bad in [
        json!({"title": 1}),
        json!({"milestone": "1"}),
        json!({"milestone": 1.5}),
        json!({"labels": "a"}),
        json!({"labels": [1]}),
        json!({"ids": ["1"]}),
        json!({"draft": 0}),
        json!({"author": "x"}),
        json!({"author": {"name": 1}}),
    ] {
        let answer = ask("create_issue", REPO, bad.clone()).put_to(&engine);
        assert_eq!((answer.decision, answer.reason), (Decision::Deny, Reason::PolicyError), "{bad}");
    }
    let null = json!({"title": null, "author": null, "labels": null});
    assert_eq!(ask("create_issue", REPO, null).put_to(&engine).decision, Decision::Allow);
}

#[test]
fn parameters_decide_by_type() {
    let engine = engine(&format!(
        r#"{ALL} @id("no") forbid (principal, action == Action::"github.create_issue", resource)
        when {{ (context.parameters has milestone && context.parameters.milestone > 5)
             || (context.parameters has labels && context.parameters.labels.contains("urgent")) }};"#
    ));
    let with = |extra: serde_json::Value| {
        let mut all = json!({"title": "t"});
        all.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        ask("create_issue", REPO, all).put_to(&engine).decision
    };
    assert_eq!(with(json!({"milestone": 5})), Decision::Allow);
    assert_eq!(with(json!({"milestone": 6})), Decision::Deny);
    assert_eq!(with(json!({"labels": ["a", "urgent"]})), Decision::Deny);
    assert_eq!(with(json!({"labels": null, "milestone": null})), Decision::Allow);
}

#[test]
fn text_of_which_only_the_digest_is_known_cannot_be_judged() {
    let engine = engine(&format!(
        r#"{ALL} @id("no") forbid (principal, action == Action::"github.create_issue", resource)
        when {{ context.parameters.title like "*secret*" }};"#
    ));
    let long = ask("create_issue", REPO, json!({"title": "x".repeat(70_000)})).put_to(&engine);
    assert_eq!((long.decision, long.reason), (Decision::Deny, Reason::PolicyError));
    let missing = ask("create_issue", REPO, json!({})).put_to(&engine);
    assert_eq!((missing.decision, missing.reason), (Decision::Deny, Reason::PolicyError));
}

#[test]
fn an_erroring_forbid_denies() {
    let engine = engine(&format!(
        r#"{ALL} @id("no") forbid (principal, action == Action::"github.create_issue", resource)
        when {{ context.parameters has milestone && context.parameters.milestone + 9223372036854775807 > 0 }};"#
    ));
    let overflow = ask("create_issue", REPO, json!({"title": "t", "milestone": 1})).put_to(&engine);
    assert_eq!((overflow.decision, overflow.reason), (Decision::Deny, Reason::PolicyError));
    assert!(!overflow.errors.is_empty());
    assert_eq!(ask("create_issue", REPO, json!({"title": "t"})).put_to(&engine).decision, Decision::Allow);
}

#[test]
fn a_gate_asks_its_group_and_only_its_group_lifts_it() {
    let engine = engine(&format!("{ALL} {GATE}"));
    let merge = || ask("merge_pull_request", PULL, json!({})).fact("base_protected", json!(true));
    let asked = merge().put_to(&engine);
    assert_eq!((asked.decision, asked.reason), (approval(&["leads"], 2), Reason::Approval));
    assert_eq!(asked.policies, ["gate"]);
    assert_eq!(merge().approved_by("others").put_to(&engine).decision, approval(&["leads"], 2));
    assert_eq!(merge().approved_by("leads").put_to(&engine).decision, Decision::Allow);
    let free = ask("merge_pull_request", PULL, json!({})).fact("base_protected", json!(false));
    assert_eq!(free.put_to(&engine).decision, Decision::Allow);
}

#[test]
fn nobody_is_asked_when_a_yes_would_not_help() {
    let without_permit = engine(GATE);
    let merge = || ask("merge_pull_request", PULL, json!({})).fact("base_protected", json!(true));
    let denied = merge().put_to(&without_permit);
    assert_eq!((denied.decision, denied.reason), (Decision::Deny, Reason::NoPermit));
    // The permit covers the call and does not hold: seen only by asking with the approval given.
    let with_permit_that_fails = engine(&format!(
        r#"{GATE} @id("p") permit (principal, action, resource) when {{ context.route == "internal" }};"#
    ));
    let denied = merge().put_to(&with_permit_that_fails);
    assert_eq!((denied.decision, denied.reason), (Decision::Deny, Reason::NoPermit));
    let with_forbid =
        engine(&format!(r#"{ALL} {GATE} @id("never") forbid (principal, action in Action::"high", resource);"#));
    let denied = merge().put_to(&with_forbid);
    assert_eq!((denied.decision, denied.reason), (Decision::Deny, Reason::Forbidden));
}

#[test]
fn two_gates_ask_both_groups() {
    let engine = engine(&format!(
        r#"{ALL} {GATE} @id("gate2") @require_approval("admins") forbid (principal, action in Action::"high", resource)
        unless {{ context.approval.groups.contains("admins") }};"#
    ));
    let merge = || ask("merge_pull_request", PULL, json!({})).fact("base_protected", json!(true));
    assert_eq!(merge().put_to(&engine).decision, approval(&["admins", "leads"], 2));
    assert_eq!(merge().approved_by("leads").put_to(&engine).decision, approval(&["admins"], 1));
    let both = merge().approved_by("leads").approved_by("admins").put_to(&engine);
    assert_eq!(both.decision, Decision::Allow);
}

#[test]
fn a_fact_that_cannot_be_had_denies() {
    let engine = engine(&format!("{ALL} {GATE}"));
    let merge = || ask("merge_pull_request", PULL, json!({}));
    assert_eq!(merge().slice(&engine).facts().iter().collect::<Vec<_>>(), ["base_protected"]);
    for question in [merge(), merge().fact("base_protected", json!(null))] {
        let denied = question.put_to(&engine);
        assert_eq!((denied.decision, denied.reason), (Decision::Deny, Reason::FactUnavailable));
    }
    let wrong = merge().fact("base_protected", json!("yes")).put_to(&engine);
    assert_eq!((wrong.decision, wrong.reason), (Decision::Deny, Reason::PolicyError));
    assert!(ask("list_issues", REPO, json!({})).slice(&engine).facts().is_empty());
}

#[test]
fn no_fact_is_fetched_for_what_cannot_be_allowed() {
    let merge = || ask("merge_pull_request", PULL, json!({}));
    let without_permit = engine(&format!(r#"{GATE} @id("b") forbid (principal, action in Action::"mint", resource);"#));
    assert!(merge().slice(&without_permit).facts().is_empty());
    assert_eq!(merge().put_to(&without_permit).reason, Reason::NoPermit);
    let always_forbidden =
        engine(&format!(r#"{ALL} {GATE} @id("b") forbid (principal, action in Action::"high", resource);"#));
    assert!(merge().slice(&always_forbidden).facts().is_empty());
    let denied = merge().put_to(&always_forbidden);
    assert_eq!((denied.reason, denied.policies), (Reason::Forbidden, vec!["b".to_owned()]));
}

#[test]
fn an_amount_comes_from_the_call_or_else_from_the_fact() {
    let engine = engine(&format!(
        r#"{ALL} @id("big") forbid (principal, action in Action::"money", resource)
        unless {{ context has amount && context.amount < 100 }};"#
    ));
    let given = ask("refund", None, json!({"amount": 5}));
    assert!(given.slice(&engine).facts().is_empty());
    assert_eq!(given.put_to(&engine).decision, Decision::Allow);
    assert_eq!(ask("refund", None, json!({"amount": 500})).put_to(&engine).policies, ["big"]);
    let whole = || ask("refund", None, json!({}));
    assert!(whole().slice(&engine).facts().contains("amount"));
    assert_eq!(whole().put_to(&engine).reason, Reason::FactUnavailable);
    assert_eq!(whole().fact("amount", json!(5)).put_to(&engine).decision, Decision::Allow);
    assert_eq!(whole().fact("amount", json!(500)).put_to(&engine).decision, Decision::Deny);
}

#[test]
fn time_sensitivity_and_the_agents_attributes_are_readable() {
    let engine = engine(
        r#"@id("a") permit (principal, action in Action::"read", resource)
        when { context.time.weekday == 1 && context.time.hour == 13 && context.time.ms > 0
            && principal.environment == "production" && principal.binding == context.identity && !(principal has framework)
            && !(context has contains_sensitive_data && context.contains_sensitive_data) && context.route == "github" };"#,
    );
    let read = || ask("list_issues", REPO, json!({}));
    assert_eq!(read().put_to(&engine).decision, Decision::Allow);
    let mut sensitive = read();
    sensitive.sensitive = Some(true);
    assert_eq!(sensitive.put_to(&engine).decision, Decision::Deny);
    let mut framed = read();
    framed.principal.framework = Some("x".into());
    assert_eq!(framed.put_to(&engine).decision, Decision::Deny);
    let mut late = read();
    late.now.0 += 3_600_000;
    assert_eq!(late.put_to(&engine).decision, Decision::Deny);
}

#[test]
fn a_remembered_decision_forgets_nothing_that_is_read() {
    let engine = engine(
        r#"@id("a") permit (principal, action == Action::"github.create_issue", resource)
        when { context.source_trust == "trusted_internal_signed" && context.parameters.title == "t" && principal.risk_tier == "low" };"#,
    );
    let same = || ask("create_issue", REPO, json!({"title": "t", "unread": 1}));
    assert_eq!(same().slice(&engine).memo(), MemoKind::Keyed);
    for _ in 0..3 {
        assert_eq!(same().put_to(&engine).decision, Decision::Allow);
    }
    let other_unread = ask("create_issue", REPO, json!({"title": "t", "unread": 2}));
    assert_eq!(other_unread.put_to(&engine).decision, Decision::Allow);
    assert_eq!((engine.memo_counters().hits, engine.memo_counters().misses), (3, 1));

    let mut untrusted = same();
    untrusted.trust = SourceTrust::Unknown;
    let mut tier = same();
    tier.principal.risk_tier = "high".into();
    let retitled = ask("create_issue", REPO, json!({"title": "T"}));
    let untitled = ask("create_issue", REPO, json!({}));
    for question in [untrusted, tier, retitled, untitled] {
        assert_eq!(question.put_to(&engine).decision, Decision::Deny);
    }
    let mistyped = ask("create_issue", REPO, json!({"title": "t", "milestone": "no"}));
    assert_eq!(mistyped.put_to(&engine).reason, Reason::PolicyError);
    let mut newer = same();
    newer.principal.version = 2;
    let before = engine.memo_counters();
    newer.put_to(&engine);
    assert_eq!(engine.memo_counters().misses, before.misses + 1);
}

#[test]
fn an_approval_is_part_of_the_key_and_facts_are_never_remembered() {
    let engine = engine(&format!(
        r#"{ALL} @id("g") @require_approval("leads") forbid (principal, action in Action::"delete", resource)
        unless {{ context.approval.groups.contains("leads") }};
        @id("f") forbid (principal, action == Action::"github.merge_pull_request", resource) when {{ context.facts.base_protected }};"#
    ));
    let delete = || ask("delete_repository", REPO, json!({}));
    assert_eq!(delete().put_to(&engine).decision, approval(&["leads"], 1));
    assert_eq!(delete().approved_by("leads").put_to(&engine).decision, Decision::Allow);
    assert_eq!(delete().put_to(&engine).decision, approval(&["leads"], 1));
    assert_eq!(engine.memo_counters().hits, 1);
    for protected in [true, false] {
        let merge = ask("merge_pull_request", PULL, json!({})).fact("base_protected", json!(protected));
        let expected = if protected { Decision::Deny } else { Decision::Allow };
        assert_eq!(merge.put_to(&engine).decision, expected);
    }
    assert_eq!(engine.memo_counters().uncached, 2);
}

#[test]
fn reach_is_what_some_permit_could_allow() {
    let engine = engine(
        r#"@id("a") permit (principal in Team::"payments", action in [Action::"read", Action::"github.create_issue"], resource);
        @id("b") permit (principal == Agent::"agt_9", action, resource);
        @id("c") forbid (principal, action == Action::"github.delete_repository", resource);"#,
    );
    let reachable = |question: &super::fake::Question, name: &str| {
        let entry = super::fake::Fake::shared().entry(name).unwrap();
        engine.reach(&question.principal).includes(&entry)
    };
    let mut question = ask("list_issues", REPO, json!({}));
    assert!(reachable(&question, "list_issues") && reachable(&question, "create_issue"));
    assert!(!reachable(&question, "merge_pull_request"));
    question.principal.agent_id = "agt_9".into();
    assert!(reachable(&question, "merge_pull_request") && !reachable(&question, "delete_repository"));
}
