//! Masks what people need not see: values that look like secrets by their name.

use serde_json::{Map, Value};

/// A copy with the values of secret-like members replaced; the flag says whether any was.
pub fn masked(parameters: &Map<String, Value>) -> (Map<String, Value>, bool) {
    let mut any = false;
    if parameters.is_empty() {
        return (Map::new(), any);
    }
    let out = parameters.iter().map(|(k, v)| (k.clone(), mask_member(k, v, &mut any))).collect();
    (out, any)
}

fn mask_member(key: &str, value: &Value, any: &mut bool) -> Value {
    if is_secret_name(key) && !value.is_null() && !value.is_boolean() {
        *any = true;
        return Value::String(MASK.into());
    }
    match value {
        Value::Object(map) => Value::Object(map.iter().map(|(k, v)| (k.clone(), mask_member(k, v, any))).collect()),
        Value::String(text) if holds_secret(text) => {
            *any = true;
            Value::String(MASK.into())
        }
        Value::Array(items) => Value::Array(items.iter().map(|v| mask_member("", v, any)).collect()),
        other => other.clone(),
    }
}

fn is_secret_name(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    NAMES.iter().any(|name| key.contains(name))
}

/// Whether a text holds something with the form of a well-known credential.
fn holds_secret(text: &str) -> bool {
    PREFIXES.iter().any(|prefix| {
        text.match_indices(prefix).any(|(at, _)| {
            let rest = text.get(at + prefix.len()..).unwrap_or_default();
            rest.bytes().take_while(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-')).count() >= 16
        })
    }) || text.contains("-----BEGIN ") && text.contains("PRIVATE KEY-----")
}

const MASK: &str = "[masked]";
/// Published prefixes of tokens of GitHub, Stripe, Slack, AWS, npm, PyPI, Google, OpenAI and ourselves.
const PREFIXES: [&str; 19] = [
    "ghp_",
    "gho_",
    "ghu_",
    "ghs_",
    "ghr_",
    "github_pat_",
    "sk_live_",
    "sk_test_",
    "rk_live_",
    "xoxb-",
    "xoxp-",
    "AKIA",
    "ASIA",
    "npm_",
    "pypi-",
    "AIza",
    "sk-",
    "glpat-",
    "aegis_",
];
const NAMES: [&str; 10] = [
    "secret",
    "token",
    "password",
    "passwd",
    "private_key",
    "encrypted_value",
    "credential",
    "authorization",
    "api_key",
    "apikey",
];

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn values_with_the_form_of_a_token_are_masked_wherever_they_stand() {
        let Value::Object(parameters) =
            json!({"message":"use ghp_0123456789abcdefghij please","note":"ghp_short","risk-k":"task-force"})
        else {
            panic!()
        };
        let (out, any) = masked(&parameters);
        assert!(any);
        assert_eq!(Value::Object(out), json!({"message":"[masked]","note":"ghp_short","risk-k":"task-force"}));
    }

    #[test]
    fn secret_like_members_are_masked_at_any_depth() {
        let Value::Object(parameters) =
            json!({"title":"t","config":{"secret":"s","url":"u"},"list":[{"client_secret":"x"}],"n":1})
        else {
            panic!()
        };
        let (out, any) = masked(&parameters);
        assert!(any);
        assert_eq!(
            Value::Object(out),
            json!({"title":"t","config":{"secret":"[masked]","url":"u"},"list":[{"client_secret":"[masked]"}],"n":1})
        );
    }
}
