//! Appending: sequence, hash and hand to the kernel, all or none.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use aegis_action::{Clock, Digest, Timestamp, sha256};

use super::{Appended, LogOptions, MAX_BATCH, MAX_OPEN_INTENTS, OUTCOME_RESERVE, sidecar::Sidecar, tail::Tail};
use crate::{
    chain::Chain,
    disk::{Disk, DiskFile},
    error::LogError,
    id::receipt_id,
    leaf::{LeafBody, MAX_LEAF_BYTES, Stamp, write_leaf},
    segment::{begin_record, end_record},
};

/// Why leaves are appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// May be refused to keep room for outcomes.
    Ordinary,
    /// Queued outcomes: they use the room that was kept.
    Outcomes,
}

/// Bytes that are written and not synced, kept to be written again should the sync fail:
/// the kernel drops what it could not write and reports the error once.
#[derive(Clone)]
pub(super) struct Chunk {
    pub file: Arc<dyn DiskFile>,
    pub offset: u64,
    pub bytes: Arc<Vec<u8>>,
    /// Sequence number behind its last leaf.
    pub end: u64,
    /// Hash of its last leaf.
    pub last_hash: Digest,
}

/// The one writer.
pub(super) struct Writer {
    pub disk: Arc<dyn Disk>,
    clock: Arc<dyn Clock>,
    options: LogOptions,
    /// First sequence numbers of the full segments.
    pub full: Vec<u64>,
    pub current: Tail,
    /// The segment after the current one, made before it is needed.
    next: Option<Tail>,
    chain: Chain,
    /// Allowed intents without an outcome, with the time they were made.
    open: BTreeMap<u64, i64>,
    pub unsynced: VecDeque<Chunk>,
    unsynced_bytes: usize,
    last_error: Option<LogError>,
    pub sidecar: Sidecar,
    closed: bool,
}

/// Leaves with their bytes, before any of it is in the log.
struct Draft {
    /// For the current segment.
    here: Part,
    /// For the next one.
    there: Part,
    appended: Vec<Appended>,
    ts: i64,
}

/// How much of a segment leaves take.
struct Size {
    here: u64,
    here_leaves: u64,
    there: u64,
}

impl Draft {
    fn size(&self) -> Size {
        Size {
            here: self.here.bytes.len() as u64,
            here_leaves: self.here.starts.len() as u64,
            there: self.there.bytes.len() as u64,
        }
    }
}

#[derive(Default)]
struct Part {
    bytes: Vec<u8>,
    starts: Vec<u64>,
    last_hash: Option<Digest>,
}

impl Writer {
    pub fn new(
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
        options: LogOptions,
        (full, current): (Vec<u64>, Tail),
        chain: Chain,
        sidecar: Sidecar,
    ) -> Self {
        Self {
            disk,
            clock,
            options,
            full,
            current,
            next: None,
            chain,
            open: BTreeMap::new(),
            unsynced: VecDeque::new(),
            unsynced_bytes: 0,
            last_error: None,
            sidecar,
            closed: false,
        }
    }

    pub fn append(&mut self, leaves: &[LeafBody], purpose: Purpose) -> Result<Vec<Appended>, LogError> {
        let result = self.try_append(leaves, purpose);
        match &result {
            Ok(_) => self.last_error = None,
            Err(e @ (LogError::Full(_) | LogError::Io { .. })) => self.last_error = Some(e.clone()),
            Err(_) => {}
        }
        result
    }

    fn try_append(&mut self, leaves: &[LeafBody], purpose: Purpose) -> Result<Vec<Appended>, LogError> {
        let opening = self.admit(leaves, purpose)?;
        self.repair()?;
        if self.current.slots() == 0 {
            self.prepare_next()?;
            self.roll();
        }
        let draft = self.draft(leaves)?;
        match purpose {
            Purpose::Ordinary => self.keep_room(draft.size(), self.open.len() as u64 + opening)?,
            // As far as the reserved space does not reach, the write finds out.
            Purpose::Outcomes if draft.there.bytes.is_empty() => {}
            Purpose::Outcomes => self.prepare_next()?,
        }
        self.write(&draft)?;
        Ok(self.accept(draft, leaves))
    }

    /// Bounds everything that an append could grow. Returns how many outcomes the leaves will bring.
    fn admit(&mut self, leaves: &[LeafBody], purpose: Purpose) -> Result<u64, LogError> {
        if self.closed && purpose == Purpose::Ordinary {
            return Err(LogError::Closed);
        }
        if leaves.len() > MAX_BATCH {
            return Err(LogError::TooLarge { bytes: leaves.len(), limit: MAX_BATCH });
        }
        if self.unsynced_bytes > MAX_UNSYNCED_BYTES {
            return Err(LogError::Saturated("the disk is behind"));
        }
        let opening = leaves.iter().filter(|leaf| opens(leaf)).count();
        if self.open.len() + opening > MAX_OPEN_INTENTS {
            // Whoever still holds one of these has lost it: nothing is in flight that long.
            let stale = self.clock.now().0.saturating_sub(STALE_MS);
            self.open.retain(|_, ts| *ts >= stale);
            if self.open.len() + opening > MAX_OPEN_INTENTS {
                return Err(LogError::Saturated("too many intents without an outcome"));
            }
        }
        Ok(opening as u64)
    }

    fn repair(&mut self) -> Result<(), LogError> {
        self.current.cut()?;
        self.next.as_mut().map_or(Ok(()), Tail::cut)
    }

    fn draft(&self, leaves: &[LeafBody]) -> Result<Draft, LogError> {
        let ts = self.time();
        let mut draft = Draft { here: Part::default(), there: Part::default(), appended: Vec::new(), ts };
        draft.here.bytes.reserve(leaves.len() * TYPICAL_LEAF);
        draft.appended.reserve(leaves.len());
        let slots = self.current.slots();
        let mut prev = self.chain.last_hash;
        for (seq, leaf) in (self.chain.next_seq..).zip(leaves) {
            check(leaf, seq)?;
            let here = seq - self.chain.next_seq < slots;
            let part = if here { &mut draft.here } else { &mut draft.there };
            let start = begin_record(&mut part.bytes);
            let stamp = Stamp { node: &self.options.node, seq, ts: Timestamp(ts), prev: &prev };
            write_leaf(&stamp, leaf, &mut part.bytes).map_err(|e| LogError::BadLeaf(e.to_string()))?;
            let bytes = part.bytes.len() - start - 2;
            let Some(leaf) = end_record(&mut part.bytes, start) else {
                return Err(LogError::TooLarge { bytes, limit: MAX_LEAF_BYTES });
            };
            let hash = sha256(leaf);
            part.starts.push(start as u64);
            part.last_hash = Some(hash);
            draft.appended.push(Appended {
                seq,
                receipt_id: receipt_id(&self.options.node, seq),
                receipt_hash: hash,
                prev_receipt_hash: prev,
            });
            prev = hash;
        }
        Ok(draft)
    }

    /// A clock that is set back a little does not take the log back with it; one that is
    /// set back a lot was wrong before, and the log says what it says now.
    fn time(&self) -> i64 {
        let now = self.clock.now().0;
        let back = self.chain.last_ts.saturating_sub(now);
        if (1..=CLOCK_STEP_MS).contains(&back) { self.chain.last_ts } else { now }
    }

    /// Refuses what would take the room of the outcomes in flight, wherever they will go:
    /// into this segment, or, when its leaves run out, into the next.
    fn keep_room(&mut self, Size { here, here_leaves, there }: Size, in_flight: u64) -> Result<(), LogError> {
        let step = self.options.preallocate;
        let outcomes = (in_flight + 1) * OUTCOME_RESERVE;
        let slots_left = self.current.slots().saturating_sub(here_leaves);
        self.current.reserve(if there == 0 { here + outcomes } else { here }, step)?;
        if there > 0 || slots_left <= in_flight {
            self.prepare_next()?;
            if let Some(next) = &mut self.next {
                next.reserve(there + outcomes, step)?;
            }
        }
        Ok(())
    }

    fn prepare_next(&mut self) -> Result<(), LogError> {
        if self.next.is_none() {
            let first = self.current.first + u64::from(self.current.capacity);
            self.next = Some(Tail::create(&*self.disk, &self.options.dir, first, self.options.segment_leaves)?);
        }
        Ok(())
    }

    /// Hands the bytes to the kernel. A crash between the two parts leaves the first, whole:
    /// its leaves are intents of a request that was never let through.
    fn write(&mut self, draft: &Draft) -> Result<(), LogError> {
        let written = self.current.write(&draft.here.bytes).and_then(|()| match &mut self.next {
            Some(next) => next.write(&draft.there.bytes),
            None => Ok(()),
        });
        if written.is_err()
            && let Err(e) = self.repair()
        {
            tracing::warn!(error = %e, "a failed write is not cut yet; the next append tries again");
        }
        written
    }

    /// From here on the leaves are in the log. Cannot fail.
    fn accept(&mut self, draft: Draft, leaves: &[LeafBody]) -> Vec<Appended> {
        for (leaf, appended) in leaves.iter().zip(&draft.appended) {
            self.note_open(leaf, appended.seq, draft.ts);
        }
        let mut end = self.chain.next_seq;
        for (part, into_next) in [(draft.here, false), (draft.there, true)] {
            let Some(last_hash) = part.last_hash else { continue };
            if into_next {
                self.roll();
            }
            end += part.starts.len() as u64;
            let chunk = Chunk {
                file: Arc::clone(&self.current.file),
                offset: self.current.pos,
                bytes: Arc::new(part.bytes),
                end,
                last_hash,
            };
            self.unsynced_bytes += chunk.bytes.len();
            self.current.accept(chunk.bytes.len() as u64, &part.starts);
            self.unsynced.push_back(chunk);
            self.chain.last_hash = last_hash;
        }
        self.chain.next_seq = end;
        self.chain.last_ts = draft.ts;
        draft.appended
    }

    fn roll(&mut self) {
        if let Some(next) = self.next.take() {
            let full = std::mem::replace(&mut self.current, next);
            full.finish();
            self.full.push(full.first);
        }
    }

    fn note_open(&mut self, leaf: &LeafBody, seq: u64, ts: i64) {
        match leaf {
            LeafBody::Intent(intent) if intent.opens() => {
                self.open.insert(seq, ts);
            }
            LeafBody::Outcome(entry) => {
                self.open.remove(&entry.intent_seq);
            }
            LeafBody::Outcomes(entries) => {
                for entry in entries {
                    self.open.remove(&entry.intent_seq);
                }
            }
            _ => {}
        }
    }

    /// Forgets bytes that are synced now.
    pub fn synced(&mut self, end: u64) {
        while let Some(chunk) = self.unsynced.front()
            && chunk.end <= end
        {
            self.unsynced_bytes -= chunk.bytes.len();
            self.unsynced.pop_front();
        }
    }

    /// Stores a payload beside the segment of its leaf. After the leaf, so that a crash
    /// between the two leaves a leaf without payload and never a payload of another leaf.
    pub fn store_payload(&mut self, seq: u64, payload: &[u8]) {
        let first = self.segment_of(seq);
        self.sidecar.put(&*self.disk, first, seq, payload);
    }

    /// First sequence number of the segment that has a leaf.
    pub fn segment_of(&self, seq: u64) -> u64 {
        if seq >= self.current.first {
            return self.current.first;
        }
        let behind = self.full.partition_point(|first| *first <= seq);
        behind.checked_sub(1).and_then(|at| self.full.get(at)).copied().unwrap_or(0)
    }

    /// Whether an append could be made, as far as that can be told without one.
    pub fn probe(&mut self) -> Result<(), LogError> {
        if let Some(error) = self.last_error.clone() {
            let typical = Size { here: TYPICAL_LEAF as u64, here_leaves: 1, there: 0 };
            let in_flight = self.open.len() as u64 + 1;
            self.repair().and_then(|()| self.keep_room(typical, in_flight)).map_err(|_| error)?;
            self.last_error = None;
        }
        Ok(())
    }

    pub fn close(&mut self) {
        self.closed = true;
    }

    /// Intents whose outcome somebody else will bring count as in flight from here on.
    pub fn expect(&mut self, intents: &[u64]) {
        let now = self.clock.now().0;
        let known = self.chain.next_seq;
        let room = MAX_OPEN_INTENTS.saturating_sub(self.open.len());
        self.open.extend(intents.iter().filter(|seq| **seq < known).take(room).map(|seq| (*seq, now)));
    }

    pub fn open(&self) -> Vec<u64> {
        self.open.keys().copied().collect()
    }
    pub fn next_seq(&self) -> u64 {
        self.chain.next_seq
    }
    pub fn last_hash(&self) -> Digest {
        self.chain.last_hash
    }
    pub fn open_intents(&self) -> usize {
        self.open.len()
    }
    pub fn payloads_lost(&self) -> u64 {
        self.sidecar.lost
    }
}

fn opens(leaf: &LeafBody) -> bool {
    matches!(leaf, LeafBody::Intent(intent) if intent.opens())
}

/// What the types cannot say: a decision's id is short and plain, so that its outcome
/// always fits, and an outcome comes after its intent.
fn check(leaf: &LeafBody, seq: u64) -> Result<(), LogError> {
    let entries = match leaf {
        LeafBody::Intent(intent) => {
            let id = &intent.decision_id;
            let plain = id.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'));
            if plain && (1..=64).contains(&id.len()) {
                return Ok(());
            }
            return Err(LogError::BadLeaf("`decision_id` must be 1 to 64 of letters, digits, `_`, `-`".into()));
        }
        LeafBody::Outcome(entry) => std::slice::from_ref(entry),
        LeafBody::Outcomes(entries) => entries,
        _ => return Ok(()),
    };
    match entries.iter().find(|entry| entry.intent_seq >= seq) {
        Some(entry) => Err(LogError::BadLeaf(format!("there is no intent {}", entry.intent_seq))),
        None => Ok(()),
    }
}

/// Room that is made for a leaf before it is written.
const TYPICAL_LEAF: usize = 1200;
/// Bytes kept for a sync that fails. 64 MiB are about 100,000 leaves.
const MAX_UNSYNCED_BYTES: usize = 64 * 1024 * 1024;
/// How far the clock may be set back without the log following it. The verifier allows as much.
pub(crate) const CLOCK_STEP_MS: i64 = 5_000;
/// When an intent without outcome no longer counts as in flight: 6 h.
const STALE_MS: i64 = 6 * 60 * 60 * 1000;
