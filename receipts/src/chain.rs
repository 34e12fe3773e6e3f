//! One leaf after the other: what recovery and verifier both demand of leaf bytes.

use aegis_action::{Digest, sha256};

use crate::canonical::{members, raw_string, walk_object};

/// What stands before the first leaf.
pub(crate) const GENESIS: Digest = Digest([0; 32]);

/// The types this version knows.
pub(crate) const TYPES: [&str; 6] =
    ["intent.v1", "outcome.v1", "outcomes.v1", "refused.v1", "event.v1", "recovered.v1"];

/// The members of a leaf that link it, as they stand in its bytes.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct LeafView<'a> {
    pub type_name: &'a str,
    pub node: &'a str,
    pub seq: u64,
    pub ts: i64,
    pub prev: &'a str,
    /// Raw text; canonical, so equal text is equal value.
    pub decision_id: Option<&'a str>,
    pub decision: Option<&'a str>,
    pub door: Option<&'a str>,
    pub dry_run: bool,
    pub intent_seq: Option<u64>,
    /// Raw array of an `outcomes.v1`.
    pub entries: Option<&'a str>,
}

impl<'a> LeafView<'a> {
    /// Checks that the bytes are canonical JSON with the members every leaf has.
    pub(crate) fn read(bytes: &'a [u8]) -> Result<Self, String> {
        let mut view = Self::default();
        let (mut seq, mut ts) = (None, None);
        walk_object(bytes, &mut |key, raw| match key {
            "type" => view.type_name = raw_string(raw).unwrap_or_default(),
            "node" => view.node = raw_string(raw).unwrap_or_default(),
            "seq" => seq = raw.parse().ok(),
            "ts" => ts = raw.parse().ok(),
            "prev_receipt_hash" => view.prev = raw_string(raw).unwrap_or_default(),
            "decision_id" => view.decision_id = raw_string(raw),
            "decision" => view.decision = raw_string(raw),
            "door" => view.door = raw_string(raw),
            "dry_run" => view.dry_run = raw == "true",
            "intent_seq" => view.intent_seq = raw.parse().ok(),
            "entries" => view.entries = Some(raw),
            _ => {}
        })?;
        view.seq = seq.ok_or("`seq` is missing or no number")?;
        view.ts = ts.ok_or("`ts` is missing or no number")?;
        if !TYPES.contains(&view.type_name) {
            return Err(format!("unknown type `{}`", view.type_name));
        }
        if view.node.is_empty() || view.prev.len() != 64 {
            return Err("`node` or `prev_receipt_hash` is missing".into());
        }
        Ok(view)
    }
}

/// `intent_seq` and `decision_id` of one entry of an `outcomes.v1`.
pub(crate) fn entry_link(raw: &str) -> Option<(u64, &str)> {
    let (mut seq, mut id) = (None, None);
    members(raw, &mut |key, raw| match key {
        "intent_seq" => seq = raw.parse().ok(),
        "decision_id" => id = raw_string(raw),
        _ => {}
    })?;
    Some((seq?, id?))
}

/// The end of a chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Chain {
    /// Taken from the first leaf where it is not known before.
    pub node: Option<String>,
    pub next_seq: u64,
    pub last_hash: Digest,
    pub last_ts: i64,
}

impl Chain {
    pub(crate) fn genesis() -> Self {
        Self { node: None, next_seq: 0, last_hash: GENESIS, last_ts: 0 }
    }

    /// Whether a leaf is the next one.
    pub(crate) fn check(&self, view: &LeafView<'_>) -> Result<(), String> {
        if view.seq != self.next_seq {
            return Err(format!("its `seq` is {}, expected {}", view.seq, self.next_seq));
        }
        if Digest::from_hex(view.prev) != Some(self.last_hash) {
            return Err("its `prev_receipt_hash` is not the hash of the leaf before it".into());
        }
        match &self.node {
            Some(node) if node != view.node => Err(format!("its `node` is `{}`, expected `{node}`", view.node)),
            _ => Ok(()),
        }
    }

    /// Goes on behind a checked leaf and returns its hash.
    pub(crate) fn advance(&mut self, bytes: &[u8], view: &LeafView<'_>) -> Digest {
        if self.node.is_none() {
            self.node = Some(view.node.to_owned());
        }
        self.next_seq += 1;
        self.last_hash = sha256(bytes);
        self.last_ts = view.ts;
        self.last_hash
    }
}
