//! What the API answers with. Instants are RFC 3339 in UTC with milliseconds.

use std::collections::BTreeMap;

use aegis_action::{AccessClass, Risk, SourceTrust, Timestamp};
use aegis_broker::{
    admin_ops::CredentialStatus,
    agents::Enrolled,
    config::Problem as ConfigProblem,
    record::{ApprovalNote, DecisionRecord, DecisionWord, ReceiptRef},
    store::{AgentRecord, AgentState, ApprovalRecord, ApprovalStatus, PersonRecord, ProjectedLeaf},
};
use aegis_connectors::{Entry, ParamType, Parameter};
use aegis_receipts::{StoredLeaf, receipt_id};
use jiff::fmt::temporal::DateTimePrinter;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::openapi::words;

/// An error (RFC 9457).
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Problem {
    /// `urn:aegis:problem:` and a stable code.
    pub r#type: String,
    /// The code in words.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What is wrong with this request, and what to do.
    pub detail: String,
    /// The refusal's receipt, where one exists.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub receipt: Option<String>,
    /// The decision that stands in the way, where an approval does not hold any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decision: Option<Decision>,
    /// Everything that is wrong with a configuration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problems: Option<Vec<ConfigFinding>>,
    /// What works and what does not, where the gateway is not ready.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checks: Option<Vec<Check>>,
}

/// Something about a configuration file.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ConfigFinding {
    pub file: String,
    /// From 1.
    pub line: usize,
    pub message: String,
    /// `error` or `warning`.
    pub severity: String,
}

/// One thing that every request needs.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct Check {
    /// `store`, `log`, or `vault:` and its name.
    pub name: String,
    pub ok: bool,
}

/// A decision.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Decision {
    pub decision_id: String,
    #[schema(schema_with = words::decision)]
    pub decision: DecisionWord,
    /// Stable code, e.g. `allowed`, `no_permit`, `forbidden`, `approval`.
    pub reason: String,
    /// One sentence for people.
    pub message: String,
    /// SHA-256 of the canonical action, lowercase hex.
    pub action_hash: String,
    /// Definition of the canonical bytes.
    pub canon_version: String,
    /// Ids of the policies that decided.
    pub matched_policies: Vec<String>,
    pub risk: RiskAnswer,
    /// The least trusted of everything known of the source.
    #[schema(schema_with = words::trust)]
    pub effective_trust: SourceTrust,
    /// The approval that is waited for, or that was used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub approval: Option<ApprovalSummary>,
    pub receipt: Receipt,
    /// Whether it was only asked.
    pub dry_run: bool,
}

/// Risk of an action, from the catalog.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RiskAnswer {
    #[schema(schema_with = words::risk)]
    pub level: Risk,
    #[schema(schema_with = words::class)]
    pub class: AccessClass,
}

/// An approval in a decision.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ApprovalSummary {
    pub approval_id: String,
    #[schema(schema_with = words::approval_status)]
    pub status: ApprovalStatus,
    /// Groups that have to agree, joined by a comma.
    pub approver_group: String,
    #[schema(format = DateTime)]
    pub expires_at: String,
    /// What was asked about.
    pub action_hash: String,
}

/// Where something is on record.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Receipt {
    pub receipt_id: String,
    /// SHA-256 of the leaf.
    pub receipt_hash: String,
    /// SHA-256 of the leaf before it.
    pub prev_receipt_hash: String,
}

/// An agent's token, shown once.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct IssuedToken {
    pub agent_id: String,
    /// `aegis_agt_…`
    pub agent_token: String,
    #[schema(format = DateTime)]
    pub expires_at: String,
}

/// An agent.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Agent {
    pub agent_id: String,
    pub agent_key: String,
    pub tenant: String,
    pub name: String,
    pub owner_team: String,
    pub owner_email: String,
    pub environment: String,
    pub risk_tier: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub framework: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub purpose: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model_provider: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model_name: Option<String>,
    /// Where its tokens may be used from; empty is anywhere.
    pub bind_cidr: Vec<String>,
    #[schema(schema_with = words::agent_state)]
    pub state: AgentState,
    #[schema(format = DateTime)]
    pub created_at: String,
    /// Grows with every transition.
    pub version: u64,
}

/// A page of agents, oldest first.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Agents {
    pub agents: Vec<Agent>,
    /// `after` of the next page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// An approver's token, shown once.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct IssuedApprover {
    pub person_id: String,
    /// `aegis_apr_…`
    pub approver_token: String,
    pub name: String,
    pub groups: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime)]
    pub expires_at: Option<String>,
}

/// An approver.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Approver {
    pub person_id: String,
    pub name: String,
    pub groups: Vec<String>,
    #[schema(format = DateTime)]
    pub created_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime)]
    pub expires_at: Option<String>,
    pub revoked: bool,
}

/// A page of approvers, oldest first.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Approvers {
    pub approvers: Vec<Approver>,
    /// `after` of the next page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// An approval.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Approval {
    pub approval_id: String,
    pub tenant: String,
    pub agent_id: String,
    pub route: String,
    pub action_hash: String,
    /// Version of the resource that was judged, where the system has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Every one of them has to agree.
    pub groups: Vec<String>,
    /// People of each group.
    pub quorum: u32,
    #[schema(schema_with = words::approval_status)]
    pub status: ApprovalStatus,
    /// `tool.action`
    pub action: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource: Option<String>,
    pub risk: String,
    #[schema(schema_with = words::trust)]
    pub source_trust: SourceTrust,
    /// Policies that ask for it.
    pub policies: Vec<String>,
    /// Configuration it was asked under.
    pub snapshot: String,
    #[schema(format = DateTime)]
    pub created_at: String,
    #[schema(format = DateTime)]
    pub expires_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime)]
    pub settled_at: Option<String>,
    /// People that said yes, or the one that said no.
    pub settled_by: Vec<String>,
    /// The actions with secrets masked, for approvers; gone once settled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub payload: Option<Vec<Value>>,
}

/// Approvals, newest first.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Approvals {
    pub approvals: Vec<Approval>,
}

/// A decision on record.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RecordedDecision {
    pub receipt_id: String,
    pub seq: u64,
    pub receipt_hash: String,
    #[schema(format = DateTime)]
    pub at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decision_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub action: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decision: Option<String>,
    /// The whole leaf.
    pub leaf: Value,
}

/// A page of decisions, newest first.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Decisions {
    pub decisions: Vec<RecordedDecision>,
    /// Every leaf below this sequence number was looked at.
    pub projected_through: u64,
    /// `before_seq` of the next page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<u64>,
}

/// A leaf of the log.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RecordedLeaf {
    pub receipt_id: String,
    pub seq: u64,
    /// SHA-256 of `leaf_text`.
    pub receipt_hash: String,
    /// The leaf's exact bytes, which are UTF-8.
    pub leaf_text: String,
    /// The same, parsed.
    pub leaf: Value,
}

/// A page of leaves, in order.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RecordedLeaves {
    pub receipts: Vec<RecordedLeaf>,
    pub node: String,
    /// `from_seq` of the next page; equal to `head` at the end.
    pub next: u64,
    /// Sequence number that the next leaf will get.
    pub head: u64,
}

/// A receipt to hand to someone; `aegis-verify-receipts` checks it offline.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Bundle {
    pub format: String,
    pub node: String,
    /// Leaves with their exact bytes, and what opens their commitments.
    pub leaves: Vec<Value>,
}

/// An explained receipt.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Why {
    pub receipt_id: String,
    /// The leaf as it is on record.
    pub leaf: Value,
    /// The action as mapped, secrets masked; `null` where it was erased or never was.
    #[schema(value_type = Option<Object>)]
    pub action: Option<Value>,
    /// What the policies in force now say, and what would have to be true.
    #[schema(value_type = Option<Object>)]
    pub explanation: Option<Value>,
    /// Whether the policies in force now are those of the decision.
    pub same_snapshot: bool,
    /// The outcome's leaf, where there is one.
    #[schema(value_type = Option<Object>)]
    pub outcome: Option<Value>,
    /// Whom to ask, and what to do next.
    pub next: Vec<String>,
}

/// Catalog entries that match.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Actions {
    pub actions: Vec<Action>,
    /// How many match.
    pub total: usize,
}

/// A catalog entry.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Action {
    /// `tool.action`
    pub name: String,
    pub tool: String,
    pub summary: String,
    /// The vendor's own operation id.
    pub operation: String,
    /// The operation on the wire.
    pub wire: String,
    #[schema(schema_with = words::class)]
    pub class: AccessClass,
    #[schema(schema_with = words::risk)]
    pub risk: Risk,
    pub mutates_state: bool,
    /// Template of `resource`; `null` where it has to be null.
    pub resource: Option<String>,
    /// Parameters that policies may read, by name: `type` and `required`.
    #[schema(value_type = Object)]
    pub parameters: BTreeMap<String, Parameter>,
    /// Facts that policies may read, by name: their type.
    #[schema(value_type = Object)]
    pub facts: BTreeMap<String, ParamType>,
}

/// A credential without its value.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Credential {
    pub name: String,
    pub vault: String,
    pub key: String,
    /// How it is sent; `null` where no `[[credential]]` says.
    pub kind: Option<String>,
    /// Routes that send it.
    pub routes: Vec<String>,
    /// Whether the vault has a value.
    pub stored: bool,
    /// Version of the value, as the vault counts it.
    pub version: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime)]
    pub updated_at: Option<String>,
    /// Why there is no value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// All credentials.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Credentials {
    pub credentials: Vec<Credential>,
}

/// A credential that was stored.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct StoredCredential {
    pub name: String,
    pub vault: String,
    pub version: String,
}

/// What a reload did.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Reloaded {
    /// `swapped` or `unchanged`.
    pub result: String,
    pub warnings: Vec<ConfigFinding>,
    /// The configuration in force.
    pub snapshot: String,
}

/// The process answers.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Health {
    /// Always `ok`.
    pub status: String,
}

/// The gateway can do its work.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Ready {
    /// Always `ready`; anything else is a problem with status 503.
    pub status: String,
    pub checks: Vec<Check>,
}

/// RFC 3339, UTC, milliseconds.
pub(crate) fn instant(at: Timestamp) -> String {
    let bound = if at.0 < 0 { jiff::Timestamp::MIN } else { jiff::Timestamp::MAX };
    let at = jiff::Timestamp::from_millisecond(at.0).unwrap_or(bound);
    DateTimePrinter::new().precision(Some(3)).timestamp_to_string(&at)
}

impl From<DecisionRecord> for Decision {
    fn from(r: DecisionRecord) -> Self {
        Self {
            decision_id: r.decision_id,
            decision: r.decision,
            reason: r.reason,
            message: r.message,
            action_hash: r.action_hash.to_hex(),
            canon_version: r.canon_version,
            matched_policies: r.matched_policies,
            risk: RiskAnswer { level: r.risk.level, class: r.risk.class },
            effective_trust: r.effective_trust,
            approval: r.approval.map(ApprovalSummary::from),
            receipt: r.receipt.into(),
            dry_run: r.dry_run,
        }
    }
}

impl From<ApprovalNote> for ApprovalSummary {
    fn from(n: ApprovalNote) -> Self {
        Self {
            approval_id: n.approval_id,
            status: n.status,
            approver_group: n.approver_group,
            expires_at: instant(n.expires_at),
            action_hash: n.action_hash.to_hex(),
        }
    }
}

impl From<ReceiptRef> for Receipt {
    fn from(r: ReceiptRef) -> Self {
        Self {
            receipt_id: r.receipt_id,
            receipt_hash: r.receipt_hash.to_hex(),
            prev_receipt_hash: r.prev_receipt_hash.to_hex(),
        }
    }
}

impl From<Enrolled> for IssuedToken {
    fn from(e: Enrolled) -> Self {
        Self {
            agent_id: e.agent.agent_id,
            agent_token: String::from_utf8_lossy(e.token.expose()).into_owned(),
            expires_at: instant(e.expires_at),
        }
    }
}

impl From<AgentRecord> for Agent {
    fn from(a: AgentRecord) -> Self {
        Self {
            agent_id: a.agent_id,
            agent_key: a.agent_key,
            tenant: a.tenant,
            name: a.name,
            owner_team: a.owner_team,
            owner_email: a.owner_email,
            environment: a.environment,
            risk_tier: a.risk_tier,
            framework: a.framework,
            purpose: a.purpose,
            model_provider: a.model_provider,
            model_name: a.model_name,
            bind_cidr: a.bind_cidr,
            state: a.state,
            created_at: instant(a.created_at),
            version: a.version,
        }
    }
}

impl From<PersonRecord> for Approver {
    fn from(p: PersonRecord) -> Self {
        Self {
            person_id: p.person_id,
            name: p.name,
            groups: p.groups,
            created_at: instant(p.created_at),
            expires_at: p.expires_at.map(instant),
            revoked: p.revoked,
        }
    }
}

impl From<ApprovalRecord> for Approval {
    fn from(a: ApprovalRecord) -> Self {
        Self {
            approval_id: a.approval_id,
            tenant: a.tenant,
            agent_id: a.agent_id,
            route: a.route,
            action_hash: a.action_hash.to_hex(),
            version: a.version,
            groups: a.groups,
            quorum: a.quorum,
            status: a.status,
            action: a.action,
            resource: a.resource,
            risk: a.risk,
            source_trust: a.source_trust,
            policies: a.policies,
            snapshot: a.snapshot.to_hex(),
            created_at: instant(a.created_at),
            expires_at: instant(a.expires_at),
            settled_at: a.settled_at.map(instant),
            settled_by: a.settled_by,
            payload: None,
        }
    }
}

impl From<ProjectedLeaf> for RecordedDecision {
    fn from(p: ProjectedLeaf) -> Self {
        Self {
            receipt_id: receipt_id(&p.node, p.seq),
            seq: p.seq,
            receipt_hash: p.receipt_hash.to_hex(),
            at: instant(p.at),
            decision_id: p.decision_id,
            agent_id: p.agent_id,
            action: p.action,
            resource: p.resource,
            decision: p.decision,
            leaf: p.leaf,
        }
    }
}

impl RecordedLeaf {
    pub(crate) fn new(node: &str, stored: StoredLeaf) -> Self {
        let leaf_text = String::from_utf8_lossy(&stored.bytes).into_owned();
        Self {
            receipt_id: receipt_id(node, stored.seq),
            seq: stored.seq,
            receipt_hash: stored.hash.to_hex(),
            leaf: serde_json::from_str(&leaf_text).unwrap_or_default(),
            leaf_text,
        }
    }
}

impl From<&Entry> for Action {
    fn from(e: &Entry) -> Self {
        Self {
            name: format!("{}.{}", e.tool, e.name),
            tool: e.tool.to_string(),
            summary: e.summary.clone(),
            operation: e.operation.clone(),
            wire: e.wire.clone(),
            class: e.class,
            risk: e.risk,
            mutates_state: e.mutates_state,
            resource: e.resource.clone(),
            parameters: e.parameters.clone(),
            facts: e.facts.clone(),
        }
    }
}

impl From<CredentialStatus> for Credential {
    fn from(c: CredentialStatus) -> Self {
        Self {
            name: c.name,
            vault: c.vault,
            key: c.key,
            kind: c.kind.map(str::to_owned),
            routes: c.routes,
            stored: c.version.is_some(),
            version: c.version,
            updated_at: c.updated_at.map(instant),
            problem: c.problem,
        }
    }
}

impl From<ConfigProblem> for ConfigFinding {
    fn from(p: ConfigProblem) -> Self {
        let severity = match p.severity {
            aegis_broker::config::Severity::Error => "error",
            aegis_broker::config::Severity::Warning => "warning",
        };
        Self { file: p.file, line: p.line, message: p.message, severity: severity.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_are_rfc_3339_with_milliseconds() {
        assert_eq!(instant(Timestamp(0)), "1970-01-01T00:00:00.000Z");
        assert_eq!(instant(Timestamp(1_767_225_600_001)), "2026-01-01T00:00:00.001Z");
        assert!(instant(Timestamp(i64::MAX)).starts_with("9999-12-30T"));
    }
}
