//! A person's yes to exactly one action.

use std::{collections::BTreeSet, time::Duration};

use aegis_action::{Digest, Risk, SourceTrust, Timestamp, ToolCall};
use serde_json::{Value, json};

use crate::{
    Broker,
    admit::{AdmitError, ApprovalUse, Ask, Judged, waits, worst},
    env::RandomError,
    mask::masked,
    policy::Decision,
    record::{ApprovalNote, hash_of},
    store::{ApprovalRecord, ApprovalStatus, OutboxEvent, PersonRecord, StoreError},
};

/// Why an approval is not settled.
#[derive(Debug, thiserror::Error)]
pub enum ApprovalError {
    /// There is none of that id (or none that the caller may see).
    #[error("no such approval")]
    NotFound,
    /// It is not pending any more.
    #[error("the approval is {0}")]
    NotPending(String),
    /// The person is in none of the groups that still have to agree.
    #[error("this approval needs somebody of {0}")]
    NotInGroup(String),
    /// A critical action of the approver's own agent.
    #[error("nobody approves critical actions of an agent that they own")]
    OwnAgent,
    /// A critical action, and an approver who cannot be told apart from the agent's owner.
    #[error("critical actions need an approver whose e-mail address is on record: `aegis approver add --email`")]
    NoEmail,
    /// The hash named is not the one that was approved.
    #[error("the action hash is not the one that was approved")]
    HashMismatch,
    /// The action is needed again, because part of it is masked in the record.
    #[error("`tool_call` is required: part of the action is masked in the approval")]
    NeedsToolCall,
    /// The store cannot be used.
    #[error("{0}")]
    Store(#[from] StoreError),
    /// No randomness for an id.
    #[error(transparent)]
    Random(#[from] RandomError),
    /// The step cannot be put on record.
    #[error("{0}")]
    Unrecorded(String),
}

impl Broker {
    /// Uses an approval up: of any number of racing requests, one gets it.
    pub(crate) async fn consume(&self, ask: &Ask<'_>, grant: &ApprovalRecord) -> Result<bool, AdmitError> {
        let event = self.event(
            "approval_consumed",
            json!({"approval_id": grant.approval_id, "agent_id": grant.agent_id, "approvers": grant.settled_by}),
        )?;
        let agent = &ask.identity.agent.agent_id;
        let used = self
            .store
            .consume_approval(&grant.approval_id, agent, &grant.action_hash, self.env.clock.now(), &event)
            .await?;
        self.drain_outbox().await?;
        Ok(used)
    }

    /// Asks, or returns what was asked already about the same action and version. `None` where the agent has
    /// asked as much as it may.
    pub(crate) async fn ask_approval(
        &self,
        ask: &Ask<'_>,
        trust: SourceTrust,
        judged: &[Judged],
    ) -> Result<Option<ApprovalNote>, AdmitError> {
        let now = self.env.clock.now();
        let mut groups = BTreeSet::new();
        let mut quorum = 1;
        let mut policies = BTreeSet::new();
        for judgement in judged.iter().filter(|j| waits(j)) {
            if let Decision::RequireApproval { groups: wanted, quorum: people } = &judgement.evaluation.decision {
                groups.extend(wanted.iter().cloned());
                quorum = quorum.max(*people);
                policies.extend(judgement.evaluation.policies.iter().cloned());
            }
        }
        let action_hash = hash_of(ask.calls);
        // Already answered yes, for an SDK that has yet to consume it: say so rather than ask twice.
        let granted =
            self.store.granted_approvals(&ask.identity.agent.agent_id, ask.scope.label(), &action_hash, now).await?;
        if let Some(record) =
            granted.iter().find(|r| r.version == version_of(judged) && ask.approvals == ApprovalUse::None)
        {
            return Ok(Some(ApprovalNote::from(record)));
        }
        let ttl = ask.scope.route.as_ref().map_or(ask.snapshot.config.api.approval_ttl, |r| r.approval_ttl);
        let (_, risk) = worst(ask.calls);
        let approval_id = self.env.id("apr_").map_err(|e| AdmitError::Unrecorded(e.to_string()))?;
        let record = ApprovalRecord {
            tenant: self.tenant.clone(),
            agent_id: ask.identity.agent.agent_id.clone(),
            route: ask.scope.label().to_owned(),
            action_hash,
            version: version_of(judged),
            // So many people of each group, every one of them counted once.
            quorum: quorum.saturating_mul(u32::try_from(groups.len().max(1)).unwrap_or(u32::MAX)),
            groups: groups.into_iter().collect(),
            status: ApprovalStatus::Pending,
            action: ask.calls.first().map(|c| c.action.qualified_name()).unwrap_or_default(),
            resource: ask.calls.first().and_then(|c| c.action.resource().map(str::to_owned)),
            risk: risk.as_str().to_owned(),
            source_trust: trust,
            sealed_payload: self.sealed_calls(&approval_id, ask),
            policies: policies.into_iter().collect(),
            snapshot: ask.snapshot.hash,
            created_at: now,
            expires_at: Timestamp(now.0.saturating_add(ttl.as_millis() as i64)),
            settled_at: None,
            settled_by: Vec::new(),
            approval_id,
        };
        let event = self.event(
            "approval_asked",
            json!({"approval_id": record.approval_id, "agent_id": record.agent_id, "route": record.route,
                "action": record.action, "groups": record.groups, "policies": record.policies, "expires_at": record.expires_at}),
        )?;
        let stored = match self.store.ask_approval(&record, now, ask.snapshot.config.api.max_pending, &event).await {
            Err(StoreError::TooMany(_)) => return Ok(None),
            other => other?,
        };
        self.drain_outbox().await?;
        Ok(Some(ApprovalNote::from(&stored)))
    }

    /// What approvers are shown: the actions with secrets masked.
    pub fn approval_payload(&self, record: &ApprovalRecord) -> Option<Value> {
        let sealed = record.sealed_payload.as_deref()?;
        let plain = self.sealer.open(record.approval_id.as_bytes(), sealed)?;
        serde_json::from_slice(&plain).ok()
    }

    /// The single action that was asked about, if nothing of it is masked.
    pub(crate) fn approved_call(&self, record: &ApprovalRecord) -> Option<ToolCall> {
        let payload = self.approval_payload(record)?;
        match payload.as_array()?.as_slice() {
            [one] if one.get("masked") == Some(&Value::Bool(false)) => {
                serde_json::from_value(one.get("tool_call")?.clone()).ok()
            }
            _ => None,
        }
    }

    /// One person's yes or no. The last group's yes approves; a no settles at once.
    pub async fn settle(
        &self,
        approval_id: &str,
        person: &PersonRecord,
        yes: bool,
    ) -> Result<ApprovalRecord, ApprovalError> {
        // Votes are counted one at a time, so that two members of one group cannot stand in for two groups.
        let _one_at_a_time = self.settling.lock().await;
        let now = self.env.clock.now();
        let record = self.store.approval(approval_id, now).await?.ok_or(ApprovalError::NotFound)?;
        if record.status != ApprovalStatus::Pending {
            return Err(ApprovalError::NotPending(status_word(record.status)));
        }
        if yes {
            self.apart(person, &record.agent_id, &record.risk).await?;
        }
        let missing = self.missing_groups(&record).await?;
        if !person.groups.iter().any(|g| missing.contains(g)) || record.settled_by.contains(&person.person_id) {
            return Err(ApprovalError::NotInGroup(missing.join(" or ")));
        }
        let kind = if yes { "approval_granted" } else { "approval_rejected" };
        let event = self
            .event(kind, json!({"approval_id": approval_id, "person_id": person.person_id, "agent_id": record.agent_id, "action": record.action}))
            .map_err(|e| ApprovalError::Unrecorded(e.to_string()))?;
        // Another gateway on this store may have counted a vote since: then this one is judged anew by its voter.
        let seen = yes.then_some(record.settled_by.as_slice());
        let settled =
            self.store.settle_approval(approval_id, &person.person_id, yes, seen, now, &event).await.map_err(|e| {
                match e {
                    StoreError::Conflict(actual) => ApprovalError::NotPending(actual),
                    StoreError::NotFound(_) => ApprovalError::NotFound,
                    other => ApprovalError::Store(other),
                }
            })?;
        self.settled.send_modify(|n| *n = n.wrapping_add(1));
        self.drain_outbox().await.map_err(|e| ApprovalError::Unrecorded(e.to_string()))?;
        Ok(settled)
    }

    /// Nobody says yes to a critical action of an agent of their own; who cannot be told apart from its owner does not.
    pub(crate) async fn apart(&self, person: &PersonRecord, agent_id: &str, risk: &str) -> Result<(), ApprovalError> {
        if risk != Risk::Critical.as_str() {
            return Ok(());
        }
        let agent = self.store.agent(agent_id).await?.ok_or(ApprovalError::NotFound)?;
        match &person.email {
            Some(email) if !email.eq_ignore_ascii_case(&agent.owner_email) => Ok(()),
            Some(_) => Err(ApprovalError::OwnAgent),
            None => Err(ApprovalError::NoEmail),
        }
    }

    /// Approvals that ended without being used become leaves. Called once a second.
    pub async fn expire_approvals(&self) -> Result<(), AdmitError> {
        let now = self.env.clock.now();
        let due = self.store.due_approvals(now, EXPIRE_AT_ONCE).await?;
        if due.is_empty() {
            return Ok(());
        }
        for record in due {
            let body = json!({"approval_id": record.approval_id, "agent_id": record.agent_id, "action": record.action,
                "approvers": record.settled_by, "expires_at": record.expires_at});
            let event = self.event("approval_expired", body)?;
            self.store.expire_approval(&record.approval_id, now, &event).await?;
        }
        self.settled.send_modify(|n| *n = n.wrapping_add(1));
        self.drain_outbox().await
    }

    /// Waits until an approval is not pending any more; `None` where that took longer than `patience`.
    /// Votes of this process are seen at once, those of another on the same store within a second.
    pub async fn settlement(&self, approval_id: &str, patience: Duration) -> Option<ApprovalStatus> {
        let mut settled = self.settled.subscribe();
        let waited = async {
            loop {
                settled.mark_unchanged();
                // A store that cannot be read is asked again: nobody is told yes by its silence.
                if let Ok(Some(record)) = self.store.approval(approval_id, self.env.clock.now()).await
                    && record.status != ApprovalStatus::Pending
                {
                    return record.status;
                }
                let _ = tokio::time::timeout(LOOK_AGAIN, settled.changed()).await;
            }
        };
        tokio::time::timeout(patience, waited).await.ok()
    }

    /// Groups that lack a yes, each as often as it lacks one. Every voter counts for one group only.
    async fn missing_groups(&self, record: &ApprovalRecord) -> Result<Vec<String>, ApprovalError> {
        let per_group = (record.quorum as usize / record.groups.len().max(1)).max(1);
        let mut missing: Vec<String> =
            record.groups.iter().flat_map(|g| std::iter::repeat_n(g.clone(), per_group)).collect();
        if record.settled_by.is_empty() {
            return Ok(missing);
        }
        let people = self.store.people().await?;
        for voter in people.iter().filter(|p| record.settled_by.contains(&p.person_id)) {
            if let Some(at) = missing.iter().position(|g| voter.groups.contains(g)) {
                missing.remove(at);
            }
        }
        Ok(missing)
    }

    fn sealed_calls(&self, approval_id: &str, ask: &Ask<'_>) -> Option<Vec<u8>> {
        let shown: Vec<Value> = ask
            .calls
            .iter()
            .map(|call| {
                let (parameters, any) = masked(call.action.parameters());
                let mut tool_call = call.action.call().clone();
                tool_call.parameters = parameters;
                json!({"tool_call": tool_call, "masked": any, "summary": call.entry.summary})
            })
            .collect();
        self.sealer.seal(approval_id.as_bytes(), Value::Array(shown).to_string().as_bytes())
    }

    pub(crate) fn event(&self, kind: &str, body: Value) -> Result<OutboxEvent, AdmitError> {
        let event_id = self.env.id("evt_").map_err(|e| AdmitError::Unrecorded(e.to_string()))?;
        Ok(OutboxEvent { event_id, kind: kind.to_owned(), at: self.env.clock.now(), body })
    }
}

/// The versions that were judged, as one string; an approval holds for these only.
pub(crate) fn version_of(judged: &[Judged]) -> Option<String> {
    let versions: Vec<String> = judged
        .iter()
        .filter_map(|j| j.version.as_ref())
        .map(|v| v.as_str().map_or_else(|| v.to_string(), str::to_owned))
        .collect();
    (!versions.is_empty()).then(|| versions.join(","))
}

pub(crate) fn status_word(status: ApprovalStatus) -> String {
    let word = match status {
        ApprovalStatus::Pending => "pending",
        ApprovalStatus::Approved => "approved",
        ApprovalStatus::Rejected => "rejected",
        ApprovalStatus::Expired => "expired",
        ApprovalStatus::Consumed => "consumed",
        ApprovalStatus::Cancelled => "cancelled",
    };
    word.to_owned()
}

/// What consuming an approval returns to an SDK.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Consumed {
    /// `apr_…`
    pub approval_id: String,
    /// Always `consumed`.
    pub status: ApprovalStatus,
    /// The hash that may run now.
    pub action_hash: Digest,
}

/// Leaves of ended approvals that are written in one go.
const EXPIRE_AT_ONCE: u32 = 500;
/// How soon a vote that another process counted is seen.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
