//! The embedded catalog: `connectors/data/github.jsonl`, read once a process.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, LazyLock},
};

use aegis_action::{AccessClass, Risk};
use http::Method;
use serde::Deserialize;

use super::{facts, resource::Template, route::Router, uris::UriGraph};
use crate::{Entry, ParamType, Parameter, UriNode};

/// All operations, found by name or by request line.
pub(super) struct Catalog {
    /// Sorted by name.
    pub entries: Vec<Arc<Entry>>,
    operations: Vec<Operation>,
    by_name: HashMap<String, usize>,
    pub router: Router,
}

/// One operation as the wire and the policies see it.
pub(super) struct Operation {
    pub entry: Arc<Entry>,
    pub method: Method,
    /// Path template, segment by segment.
    pub pieces: Vec<Piece>,
    /// Cedar type and id, nearest first.
    pub entities: Vec<(Arc<str>, Template)>,
    /// Query parameters by name.
    pub query: BTreeMap<String, Parameter>,
    pub body: Body,
    /// Whether the last path variable may be empty or missing.
    pub optional_tail: bool,
    /// The name that this operation's request line really means.
    pub same_as: Option<String>,
    /// Where answers hold URLs.
    pub uris: Option<UriNode>,
}

/// A segment of a path template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Piece {
    Literal(String),
    Variable { name: Arc<str>, kind: Kind },
}

/// What a path variable may hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    /// A whole number without sign or leading zeros.
    Integer,
    /// One of these words.
    Words(Vec<String>),
    /// One segment without a slash.
    Text,
    /// One segment in which `%2F` is data.
    Slashed,
    /// One or more segments, parted by `/` or `%2F`.
    Segments,
}

/// What an operation takes as a body.
pub(super) enum Body {
    None,
    /// A JSON object; a bare array stands for the member `list`.
    Json {
        members: BTreeMap<String, Parameter>,
        list: Option<String>,
    },
    /// Text of any kind.
    Text,
    /// Bytes that are not read.
    Stream,
}

/// The catalog of this process.
pub(super) fn catalog() -> &'static Catalog {
    &CATALOG
}

impl Catalog {
    pub fn by_name(&self, name: &str) -> Option<&Operation> {
        self.operations.get(*self.by_name.get(name)?)
    }

    pub fn at(&self, index: usize) -> Option<&Operation> {
        self.operations.get(index)
    }

    fn parse(table: &str, uris: &UriGraph) -> Result<Self, String> {
        let mut operations = Vec::new();
        for (at, line) in table.lines().enumerate() {
            let line: Line = serde_json::from_str(line).map_err(|e| format!("line {}: {e}", at + 1))?;
            operations.push(line.operation(uris)?);
        }
        let mut by_name = HashMap::new();
        let mut router = Router::default();
        for (at, operation) in operations.iter().enumerate() {
            if by_name.insert(operation.entry.name.clone(), at).is_some() {
                return Err(format!("`{}` is there twice", operation.entry.name));
            }
            if operation.same_as.is_none() {
                router.add(operation, at);
            }
        }
        let mut entries: Vec<Arc<Entry>> = operations.iter().map(|o| o.entry.clone()).collect();
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(Self { entries, operations, by_name, router })
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    name: String,
    id: String,
    summary: String,
    wire: String,
    class: AccessClass,
    risk: Risk,
    mutates: bool,
    same_as: Option<String>,
    #[serde(default)]
    entities: Vec<(Arc<str>, String)>,
    #[serde(default)]
    path: HashMap<String, String>,
    #[serde(default)]
    optional_tail: bool,
    #[serde(default)]
    query: BTreeMap<String, Type>,
    list_body: Option<String>,
    body: Option<BTreeMap<String, Type>>,
    #[serde(default)]
    text: bool,
    #[serde(default)]
    stream: bool,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Type {
    Word(String),
    Record(BTreeMap<String, Type>),
}

impl Line {
    fn operation(self, uris: &UriGraph) -> Result<Operation, String> {
        let (method, path) = self.wire.split_once(' ').ok_or_else(|| format!("bad wire form `{}`", self.wire))?;
        let method = Method::from_bytes(method.as_bytes()).map_err(|e| e.to_string())?;
        // What only repeats another operation's request line needs no grammar of its own.
        let pieces = match self.same_as {
            Some(_) => Vec::new(),
            None => {
                path.split('/').skip(1).filter(|p| !p.is_empty()).map(|p| self.piece(p)).collect::<Result<_, _>>()?
            }
        };
        let entities: Vec<(Arc<str>, Template)> =
            self.entities.iter().map(|(ty, id)| (ty.clone(), Template::parse(id))).collect();
        let query = members(self.query)?;
        let body = match (self.body, self.text, self.stream) {
            (Some(body), false, false) => Body::Json { members: members(body)?, list: self.list_body },
            (None, true, false) => Body::Text,
            (None, false, true) => Body::Stream,
            (None, false, false) => Body::None,
            _ => return Err(format!("`{}` has two bodies", self.id)),
        };
        let in_resource: Vec<&str> = entities.first().map(|(_, t)| t.variables().collect()).unwrap_or_default();
        let mut parameters = BTreeMap::new();
        for piece in &pieces {
            if let Piece::Variable { name, kind } = piece
                && !in_resource.contains(&&**name)
            {
                let ty = if *kind == Kind::Integer { ParamType::Integer } else { ParamType::String };
                parameters.insert(name.to_string(), Parameter { ty, required: true });
            }
        }
        parameters.extend(query.clone());
        match &body {
            Body::Json { members, .. } => {
                for (name, parameter) in members {
                    parameters.insert(body_name(name, &pieces, &query), parameter.clone());
                }
            }
            Body::Text => {
                parameters.insert("body".into(), Parameter { ty: ParamType::String, required: false });
            }
            Body::Stream => {
                parameters.insert("content_type".into(), Parameter { ty: ParamType::String, required: false });
            }
            Body::None => {}
        }
        let entry = Entry {
            aliases: BTreeMap::new(),
            tool: Arc::from(super::SYSTEM),
            resource: self.entities.first().map(|(_, id)| id.clone()),
            resource_types: entities.iter().map(|(ty, _)| ty.clone()).collect(),
            facts: facts::of(&self.id),
            name: self.name,
            summary: self.summary,
            wire: self.wire,
            class: self.class,
            risk: self.risk,
            mutates_state: self.mutates,
            parameters,
            operation: self.id,
        };
        Ok(Operation {
            uris: uris.root(&entry.operation),
            entry: Arc::new(entry),
            method,
            pieces,
            entities,
            query,
            body,
            optional_tail: self.optional_tail,
            same_as: self.same_as,
        })
    }

    fn piece(&self, text: &str) -> Result<Piece, String> {
        let Some(name) = text.strip_prefix('{').and_then(|t| t.strip_suffix('}')) else {
            return Ok(Piece::Literal(text.to_owned()));
        };
        let kind = match self.path.get(name).map(String::as_str) {
            Some("integer") => Kind::Integer,
            Some("string") => Kind::Text,
            Some("slashed") => Kind::Slashed,
            Some("segments") => Kind::Segments,
            Some(words) if words.contains('|') => Kind::Words(words.split('|').map(str::to_owned).collect()),
            _ => return Err(format!("`{}` says nothing of `{name}`", self.id)),
        };
        Ok(Piece::Variable { name: Arc::from(name), kind })
    }
}

/// The name of a body member among the parameters: its own, unless a path variable or a
/// query parameter has it.
pub(super) fn body_name(member: &str, pieces: &[Piece], query: &BTreeMap<String, Parameter>) -> String {
    let in_path = pieces.iter().any(|p| matches!(p, Piece::Variable { name, .. } if &**name == member));
    if in_path || query.contains_key(member) { format!("body.{member}") } else { member.to_owned() }
}

fn members(types: BTreeMap<String, Type>) -> Result<BTreeMap<String, Parameter>, String> {
    types
        .into_iter()
        .map(|(name, ty)| {
            let (name, required) = name.strip_suffix('!').map_or((name.as_str(), false), |name| (name, true));
            Ok((name.to_owned(), Parameter { ty: ty.param_type()?, required }))
        })
        .collect()
}

impl Type {
    fn param_type(self) -> Result<ParamType, String> {
        Ok(match self {
            Self::Record(types) => ParamType::Record(members(types)?),
            Self::Word(word) => match word.as_str() {
                "string" => ParamType::String,
                "integer" => ParamType::Integer,
                "boolean" => ParamType::Boolean,
                "opaque" => ParamType::Opaque,
                "strings" => ParamType::List(Box::new(ParamType::String)),
                "integers" => ParamType::List(Box::new(ParamType::Integer)),
                "booleans" => ParamType::List(Box::new(ParamType::Boolean)),
                _ => return Err(format!("no type `{word}`")),
            },
        })
    }
}

#[expect(clippy::expect_used, reason = "the table is part of the program, and a test reads it")]
static CATALOG: LazyLock<Catalog> = LazyLock::new(|| {
    // INVARIANT: `github.jsonl` is generated, embedded and read by this crate's tests.
    Catalog::parse(include_str!("../../data/github.jsonl"), super::uris::graph())
        .expect("the embedded catalog is sound")
});
