//! The values that go into a decision and come out of it.

use std::{collections::BTreeMap, fmt};

use aegis_action::{SourceTrust, Timestamp};
use aegis_connectors::Call;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// One policy file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicySource {
    /// Name for messages and for the order of hashing, e.g. `policies/default.cedar`.
    pub file: String,
    /// Cedar text.
    pub text: String,
}

/// The agent as policies see it: `Agent::"agt_…"` in `Team::"…"`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub struct Principal {
    /// Id of the Cedar entity.
    pub agent_id: String,
    /// The team it belongs to, its only parent.
    pub team: String,
    /// `principal.owner`: who answers for it.
    pub owner: String,
    /// `principal.environment`, e.g. `production`.
    pub environment: String,
    /// `principal.risk_tier`, e.g. `low`.
    pub risk_tier: String,
    /// `principal.framework`, absent where not declared.
    pub framework: Option<String>,
    /// `principal.binding`: how this request proved to be the agent, e.g. `bearer`.
    pub binding: String,
    /// Grows with every transition of the agent; part of every memo key.
    pub version: u64,
}

/// Everything a decision depends on besides the policies.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a> {
    /// Who asks.
    pub principal: &'a Principal,
    /// What for.
    pub call: &'a Call,
    /// The effective label, already the least of everything known.
    pub trust: SourceTrust,
    /// Fetched facts, by name; null is the same as absent.
    pub facts: &'a Map<String, Value>,
    /// The present instant.
    pub now: Timestamp,
    /// Route the request came by.
    pub route: &'a str,
    /// How the agent was bound on this request, e.g. `bearer`.
    pub identity: &'a str,
    /// Groups whose approval of this very action is at hand.
    pub approval_groups: &'a [String],
    /// What the caller declared, if anything.
    pub contains_sensitive_data: Option<bool>,
    /// `route`, `connect`, `sdk`, `sql` or `webhook`.
    pub door: &'a str,
}

/// The answer to one action.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    /// Do it.
    Allow,
    /// Do not.
    Deny,
    /// Every one of `groups` has to agree first, each with `quorum` people.
    RequireApproval {
        /// In name order, at least one.
        groups: Vec<String>,
        /// At least 1.
        quorum: u32,
    },
}

impl Decision {
    /// The name used in answers, leaves and cases.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
            Self::RequireApproval { .. } => "require_approval",
        }
    }
}

/// Why the answer is what it is; a stable code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// A permit applies and no forbid does.
    Allowed,
    /// A forbid applies that an approval would lift.
    Approval,
    /// No permit applies.
    NoPermit,
    /// A forbid applies.
    Forbidden,
    /// The policies could not be evaluated on this input.
    PolicyError,
    /// A fact that the policies read could not be had.
    FactUnavailable,
    /// An approval was at hand when the policies were asked, and used or withdrawn before it counted.
    ApprovalUsed,
    /// People would have to be asked, and the agent has as many questions open as it may have.
    ApprovalQuota,
    /// The gateway's own read of a fact, on behalf of a decision.
    Fact,
}

impl Reason {
    /// The stable code.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Approval => "approval",
            Self::NoPermit => "no_permit",
            Self::Forbidden => "forbidden",
            Self::PolicyError => "policy_error",
            Self::FactUnavailable => "fact_unavailable",
            Self::ApprovalUsed => "approval_used",
            Self::ApprovalQuota => "approval_quota",
            Self::Fact => "fact",
        }
    }
}

/// A decision with what it rests on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Evaluation {
    /// The answer.
    pub decision: Decision,
    /// Determining policy ids, in name order; empty where nothing applied.
    pub policies: Vec<String>,
    /// Why.
    pub reason: Reason,
    /// One sentence for the person who reads the client's error; never a parameter's value.
    pub message: String,
    /// What went wrong in evaluation, for the log.
    pub errors: Vec<String>,
}

/// Whether decisions over a slice may be remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum MemoKind {
    /// Keyed by every value that the slice reads.
    Keyed,
    /// A policy reads a whole record, so the values it reads cannot be told.
    WholeRecord,
    /// A policy reads the time.
    Time,
    /// A policy reads a fact, whose value has a life of its own.
    Facts,
    /// A policy reads approvals outside the gate of `@require_approval`.
    Approval,
}

/// What a policy does when it applies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PolicyEffect {
    /// Allows.
    Permit,
    /// Denies, whatever else allows.
    Forbid,
}

/// A policy as written.
#[derive(Debug, Clone, Serialize)]
pub struct PolicyInfo {
    /// `@id`.
    pub id: String,
    /// File it is in.
    pub file: String,
    /// Line it starts on, from 1.
    pub line: u32,
    /// Permit or forbid.
    pub effect: PolicyEffect,
    /// All annotations (`description`, `reason`, `require_approval`, …).
    pub annotations: BTreeMap<String, String>,
    /// Its text, annotations included.
    pub text: String,
}

impl PolicyInfo {
    /// What people are told when it decides: `@reason`, else `@description`, else its name.
    pub fn words(&self) -> String {
        let said = self.annotations.get("reason").or_else(|| self.annotations.get("description"));
        said.cloned().unwrap_or_else(|| format!("policy `{}`", self.id))
    }
}

/// Why a set of policies cannot be used. All of them are reported at once.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Problem {
    /// File.
    pub file: String,
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
}

/// Something that is probably not meant; the policies can be used.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Warning(pub Problem);

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: {}", self.file, self.line, self.column, self.message)?;
        match &self.help {
            Some(help) => write!(f, "; {help}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for Problem {}
