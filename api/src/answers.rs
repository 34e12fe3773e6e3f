//! What the API answers with. Instants are RFC 3339 in UTC with milliseconds.

use std::collections::BTreeMap;

use aegis_action::{AccessClass, Risk, SourceTrust};
use aegis_broker::{
    record::DecisionWord,
    store::{AgentState, ApprovalStatus},
};
use aegis_connectors::{ParamType, Parameter};
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

/// A session and its token, shown once.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct IssuedSession {
    /// `run_…`, also the `run_id` of every receipt that the token leaves.
    pub session_id: String,
    pub agent_id: String,
    /// `aegis_agt_…`
    pub agent_token: String,
    /// When it ends unless it is renewed.
    #[schema(format = DateTime)]
    pub expires_at: String,
}

/// A session.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Session {
    pub session_id: String,
    pub agent_id: String,
    /// When it ends unless it is renewed.
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
    #[serde(skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slack_user: Option<String>,
    pub groups: Vec<String>,
    #[schema(format = DateTime)]
    pub created_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime)]
    pub expires_at: Option<String>,
    pub revoked: bool,
}

/// A yes in advance, for one agent, action and resource.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Grant {
    pub grant_id: String,
    pub agent_id: String,
    /// `tool.action`
    pub action: String,
    pub resource: Option<String>,
    /// Groups that the person spoke for.
    pub groups: Vec<String>,
    /// Who gave it.
    pub person_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    #[schema(format = DateTime)]
    pub created_at: String,
    #[schema(format = DateTime)]
    pub expires_at: String,
    /// When it was ended before its time.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime)]
    pub revoked_at: Option<String>,
    /// Whether it lifts anything now.
    pub holds: bool,
}

/// Grants, newest first.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Grants {
    pub grants: Vec<Grant>,
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
    /// What SDKs rename arguments by, alias to the name of a parameter or of a variable in `resource`.
    pub aliases: BTreeMap<String, String>,
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
    /// Webhooks that use it.
    pub webhooks: Vec<String>,
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

/// The certificate authority.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CaAnswer {
    /// The one that signs first.
    pub roots: Vec<CaRoot>,
    /// When the second root takes over, during a rotation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rotates_at: Option<String>,
    /// When the intermediate ends; it is renewed before.
    pub intermediate_expires_at: String,
    /// Whether the intermediate is the operator's own.
    pub provided: bool,
    /// PEM of the roots to trust.
    pub bundle: String,
}

/// A root that clients have to trust.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CaRoot {
    /// Of the certificate, hex.
    pub sha256: String,
    pub subject: String,
    pub not_before: String,
    pub expires_at: String,
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
