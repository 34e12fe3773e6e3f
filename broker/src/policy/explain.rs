//! Why a decision is what it is, and what would have to be true for another: `aegis why`.

use aegis_connectors::Call;
use cedar_policy::{Decision as Answer, Policy, PolicySet, pst};
use serde::Serialize;
use serde_json::Value;

use super::{
    context::{amount, hour_and_weekday},
    engine::{Loaded, PolicyEngine, Slice},
    reads::Reads,
    scope::Subject,
    text::ClauseText,
    types::{Decision, Evaluation, Input, PolicyEffect, Reason},
};

/// Permits that nearly apply are listed up to this many.
const NEAREST: usize = 3;
/// Values in explanations are cut after this many characters.
const MAX_VALUE: usize = 80;

/// A decision in words.
#[derive(Debug, Clone, Serialize)]
pub struct Explanation {
    /// The decision that is explained.
    pub evaluation: Evaluation,
    /// The policies that decided, and why each applies.
    pub policies: Vec<PolicyNote>,
    /// What would have to be true, one sentence each; empty for an allow.
    pub would_have_to_be_true: Vec<String>,
    /// Groups whose approval would help, in name order.
    pub ask: Vec<String>,
}

/// A policy in an explanation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PolicyNote {
    /// `@id`.
    pub id: String,
    /// File it is in.
    pub file: String,
    /// Line it starts on.
    pub line: u32,
    /// Permit or forbid.
    pub effect: PolicyEffect,
    /// `@reason` or `@description`.
    pub description: String,
    /// Its conditions that hold, with the values they hold for.
    pub because: Vec<String>,
}

impl PolicyEngine {
    /// Decides once more and says why. `slice` and `input` as for [`PolicyEngine::evaluate`].
    pub fn explain(&self, slice: &Slice, input: &Input<'_>) -> Explanation {
        let evaluation = self.evaluate(slice, input);
        let decided = evaluation.policies.iter().filter_map(|id| slice.member(id));
        let policies = decided.clone().map(|p| self.note(p, input)).collect();
        let mut needs: Vec<String> = Vec::new();
        let mut ask: Vec<String> = Vec::new();
        match (&evaluation.decision, evaluation.reason) {
            (Decision::Allow, _) => {}
            (Decision::RequireApproval { groups, quorum }, _) => {
                ask.clone_from(groups);
                let people = if *quorum == 1 { "one person".to_owned() } else { format!("{quorum} people") };
                needs.extend(groups.iter().map(|g| format!("{people} of `{g}` would have to approve")));
            }
            (Decision::Deny, Reason::NoPermit) => needs = self.nearest_permits(slice, input),
            (Decision::Deny, Reason::PolicyError | Reason::FactUnavailable) => {
                needs.extend(
                    evaluation.errors.iter().map(|e| format!("the policies would have to be able to judge: {e}")),
                );
            }
            (Decision::Deny, _) => needs.extend(decided.map(|p| self.lifted(p, input))),
        }
        Explanation { evaluation, policies, would_have_to_be_true: needs, ask }
    }

    fn note(&self, policy: &Loaded, input: &Input<'_>) -> PolicyNote {
        let parts = policy.clauses.iter().flat_map(|c| c.parts.iter().map(move |part| (c, part)));
        let because = parts.map(|(clause, part)| {
            let values = values(part, input);
            if clause.when { format!("`{part}` holds{values}") } else { format!("`{part}` does not hold{values}") }
        });
        let mut because: Vec<String> = because.collect();
        if because.is_empty() {
            because.push("it has no conditions".into());
        }
        let info = &policy.info;
        PolicyNote {
            id: info.id.clone(),
            file: info.file.clone(),
            line: info.line,
            effect: info.effect,
            description: info.words(),
            because,
        }
    }

    /// How a forbid that applies would not.
    fn lifted(&self, policy: &Loaded, input: &Input<'_>) -> String {
        let place = place(policy);
        if let Some(gate) = &policy.gate {
            return format!("{place} would be lifted by an approval of `{}`, but another policy stands", gate.group);
        }
        let ways: Vec<String> = policy.clauses.iter().map(|c| opposite(c, input)).collect();
        if ways.is_empty() {
            return format!("{place} forbids this whatever the conditions");
        }
        format!("{place} would not apply if {}", ways.join(", or "))
    }

    /// Permits whose head covers the request and whose conditions do not hold; failing
    /// that, permits for the action that are for other agents or resources.
    fn nearest_permits(&self, slice: &Slice, input: &Input<'_>) -> Vec<String> {
        let permits = slice.members.iter().filter(|p| p.info.effect == PolicyEffect::Permit);
        let mut found: Vec<String> = permits.map(|p| self.unmet(p, input)).collect();
        if found.is_empty() {
            let subject = Subject::new(input.principal, input.call);
            let mut near: Vec<(usize, &Loaded)> = self
                .policies
                .iter()
                .filter(|p| p.info.effect == PolicyEffect::Permit && p.scope.actions.cover(&subject))
                .map(|p| (misses(p, &subject).len(), &**p))
                .collect();
            near.sort_by_key(|(misses, _)| *misses);
            found = near.iter().map(|(_, p)| format!("{} {}", place(p), misses(p, &subject).join(" and "))).collect();
        }
        found.truncate(NEAREST);
        if found.is_empty() {
            found.push(format!("no permit is about `{}` at all: one would have to be written", name(input.call)));
        }
        found
    }

    /// The conditions of a permit that do not hold.
    fn unmet(&self, policy: &Loaded, input: &Input<'_>) -> String {
        let place = place(policy);
        for clause in &policy.clauses {
            if clause.when {
                // The first that fails: what follows it may only make sense if it holds.
                if let Some(part) = clause.parts.iter().find(|part| self.holds(part, input) != Some(true)) {
                    return format!("{place} would apply if `{part}` held{}", values(part, input));
                }
            } else if clause.parts.iter().all(|part| self.holds(part, input) != Some(false)) {
                let whole = clause.parts.join(" && ");
                return format!("{place} would apply if `{whole}` did not hold{}", values(&whole, input));
            }
        }
        format!("{place} covers this")
    }

    /// Whether one condition holds; `None` where it cannot be evaluated.
    fn holds(&self, condition: &str, input: &Input<'_>) -> Option<bool> {
        let policy = alone(condition)?;
        let reads = reads(&policy)?;
        let set = PolicySet::from_policies([policy]).ok()?;
        let granted: Vec<&str> = input.approval_groups.iter().map(String::as_str).collect();
        self.ask(&set, input, &reads, &granted).ok().map(|(answer, _)| answer == Answer::Allow)
    }
}

/// What keeps a permit's head from covering the request.
fn misses(policy: &Loaded, subject: &Subject<'_>) -> Vec<String> {
    let mut out = Vec::new();
    if !policy.scope.covers_principal(subject.agent, subject.team) {
        out.push(format!("is for `{}`", policy.scope.principal.words("principal")));
    }
    if !policy.scope.covers_resource(subject) {
        out.push(format!("is for `{}`", policy.scope.resource.words("resource")));
    }
    out
}

fn opposite(clause: &ClauseText, input: &Input<'_>) -> String {
    let whole = clause.parts.join(" && ");
    let verb = if clause.when { "did not hold" } else { "held" };
    format!("`{whole}` {verb}{}", values(&whole, input))
}

fn place(policy: &Loaded) -> String {
    let word = match policy.info.effect {
        PolicyEffect::Permit => "permit",
        PolicyEffect::Forbid => "forbid",
    };
    format!("{word} `{}` ({}:{})", policy.info.id, policy.info.file, policy.info.line)
}

/// A condition as a policy of its own.
fn alone(condition: &str) -> Option<Policy> {
    Policy::parse(None, format!("permit (principal, action, resource) when {{ {condition} }};")).ok()
}

fn reads(policy: &Policy) -> Option<Reads> {
    match policy.to_pst() {
        Ok(pst::Policy::Static(fixed)) => Some(Reads::of(fixed.body(), None)),
        _ => None,
    }
}

/// " (`source_trust` is `unknown`)" for what a condition reads.
fn values(condition: &str, input: &Input<'_>) -> String {
    let Some(reads) = alone(condition).as_ref().and_then(reads) else { return String::new() };
    let mut said: Vec<String> = Vec::new();
    let mut say = |name: &str, value: Option<String>| match value {
        Some(value) => said.push(format!("`{name}` is `{}`", value.chars().take(MAX_VALUE).collect::<String>())),
        None => said.push(format!("`{name}` is absent")),
    };
    for name in &reads.context {
        say(name, member(name, input));
    }
    for name in &reads.parameters {
        say(name, input.call.action.parameters().get(name).and_then(shown));
    }
    for name in &reads.facts {
        say(name, input.facts.get(name).and_then(shown));
    }
    let who = input.principal;
    for name in &reads.principal {
        let value = match name.as_str() {
            "owner" => Some(&who.owner),
            "environment" => Some(&who.environment),
            "risk_tier" => Some(&who.risk_tier),
            "framework" => who.framework.as_ref(),
            "binding" => Some(&who.binding),
            _ => continue,
        };
        say(name, value.cloned());
    }
    if said.is_empty() { String::new() } else { format!(" ({})", said.join(", ")) }
}

fn member(name: &str, input: &Input<'_>) -> Option<String> {
    match name {
        "source_trust" => Some(input.trust.as_str().to_owned()),
        "route" => Some(input.route.to_owned()),
        "door" => Some(input.door.to_owned()),
        "identity" => Some(input.identity.to_owned()),
        "contains_sensitive_data" => input.contains_sensitive_data.map(|b| b.to_string()),
        "amount" => amount(input).and_then(shown),
        "time" => {
            let (hour, weekday) = hour_and_weekday(input.now);
            Some(format!("hour {hour} of weekday {weekday}, UTC"))
        }
        _ => None,
    }
}

fn shown(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    }
}

fn name(call: &Call) -> String {
    call.action.qualified_name()
}
