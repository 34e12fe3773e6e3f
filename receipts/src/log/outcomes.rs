//! The outcome queue: callers put in and go on, the sync thread merges and records.

use std::time::Instant;

use aegis_action::{MAX_SAFE_INTEGER, Timestamp};

use super::{Heir, MAX_OPEN_INTENTS, Shared};
use crate::leaf::{LeafBody, MAX_LEAF_BYTES, OutcomeEntry, Transfer, entry_bytes};

/// What the sync thread is woken for.
#[derive(Default)]
pub(super) struct Wake {
    /// Outcomes that wait.
    pub queue: Vec<OutcomeEntry>,
    /// When the first of them came.
    pub since: Option<Instant>,
    /// One of them must not wait for others.
    pub urgent: bool,
    /// Leaves were appended.
    pub appended: bool,
    /// The log is being shut down.
    pub closing: bool,
    /// The thread has ended.
    pub ended: bool,
    /// Who records outcomes that come after the end.
    pub heir: Option<Heir>,
}

impl Wake {
    /// Ends the queue unless something is in it: what comes from here on is the heir's.
    pub fn finish(&mut self) -> bool {
        self.ended = self.queue.is_empty();
        self.ended
    }
}

impl Shared {
    /// Tells the sync thread that there is something to sync.
    pub fn ring(&self) {
        let mut wake = self.wake.lock();
        if !wake.appended {
            wake.appended = true;
            self.bell.notify_one();
        }
    }

    pub fn queue_outcome(&self, mut outcome: OutcomeEntry) {
        bound(&mut outcome);
        let mut wake = self.wake.lock();
        if wake.ended
            && let Some(heir) = &wake.heir
        {
            heir(outcome);
            return;
        }
        // One per intent in flight always fits; more can only be outcomes of no such intent.
        if wake.ended || wake.queue.len() >= 2 * MAX_OPEN_INTENTS {
            tracing::error!(
                decision_id = outcome.decision_id,
                intent_seq = outcome.intent_seq,
                "an outcome cannot be recorded: the log is shut down or does not know its intent"
            );
            return;
        }
        let urgent = !outcome.of_read || wake.queue.len() + 1 >= MERGE;
        let first = wake.queue.is_empty();
        wake.queue.push(outcome);
        wake.since.get_or_insert_with(Instant::now);
        if first || (urgent && !wake.urgent) {
            self.bell.notify_one();
        }
        wake.urgent |= urgent;
    }
}

/// Leaves for queued outcomes: reads share leaves, anything else has one of its own.
pub(super) fn leaves(queue: Vec<OutcomeEntry>) -> Vec<LeafBody> {
    let mut leaves = Vec::new();
    let (mut shared, mut bytes) = (Vec::new(), 0);
    for entry in queue {
        if !entry.of_read {
            leaves.push(LeafBody::Outcome(entry));
            continue;
        }
        let more = entry_bytes(&entry);
        if bytes + more > MERGED_BYTES {
            leaves.push(merged(std::mem::take(&mut shared)));
            bytes = 0;
        }
        shared.push(entry);
        bytes += more;
    }
    if !shared.is_empty() {
        leaves.push(merged(shared));
    }
    leaves
}

fn merged(mut entries: Vec<OutcomeEntry>) -> LeafBody {
    match (entries.len(), entries.pop()) {
        (1, Some(only)) => LeafBody::Outcome(only),
        (_, last) => {
            entries.extend(last);
            LeafBody::Outcomes(entries)
        }
    }
}

/// Makes an entry fit the room kept for it, whatever it says. It must be possible to record it.
fn bound(entry: &mut OutcomeEntry) {
    clip(&mut entry.decision_id, 128);
    if let Some(credential) = &mut entry.credential {
        clip(&mut credential.id, 128);
        clip(&mut credential.version, 128);
    }
    if let Some(tamper) = &mut entry.tamper {
        clip(tamper, 256);
    }
    for time in [&mut entry.started_at, &mut entry.ended_at] {
        *time = Timestamp(time.0.clamp(-MAX_SAFE_INTEGER, MAX_SAFE_INTEGER));
    }
    for Transfer { bytes, frames, .. } in [&mut entry.sent, &mut entry.received].into_iter().flatten() {
        for count in [Some(bytes), frames.as_mut()].into_iter().flatten() {
            *count = (*count).min(MAX_SAFE_INTEGER.unsigned_abs());
        }
    }
}

/// Cuts a text so that it takes at most `max` bytes when written, escapes counted at their longest.
fn clip(text: &mut String, max: usize) {
    let mut written = 0;
    let end = text.char_indices().find_map(|(at, c)| {
        written += if c < ' ' || c == '"' || c == '\\' { 6 } else { c.len_utf8() };
        (written > max).then_some(at)
    });
    if let Some(end) = end {
        text.truncate(end);
    }
}

/// Queued outcomes that are recorded without waiting for more.
pub(super) const MERGE: usize = 64;
/// Entries in one leaf, leaving room for the members every leaf has.
const MERGED_BYTES: usize = MAX_LEAF_BYTES - 1024;

#[cfg(test)]
mod tests {
    use aegis_action::sha256;

    use super::*;
    use crate::{
        leaf::{CredentialUse, OutcomeState, Stamp, write_leaf},
        log::OUTCOME_RESERVE,
    };

    fn hostile(of_read: bool) -> OutcomeEntry {
        let transfer = Some(Transfer { bytes: u64::MAX, frames: Some(u64::MAX), sha256: Some(sha256(b"x")) });
        OutcomeEntry {
            credential: Some(CredentialUse { id: "\u{1}".repeat(900), version: "é".repeat(900) }),
            decision_id: "\"".repeat(900),
            ended_at: Timestamp(i64::MAX),
            intent_seq: 1 << 50,
            of_read,
            received: transfer,
            sent: transfer,
            started_at: Timestamp(i64::MIN),
            state: OutcomeState::Completed,
            tamper: Some("😀".repeat(900)),
            upstream_status: Some(u16::MAX),
        }
    }

    #[test]
    fn whatever_an_outcome_says_it_fits_the_room_kept_for_it() {
        let prev = sha256(b"p");
        let node = "n".repeat(32);
        let stamp = Stamp { node: &node, seq: 1 << 52, ts: Timestamp(MAX_SAFE_INTEGER), prev: &prev };
        let mut entry = hostile(false);
        bound(&mut entry);
        let mut out = Vec::new();
        write_leaf(&stamp, &entry.clone().into(), &mut out).unwrap();
        assert!(out.len() as u64 + 2 <= OUTCOME_RESERVE, "{} bytes", out.len());

        entry.of_read = true;
        let leaves = leaves(vec![entry; 500]);
        assert!(leaves.len() > 1);
        let mut entries = 0;
        for leaf in &leaves {
            let mut out = Vec::new();
            write_leaf(&stamp, leaf, &mut out).unwrap();
            assert!(out.len() <= MAX_LEAF_BYTES, "{} bytes", out.len());
            let LeafBody::Outcomes(merged) = leaf else { panic!("{leaf:?}") };
            entries += merged.len();
        }
        assert_eq!(entries, 500);
    }

    #[test]
    fn a_write_has_a_leaf_of_its_own_and_a_lone_read_too() {
        let kinds: Vec<_> =
            leaves(vec![hostile(true), hostile(false), hostile(true)]).iter().map(LeafBody::type_name).collect();
        assert_eq!(kinds, ["outcome.v1", "outcomes.v1"]);
        assert!(matches!(&leaves(vec![hostile(true)])[..], [LeafBody::Outcome(_)]));
        assert!(leaves(Vec::new()).is_empty());
    }
}
