//! What anyone can check: the leaf, the hash-chained log it goes into, and the verifier.
//!
//! The promise is that no credential leaves the vault for a request that is not already
//! on record. [`ReceiptLog::append`] puts a leaf where a killed process still leaves it,
//! [`ReceiptLog::durable`] waits until a power cut leaves it too, and [`verify::verify_dir`]
//! checks the whole record from nothing but its files. Formats: `docs/receipts.md`.

mod canonical;
mod chain;
mod commit;
mod disk;
mod error;
mod export;
mod head;
mod id;
mod leaf;
mod log;
mod segment;
pub mod verify;

pub use commit::{SALT_BYTES, commit, open_commitments};
pub use disk::{Disk, DiskFile, DiskLock, RealDisk};
pub use error::LogError;
pub use export::{BUNDLE_FORMAT, Bundle, BundleLeaf, Opening, outcome_seq};
pub use id::{parse_receipt_id, receipt_id};
pub use leaf::{
    ApprovalUse, CredentialUse, Decision, Door, Event, Intent, Leaf, LeafBody, LeafError, MAX_LEAF_BYTES, OutcomeEntry,
    OutcomeState, Recovered as RecoveredLeaf, Refused, Transfer,
};
pub use log::{
    Appended, Head, Heir, LogOptions, MAX_BATCH, MAX_OPEN_INTENTS, MAX_PAYLOAD_BYTES, OUTCOME_RESERVE, ReceiptLog,
    Recovered, StoredLeaf,
};
