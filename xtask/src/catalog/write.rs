//! One line per operation, members in a fixed order, so that a diff reads as a change.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{
    classes,
    overrides::Overrides,
    resources,
    spec::{Operation, Parameter, Spec},
    types::{self, Members},
};

/// The table and what there is to say about it.
pub struct Operations {
    /// `github.jsonl`.
    pub text: String,
    /// Operations by class.
    pub classes: BTreeMap<String, usize>,
    /// Operation and body member whose name a path or query parameter has.
    pub collisions: Vec<(String, String)>,
}

/// Writes all operations in the order of their ids.
pub fn operations(spec: &Spec, overrides: &Overrides, names: &BTreeMap<String, String>) -> Result<Operations, String> {
    let mut out = Operations { text: String::new(), classes: BTreeMap::new(), collisions: Vec::new() };
    for operation in &spec.operations {
        let line = line(spec, overrides, names, operation, &mut out)?;
        // Our own reader must take it.
        serde_json::from_str::<Value>(&line).map_err(|e| format!("`{}`: {e}", operation.id))?;
        out.text.push_str(&line);
        out.text.push('\n');
    }
    Ok(out)
}

fn line(
    spec: &Spec,
    overrides: &Overrides,
    names: &BTreeMap<String, String>,
    operation: &Operation,
    out: &mut Operations,
) -> Result<String, String> {
    let id = &operation.id;
    let name = names.get(id).ok_or_else(|| format!("`{id}` has no name"))?;
    let correction = overrides.correction(id);
    let class = correction.and_then(|c| c.class.as_deref()).unwrap_or_else(|| classes::class(operation));
    let risk = correction.and_then(|c| c.risk.as_deref()).unwrap_or_else(|| classes::risk(class));
    let mutates = correction.and_then(|c| c.mutates_state).unwrap_or(operation.method != "GET");
    *out.classes.entry(class.to_owned()).or_default() += 1;

    let parameters = spec.parameters(operation);
    let mut members = vec![
        ("name", text(name)),
        ("id", text(id)),
        ("summary", text(&operation.summary)),
        ("wire", text(&operation.wire())),
        ("class", text(class)),
        ("risk", text(risk)),
        ("mutates", mutates.to_string()),
    ];
    if let Some(same) = overrides.same_as(id) {
        let canonical = names.get(same).ok_or_else(|| format!("`{same}` has no name"))?;
        members.push(("same_as", text(canonical)));
    }
    let entities = resources::entities(&operation.path);
    if !entities.is_empty() {
        let pairs: Vec<String> = entities.iter().map(|(ty, id)| format!("[{},{}]", text(ty), text(id))).collect();
        members.push(("entities", format!("[{}]", pairs.join(","))));
    }
    let path = path(operation, &parameters, overrides)?;
    if !path.is_empty() {
        members.push(("path", format!("{{{}}}", path.join(","))));
    }
    if overrides.optional_tail(id) {
        members.push(("optional_tail", "true".into()));
    }
    let query: Members = parameters
        .iter()
        .filter(|p| p.place == "query")
        .map(|p| (p.name.to_owned(), (types::of(spec, p.schema, 0), p.required)))
        .collect();
    if !query.is_empty() {
        members.push(("query", types::members_json(&query)));
    }
    if let Some(body) = body(spec, operation)? {
        note_collisions(id, &parameters, &body, out)?;
        if let Some(member) = overrides.list_body(id) {
            if !body.names.contains(member) {
                return Err(format!("`{id}` has no member `{member}`"));
            }
            members.push(("list_body", text(member)));
        }
        members.push((body.kind, body.json));
    }
    let members: Vec<String> = members.iter().map(|(key, value)| format!("\"{key}\":{value}")).collect();
    Ok(format!("{{{}}}", members.join(",")))
}

/// Path variables in path order: `integer`, `string`, `slashed` (`%2F` is data), `segments`
/// (spans several), or the words allowed, with `|` between them.
fn path(operation: &Operation, parameters: &[Parameter<'_>], overrides: &Overrides) -> Result<Vec<String>, String> {
    let mut out = Vec::new();
    for piece in operation.path.split('{').skip(1) {
        let name = piece.split('}').next().unwrap_or_default();
        let found = parameters.iter().find(|p| p.place == "path" && p.name == name);
        let parameter = found.ok_or_else(|| format!("`{}` does not declare `{name}`", operation.id))?;
        let words: Vec<&str> = parameter
            .schema
            .get("enum")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        let kind = if parameter.multi_segment {
            "segments".to_owned()
        } else if overrides.is_slashed(&operation.path, name) {
            "slashed".to_owned()
        } else if !words.is_empty() {
            words.join("|")
        } else if parameter.schema.get("type").and_then(Value::as_str) == Some("integer") {
            "integer".to_owned()
        } else {
            "string".to_owned()
        };
        out.push(format!("{}:{}", text(name), text(&kind)));
    }
    Ok(out)
}

struct Body {
    kind: &'static str,
    json: String,
    names: BTreeSet<String>,
}

fn body(spec: &Spec, operation: &Operation) -> Result<Option<Body>, String> {
    let content = spec.body(operation);
    let plain = |kind| Ok(Some(Body { kind, json: "true".into(), names: BTreeSet::new() }));
    match content.iter().map(|(ty, _)| *ty).collect::<Vec<_>>().as_slice() {
        [] => Ok(None),
        ["application/octet-stream"] => plain("stream"),
        ["text/plain", "text/x-markdown"] => plain("text"),
        ["application/json"] => {
            let schema = content.first().map_or(&Value::Null, |(_, schema)| *schema);
            let mut members = types::members(spec, schema, BODY_DEPTH);
            // Of a body that may be missing nothing is required.
            if !spec.body_required(operation) {
                members.values_mut().for_each(|(_, must)| *must = false);
            }
            let names = members.keys().cloned().collect();
            Ok(Some(Body { kind: "body", json: types::members_json(&members), names }))
        }
        other => Err(format!("`{}` takes media types we do not know: {other:?}", operation.id)),
    }
}

fn note_collisions(id: &str, parameters: &[Parameter<'_>], body: &Body, out: &mut Operations) -> Result<(), String> {
    let places: BTreeMap<&str, Vec<&str>> = parameters.iter().fold(BTreeMap::new(), |mut all, p| {
        all.entry(p.name).or_insert_with(Vec::new).push(p.place);
        all
    });
    for (name, places) in places {
        if places.len() > 1 {
            return Err(format!("`{id}`: `{name}` is a path variable and a query parameter"));
        }
        if body.names.contains(name) {
            out.collisions.push((id.to_owned(), name.to_owned()));
        }
        if body.names.contains(&format!("body.{name}")) {
            return Err(format!("`{id}`: `body.{name}` is a member already"));
        }
    }
    Ok(())
}

fn text(s: &str) -> String {
    Value::from(s).to_string()
}

/// Nested records deeper than this are opaque.
const BODY_DEPTH: usize = 3;
