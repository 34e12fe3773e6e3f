//! `POST /v1/authorize`: the same decision for a call the caller runs itself.

use std::sync::Arc;

use aegis_action::{Digest, SourceTrust, Timestamp, ToolCall};
use aegis_connectors::Call;
use aegis_receipts::{Door, OutcomeState, Transfer};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    Broker,
    admit::{AdmitError, ApprovalUse, Ask, Trace, Verdict},
    approvals::{ApprovalError, status_word},
    identity::Identity,
    permit::{CarriedTicket, Outcome, Ticket},
    policy::Reason,
    record::{DecisionRecord, DecisionWord},
    snapshot::{Scope, Snapshot},
    store::{ApprovalStatus, IdempotencyClaim, StoreError},
};

/// The body of `POST /v1/authorize`. The principal is the token's agent, never a field.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuthorizeRequest {
    /// The five keys.
    pub tool_call: ToolCall,
    /// What the caller knows of its source; what it does not say contributes nothing.
    #[serde(default)]
    pub context: CallContext,
    /// Makes a resend find the first answer. Bound to the whole body.
    #[serde(default)]
    pub request_id: Option<String>,
    /// Ids that join this decision to a run.
    #[serde(default)]
    pub trace: CallTrace,
    /// A label for the person behind the call.
    #[serde(default)]
    pub user: Option<CallUser>,
    /// Decide and record only.
    #[serde(default)]
    pub dry_run: bool,
}

/// What a caller says of its source.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CallContext {
    /// Can lower trust, never raise it.
    #[serde(default)]
    pub source_trust: Option<SourceTrust>,
    /// Whether the content is sensitive.
    #[serde(default)]
    pub contains_sensitive_data: Option<bool>,
}

/// Ids of a run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CallTrace {
    /// Run.
    #[serde(default)]
    pub run_id: Option<String>,
    /// W3C trace id.
    #[serde(default)]
    pub trace_id: Option<String>,
    /// The run that started it.
    #[serde(default)]
    pub parent_run_id: Option<String>,
}

/// A label for a person.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CallUser {
    /// Opaque.
    pub id: String,
}

/// Why there is no decision.
#[derive(Debug, thiserror::Error)]
pub enum AuthorizeError {
    /// A field is not usable.
    #[error("{detail}")]
    Invalid {
        /// Stable code.
        reason: &'static str,
        /// Names the field.
        detail: String,
    },
    /// The same `request_id` came with another body.
    #[error("`request_id` was used with another body")]
    RequestIdReused,
    /// The same `request_id` is being decided right now.
    #[error("`request_id` is being decided; try again shortly")]
    InFlight,
    /// From the decision path.
    #[error(transparent)]
    Admit(#[from] AdmitError),
}

impl From<StoreError> for AuthorizeError {
    fn from(error: StoreError) -> Self {
        Self::Admit(error.into())
    }
}

/// What an SDK reports after it ran the call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OutcomeReport {
    /// `completed` or `failed`.
    pub status: OutcomeState,
    /// SHA-256 of the result; never the result.
    #[serde(default)]
    pub result_digest: Option<Digest>,
    /// Size of the result.
    #[serde(default)]
    pub result_bytes: Option<u64>,
}

/// An SDK decision whose outcome is owed.
pub(crate) struct OpenDecision {
    agent_id: String,
    ticket: Ticket,
}

/// An SDK decision whose outcome is owed, on its way to the process that serves from now on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CarriedDecision {
    agent_id: String,
    decision_id: String,
    ticket: CarriedTicket,
}

impl Broker {
    /// Gives all open SDK decisions away: another process is asked for them from now on.
    pub fn carry_decisions(&self) -> Vec<CarriedDecision> {
        let all: Vec<_> = self.open_decisions.iter().collect();
        self.open_decisions.invalidate_all();
        let carry = |(id, open): (Arc<String>, Arc<parking_lot::Mutex<Option<OpenDecision>>>)| {
            let OpenDecision { agent_id, ticket } = open.lock().take()?;
            Some(CarriedDecision { agent_id, decision_id: id.to_string(), ticket: ticket.carry() })
        };
        all.into_iter().filter_map(carry).collect()
    }

    /// Takes up the open SDK decisions of the process before.
    pub fn take_up_decisions(&self, carried: Vec<CarriedDecision>) {
        for CarriedDecision { agent_id, decision_id, ticket } in carried {
            let open = OpenDecision { agent_id, ticket: Ticket::carried(ticket, self.log.clone()) };
            self.open_decisions.insert(decision_id, Arc::new(parking_lot::Mutex::new(Some(open))));
        }
    }

    /// Decides a call. `body` is the request as it came: `request_id` is bound to all of it.
    pub async fn authorize(
        &self,
        identity: &Arc<Identity>,
        request: AuthorizeRequest,
        body: &Digest,
    ) -> Result<DecisionRecord, AuthorizeError> {
        // Before the idempotency key: a replay never outlives a freeze.
        if let Some(refusal) = identity.refusal(self.env.clock.now()) {
            return Err(AdmitError::Auth(refusal).into());
        }
        let Some(request_id) = request.request_id.clone() else {
            return self.decide(identity, request, ApprovalUse::None).await;
        };
        check_label("request_id", &request_id)?;
        let agent = &identity.agent.agent_id;
        let now = self.env.clock.now();
        match self.store.idempotency_claim(agent, &request_id, body, now, now.plus_seconds(REPLAY_SECONDS)).await? {
            IdempotencyClaim::Fresh => {}
            IdempotencyClaim::Replay(answer) => {
                return serde_json::from_value(answer).map_err(|e| AdmitError::Unrecorded(e.to_string()).into());
            }
            IdempotencyClaim::InFlight => return Err(AuthorizeError::InFlight),
            IdempotencyClaim::Mismatch => return Err(AuthorizeError::RequestIdReused),
        }
        match self.decide(identity, request, ApprovalUse::None).await {
            Ok(record) => {
                let answer = serde_json::to_value(&record).unwrap_or(Value::Null);
                self.store.idempotency_finish(agent, &request_id, &answer).await?;
                Ok(record)
            }
            Err(error) => {
                self.store.idempotency_release(agent, &request_id).await?;
                Err(error)
            }
        }
    }

    /// Uses an approval up for exactly the action whose hash is named, decided anew.
    pub async fn consume_approval(
        &self,
        identity: &Arc<Identity>,
        approval_id: &str,
        action_hash: &Digest,
        again: Option<ToolCall>,
    ) -> Result<DecisionRecord, ConsumeError> {
        let now = self.env.clock.now();
        if let Some(refusal) = identity.refusal(now) {
            return Err(AdmitError::Auth(refusal).into());
        }
        let record = self.store.approval(approval_id, now).await.map_err(ApprovalError::from)?;
        let record = record.filter(|r| r.agent_id == identity.agent.agent_id).ok_or(ApprovalError::NotFound)?;
        if record.action_hash != *action_hash {
            self.tamper(identity, &record.approval_id);
            return Err(ApprovalError::HashMismatch.into());
        }
        if record.status != ApprovalStatus::Approved {
            return Err(ApprovalError::NotPending(status_word(record.status)).into());
        }
        let tool_call = again.or_else(|| self.approved_call(&record)).ok_or(ApprovalError::NeedsToolCall)?;
        let request = AuthorizeRequest {
            tool_call,
            context: CallContext { source_trust: Some(record.source_trust), contains_sensitive_data: None },
            request_id: None,
            trace: CallTrace::default(),
            user: None,
            dry_run: false,
        };
        let snapshot = self.snapshot();
        let (scope, call) = resolve(&snapshot, request.tool_call.clone())?;
        if call.action.hash() != *action_hash {
            self.tamper(identity, &record.approval_id);
            return Err(ApprovalError::HashMismatch.into());
        }
        let decided =
            self.decide_call(identity, &snapshot, &scope, call, &request, ApprovalUse::Only(approval_id)).await?;
        if decided.reason == Reason::ApprovalUsed.as_str() {
            let now = self.store.approval(approval_id, self.env.clock.now()).await.map_err(ApprovalError::from)?;
            let status = now.map_or_else(|| "gone".to_owned(), |r| status_word(r.status));
            return Err(ApprovalError::NotPending(status).into());
        }
        if decided.decision != DecisionWord::Allow {
            return Err(ConsumeError::Refused(Box::new(decided)));
        }
        Ok(decided)
    }

    /// Closes the pair of an SDK decision. `false` where there is no such open decision of this agent.
    pub fn report_outcome(&self, identity: &Identity, decision_id: &str, report: &OutcomeReport) -> bool {
        let mine = self
            .open_decisions
            .get(decision_id)
            .is_some_and(|open| open.lock().as_ref().is_some_and(|o| o.agent_id == identity.agent.agent_id));
        let Some(open) =
            mine.then(|| self.open_decisions.remove(decision_id)).flatten().and_then(|open| open.lock().take())
        else {
            return false;
        };
        let received = report.result_digest.map(|sha256| Transfer {
            bytes: report.result_bytes.unwrap_or(0),
            frames: None,
            sha256: Some(sha256),
        });
        let ended: Timestamp = self.env.clock.now();
        open.ticket.close(Outcome { received, ..Outcome::ended(report.status, ended) });
        true
    }

    async fn decide(
        &self,
        identity: &Arc<Identity>,
        request: AuthorizeRequest,
        approvals: ApprovalUse<'_>,
    ) -> Result<DecisionRecord, AuthorizeError> {
        let snapshot = self.snapshot();
        let (scope, call) = resolve(&snapshot, request.tool_call.clone())?;
        self.decide_call(identity, &snapshot, &scope, call, &request, approvals).await
    }

    async fn decide_call(
        &self,
        identity: &Arc<Identity>,
        snapshot: &Arc<Snapshot>,
        scope: &Arc<Scope>,
        call: Call,
        request: &AuthorizeRequest,
        approvals: ApprovalUse<'_>,
    ) -> Result<DecisionRecord, AuthorizeError> {
        let trace = Trace {
            trace_id: checked("trace.trace_id", &request.trace.trace_id)?,
            run_id: checked("trace.run_id", &request.trace.run_id)?,
            parent_run_id: checked("trace.parent_run_id", &request.trace.parent_run_id)?,
            user: checked("user.id", &request.user.as_ref().map(|u| u.id.clone()))?,
        };
        let calls = [call];
        let Verdict { record, permit } = self
            .admit(Ask {
                identity,
                snapshot,
                scope,
                calls: &calls,
                door: Door::Sdk,
                declared_trust: request.context.source_trust,
                contains_sensitive_data: request.context.contains_sensitive_data,
                trace: &trace,
                request_id: request.request_id.as_deref(),
                dry_run: request.dry_run,
                approvals,
            })
            .await?;
        if let Some(permit) = permit {
            // No credential goes out: the caller runs the action itself and owes the outcome.
            let open = OpenDecision { agent_id: identity.agent.agent_id.clone(), ticket: permit.into_ticket() };
            self.open_decisions.insert(record.decision_id.clone(), Arc::new(parking_lot::Mutex::new(Some(open))));
        }
        Ok(record)
    }

    /// Somebody presents a yes for something else: a leaf, a metric and a log line.
    fn tamper(&self, identity: &Identity, approval_id: &str) {
        self.metrics.detection("approval_swap");
        tracing::warn!(event = "detection", rule = "approval_swap", approval_id, agent_id = %identity.agent.agent_id,
            "an approval was presented for another action than the one that was approved");
        self.refuse(&crate::refuse::Refusal {
            agent_id: Some(&identity.agent.agent_id),
            route: None,
            door: Door::Sdk,
            reason: "approval_hash_mismatch",
            detail: Some(format!("approval {approval_id} was presented for another action")),
            status: 409,
            peer: None,
            trace_id: None,
        });
    }
}

/// Why an approval is not consumed.
#[derive(Debug, thiserror::Error)]
pub enum ConsumeError {
    /// The approval does not fit.
    #[error(transparent)]
    Approval(#[from] ApprovalError),
    /// The action is not an action, or cannot be decided.
    #[error(transparent)]
    Authorize(#[from] AuthorizeError),
    /// Decided anew, it is not allowed (any more).
    #[error("the action is not allowed any more: {}", .0.message)]
    Refused(Box<DecisionRecord>),
}

impl From<AdmitError> for ConsumeError {
    fn from(error: AdmitError) -> Self {
        Self::Authorize(error.into())
    }
}

fn resolve(snapshot: &Arc<Snapshot>, tool_call: ToolCall) -> Result<(Arc<Scope>, Call), AuthorizeError> {
    let scope = snapshot.for_tool(&tool_call.tool).ok_or_else(|| AuthorizeError::Invalid {
        reason: "unknown_tool",
        detail: format!("`tool_call.tool`: no route and no `[[tool]]` speaks for `{}`", printable(&tool_call.tool)),
    })?;
    let call = scope
        .connector
        .validate(tool_call)
        .map_err(|refusal| AuthorizeError::Invalid { reason: refusal.reason, detail: refusal.detail })?;
    Ok((scope.clone(), call))
}

fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(80).collect()
}

fn checked(field: &'static str, label: &Option<String>) -> Result<Option<String>, AuthorizeError> {
    if let Some(text) = label {
        check_label(field, text)?;
    }
    Ok(label.clone())
}

fn check_label(field: &'static str, text: &str) -> Result<(), AuthorizeError> {
    if text.is_empty() || text.len() > 200 || text.chars().any(char::is_control) {
        return Err(AuthorizeError::Invalid {
            reason: "bad_field",
            detail: format!("`{field}`: must be 1 to 200 bytes without controls"),
        });
    }
    Ok(())
}

/// How long a `request_id` finds its first answer.
const REPLAY_SECONDS: i64 = 86_400;
