//! What a policy looks at, found without running it: which facts must be fetched, which
//! values decide, and whether a decision may be remembered.

use std::collections::BTreeSet;

use cedar_policy::pst::{BinaryOp, Clause, Expr, Literal, Template, Var};

use super::{
    scope::{ACTION, uid},
    types::MemoKind,
};

/// Everything that a policy's conditions read. Heads read only the request's entities.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reads {
    /// Members of `context` other than the ones below, e.g. `source_trust`.
    pub context: BTreeSet<String>,
    /// Members of `context.parameters`.
    pub parameters: BTreeSet<String>,
    /// `context.parameters` as a value.
    pub all_parameters: bool,
    /// Members of `context.facts`.
    pub facts: BTreeSet<String>,
    /// `context` or `context.facts` as a value: cannot be provided, refused at load.
    pub whole: Option<&'static str>,
    /// Attributes of the agent.
    pub principal: BTreeSet<String>,
    /// Approvals, outside the gate of `@require_approval`.
    pub approval: bool,
    /// Actions and groups named in conditions.
    pub actions: BTreeSet<String>,
    /// Every place below `context` that is read, in full.
    pub paths: BTreeSet<Vec<String>>,
    /// String literals that a member of `context` is compared with: member and literal.
    pub labels: BTreeSet<(String, String)>,
}

impl Reads {
    /// What a policy reads. `gate` is the group of its `@require_approval`, whose
    /// `unless` is part of the machinery and not counted.
    pub fn of(body: &Template, gate: Option<&str>) -> Self {
        let mut reads = Self::default();
        for clause in body.clauses() {
            if gate.is_some_and(|group| is_gate(clause, group)) {
                continue;
            }
            let (Clause::When(expr) | Clause::Unless(expr)) = clause;
            reads.walk(expr);
        }
        reads
    }

    /// Adds another policy's reads.
    pub fn merge(&mut self, other: &Self) {
        self.context.extend(other.context.iter().cloned());
        self.parameters.extend(other.parameters.iter().cloned());
        self.facts.extend(other.facts.iter().cloned());
        self.principal.extend(other.principal.iter().cloned());
        self.all_parameters |= other.all_parameters;
        self.approval |= other.approval;
        self.whole = self.whole.or(other.whole);
    }

    /// Whether decisions over these reads may be remembered.
    pub fn memo(&self) -> MemoKind {
        if self.whole.is_some() || self.all_parameters {
            MemoKind::WholeRecord
        } else if self.context.contains("time") {
            MemoKind::Time
        } else if !self.facts.is_empty() {
            MemoKind::Facts
        } else if self.approval {
            MemoKind::Approval
        } else {
            MemoKind::Keyed
        }
    }

    /// Whether anything is read that only a named action has.
    pub fn needs_named_action(&self) -> Option<&'static str> {
        match (self.all_parameters || !self.parameters.is_empty(), !self.facts.is_empty()) {
            (true, _) => Some("parameters"),
            (false, true) => Some("facts"),
            (false, false) => None,
        }
    }

    fn walk(&mut self, expr: &Expr) {
        if let Some((var, path)) = path_of(expr) {
            return self.read(var, &path);
        }
        self.note_labels(expr);
        match expr {
            Expr::Literal(Literal::EntityUID(entity)) => {
                let named = uid(entity);
                if named.ty == ACTION {
                    self.actions.insert(named.id);
                }
            }
            Expr::UnaryOp { expr, .. }
            | Expr::Like { expr, .. }
            | Expr::GetAttr { expr, .. }
            | Expr::HasAttr { expr, .. } => self.walk(expr),
            Expr::BinaryOp { left, right, .. } => {
                self.walk(left);
                self.walk(right);
            }
            Expr::Is { expr, in_expr, .. } => {
                self.walk(expr);
                in_expr.iter().for_each(|e| self.walk(e));
            }
            Expr::IfThenElse { cond, then_expr, else_expr } => {
                self.walk(cond);
                self.walk(then_expr);
                self.walk(else_expr);
            }
            Expr::Set(items) => items.iter().for_each(|e| self.walk(e)),
            Expr::Record(members) => members.values().for_each(|e| self.walk(e)),
            Expr::Literal(_) | Expr::Slot(_) | Expr::Unknown { .. } | Expr::Var(_) => {}
            // The enum may grow: what is not understood may read anything.
            _ => self.whole = Some("context"),
        }
    }

    fn read(&mut self, var: &Var, path: &[&str]) {
        if *var == Var::Context {
            self.paths.insert(path.iter().map(|p| (*p).to_owned()).collect());
        }
        match (var, path) {
            (Var::Context, []) => self.whole = Some("context"),
            (Var::Context, ["parameters"]) => self.all_parameters = true,
            (Var::Context, ["parameters", name, ..]) => {
                self.parameters.insert((*name).to_owned());
            }
            (Var::Context, ["facts"]) => self.whole = Some("context.facts"),
            (Var::Context, ["facts", name, ..]) => {
                self.facts.insert((*name).to_owned());
            }
            (Var::Context, ["approval", ..]) => self.approval = true,
            (Var::Context, [name, ..]) => {
                self.context.insert((*name).to_owned());
            }
            (Var::Principal, [name, ..]) => {
                self.principal.insert((*name).to_owned());
            }
            // The entities themselves are part of every key; they have no other attributes.
            (Var::Principal, []) | (Var::Action | Var::Resource, _) => {}
        }
    }

    /// `context.x == "literal"` and `["literal", …].contains(context.x)`.
    fn note_labels(&mut self, expr: &Expr) {
        let Expr::BinaryOp { op: BinaryOp::Eq | BinaryOp::NotEq | BinaryOp::Contains, left, right } = expr else {
            return;
        };
        for (place, literals) in [(left, right), (right, left)] {
            let Some((Var::Context, path)) = path_of(place) else { continue };
            let [name] = path.as_slice() else { continue };
            let listed: Vec<&Expr> = match &**literals {
                Expr::Set(items) => items.iter().map(|e| &**e).collect(),
                one => vec![one],
            };
            for literal in listed {
                if let Expr::Literal(Literal::String(text)) = literal {
                    self.labels.insert(((*name).to_owned(), text.to_string()));
                }
            }
        }
    }
}

/// Whether a clause is exactly `unless { context.approval.groups.contains("group") }`.
pub fn is_gate(clause: &Clause, group: &str) -> bool {
    let Clause::Unless(expr) = clause else { return false };
    let Expr::BinaryOp { op: BinaryOp::Contains, left, right } = &**expr else { return false };
    let reads_groups = path_of(left).is_some_and(|(var, path)| *var == Var::Context && path == ["approval", "groups"]);
    reads_groups && matches!(&**right, Expr::Literal(Literal::String(text)) if text == group)
}

/// The chain of members that an expression takes from a variable, if that is all it does.
fn path_of(expr: &Expr) -> Option<(&Var, Vec<&str>)> {
    match expr {
        Expr::Var(var) => Some((var, Vec::new())),
        Expr::GetAttr { expr, attr } => {
            let (var, mut path) = path_of(expr)?;
            path.push(attr);
            Some((var, path))
        }
        Expr::HasAttr { expr, attrs } => {
            let (var, mut path) = path_of(expr)?;
            path.extend(attrs.iter().map(|a| a.as_str()));
            Some((var, path))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use cedar_policy::{Policy, pst};

    use super::*;

    fn reads(condition: &str) -> Reads {
        let text = format!("permit (principal, action, resource) {condition};");
        let pst::Policy::Static(policy) = Policy::parse(None, text).unwrap().to_pst().unwrap() else {
            panic!("not static")
        };
        Reads::of(policy.body(), Some("leads"))
    }

    #[test]
    fn finds_every_place_that_is_read() {
        let r = reads(
            r#"when { principal has framework && principal.framework like "x*" && context.parameters.a.b == 1
               && (if context.facts.f then context.parameters has c else !(context.source_trust == "unknown"))
               && ["x"].contains(context.route) && resource in GitHub::Repository::"r" && action in Action::"write" }"#,
        );
        assert_eq!(r.principal, ["framework"].map(String::from).into());
        assert_eq!(r.parameters, ["a", "c"].map(String::from).into());
        assert_eq!(r.facts, ["f"].map(String::from).into());
        assert_eq!(r.context, ["route", "source_trust"].map(String::from).into());
        assert_eq!(r.actions, ["write"].map(String::from).into());
        let labels = [("route", "x"), ("source_trust", "unknown")].map(|(a, b)| (a.into(), b.into()));
        assert_eq!(r.labels, labels.into());
        assert!(!r.approval && r.whole.is_none());
    }

    #[test]
    fn says_what_may_be_remembered() {
        assert_eq!(reads("").memo(), MemoKind::Keyed);
        assert_eq!(reads(r#"when { context.parameters.a == 1 }"#).memo(), MemoKind::Keyed);
        assert_eq!(reads(r#"unless { context.approval.groups.contains("leads") }"#).memo(), MemoKind::Keyed);
        assert_eq!(reads(r#"unless { context.approval.groups.contains("others") }"#).memo(), MemoKind::Approval);
        assert_eq!(reads("when { context.time.hour > 8 }").memo(), MemoKind::Time);
        assert_eq!(reads("when { context.facts.f }").memo(), MemoKind::Facts);
        assert_eq!(reads("when { context.parameters == {} }").memo(), MemoKind::WholeRecord);
        assert_eq!(reads("when { (if true then context else context).x }").memo(), MemoKind::WholeRecord);
        assert_eq!(reads(r#"when { [context].contains(context) }"#).whole, Some("context"));
    }
}
