//! Opaque tunnels of the forward proxy: one action, decided before a byte goes through.
//!
//! `CONNECT files.example.com:443` to a host that no route serves becomes `tunnel.connect` on
//! `files.example.com:443`, below `Tunnel::Host::"files.example.com"`. What is said inside is
//! not read, so there is no wire form to plan or map.

use std::{collections::BTreeMap, sync::Arc};

use aegis_action::{AccessClass, Action, Risk, ToolCall};
use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use serde_json::{Map, Value, json};

use crate::{
    Call, Connector, Denial, EntityRef, Entry, ErrorReply, Head, Mapped, ParamType, Parameter, Plan, Refusal,
    wire::{bad, refuse},
};

/// The system's name.
pub const SYSTEM: &str = "tunnel";

/// The grammar of opaque tunnels.
pub struct TunnelConnector {
    entries: Vec<Arc<Entry>>,
}

impl TunnelConnector {
    /// The only one there is.
    pub fn new() -> Self {
        Self { entries: vec![Arc::new(entry())] }
    }

    /// The action of a tunnel. `host` is a lower-case name, or an address without brackets.
    pub fn connect(&self, host: &str, port: u16) -> Result<Call, Refusal> {
        let entry = self.entries.first().cloned();
        let entry = entry.ok_or_else(|| refuse("internal", StatusCode::INTERNAL_SERVER_ERROR, "no such action"))?;
        let endpoint = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
        let action = Action::new(ToolCall {
            tool: SYSTEM.into(),
            action: entry.name.clone(),
            resource: Some(endpoint.clone()),
            mutates_state: entry.mutates_state,
            parameters: Map::from_iter([("host".into(), host.into()), ("port".into(), port.into())]),
        });
        let action = action.map_err(|e| bad("bad_action", e.to_string()))?;
        let resource = vec![
            EntityRef { ty: Arc::from(ENDPOINT), id: endpoint },
            EntityRef { ty: Arc::from(HOST), id: host.to_owned() },
        ];
        Ok(Call { action, class: entry.class, entry, resource, sending: BTreeMap::new() })
    }
}

impl Default for TunnelConnector {
    fn default() -> Self {
        Self::new()
    }
}

impl Connector for TunnelConnector {
    fn system(&self) -> &str {
        SYSTEM
    }

    fn plan(&self, _: &Head<'_>) -> Result<Plan, Refusal> {
        Err(refuse("unknown_operation", StatusCode::NOT_FOUND, "a tunnel has no requests of its own"))
    }

    fn map(&self, _: Plan, _: Option<Bytes>) -> Result<Mapped, Refusal> {
        Err(refuse("unknown_operation", StatusCode::NOT_FOUND, "a tunnel has no requests of its own"))
    }

    fn validate(&self, call: ToolCall) -> Result<Call, Refusal> {
        if self.entry(&call.action).is_none() {
            return Err(refuse("unknown_action", StatusCode::NOT_FOUND, "no such action of `tunnel`"));
        }
        let host = call.parameters.get("host").and_then(Value::as_str).filter(|host| is_host(host));
        let port = call.parameters.get("port").and_then(Value::as_u64).and_then(|port| u16::try_from(port).ok());
        let (Some(host), Some(port), 2) = (host, port, call.parameters.len()) else {
            return Err(bad("bad_parameter", "`parameters` must be `host`, lower case, and `port`, a number"));
        };
        let known = self.connect(host, port)?;
        if call.resource.as_deref() != known.action.resource() {
            return Err(bad("bad_resource", "`resource` must be `host:port` of the parameters"));
        }
        if call.mutates_state != known.action.mutates_state() {
            return Err(bad("bad_mutates_state", "`mutates_state` of this action is true"));
        }
        Ok(known)
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
            "title": denial.reason,
            "status": denial.status.as_u16(),
            "detail": denial.message,
            "receipt": denial.receipt,
            "approval": denial.approval,
        });
        ErrorReply {
            status: denial.status,
            headers: vec![(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"))],
            body: Bytes::from(body.to_string()),
        }
    }

    fn challenge(&self) -> ErrorReply {
        ErrorReply {
            status: StatusCode::PROXY_AUTHENTICATION_REQUIRED,
            headers: vec![(header::PROXY_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"aegis\""))],
            body: Bytes::new(),
        }
    }
}

fn is_host(host: &str) -> bool {
    host.parse::<std::net::Ipv6Addr>().is_ok()
        || (!host.is_empty()
            && host.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.')))
}

fn entry() -> Entry {
    let parameter = |ty| Parameter { ty, required: true };
    Entry {
        tool: Arc::from(SYSTEM),
        name: "connect".to_owned(),
        operation: "CONNECT".to_owned(),
        summary: "An opaque tunnel to a host that no route serves".to_owned(),
        wire: "CONNECT {host}:{port}".to_owned(),
        // Whatever is done inside is not seen: it counts as a change, and as much as one can be.
        class: AccessClass::Write,
        risk: Risk::High,
        mutates_state: true,
        resource: Some("{host}:{port}".to_owned()),
        resource_types: vec![Arc::from(ENDPOINT), Arc::from(HOST)],
        parameters: BTreeMap::from([
            ("host".to_owned(), parameter(ParamType::String)),
            ("port".to_owned(), parameter(ParamType::Integer)),
        ]),
        facts: BTreeMap::new(),
        aliases: BTreeMap::new(),
    }
}

/// Cedar type of `host:port`.
const ENDPOINT: &str = "Tunnel::Endpoint";
/// Cedar type of its parent, a host.
const HOST: &str = "Tunnel::Host";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tunnel_is_an_action_on_an_endpoint_below_its_host() {
        let call = TunnelConnector::new().connect("files.example.com", 443).unwrap();
        assert_eq!(call.action.qualified_name(), "tunnel.connect");
        assert_eq!(call.action.resource(), Some("files.example.com:443"));
        let ids: Vec<&str> = call.resource.iter().map(|r| r.id.as_str()).collect();
        assert_eq!(ids, ["files.example.com:443", "files.example.com"]);
        let v6 = TunnelConnector::new().connect("2001:db8::1", 8443).unwrap();
        assert_eq!(v6.action.resource(), Some("[2001:db8::1]:8443"));
    }

    #[test]
    fn an_sdk_call_says_the_same_or_is_refused() {
        let tunnel = TunnelConnector::new();
        let call = |resource: &str, host: &str, port: u64| ToolCall {
            tool: SYSTEM.into(),
            action: "connect".into(),
            resource: Some(resource.into()),
            mutates_state: true,
            parameters: Map::from_iter([("host".into(), host.into()), ("port".into(), port.into())]),
        };
        let same = tunnel.validate(call("a.example:443", "a.example", 443)).unwrap();
        assert_eq!(same.action.hash(), tunnel.connect("a.example", 443).unwrap().action.hash());
        for (resource, host, port) in [
            ("b.example:443", "a.example", 443),
            ("A.example:443", "A.example", 443),
            ("a.example:70000", "a.example", 70000),
        ] {
            assert!(tunnel.validate(call(resource, host, port)).is_err(), "{resource}");
        }
    }
}
