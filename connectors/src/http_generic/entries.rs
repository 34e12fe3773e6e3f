//! One entry per method, and one for what a GET can turn into.

use std::{collections::BTreeMap, sync::Arc};

use aegis_action::{AccessClass, Risk};
use http::Method;

use super::SYSTEM;
use crate::{Entry, ParamType, Parameter};

/// All entries, in name order.
pub(super) fn entries() -> Vec<Arc<Entry>> {
    METHODS.iter().map(|row| Arc::new(entry(row))).collect()
}

/// The entry name of a method, if it has one.
pub(super) fn name(method: &Method) -> Option<&'static str> {
    METHODS.iter().find(|row| row.0 == method.as_str() && row.1 != WEBSOCKET).map(|row| row.1)
}

/// The entry name of a WebSocket. A name of its own: whoever may read a URL may not for that reason
/// talk to it both ways.
pub(super) const WEBSOCKET: &str = "websocket";

fn entry((method, name, class, risk, summary): &(&str, &str, AccessClass, Risk, &str)) -> Entry {
    let parameter = |ty| Parameter { ty, required: false };
    Entry {
        tool: Arc::from(SYSTEM),
        name: (*name).to_owned(),
        operation: (*method).to_owned(),
        summary: (*summary).to_owned(),
        wire: if *name == WEBSOCKET { "GET /* with Upgrade: websocket".into() } else { format!("{method} /*") },
        class: *class,
        risk: *risk,
        mutates_state: !matches!(class, AccessClass::Read),
        resource: Some("{url}".to_owned()),
        resource_types: vec![Arc::from(RESOURCE), Arc::from(HOST)],
        parameters: BTreeMap::from([
            ("body".to_owned(), parameter(ParamType::Opaque)),
            ("content_type".to_owned(), parameter(ParamType::String)),
            ("headers".to_owned(), parameter(ParamType::Opaque)),
            ("query".to_owned(), parameter(ParamType::Opaque)),
        ]),
        facts: BTreeMap::new(),
        aliases: BTreeMap::new(),
    }
}

/// Cedar type of a URL without its query.
pub(super) const RESOURCE: &str = "Http::Resource";
/// Cedar type of its parent, an authority.
pub(super) const HOST: &str = "Http::Host";

const METHODS: [(&str, &str, AccessClass, Risk, &str); 8] = [
    ("DELETE", "delete", AccessClass::Delete, Risk::High, "DELETE on any URL of the route"),
    ("GET", "get", AccessClass::Read, Risk::Low, "GET on any URL of the route"),
    ("HEAD", "head", AccessClass::Read, Risk::Low, "HEAD on any URL of the route"),
    ("OPTIONS", "options", AccessClass::Read, Risk::Low, "OPTIONS on any URL of the route"),
    ("PATCH", "patch", AccessClass::Write, Risk::Medium, "PATCH on any URL of the route"),
    ("POST", "post", AccessClass::Write, Risk::Medium, "POST on any URL of the route"),
    ("PUT", "put", AccessClass::Write, Risk::Medium, "PUT on any URL of the route"),
    ("UPGRADE", WEBSOCKET, AccessClass::Write, Risk::Medium, "WebSocket on any URL of a route that takes them"),
];
