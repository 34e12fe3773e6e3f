//! The Cedar context of one decision, built member by member from typed values.
//!
//! The agent's JSON is never read as Cedar: `__entity` and `__extn` in it are plain data.
//! A null is absent, a value that violates its catalog type is an error, and what the
//! catalog does not know is not visible.

use std::collections::BTreeMap;

use aegis_action::{BULK_KEY, STREAM_KEY, Timestamp};
use aegis_connectors::{ParamType, Parameter};
use cedar_policy::{Context, RestrictedExpression};
use serde_json::{Map, Value};

use super::{reads::Reads, schema::readable, types::Input};

/// Milliseconds in an hour.
const HOUR: i64 = 3_600_000;

/// Checks every parameter against the catalog, read or not: a malformed call is not
/// judged by the part that happens to be looked at.
pub fn check_parameters(input: &Input<'_>) -> Result<(), String> {
    let known = &input.call.entry.parameters;
    for (name, value) in input.call.action.parameters() {
        if let Some(parameter) = known.get(name) {
            check(value, &parameter.ty).map_err(|expected| violation("parameter", name, &expected))?;
        }
    }
    Ok(())
}

/// The first of these facts that is not there.
pub fn missing_fact<'f>(input: &Input<'_>, facts: impl IntoIterator<Item = &'f String>) -> Option<&'f str> {
    facts.into_iter().find(|name| input.facts.get(*name).is_none_or(Value::is_null)).map(String::as_str)
}

/// Checks that facts are of their type.
pub fn check_facts<'f>(input: &Input<'_>, facts: impl IntoIterator<Item = &'f String>) -> Result<(), String> {
    for name in facts {
        let Some(ty) = input.call.entry.facts.get(name) else {
            return Err(format!("`{}` has no fact `{name}`", input.call.action.qualified_name()));
        };
        if let Some(value) = input.facts.get(name) {
            check(value, ty).map_err(|expected| violation("fact", name, &expected))?;
        }
    }
    Ok(())
}

/// The context, with the members that are read.
pub fn context(input: &Input<'_>, reads: &Reads, groups: &[&str]) -> Result<Context, String> {
    let mut pairs: Vec<(String, RestrictedExpression)> = Vec::with_capacity(reads.context.len() + 3);
    for name in &reads.context {
        if let Some(value) = member(input, name)? {
            pairs.push((name.clone(), value));
        }
    }
    let known = &input.call.entry.parameters;
    let given = input.call.action.parameters();
    if reads.all_parameters {
        pairs.push(("parameters".into(), record(given, known)?));
    } else if !reads.parameters.is_empty() {
        let mut members = Vec::with_capacity(reads.parameters.len());
        for name in &reads.parameters {
            if let (Some(value), Some(parameter)) = (given.get(name), known.get(name)) {
                members.extend(expression(value, &parameter.ty, name)?.map(|e| (name.clone(), e)));
            }
        }
        pairs.push(("parameters".into(), new_record(members)?));
    }
    if !reads.facts.is_empty() {
        let mut members = Vec::with_capacity(reads.facts.len());
        for name in &reads.facts {
            if let (Some(value), Some(ty)) = (input.facts.get(name), input.call.entry.facts.get(name)) {
                members.extend(expression(value, ty, name)?.map(|e| (name.clone(), e)));
            }
        }
        pairs.push(("facts".into(), new_record(members)?));
    }
    let given = groups.iter().map(|g| RestrictedExpression::new_string((*g).to_owned()));
    let approval = vec![("groups".to_owned(), RestrictedExpression::new_set(given))];
    pairs.push(("approval".into(), new_record(approval)?));
    Context::from_pairs(pairs).map_err(|e| e.to_string())
}

/// `context.amount`: what the call itself says, else the fact of that name.
pub fn amount<'a>(input: &Input<'a>) -> Option<&'a Value> {
    let given = input.call.action.parameters().get("amount").filter(|v| !v.is_null());
    given.or_else(|| input.facts.get("amount").filter(|v| !v.is_null()))
}

/// Hour of day and ISO weekday (Monday is 1), both UTC.
pub fn hour_and_weekday(now: Timestamp) -> (i64, i64) {
    let hours = now.0.div_euclid(HOUR);
    // The epoch was a Thursday.
    (hours.rem_euclid(24), (hours.div_euclid(24) + 3).rem_euclid(7) + 1)
}

fn member(input: &Input<'_>, name: &str) -> Result<Option<RestrictedExpression>, String> {
    let text = |s: &str| Some(RestrictedExpression::new_string(s.to_owned()));
    Ok(match name {
        "source_trust" => text(input.trust.as_str()),
        "route" => text(input.route),
        "door" => text(input.door),
        "identity" => text(input.identity),
        "contains_sensitive_data" => input.contains_sensitive_data.map(RestrictedExpression::new_bool),
        "amount" => match amount(input) {
            Some(value) => expression(value, &ParamType::Integer, "amount")?,
            None => None,
        },
        "time" => {
            let (hour, weekday) = hour_and_weekday(input.now);
            let members = [("ms", input.now.0), ("hour", hour), ("weekday", weekday)];
            Some(new_record(members.map(|(k, v)| (k.to_owned(), RestrictedExpression::new_long(v))).into())?)
        }
        // Not in the schema, so no policy that loaded reads it.
        _ => None,
    })
}

fn record(given: &Map<String, Value>, known: &BTreeMap<String, Parameter>) -> Result<RestrictedExpression, String> {
    let mut members = Vec::with_capacity(given.len());
    for (name, value) in given {
        if let Some(parameter) = known.get(name) {
            members.extend(expression(value, &parameter.ty, name)?.map(|e| (name.clone(), e)));
        }
    }
    new_record(members)
}

/// A value as its type says; `None` for null and for what policies cannot read.
fn expression(value: &Value, ty: &ParamType, name: &str) -> Result<Option<RestrictedExpression>, String> {
    if !readable(ty) || value.is_null() {
        return Ok(None);
    }
    if is_marker(value) {
        return Err(format!("`{name}` is too long to be judged by a policy that reads it"));
    }
    let built = match (ty, value) {
        (ParamType::String, Value::String(s)) => Some(RestrictedExpression::new_string(s.clone())),
        (ParamType::Integer, Value::Number(n)) => n.as_i64().map(RestrictedExpression::new_long),
        (ParamType::Boolean, Value::Bool(b)) => Some(RestrictedExpression::new_bool(*b)),
        (ParamType::List(item), Value::Array(values)) => {
            let mut items = Vec::with_capacity(values.len());
            for value in values {
                match expression(value, item, name)? {
                    Some(e) => items.push(e),
                    None => return Err(violation("value", name, "a list without nulls")),
                }
            }
            Some(RestrictedExpression::new_set(items))
        }
        (ParamType::Record(known), Value::Object(given)) => Some(record(given, known)?),
        _ => None,
    };
    built.map(Some).ok_or_else(|| violation("value", name, expected(ty)))
}

/// As [`expression`] without building anything; the error is the expected type.
fn check(value: &Value, ty: &ParamType) -> Result<(), String> {
    if value.is_null() || is_marker(value) {
        return Ok(());
    }
    let fits = match (ty, value) {
        (ParamType::Opaque, _) | (ParamType::String, Value::String(_)) | (ParamType::Boolean, Value::Bool(_)) => true,
        (ParamType::Integer, Value::Number(n)) => n.as_i64().is_some(),
        (ParamType::List(item), Value::Array(values)) => return values.iter().try_for_each(|v| check(v, item)),
        (ParamType::Record(known), Value::Object(given)) => {
            return given.iter().try_for_each(|(name, v)| match known.get(name) {
                Some(parameter) => check(v, &parameter.ty),
                None => Ok(()),
            });
        }
        _ => false,
    };
    if fits { Ok(()) } else { Err(expected(ty).to_owned()) }
}

/// A string or body of which the action holds only the digest.
fn is_marker(value: &Value) -> bool {
    value.as_object().is_some_and(|o| o.len() == 1 && (o.contains_key(BULK_KEY) || o.contains_key(STREAM_KEY)))
}

fn expected(ty: &ParamType) -> &'static str {
    match ty {
        ParamType::String => "a string",
        ParamType::Integer => "an integer",
        ParamType::Boolean => "a boolean",
        ParamType::List(_) => "a list",
        ParamType::Record(_) => "an object",
        ParamType::Opaque => "anything",
    }
}

fn violation(kind: &str, name: &str, expected: &str) -> String {
    format!("the {kind} `{name}` is not {expected}")
}

fn new_record(members: Vec<(String, RestrictedExpression)>) -> Result<RestrictedExpression, String> {
    RestrictedExpression::new_record(members).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hours_and_weekdays_are_utc_and_monday_is_one() {
        assert_eq!(hour_and_weekday(Timestamp(0)), (0, 4));
        // 2024-01-01 13:30 UTC was a Monday.
        assert_eq!(hour_and_weekday(Timestamp(1_704_115_800_000)), (13, 1));
        assert_eq!(hour_and_weekday(Timestamp(-1)), (23, 3));
    }

    #[test]
    fn values_are_checked_against_their_type_and_markers_are_not_values() {
        use serde_json::json;
        let list = ParamType::List(Box::new(ParamType::Integer));
        assert!(check(&json!([1, 2]), &list).is_ok());
        assert!(check(&json!([1, "2"]), &list).is_err());
        assert!(check(&json!(1.5), &ParamType::Integer).is_err());
        assert!(check(&Value::Null, &ParamType::Integer).is_ok());
        let folded = json!({"$bulk": {"sha256": "00", "bytes": 70000}});
        assert!(check(&folded, &ParamType::String).is_ok());
        assert!(expression(&folded, &ParamType::String, "body").is_err());
        assert!(expression(&json!([null]), &list, "l").is_err());
    }
}
