//! What one decision costs with 10, 100, 1,000 and 10,000 policies: `policy_cost [--json]`.
//!
//! A house of many teams and repositories: a few policies concern everybody, the rest are
//! spread over repositories, agents, teams and actions. `decision_ns` is slice and
//! evaluation in full (the slice reads the time, so nothing is remembered);
//! `remembered_ns` is the same question to policies that do not read the time.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    hint::black_box,
    sync::Arc,
    time::{Duration, Instant},
};

use aegis_action::{AccessClass, Action, Risk, SourceTrust, Timestamp, ToolCall};
use aegis_broker::policy::{Decision, Input, PolicyEngine, PolicySource, Principal};
use aegis_connectors::{Call, EntityRef, Entry, ParamType, Parameter};
use serde_json::{Map, json};

/// Each figure is the best of this many rounds: the least disturbed one.
const ROUNDS: usize = 7;
/// How long a round takes.
const ROUND: Duration = Duration::from_millis(60);
/// The policies that concern everybody; the last makes decisions depend on the time.
const COMMON: &str = r#"
@id("read") permit (principal, action in Action::"read", resource)
  when { ["trusted_internal_signed", "semi_trusted_customer"].contains(context.source_trust) };
@id("write") permit (principal, action == Action::"code.update", resource in Code::Repository::"octo/r0")
  when { context.source_trust == "semi_trusted_customer" && context.parameters.title != "" };
@id("outside") forbid (principal, action in [Action::"write", Action::"delete", Action::"admin"], resource)
  unless { ["trusted_internal_signed", "semi_trusted_customer"].contains(context.source_trust) };
@id("mint") forbid (principal, action in Action::"mint", resource);
@id("persist") forbid (principal, action in Action::"persist", resource);
@id("admin") @require_approval("leads") forbid (principal, action in Action::"admin", resource)
  unless { context.approval.groups.contains("leads") };
"#;
const TIMED: &str =
    r#"@id("night") forbid (principal, action in Action::"write", resource) when { context.time.hour > 23 };"#;

struct Row {
    policies: usize,
    load_ms: f64,
    candidates: usize,
    slice_ns: f64,
    decision_ns: f64,
    remembered_ns: f64,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut rows = Vec::new();
    for policies in [10, 100, 1_000, 10_000] {
        rows.push(measure(policies)?);
    }
    if std::env::args().any(|a| a == "--json") {
        let rows = rows.iter().map(|r| {
            json!({"policies": r.policies, "load_ms": r.load_ms, "candidates": r.candidates, "slice_ns": r.slice_ns,
                "decision_ns": r.decision_ns, "remembered_ns": r.remembered_ns})
        });
        println!("{}", json!({ "rows": rows.collect::<Vec<_>>() }));
        return Ok(());
    }
    println!("policies  load ms  candidates  slice ns  decision ns  remembered ns");
    for r in &rows {
        println!(
            "{:>8}  {:>7.0}  {:>10}  {:>8.0}  {:>11.0}  {:>13.0}",
            r.policies, r.load_ms, r.candidates, r.slice_ns, r.decision_ns, r.remembered_ns
        );
    }
    if let (Some(first), Some(last)) = (rows.first(), rows.last()) {
        println!(
            "{} policies cost {:.2} times what {} cost",
            last.policies,
            last.decision_ns / first.decision_ns,
            first.policies
        );
    }
    Ok(())
}

fn measure(policies: usize) -> Result<Row, Box<dyn std::error::Error>> {
    let started = Instant::now();
    let timed = load(policies, TIMED)?;
    let load_ms = started.elapsed().as_secs_f64() * 1e3;
    let untimed = load(policies, "")?;
    let (principal, call) = (principal(), call()?);
    let facts = Map::new();
    let input = Input {
        principal: &principal,
        call: &call,
        trust: SourceTrust::SemiTrustedCustomer,
        facts: &facts,
        now: Timestamp(1_704_110_400_000),
        route: "code",
        identity: "bearer",
        approval_groups: &[],
        contains_sensitive_data: None,
        door: "route",
    };
    let decide = |engine: &PolicyEngine| engine.evaluate(&engine.slice(&principal, &call), &input);
    let answer = decide(&timed);
    if answer.decision != Decision::Allow {
        return Err(format!("the question should be allowed: {}", answer.message).into());
    }
    Ok(Row {
        policies: timed.len(),
        load_ms,
        candidates: timed.slice(&principal, &call).len(),
        slice_ns: best(|| {
            black_box(timed.slice(&principal, &call));
        }),
        decision_ns: best(|| {
            black_box(decide(&timed));
        }),
        remembered_ns: best(|| {
            black_box(decide(&untimed));
        }),
    })
}

fn best(mut work: impl FnMut()) -> f64 {
    let mut best = f64::INFINITY;
    for _ in 0..ROUNDS {
        let started = Instant::now();
        let mut done = 0_u32;
        while started.elapsed() < ROUND {
            for _ in 0..16 {
                work();
            }
            done += 16;
        }
        best = best.min(started.elapsed().as_nanos() as f64 / f64::from(done));
    }
    best
}

fn load(policies: usize, extra: &str) -> Result<PolicyEngine, String> {
    let mut text = format!("{COMMON}{extra}");
    let fixed = text.matches("@id").count();
    for n in 0..policies.saturating_sub(fixed) {
        let head = match n % 4 {
            0 => format!(
                r#"principal in Team::"t{}", action in Action::"write", resource in Code::Repository::"octo/r{n}""#,
                n % 97
            ),
            1 => format!(r#"principal == Agent::"agt_{n}", action in Action::"delete", resource"#),
            2 => format!(r#"principal in Team::"t{}", action == Action::"code.a{}", resource"#, n % 89, n % 300),
            _ => format!(
                r#"principal in Team::"t{n}", action in Action::"read", resource in Code::Organization::"octo""#
            ),
        };
        let _ = writeln!(text, r#"@id("p{n}") permit ({head}) when {{ context.source_trust != "unknown" }};"#);
    }
    let source = PolicySource { file: "bench.cedar".into(), text };
    let (engine, _) = PolicyEngine::load(&[source], &[], &entries(), &[])
        .map_err(|problems| problems.iter().map(|p| format!("{p}\n")).collect::<String>())?;
    Ok(engine)
}

fn entries() -> Vec<Arc<Entry>> {
    let names = (0..300).map(|n| format!("a{n}")).chain(["update".to_owned()]);
    names.map(|name| Arc::new(entry(name))).collect()
}

fn entry(name: String) -> Entry {
    Entry {
        tool: "code".into(),
        operation: name.clone(),
        summary: name.clone(),
        wire: String::new(),
        name,
        class: AccessClass::Write,
        risk: Risk::Medium,
        mutates_state: true,
        resource: Some("{owner}/{repo}".into()),
        resource_types: vec!["Code::Repository".into(), "Code::Organization".into()],
        parameters: BTreeMap::from([("title".to_owned(), Parameter { ty: ParamType::String, required: true })]),
        facts: BTreeMap::new(),
    }
}

fn call() -> Result<Call, Box<dyn std::error::Error>> {
    let call: ToolCall = serde_json::from_value(json!({"tool": "code", "action": "update", "resource": "octo/r0",
        "mutates_state": true, "parameters": {"title": "a title"}}))?;
    let entity = |ty: &str, id: &str| EntityRef { ty: ty.into(), id: id.into() };
    Ok(Call {
        action: Action::new(call)?,
        entry: Arc::new(entry("update".into())),
        class: AccessClass::Write,
        resource: vec![entity("Code::Repository", "octo/r0"), entity("Code::Organization", "octo")],
        sending: BTreeMap::new(),
    })
}

fn principal() -> Principal {
    Principal {
        agent_id: "agt_0".into(),
        team: "t0".into(),
        owner: "o@example.com".into(),
        environment: "production".into(),
        risk_tier: "low".into(),
        framework: None,
        binding: "bearer".into(),
        version: 1,
    }
}
