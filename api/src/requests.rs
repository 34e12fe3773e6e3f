//! What the API takes. Unknown and repeated members are errors.

use aegis_action::{Digest, SourceTrust, ToolCall};
use aegis_broker::{
    agents::{Binding, Enrolment},
    authorize::{AuthorizeRequest, CallContext, CallTrace, CallUser, OutcomeReport},
};
use aegis_receipts::OutcomeState;
use serde::Deserialize;
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use crate::openapi::words;

/// A call to be decided. The principal is the token's agent, never a member of the body.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Authorize {
    #[schema(schema_with = words::tool_call)]
    pub tool_call: ToolCall,
    /// What the caller knows of its source; what it does not say contributes nothing.
    #[serde(default)]
    pub context: Context,
    /// Makes a resend find the first answer for 24 hours. Bound to the whole body.
    #[serde(default)]
    pub request_id: Option<String>,
    #[serde(default)]
    pub trace: Trace,
    #[serde(default)]
    pub user: Option<User>,
    /// Decide and record only.
    #[serde(default)]
    pub dry_run: bool,
}

/// What a caller says of its source.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Context {
    /// Can lower trust, never raise it.
    #[serde(default)]
    #[schema(schema_with = words::optional_trust)]
    pub source_trust: Option<SourceTrust>,
    #[serde(default)]
    pub contains_sensitive_data: Option<bool>,
}

/// Ids that join a decision to a run.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Trace {
    #[serde(default)]
    pub run_id: Option<String>,
    /// W3C trace id.
    #[serde(default)]
    pub trace_id: Option<String>,
    /// The run that started it.
    #[serde(default)]
    pub parent_run_id: Option<String>,
}

/// A label for the person behind the call; never a principal.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct User {
    pub id: String,
}

/// What came of an allowed call.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Outcome {
    pub status: OutcomeStatus,
    /// SHA-256 of the result, lowercase hex; never the result.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub result_digest: Option<Digest>,
    /// Size of the result; only with `result_digest`.
    #[serde(default)]
    pub result_bytes: Option<u64>,
}

/// How a call ended.
#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum OutcomeStatus {
    Completed,
    Failed,
}

/// The action that is about to run under an approval.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Consume {
    /// Of the action about to run; anything but what was approved is refused.
    #[schema(value_type = String)]
    pub action_hash: Digest,
    /// Needed where part of the action is masked in the approval.
    #[serde(default)]
    #[schema(schema_with = words::tool_call)]
    pub tool_call: Option<ToolCall>,
}

/// A new agent.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Register {
    /// The owner's own key for the agent; unique.
    pub agent_key: String,
    pub name: String,
    pub owner_team: String,
    pub owner_email: String,
    /// `production`, `staging`, …
    pub environment: String,
    /// `low`, `medium`, `high` or `critical`.
    pub risk_tier: String,
    #[serde(default)]
    pub framework: Option<String>,
    #[serde(default)]
    pub purpose: Option<String>,
    #[serde(default)]
    pub model_provider: Option<String>,
    #[serde(default)]
    pub model_name: Option<String>,
    /// Shapes of credential to issue; only `bearer`.
    #[serde(default)]
    pub credential_shapes: Option<Vec<String>>,
    /// Life of the token in seconds, 1 to 2,592,000; 86,400 where not given.
    #[serde(default)]
    pub ttl_seconds: Option<i64>,
    #[serde(default)]
    pub bind: Option<Bind>,
}

/// Where an agent's tokens may be used from. `mtls` and `dpop` are not supported and are refused.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Bind {
    #[serde(default)]
    pub cidr: Option<Blocks>,
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    pub mtls: Option<Value>,
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    pub dpop: Option<Value>,
}

/// CIDR blocks, or a single one.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(untagged, expecting = "expected a CIDR block or a list of them")]
pub(crate) enum Blocks {
    One(String),
    Many(Vec<String>),
}

/// A new token for an agent.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rotate {
    /// As at registration.
    #[serde(default)]
    pub ttl_seconds: Option<i64>,
    /// How long earlier tokens still work, 0 to 3,600; 0 where not given.
    #[serde(default)]
    pub overlap_seconds: Option<i64>,
}

/// A new token for the calling agent; the present one works for another minute.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RotateSelf {
    /// At least 1, at most the whole life of the present token, which it is where not given.
    #[serde(default)]
    pub ttl_seconds: Option<i64>,
}

/// How long a session lasts unless it is renewed.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Lease {
    /// In seconds, 1 to 3,600; 900 where not given.
    #[serde(default)]
    pub lease_seconds: Option<i64>,
}

/// A new root.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RotateCa {
    /// How long the present root still signs, 0 to 31,536,000; 2,592,000 (30 days) where not given.
    #[serde(default)]
    pub overlap_seconds: Option<i64>,
}

/// A new approver.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AddApprover {
    pub name: String,
    /// At least one.
    pub groups: Vec<String>,
    /// E-mail address; needed to approve critical actions, and never those of an agent that it owns.
    #[serde(default)]
    pub email: Option<String>,
    /// Slack user id, e.g. `U0123ABCD`: whose clicks on the buttons of a Slack message are theirs.
    #[serde(default)]
    pub slack_user: Option<String>,
    /// Life of the token in seconds, at least 1; endless where not given.
    #[serde(default)]
    pub ttl_seconds: Option<i64>,
}

/// A yes in advance.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct GiveGrant {
    pub agent_id: String,
    /// `tool.action`
    pub action: String,
    /// Exactly this one; left out where the action has none.
    #[serde(default)]
    pub resource: Option<String>,
    /// Groups to speak for; all of one's own where not given.
    #[serde(default)]
    pub groups: Option<Vec<String>>,
    /// How long it holds, in seconds: 1 to 2,592,000.
    pub ttl_seconds: i64,
    /// Why; at most 500 characters.
    #[serde(default)]
    pub reason: Option<String>,
}

/// Which grants.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct GrantQuery {
    /// Only this agent's.
    pub agent_id: Option<String>,
    /// 1 to 500, else 50.
    pub limit: Option<u32>,
}

/// A credential's value.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PutCredential {
    /// The secret. It goes into the embedded vault and never comes out through this API.
    pub value: String,
}

/// Nothing: `{}` or no body.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Nothing {}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Search {
    /// Words that must all occur.
    pub q: Option<String>,
    /// 1 to 500, default 50.
    pub limit: Option<u32>,
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Page {
    /// Id after which the page starts.
    pub after: Option<String>,
    /// 1 to 500, default 50.
    pub limit: Option<u32>,
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ApprovalQuery {
    pub agent_id: Option<String>,
    /// `pending`, `approved`, `rejected`, `expired`, `consumed` or `cancelled`.
    pub status: Option<String>,
    /// 1 to 500, default 50.
    pub limit: Option<u32>,
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct DecisionQuery {
    pub agent_id: Option<String>,
    /// `allow`, `deny` or `require_approval`.
    pub decision: Option<String>,
    /// `tool.action`
    pub action: Option<String>,
    /// Only decisions before this sequence number.
    pub before_seq: Option<u64>,
    /// 1 to 500, default 50.
    pub limit: Option<u32>,
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct LeafQuery {
    /// First leaf; without it the page holds the newest.
    pub from_seq: Option<u64>,
    /// 1 to 500, default 50.
    pub limit: Option<u32>,
}

impl From<Authorize> for AuthorizeRequest {
    fn from(a: Authorize) -> Self {
        Self {
            tool_call: a.tool_call,
            context: CallContext {
                source_trust: a.context.source_trust,
                contains_sensitive_data: a.context.contains_sensitive_data,
            },
            request_id: a.request_id,
            trace: CallTrace {
                run_id: a.trace.run_id,
                trace_id: a.trace.trace_id,
                parent_run_id: a.trace.parent_run_id,
            },
            user: a.user.map(|u| CallUser { id: u.id }),
            dry_run: a.dry_run,
        }
    }
}

impl From<Outcome> for OutcomeReport {
    fn from(o: Outcome) -> Self {
        let status = match o.status {
            OutcomeStatus::Completed => OutcomeState::Completed,
            OutcomeStatus::Failed => OutcomeState::Failed,
        };
        Self { status, result_digest: o.result_digest, result_bytes: o.result_bytes }
    }
}

impl From<Register> for Enrolment {
    fn from(r: Register) -> Self {
        Self {
            agent_key: r.agent_key,
            name: r.name,
            owner_team: r.owner_team,
            owner_email: r.owner_email,
            environment: r.environment,
            risk_tier: r.risk_tier,
            framework: r.framework,
            purpose: r.purpose,
            model_provider: r.model_provider,
            model_name: r.model_name,
            credential_shapes: r.credential_shapes,
            ttl_seconds: r.ttl_seconds,
            bind: r.bind.map(|b| Binding { cidr: b.cidr.map(Vec::from), mtls: b.mtls, dpop: b.dpop }),
        }
    }
}

impl From<Blocks> for Vec<String> {
    fn from(blocks: Blocks) -> Self {
        match blocks {
            Blocks::One(block) => vec![block],
            Blocks::Many(blocks) => blocks,
        }
    }
}
