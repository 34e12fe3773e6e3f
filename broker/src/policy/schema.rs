//! The Cedar schema, generated from the catalogs for exactly the actions a policy names.
//!
//! A policy that names its actions is checked against each of them, with the typed
//! `parameters` and `facts` of that action. A policy on a group (or on any action) is
//! checked against one stand-in per group that has neither: what it reads must be there
//! for every member.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use aegis_action::{AccessClass, Risk};
use aegis_connectors::{Entry, ParamType, Parameter};
use serde_json::{Map, Value, json};

use super::{
    scope::{ACTION, AGENT, TEAM, UNSCOPED},
    types::Problem,
};

/// Stands for "any action" in the schema; no catalog can have it, as names have no `*`.
pub const ANY_ACTION: &str = "*";

/// Types without a namespace.
const OWN_TYPES: [&str; 3] = [AGENT, TEAM, UNSCOPED];
/// Attributes of an agent.
pub const AGENT_ATTRIBUTES: [&str; 5] = ["owner", "environment", "risk_tier", "framework", "binding"];
/// Members of `context`; `parameters` and `facts` only where the head names actions.
pub const CONTEXT_MEMBERS: [&str; 10] = [
    "source_trust",
    "parameters",
    "facts",
    "amount",
    "time",
    "route",
    "door",
    "identity",
    "approval",
    "contains_sensitive_data",
];
/// Members of `context.time`: milliseconds since the epoch, hour of day, ISO weekday; UTC.
pub const TIME_MEMBERS: [&str; 3] = ["ms", "hour", "weekday"];

/// All that policies can name: actions, groups, types.
pub struct Vocabulary {
    entries: HashMap<String, Arc<Entry>>,
    /// Resource types that a group's actions have.
    groups: BTreeMap<String, BTreeSet<String>>,
    /// Resource types and the types they can be below.
    types: BTreeMap<String, BTreeSet<String>>,
}

impl Vocabulary {
    /// Reads the catalogs. An action that two entries claim, or a system named like a class
    /// or risk level, would make a policy mean two things.
    pub fn new(entries: impl IntoIterator<Item = Arc<Entry>>) -> Result<Self, Vec<Problem>> {
        let levels = AccessClass::ALL.iter().map(|c| c.as_str()).chain(Risk::ALL.iter().map(|r| r.as_str()));
        let mut this = Self {
            entries: HashMap::new(),
            groups: levels.map(|name| (name.to_owned(), BTreeSet::new())).collect(),
            types: BTreeMap::from([(UNSCOPED.to_owned(), BTreeSet::new())]),
        };
        let mut problems = Vec::new();
        for entry in entries {
            let name = qualified(&entry);
            if is_level(&entry.tool) || entry.tool.contains('.') || entry.tool.contains('*') {
                problems.push(catalog_problem(
                    format!("the tool `{}` has a name that policies cannot tell from a group", entry.tool),
                    "rename the tool; class and risk names and names with `.` or `*` are taken",
                ));
                continue;
            }
            this.learn(&name, &entry);
            if this.entries.insert(name.clone(), entry).is_some() {
                let help = "rename one of the two";
                problems.push(catalog_problem(format!("the action `{name}` is declared twice"), help));
            }
        }
        problems.sort();
        problems.dedup();
        if problems.is_empty() { Ok(this) } else { Err(problems) }
    }

    fn learn(&mut self, name: &str, entry: &Entry) {
        let own = resource_type(entry).to_owned();
        for (at, ty) in entry.resource_types.iter().enumerate() {
            let above = entry.resource_types.iter().skip(at + 1).filter(|above| *above != ty);
            self.types.entry(ty.to_string()).or_default().extend(above.map(|t| t.to_string()));
        }
        for group in groups_of(entry) {
            self.groups.entry(group.to_owned()).or_default().insert(own.clone());
        }
        debug_assert!(!self.groups.contains_key(name), "`{name}` is an action and a group");
    }

    /// The entry of `tool.action`.
    pub fn entry(&self, name: &str) -> Option<&Arc<Entry>> {
        self.entries.get(name)
    }

    /// Whether this is a system, class or risk level.
    pub fn is_group(&self, name: &str) -> bool {
        self.groups.contains_key(name)
    }

    /// Actions and groups, for suggestions.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().chain(self.groups.keys()).map(String::as_str)
    }

    /// Types of resources, for entities built later.
    pub fn types(&self) -> impl Iterator<Item = &str> {
        self.types.keys().map(String::as_str)
    }

    /// The schema for policies whose head names `heads` (empty: any action) and whose
    /// conditions name `mentioned`.
    pub fn schema(&self, heads: &BTreeSet<String>, mentioned: &BTreeSet<String>) -> Value {
        let mut actions = Map::new();
        for group in self.groups.keys() {
            actions.insert(group.clone(), json!({}));
        }
        for name in mentioned.iter().chain(heads) {
            if let Some(entry) = self.entries.get(name) {
                let member_of: Vec<Value> = groups_of(entry).map(|g| json!({ "id": g })).collect();
                actions.insert(name.clone(), json!({ "memberOf": member_of }));
            }
        }
        if heads.is_empty() {
            actions.insert(ANY_ACTION.into(), json!({ "appliesTo": applies_to(self.types.keys(), None) }));
        }
        for name in heads {
            let (types, entry) = match self.entries.get(name) {
                Some(entry) => (BTreeSet::from([resource_type(entry).to_owned()]), Some(&**entry)),
                None => (self.groups.get(name).cloned().unwrap_or_default(), None),
            };
            // A group without members applies to nothing, which Cedar has no way to say.
            let types = if types.is_empty() { BTreeSet::from([UNSCOPED.to_owned()]) } else { types };
            if let Some(Value::Object(action)) = actions.get_mut(name) {
                action.insert("appliesTo".into(), applies_to(types.iter(), entry));
            }
        }
        let mut namespaces = self.entity_types();
        if let Some(Value::Object(root)) = namespaces.get_mut("") {
            root.insert("actions".into(), Value::Object(actions));
        }
        Value::Object(namespaces)
    }

    fn entity_types(&self) -> Map<String, Value> {
        let mut spaces: Map<String, Value> = Map::new();
        let agent = json!({ "type": "Record", "attributes": {
            "owner": {"type": "String"}, "environment": {"type": "String"}, "risk_tier": {"type": "String"},
            "framework": {"type": "String", "required": false}, "binding": {"type": "String"},
        }});
        let mut declare = |ty: &str, body: Value| {
            let (space, name) = ty.rsplit_once("::").unwrap_or(("", ty));
            let empty = || json!({ "entityTypes": {}, "actions": {} });
            let space = spaces.entry(space.to_owned()).or_insert_with(empty);
            if let Some(Value::Object(types)) = space.get_mut("entityTypes") {
                types.insert(name.to_owned(), body);
            }
        };
        declare(TEAM, json!({}));
        declare(AGENT, json!({ "memberOfTypes": [TEAM], "shape": agent }));
        for (ty, above) in &self.types {
            let above: Vec<String> = above.iter().map(|ty| schema_name(ty)).collect();
            declare(&schema_name(ty), json!({ "memberOfTypes": above }));
        }
        spaces
    }
}

/// The groups of an entry: system, class, risk.
pub fn groups_of(entry: &Entry) -> impl Iterator<Item = &str> {
    [&*entry.tool, entry.class.as_str(), entry.risk.as_str()].into_iter()
}

/// `tool.action`.
pub fn qualified(entry: &Entry) -> String {
    format!("{}.{}", entry.tool, entry.name)
}

/// Whether policies can read values of this type.
pub fn readable(ty: &ParamType) -> bool {
    match ty {
        ParamType::Opaque => false,
        ParamType::List(item) => readable(item),
        ParamType::String | ParamType::Integer | ParamType::Boolean | ParamType::Record(_) => true,
    }
}

/// Cedar refuses a schema with both `Team` and `GitHub::Team`. For validation, and only
/// there, the second goes by a name of the same length; [`real_names`] turns it back.
pub fn schema_name(ty: &str) -> String {
    match ty.rsplit_once("::").and_then(|(space, name)| Some((space, substitute(name)?))) {
        Some((space, name)) => format!("{space}::{name}"),
        None => ty.to_owned(),
    }
}

/// What stands in for the last part of a qualified type name, where it has to.
pub fn substitute(name: &str) -> Option<String> {
    let at = name.char_indices().last().map(|(at, _)| at)?;
    OWN_TYPES.contains(&name).then(|| format!("{}_", name.get(..at).unwrap_or_default()))
}

/// A message of Cedar's with the names that were written.
pub fn real_names(message: &str) -> String {
    let stand_ins = OWN_TYPES.iter().filter_map(|name| Some((substitute(name)?, *name)));
    stand_ins.fold(message.to_owned(), |m, (stand_in, name)| m.replace(&format!("::{stand_in}"), &format!("::{name}")))
}

fn applies_to<'a>(types: impl Iterator<Item = &'a String>, entry: Option<&Entry>) -> Value {
    let mut context = json!({
        "source_trust": {"type": "String"}, "route": {"type": "String"}, "door": {"type": "String"},
        "identity": {"type": "String"},
        "contains_sensitive_data": {"type": "Boolean", "required": false},
        "amount": {"type": "Long", "required": false},
        "approval": record(json!({ "groups": {"type": "Set", "element": {"type": "String"}} })),
        "time": record(json!({ "ms": {"type": "Long"}, "hour": {"type": "Long"}, "weekday": {"type": "Long"} })),
    });
    if let (Some(entry), Some(members)) = (entry, context.as_object_mut()) {
        members.insert("parameters".into(), record(parameters(&entry.parameters)));
        // Required: a fact that is read and cannot be had denies before Cedar is asked.
        let facts = entry.facts.iter().filter_map(|(name, ty)| Some((name.clone(), type_of(ty)?))).collect();
        members.insert("facts".into(), record(Value::Object(facts)));
    }
    let types: Vec<String> = types.map(|ty| schema_name(ty)).collect();
    json!({ "principalTypes": [AGENT], "resourceTypes": types, "context": record(context) })
}

fn parameters(known: &BTreeMap<String, Parameter>) -> Value {
    let typed = known.iter().filter_map(|(name, parameter)| {
        let mut ty = type_of(&parameter.ty)?;
        if let (false, Some(ty)) = (parameter.required, ty.as_object_mut()) {
            ty.insert("required".into(), false.into());
        }
        Some((name.clone(), ty))
    });
    Value::Object(typed.collect())
}

fn type_of(ty: &ParamType) -> Option<Value> {
    Some(match ty {
        ParamType::String => json!({"type": "String"}),
        ParamType::Integer => json!({"type": "Long"}),
        ParamType::Boolean => json!({"type": "Boolean"}),
        ParamType::List(item) => json!({"type": "Set", "element": type_of(item)?}),
        ParamType::Record(members) => record(parameters(members)),
        ParamType::Opaque => return None,
    })
}

fn record(attributes: Value) -> Value {
    json!({ "type": "Record", "attributes": attributes })
}

fn resource_type(entry: &Entry) -> &str {
    entry.resource_types.first().map_or(UNSCOPED, |ty| ty)
}

fn is_level(name: &str) -> bool {
    name == ACTION
        || AccessClass::ALL.iter().any(|c| c.as_str() == name)
        || Risk::ALL.iter().any(|r| r.as_str() == name)
}

fn catalog_problem(message: String, help: &str) -> Problem {
    Problem { file: "catalog".into(), line: 1, column: 1, message, help: Some(help.into()) }
}
