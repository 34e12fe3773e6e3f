//! One decision. Doubt denies: Cedar skips a policy that errs, so any error is a deny here.

use cedar_policy::{Decision as Answer, PolicySet, Request, Response};

use super::{
    context::{check_facts, check_parameters, context, missing_fact},
    engine::{Gate, Loaded, PolicyEngine, Slice},
    entities::Cast,
    reads::Reads,
    types::{Decision, Evaluation, Input, Reason},
};

impl PolicyEngine {
    /// Decides. `slice` is this engine's own for the same principal and call.
    pub fn evaluate(&self, slice: &Slice, input: &Input<'_>) -> Evaluation {
        // On every call, remembered or not: a memo key holds only what policies read.
        if let Err(error) = check_parameters(input) {
            return Evaluation::error(error);
        }
        if slice.is_empty() {
            return Evaluation::no_permit(input);
        }
        self.memo.recall(slice, input, || self.decide(slice, input))
    }

    fn decide(&self, slice: &Slice, input: &Input<'_>) -> Evaluation {
        if !slice.is_complete() {
            return Evaluation::error("the policies of this request do not fit together".into());
        }
        if let Some(name) = missing_fact(input, slice.facts()) {
            return Evaluation::no_fact(name);
        }
        if let Err(error) = check_facts(input, slice.facts()) {
            return Evaluation::error(error);
        }
        let mut granted: Vec<&str> = input.approval_groups.iter().map(String::as_str).collect();
        let asked = self.ask(&slice.set, input, &slice.reads, &granted);
        let (answer, ids) = match asked {
            Ok(found) => found,
            Err(errors) => return Evaluation::errors(errors),
        };
        if answer == Answer::Allow {
            return Evaluation::allowed(slice, ids);
        }
        if ids.is_empty() {
            return Evaluation::no_permit(input);
        }
        let Some(gates) = gates(slice, &ids) else { return Evaluation::forbidden(slice, ids) };
        granted.extend(gates.iter().map(|g| g.group.as_str()));
        // Once more with the approvals: only if everything else allows is there anything to ask for.
        match self.ask(&slice.set, input, &slice.reads, &granted) {
            Ok((Answer::Allow, _)) => Evaluation::approval(slice, ids, &gates),
            Ok((Answer::Deny, others)) if others.is_empty() => Evaluation::no_permit(input),
            Ok((Answer::Deny, _)) => Evaluation::forbidden(slice, ids),
            Err(errors) => Evaluation::errors(errors),
        }
    }

    /// Cedar's answer with the determining ids in name order, or every error.
    pub(super) fn ask(
        &self,
        set: &PolicySet,
        input: &Input<'_>,
        reads: &Reads,
        granted: &[&str],
    ) -> Result<(Answer, Vec<String>), Vec<String>> {
        let one = |error: String| vec![error];
        let cast = self.types.cast(input, reads).map_err(one)?;
        let Cast { principal, action, resource, entities } = &*cast;
        let context = context(input, reads, granted).map_err(one)?;
        let request = Request::new(principal.clone(), action.clone(), resource.clone(), context, None)
            .map_err(|e| vec![e.to_string()])?;
        let response: Response = self.authorizer.is_authorized(&request, set, entities);
        let errors: Vec<String> = response.diagnostics().errors().map(ToString::to_string).collect();
        if !errors.is_empty() {
            return Err(errors);
        }
        let mut ids: Vec<String> = response.diagnostics().reason().map(ToString::to_string).collect();
        ids.sort_unstable();
        Ok((response.decision(), ids))
    }
}

/// The approvals that would lift every one of the determining forbids; `None` if one of
/// them cannot be lifted.
fn gates<'s>(slice: &'s Slice, ids: &[String]) -> Option<Vec<&'s Gate>> {
    ids.iter().map(|id| slice.member(id)?.gate.as_ref()).collect()
}

impl Evaluation {
    fn allowed(slice: &Slice, policies: Vec<String>) -> Self {
        let message = format!("allowed: {}", words(slice, &policies));
        Self { decision: Decision::Allow, policies, reason: Reason::Allowed, message, errors: Vec::new() }
    }

    fn forbidden(slice: &Slice, policies: Vec<String>) -> Self {
        let message = format!("forbidden: {}", words(slice, &policies));
        Self { decision: Decision::Deny, policies, reason: Reason::Forbidden, message, errors: Vec::new() }
    }

    fn approval(slice: &Slice, policies: Vec<String>, gates: &[&Gate]) -> Self {
        let mut groups: Vec<String> = gates.iter().map(|g| g.group.clone()).collect();
        groups.sort_unstable();
        groups.dedup();
        let quorum = gates.iter().map(|g| g.quorum).max().unwrap_or(1);
        let people = groups.iter().map(|g| format!("`{g}`")).collect::<Vec<_>>().join(" and ");
        let message = format!("needs the approval of {people}: {}", words(slice, &policies));
        let decision = Decision::RequireApproval { groups, quorum };
        Self { decision, policies, reason: Reason::Approval, message, errors: Vec::new() }
    }

    fn no_permit(input: &Input<'_>) -> Self {
        let message = format!("no policy permits `{}` here", input.call.action.qualified_name());
        let reason = Reason::NoPermit;
        Self { decision: Decision::Deny, policies: Vec::new(), reason, message, errors: Vec::new() }
    }

    fn error(error: String) -> Self {
        let message = format!("the policies cannot judge this: {error}");
        let reason = Reason::PolicyError;
        Self { decision: Decision::Deny, policies: Vec::new(), reason, message, errors: vec![error] }
    }

    fn no_fact(name: &str) -> Self {
        let message = format!("a policy needs the fact `{name}`, which could not be had");
        let reason = Reason::FactUnavailable;
        let errors = vec![message.clone()];
        Self { decision: Decision::Deny, policies: Vec::new(), reason, message, errors }
    }

    /// Cedar's own words may quote values, so they are for the log only.
    fn errors(errors: Vec<String>) -> Self {
        let message = "a policy could not be evaluated on this request".to_owned();
        let reason = Reason::PolicyError;
        Self { decision: Decision::Deny, policies: Vec::new(), reason, message, errors }
    }
}

fn words(slice: &Slice, ids: &[String]) -> String {
    let said = |id: &String| slice.member(id).map_or_else(|| format!("policy `{id}`"), |m: &Loaded| m.info.words());
    ids.iter().map(said).collect::<Vec<_>>().join("; ")
}
