//! From method and segments to the operation: a literal before a variable, one reading only.

use foldhash::HashMap;
use http::Method;

use super::catalog::{Kind, Operation, Piece};
use crate::{Refusal, wire::path::Segment};

/// Path templates of all operations, by method.
#[derive(Default)]
pub(super) struct Router(HashMap<Method, Node>);

#[derive(Default)]
struct Node {
    literals: HashMap<String, Node>,
    /// Narrow kinds first.
    variables: Vec<(Kind, Node)>,
    operation: Option<usize>,
}

/// A matched operation and where in the segments each of its variables stands.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub operation: usize,
    /// Half-open ranges of segments, in template order.
    pub captures: Vec<(usize, usize)>,
}

impl Router {
    pub fn add(&mut self, operation: &Operation, at: usize) {
        let root = self.0.entry(operation.method.clone()).or_default();
        let mut node = &mut *root;
        for piece in &operation.pieces {
            node = match piece {
                Piece::Literal(text) => node.literals.entry(text.clone()).or_default(),
                Piece::Variable { kind, .. } => node.variable(kind),
            };
        }
        node.operation = Some(at);
        if operation.optional_tail {
            let mut node = root;
            for piece in operation.pieces.iter().take(operation.pieces.len().saturating_sub(1)) {
                node = match piece {
                    Piece::Literal(text) => node.literals.entry(text.clone()).or_default(),
                    Piece::Variable { kind, .. } => node.variable(kind),
                };
            }
            node.operation = Some(at);
        }
    }

    /// The operation that the segments name. `Err` where an upstream that treats `%2F` as a
    /// separator would see another operation.
    pub fn find(&self, method: &Method, segments: &[Segment]) -> Result<Option<Found>, Refusal> {
        let Some(root) = self.0.get(method) else { return Ok(None) };
        let found = root.search(segments, 0);
        if segments.iter().any(Segment::has_slash) {
            // A literal has nothing to encode, so a piece that equals one was written plainly.
            let apart: Vec<Segment> = segments
                .iter()
                .flat_map(|s| s.text.split('/'))
                .map(|text| Segment { text: text.to_owned(), encoded: false })
                .collect();
            let other = root.search(&apart, 0).map(|f| f.operation);
            if let Some(found) = &found
                && other.is_some_and(|o| o != found.operation)
            {
                return Err(crate::wire::bad(
                    crate::wire::path::BAD_PATH,
                    "an encoded slash that would name another operation if it were decoded",
                ));
            }
        }
        Ok(found)
    }
}

impl Node {
    fn variable(&mut self, kind: &Kind) -> &mut Node {
        let at = match self.variables.iter().position(|(k, _)| k == kind) {
            Some(at) => at,
            None => {
                let at = self.variables.partition_point(|(k, _)| width(k) <= width(kind));
                self.variables.insert(at, (kind.clone(), Node::default()));
                at
            }
        };
        #[expect(clippy::indexing_slicing, reason = "found or inserted just above")]
        &mut self.variables[at].1
    }

    fn search(&self, segments: &[Segment], at: usize) -> Option<Found> {
        let Some((first, rest)) = segments.split_first() else {
            return self.operation.map(|operation| Found { operation, captures: Vec::new() });
        };
        let literal = if first.encoded { None } else { self.literals.get(&first.text) };
        if let Some(found) = literal.and_then(|node| node.search(rest, at + 1)) {
            return Some(found);
        }
        self.variables.iter().find_map(|(kind, node)| {
            // The shortest capture leaves most to literals.
            let longest = if *kind == Kind::Segments { segments.len() } else { 1 };
            if !accepts(kind, first) {
                return None;
            }
            (1..=longest).find_map(|taken| {
                let mut found = node.search(segments.get(taken..)?, at + taken)?;
                found.captures.insert(0, (at, at + taken));
                Some(found)
            })
        })
    }
}

fn accepts(kind: &Kind, segment: &Segment) -> bool {
    match kind {
        Kind::Integer => super::resource::is_integer(&segment.text) && !segment.encoded,
        Kind::Words(words) => words.contains(&segment.text) && !segment.encoded,
        Kind::Text => !segment.has_slash(),
        Kind::Slashed | Kind::Segments => true,
    }
}

fn width(kind: &Kind) -> u8 {
    match kind {
        Kind::Integer => 0,
        Kind::Words(_) => 1,
        Kind::Text => 2,
        Kind::Slashed => 3,
        Kind::Segments => 4,
    }
}
