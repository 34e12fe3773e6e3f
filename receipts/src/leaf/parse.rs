//! Leaf bytes back into types, for projections and people. The verifier reads bytes, not these.

use aegis_action::{CanonError, Digest, Timestamp, parse_strict};
use serde::Deserialize;
use serde_json::Value;

use super::{LeafBody, OutcomeEntry};

/// A leaf as it was recorded.
#[derive(Debug, Clone, PartialEq)]
pub struct Leaf {
    /// Node that wrote it.
    pub node: String,
    /// Place in the node's log, from 0.
    pub seq: u64,
    /// When it was written, milliseconds since the epoch.
    pub ts: Timestamp,
    /// SHA-256 of the leaf before it; zeros for the first.
    pub prev_receipt_hash: Digest,
    /// What it records.
    pub body: LeafBody,
}

/// Why bytes are not a leaf.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LeafError {
    /// Not `aegis-jcs-1` JSON.
    #[error("not canonical JSON: {0}")]
    Json(#[from] CanonError),
    /// A type this version does not know.
    #[error("unknown leaf type `{0}`")]
    UnknownType(String),
    /// A member is missing or has the wrong type.
    #[error("not a leaf: {0}")]
    Shape(String),
}

impl Leaf {
    /// Reads leaf bytes. Unknown members are passed over: a later version may add some.
    pub fn parse(bytes: &[u8]) -> Result<Self, LeafError> {
        let value = parse_strict(bytes)?;
        let stamp: StampMembers = from(&value)?;
        let body = match stamp.type_name.as_str() {
            "intent.v1" => LeafBody::Intent(Box::new(from(&value)?)),
            "outcome.v1" => LeafBody::Outcome(from(&value)?),
            "outcomes.v1" => LeafBody::Outcomes(from::<Entries>(&value)?.entries),
            "refused.v1" => LeafBody::Refused(from(&value)?),
            "event.v1" => LeafBody::Event(from(&value)?),
            "recovered.v1" => LeafBody::Recovered(from(&value)?),
            _ => return Err(LeafError::UnknownType(stamp.type_name)),
        };
        Ok(Self { node: stamp.node, seq: stamp.seq, ts: stamp.ts, prev_receipt_hash: stamp.prev_receipt_hash, body })
    }
}

fn from<'a, T: Deserialize<'a>>(value: &'a Value) -> Result<T, LeafError> {
    T::deserialize(value).map_err(|e| LeafError::Shape(e.to_string()))
}

#[derive(Deserialize)]
struct StampMembers {
    node: String,
    seq: u64,
    ts: Timestamp,
    prev_receipt_hash: Digest,
    #[serde(rename = "type")]
    type_name: String,
}

#[derive(Deserialize)]
struct Entries {
    entries: Vec<OutcomeEntry>,
}
