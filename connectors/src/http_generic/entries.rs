//! One entry per method.

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
    METHODS.iter().find(|row| row.0 == method.as_str()).map(|row| row.1)
}

fn entry((method, name, class, risk, summary): &(&str, &str, AccessClass, Risk, &str)) -> Entry {
    let parameter = |ty| Parameter { ty, required: false };
    Entry {
        tool: Arc::from(SYSTEM),
        name: (*name).to_owned(),
        operation: (*method).to_owned(),
        summary: (*summary).to_owned(),
        wire: format!("{method} /*"),
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
    }
}

/// Cedar type of a URL without its query.
pub(super) const RESOURCE: &str = "Http::Resource";
/// Cedar type of its parent, an authority.
pub(super) const HOST: &str = "Http::Host";

const METHODS: [(&str, &str, AccessClass, Risk, &str); 7] = [
    ("DELETE", "delete", AccessClass::Delete, Risk::High, "DELETE on any URL of the route"),
    ("GET", "get", AccessClass::Read, Risk::Low, "GET on any URL of the route"),
    ("HEAD", "head", AccessClass::Read, Risk::Low, "HEAD on any URL of the route"),
    ("OPTIONS", "options", AccessClass::Read, Risk::Low, "OPTIONS on any URL of the route"),
    ("PATCH", "patch", AccessClass::Write, Risk::Medium, "PATCH on any URL of the route"),
    ("POST", "post", AccessClass::Write, Risk::Medium, "POST on any URL of the route"),
    ("PUT", "put", AccessClass::Write, Risk::Medium, "PUT on any URL of the route"),
];
