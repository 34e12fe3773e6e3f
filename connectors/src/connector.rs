//! The contract between the request path and a system's grammar.

use std::{any::Any, collections::BTreeMap, sync::Arc};

use aegis_action::{AccessClass, Action, Risk, ToolCall};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use serde::Serialize;
use serde_json::{Map, Value};

/// One system's grammar.
pub trait Connector: Send + Sync {
    /// The system's name, the first half of a qualified action name, e.g. `github`.
    fn system(&self) -> &str;

    /// Reads the head: method, path, query and headers. Strict; whatever is not in the
    /// grammar is refused with the reason.
    fn plan(&self, head: &Head<'_>) -> Result<Plan, Refusal>;

    /// Reads the body that the plan asked for (`None` for [`BodyNeed::Nothing`] and
    /// [`BodyNeed::Stream`]) and returns actions and upstream request.
    fn map(&self, plan: Plan, body: Option<Bytes>) -> Result<Mapped, Refusal>;

    /// Checks a call made through an SDK against the catalog. Refuses, never rewrites.
    fn validate(&self, call: ToolCall) -> Result<Call, Refusal>;

    /// Catalog entries, in name order, for `aegis actions` and the policy schema.
    fn catalog(&self) -> &[Arc<Entry>];

    /// The entry of a name, if the catalog has it.
    fn entry(&self, name: &str) -> Option<Arc<Entry>>;

    /// A denial as this system's own clients expect an error.
    fn denial(&self, denial: &Denial) -> ErrorReply;

    /// What an unauthenticated client would be told by the real API.
    fn challenge(&self) -> ErrorReply;

    /// The read that brings a fact closer. Called until it says [`FactStep::Known`];
    /// `known` holds what earlier reads taught.
    fn fact_step(&self, call: &Call, fact: &str, known: &Map<String, Value>) -> FactStep {
        let _ = (call, fact, known);
        FactStep::Unknown
    }

    /// Learns facts from the answer to a read that [`Connector::fact_step`] asked for.
    fn learn(&self, read: &FactRead, status: StatusCode, body: &Value, known: &mut Map<String, Value>) {
        let _ = (read, status, body, known);
    }

    /// The fact that names the version of the resource an approval covers (e.g. `head_sha`), if any.
    fn version_fact(&self, call: &Call) -> Option<&'static str> {
        let _ = call;
        None
    }

    /// Makes the upstream request conditional on the version that was judged, where the API can.
    fn add_precondition(&self, call: &Call, version: &Value, upstream: &mut UpstreamRequest) {
        let _ = (call, version, upstream);
    }
}

/// A request's head after framing. Hop-by-hop headers, forwarding headers and the
/// agent's own credential are gone already.
#[derive(Debug, Clone, Copy)]
pub struct Head<'a> {
    /// Upper case and known; `TRACE` and `CONNECT` never get here.
    pub method: &'a Method,
    /// Origin-form path behind the route's prefix, as sent, still percent-encoded; starts with `/`.
    pub path: &'a str,
    /// What followed `?`, as sent.
    pub query: Option<&'a str>,
    /// The remaining headers.
    pub headers: &'a HeaderMap,
    /// `Content-Length`, or `None` for a body of unknown length.
    pub content_length: Option<u64>,
    /// Whether a body follows at all.
    pub has_body: bool,
    /// Whether this is a well-formed WebSocket handshake (RFC 6455, 4.2.1): frames will go both ways.
    pub websocket: bool,
}

/// What a head turned out to be.
pub struct Plan {
    /// The operation, where there is exactly one by now.
    pub entry: Option<Arc<Entry>>,
    /// What the request path must read before [`Connector::map`].
    pub body: BodyNeed,
    /// The connector's own parse, handed back to it in `map`.
    pub parsed: Box<dyn Any + Send>,
}

/// What of the body a decision needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyNeed {
    /// There must be none.
    Nothing,
    /// All of it, at most this many bytes; more is 413.
    Buffer {
        /// Bound in bytes.
        max: usize,
    },
    /// None of it: it is streamed and its digest goes into the outcome.
    Stream,
}

/// Actions and upstream request, from one parse.
#[derive(Debug)]
pub struct Mapped {
    /// At least one. Decided together, all or nothing.
    pub calls: Vec<Call>,
    /// What is sent if all are allowed.
    pub upstream: UpstreamRequest,
    /// How to read URLs in the answer, where clients follow them.
    pub rewrite: Option<Arc<dyn UriFields>>,
}

/// One action with what the catalog and the grammar know of it.
#[derive(Debug, Clone)]
pub struct Call {
    /// The canonical action.
    pub action: Action,
    /// Its catalog entry.
    pub entry: Arc<Entry>,
    /// Class for this call: the entry's, or a stricter one that the parameters call for
    /// (a contents write below `.github/workflows/` is `persist`).
    pub class: AccessClass,
    /// The resource and its ancestors, nearest first; empty where the resource is `null`.
    pub resource: Vec<EntityRef>,
    /// What only identifies the sending (idempotency keys); recorded, never hashed.
    pub sending: BTreeMap<String, String>,
}

/// A resource as policies name it, e.g. `GitHub::Repository::"octo/payments"`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub struct EntityRef {
    /// Cedar type, e.g. `GitHub::Repository`.
    pub ty: Arc<str>,
    /// Cedar id, e.g. `octo/payments`.
    pub id: String,
}

/// A catalog entry.
#[derive(Debug, Clone, Serialize)]
pub struct Entry {
    /// System, e.g. `github`.
    pub tool: Arc<str>,
    /// Published name; never changes.
    pub name: String,
    /// The vendor's own operation id, e.g. `pulls/merge`.
    pub operation: String,
    /// One line for people.
    pub summary: String,
    /// The operation on the wire, e.g. `PUT /repos/{owner}/{repo}/pulls/{pull_number}/merge`.
    pub wire: String,
    /// Access class.
    pub class: AccessClass,
    /// Risk level.
    pub risk: Risk,
    /// Whether the effect outlives the call.
    pub mutates_state: bool,
    /// Template of the resource, e.g. `{owner}/{repo}#{pull_number}`; `None` where it is `null`.
    pub resource: Option<String>,
    /// Cedar type of the resource, e.g. `GitHub::PullRequest`, and of its ancestors, nearest first.
    pub resource_types: Vec<Arc<str>>,
    /// Parameters that policies may read, by name.
    pub parameters: BTreeMap<String, Parameter>,
    /// Facts that can be had for this action, by name.
    pub facts: BTreeMap<String, ParamType>,
    /// Declared aliases of arguments, by alias; see [`Entry::argument_aliases`].
    pub aliases: BTreeMap<String, String>,
}

/// A typed parameter.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Parameter {
    /// Its type.
    #[serde(rename = "type")]
    pub ty: ParamType,
    /// Whether a request without it is malformed.
    pub required: bool,
}

/// The types that policies can read. Anything else is [`ParamType::Opaque`]: in the hash, not in policies.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ParamType {
    /// Cedar `String`.
    String,
    /// Cedar `Long`.
    Integer,
    /// Cedar `Bool`.
    Boolean,
    /// Cedar `Set<…>` of a scalar.
    List(Box<ParamType>),
    /// Cedar record; every member optional unless said.
    Record(BTreeMap<String, Parameter>),
    /// Not readable by policies.
    Opaque,
}

/// What is sent upstream: never the agent's bytes.
#[derive(Debug, Clone)]
pub struct UpstreamRequest {
    /// Method.
    pub method: Method,
    /// Path and query, rebuilt and percent-encoded by the connector; starts with `/`.
    pub path_and_query: String,
    /// The allow-listed headers, end to end only; no credential, no `Host`, no `Content-Length`.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Body.
    pub body: UpstreamBody,
}

/// Where the upstream body comes from.
#[derive(Debug, Clone)]
pub enum UpstreamBody {
    /// None.
    Empty,
    /// These bytes.
    Bytes(Bytes),
    /// The downstream body as it arrives.
    Stream,
}

/// Why a request is not in the grammar. Always a denial with a receipt.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}: {detail}")]
pub struct Refusal {
    /// Stable code, e.g. `bad_path`, `unknown_operation`, `bad_body`.
    pub reason: &'static str,
    /// What the client is told: which field, never a secret.
    pub detail: String,
    /// Status for the client.
    pub status: StatusCode,
}

/// A denial to be put into a system's own error shape.
#[derive(Debug, Clone)]
pub struct Denial {
    /// 401, 403, 404, 409, 413, 429, 503…
    pub status: StatusCode,
    /// Stable code, also sent as `Aegis-Reason`.
    pub reason: String,
    /// One sentence for the person who reads the client's error.
    pub message: String,
    /// Receipt id, where one exists.
    pub receipt: Option<String>,
    /// Approval to ask for, where that would help.
    pub approval: Option<String>,
}

/// An error reply in a system's own shape.
#[derive(Debug, Clone)]
pub struct ErrorReply {
    /// Status.
    pub status: StatusCode,
    /// Headers, `Content-Type` included.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Body.
    pub body: Bytes,
}

/// What to do to learn a fact.
#[derive(Debug, Clone)]
pub enum FactStep {
    /// It is in `known` (or is known to be absent).
    Known,
    /// Read this first.
    Read(Box<FactRead>),
    /// This connector has no such fact for this call.
    Unknown,
}

/// A read on the gateway's own account, brokered and receipted like any other.
#[derive(Debug, Clone)]
pub struct FactRead {
    /// The read as an action.
    pub call: Call,
    /// Its wire form.
    pub upstream: UpstreamRequest,
    /// The connector's own tag, for [`Connector::learn`].
    pub tag: &'static str,
}

/// Which strings of an answer are URLs by the vendor's own schema.
pub trait UriFields: Send + Sync + std::fmt::Debug {
    /// The node for the whole document.
    fn root(&self) -> UriNode;
    /// The node of a member, if anything below it can be a URL.
    fn member(&self, node: UriNode, key: &str) -> Option<UriNode>;
    /// The node of an array's items.
    fn items(&self, node: UriNode) -> Option<UriNode>;
    /// Whether a string at this node is a URL.
    fn is_uri(&self, node: UriNode) -> bool;
    /// Whether a member of this name holds a credential that the answer should not hand out.
    fn is_credential(&self, key: &str) -> bool {
        let _ = key;
        false
    }
    /// The path of a linked page as the client asked for it, where the vendor links under another name.
    fn page<'p>(&self, request_path: &'p str, linked_path: &str) -> Option<&'p str> {
        let _ = (request_path, linked_path);
        None
    }
}

/// A position in a vendor's response schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UriNode(pub u32);
