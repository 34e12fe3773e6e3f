use std::sync::Arc;

use aegis_action::{AccessClass, Risk};

use super::fake::{Fake, engine, entry, load};
use crate::policy::{PolicyEngine, PolicySource};

/// The problems of a text, as an admin sees them.
fn problems(text: &str) -> String {
    match load(text) {
        Ok(_) => panic!("loaded"),
        Err(problems) => problems.iter().map(|p| format!("{p}\n")).collect(),
    }
}

#[track_caller]
fn says(text: &str, place: &str, words: &[&str]) {
    let said = problems(text);
    assert!(said.starts_with(&format!("p.cedar:{}:", place.trim_end_matches(':'))), "{said}");
    for word in words {
        assert!(said.contains(word), "`{word}` is not in: {said}");
    }
}

#[test]
fn every_problem_is_reported_at_once() {
    let text = r#"@id("a") permit (principal, action, resource) when { context.sauce };
permit (principal, action, resource);
@id("b") permit (principal, action resource);
@id("c") permit (principal, action == Action::"github.creat_issue", resource);
@id("c") permit (principal, action, resource);
@id("d") forbid (principal, action, resource"#;
    let said = problems(text);
    for place in ["2:1", "3:36", "4:47", "5:1", "6:"] {
        assert!(said.contains(&format!("p.cedar:{place}")), "{place} is not in: {said}");
    }
}

#[test]
fn a_misspelt_name_is_found_with_its_place_and_the_right_one() {
    says(
        "\n@id(\"a\")\npermit (principal,\n  action == Action::\"github.merge_pul_request\", resource);",
        "4:21",
        &["did you mean `github.merge_pull_request`?"],
    );
    says(r#"@id("a") forbid (principal, action in Action::"persit", resource);"#, "1:47", &["did you mean `persist`?"]);
    says(
        r#"@id("a") permit (principal, action, resource) when { action in Action::"raed" };"#,
        "1:72",
        &["did you mean `read`?"],
    );
    says(
        r#"@id("a") permit (principal, action == Action::"github.merge_pull_request", resource)
when { context.parameters has merge_methd && context.parameters.merge_methd == "squash" && context.facts.base_protcted };"#,
        "2:",
        &["did you mean `base_protected`?", "did you mean `merge_method`?"],
    );
    says(
        r#"@id("a") permit (principal, action == Action::"github.merge_pull_request", resource)
when { context.parameters.merge_methd == "squash" };"#,
        "2:27",
        &["merge_methd", "did you mean `merge_method`?"],
    );
    says(
        r#"@id("a") permit (principal, action, resource in GitHub::Repositry::"octo/x");"#,
        "1:",
        &["GitHub::Repositry", "GitHub::Repository"],
    );
    says(
        r#"@id("a") permit (principal, action, resource) when { principal.enviroment == "x" };"#,
        "1:64",
        &["enviroment", "environment"],
    );
    says(
        r#"@id("a") forbid (principal, action in Action::"money", resource) when { context has amout && context.amout > 5 };"#,
        "1:",
        &["did you mean `amount`?"],
    );
    says(
        r#"@id("a") forbid (principal, action == Action::"github.create_issue", resource)
when { context.parameters has author.nam && context.time.hours > 3 };"#,
        "2:",
        &["`nam`", "did you mean `name`?", "did you mean `hour`?"],
    );
    says(
        r#"@id("a") permit (principal, action, resource) when { context.source_trust == "semi_trusted" };"#,
        "1:78",
        &["is never `semi_trusted`"],
    );
    says(
        r#"@id("a") forbid (principal, action, resource) when { ["github", "gitub"].contains(context.route) };"#,
        "1:65",
        &["did you mean `github`?"],
    );
}

#[test]
fn types_are_checked_strictly() {
    says(
        r#"@id("a") permit (principal, action == Action::"github.create_issue", resource) when { context.parameters.title > 3 };"#,
        "1:",
        &["String", "Long"],
    );
    // An optional parameter must be asked for before it is read.
    says(
        r#"@id("a") permit (principal, action == Action::"github.create_issue", resource) when { context.parameters.draft };"#,
        "1:87",
        &["draft", "has"],
    );
    says(
        r#"@id("a") permit (principal, action == Action::"github.create_issue", resource) when { context.parameters.shape == 1 };"#,
        "1:",
        &["`shape` has no type that policies can read"],
    );
}

#[test]
fn a_policy_on_a_group_cannot_read_what_only_an_action_has() {
    for (head, read) in [
        ("action", r#"context.parameters.title == "x""#),
        (r#"action in Action::"write""#, r#"context.parameters has title"#),
        (r#"action in [Action::"github.create_issue", Action::"write"]"#, r#"context.parameters.title == "x""#),
        (r#"action in Action::"github""#, "context.facts.base_protected"),
    ] {
        says(
            &format!("@id(\"a\") permit (principal, {head}, resource) when {{ {read} }};"),
            "1:",
            &["a policy on a group of actions cannot read", "name the actions"],
        );
    }
    says(r#"@id("a") permit (principal, action == Action::"write", resource);"#, "1:47", &["is a group", "action in"]);
}

#[test]
fn whole_records_that_cannot_be_provided_are_refused() {
    says(
        r#"@id("a") permit (principal, action == Action::"github.merge_pull_request", resource) when { context.facts == {} };"#,
        "1:1",
        &["`context.facts` cannot be read as a whole"],
    );
    says(
        r#"@id("a") permit (principal, action, resource) when { context == {} };"#,
        "1:1",
        &["`context` cannot be read"],
    );
}

#[test]
fn an_approval_that_disagrees_with_its_condition_is_refused() {
    let disagreeing = |policy: &str| says(policy, "1:1", &["@require_approval"]);
    disagreeing(r#"@id("a") @require_approval("leads") forbid (principal, action, resource);"#);
    disagreeing(
        r#"@id("a") @require_approval("leads") forbid (principal, action, resource) unless { context.approval.groups.contains("admins") };"#,
    );
    disagreeing(
        r#"@id("a") @require_approval("leads") forbid (principal, action, resource) when { context.approval.groups.contains("leads") };"#,
    );
    disagreeing(
        r#"@id("a") @require_approval("leads") forbid (principal, action, resource) unless { context.approval.groups.contains("leads") || true };"#,
    );
    disagreeing(
        r#"@id("a") @require_approval("leads") forbid (principal, action, resource)
        unless { context.approval.groups.contains("leads") } unless { context.approval.groups.contains("other") };"#,
    );
    disagreeing(
        r#"@id("a") @require_approval("leads") permit (principal, action, resource) unless { context.approval.groups.contains("leads") };"#,
    );
    disagreeing(r#"@id("a") @quorum("2") forbid (principal, action, resource);"#);
    for quorum in ["0", "11", "two", ""] {
        says(
            &format!(
                "@id(\"a\") @require_approval(\"leads\") @quorum(\"{quorum}\") forbid (principal, action, resource)
                unless {{ context.approval.groups.contains(\"leads\") }};"
            ),
            "1:1",
            &["`@quorum` is a number"],
        );
    }
}

#[test]
fn what_is_probably_not_meant_is_a_warning() {
    let (_, warnings) = load(
        r#"@id("a") @requires_approval("x") forbid (principal, action, resource) unless { context.approval.groups.contains("x") };
@id("b") permit (principal, action == Action::"github.create_token", resource in GitHub::Organization::"octo");"#,
    )
    .unwrap();
    let said: String = warnings.iter().map(|w| format!("{w}\n")).collect();
    assert!(said.contains("did you mean `require_approval`?"), "{said}");
    assert!(said.contains("nothing says whose"), "{said}");
    assert!(said.contains("p.cedar:2:"), "{said}");
}

#[test]
fn templates_and_foreign_action_types_are_refused() {
    says(r#"@id("a") permit (principal == ?principal, action, resource);"#, "1:", &["template"]);
    says(r#"@id("a") permit (principal, action == GitHub::Action::"x", resource);"#, "1:", &["GitHub::Action"]);
}

#[test]
fn catalogs_that_would_make_a_name_mean_two_things_are_refused() {
    let load = |name: &str, tool: &str| {
        let mut entry = entry(name, AccessClass::Write, Risk::Low, &[], []);
        entry.tool = tool.into();
        PolicyEngine::load(&[], &[Fake::shared()], &[Arc::new(entry)], &[]).err().map(|p| p[0].to_string())
    };
    assert!(load("create_issue", "github").unwrap().contains("declared twice"));
    assert!(load("x", "write").unwrap().contains("cannot tell from a group"));
    assert_eq!(load("x", "billing"), None);
}

#[test]
fn the_hash_covers_names_and_texts_and_no_order_of_reading() {
    let source = |file: &str, text: &str| PolicySource { file: file.into(), text: text.into() };
    let hash = |sources: &[PolicySource]| PolicyEngine::load(sources, &[Fake::shared()], &[], &[]).unwrap().0.hash();
    let (a, b) = (source("a", "// x"), source("b", "// y"));
    assert_eq!(hash(&[a.clone(), b.clone()]), hash(&[b.clone(), a.clone()]));
    assert_ne!(hash(&[a.clone(), b]), hash(&[a.clone(), source("b", "// z")]));
    assert_ne!(hash(&[a]), hash(&[source("c", "// x")]));
}

#[test]
fn policies_can_be_looked_up() {
    let engine = engine("\n@id(\"x\") @description(\"what it does\")\npermit (principal, action, resource);");
    let info = engine.policy("x").unwrap();
    assert_eq!((info.line, info.file.as_str(), info.words().as_str()), (2, "p.cedar", "what it does"));
    assert_eq!((engine.len(), engine.policy("y").is_none()), (1, true));
}
