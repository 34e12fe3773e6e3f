//! Decisions as records: the leaf that anyone can check, and the answer the caller gets.

use aegis_action::{AccessClass, CANON_VERSION, Digest, Risk, SourceTrust, sha256};
use aegis_connectors::Call;
pub use aegis_receipts::Decision as DecisionWord;
use aegis_receipts::{ApprovalUse as ApprovalRef, Intent, LeafBody, commit};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    Broker,
    admit::{AdmitError, Ask, Judged, worst},
    lift::Lift,
    mask::masked,
    policy::{Decision, Evaluation},
    store::ApprovalRecord,
};

/// A decision as `POST /v1/authorize` answers it, and as the proxy puts it into headers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DecisionRecord {
    /// `dec_…`
    pub decision_id: String,
    /// `allow`, `deny` or `require_approval`.
    pub decision: DecisionWord,
    /// Stable code.
    pub reason: String,
    /// One sentence for people.
    pub message: String,
    /// SHA-256 of the canonical action; of several, the hash over their hashes in order.
    pub action_hash: Digest,
    /// Definition of the canonical bytes.
    pub canon_version: String,
    /// Determining policy ids.
    pub matched_policies: Vec<String>,
    /// Level and class from the catalog.
    pub risk: RiskNote,
    /// Least trusted of everything known.
    pub effective_trust: SourceTrust,
    /// The approval that is waited for, or that was used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub approval: Option<ApprovalNote>,
    /// Where it is on record.
    pub receipt: ReceiptRef,
    /// Whether it was only asked.
    pub dry_run: bool,
}

/// Risk of an action.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RiskNote {
    /// Level.
    pub level: Risk,
    /// Access class.
    pub class: AccessClass,
}

/// An approval as the asking agent sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ApprovalNote {
    /// `apr_…`
    pub approval_id: String,
    /// `pending`, `approved`, …
    pub status: crate::store::ApprovalStatus,
    /// Groups that have to agree, joined by a comma.
    pub approver_group: String,
    /// Milliseconds since the epoch.
    pub expires_at: aegis_action::Timestamp,
    /// What was asked about.
    pub action_hash: Digest,
}

impl From<&ApprovalRecord> for ApprovalNote {
    fn from(record: &ApprovalRecord) -> Self {
        Self {
            approval_id: record.approval_id.clone(),
            status: record.status,
            approver_group: record.groups.join(","),
            expires_at: record.expires_at,
            action_hash: record.action_hash,
        }
    }
}

/// Where a leaf is in the log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReceiptRef {
    /// `rcp_<node>_<seq>`
    pub receipt_id: String,
    /// SHA-256 of the leaf.
    pub receipt_hash: Digest,
    /// SHA-256 of the leaf before it.
    pub prev_receipt_hash: Digest,
}

/// Everything an intent leaf is made of.
pub(crate) struct IntentContext<'a> {
    pub(crate) ask: &'a Ask<'a>,
    pub(crate) trust: SourceTrust,
    pub(crate) overall: &'a Evaluation,
    pub(crate) judged: &'a [Judged],
    pub(crate) lift: Option<&'a Lift>,
    pub(crate) asked: Option<ApprovalNote>,
}

impl Broker {
    /// Writes one intent leaf an action, all or none, and returns the answer with their sequence numbers.
    pub(crate) fn write_intents(&self, context: &IntentContext<'_>) -> Result<(DecisionRecord, Vec<u64>), AdmitError> {
        let unrecorded = |e: &dyn std::fmt::Display| AdmitError::Unrecorded(e.to_string());
        let decision_id = self.env.id("dec_").map_err(|e| unrecorded(&e))?;
        let mut leaves = Vec::with_capacity(context.ask.calls.len());
        for (index, (call, judged)) in context.ask.calls.iter().zip(context.judged).enumerate() {
            let mut salt = [0; 32];
            self.env.random.fill(&mut salt).map_err(|e| unrecorded(&e))?;
            let leaf = self.intent(context, &decision_id, index, call, judged, &salt);
            leaves.push((LeafBody::Intent(Box::new(leaf)), self.payload(&decision_id, call, &salt)));
        }
        let appended = self.log.append_with_payloads(leaves).map_err(|e| unrecorded(&e))?;
        let first = appended.first().ok_or_else(|| AdmitError::Unrecorded("no action to record".into()))?;
        let (class, level) = worst(context.ask.calls);
        let record = DecisionRecord {
            decision: word(&context.overall.decision),
            reason: context.overall.reason.as_str().to_owned(),
            message: context.overall.message.clone(),
            action_hash: hash_of(context.ask.calls),
            canon_version: CANON_VERSION.to_owned(),
            matched_policies: context.overall.policies.clone(),
            risk: RiskNote { level, class },
            effective_trust: context.trust,
            approval: context.asked.clone().or_else(|| context.lift.map(|lift| lift.note(hash_of(context.ask.calls)))),
            receipt: ReceiptRef {
                receipt_id: first.receipt_id.clone(),
                receipt_hash: first.receipt_hash,
                prev_receipt_hash: first.prev_receipt_hash,
            },
            dry_run: context.ask.dry_run,
            decision_id,
        };
        Ok((record, appended.iter().map(|a| a.seq).collect()))
    }

    fn intent(
        &self,
        context: &IntentContext<'_>,
        decision_id: &str,
        index: usize,
        call: &Call,
        judged: &Judged,
        salt: &[u8; 32],
    ) -> Intent {
        let ask = context.ask;
        let several = ask.calls.len() > 1;
        let granted = context.lift.map(Lift::reference);
        let asked = context.asked.as_ref().map(|a| ApprovalRef { id: a.approval_id.clone(), approvers: Vec::new() });
        let parameters =
            sha256(&aegis_action::canonicalize(&Value::Object(call.action.parameters().clone())).unwrap_or_default());
        Intent {
            action: call.action.name().to_owned(),
            action_commitment: commit(salt, &call.action.hash()),
            agent_id: Some(ask.identity.agent.agent_id.clone()),
            agent_binding: ask.identity.principal.binding.clone(),
            approval: granted.or(asked),
            class: call.class,
            count: several.then_some(ask.calls.len() as u32),
            credential: ask.scope.route.as_ref().and_then(|r| r.credential.clone()),
            decision: word(&context.overall.decision),
            decision_id: decision_id.to_owned(),
            door: ask.door,
            dry_run: ask.dry_run,
            index: several.then_some(index as u32),
            mutates_state: call.action.mutates_state(),
            parameters_commitment: commit(salt, &parameters),
            parent_run_id: ask.trace.parent_run_id.clone(),
            policies: judged.evaluation.policies.clone(),
            reason: context.overall.reason.as_str().to_owned(),
            resource: call.action.resource().map(str::to_owned),
            request_id: ask.request_id.map(str::to_owned),
            risk: call.entry.risk,
            route: ask.scope.label().to_owned(),
            // What the caller names is a label; a session's token is for one run, whatever a header says.
            run_id: ask.identity.run_id().map(str::to_owned).or_else(|| ask.trace.run_id.clone()),
            sending: call.sending.clone(),
            snapshot: ask.snapshot.hash,
            source_trust: context.trust,
            tenant: self.tenant.clone(),
            tool: call.action.tool().to_owned(),
            trace_id: ask.trace.trace_id.clone(),
            user: ask.trace.user.clone(),
        }
    }

    /// What `aegis why` shows and bundles open commitments with: salt, hash, the action with secrets
    /// masked. Sealed, outside the leaf, erasable.
    fn payload(&self, decision_id: &str, call: &Call, salt: &[u8; 32]) -> Option<Vec<u8>> {
        let (parameters, any) = masked(call.action.parameters());
        let mut text = Vec::with_capacity(TYPICAL_PAYLOAD);
        let payload = Payload {
            action: call.action.name(),
            action_hash: call.action.hash(),
            masked: any,
            mutates_state: call.action.mutates_state(),
            parameters: &parameters,
            resource: call.action.resource(),
            salt: Digest(*salt),
            tool: call.action.tool(),
        };
        serde_json::to_writer(&mut text, &payload).ok()?;
        self.sealer.seal(decision_id.as_bytes(), &text)
    }
}

const TYPICAL_PAYLOAD: usize = 512;

/// What stands beside a leaf, sealed.
#[derive(Serialize)]
struct Payload<'a> {
    action: &'a str,
    action_hash: Digest,
    masked: bool,
    mutates_state: bool,
    parameters: &'a Map<String, Value>,
    resource: Option<&'a str>,
    /// 32 random bytes, spelled like a digest.
    salt: Digest,
    tool: &'a str,
}

/// The hash that approvals and answers name.
pub(crate) fn hash_of(calls: &[Call]) -> Digest {
    match calls {
        [one] => one.action.hash(),
        many => {
            let joined: Vec<u8> = many.iter().flat_map(|c| c.action.hash().0).collect();
            sha256(&joined)
        }
    }
}

pub(crate) fn word(decision: &Decision) -> DecisionWord {
    match decision {
        Decision::Allow => DecisionWord::Allow,
        Decision::Deny => DecisionWord::Deny,
        Decision::RequireApproval { .. } => DecisionWord::RequireApproval,
    }
}

impl From<aegis_receipts::Appended> for ReceiptRef {
    fn from(a: aegis_receipts::Appended) -> Self {
        Self { receipt_id: a.receipt_id, receipt_hash: a.receipt_hash, prev_receipt_hash: a.prev_receipt_hash }
    }
}
