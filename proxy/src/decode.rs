//! Encoded answers, decoded so that they can be looked into: bounded in size and in ratio.

use flate2::{Decompress, FlushDecompress, Status};
use http::{HeaderMap, header};

/// How a body is encoded, as far as we can take it off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Coding {
    /// Not at all.
    Identity,
    /// RFC 1952.
    Gzip,
    /// RFC 1950, or RFC 1951 as some servers send it.
    Deflate,
    /// Another one, or several.
    Unknown,
}

impl Coding {
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let mut codings = headers
            .get_all(header::CONTENT_ENCODING)
            .iter()
            .flat_map(|v| v.as_bytes().split(|b| *b == b','))
            .map(|token| token.trim_ascii().to_ascii_lowercase())
            .filter(|token| !token.is_empty() && token != b"identity");
        match (codings.next().as_deref(), codings.next()) {
            (None, _) => Self::Identity,
            (Some(b"gzip" | b"x-gzip"), None) => Self::Gzip,
            (Some(b"deflate"), None) => Self::Deflate,
            _ => Self::Unknown,
        }
    }

    /// The coding to ask the upstream for: one that the agent takes and we can take off.
    pub(crate) fn to_ask_for(accepted: &HeaderMap) -> &'static str {
        let takes = |coding: &str| {
            accepted
                .get_all(header::ACCEPT_ENCODING)
                .iter()
                .filter_map(|v| v.to_str().ok())
                .flat_map(|v| v.split(','))
                .map(|token| token.split(';').map(str::trim))
                .any(|mut parts| {
                    parts.next().is_some_and(|name| name.eq_ignore_ascii_case(coding))
                        && !parts.any(|p| p.strip_prefix("q=").is_some_and(|q| q.parse().is_ok_and(|q: f32| q <= 0.0)))
                })
        };
        // A part of an encoded body cannot be decoded.
        if accepted.contains_key(header::RANGE) {
            "identity"
        } else if takes("gzip") {
            "gzip"
        } else if takes("deflate") {
            "deflate"
        } else {
            "identity"
        }
    }
}

/// Why a body is not decoded to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DecodeFault {
    /// Not what its coding says.
    #[error("the body is not encoded as it says")]
    Malformed,
    /// More comes out than any honest body has in it.
    #[error("the body expands beyond the bounds")]
    Bomb,
}

/// Decodes one body as it streams by. Memory is bounded by [`MAX_RATIO`] times a chunk.
pub(crate) struct Decoder {
    coding: Coding,
    inflate: Option<Decompress>,
    taken: u64,
    given: u64,
}

impl Decoder {
    pub(crate) fn new(coding: Coding) -> Self {
        Self { coding, inflate: None, taken: 0, given: 0 }
    }

    /// Appends to `out` what `chunk` decodes to.
    pub(crate) fn push(&mut self, mut chunk: &[u8], out: &mut Vec<u8>) -> Result<(), DecodeFault> {
        let mut buffer = [0; BUFFER];
        let start = (self.taken, self.given);
        while !chunk.is_empty() {
            let inflate = self.inflate.get_or_insert_with(|| start_of(self.coding, chunk));
            let (before_in, before_out) = (inflate.total_in(), inflate.total_out());
            let status =
                inflate.decompress(chunk, &mut buffer, FlushDecompress::None).map_err(|_| DecodeFault::Malformed)?;
            let taken = (inflate.total_in() - before_in) as usize;
            let given = (inflate.total_out() - before_out) as usize;
            out.extend_from_slice(buffer.get(..given).unwrap_or_default());
            self.taken += taken as u64;
            self.given += given as u64;
            self.check(start)?;
            chunk = chunk.get(taken..).unwrap_or_default();
            match status {
                // Gzip files may follow one another; behind the other coding there is nothing.
                Status::StreamEnd if self.coding == Coding::Gzip || chunk.is_empty() => self.inflate = None,
                Status::StreamEnd => return Err(DecodeFault::Malformed),
                Status::Ok | Status::BufError if taken == 0 && given == 0 => return Err(DecodeFault::Malformed),
                Status::Ok | Status::BufError => {}
            }
        }
        self.rest(start, out)
    }

    /// The input is used up, its output may not be.
    fn rest(&mut self, start: (u64, u64), out: &mut Vec<u8>) -> Result<(), DecodeFault> {
        let mut buffer = [0; BUFFER];
        while let Some(inflate) = &mut self.inflate {
            let before = inflate.total_out();
            let status =
                inflate.decompress(&[], &mut buffer, FlushDecompress::None).map_err(|_| DecodeFault::Malformed)?;
            let given = (inflate.total_out() - before) as usize;
            out.extend_from_slice(buffer.get(..given).unwrap_or_default());
            self.given += given as u64;
            self.check(start)?;
            if status == Status::StreamEnd {
                self.inflate = None;
            }
            if given == 0 {
                break;
            }
        }
        Ok(())
    }

    /// Whether the body ended where its coding says it ends. An empty one is no body.
    pub(crate) fn finish(&self) -> Result<(), DecodeFault> {
        if self.inflate.is_none() { Ok(()) } else { Err(DecodeFault::Malformed) }
    }

    /// Over the whole body, and over this chunk, so that a long plain start buys no bomb.
    fn check(&self, (taken, given): (u64, u64)) -> Result<(), DecodeFault> {
        let beyond = |taken: u64, given: u64| given > FREE && given > taken.saturating_mul(MAX_RATIO);
        if self.given > MAX_TOTAL || beyond(self.taken, self.given) || beyond(self.taken - taken, self.given - given) {
            return Err(DecodeFault::Bomb);
        }
        Ok(())
    }
}

fn start_of(coding: Coding, chunk: &[u8]) -> Decompress {
    match (coding, chunk.first()) {
        (Coding::Gzip, _) => Decompress::new_gzip(WINDOW),
        // The zlib header names method 8 in its low bits; a bare deflate block that starts like that is
        // one that no encoder writes first.
        (_, Some(first)) => Decompress::new(first & 0x0f == 8),
        (_, None) => Decompress::new(true),
    }
}

const WINDOW: u8 = 15;
const BUFFER: usize = 16 * 1024;
/// Text that repeats itself reaches a few dozen, JSON of one long list perhaps a hundred; deflate's own
/// limit is 1032.
const MAX_RATIO: u64 = 200;
/// So much may come out whatever went in.
const FREE: u64 = 1 << 20;
/// No body is longer than this, decoded.
const MAX_TOTAL: u64 = 1 << 30;

#[cfg(test)]
mod tests;
