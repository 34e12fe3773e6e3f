//! Reading leaves and payloads back.

use std::{io, sync::Arc};

use aegis_action::sha256;

use super::{Shared, StoredLeaf};
use crate::{
    disk::DiskFile,
    error::LogError,
    segment::{BUNDLE, Next, Records, segment_path},
};

/// Offsets of a full segment.
pub(super) struct Index {
    file: Arc<dyn DiskFile>,
    /// Of every 256th leaf.
    offsets: Vec<u64>,
    end: u64,
}

/// Where to start reading.
struct Place {
    file: Arc<dyn DiskFile>,
    /// Offset of leaf `seq`.
    offset: u64,
    seq: u64,
    /// Offset behind the last leaf that may be read.
    limit: u64,
}

impl Shared {
    pub fn read(&self, from_seq: u64, max: usize) -> Result<Vec<StoredLeaf>, LogError> {
        let mut leaves = Vec::new();
        let mut bytes_read = 0;
        let mut seq = from_seq;
        while leaves.len() < max
            && bytes_read < READ_BYTES
            && let Some(place) = self.locate(seq)?
        {
            let before = seq;
            let mut at = place.seq;
            let chunk = if max == 1 { ONE_LEAF } else { MANY_LEAVES };
            let mut records = Records::new(place.file, place.offset, place.limit).with_chunk(chunk);
            while leaves.len() < max && bytes_read < READ_BYTES {
                match records.next().map_err(|e| LogError::io("read a segment", &e))? {
                    Next::Leaf { bytes, .. } => {
                        if at == seq {
                            bytes_read += bytes.len();
                            leaves.push(StoredLeaf { seq, bytes: bytes.to_vec(), hash: sha256(bytes) });
                            seq += 1;
                        }
                        at += 1;
                    }
                    Next::End => break,
                    Next::Torn => return Err(LogError::Tampered { seq: at, why: "no whole record".into() }),
                }
            }
            if seq == before {
                return Err(LogError::Tampered { seq, why: "its segment ends before it".into() });
            }
        }
        Ok(leaves)
    }

    fn locate(&self, seq: u64) -> Result<Option<Place>, LogError> {
        let first = {
            let writer = self.writer.lock();
            if seq >= writer.next_seq() {
                return Ok(None);
            }
            let first = writer.segment_of(seq);
            let current = &writer.current;
            if first == current.first {
                let (offset, at) = bundle(&current.offsets, first, seq);
                return Ok(Some(Place { file: Arc::clone(&current.file), offset, seq: at, limit: current.pos }));
            }
            first
        };
        let index = self.index(first).map_err(|e| LogError::io("read a segment", &e))?;
        let (offset, at) = bundle(&index.offsets, first, seq);
        Ok(Some(Place { file: Arc::clone(&index.file), offset, seq: at, limit: index.end }))
    }

    /// Offsets of a full segment, from one pass over it the first time.
    fn index(&self, first: u64) -> io::Result<Arc<Index>> {
        if let Some(index) = self.indexes.lock().get(&first) {
            return Ok(Arc::clone(index));
        }
        let file = self.disk.open_read(&segment_path(&self.options.dir, first))?;
        let end = file.len()?;
        let mut records = Records::new(Arc::clone(&file), 0, end);
        let mut offsets = Vec::new();
        let mut count = 0_u32;
        while let Next::Leaf { offset, .. } = records.next()? {
            if count.is_multiple_of(BUNDLE) {
                offsets.push(offset);
            }
            count += 1;
        }
        let index = Arc::new(Index { file, offsets, end });
        let mut indexes = self.indexes.lock();
        if indexes.len() >= MAX_INDEXES {
            // Files stay open with their index; which one goes matters little.
            let any = indexes.keys().next().copied();
            any.and_then(|first| indexes.remove(&first));
        }
        indexes.insert(first, Arc::clone(&index));
        Ok(index)
    }

    pub fn payload(&self, seq: u64) -> Result<Option<Vec<u8>>, LogError> {
        let read = |e: io::Error| LogError::io("read a payload", &e);
        match self.find_payload(seq).map_err(read)? {
            Some((file, place)) => place.read(&*file).map_err(read),
            None => Ok(None),
        }
    }

    pub fn erase_payload(&self, seq: u64) -> Result<bool, LogError> {
        let erase = |e: io::Error| LogError::io("erase a payload", &e);
        match self.find_payload(seq).map_err(erase)? {
            Some((file, place)) => {
                let there = place.read(&*file).map_err(erase)?.is_some();
                place.erase(&*file).map_err(erase)?;
                Ok(there)
            }
            None => Ok(false),
        }
    }

    fn find_payload(&self, seq: u64) -> io::Result<Option<(Arc<dyn DiskFile>, super::sidecar::Place)>> {
        let mut writer = self.writer.lock();
        if seq >= writer.next_seq() {
            return Ok(None);
        }
        let first = writer.segment_of(seq);
        writer.sidecar.find(&*self.disk, first, seq)
    }
}

/// Offset and sequence number of the last known place at or before a leaf.
fn bundle(offsets: &[u64], first: u64, seq: u64) -> (u64, u64) {
    let at = (seq - first) / u64::from(BUNDLE);
    match usize::try_from(at).ok().and_then(|at| offsets.get(at)) {
        Some(offset) => (*offset, first + at * u64::from(BUNDLE)),
        None => (0, first),
    }
}

const READ_BYTES: usize = 8 * 1024 * 1024;
const ONE_LEAF: usize = 64 * 1024;
const MANY_LEAVES: usize = 1024 * 1024;
const MAX_INDEXES: usize = 64;
