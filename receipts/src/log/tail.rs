//! The end of a segment file while it is written.

use std::{io, path::Path, sync::Arc};

use crate::{
    disk::{Disk, DiskFile},
    error::LogError,
    segment::{BUNDLE, segment_path, segments_dir},
};

/// A segment that takes leaves.
pub(super) struct Tail {
    pub first: u64,
    pub file: Arc<dyn DiskFile>,
    /// Bytes of whole records; what follows them in the file is of no meaning.
    pub pos: u64,
    /// Leaves in it.
    pub count: u32,
    /// Leaves it will hold when full, a multiple of 256.
    pub capacity: u32,
    /// Bytes of the file that have space on the disk, whatever happens to the rest of it.
    pub reserved: u64,
    /// Offset of every 256th leaf.
    pub offsets: Vec<u64>,
    /// A write failed half way, and the bytes behind `pos` could not be cut yet.
    pub torn: bool,
}

impl Tail {
    /// Creates the segment, its name durable. A crash here leaves an empty file, which opening removes.
    pub fn create(disk: &dyn Disk, dir: &Path, first: u64, capacity: u32) -> Result<Self, LogError> {
        let create = || -> io::Result<Arc<dyn DiskFile>> {
            let file = disk.open(&segment_path(dir, first))?;
            // Left over from a creation that failed half way.
            if !file.is_empty()? {
                file.truncate(0)?;
            }
            disk.sync_dir(&segments_dir(dir))?;
            Ok(file)
        };
        let file = create().map_err(|e| LogError::io("create a segment", &e))?;
        Ok(Self::at(first, file, capacity))
    }

    /// A segment of which nothing is read yet.
    pub fn at(first: u64, file: Arc<dyn DiskFile>, capacity: u32) -> Self {
        Self { first, file, pos: 0, count: 0, capacity, reserved: 0, offsets: Vec::new(), torn: false }
    }

    /// A segment that was read may be longer than the options now say; bundles stay whole.
    pub fn settle(&mut self) {
        self.capacity = self.capacity.max(self.count.next_multiple_of(BUNDLE));
    }

    pub fn slots(&self) -> u64 {
        u64::from(self.capacity.saturating_sub(self.count))
    }

    /// Makes sure that `extra` bytes behind `pos` have space, in steps of `step` where the disk has that much.
    pub fn reserve(&mut self, extra: u64, step: u64) -> Result<(), LogError> {
        let need = self.pos.saturating_add(extra);
        if need <= self.reserved {
            return Ok(());
        }
        let generous = need.div_ceil(step).saturating_mul(step);
        let got = match self.file.allocate(generous) {
            Ok(()) => generous,
            // Nothing to reserve with: the write itself will say when the disk is full.
            Err(e) if e.kind() == io::ErrorKind::Unsupported => generous,
            Err(_) => self.file.allocate(need).map(|()| need).map_err(|e| LogError::io("reserve space", &e))?,
        };
        self.reserved = got;
        Ok(())
    }

    /// Writes behind `pos` without moving it; [`Tail::accept`] does, once everything is written.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), LogError> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.torn = true;
        self.file.write_all_at(bytes, self.pos).map_err(|e| LogError::io("write a segment", &e))
    }

    /// The written bytes are leaves now. `starts` are their offsets within the bytes.
    pub fn accept(&mut self, bytes: u64, starts: &[u64]) {
        for start in starts {
            if self.count.is_multiple_of(BUNDLE) {
                self.offsets.push(self.pos + start);
            }
            self.count += 1;
        }
        self.pos += bytes;
        self.reserved = self.reserved.max(self.pos);
        self.torn = false;
    }

    /// Cuts what a failed write left. A crash before this leaves a torn tail, which opening cuts.
    pub fn cut(&mut self) -> Result<(), LogError> {
        if !self.torn {
            return Ok(());
        }
        self.file.truncate(self.pos).map_err(|e| LogError::io("cut a failed write", &e))?;
        self.torn = false;
        // Cutting gave the reserved space back; the outcomes in flight still need it.
        let reserved = std::mem::replace(&mut self.reserved, self.pos);
        if reserved > self.pos && self.file.allocate(reserved).is_ok() {
            self.reserved = reserved;
        }
        Ok(())
    }

    /// Gives back the space a full segment does not need. Only space is lost where it fails.
    pub fn finish(&self) {
        if self.reserved > self.pos
            && let Err(e) = self.file.truncate(self.pos)
        {
            tracing::warn!(error = %e, "cannot give back the reserved space of a full segment");
        }
    }
}
