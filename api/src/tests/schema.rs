//! The committed document, and that answers are what it says.

use std::{fs, path::PathBuf, sync::LazyLock};

use http::Method;
use serde_json::{Map, Value};

use super::Answer;

#[test]
fn the_committed_document_is_the_one_that_is_served() {
    let path = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/openapi.json"));
    let served = crate::document();
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, &served).unwrap();
    }
    let committed = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == served,
        "docs/openapi.json is out of date: run the tests with UPDATE_GOLDEN=1 and look at the diff"
    );
}

#[test]
fn every_reference_leads_somewhere_and_every_operation_can_fail() {
    let mut references = Vec::new();
    collect(&DOC, &mut references);
    assert!(references.len() > 50);
    for reference in references {
        assert!(DOC.pointer(reference.trim_start_matches('#')).is_some(), "{reference}");
    }
    assert_eq!(DOC["openapi"], "3.1.0");
    for (path, item) in DOC["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            assert!(operation["responses"].get("default").is_some(), "{method} {path}");
        }
    }
}

/// Panics where an answer is not what the document says about this operation.
#[track_caller]
pub(crate) fn check(method: &Method, path: &str, answer: &Answer) {
    if method == Method::HEAD {
        return assert!(answer.text.is_empty());
    }
    if answer.status.is_client_error() || answer.status.is_server_error() {
        return conforms(&DOC["components"]["schemas"]["Problem"], &answer.body, "problem");
    }
    let Some(operation) = operation(method, path) else {
        assert_eq!(path, "/openapi.json", "{method} {path} is not in the document");
        return;
    };
    let response = &operation["responses"][answer.status.as_str()];
    assert!(!response.is_null(), "{method} {path} answers {}, which is not in the document", answer.status);
    match &response["content"]["application/json"]["schema"] {
        Value::Null => assert!(answer.body.is_null(), "{method} {path}: undocumented body {}", answer.text),
        schema => conforms(schema, &answer.body, path),
    }
}

fn operation(method: &Method, path: &str) -> Option<&'static Value> {
    let method = method.as_str().to_lowercase();
    let fits = |template: &str| {
        let (a, b): (Vec<_>, Vec<_>) = (template.split('/').collect(), path.split('/').collect());
        a.len() == b.len() && a.iter().zip(b).all(|(t, p)| *t == p || t.starts_with('{'))
    };
    let mut found: Vec<_> =
        DOC["paths"].as_object()?.iter().filter(|(t, item)| fits(t) && item.get(&method).is_some()).collect();
    // The template with fewer slots is the one that routers choose.
    found.sort_by_key(|(template, _)| template.matches('{').count());
    found.first().map(|(_, item)| &item[&method])
}

/// As much of JSON Schema as the document uses; members that it does not know are errors.
#[track_caller]
fn conforms(schema: &Value, value: &Value, at: &str) {
    if let Some(reference) = schema["$ref"].as_str() {
        return conforms(DOC.pointer(reference.trim_start_matches('#')).unwrap(), value, at);
    }
    if let Some(options) = schema["oneOf"].as_array() {
        let not_null = options.iter().find(|o| o["type"] != "null").unwrap();
        return if value.is_null() { assert!(options.len() > 1, "{at}") } else { conforms(not_null, value, at) };
    }
    let kinds: Vec<&str> = match &schema["type"] {
        Value::String(one) => vec![one],
        Value::Array(many) => many.iter().filter_map(Value::as_str).collect(),
        _ => return,
    };
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(n) if n.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    assert!(kinds.contains(&kind), "{at}: {value} is no {kinds:?}");
    if let Some(words) = schema["enum"].as_array() {
        assert!(words.contains(value), "{at}: {value} is not one of {words:?}");
    }
    if schema["format"] == "date-time" && !value.is_null() {
        let text = value.as_str().unwrap();
        assert!(text.parse::<jiff::Timestamp>().is_ok() && text.ends_with('Z') && text.len() == 24, "{at}: {text}");
    }
    match value {
        Value::Array(items) => items.iter().for_each(|item| conforms(&schema["items"], item, at)),
        Value::Object(members) => object(schema, members, at),
        _ => {}
    }
}

#[track_caller]
fn object(schema: &Value, members: &Map<String, Value>, at: &str) {
    for name in schema["required"].as_array().into_iter().flatten() {
        assert!(members.contains_key(name.as_str().unwrap()), "{at}: {name} is missing");
    }
    let Some(properties) = schema["properties"].as_object() else { return };
    for (name, value) in members {
        let at = format!("{at}.{name}");
        conforms(properties.get(name).unwrap_or_else(|| panic!("{at} is not in the document")), value, &at);
    }
}

fn collect(value: &Value, out: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            out.extend(map.get("$ref").and_then(Value::as_str).map(str::to_owned));
            map.values().for_each(|v| collect(v, out));
        }
        Value::Array(items) => items.iter().for_each(|v| collect(v, out)),
        _ => {}
    }
}

static DOC: LazyLock<Value> = LazyLock::new(|| serde_json::from_str(&crate::document()).unwrap());
