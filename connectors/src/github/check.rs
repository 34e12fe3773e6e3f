//! Values against the catalog's types.

use http::StatusCode;
use serde_json::Value;

use crate::{ParamType, Parameter, Refusal, wire::refuse};

/// Whether a value is what the catalog says; names the field that is not.
pub(super) fn check(name: &str, parameter: &Parameter, value: Option<&Value>) -> Result<(), Refusal> {
    match value {
        None | Some(Value::Null) if parameter.required => {
            Err(refuse("missing_parameter", StatusCode::UNPROCESSABLE_ENTITY, format!("`{name}` is required")))
        }
        None | Some(Value::Null) => Ok(()),
        Some(value) => check_type(name, &parameter.ty, value),
    }
}

fn check_type(name: &str, ty: &ParamType, value: &Value) -> Result<(), Refusal> {
    let wrong = |wanted: &str| {
        let detail = format!("`{name}` must be {wanted}");
        Err(refuse("bad_parameter", StatusCode::UNPROCESSABLE_ENTITY, detail))
    };
    match (ty, value) {
        (ParamType::Opaque, _) | (ParamType::String, Value::String(_)) | (ParamType::Boolean, Value::Bool(_)) => Ok(()),
        (ParamType::Integer, Value::Number(n)) if n.is_i64() => Ok(()),
        (ParamType::List(item), Value::Array(items)) => {
            items.iter().enumerate().try_for_each(|(at, value)| check_type(&format!("{name}[{at}]"), item, value))
        }
        (ParamType::Record(members), Value::Object(map)) => {
            members.iter().try_for_each(|(member, parameter)| {
                // A member that only matters where another is absent would be refused for nothing.
                match map.get(member) {
                    None | Some(Value::Null) => Ok(()),
                    Some(value) => check_type(&format!("{name}.{member}"), &parameter.ty, value),
                }
            })
        }
        (ParamType::String, _) => wrong("a string"),
        (ParamType::Boolean, _) => wrong("true or false"),
        (ParamType::Integer, _) => wrong("a whole number"),
        (ParamType::List(_), _) => wrong("an array"),
        (ParamType::Record(_), _) => wrong("an object"),
    }
}
