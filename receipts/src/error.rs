//! What can go wrong with the log, and what the caller does about it.

use std::io;

/// Why the log did not do what it was asked. Nothing was recorded unless the variant says so.
///
/// Errors are values that can be handed to many waiters, so the operating system's own
/// error is kept as text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// The options cannot work. Correct the configuration.
    #[error("receipt log options: {0}")]
    BadOptions(String),
    /// Another process has the directory open. One directory, one writer: stop it, or use another directory.
    #[error("receipt log `{0}` is locked by another process")]
    Locked(String),
    /// The directory holds the log of another node. Give every node a directory of its own.
    #[error("receipt log belongs to node `{found}`, not to `{expected}`")]
    OtherNode {
        /// The node in the leaves.
        found: String,
        /// The node in the options.
        expected: String,
    },
    /// A leaf has no canonical form or breaks a rule of its type. A defect of the caller; deny.
    #[error("leaf cannot be recorded: {0}")]
    BadLeaf(String),
    /// A leaf or payload is larger than the format holds. Deny the request that needs it.
    #[error("leaf or payload of {bytes} bytes is over the limit of {limit}")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// No space that would leave room for the outcomes in flight. Deny; later appends try again by themselves.
    #[error("receipt log is full: {0}")]
    Full(String),
    /// The disk failed. Deny; later appends try again by themselves.
    #[error("receipt log cannot {doing}: {cause}")]
    Io {
        /// The operation, e.g. `write a segment`.
        doing: &'static str,
        /// The operating system's words.
        cause: String,
    },
    /// Too many intents without an outcome, or too many bytes waiting for the disk. Deny; it clears as they drain.
    #[error("receipt log is saturated: {0}")]
    Saturated(&'static str),
    /// The leaf is written but was not synced in time. Deny, and record an aborted outcome: it may still become durable.
    #[error("leaf {seq} is not durable: {cause}")]
    NotDurable {
        /// The leaf.
        seq: u64,
        /// Why.
        cause: String,
    },
    /// There is no such leaf.
    #[error("there is no leaf {0}")]
    NoSuchLeaf(u64),
    /// What was on disk is not what was written there. Do not repair it: keep the files and find out who changed them.
    #[error("receipt log is damaged at leaf {seq}: {why}")]
    Tampered {
        /// The first leaf that does not hold.
        seq: u64,
        /// What does not hold.
        why: String,
    },
    /// The log was shut down.
    #[error("receipt log is closed")]
    Closed,
}

impl LogError {
    /// Sorts an error of the operating system: no space of any kind is [`LogError::Full`].
    pub(crate) fn io(doing: &'static str, error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                Self::Full(format!("cannot {doing}: {error}"))
            }
            _ => Self::Io { doing, cause: error.to_string() },
        }
    }
}
