//! The vendor's OpenAPI document, read as far as the catalog needs it.

use serde_json::{Map, Value};

/// The document and its operations, sorted by operation id.
pub struct Spec {
    root: Value,
    /// All operations.
    pub operations: Vec<Operation>,
}

/// One operation.
#[derive(Clone)]
pub struct Operation {
    /// Vendor's id, e.g. `pulls/merge`.
    pub id: String,
    /// Upper case.
    pub method: String,
    /// Template, e.g. `/repos/{owner}/{repo}`.
    pub path: String,
    /// One line, without the full stop some have.
    pub summary: String,
    /// Its JSON, for everything else.
    pub json: Value,
}

/// A parameter of an operation.
pub struct Parameter<'a> {
    /// Name on the wire.
    pub name: &'a str,
    /// `path` or `query`.
    pub place: &'a str,
    /// Whether the vendor insists.
    pub required: bool,
    /// Whether the value may span several path segments.
    pub multi_segment: bool,
    /// Its schema, references followed.
    pub schema: &'a Value,
}

impl Spec {
    /// Reads the document.
    pub fn parse(text: &[u8]) -> Result<Self, String> {
        let root: Value = serde_json::from_slice(text).map_err(|e| format!("the description is not JSON: {e}"))?;
        let paths = root.get("paths").and_then(Value::as_object).ok_or("the description has no `paths`")?;
        let mut operations = Vec::new();
        for (path, item) in paths {
            for method in METHODS {
                let Some(json) = item.get(method) else { continue };
                let text = |key: &str| {
                    json.get(key).and_then(Value::as_str).ok_or_else(|| format!("`{method} {path}` has no `{key}`"))
                };
                operations.push(Operation {
                    id: text("operationId")?.to_owned(),
                    method: method.to_ascii_uppercase(),
                    path: path.clone(),
                    summary: text("summary")?.trim().trim_end_matches('.').to_owned(),
                    json: json.clone(),
                });
            }
        }
        operations.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(Self { root, operations })
    }

    /// Follows `$ref` until there is none.
    pub fn follow<'a>(&'a self, mut value: &'a Value) -> &'a Value {
        while let Some(target) = value.get("$ref").and_then(Value::as_str).and_then(|r| r.strip_prefix('#')) {
            value = self.root.pointer(target).unwrap_or(&Value::Null);
        }
        value
    }

    /// Path and query parameters.
    pub fn parameters<'a>(&'a self, operation: &'a Operation) -> Vec<Parameter<'a>> {
        let list = operation.json.get("parameters").and_then(Value::as_array);
        list.into_iter()
            .flatten()
            .filter_map(|p| {
                let p = self.follow(p);
                Some(Parameter {
                    name: p.get("name")?.as_str()?,
                    place: p.get("in")?.as_str()?,
                    required: p.get("required").and_then(Value::as_bool).unwrap_or(false),
                    multi_segment: p.get("x-multi-segment").and_then(Value::as_bool).unwrap_or(false),
                    schema: self.follow(p.get("schema")?),
                })
            })
            .collect()
    }

    /// Media types of the request body with their schemas; empty where there is no body.
    pub fn body<'a>(&'a self, operation: &'a Operation) -> Vec<(&'a str, &'a Value)> {
        let content = operation.json.get("requestBody").map(|b| self.follow(b)).and_then(|b| b.get("content"));
        let content = content.and_then(Value::as_object);
        content.into_iter().flatten().filter_map(|(ty, c)| Some((ty.as_str(), c.get("schema")?))).collect()
    }

    /// Whether a request without a body is malformed.
    pub fn body_required(&self, operation: &Operation) -> bool {
        let body = operation.json.get("requestBody").map(|b| self.follow(b));
        body.and_then(|b| b.get("required")).and_then(Value::as_bool).unwrap_or(false)
    }

    /// Schemas of the answers that are not errors.
    pub fn answers<'a>(&'a self, operation: &'a Operation) -> Vec<&'a Value> {
        let responses = operation.json.get("responses").and_then(Value::as_object);
        let good = responses.into_iter().flatten().filter(|(status, _)| status.starts_with('2'));
        good.filter_map(|(_, r)| self.follow(r).get("content")?.as_object())
            .flatten()
            .filter_map(|(_, c)| c.get("schema"))
            .collect()
    }

    /// Named schemas.
    pub fn components(&self) -> Option<&Map<String, Value>> {
        self.root.pointer("/components/schemas")?.as_object()
    }
}

impl Operation {
    /// `METHOD /path`.
    pub fn wire(&self) -> String {
        format!("{} {}", self.method, self.path)
    }
    /// What stands before the slash of the id.
    pub fn category(&self) -> &str {
        self.id.split('/').next().unwrap_or_default()
    }
}

const METHODS: [&str; 5] = ["get", "post", "put", "patch", "delete"];
