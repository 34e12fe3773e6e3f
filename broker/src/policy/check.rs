//! Whether everything that a policy names exists.
//!
//! Cedar's validator would pass over some of it: a forbid on `context.parameters has
//! merge_methd` is valid and never applies. So names are checked first, and on their own.

use std::sync::Arc;

use aegis_action::SourceTrust;
use aegis_connectors::{Entry, ParamType};

use super::{
    load::{Draft, Load, find, place},
    schema::{AGENT_ATTRIBUTES, CONTEXT_MEMBERS, TIME_MEMBERS, readable},
    scope::{ACTION, Actions, Uid},
    suggest::did_you_mean,
    types::{PolicyEffect, Warning},
};

/// Annotations with a meaning.
const ANNOTATIONS: [&str; 5] = ["id", "description", "reason", "require_approval", "quorum"];
/// `context.route` of an SDK call of a declared tool, which no route leads to.
const NO_ROUTE: &str = "sdk";

impl Load<'_> {
    /// Every name in head, conditions and annotations.
    pub fn check(&mut self, draft: &Draft<'_>) {
        self.check_actions(draft);
        self.check_annotations(draft);
        self.check_records(draft);
        self.check_members(draft);
        self.check_labels(draft);
    }

    fn check_actions(&mut self, draft: &Draft<'_>) {
        let scope = &draft.loaded.scope;
        for named in scope.actions.uids() {
            self.check_action(draft, named);
            if matches!(scope.actions, Actions::Eq(_)) && self.vocabulary.is_group(&named.id) {
                let help = format!("write `action in {named}`");
                self.problem(draft, find(draft, &named.id), format!("`{}` is a group of actions", named.id), &help);
            }
        }
        for name in &draft.loaded.reads.actions {
            self.check_action(draft, &Uid { ty: ACTION.into(), id: name.clone() });
        }
    }

    /// A forbid on a misspelt name would forbid nothing.
    fn check_action(&mut self, draft: &Draft<'_>, named: &Uid) {
        let at = find(draft, &named.id);
        if named.ty != ACTION {
            let help = format!("write `{ACTION}::\"{}\"`", named.id);
            return self.problem(draft, at, format!("`{}` is not a type of actions", named.ty), &help);
        }
        if self.vocabulary.entry(&named.id).is_none() && !self.vocabulary.is_group(&named.id) {
            let help = did_you_mean(&named.id, self.vocabulary.names())
                .unwrap_or_else(|| "`aegis actions search` finds names by words".into());
            self.problem(draft, at, format!("no action or group is named `{}`", named.id), &help);
        }
    }

    fn check_annotations(&mut self, draft: &Draft<'_>) {
        let loaded = &draft.loaded;
        for name in loaded.info.annotations.keys().filter(|name| !ANNOTATIONS.contains(&name.as_str())) {
            let help = did_you_mean(name, ANNOTATIONS);
            self.warnings.push(Warning(place(draft, 0, format!("`@{name}` has no meaning here"), help)));
        }
        if loaded.gate.is_none() && loaded.reads.approval && loaded.info.effect == PolicyEffect::Forbid {
            let help = "add `@require_approval(\"group\")`, or nobody is ever asked";
            let message = "an approval lifts this forbid, but nothing says whose".to_owned();
            self.warnings.push(Warning(place(draft, find(draft, "approval"), message, Some(help.into()))));
        }
    }

    /// What cannot be read at all.
    fn check_records(&mut self, draft: &Draft<'_>) {
        let reads = &draft.loaded.reads;
        if let Some(whole) = reads.whole {
            let message = format!("`{whole}` cannot be read as a whole");
            self.problem(draft, 0, message, &format!("name the member that matters, e.g. `{whole}.name`"));
        }
        if let (true, Some(member)) = (self.on_group(draft), reads.needs_named_action()) {
            let message = format!("a policy on a group of actions cannot read `context.{member}`");
            let help = "name the actions: `action in [Action::\"github.merge_pull_request\", …]`";
            self.problem(draft, find(draft, member), message, help);
        }
    }

    /// Members of `context`, `parameters`, `facts` and the agent. Of several actions, one
    /// that has the member is enough: the policy can ask with `has`.
    fn check_members(&mut self, draft: &Draft<'_>) {
        for name in &draft.loaded.reads.principal {
            self.check_member(draft, name, "the agent", &AGENT_ATTRIBUTES);
        }
        let entries: Vec<_> = {
            let uids = draft.loaded.scope.actions.uids().iter();
            uids.filter_map(|u| self.vocabulary.entry(&u.id).cloned()).collect()
        };
        for path in &draft.loaded.reads.paths {
            match path.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
                ["parameters" | "facts", ..] if self.on_group(draft) => {}
                ["parameters", name, below @ ..] => {
                    let types = entries.iter().filter_map(|e| e.parameters.get(*name)).map(|p| &p.ty);
                    let known = entries.iter().flat_map(|e| e.parameters.keys().map(String::as_str));
                    let known: Vec<&str> = known.collect();
                    self.check_member(draft, name, &format!("the parameters of {}", named(&entries)), &known);
                    self.check_below(draft, name, types.collect(), below);
                }
                ["facts", name, ..] => {
                    let known: Vec<&str> = entries.iter().flat_map(|e| e.facts.keys().map(String::as_str)).collect();
                    self.check_member(draft, name, &format!("the facts of {}", named(&entries)), &known);
                }
                ["time", name, ..] => self.check_member(draft, name, "`context.time`", &TIME_MEMBERS),
                ["approval", name, ..] => self.check_member(draft, name, "`context.approval`", &["groups"]),
                [name, ..] => self.check_member(draft, name, "`context`", &CONTEXT_MEMBERS),
                [] => {}
            }
        }
    }

    /// A member of a member: the types are those that the named actions give it.
    fn check_below(&mut self, draft: &Draft<'_>, name: &str, types: Vec<&ParamType>, below: &[&str]) {
        if !types.is_empty() && types.iter().all(|ty| !readable(ty)) {
            let help = "it is covered by the action's hash, and an approver sees it";
            let message = format!("the parameter `{name}` has no type that policies can read");
            return self.problem(draft, find(draft, name), message, help);
        }
        let [next, deeper @ ..] = below else { return };
        let records: Vec<_> = types
            .iter()
            .filter_map(|ty| if let ParamType::Record(members) = ty { Some(members) } else { None })
            .collect();
        // Anything else below a scalar or list is a type error, which is Cedar's to report.
        if !records.is_empty() {
            let known: Vec<&str> = records.iter().flat_map(|m| m.keys().map(String::as_str)).collect();
            self.check_member(draft, next, &format!("the parameter `{name}`"), &known);
            let types = records.iter().filter_map(|m| m.get(*next)).map(|p| &p.ty).collect();
            self.check_below(draft, next, types, deeper);
        }
    }

    fn check_member(&mut self, draft: &Draft<'_>, name: &str, of: &str, known: &[&str]) {
        if !known.contains(&name) {
            let help = did_you_mean(name, known.iter().copied()).unwrap_or_else(|| match known {
                [] => "there are none".into(),
                known => format!("there are {}", known.join(", ")),
            });
            self.problem(draft, find(draft, name), format!("no member of {of} is named `{name}`"), &help);
        }
    }

    /// Words that a label is compared with must be words it can be.
    fn check_labels(&mut self, draft: &Draft<'_>) {
        for (member, label) in &draft.loaded.reads.labels {
            let known: Vec<&str> = match member.as_str() {
                "source_trust" => SourceTrust::ALL.iter().map(|t| t.as_str()).collect(),
                "route" => self.routes.iter().map(String::as_str).chain([NO_ROUTE]).collect(),
                _ => continue,
            };
            if !known.contains(&label.as_str()) {
                let help = did_you_mean(label, known.iter().copied())
                    .unwrap_or_else(|| format!("it can be {}", known.join(", ")));
                self.problem(draft, find(draft, label), format!("`context.{member}` is never `{label}`"), &help);
            }
        }
    }

    fn on_group(&self, draft: &Draft<'_>) -> bool {
        match &draft.loaded.scope.actions {
            Actions::Any => true,
            some => some.uids().iter().any(|u| self.vocabulary.is_group(&u.id)),
        }
    }
}

fn named(entries: &[Arc<Entry>]) -> String {
    entries.iter().map(|e| format!("`{}.{}`", e.tool, e.name)).collect::<Vec<_>>().join(", ")
}
