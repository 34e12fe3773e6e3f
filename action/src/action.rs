//! The five keys, and nothing else.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    CanonError,
    bulk::{STREAM_KEY, fold_members},
    canon::{MAX_BYTES, write_object, write_string},
    hash::{ActionHash, sha256},
};

/// Why a tool call is not an action.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ActionError {
    /// `tool` or `action` is not a name.
    #[error("`{field}` must be 1 to 128 ASCII letters, digits, `_`, `-` or `.`")]
    BadName {
        /// Which of the two.
        field: &'static str,
    },
    /// `resource` is empty, too long or has control characters.
    #[error("`resource` must be 1 to 2048 characters without controls")]
    BadResource,
    /// The parameters have no canonical form.
    #[error("`parameters`: {0}")]
    Parameters(#[from] CanonError),
}

/// An action as a caller writes it: the shape of `tool_call` in `POST /v1/authorize`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ToolCall {
    /// System, e.g. `github`.
    pub tool: String,
    /// Catalog name, e.g. `merge_pull_request`.
    pub action: String,
    /// What is acted on, e.g. `octo/payments#482`; `null` where there is no resource.
    #[serde(deserialize_with = "present_or_null")]
    pub resource: Option<String>,
    /// Whether the effect outlives the call.
    pub mutates_state: bool,
    /// Everything else that the effect depends on.
    pub parameters: Map<String, Value>,
}

/// A canonical action: valid, folded, hashed. Cannot be changed once made.
#[derive(Debug, Clone, PartialEq)]
pub struct Action {
    call: ToolCall,
    hash: ActionHash,
}

impl Action {
    /// Checks, folds long strings and hashes. Reserved keys in `parameters` are refused.
    pub fn new(mut call: ToolCall) -> Result<Self, ActionError> {
        fold_members(&mut call.parameters, 0)?;
        Self::seal(call)
    }

    /// As [`Action::new`], with the body standing under `parameters.body` as a stream marker
    /// (see [`crate::stream_marker`]): only a connector makes one.
    pub fn with_stream(mut call: ToolCall, marker: Value) -> Result<Self, ActionError> {
        fold_members(&mut call.parameters, 0)?;
        if marker.get(STREAM_KEY).is_none() || call.parameters.contains_key("body") {
            return Err(CanonError::ReservedKey(STREAM_KEY).into());
        }
        call.parameters.insert("body".into(), marker);
        Self::seal(call)
    }

    fn seal(call: ToolCall) -> Result<Self, ActionError> {
        check_name("tool", &call.tool)?;
        check_name("action", &call.action)?;
        if let Some(resource) = &call.resource
            && (resource.is_empty() || resource.chars().count() > 2048 || resource.chars().any(char::is_control))
        {
            return Err(ActionError::BadResource);
        }
        let hash = sha256(&canonical_bytes(&call)?);
        Ok(Self { call, hash })
    }

    /// System, e.g. `github`.
    pub fn tool(&self) -> &str {
        &self.call.tool
    }
    /// Catalog name, e.g. `merge_pull_request`.
    pub fn name(&self) -> &str {
        &self.call.action
    }
    /// What is acted on.
    pub fn resource(&self) -> Option<&str> {
        self.call.resource.as_deref()
    }
    /// Whether the effect outlives the call.
    pub fn mutates_state(&self) -> bool {
        self.call.mutates_state
    }
    /// Everything else that the effect depends on, long strings folded.
    pub fn parameters(&self) -> &Map<String, Value> {
        &self.call.parameters
    }
    /// SHA-256 of the canonical bytes.
    pub fn hash(&self) -> ActionHash {
        self.hash
    }
    /// `tool.action`, the name policies use.
    pub fn qualified_name(&self) -> String {
        format!("{}.{}", self.call.tool, self.call.action)
    }
    /// The five keys as a caller would write them.
    pub fn call(&self) -> &ToolCall {
        &self.call
    }
    /// The bytes the hash is taken over. They were made once already, so this cannot fail.
    pub fn canonical(&self) -> Vec<u8> {
        canonical_bytes(&self.call).unwrap_or_default()
    }
}

fn canonical_bytes(call: &ToolCall) -> Result<Vec<u8>, CanonError> {
    // The five keys are ASCII and already in order.
    let mut out = Vec::with_capacity(256);
    out.extend_from_slice(b"{\"action\":");
    write_string(&call.action, &mut out);
    out.extend_from_slice(if call.mutates_state { b",\"mutates_state\":true" } else { b",\"mutates_state\":false" });
    out.extend_from_slice(b",\"parameters\":");
    write_object(&call.parameters, 1, &mut out)?;
    out.extend_from_slice(b",\"resource\":");
    match &call.resource {
        Some(resource) => write_string(resource, &mut out),
        None => out.extend_from_slice(b"null"),
    }
    out.extend_from_slice(b",\"tool\":");
    write_string(&call.tool, &mut out);
    out.push(b'}');
    if out.len() > MAX_BYTES {
        return Err(CanonError::TooLarge(MAX_BYTES));
    }
    Ok(out)
}

fn check_name(field: &'static str, name: &str) -> Result<(), ActionError> {
    let ok = (1..=128).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'));
    if ok { Ok(()) } else { Err(ActionError::BadName { field }) }
}

/// `null` is an answer, absence is not: all five keys must be written.
fn present_or_null<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Option<String>, D::Error> {
    Option::deserialize(d)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn call(parameters: Value) -> ToolCall {
        serde_json::from_value(json!({"tool":"github","action":"merge_pull_request","resource":"payments-service#482",
            "mutates_state":true,"parameters":parameters}))
        .unwrap()
    }

    #[test]
    fn known_answer() {
        let action = Action::new(call(json!({"base_branch":"main"}))).unwrap();
        assert_eq!(
            String::from_utf8(action.canonical()).unwrap(),
            r#"{"action":"merge_pull_request","mutates_state":true,"parameters":{"base_branch":"main"},"resource":"payments-service#482","tool":"github"}"#
        );
        assert_eq!(action.hash().to_hex(), "6e729c788f908c95e564d246353ceeee0895630175d19ee34b06fdec32f2cc60");
    }

    #[test]
    fn canonical_equals_the_general_canonicaliser() {
        let action = Action::new(call(json!({"z":[1,{"b":null,"a":"\t"}],"a":1.5}))).unwrap();
        let general = crate::canonicalize(&serde_json::to_value(action.call()).unwrap()).unwrap();
        assert_eq!(action.canonical(), general);
    }

    #[test]
    fn reserved_keys_from_outside_are_refused_and_long_strings_folded() {
        let refused = Action::new(call(json!({"a":{"$bulk":{}}}))).unwrap_err();
        assert_eq!(refused, ActionError::Parameters(CanonError::ReservedKey("$bulk")));
        let long = "x".repeat(BULK + 1);
        let action = Action::new(call(json!({"a":[long]}))).unwrap();
        assert_eq!(action.parameters()["a"][0]["$bulk"]["bytes"], BULK + 1);
    }

    #[test]
    fn all_five_keys_must_be_written() {
        let missing = json!({"tool":"t","action":"a","mutates_state":true,"parameters":{}});
        assert!(serde_json::from_value::<ToolCall>(missing).is_err());
    }

    const BULK: usize = crate::BULK_THRESHOLD;
}
