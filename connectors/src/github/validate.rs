//! A call made through an SDK, against the catalog. Refuses, never rewrites.

use aegis_action::ToolCall;
use http::StatusCode;
use serde_json::Value;

use super::{
    SYSTEM,
    catalog::{Catalog, Kind, Operation, Piece},
    check::check,
    map,
    resource::{self, Variables},
};
use crate::{
    Call, Refusal,
    wire::{bad, refuse},
};

pub(super) fn validate(catalog: &Catalog, call: ToolCall) -> Result<Call, Refusal> {
    let unknown = |detail: String| refuse("unknown_action", StatusCode::NOT_FOUND, detail);
    if call.tool != SYSTEM {
        return Err(unknown(format!("`tool` must be `{SYSTEM}`")));
    }
    let operation = catalog
        .by_name(&call.action)
        .ok_or_else(|| unknown("`action` is not in the catalog of GitHub; try `aegis actions search`".to_owned()))?;
    if let Some(canonical) = &operation.same_as {
        return Err(unknown(format!("`{}` is the same operation as `{canonical}`; use that name", call.action)));
    }
    if call.mutates_state != operation.entry.mutates_state {
        return Err(bad(
            "bad_mutates_state",
            format!("`mutates_state` of this action is {}", operation.entry.mutates_state),
        ));
    }
    let variables = read_resource(operation, call.resource.as_deref())?;
    check_path_parameters(operation, &call)?;
    for (name, parameter) in &operation.entry.parameters {
        check(name, parameter, call.parameters.get(name))?;
    }
    map::call(operation, &variables, call.parameters, None)
}

fn read_resource(operation: &Operation, resource: Option<&str>) -> Result<Variables, Refusal> {
    let (template, resource) = match (operation.entities.first(), resource) {
        (None, None) => return Ok(Variables::new()),
        (None, Some(_)) => return Err(bad("bad_resource", "`resource` of this action is null")),
        (Some(_), None) => return Err(bad("bad_resource", format!("`resource` must be {}", form(operation)))),
        (Some((_, template)), Some(resource)) => (template, resource),
    };
    let variables = template.read(resource).filter(|v| v.iter().all(|(name, value)| resource::is_valid(name, value)));
    let variables = variables.ok_or_else(|| bad("bad_resource", format!("`resource` must be {}", form(operation))))?;
    if let Some((name, value)) = variables.iter().find(|(name, value)| resource::canonical(name, value) != **value) {
        let detail =
            format!("`resource` must be {}, with `{name}` in lower case: `{}`", form(operation), value.to_lowercase());
        return Err(bad("bad_resource", detail));
    }
    Ok(variables)
}

/// Path variables among the parameters are names too, and those of the resource are not repeated.
fn check_path_parameters(operation: &Operation, call: &ToolCall) -> Result<(), Refusal> {
    let in_resource: Vec<&str> = operation.entities.first().map(|(_, t)| t.variables().collect()).unwrap_or_default();
    for piece in &operation.pieces {
        let Piece::Variable { name, kind } = piece else { continue };
        let value = call.parameters.get(&**name);
        if in_resource.contains(&&**name) {
            if value.is_some() {
                return Err(bad("bad_parameter", format!("`{name}` is part of `resource`")));
            }
            continue;
        }
        let ok = match (value, kind) {
            (Some(Value::String(text)), Kind::Words(words)) => words.contains(text),
            // On the wire, a slash in it would be refused.
            (Some(Value::String(text)), Kind::Text) => !text.contains('/') && resource::is_valid(name, text),
            (Some(Value::String(text)), _) => {
                resource::is_valid(name, text) || (operation.optional_tail && text.is_empty())
            }
            // A missing one or one of another type is named by the type check.
            _ => true,
        };
        if !ok {
            return Err(bad("bad_parameter", format!("`{name}` has a value that GitHub never has there")));
        }
        if let Some(Value::String(text)) = value
            && resource::canonical(name, text) != *text
        {
            return Err(bad("bad_parameter", format!("`{name}` must be in lower case: `{}`", text.to_lowercase())));
        }
    }
    Ok(())
}

fn form(operation: &Operation) -> String {
    format!("`{}`", operation.entry.resource.as_deref().unwrap_or("null"))
}
