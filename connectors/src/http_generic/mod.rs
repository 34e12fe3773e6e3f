//! Any HTTP API, by method and URL: the grammar of routes that have no catalog of their own.
//!
//! `POST https://api.example.com/v1/things?dry=1` becomes the action `http.post` on the
//! resource `https://api.example.com/v1/things`, with query, body and unusual headers as parameters.
//! A gRPC call is `http.post` on its method's path; a WebSocket is `http.websocket` on its URL.

mod entries;
mod request;

use std::sync::Arc;

use aegis_action::ToolCall;
use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use serde_json::json;

use crate::{Call, Connector, Denial, Entry, ErrorReply, Head, Mapped, Plan, Refusal};

/// The system's name.
pub const SYSTEM: &str = "http";

/// The grammar of one route.
pub struct HttpConnector {
    /// `https://host[:port]`, with a base path if the route has one; no slash at the end.
    origin: String,
    /// Authority alone, the parent of every resource.
    host: String,
    route: String,
    allow_cookies: bool,
    allow_grpc: bool,
    allow_websocket: bool,
    entries: Vec<Arc<Entry>>,
}

impl HttpConnector {
    /// For the upstream `origin` (`https://host[:port]`, base path allowed) of a route.
    pub fn new(origin: &str, route: &str) -> Self {
        let origin = origin.trim_end_matches('/').to_owned();
        let authority = origin.split_once("://").map_or(origin.as_str(), |(_, rest)| rest);
        let host = authority.split('/').next().unwrap_or_default().to_ascii_lowercase();
        Self {
            origin,
            host,
            route: route.to_owned(),
            allow_cookies: false,
            allow_grpc: false,
            allow_websocket: false,
            entries: entries::entries(),
        }
    }

    /// Takes `application/grpc`, streamed; refused without this.
    pub fn allow_grpc(mut self) -> Self {
        self.allow_grpc = true;
        self
    }

    /// Takes WebSocket handshakes; refused without this.
    pub fn allow_websocket(mut self) -> Self {
        self.allow_websocket = true;
        self
    }

    /// Passes `Cookie` on and counts it among the parameters. Without this, cookies are dropped.
    pub fn allow_cookies(mut self) -> Self {
        self.allow_cookies = true;
        self
    }
}

impl Connector for HttpConnector {
    fn system(&self) -> &str {
        SYSTEM
    }

    fn plan(&self, head: &Head<'_>) -> Result<Plan, Refusal> {
        request::plan(self, head)
    }

    fn map(&self, plan: Plan, body: Option<Bytes>) -> Result<Mapped, Refusal> {
        request::map(self, plan, body)
    }

    fn validate(&self, call: ToolCall) -> Result<Call, Refusal> {
        request::validate(self, call)
    }

    fn catalog(&self) -> &[Arc<Entry>] {
        &self.entries
    }

    fn entry(&self, name: &str) -> Option<Arc<Entry>> {
        self.entries.iter().find(|e| e.name == name).cloned()
    }

    fn denial(&self, denial: &Denial) -> ErrorReply {
        let body = json!({
            "type": "about:blank",
            "title": denial.status.canonical_reason().unwrap_or("Refused"),
            "status": denial.status.as_u16(),
            "detail": denial.message,
            "reason": denial.reason,
            "route": self.route,
            "receipt": denial.receipt,
            "approval": denial.approval,
        });
        problem(denial.status, &body)
    }

    fn challenge(&self) -> ErrorReply {
        let body = json!({
            "type": "about:blank",
            "title": "Unauthorized",
            "status": 401,
            "detail": "send an Aegis agent token",
            "reason": "unauthenticated",
            "route": self.route,
        });
        let mut reply = problem(StatusCode::UNAUTHORIZED, &body);
        // Git and others send nothing to who does not ask for Basic; it carries the token as well.
        for scheme in ["Bearer realm=\"aegis\"", "Basic realm=\"aegis\""] {
            reply.headers.push((header::WWW_AUTHENTICATE, HeaderValue::from_static(scheme)));
        }
        reply
    }
}

fn problem(status: StatusCode, body: &serde_json::Value) -> ErrorReply {
    let media = HeaderValue::from_static("application/problem+json");
    ErrorReply { status, headers: vec![(header::CONTENT_TYPE, media)], body: Bytes::from(body.to_string()) }
}
