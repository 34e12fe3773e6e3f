//! The head file: how far the log is known to be durable, and the hash it has there.
//!
//! One line, rewritten in place after every sync and before anyone is told of it. So at
//! any time every acknowledged leaf is covered by it, and what lies beyond it may be
//! torn by a crash but can never have been acknowledged. It is not synced itself: after
//! a power cut it may be older than the log, which is safe. It is not signed: it shows
//! damage, not an attacker who rewrites it too; that is what checkpoints are for.

use std::path::{Path, PathBuf};

use aegis_action::{Digest, sha256};

/// `aegis-receipts-head-1 <next seq, 20 digits> <hash of the last leaf> <check>\n`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HeadLine {
    /// All leaves below this are durable.
    pub next_seq: u64,
    /// Hash of leaf `next_seq - 1`; zeros where there is none.
    pub last_hash: Digest,
}

pub(crate) fn head_path(dir: &Path) -> PathBuf {
    dir.join("head")
}

impl HeadLine {
    pub(crate) fn encode(&self) -> String {
        let text = format!("{MAGIC} {:020} {}", self.next_seq, self.last_hash);
        let check = check(&text);
        format!("{text} {check}\n")
    }

    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok()?;
        let mut words = text.strip_suffix('\n')?.split(' ').skip(1);
        let head = Self { next_seq: words.next()?.parse().ok()?, last_hash: Digest::from_hex(words.next()?)? };
        (head.encode() == text).then_some(head)
    }
}

/// Tells a torn line from a whole one.
fn check(text: &str) -> String {
    sha256(text.as_bytes()).to_hex().get(..16).unwrap_or_default().to_owned()
}

const MAGIC: &str = "aegis-receipts-head-1";
/// The line's length: it fits one sector, so that a disk writes it whole.
pub(crate) const HEAD_BYTES: usize = 21 + 1 + 20 + 1 + 64 + 1 + 16 + 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_reads_back_and_any_changed_byte_spoils_it() {
        let head = HeadLine { next_seq: 12, last_hash: sha256(b"x") };
        let line = head.encode();
        assert_eq!(line.len(), HEAD_BYTES);
        assert_eq!(HeadLine::parse(line.as_bytes()), Some(head));
        for at in 0..line.len() {
            let mut bytes = line.clone().into_bytes();
            bytes[at] ^= 1;
            assert_eq!(HeadLine::parse(&bytes), None, "byte {at}");
        }
        assert_eq!(HeadLine::parse(&line.as_bytes()[..40]), None);
    }
}
