//! What the gateway says on HTTP/2 without anybody having been asked: refusals of the protocol itself.
//!
//! Below the callbacks, a malformed stream is reset with `PROTOCOL_ERROR` or answered with a bare 400,
//! and a malformed connection is sent away (RFC 9113, sections 5.4 and 8.1.1). Answers of ours are none
//! of these: they always have more fields than a status. A stream that is reset while requests are in the
//! path may be one of theirs, whose end the path records.

/// Follows the frames that are written, however they are cut into writes.
#[derive(Default)]
pub(crate) struct Frames {
    /// The first bytes of the frame at hand, up to what is looked at.
    head: Vec<u8>,
    /// Bytes of that frame still to come after `head`.
    left: usize,
}

impl Frames {
    /// The status that stands for a refusal among the first `taken` bytes of `parts`; `busy` where
    /// requests are in the path.
    pub(crate) fn refused<'b>(
        &mut self,
        parts: impl Iterator<Item = &'b [u8]>,
        taken: usize,
        busy: bool,
    ) -> Option<u16> {
        let (mut found, mut taken) = (None, taken);
        for part in parts {
            let mut bytes = part.get(..part.len().min(taken)).unwrap_or_default();
            taken -= bytes.len();
            while !bytes.is_empty() {
                bytes = self.push(bytes, busy, &mut found);
            }
        }
        found
    }

    /// Takes bytes of one frame, and gives back what follows it.
    fn push<'b>(&mut self, bytes: &'b [u8], busy: bool, found: &mut Option<u16>) -> &'b [u8] {
        if self.left > 0 && self.head.len() >= FRAME_HEAD {
            let (_, rest) = bytes.split_at(self.left.min(bytes.len()));
            self.left -= bytes.len() - rest.len();
            if self.left == 0 {
                self.head.clear();
            }
            return rest;
        }
        let wanted = self.wanted() - self.head.len();
        let (own, rest) = bytes.split_at(wanted.min(bytes.len()));
        self.head.extend_from_slice(own);
        if self.head.len() >= FRAME_HEAD && self.head.len() == self.wanted() {
            *found = found.or(judge(&self.head, busy));
            self.left = payload(&self.head) + FRAME_HEAD - self.head.len();
            if self.left == 0 {
                self.head.clear();
            }
        }
        rest
    }

    /// How many bytes of the frame at hand are looked at.
    fn wanted(&self) -> usize {
        if self.head.len() < FRAME_HEAD { FRAME_HEAD } else { FRAME_HEAD + payload(&self.head).min(LOOKED_AT) }
    }
}

/// Status of a refusal that this frame is, from its head and the start of its payload.
fn judge(frame: &[u8], busy: bool) -> Option<u16> {
    let (kind, start) = (*frame.get(3)?, frame.get(FRAME_HEAD..)?);
    let code = |at: usize| start.get(at..at + 4).and_then(|b| <[u8; 4]>::try_from(b).ok()).map(u32::from_be_bytes);
    match kind {
        // A whole answer that is nothing but `:status: 400` out of HPACK's static table.
        HEADERS if payload(frame) == 1 && start == [STATUS_400] => Some(400),
        RST_STREAM if !busy && code(0) == Some(PROTOCOL_ERROR) => Some(400),
        GOAWAY if code(4).is_some_and(|code| code != NO_ERROR) => Some(400),
        _ => None,
    }
}

fn payload(frame: &[u8]) -> usize {
    frame.iter().take(3).fold(0, |length, byte| length << 8 | usize::from(*byte))
}

const FRAME_HEAD: usize = 9;
/// `GOAWAY` has its code behind four other bytes.
const LOOKED_AT: usize = 8;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const GOAWAY: u8 = 7;
const NO_ERROR: u32 = 0;
const PROTOCOL_ERROR: u32 = 1;
const STATUS_400: u8 = 0x8c;

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
        let mut out = u32::try_from(payload.len()).unwrap().to_be_bytes()[1..].to_vec();
        out.extend_from_slice(&[kind, 0, 0, 0, 0, 1]);
        out.extend_from_slice(payload);
        out
    }

    /// However the bytes are cut, one by one or all at once, the same is found.
    fn found(bytes: &[u8]) -> Option<u16> {
        let whole = Frames::default().refused(std::iter::once(bytes), bytes.len(), false);
        let mut frames = Frames::default();
        let pieces: Vec<Option<u16>> =
            bytes.iter().map(|b| frames.refused(std::iter::once(&[*b, 0xff][..]), 1, false)).collect();
        assert_eq!(pieces.into_iter().flatten().next(), whole);
        whole
    }

    #[test]
    fn refusals_of_the_protocol_are_seen_among_other_frames() {
        let settings = frame(4, &[0; 12]);
        let data = frame(0, &[3; 5000]);
        for (kind, payload, expected) in [
            (RST_STREAM, &[0, 0, 0, 1][..], Some(400)),
            (RST_STREAM, &[0, 0, 0, 0], None),
            (RST_STREAM, &[0, 0, 0, 8], None),
            (GOAWAY, &[0, 0, 0, 5, 0, 0, 0, 1, b'x'], Some(400)),
            (GOAWAY, &[0, 0, 0, 5, 0, 0, 0, 0], None),
            (HEADERS, &[STATUS_400], Some(400)),
            (HEADERS, &[STATUS_400, 0x5c, 0x01, b'0'], None),
        ] {
            let bytes = [settings.clone(), data.clone(), frame(kind, payload), data.clone()].concat();
            assert_eq!(found(&bytes), expected, "{kind} {payload:?}");
        }
    }

    #[test]
    fn only_what_was_taken_counts() {
        let reset = frame(RST_STREAM, &[0, 0, 0, 1]);
        let mut frames = Frames::default();
        assert_eq!(frames.refused(std::iter::once(&reset[..]), 10, false), None);
        assert_eq!(frames.refused(std::iter::once(&reset[10..]), 3, false), Some(400));
        assert_eq!(frames.refused(std::iter::once(&reset[..]), reset.len(), true), None, "the path records it");
    }
}
