//! Requests as text, through a connector and back.

#![allow(dead_code, reason = "each test file uses its own part")]

use aegis_action::ToolCall;
use aegis_connectors::{BodyNeed, Connector, Head, Mapped, Refusal, UpstreamBody};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde_json::Value;

/// A request as a client writes it.
#[derive(Debug, Clone, Default)]
pub struct Request<'a> {
    pub method: &'a str,
    /// Path and query.
    pub target: &'a str,
    pub headers: Vec<(&'a str, &'a str)>,
    pub body: Option<Vec<u8>>,
    pub websocket: bool,
}

impl<'a> Request<'a> {
    /// `METHOD target`.
    pub fn new(line: &'a str) -> Self {
        let (method, target) = line.split_once(' ').unwrap();
        Self { method, target, ..Self::default() }
    }
    /// As a WebSocket handshake that framing has checked.
    pub fn websocket(self) -> Self {
        let shaken = self.header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==").header("sec-websocket-version", "13");
        Self { websocket: true, ..shaken }
    }
    pub fn header(mut self, name: &'a str, value: &'a str) -> Self {
        self.headers.push((name, value));
        self
    }
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = Some(body.into());
        self
    }
    pub fn json(self, body: &Value) -> Self {
        self.header("content-type", "application/json").body(body.to_string())
    }
    /// Plan and map, as the request path does.
    pub fn send(&self, connector: &dyn Connector) -> Result<Mapped, Refusal> {
        let mut headers = HeaderMap::new();
        for (name, value) in &self.headers {
            headers.append(HeaderName::try_from(*name).unwrap(), HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        let method = Method::from_bytes(self.method.as_bytes()).unwrap();
        let (path, query) = self.target.split_once('?').map_or((self.target, None), |(p, q)| (p, Some(q)));
        let head = Head {
            method: &method,
            path,
            query,
            headers: &headers,
            content_length: self.body.as_ref().map(|b| b.len() as u64),
            has_body: self.body.is_some(),
            websocket: self.websocket,
        };
        let plan = connector.plan(&head)?;
        let body = match plan.body {
            BodyNeed::Nothing => {
                assert!(self.body.is_none(), "the plan passed over a body");
                None
            }
            BodyNeed::Stream => None,
            BodyNeed::Buffer { .. } => self.body.clone().map(Bytes::from),
        };
        connector.map(plan, body)
    }
    /// The reason of the refusal.
    pub fn refusal(&self, connector: &dyn Connector) -> &'static str {
        match self.send(connector) {
            Ok(mapped) => panic!("{self:?} was read as {:?}", mapped.calls),
            Err(refusal) => {
                assert!(refusal.status.is_client_error(), "{refusal:?}");
                refusal.reason
            }
        }
    }
}

/// The five keys of the only call.
pub fn five(mapped: &Mapped) -> Value {
    assert_eq!(mapped.calls.len(), 1);
    serde_json::to_value(mapped.calls[0].action.call()).unwrap()
}

/// The same call through an SDK.
pub fn sdk(connector: &dyn Connector, call: &Value) -> Result<aegis_connectors::Call, Refusal> {
    connector.validate(serde_json::from_value::<ToolCall>(call.clone()).unwrap())
}

/// The upstream body as text; empty if there is none.
pub fn sent(mapped: &Mapped) -> String {
    match &mapped.upstream.body {
        UpstreamBody::Empty => String::new(),
        UpstreamBody::Bytes(bytes) => String::from_utf8(bytes.to_vec()).unwrap(),
        UpstreamBody::Stream => "<stream>".into(),
    }
}

/// The value of an upstream header.
pub fn header<'a>(mapped: &'a Mapped, name: &str) -> Option<&'a str> {
    let found = mapped.upstream.headers.iter().find(|(n, _)| n == name);
    found.map(|(_, value)| value.to_str().unwrap())
}
