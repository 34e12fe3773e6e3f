//! The canonical action: one vocabulary for every door, and the bytes it is hashed over.
//!
//! Nothing here does I/O. Everything downstream of a connector (policy, approval,
//! credential, receipt, detection) reads only what this crate defines.

mod action;
mod bulk;
mod canon;
mod class;
mod hash;
mod time;
mod trust;

pub use action::{Action, ActionError, ToolCall};
pub use bulk::{BULK_KEY, BULK_THRESHOLD, STREAM_KEY, stream_marker};
pub use canon::{
    CANON_VERSION, CanonError, MAX_BYTES, MAX_DEPTH, MAX_SAFE_INTEGER, canonicalize, parse_strict, parse_strict_bounded,
};
pub use class::{AccessClass, Risk};
pub use hash::{ActionHash, Digest, sha256};
pub use time::{Clock, Timestamp};
pub use trust::SourceTrust;
