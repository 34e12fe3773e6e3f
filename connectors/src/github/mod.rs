//! GitHub's REST API: every operation of the vendor's description, and nothing else.
//!
//! Paths are as on `api.github.com`, or below `/api/v3` as clients send them to a GitHub
//! server of one's own. Owner, repository and other names that GitHub compares without case
//! are lower case in actions, entities and parameters; the upstream request keeps the
//! spelling that was sent.

mod catalog;
mod check;
mod escalate;
mod facts;
mod map;
mod plan;
mod reply;
mod resource;
mod route;
mod uris;
mod validate;

use std::sync::Arc;

use aegis_action::ToolCall;
use bytes::Bytes;
use http::StatusCode;
use serde_json::{Map, Value};

use self::catalog::{Catalog, catalog};
use crate::{
    Call, Connector, Denial, Entry, ErrorReply, FactRead, FactStep, Head, Mapped, Plan, Refusal, UpstreamRequest,
};

/// The system's name.
pub const SYSTEM: &str = "github";

pub use self::reply::same_page;

/// GitHub's grammar. Cheap to make: the catalog is read once a process.
pub struct GithubConnector {
    catalog: &'static Catalog,
}

impl GithubConnector {
    /// Reads the embedded catalog if this process has not yet.
    pub fn new() -> Self {
        Self { catalog: catalog() }
    }
}

impl Default for GithubConnector {
    fn default() -> Self {
        Self::new()
    }
}

impl Connector for GithubConnector {
    fn system(&self) -> &str {
        SYSTEM
    }

    fn plan(&self, head: &Head<'_>) -> Result<Plan, Refusal> {
        plan::plan(self.catalog, head)
    }

    fn map(&self, plan: Plan, body: Option<Bytes>) -> Result<Mapped, Refusal> {
        map::map(self.catalog, plan, body)
    }

    fn validate(&self, call: ToolCall) -> Result<Call, Refusal> {
        validate::validate(self.catalog, call)
    }

    fn catalog(&self) -> &[Arc<Entry>] {
        &self.catalog.entries
    }

    fn entry(&self, name: &str) -> Option<Arc<Entry>> {
        self.catalog.by_name(name).map(|o| o.entry.clone())
    }

    fn denial(&self, denial: &Denial) -> ErrorReply {
        reply::denial(denial)
    }

    fn challenge(&self) -> ErrorReply {
        reply::challenge()
    }

    fn fact_step(&self, call: &Call, fact: &str, known: &Map<String, Value>) -> FactStep {
        facts::step(self, call, fact, known)
    }

    fn learn(&self, read: &FactRead, status: StatusCode, body: &Value, known: &mut Map<String, Value>) {
        facts::learn(read, status, body, known);
    }

    fn version_fact(&self, call: &Call) -> Option<&'static str> {
        facts::version(&call.entry.operation)
    }

    fn add_precondition(&self, call: &Call, version: &Value, upstream: &mut UpstreamRequest) {
        facts::add_precondition(&call.entry.operation, version, upstream);
    }
}
