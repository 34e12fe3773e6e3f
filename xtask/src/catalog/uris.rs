//! Where answers hold URLs: a graph that operations share, as small as it can be.
//!
//! The answers' schemas are an automaton over member names. It is made deterministic
//! (alternatives become sets), states that lead to no URL are dropped, and states that
//! cannot be told apart are merged.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde_json::Value;

use super::spec::Spec;

/// The graph as text.
pub struct Graph {
    /// `github.uris`.
    pub text: String,
    /// How many nodes it has.
    pub nodes: usize,
}

/// Builds the graph for all operations.
pub fn graph(spec: &Spec) -> Result<Graph, String> {
    let mut builder = Builder { spec, hypermedia: hypermedia(spec), index: HashMap::new(), states: Vec::new() };
    let roots: Vec<(&str, usize)> =
        spec.operations.iter().map(|o| (o.id.as_str(), builder.state(spec.answers(o), None))).collect();
    let live = live(&builder.states);
    let class = merge(&builder.states, &live);
    write(&roots, &builder.states, &live, &class)
}

struct Builder<'a> {
    spec: &'a Spec,
    hypermedia: BTreeSet<String>,
    index: HashMap<(Vec<usize>, bool), usize>,
    states: Vec<State>,
}

#[derive(Default)]
struct State {
    uri: bool,
    /// Member name, `[]` for items, `*` for any other member.
    edges: BTreeMap<String, usize>,
}

impl<'a> Builder<'a> {
    /// The state of several schemas at once, reached through the member `name`.
    fn state(&mut self, schemas: Vec<&'a Value>, name: Option<&str>) -> usize {
        let mut parts = Vec::new();
        for schema in schemas {
            self.expand(schema, &mut parts);
        }
        let uri = parts.iter().any(|s| self.is_uri(s, name));
        let mut identity: Vec<usize> = parts.iter().map(|s| std::ptr::from_ref::<Value>(s) as usize).collect();
        identity.sort_unstable();
        identity.dedup();
        if let Some(known) = self.index.get(&(identity.clone(), uri)) {
            return *known;
        }
        let at = self.states.len();
        self.index.insert((identity, uri), at);
        self.states.push(State { uri, edges: BTreeMap::new() });
        let mut targets: BTreeMap<String, Vec<&'a Value>> = BTreeMap::new();
        for part in parts {
            for (key, member) in part.get("properties").and_then(Value::as_object).into_iter().flatten() {
                targets.entry(key.clone()).or_default().push(member);
            }
            for (key, edge) in [("items", "[]"), ("additionalProperties", "*")] {
                if let Some(schema @ Value::Object(_)) = part.get(key) {
                    targets.entry(edge.into()).or_default().push(schema);
                }
            }
        }
        for (key, schemas) in targets {
            // A list of URLs has the list's own name.
            let through = if key == "[]" { name.map(str::to_owned) } else { Some(key.clone()) };
            let target = self.state(schemas, through.as_deref());
            if let Some(state) = self.states.get_mut(at) {
                state.edges.insert(key, target);
            }
        }
        at
    }

    /// References followed and alternatives spread out.
    fn expand(&self, schema: &'a Value, out: &mut Vec<&'a Value>) {
        let schema = self.spec.follow(schema);
        if out.iter().any(|s| std::ptr::eq(*s, schema)) {
            return;
        }
        out.push(schema);
        for key in ["allOf", "anyOf", "oneOf"] {
            for part in schema.get(key).and_then(Value::as_array).into_iter().flatten() {
                self.expand(part, out);
            }
        }
    }

    fn is_uri(&self, schema: &Value, name: Option<&str>) -> bool {
        if schema.get("type").and_then(Value::as_str) != Some("string") {
            return false;
        }
        let format = schema.get("format").and_then(Value::as_str);
        matches!(format, Some("uri" | "uri-template"))
            || is_own_example(schema)
            || name.is_some_and(|n| self.hypermedia.contains(n))
    }
}

/// Members named `…_url` that some component shows with a URL of the API: GitHub's own links,
/// which many schemas list as plain strings.
fn hypermedia(spec: &Spec) -> BTreeSet<String> {
    fn walk(value: &Value, found: &mut BTreeSet<String>) {
        match value {
            Value::Object(map) => {
                for (name, member) in map.get("properties").and_then(Value::as_object).into_iter().flatten() {
                    if name.ends_with("_url") && is_own_example(member) {
                        found.insert(name.clone());
                    }
                }
                map.values().for_each(|v| walk(v, found));
            }
            Value::Array(items) => items.iter().for_each(|v| walk(v, found)),
            _ => {}
        }
    }
    // `_links` holds objects of one plain string each.
    let mut found = BTreeSet::from(["href".to_owned()]);
    spec.components().into_iter().flatten().for_each(|(_, schema)| walk(schema, &mut found));
    found
}

fn is_own_example(schema: &Value) -> bool {
    let example = schema.get("example").and_then(Value::as_str);
    schema.get("type").and_then(Value::as_str) == Some("string")
        && example.is_some_and(|e| e.starts_with("https://api.github.com"))
}

/// States from which a URL can be reached.
fn live(states: &[State]) -> Vec<bool> {
    let mut live: Vec<bool> = states.iter().map(|s| s.uri).collect();
    loop {
        let next: Vec<bool> = states
            .iter()
            .zip(&live)
            .map(|(s, alive)| *alive || s.edges.values().any(|t| live.get(*t).copied().unwrap_or(false)))
            .collect();
        if next == live {
            return live;
        }
        live = next;
    }
}

/// What tells states apart: their class so far, and the classes that their edges lead to.
type Signature<'a> = (usize, Vec<(&'a str, usize)>);

/// A class for every state: equal classes cannot be told apart. Refined until nothing splits.
fn merge(states: &[State], live: &[bool]) -> Vec<usize> {
    let mut class: Vec<usize> = states.iter().map(|s| usize::from(s.uri)).collect();
    let mut count = 0;
    loop {
        let mut ids: HashMap<Signature<'_>, usize> = HashMap::new();
        let next: Vec<usize> = states
            .iter()
            .zip(&class)
            .map(|(state, own)| {
                let edges = targets(state, live).map(|(key, t)| (key, class.get(t).copied().unwrap_or(0))).collect();
                let fresh = ids.len();
                *ids.entry((*own, edges)).or_insert(fresh)
            })
            .collect();
        if ids.len() == count {
            return next;
        }
        count = ids.len();
        class = next;
    }
}

fn targets<'a>(state: &'a State, live: &'a [bool]) -> impl Iterator<Item = (&'a str, usize)> {
    state.edges.iter().filter(|(_, t)| live.get(**t).copied().unwrap_or(false)).map(|(key, t)| (key.as_str(), *t))
}

/// Numbered as operations reach them, so that equal input gives equal bytes.
fn write(roots: &[(&str, usize)], states: &[State], live: &[bool], class: &[usize]) -> Result<Graph, String> {
    let mut number: HashMap<usize, usize> = HashMap::new();
    let mut queue: Vec<usize> = Vec::new();
    let visit = |state: usize, number: &mut HashMap<usize, usize>, queue: &mut Vec<usize>| {
        let class = class.get(state).copied().unwrap_or(0);
        *number.entry(class).or_insert_with(|| {
            queue.push(state);
            queue.len() - 1
        })
    };
    let mut heads = String::new();
    for (operation, root) in roots.iter().filter(|(_, root)| live.get(*root).copied().unwrap_or(false)) {
        heads.push_str(&format!("{operation} {}\n", visit(*root, &mut number, &mut queue)));
    }
    let mut nodes = String::new();
    let mut at = 0;
    while let Some(state) = queue.get(at).and_then(|s| states.get(*s)) {
        let mut words: Vec<String> = Vec::new();
        if state.uri {
            words.push("!".into());
        }
        for (key, target) in targets(state, live) {
            if key.contains(|c: char| c.is_whitespace() || c == '=') || key.starts_with('!') {
                return Err(format!("the member `{key}` cannot be written"));
            }
            words.push(format!("{key}={}", visit(target, &mut number, &mut queue)));
        }
        nodes.push_str(&words.join(" "));
        nodes.push('\n');
        at += 1;
    }
    Ok(Graph { text: format!("{HEADER}{nodes}--\n{heads}"), nodes: at })
}

const HEADER: &str = "\
# Where answers hold URLs, from `format: uri`. First the nodes, numbered from 0, one a line:
# `!` is a URL, `name=node` a member, `*=node` any other member, `[]=node` the items of an array.
# Then, below `--`, operation ids and their first node.
";
