//! Payloads: opaque records beside each segment, which can be erased in place.
//!
//! A record is a big-endian length in four bytes, the sequence number in eight, and the
//! bytes. Payloads are not evidence (the leaf's commitments are), so they are synced
//! lazily, a crash may take the newest, and a failure here never holds a leaf up.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::MAX_PAYLOAD_BYTES;
use crate::{
    disk::{Disk, DiskFile},
    error::LogError,
};

/// Where a payload stands in its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub seq: u64,
    /// Offset of the bytes, behind the record's header.
    pub offset: u64,
    pub len: u32,
}

/// The sidecar of the segment being written.
pub(super) struct Sidecar {
    dir: PathBuf,
    /// The segment it belongs to.
    first: u64,
    file: Option<Arc<dyn DiskFile>>,
    end: u64,
    places: Vec<Place>,
    /// Records on their way to the file, the first one at `end - pending.len()`.
    pending: Vec<u8>,
    dirty: bool,
    /// Payloads that could not be stored.
    pub lost: u64,
}

impl Sidecar {
    /// Opens the sidecar of a segment, if there is one, and cuts what is no record or
    /// belongs to leaves that are not in the log. Returns how many bytes that were.
    pub fn open(disk: &dyn Disk, dir: &Path, first: u64, next_seq: u64) -> Result<(Self, u64), LogError> {
        let mut sidecar = Self {
            dir: payloads_dir(dir),
            first,
            file: None,
            end: 0,
            places: Vec::new(),
            pending: Vec::new(),
            dirty: false,
            lost: 0,
        };
        let cut = sidecar.load(disk, next_seq).map_err(|e| LogError::io("open a payload file", &e))?;
        Ok((sidecar, cut))
    }

    fn load(&mut self, disk: &dyn Disk, next_seq: u64) -> io::Result<u64> {
        if !disk.list(&self.dir)?.contains(&file_name(self.first)) {
            return Ok(0);
        }
        let file = disk.open(&self.dir.join(file_name(self.first)))?;
        let len = file.len()?;
        self.end = scan(&*file, self.first, next_seq, &mut |place| self.places.push(place))?;
        if self.end < len {
            file.truncate(self.end)?;
            file.sync()?;
        }
        self.file = Some(file);
        Ok(len - self.end)
    }

    pub fn put(&mut self, disk: &dyn Disk, first: u64, seq: u64, payload: &[u8]) {
        if let Err(e) = self.try_put(disk, first, seq, payload) {
            self.lost += 1;
            tracing::warn!(seq, error = %e, "a payload could not be stored; its leaf stands without it");
        }
    }

    fn try_put(&mut self, disk: &dyn Disk, first: u64, seq: u64, payload: &[u8]) -> io::Result<()> {
        if first != self.first {
            self.sync();
            (self.first, self.file, self.end) = (first, None, 0);
            self.places.clear();
        }
        if self.file.is_none() {
            let file = disk.open(&self.dir.join(file_name(first)))?;
            file.truncate(0)?;
            disk.sync_dir(&self.dir)?;
            self.file = Some(file);
        }
        let len = u32::try_from(payload.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        self.pending.extend_from_slice(&len.to_be_bytes());
        self.pending.extend_from_slice(&seq.to_be_bytes());
        self.pending.extend_from_slice(payload);
        self.places.push(Place { seq, offset: self.end + HEADER as u64, len });
        self.end += (HEADER + payload.len()) as u64;
        if self.pending.len() >= MAX_PENDING {
            self.flush();
        }
        Ok(())
    }

    /// Hands pending records to the kernel. What it refuses is lost, as the records behind it would be misplaced.
    pub fn flush(&mut self) {
        let (Some(file), false) = (&self.file, self.pending.is_empty()) else { return };
        let from = self.end - self.pending.len() as u64;
        if let Err(e) = file.write_all_at(&self.pending, from) {
            // The next record overwrites what this left; opening cuts it otherwise.
            let _ = file.truncate(from);
            let before = self.places.len();
            self.places.retain(|place| place.offset < from);
            let lost = (before - self.places.len()) as u64;
            self.lost += lost;
            self.end = from;
            tracing::warn!(lost, error = %e, "payloads could not be stored; their leaves stand without them");
        } else {
            self.dirty = true;
        }
        self.pending.clear();
    }

    /// Makes stored payloads durable, as far as the disk wants to.
    pub fn sync(&mut self) {
        self.flush();
        if self.dirty
            && let Some(file) = &self.file
            && let Err(e) = file.sync()
        {
            tracing::warn!(error = %e, "payloads could not be synced");
        }
        self.dirty = false;
    }

    /// File to sync without holding the writer up.
    pub fn take_dirty(&mut self) -> Option<Arc<dyn DiskFile>> {
        std::mem::take(&mut self.dirty).then(|| self.file.clone())?
    }

    /// The file and place of a payload of segment `first`.
    pub fn find(&mut self, disk: &dyn Disk, first: u64, seq: u64) -> io::Result<Option<(Arc<dyn DiskFile>, Place)>> {
        self.flush();
        if first == self.first {
            let at = self.places.binary_search_by_key(&seq, |place| place.seq);
            let place = at.ok().and_then(|at| self.places.get(at)).copied();
            return Ok(self.file.clone().zip(place));
        }
        if !disk.list(&self.dir)?.contains(&file_name(first)) {
            return Ok(None);
        }
        let file = disk.open(&self.dir.join(file_name(first)))?;
        let mut found = None;
        scan(&*file, first, u64::MAX, &mut |place| {
            if place.seq == seq {
                found = Some(place);
            }
        })?;
        Ok(found.map(|place| (file, place)))
    }
}

impl Place {
    /// The bytes; `None` when they were erased.
    pub fn read(&self, file: &dyn DiskFile) -> io::Result<Option<Vec<u8>>> {
        let mut bytes = vec![0; self.len as usize];
        if file.read_full_at(&mut bytes, self.offset)? < bytes.len() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        // Sealed bytes are never all zero.
        Ok(bytes.iter().any(|b| *b != 0).then_some(bytes))
    }

    /// Overwrites the bytes, durably.
    pub fn erase(&self, file: &dyn DiskFile) -> io::Result<()> {
        file.write_all_at(&vec![0; self.len as usize], self.offset)?;
        file.sync()
    }
}

/// The folder of payloads.
pub(super) fn payloads_dir(dir: &Path) -> PathBuf {
    dir.join("payloads")
}

fn file_name(first: u64) -> String {
    format!("{first:020}.bin")
}

/// Visits records up to the first that cannot be one: sequence numbers ascend, from
/// `first` and below `limit`, and lengths stay within bounds. Returns where that is.
fn scan(file: &dyn DiskFile, first: u64, limit: u64, visit: &mut dyn FnMut(Place)) -> io::Result<u64> {
    let len = file.len()?;
    let (mut at, mut least) = (0, first);
    let mut header = [0; HEADER];
    while file.read_full_at(&mut header, at)? == HEADER {
        let [a, b, c, d, seq @ ..] = header;
        let bytes = u32::from_be_bytes([a, b, c, d]);
        let seq = u64::from_be_bytes(seq);
        let end = at + HEADER as u64 + u64::from(bytes);
        if bytes as usize > MAX_PAYLOAD_BYTES || seq < least || seq >= limit || end > len {
            break;
        }
        visit(Place { seq, offset: at + HEADER as u64, len: bytes });
        (at, least) = (end, seq + 1);
    }
    Ok(at)
}

const HEADER: usize = 12;
/// Records are written together: by the sync thread, or when there is this much.
const MAX_PENDING: usize = 64 * 1024;
