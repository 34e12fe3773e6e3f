//! Bundles: a few leaves to hand to someone, byte for byte, with what opens their commitments.

use std::collections::BTreeMap;

use aegis_action::{Digest, sha256};
use serde::{Deserialize, Serialize};

use crate::{
    commit::SALT_BYTES,
    error::LogError,
    leaf::{Leaf, LeafBody},
    log::ReceiptLog,
};

/// The value of [`Bundle::format`].
pub const BUNDLE_FORMAT: &str = "aegis-receipt-bundle-1";

/// Exported leaves, in order. Neighbours are linked by their hashes; a gap is a gap.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bundle {
    /// [`BUNDLE_FORMAT`].
    pub format: String,
    /// The node whose log they are from.
    pub node: String,
    /// The leaves.
    pub leaves: Vec<BundleLeaf>,
}

/// One exported leaf.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BundleLeaf {
    /// Place in the log.
    pub seq: u64,
    /// SHA-256 of `leaf`.
    pub receipt_hash: Digest,
    /// The leaf's bytes; they are UTF-8.
    pub leaf: String,
    /// What opens its commitments, where that still exists and is meant to be shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opening: Option<Opening>,
}

/// What stands behind an intent's commitments.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Opening {
    /// The canonical bytes of the action; they are UTF-8.
    pub action: String,
    /// SHA-256 of them.
    pub action_hash: Digest,
    /// The salt of [`crate::commit()`], lowercase hex.
    #[serde(with = "salt_hex")]
    pub salt: [u8; SALT_BYTES],
}

impl Opening {
    /// For an action's canonical bytes; `None` when they are not UTF-8, which canonical bytes are.
    pub fn new(canonical_action: Vec<u8>, salt: [u8; SALT_BYTES]) -> Option<Self> {
        let action_hash = sha256(&canonical_action);
        Some(Self { action: String::from_utf8(canonical_action).ok()?, action_hash, salt })
    }
}

impl Bundle {
    /// Takes leaves from a log, in order of their numbers. `openings` holds what the caller
    /// unsealed from [`ReceiptLog::payload`], by sequence number.
    pub fn export(
        log: &ReceiptLog,
        seqs: impl IntoIterator<Item = u64>,
        mut openings: BTreeMap<u64, Opening>,
    ) -> Result<Self, LogError> {
        let mut wanted: Vec<u64> = seqs.into_iter().collect();
        wanted.sort_unstable();
        wanted.dedup();
        let mut leaves = Vec::with_capacity(wanted.len());
        for seq in wanted {
            let stored = log.leaf(seq)?.ok_or(LogError::NoSuchLeaf(seq))?;
            let leaf =
                String::from_utf8(stored.bytes).map_err(|_| LogError::Tampered { seq, why: "not UTF-8".into() })?;
            leaves.push(BundleLeaf { seq, receipt_hash: stored.hash, leaf, opening: openings.remove(&seq) });
        }
        Ok(Self { format: BUNDLE_FORMAT.into(), node: log.node().into(), leaves })
    }
}

/// The leaf with the outcome of an intent, looked for from the intent on.
pub fn outcome_seq(log: &ReceiptLog, intent_seq: u64) -> Result<Option<u64>, LogError> {
    let mut from = intent_seq.saturating_add(1);
    loop {
        let leaves = log.read(from, 1024)?;
        let Some(last) = leaves.last() else { return Ok(None) };
        from = last.seq + 1;
        for stored in &leaves {
            let names_it = match Leaf::parse(&stored.bytes).map(|leaf| leaf.body) {
                Ok(LeafBody::Outcome(entry)) => entry.intent_seq == intent_seq,
                Ok(LeafBody::Outcomes(entries)) => entries.iter().any(|entry| entry.intent_seq == intent_seq),
                _ => false,
            };
            if names_it {
                return Ok(Some(stored.seq));
            }
        }
    }
}

mod salt_hex {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use crate::commit::SALT_BYTES;

    pub fn serialize<S: Serializer>(salt: &[u8; SALT_BYTES], s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&hex::encode(salt))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<[u8; SALT_BYTES], D::Error> {
        let mut salt = [0; SALT_BYTES];
        hex::decode_to_slice(String::deserialize(d)?, &mut salt).map_err(D::Error::custom)?;
        Ok(salt)
    }
}
