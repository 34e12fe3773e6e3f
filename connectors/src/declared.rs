//! The user's own functions, declared in `[[tool]]` entries: SDK calls only, no wire form.

use std::{collections::HashMap, sync::Arc};

use aegis_action::{Action, ToolCall};
use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use serde_json::{Value, json};

use crate::{Call, Connector, Denial, EntityRef, Entry, ErrorReply, Head, Mapped, ParamType, Plan, Refusal};

/// Grammar of declared tools.
pub struct DeclaredTools {
    entries: Vec<Arc<Entry>>,
    by_name: HashMap<String, Arc<Entry>>,
}

impl DeclaredTools {
    /// Takes the declared entries of all tools.
    pub fn new(entries: Vec<Arc<Entry>>) -> Self {
        let by_name = entries.iter().map(|e| (format!("{}.{}", e.tool, e.name), e.clone())).collect();
        Self { entries, by_name }
    }
}

impl Connector for DeclaredTools {
    fn system(&self) -> &str {
        "declared"
    }

    fn plan(&self, _: &Head<'_>) -> Result<Plan, Refusal> {
        Err(refuse("unknown_operation", "declared tools have no wire form".into(), StatusCode::NOT_FOUND))
    }

    fn map(&self, _: Plan, _: Option<Bytes>) -> Result<Mapped, Refusal> {
        Err(refuse("unknown_operation", "declared tools have no wire form".into(), StatusCode::NOT_FOUND))
    }

    fn validate(&self, call: ToolCall) -> Result<Call, Refusal> {
        let qualified = format!("{}.{}", call.tool, call.action);
        let Some(entry) = self.by_name.get(&qualified) else {
            return Err(refuse(
                "unknown_action",
                format!("`tool_call.action`: no tool `{qualified}` is declared"),
                StatusCode::BAD_REQUEST,
            ));
        };
        if call.mutates_state != entry.mutates_state {
            let message = format!("`tool_call.mutates_state`: `{qualified}` is declared as {}", entry.class.as_str());
            return Err(refuse("mutates_state_mismatch", message, StatusCode::BAD_REQUEST));
        }
        match (&entry.resource, &call.resource) {
            (Some(template), Some(resource)) if fits(template, resource) => {}
            (None, None) => {}
            (Some(template), _) => {
                return Err(refuse(
                    "bad_resource",
                    format!("`tool_call.resource`: expected the form `{template}`"),
                    StatusCode::BAD_REQUEST,
                ));
            }
            (None, Some(_)) => {
                return Err(refuse(
                    "bad_resource",
                    "`tool_call.resource`: must be null for this tool".into(),
                    StatusCode::BAD_REQUEST,
                ));
            }
        }
        for (name, value) in &call.parameters {
            if let Some(parameter) = entry.parameters.get(name)
                && !of_type(&parameter.ty, value)
            {
                return Err(refuse(
                    "bad_parameter",
                    format!("`tool_call.parameters.{name}`: wrong type"),
                    StatusCode::BAD_REQUEST,
                ));
            }
        }
        let resource = call
            .resource
            .iter()
            .zip(&entry.resource_types)
            .map(|(id, ty)| EntityRef { ty: ty.clone(), id: id.clone() })
            .collect();
        let action = Action::new(call)
            .map_err(|e| refuse("bad_action", format!("`tool_call`: {e}"), StatusCode::BAD_REQUEST))?;
        Ok(Call { action, class: entry.class, entry: entry.clone(), resource, sending: Default::default() })
    }

    fn catalog(&self) -> &[Arc<Entry>] {
        &self.entries
    }

    fn entry(&self, name: &str) -> Option<Arc<Entry>> {
        self.entries.iter().find(|e| e.name == name).cloned()
    }

    fn denial(&self, denial: &Denial) -> ErrorReply {
        let body = json!({"type":"about:blank","title":denial.reason,"status":denial.status.as_u16(),"detail":denial.message,
            "receipt":denial.receipt,"approval":denial.approval});
        ErrorReply {
            status: denial.status,
            headers: vec![(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"))],
            body: Bytes::from(body.to_string()),
        }
    }

    fn challenge(&self) -> ErrorReply {
        ErrorReply {
            status: StatusCode::UNAUTHORIZED,
            headers: vec![(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"aegis\""))],
            body: Bytes::new(),
        }
    }
}

/// Whether a resource has the template's fixed parts in order, and something in every slot.
fn fits(template: &str, resource: &str) -> bool {
    let mut rest = resource;
    let mut pieces = template.split('{');
    let lead = pieces.next().unwrap_or_default();
    let Some(after) = rest.strip_prefix(lead) else { return false };
    rest = after;
    let mut pieces = pieces.peekable();
    while let Some(piece) = pieces.next() {
        let fixed = piece.split_once('}').map_or("", |(_, fixed)| fixed);
        let end = match (fixed.is_empty(), pieces.peek().is_none()) {
            (true, true) => rest.len(),
            (false, true) if rest.ends_with(fixed) => rest.len() - fixed.len(),
            (false, false) => match rest.find(fixed) {
                Some(at) => at,
                None => return false,
            },
            _ => return false,
        };
        if end == 0 {
            return false;
        }
        rest = rest.get(end + fixed.len()..).unwrap_or_default();
    }
    rest.is_empty()
}

fn of_type(ty: &ParamType, value: &Value) -> bool {
    match (ty, value) {
        (_, Value::Null) | (ParamType::Opaque, _) => true,
        (ParamType::String, v) => v.is_string(),
        (ParamType::Integer, v) => v.is_i64() || v.is_u64(),
        (ParamType::Boolean, v) => v.is_boolean(),
        (ParamType::List(item), Value::Array(items)) => items.iter().all(|v| of_type(item, v)),
        (ParamType::Record(members), Value::Object(map)) => {
            map.iter().all(|(k, v)| members.get(k).is_none_or(|m| of_type(&m.ty, v)))
        }
        (ParamType::List(_) | ParamType::Record(_), _) => false,
    }
}

fn refuse(reason: &'static str, detail: String, status: StatusCode) -> Refusal {
    Refusal { reason, detail, status }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resource_must_fill_every_slot_of_its_template() {
        assert!(fits("{repo}#{n}", "a/b#7"));
        assert!(fits("svc/{name}", "svc/api"));
        assert!(fits("{name}", "x"));
        assert!(fits("fixed", "fixed"));
        for (template, resource) in [
            ("{repo}#{n}", "a/b"),
            ("{repo}#{n}", "#7"),
            ("{repo}#{n}", "a#"),
            ("svc/{name}", "svc/"),
            ("fixed", "fixed2"),
            ("{a}/end", "x/other"),
        ] {
            assert!(!fits(template, resource), "{template} {resource}");
        }
    }
}
