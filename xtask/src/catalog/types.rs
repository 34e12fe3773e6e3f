//! Request schemas as the few types that policies can read.

use std::collections::BTreeMap;

use serde_json::Value;

use super::spec::Spec;

/// A type of the catalog.
#[derive(Clone, PartialEq)]
pub enum Type {
    /// Text.
    String,
    /// Whole number.
    Integer,
    /// True or false.
    Boolean,
    /// Array of a scalar.
    List(Box<Type>),
    /// Object with known members.
    Record(Members),
    /// Anything; policies cannot read it.
    Opaque,
}

/// Members of an object and whether each is required.
pub type Members = BTreeMap<String, (Type, bool)>;

/// The type of a schema. Objects below `depth` levels are opaque.
pub fn of(spec: &Spec, schema: &Value, depth: usize) -> Type {
    let schema = spec.follow(schema);
    if let Some(all) = alternatives(spec, schema) {
        let types: Vec<Type> = all.iter().map(|s| of(spec, s, depth)).collect();
        return match types.split_first() {
            Some((first, rest)) if rest.iter().all(|t| t == first) => first.clone(),
            Some(_) if types.iter().all(|t| matches!(t, Type::Record(_))) => record(members(spec, schema, depth)),
            _ => Type::Opaque,
        };
    }
    match schema.get("type").and_then(Value::as_str) {
        Some("string") => Type::String,
        Some("integer") => Type::Integer,
        Some("boolean") => Type::Boolean,
        Some("array") => match schema.get("items").map(|items| of(spec, items, depth)) {
            Some(item @ (Type::String | Type::Integer | Type::Boolean)) => Type::List(Box::new(item)),
            _ => Type::Opaque,
        },
        Some("object") | None if depth > 0 => record(members(spec, schema, depth)),
        _ => Type::Opaque,
    }
}

/// Members of an object schema, alternatives merged: required only where all of them say so.
pub fn members(spec: &Spec, schema: &Value, depth: usize) -> Members {
    let schema = spec.follow(schema);
    let required: Vec<&str> =
        schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
    let mut found = Members::new();
    for (name, member) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
        let must = required.contains(&name.as_str()) && !nullable(spec, member);
        found.insert(name.clone(), (of(spec, member, depth.saturating_sub(1)), must));
    }
    for part in list(schema, "allOf") {
        for (name, (ty, must)) in members(spec, part, depth) {
            merge(&mut found, name, ty, must);
        }
    }
    let choices: Vec<Members> = list(schema, "oneOf")
        .chain(list(schema, "anyOf"))
        .filter(|s| !is_null(spec, s))
        .map(|s| members(spec, s, depth))
        .collect();
    for choice in &choices {
        for (name, (ty, must)) in choice {
            let everywhere = *must && choices.iter().all(|c| c.get(name).is_some_and(|(_, must)| *must));
            merge(&mut found, name.clone(), ty.clone(), everywhere);
        }
    }
    found
}

impl Type {
    /// As JSON in the generated table.
    pub fn json(&self) -> String {
        match self {
            Self::String => r#""string""#.into(),
            Self::Integer => r#""integer""#.into(),
            Self::Boolean => r#""boolean""#.into(),
            Self::Opaque => r#""opaque""#.into(),
            Self::List(item) => match **item {
                Self::Integer => r#""integers""#.into(),
                Self::Boolean => r#""booleans""#.into(),
                _ => r#""strings""#.into(),
            },
            Self::Record(members) => members_json(members),
        }
    }
}

/// Members as JSON; a required one has `!` behind its name.
pub fn members_json(members: &Members) -> String {
    let member = |(name, (ty, must)): (&String, &(Type, bool))| {
        format!("{}:{}", Value::from(format!("{name}{}", if *must { "!" } else { "" })), ty.json())
    };
    format!("{{{}}}", members.iter().map(member).collect::<Vec<_>>().join(","))
}

/// A record of which nothing is known is no use to a policy.
fn record(members: Members) -> Type {
    if members.is_empty() { Type::Opaque } else { Type::Record(members) }
}

fn merge(found: &mut Members, name: String, ty: Type, must: bool) {
    match found.get_mut(&name) {
        Some((old, old_must)) => {
            if *old != ty {
                *old = Type::Opaque;
            }
            *old_must |= must;
        }
        None => {
            found.insert(name, (ty, must));
        }
    }
}

/// The choices of a `oneOf` or `anyOf` that has some besides null, unless the schema has a type of its own.
fn alternatives<'a>(spec: &'a Spec, schema: &'a Value) -> Option<Vec<&'a Value>> {
    if schema.get("type").is_some() {
        return None;
    }
    let all: Vec<&Value> = list(schema, "oneOf").chain(list(schema, "anyOf")).filter(|s| !is_null(spec, s)).collect();
    (!all.is_empty()).then_some(all)
}

fn list<'a>(schema: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    schema.get(key).and_then(Value::as_array).into_iter().flatten()
}

fn is_null(spec: &Spec, schema: &Value) -> bool {
    spec.follow(schema).get("type").and_then(Value::as_str) == Some("null")
}

fn nullable(spec: &Spec, schema: &Value) -> bool {
    let schema = spec.follow(schema);
    schema.get("nullable").and_then(Value::as_bool).unwrap_or(false)
        || list(schema, "oneOf").chain(list(schema, "anyOf")).any(|s| is_null(spec, s) || nullable(spec, s))
}
