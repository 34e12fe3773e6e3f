//! Leaves: what one line of the record says.
//!
//! A serialised leaf is `aegis-jcs-1` JSON of at most [`MAX_LEAF_BYTES`]. Besides the
//! members of its body every leaf has `node`, `seq`, `ts`, `prev_receipt_hash` and
//! `type`. Members without a value are left out. Integers stay within ±(2^53−1).

mod parse;
mod write;

use std::collections::BTreeMap;

use aegis_action::{AccessClass, Digest, Risk, SourceTrust, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use parse::{Leaf, LeafError};
pub(crate) use write::{Stamp, entry_bytes, write_leaf};

/// The longest leaf: its length travels in two bytes (C2SP `tlog-tiles` entry bundles).
pub const MAX_LEAF_BYTES: usize = 65_535;

/// What a leaf records.
#[derive(Debug, Clone, PartialEq)]
pub enum LeafBody {
    /// A decision, before anything is sent.
    Intent(Box<Intent>),
    /// What became of an allowed action.
    Outcome(OutcomeEntry),
    /// What became of several reads. Made by the log, which merges them.
    Outcomes(Vec<OutcomeEntry>),
    /// A denial before there was an action to decide.
    Refused(Refused),
    /// A change of state: enrolment, freeze, approval step, new snapshot.
    Event(Event),
    /// A torn tail was cut after a crash. Made by the log.
    Recovered(Recovered),
}

/// A decision on one action. One request may be several actions: then `index` and
/// `count` say which of how many this is, and `decision_id` is shared.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Intent {
    /// Catalog name, e.g. `merge_pull_request`.
    pub action: String,
    /// [`crate::commit()`] of the action hash.
    pub action_commitment: Digest,
    /// How the agent was bound to the request, e.g. `bearer`.
    pub agent_binding: String,
    /// The agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_id: Option<String>,
    /// The approval this decision rests on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approval: Option<ApprovalUse>,
    /// Access class of this call.
    pub class: AccessClass,
    /// How many actions the request is, where it is more than one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u32>,
    /// Id of the credential that will be injected; never the credential.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential: Option<String>,
    /// What was decided.
    pub decision: Decision,
    /// Names the decision in answers, logs and outcomes.
    pub decision_id: String,
    /// Where the request came in.
    pub door: Door,
    /// Asked only, nothing will be sent. Left out when false.
    #[serde(default, skip_serializing_if = "is_false")]
    pub dry_run: bool,
    /// Which of `count` this is, from 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<u32>,
    /// Whether the effect outlives the call.
    pub mutates_state: bool,
    /// [`crate::commit()`] of the SHA-256 of the canonical parameters.
    pub parameters_commitment: Digest,
    /// Run that started this run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent_run_id: Option<String>,
    /// Ids of the policies that decided. Left out when there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub policies: Vec<String>,
    /// Stable code, e.g. `allowed`, `no_permit`.
    pub reason: String,
    /// The caller's own id of the request (`request_id`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// What is acted on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<String>,
    /// Risk level.
    pub risk: Risk,
    /// Route name.
    pub route: String,
    /// Run of the agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_id: Option<String>,
    /// What only identifies the sending (idempotency keys), ASCII names. Left out when empty.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub sending: BTreeMap<String, String>,
    /// Hash of routes, policies, schema, tools and limits in force.
    pub snapshot: Digest,
    /// Effective source trust.
    pub source_trust: SourceTrust,
    /// Tenant.
    pub tenant: String,
    /// System, e.g. `github`.
    pub tool: String,
    /// W3C trace id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<String>,
    /// The caller's label for a user; a label, not an identity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
}

/// What was decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    /// May be sent.
    Allow,
    /// Is not sent.
    Deny,
    /// Is not sent until someone approves.
    RequireApproval,
}

/// Where a request came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Door {
    /// Reverse proxy, by base URL, host or port.
    Route,
    /// Forward proxy.
    Connect,
    /// `POST /v1/authorize`.
    Sdk,
    /// Database protocol.
    Sql,
    /// Ingested from a webhook or trace.
    Webhook,
    /// The gateway's own read of a fact that a policy needs.
    Fact,
}

/// An approval that was used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApprovalUse {
    /// Who said yes.
    pub approvers: Vec<String>,
    /// Approval id.
    pub id: String,
}

/// What became of one allowed action.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OutcomeEntry {
    /// The credential that was injected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential: Option<CredentialUse>,
    /// The intent's decision.
    pub decision_id: String,
    /// When the exchange ended, milliseconds since the epoch.
    pub ended_at: Timestamp,
    /// The intent's sequence number; in the same log, before this leaf.
    pub intent_seq: u64,
    /// A read may share a leaf with others and wait for them a moment. Not part of the leaf.
    #[serde(skip)]
    pub of_read: bool,
    /// Body bytes from upstream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub received: Option<Transfer>,
    /// Body bytes to upstream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sent: Option<Transfer>,
    /// When the exchange started, milliseconds since the epoch.
    pub started_at: Timestamp,
    /// How it ended.
    pub state: OutcomeState,
    /// What the response guard removed or found, e.g. `credential_echo`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tamper: Option<String>,
    /// Status the upstream gave.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upstream_status: Option<u16>,
}

/// How an exchange ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutcomeState {
    /// The upstream answered and the answer was delivered.
    Completed,
    /// The upstream answered with an error, or not at all, and nothing happened there.
    Failed,
    /// Nothing was sent.
    Aborted,
    /// Something was sent and nobody knows what came of it. Never retried silently.
    Unknown,
}

/// A credential that was used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CredentialUse {
    /// Credential id.
    pub id: String,
    /// Version, as the vault counts it.
    pub version: String,
}

/// Bytes that went one way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transfer {
    /// How many.
    pub bytes: u64,
    /// How many frames they made, where they were a WebSocket's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frames: Option<u64>,
    /// SHA-256 of them, where the transfer got to its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<Digest>,
}

/// A denial before there was an action: bad token, frozen agent, refused bytes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Refused {
    /// The agent, where the token named one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_id: Option<String>,
    /// How many refusals this leaf stands for, at least 1.
    pub count: u64,
    /// What exactly, for people; no bytes of the request that could be a secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// Where it came in.
    pub door: Door,
    /// Stable code, e.g. `unknown_token`, `agent_frozen`, `bad_path`.
    pub reason: String,
    /// Route, where it was found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route: Option<String>,
    /// When the first of `count` came, milliseconds since the epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// Where it came from, as coarse as it is counted, e.g. `203.0.113.0/24`.
    pub source: String,
    /// Status that was answered.
    pub status: u16,
    /// Tenant, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// W3C trace id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<String>,
}

/// A change of state. Events arrive at least once: `event_id` tells repeats.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// When the change was made, milliseconds since the epoch.
    pub at: Timestamp,
    /// What is said about it; no secrets. Must have a canonical form.
    pub body: Map<String, Value>,
    /// Unique.
    pub event_id: String,
    /// E.g. `agent_registered`, `agent_frozen`, `approval_asked`.
    pub kind: String,
}

/// A torn tail was cut.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recovered {
    /// How many bytes.
    pub bytes: u64,
    /// How many whole records were among them.
    pub leaves: u64,
    /// Where they are kept, a name in `torn/`.
    pub torn: String,
}

impl Decision {
    /// The name used in leaves and answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
            Self::RequireApproval => "require_approval",
        }
    }
}

impl Door {
    /// The name used in leaves and policies.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Route => "route",
            Self::Connect => "connect",
            Self::Sdk => "sdk",
            Self::Sql => "sql",
            Self::Webhook => "webhook",
            Self::Fact => "fact",
        }
    }

    /// Whether the gateway itself sends what is allowed here, so that an outcome always follows.
    pub fn forwards(self) -> bool {
        matches!(self, Self::Route | Self::Connect | Self::Sql | Self::Fact)
    }
}

impl OutcomeState {
    /// The name used in leaves.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Aborted => "aborted",
            Self::Unknown => "unknown",
        }
    }
}

impl Intent {
    /// Whether an outcome will follow for which the log must keep room.
    pub(crate) fn opens(&self) -> bool {
        self.decision == Decision::Allow && !self.dry_run && self.door.forwards()
    }
}

impl LeafBody {
    /// The value of `type`.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Intent(_) => "intent.v1",
            Self::Outcome(_) => "outcome.v1",
            Self::Outcomes(_) => "outcomes.v1",
            Self::Refused(_) => "refused.v1",
            Self::Event(_) => "event.v1",
            Self::Recovered(_) => "recovered.v1",
        }
    }
}

impl From<Intent> for LeafBody {
    fn from(intent: Intent) -> Self {
        Self::Intent(Box::new(intent))
    }
}
impl From<OutcomeEntry> for LeafBody {
    fn from(entry: OutcomeEntry) -> Self {
        Self::Outcome(entry)
    }
}
impl From<Refused> for LeafBody {
    fn from(refused: Refused) -> Self {
        Self::Refused(refused)
    }
}
impl From<Event> for LeafBody {
    fn from(event: Event) -> Self {
        Self::Event(event)
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes fields by reference")]
fn is_false(b: &bool) -> bool {
    !b
}
