//! State behind SQL: the contract every store keeps.

use aegis_action::{Digest, SourceTrust, Timestamp};
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Authoritative state (agents, approvals, people, idempotency keys) and projections of the log.
///
/// Contract:
/// - Every method is one transaction: when it returns `Ok` the change is durable, when it
///   returns `Err` nothing has changed. A dropped future leaves either all or nothing.
/// - Every transition takes the [`OutboxEvent`] that will become its leaf and stores it in
///   the same transaction. Events come back from [`Store::outbox`] in the order of their
///   transactions until [`Store::outbox_done`]; a crash in between makes them come again,
///   so the drain is at-least-once and a leaf carries the event id.
/// - Conditional updates ([`Store::settle_approval`], [`Store::consume_approval`],
///   [`Store::transition_agent`], [`Store::end_session`]) are single statements: of any number of racing calls,
///   in any number of processes, exactly one succeeds.
/// - Tokens are stored as keyed hashes only. Nothing here holds secret bytes in the clear.
#[async_trait]
pub trait Store: Send + Sync {
    /// Adds an agent with its first token; [`StoreError::Conflict`] when `agent_key` is taken.
    async fn insert_agent(
        &self,
        agent: &AgentRecord,
        token: &TokenRecord,
        event: &OutboxEvent,
    ) -> Result<(), StoreError>;
    /// By id.
    async fn agent(&self, agent_id: &str) -> Result<Option<AgentRecord>, StoreError>;
    /// By key.
    async fn agent_by_key(&self, agent_key: &str) -> Result<Option<AgentRecord>, StoreError>;
    /// All, oldest first.
    async fn agents(&self) -> Result<Vec<AgentRecord>, StoreError>;
    /// The agent of a token hash, whatever the state of either.
    async fn agent_by_token(&self, token_hash: &Digest) -> Result<Option<(AgentRecord, TokenRecord)>, StoreError>;
    /// Moves an agent to `to` if its state is one of `from`; [`StoreError::Conflict`] names the actual state.
    async fn transition_agent(
        &self,
        agent_id: &str,
        from: &[AgentState],
        to: AgentState,
        event: &OutboxEvent,
    ) -> Result<AgentRecord, StoreError>;
    /// Adds a token and lets all earlier tokens of the agent that are no session's end at `old_until` (or sooner).
    async fn rotate_token(
        &self,
        agent_id: &str,
        token: &TokenRecord,
        old_until: Timestamp,
        event: &OutboxEvent,
    ) -> Result<(), StoreError>;

    /// Adds the token of a session; only to an active agent ([`StoreError::Conflict`] names its state).
    async fn start_session(&self, token: &TokenRecord, event: &OutboxEvent) -> Result<(), StoreError>;
    /// Lets a session that has not ended at `now` last until `until`, or longer if it would anyway; when it ends now.
    /// [`StoreError::NotFound`] where the agent has no such session, [`StoreError::Conflict`] where it is over.
    async fn renew_session(
        &self,
        agent_id: &str,
        session_id: &str,
        now: Timestamp,
        until: Timestamp,
        event: &OutboxEvent,
    ) -> Result<Timestamp, StoreError>;
    /// Ends a session at `now`; `Ok(false)` where the agent has no such session, or it is over.
    async fn end_session(
        &self,
        agent_id: &str,
        session_id: &str,
        now: Timestamp,
        event: &OutboxEvent,
    ) -> Result<bool, StoreError>;

    /// Adds a person (approver or admin) with a token.
    async fn insert_person(&self, person: &PersonRecord, event: &OutboxEvent) -> Result<(), StoreError>;
    /// The person of a token hash.
    async fn person_by_token(&self, token_hash: &Digest) -> Result<Option<PersonRecord>, StoreError>;
    /// All, oldest first.
    async fn people(&self) -> Result<Vec<PersonRecord>, StoreError>;
    /// Ends a person's access, and with it the grants they gave, as of the event's instant; `Ok(false)` where there is
    /// no such active person.
    async fn revoke_person(&self, person_id: &str, event: &OutboxEvent) -> Result<bool, StoreError>;

    /// Adds a pending approval, or returns the live one (pending and not expired at `now`)
    /// that has the same agent, route, action hash and version. [`StoreError::TooMany`] where the agent
    /// has `most` pending ones already.
    async fn ask_approval(
        &self,
        approval: &ApprovalRecord,
        now: Timestamp,
        most: u32,
        event: &OutboxEvent,
    ) -> Result<ApprovalRecord, StoreError>;
    /// By id. Pending and approved records past `expires_at` read as `expired`.
    async fn approval(&self, approval_id: &str, now: Timestamp) -> Result<Option<ApprovalRecord>, StoreError>;
    /// Newest first, optionally of one agent or one status.
    async fn approvals(
        &self,
        agent_id: Option<&str>,
        status: Option<ApprovalStatus>,
        limit: u32,
        now: Timestamp,
    ) -> Result<Vec<ApprovalRecord>, StoreError>;
    /// Approved, unexpired approvals of one agent, route and action hash.
    async fn granted_approvals(
        &self,
        agent_id: &str,
        route: &str,
        action_hash: &Digest,
        now: Timestamp,
    ) -> Result<Vec<ApprovalRecord>, StoreError>;
    /// Records one person's yes; becomes `approved` once `quorum` distinct people said so. A no settles at once.
    /// Only while pending and unexpired; [`StoreError::Conflict`] names the actual status.
    /// The person must have access at `now` ([`StoreError::NotFound`]); a second yes of theirs is a conflict.
    /// With `seen`, only while exactly these people have said yes: [`StoreError::Conflict`] otherwise, so that
    /// a decision taken on the votes holds for them, whoever else writes.
    async fn settle_approval(
        &self,
        approval_id: &str,
        person_id: &str,
        yes: bool,
        seen: Option<&[String]>,
        now: Timestamp,
        event: &OutboxEvent,
    ) -> Result<ApprovalRecord, StoreError>;
    /// approved → consumed if agent and hash match and it is unexpired: one conditional update. `Ok(false)` otherwise. Erases the sealed payload.
    async fn consume_approval(
        &self,
        approval_id: &str,
        agent_id: &str,
        action_hash: &Digest,
        now: Timestamp,
        event: &OutboxEvent,
    ) -> Result<bool, StoreError>;

    /// Pending and approved rows that are past `expires_at` at `now` and do not say so yet, oldest first.
    async fn due_approvals(&self, now: Timestamp, limit: u32) -> Result<Vec<ApprovalRecord>, StoreError>;
    /// Writes `expired` into a row that is due; `Ok(false)` where it is not (any more): one conditional update.
    async fn expire_approval(&self, approval_id: &str, now: Timestamp, event: &OutboxEvent)
    -> Result<bool, StoreError>;

    /// Adds a grant. Its agent and person must exist.
    async fn insert_grant(&self, grant: &GrantRecord, event: &OutboxEvent) -> Result<(), StoreError>;
    /// Grants, newest first, optionally of one agent.
    async fn grants(&self, agent_id: Option<&str>, limit: u32) -> Result<Vec<GrantRecord>, StoreError>;
    /// Grants of this agent for exactly this action and resource that hold at `now`, oldest first.
    async fn live_grants(
        &self,
        agent_id: &str,
        action: &str,
        resource: Option<&str>,
        now: Timestamp,
    ) -> Result<Vec<GrantRecord>, StoreError>;
    /// Ends a grant at `now`; `Ok(false)` where there is none, or it is over.
    async fn revoke_grant(&self, grant_id: &str, now: Timestamp, event: &OutboxEvent) -> Result<bool, StoreError>;

    /// Claims an idempotency key for a body. Keys older than their `expires_at` count as absent.
    /// Keys end when their agent leaves `active`, and only an active agent claims ([`StoreError::Conflict`] names its state).
    async fn idempotency_claim(
        &self,
        agent_id: &str,
        request_id: &str,
        body_hash: &Digest,
        now: Timestamp,
        expires_at: Timestamp,
    ) -> Result<IdempotencyClaim, StoreError>;
    /// Stores the answer for replays.
    async fn idempotency_finish(&self, agent_id: &str, request_id: &str, answer: &Value) -> Result<(), StoreError>;
    /// Gives a claim up (nothing was decided), so that a retry starts anew.
    async fn idempotency_release(&self, agent_id: &str, request_id: &str) -> Result<(), StoreError>;

    /// Undrained events, oldest first.
    async fn outbox(&self, limit: u32) -> Result<Vec<OutboxEvent>, StoreError>;
    /// Forgets drained events.
    async fn outbox_done(&self, event_ids: &[String]) -> Result<(), StoreError>;

    /// Adds rows of the log's projection; rows already there (same node and seq) are left alone.
    async fn project(&self, rows: &[ProjectedLeaf]) -> Result<(), StoreError>;
    /// The first sequence number of `node` that is not projected yet.
    async fn projected_through(&self, node: &str) -> Result<u64, StoreError>;
    /// Decisions (intent leaves), newest first.
    async fn decisions(&self, filter: &DecisionFilter) -> Result<Vec<ProjectedLeaf>, StoreError>;
    /// The outcome leaf that names this decision.
    async fn outcome_of(&self, decision_id: &str) -> Result<Option<ProjectedLeaf>, StoreError>;
    /// Forgets the projection of a node, to be replayed from its log.
    async fn clear_projection(&self, node: &str) -> Result<(), StoreError>;

    /// The first leaf of `node` that a webhook has not been told yet; `None` where it has never been told any.
    async fn webhook_cursor(&self, webhook: &str, node: &str) -> Result<Option<u64>, StoreError>;
    /// Moves that place. The log's one process is the only writer of a node's cursors.
    async fn put_webhook_cursor(&self, webhook: &str, node: &str, next_seq: u64) -> Result<(), StoreError>;
    /// Forgets the cursors that a node has for other webhooks than these.
    async fn keep_webhook_cursors(&self, webhooks: &[String], node: &str) -> Result<(), StoreError>;

    /// Whether the database answers and can be written.
    async fn health(&self) -> Result<(), StoreError>;
}

/// An agent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AgentRecord {
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
    /// `bind`: CIDR blocks the agent's token may come from; empty means anywhere.
    pub bind_cidr: Vec<String>,
    pub state: AgentState,
    pub created_at: Timestamp,
    /// Grows by one with every transition; part of every cache key.
    pub version: u64,
}

/// Life of an agent. `Revoked` is final.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AgentState {
    Active,
    Frozen,
    Quarantined,
    Revoked,
    Expired,
}

/// One token of an agent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TokenRecord {
    /// Keyed hash; the token itself is stored nowhere.
    pub token_hash: Digest,
    pub agent_id: String,
    /// The session it is for, if it is for one; also the run's id in every receipt.
    pub session_id: Option<String>,
    pub created_at: Timestamp,
    /// Of a session: when it ends unless it is renewed.
    pub expires_at: Timestamp,
}

/// Someone with a credential of their own.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PersonRecord {
    pub person_id: String,
    pub name: String,
    /// Who it is; approvers of critical actions need one, so that nobody approves for an agent of their own.
    pub email: Option<String>,
    /// Slack user whose clicks are theirs; of one approver with access at a time.
    pub slack_user: Option<String>,
    pub role: PersonRole,
    /// Approver groups; empty for admins.
    pub groups: Vec<String>,
    pub token_hash: Digest,
    pub created_at: Timestamp,
    pub expires_at: Option<Timestamp>,
    pub revoked: bool,
}

/// Admins administer, approvers approve; neither can do the other's work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PersonRole {
    Admin,
    Approver,
}

/// An approval of exactly one action.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ApprovalRecord {
    pub approval_id: String,
    pub tenant: String,
    pub agent_id: String,
    pub route: String,
    pub action_hash: Digest,
    /// Version of the resource that was shown (head sha, ETag), where the API has one.
    pub version: Option<String>,
    /// Groups of which one member each must say yes.
    pub groups: Vec<String>,
    pub quorum: u32,
    pub status: ApprovalStatus,
    /// `tool.action`.
    pub action: String,
    pub resource: Option<String>,
    pub risk: String,
    pub source_trust: SourceTrust,
    /// The five keys with secrets masked, sealed; erased on settlement.
    #[serde(skip)]
    pub sealed_payload: Option<Vec<u8>>,
    pub policies: Vec<String>,
    pub snapshot: Digest,
    pub created_at: Timestamp,
    pub expires_at: Timestamp,
    pub settled_at: Option<Timestamp>,
    /// Person ids that said yes (or the one that said no).
    pub settled_by: Vec<String>,
}

/// Life of an approval.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ApprovalStatus {
    Pending,
    Approved,
    Rejected,
    Expired,
    Consumed,
    Cancelled,
}

/// A person's yes in advance: one agent, one action, one resource, until an instant.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GrantRecord {
    pub grant_id: String,
    pub tenant: String,
    pub agent_id: String,
    /// `tool.action`.
    pub action: String,
    /// Exactly this one; `None` for actions without a resource.
    pub resource: Option<String>,
    /// Groups that the person spoke for.
    pub groups: Vec<String>,
    /// Who granted it.
    pub person_id: String,
    /// Why, in their words.
    pub reason: Option<String>,
    pub created_at: Timestamp,
    pub expires_at: Timestamp,
    pub revoked_at: Option<Timestamp>,
}

/// What became of an idempotency key.
#[derive(Debug, Clone, PartialEq)]
pub enum IdempotencyClaim {
    /// Ours now.
    Fresh,
    /// Same body, answered before.
    Replay(Value),
    /// Same body, still being decided.
    InFlight,
    /// Another body.
    Mismatch,
}

/// A transition waiting to become a leaf.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OutboxEvent {
    pub event_id: String,
    /// Leaf kind, e.g. `agent_registered`, `agent_frozen`, `approval_asked`.
    pub kind: String,
    pub at: Timestamp,
    /// Members of the leaf; no secrets.
    pub body: Value,
}

/// One leaf as the API lists it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProjectedLeaf {
    pub node: String,
    pub seq: u64,
    pub receipt_hash: Digest,
    pub kind: String,
    pub at: Timestamp,
    pub decision_id: Option<String>,
    pub agent_id: Option<String>,
    pub action: Option<String>,
    pub resource: Option<String>,
    pub decision: Option<String>,
    /// The leaf itself.
    pub leaf: Value,
}

/// Which decisions to list.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct DecisionFilter {
    pub agent_id: Option<String>,
    pub decision: Option<String>,
    pub action: Option<String>,
    /// Only those older than this `(node, seq)` pair's seq, for paging.
    pub before_seq: Option<u64>,
    pub limit: u32,
}

/// What can go wrong.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The row is not in the state the transition starts from, or a unique key is taken.
    #[error("conflict: {0}")]
    Conflict(String),
    /// There is no such row.
    #[error("not found: {0}")]
    NotFound(String),
    /// There are as many as there may be.
    #[error("too many: {0}")]
    TooMany(String),
    /// The database cannot be read or written; callers deny.
    #[error("store unavailable: {0}")]
    Unavailable(String),
}
