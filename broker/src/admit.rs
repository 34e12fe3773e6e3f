//! The one decision: freeze check, facts, policy, approvals, intent leaves, and only then a permit.
//!
//! Proxy and API both come here, with actions that a connector made. Nothing else makes a [`Permit`].

use std::sync::Arc;

use aegis_action::{AccessClass, Risk, SourceTrust};
use aegis_connectors::Call;
pub use aegis_receipts::Door;
use serde_json::{Map, Value};

use crate::{
    Broker,
    identity::{AuthError, Identity},
    lift::Lift,
    permit::Permit,
    policy::{Decision, Evaluation, Input, Slice},
    record::{ApprovalNote, DecisionRecord, IntentContext},
    snapshot::{Scope, Snapshot},
    store::StoreError,
};

/// What is asked: by whom, under which configuration, through which door.
#[derive(Clone, Copy)]
pub struct Ask<'a> {
    /// The authenticated agent.
    pub identity: &'a Arc<Identity>,
    /// The configuration that this request is pinned to.
    pub snapshot: &'a Arc<Snapshot>,
    /// Route and grammar.
    pub scope: &'a Arc<Scope>,
    /// At least one; decided together, all or nothing.
    pub calls: &'a [Call],
    /// How the request came in.
    pub door: Door,
    /// What the caller says of its source; it can lower trust and never raise it.
    pub declared_trust: Option<SourceTrust>,
    /// What the caller says of the content.
    pub contains_sensitive_data: Option<bool>,
    /// Ids that join this decision to a run.
    pub trace: &'a Trace,
    /// The caller's own id of the request.
    pub request_id: Option<&'a str>,
    /// Decide and record, but ask for nothing and permit nothing.
    pub dry_run: bool,
    /// Which approvals may be used.
    pub approvals: ApprovalUse<'a>,
}

/// Which approvals a decision may use up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ApprovalUse<'a> {
    /// Any that covers the action: a proxied request is sent again after the yes.
    Any,
    /// None: the SDK consumes by itself, just before it runs.
    None,
    /// This one only.
    Only(&'a str),
}

/// Ids of the run, passed on and recorded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trace {
    /// W3C trace id, 32 hex digits.
    pub trace_id: Option<String>,
    /// The run the caller names; a session's own goes before it.
    pub run_id: Option<String>,
    /// The run that started it.
    pub parent_run_id: Option<String>,
    /// A label for the person behind the call; never a principal.
    pub user: Option<String>,
}

/// The decision, on record, and the permit if it is an allow.
pub struct Verdict {
    /// What was decided and why.
    pub record: DecisionRecord,
    /// Present exactly when the decision is allow and not a dry run.
    pub permit: Option<Permit>,
}

/// Why there is no decision.
#[derive(Debug, thiserror::Error)]
pub enum AdmitError {
    /// The agent may not act (any more).
    #[error(transparent)]
    Auth(#[from] AuthError),
    /// The decision cannot be put on record, so nothing is permitted.
    #[error("decision cannot be recorded: {0}")]
    Unrecorded(String),
}

impl From<StoreError> for AdmitError {
    fn from(error: StoreError) -> Self {
        Self::Unrecorded(error.to_string())
    }
}

/// One action's judgement.
pub(crate) struct Judged {
    pub(crate) evaluation: Evaluation,
    pub(crate) facts: Map<String, Value>,
    pub(crate) version: Option<Value>,
}

impl Broker {
    /// Decides all actions of a request together.
    ///
    /// On return the intent leaves are written; they are durable if any action mutates state or
    /// the door is the SDK's. A read's permit lets the sync overlap the upstream call.
    pub async fn admit(&self, ask: Ask<'_>) -> Result<Verdict, AdmitError> {
        let now = self.env.clock.now();
        // Before facts, caches and approvals: a frozen agent learns nothing and uses nothing up.
        if let Some(refusal) = ask.identity.refusal(now) {
            return Err(refusal.into());
        }
        let trust = self.effective_trust(&ask);
        let mut judged = self.judge_all(&ask, trust, false).await;
        let mut lift = None;
        let mut asked = None;
        if all_pass_or_wait(&judged) && judged.iter().any(waits) {
            // A person is or was asked about this very state of the world: look at it anew.
            judged = self.judge_all(&ask, trust, true).await;
        }
        if all_pass_or_wait(&judged) && judged.iter().any(waits) && !ask.dry_run {
            lift = self.find_lift(&ask, trust, &mut judged).await?;
            if lift.is_none() {
                asked = self.ask_approval(&ask, trust, &judged).await?;
                if asked.is_none() {
                    judged.iter_mut().filter(|j| waits(j)).for_each(|j| j.evaluation = too_many_asked());
                }
            }
        }
        // One conditional update, before the intent leaf: a crash from here on leaves the
        // approval used and nothing sent, never the other way round.
        if let Some(Lift::Approval(found)) = &lift
            && !self.consume(&ask, found).await?
        {
            judged.iter_mut().for_each(|j| j.evaluation = lost_race());
        }
        // Frozen while facts were fetched or approvals looked up.
        if let Some(refusal) = ask.identity.refusal(self.env.clock.now()) {
            return Err(refusal.into());
        }
        self.record(ask, trust, judged, lift, asked).await
    }

    /// The least trusted of what the route says and what the caller declares.
    fn effective_trust(&self, ask: &Ask<'_>) -> SourceTrust {
        let config = &ask.snapshot.config;
        let base = match &ask.scope.route {
            Some(route) => route.default_trust,
            None if ask.scope.is_tunnel() => config.tunnel.default_trust,
            None => config.api.default_trust,
        };
        ask.declared_trust.map_or(base, |declared| base.least(declared))
    }

    async fn judge_all(&self, ask: &Ask<'_>, trust: SourceTrust, fresh: bool) -> Vec<Judged> {
        let mut out = Vec::with_capacity(ask.calls.len());
        for call in ask.calls {
            out.push(self.judge(ask, call, trust, &[], fresh).await);
        }
        out
    }

    /// Facts that the slice reads, then the policies. A fact that cannot be had denies.
    pub(crate) async fn judge(
        &self,
        ask: &Ask<'_>,
        call: &Call,
        trust: SourceTrust,
        groups: &[String],
        fresh: bool,
    ) -> Judged {
        let slice = ask.snapshot.engine.slice(&ask.identity.principal, call);
        let mut wanted: Vec<String> = slice.facts().iter().cloned().collect();
        let version_fact = ask.scope.connector.version_fact(call);
        // The version matters only where somebody may be asked about it.
        if let Some(fact) = version_fact.filter(|_| fresh || !wanted.is_empty()) {
            wanted.push(fact.to_owned());
        }
        let facts = match self.learn(ask, call, &wanted, fresh).await {
            Ok(facts) => facts,
            Err(reason) => {
                return Judged { evaluation: fact_unavailable(&reason), facts: Map::new(), version: None };
            }
        };
        let evaluation = self.evaluate(ask, call, &slice, trust, &facts, groups);
        let version = version_fact.and_then(|fact| facts.get(fact).cloned());
        Judged { evaluation, facts, version }
    }

    pub(crate) fn evaluate(
        &self,
        ask: &Ask<'_>,
        call: &Call,
        slice: &Slice,
        trust: SourceTrust,
        facts: &Map<String, Value>,
        groups: &[String],
    ) -> Evaluation {
        ask.snapshot.engine.evaluate(
            slice,
            &Input {
                principal: &ask.identity.principal,
                call,
                trust,
                facts,
                now: self.env.clock.now(),
                route: ask.scope.label(),
                identity: &ask.identity.principal.binding,
                approval_groups: groups,
                contains_sensitive_data: ask.contains_sensitive_data,
                door: ask.door.as_str(),
            },
        )
    }

    async fn record(
        &self,
        ask: Ask<'_>,
        trust: SourceTrust,
        judged: Vec<Judged>,
        lift: Option<Lift>,
        asked: Option<ApprovalNote>,
    ) -> Result<Verdict, AdmitError> {
        let overall = overall(&judged);
        let context =
            IntentContext { ask: &ask, trust, overall: &overall, judged: &judged, lift: lift.as_ref(), asked };
        let (record, intents) = self.write_intents(&context)?;
        let allowed = overall.decision == Decision::Allow && !ask.dry_run;
        let mutates = ask.calls.iter().any(|c| c.action.mutates_state());
        let last = intents.last().copied().unwrap_or_default();
        if (allowed && mutates) || ask.door == Door::Sdk {
            self.log.durable(last).await.map_err(|e| AdmitError::Unrecorded(e.to_string()))?;
        }
        self.metrics.decision(ask.scope.label(), ask.calls.first().map(|c| c.action.tool()), &record);
        self.decisions_log.write(&ask, &record, self.env.clock.now());
        let permit = allowed.then(|| {
            let versions =
                ask.calls.iter().zip(&judged).map(|(c, j)| j.version.clone().map(|v| (c.clone(), v))).collect();
            Permit::new(self, &ask, &record, intents, mutates, versions)
        });
        Ok(Verdict { record, permit })
    }
}

/// The judgement that speaks for the whole request: the first deny, else the first wait, else the first allow.
pub(crate) fn overall(judged: &[Judged]) -> Evaluation {
    let denied = judged.iter().find(|j| j.evaluation.decision == Decision::Deny);
    let waiting = judged.iter().find(|j| waits(j));
    let mut chosen = match denied.or(waiting).or(judged.first()) {
        Some(j) => j.evaluation.clone(),
        None => lost_race(),
    };
    if denied.is_none() {
        let mut policies: Vec<String> = judged.iter().flat_map(|j| j.evaluation.policies.iter().cloned()).collect();
        policies.sort();
        policies.dedup();
        if waiting.is_none() {
            chosen.policies = policies;
        }
    }
    chosen
}

/// Worst class and risk of a request, for the answer's summary.
pub(crate) fn worst(calls: &[Call]) -> (AccessClass, Risk) {
    let risk = calls.iter().map(|c| c.entry.risk).max().unwrap_or(Risk::Critical);
    let class = calls.iter().max_by_key(|c| c.entry.risk).map_or(AccessClass::Write, |c| c.class);
    (class, risk)
}

fn passes(j: &Judged) -> bool {
    j.evaluation.decision == Decision::Allow
}

pub(crate) fn waits(j: &Judged) -> bool {
    matches!(j.evaluation.decision, Decision::RequireApproval { .. })
}

fn all_pass_or_wait(judged: &[Judged]) -> bool {
    judged.iter().all(|j| passes(j) || waits(j))
}

fn fact_unavailable(reason: &str) -> Evaluation {
    Evaluation {
        decision: Decision::Deny,
        policies: Vec::new(),
        reason: crate::policy::Reason::FactUnavailable,
        message: format!("a fact that the policies need could not be had: {reason}"),
        errors: vec![reason.to_owned()],
    }
}

fn lost_race() -> Evaluation {
    Evaluation {
        decision: Decision::Deny,
        policies: Vec::new(),
        reason: crate::policy::Reason::ApprovalUsed,
        message: "the approval was used, withdrawn or expired in the meantime".into(),
        errors: Vec::new(),
    }
}

fn too_many_asked() -> Evaluation {
    Evaluation {
        decision: Decision::Deny,
        policies: Vec::new(),
        reason: crate::policy::Reason::ApprovalQuota,
        message: "people would have to be asked, and too many questions of this agent are open already".into(),
        errors: Vec::new(),
    }
}
