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
use aegis_broker::policy::{Decision, Evaluation, Input, PolicyEngine, PolicySource, Principal};
use aegis_connectors::{Call, EntityRef, Entry, ParamType, Parameter};
use serde_json::{Map, json};

/// Each figure is the best of this many rounds: the least disturbed one.
const ROUNDS: usize = 15;
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

/// One house with its figures so far.
struct House {
    policies: usize,
    load_ms: f64,
    candidates: usize,
    timed: PolicyEngine,
    untimed: PolicyEngine,
    slice_ns: f64,
    decision_ns: f64,
    remembered_ns: f64,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (principal, call, facts) = (principal(), call()?, Map::new());
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
    let mut houses = Vec::new();
    for policies in [10, 100, 1_000, 10_000] {
        houses.push(build(policies, &input)?);
    }
    // Sizes take turns: whatever else the machine does meanwhile hits all of them alike,
    // and is not mistaken for the cost of more policies.
    for _ in 0..ROUNDS {
        for house in &mut houses {
            house.round(&input);
        }
    }
    report(&houses);
    Ok(())
}

fn build(policies: usize, input: &Input<'_>) -> Result<House, Box<dyn std::error::Error>> {
    let started = Instant::now();
    let timed = load(policies, TIMED)?;
    let load_ms = started.elapsed().as_secs_f64() * 1e3;
    let untimed = load(policies, "")?;
    let answer = decide(&timed, input);
    if answer.decision != Decision::Allow {
        return Err(format!("the question should be allowed: {}", answer.message).into());
    }
    let candidates = timed.slice(input.principal, input.call).len();
    let none = f64::INFINITY;
    let policies = timed.len();
    Ok(House { policies, load_ms, candidates, timed, untimed, slice_ns: none, decision_ns: none, remembered_ns: none })
}

impl House {
    fn round(&mut self, input: &Input<'_>) {
        let slice = once(|| {
            black_box(self.timed.slice(input.principal, input.call));
        });
        let decision = once(|| {
            black_box(decide(&self.timed, input));
        });
        let remembered = once(|| {
            black_box(decide(&self.untimed, input));
        });
        self.slice_ns = self.slice_ns.min(slice);
        self.decision_ns = self.decision_ns.min(decision);
        self.remembered_ns = self.remembered_ns.min(remembered);
    }
}

fn decide(engine: &PolicyEngine, input: &Input<'_>) -> Evaluation {
    engine.evaluate(&engine.slice(input.principal, input.call), input)
}

/// Nanoseconds a call, over one round.
fn once(mut work: impl FnMut()) -> f64 {
    let started = Instant::now();
    let mut done = 0_u32;
    while started.elapsed() < ROUND {
        for _ in 0..16 {
            work();
        }
        done += 16;
    }
    started.elapsed().as_nanos() as f64 / f64::from(done)
}

fn report(houses: &[House]) {
    let ratio = match (houses.first(), houses.last()) {
        (Some(first), Some(last)) => last.decision_ns / first.decision_ns,
        _ => f64::NAN,
    };
    let profile = if cfg!(debug_assertions) { "dev" } else { "release" };
    if std::env::args().any(|a| a == "--json") {
        let rows = houses.iter().map(|r| {
            json!({"policies": r.policies, "load_ms": r.load_ms, "candidates": r.candidates, "slice_ns": r.slice_ns,
                "decision_ns": r.decision_ns, "remembered_ns": r.remembered_ns})
        });
        println!("{}", json!({ "profile": profile, "rows": rows.collect::<Vec<_>>(), "ratio": ratio }));
        return;
    }
    println!("policies  load ms  candidates  slice ns  decision ns  remembered ns");
    for r in houses {
        println!(
            "{:>8}  {:>7.0}  {:>10}  {:>8.0}  {:>11.0}  {:>13.0}",
            r.policies, r.load_ms, r.candidates, r.slice_ns, r.decision_ns, r.remembered_ns
        );
    }
    println!("{profile} profile: the largest costs {ratio:.2} times the smallest");
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
        aliases: BTreeMap::new(),
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
