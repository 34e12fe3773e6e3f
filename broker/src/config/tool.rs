//! `[[tool]]`: the user's own functions, as SDK calls name them.

use std::{collections::BTreeMap, sync::Arc};

use aegis_action::{AccessClass, Risk};
use aegis_connectors::{Entry, ParamType, Parameter};
use toml::de::DeValue;

use super::{parse::is_label, read::Reader, route::RouteConfig};

/// Reads one `[[tool]]`.
pub(super) fn read(mut r: Reader<'_, '_>, config: &mut RouteConfig) {
    let qualified = r.required("name");
    r.named(format!("tool `{qualified}`"));
    let Some((tool, action)) = qualified.split_once('.').filter(|(t, a)| is_label(t) && is_action_name(a)) else {
        r.error_at("name", format!("`{qualified}` must be `tool.action`"));
        return r.finish();
    };
    if ["github", "http", "tunnel"].contains(&tool) {
        r.error_at("name", format!("`{tool}` is a system of the catalog; choose another tool name"));
    }
    let class = r.word("class", "`read`, `write`, `delete`, `admin`, `mint`, `persist` or `money`", |w| {
        AccessClass::ALL.into_iter().find(|c| c.as_str() == w)
    });
    let risk = r.word("risk", "`low`, `medium`, `high` or `critical`", |w| {
        Risk::ALL.into_iter().find(|risk| risk.as_str() == w)
    });
    let resource = r.string("resource");
    let resource_type = r.string("resource_type");
    let summary = r.string("description").unwrap_or_default();
    let mut parameters = BTreeMap::new();
    if let Some(value) = r.get("parameters") {
        match value.get_ref() {
            DeValue::Table(table) => {
                for (key, ty) in table.iter() {
                    let word = match ty.get_ref() {
                        DeValue::String(s) => s.as_ref(),
                        _ => "",
                    };
                    match param_type(word) {
                        Some(ty) => {
                            parameters.insert(key.get_ref().to_string(), Parameter { ty, required: false });
                        }
                        None => r.error_at(
                            "parameters",
                            format!("`{}` must be \"string\", \"integer\", \"boolean\" or \"strings\"", key.get_ref()),
                        ),
                    }
                }
            }
            _ => r.error_at("parameters", "`parameters` must be a table of name = \"type\"".into()),
        }
    }
    let aliases = aliases_of(&mut r);
    for required in ["class", "risk"] {
        if r.get(required).is_none() {
            r.error_at(required, format!("`{required}` is required"));
        }
    }
    if config.tools.iter().any(|t| t.tool.as_ref() == tool && t.name == action) {
        r.error_at("name", format!("`{qualified}` is declared twice"));
    }
    let known = |name: &str| {
        parameters.contains_key(name) || resource.as_ref().is_some_and(|t| t.contains(&format!("{{{name}}}")))
    };
    for (alias, name) in &aliases {
        if !known(name) {
            r.error_at("aliases", format!("`{alias}` leads to `{name}`, which is no parameter and not in `resource`"));
        }
        if known(alias) {
            r.error_at("aliases", format!("`{alias}` is a name of its own here"));
        }
    }
    r.finish();
    let (Some(class), Some(risk)) = (class, risk) else { return };
    let ty: Arc<str> = resource_type.unwrap_or_else(|| format!("Tool::{}", capitalised(tool))).into();
    config.tools.push(Arc::new(Entry {
        tool: tool.into(),
        name: action.to_owned(),
        operation: qualified.clone(),
        summary,
        wire: format!("sdk {qualified}"),
        class,
        risk,
        mutates_state: class != AccessClass::Read,
        resource_types: resource.iter().map(|_| ty.clone()).collect(),
        resource,
        parameters,
        facts: BTreeMap::new(),
        aliases,
    }));
}

fn aliases_of(r: &mut Reader<'_, '_>) -> BTreeMap<String, String> {
    let mut aliases = BTreeMap::new();
    let Some(value) = r.get("aliases") else { return aliases };
    let DeValue::Table(table) = value.get_ref() else {
        r.error_at("aliases", "`aliases` must be a table of alias = \"name\"".into());
        return aliases;
    };
    for (alias, name) in table.iter() {
        match name.get_ref() {
            DeValue::String(name) => {
                aliases.insert(alias.get_ref().to_string(), name.to_string());
            }
            _ => r.error_at("aliases", format!("`{}` must be the name of a parameter", alias.get_ref())),
        }
    }
    aliases
}

fn is_action_name(name: &str) -> bool {
    (1..=64).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

fn param_type(word: &str) -> Option<ParamType> {
    Some(match word {
        "string" => ParamType::String,
        "integer" => ParamType::Integer,
        "boolean" => ParamType::Boolean,
        "strings" => ParamType::List(Box::new(ParamType::String)),
        _ => return None,
    })
}

fn capitalised(word: &str) -> String {
    word.split(['-', '_'])
        .filter_map(|part| {
            part.chars().next().map(|c| c.to_ascii_uppercase().to_string() + part.get(1..).unwrap_or_default())
        })
        .collect()
}
