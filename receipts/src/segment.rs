//! Segment files: records of a big-endian length in two bytes and a leaf, nothing else.
//!
//! That is the C2SP `tlog-tiles` entry bundle: every 256 records from the start of a
//! segment are one bundle, byte for byte.

use std::{io, path::Path, path::PathBuf, sync::Arc};

use crate::disk::DiskFile;

/// Records per entry bundle, and between two known offsets.
pub(crate) const BUNDLE: u32 = 256;

/// The folder of segments.
pub(crate) fn segments_dir(dir: &Path) -> PathBuf {
    dir.join("segments")
}

/// Path of the segment whose first leaf is `first`.
pub(crate) fn segment_path(dir: &Path, first: u64) -> PathBuf {
    segments_dir(dir).join(format!("{first:020}.log"))
}

/// The first sequence number of a segment's file name; other files in the folder are none.
pub(crate) fn parse_segment_name(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".log")?;
    (digits.len() == 20 && digits.bytes().all(|b| b.is_ascii_digit())).then(|| digits.parse().ok())?
}

/// Puts room for a record's length down; [`end_record`] fills it in.
pub(crate) fn begin_record(out: &mut Vec<u8>) -> usize {
    let start = out.len();
    out.extend_from_slice(&[0, 0]);
    start
}

/// Fills the length in. `None` when the leaf does not fit.
pub(crate) fn end_record(out: &mut [u8], start: usize) -> Option<&[u8]> {
    let (head, leaf) = out.get_mut(start..)?.split_at_mut_checked(2)?;
    let len = u16::try_from(leaf.len()).ok()?;
    head.copy_from_slice(&len.to_be_bytes());
    Some(leaf)
}

/// Reads records one after the other in constant memory.
pub(crate) struct Records {
    file: Arc<dyn DiskFile>,
    /// Offset behind the last byte that may be read.
    limit: u64,
    /// Offset of the next record.
    at: u64,
    buf: Vec<u8>,
    /// Offset of `buf` in the file.
    buf_at: u64,
    chunk: usize,
}

/// What stands at the reader's place.
pub(crate) enum Next<'a> {
    /// A record.
    Leaf {
        /// Its offset, that of the length bytes.
        offset: u64,
        /// Its leaf.
        bytes: &'a [u8],
    },
    /// Nothing, exactly.
    End,
    /// Bytes that are no whole record: a length of zero, or one beyond the end.
    Torn,
}

impl Records {
    pub(crate) fn new(file: Arc<dyn DiskFile>, at: u64, limit: u64) -> Self {
        Self { file, limit, at, buf: Vec::new(), buf_at: at, chunk: CHUNK }
    }

    /// Reads this many bytes at a time instead of 1 MiB.
    pub(crate) fn with_chunk(self, chunk: usize) -> Self {
        Self { chunk, ..self }
    }

    /// Offset of the next record.
    pub(crate) fn position(&self) -> u64 {
        self.at
    }

    pub(crate) fn next(&mut self) -> io::Result<Next<'_>> {
        let left = self.limit.saturating_sub(self.at);
        if left == 0 {
            return Ok(Next::End);
        }
        if left < 2 {
            return Ok(Next::Torn);
        }
        self.fill(2)?;
        let len = match self.window() {
            [high, low, ..] => u16::from_be_bytes([*high, *low]),
            _ => return Ok(Next::Torn),
        };
        let whole = 2 + usize::from(len);
        if len == 0 || left < whole as u64 {
            return Ok(Next::Torn);
        }
        self.fill(whole)?;
        let offset = self.at;
        let start = usize::try_from(offset - self.buf_at).unwrap_or(usize::MAX);
        let Some(bytes) = self.buf.get(start.saturating_add(2)..start.saturating_add(whole)) else {
            // The file is shorter than it was when the limit was taken.
            return Ok(Next::Torn);
        };
        self.at += whole as u64;
        Ok(Next::Leaf { offset, bytes })
    }

    fn window(&self) -> &[u8] {
        let start = usize::try_from(self.at - self.buf_at).unwrap_or(usize::MAX);
        self.buf.get(start..).unwrap_or_default()
    }

    /// Makes sure that `need` bytes from the reader's place are in the buffer, as far as the file has them.
    fn fill(&mut self, need: usize) -> io::Result<()> {
        if self.window().len() >= need {
            return Ok(());
        }
        let chunk = self.chunk.min(usize::try_from(self.limit - self.at).unwrap_or(usize::MAX)).max(need);
        // Once per chunk; the few bytes of a split record are read again.
        self.buf.resize(chunk, 0);
        let got = self.file.read_full_at(&mut self.buf, self.at)?;
        self.buf.truncate(got);
        self.buf_at = self.at;
        Ok(())
    }
}

const CHUNK: usize = 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::leaf::MAX_LEAF_BYTES;

    #[test]
    fn names_sort_and_have_one_spelling() {
        assert_eq!(segment_path(Path::new("d"), 65_536), Path::new("d/segments/00000000000000065536.log"));
        assert_eq!(parse_segment_name("00000000000000065536.log"), Some(65_536));
        for bad in ["65536.log", "0000000000000006553x.log", "00000000000000065536", "+0000000000000065536.log"] {
            assert_eq!(parse_segment_name(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_record_is_length_and_leaf() {
        let mut out = b"before".to_vec();
        let start = begin_record(&mut out);
        out.extend_from_slice(b"leaf");
        assert_eq!(end_record(&mut out, start), Some(&b"leaf"[..]));
        assert_eq!(out, b"before\x00\x04leaf");
        let start = begin_record(&mut out);
        out.resize(start + 2 + MAX_LEAF_BYTES, b'x');
        assert!(end_record(&mut out, start).is_some());
        out.push(b'x');
        assert!(end_record(&mut out, start).is_none());
    }
}
