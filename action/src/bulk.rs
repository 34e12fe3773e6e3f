//! Bulk content: the action keeps its digest, the parse keeps the content.

use serde_json::{Map, Value, json};

use crate::{CanonError, hash::sha256};

/// Strings of more bytes than this are replaced by their digest.
pub const BULK_THRESHOLD: usize = 64 * 1024;
/// Marks a folded string.
pub const BULK_KEY: &str = "$bulk";
/// Marks a streamed body.
pub const STREAM_KEY: &str = "$stream";

/// What stands in an action for a body that is streamed, not read.
pub fn stream_marker(bytes: Option<u64>, declared_digest: Option<&str>) -> Value {
    let mut inner = Map::new();
    if let Some(bytes) = bytes {
        inner.insert("bytes".into(), bytes.into());
    }
    if let Some(digest) = declared_digest {
        inner.insert("declared_digest".into(), digest.into());
    }
    json!({ STREAM_KEY: inner })
}

/// Folds long strings and refuses reserved keys, so that a client cannot write a marker of its own.
pub(crate) fn fold(value: &mut Value, depth: usize) -> Result<(), CanonError> {
    if depth > crate::MAX_DEPTH {
        return Err(CanonError::TooDeep);
    }
    match value {
        Value::String(s) if s.len() > BULK_THRESHOLD => {
            *value = json!({ BULK_KEY: { "sha256": sha256(s.as_bytes()).to_hex(), "bytes": s.len() } });
        }
        Value::Array(items) => {
            for item in items {
                fold(item, depth + 1)?;
            }
        }
        Value::Object(map) => fold_members(map, depth)?,
        _ => {}
    }
    Ok(())
}

pub(crate) fn fold_members(map: &mut Map<String, Value>, depth: usize) -> Result<(), CanonError> {
    for (key, value) in map.iter_mut() {
        if key == BULK_KEY {
            return Err(CanonError::ReservedKey(BULK_KEY));
        }
        if key == STREAM_KEY {
            return Err(CanonError::ReservedKey(STREAM_KEY));
        }
        fold(value, depth + 1)?;
    }
    Ok(())
}
