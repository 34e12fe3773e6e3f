//! WebSocket frames (RFC 6455, 5) told apart as they pass: counted and checked both ways, and from the
//! server scrubbed within messages, across fragments and chunks.

use std::sync::Arc;

use aegis_broker::credential::Echoes;
use bytes::Bytes;

/// Why frames go no further.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a WebSocket frame: {0}")]
pub(crate) struct FrameFault(&'static str);

/// Reads the frames of one direction.
pub(crate) struct FrameReader {
    /// A client masks its frames, a server does not.
    from_client: bool,
    echoes: Option<Arc<Echoes>>,
    /// The frame's head as far as it has come.
    head: Vec<u8>,
    /// The frame whose payload comes now.
    frame: Option<Frame>,
    /// Whether a message in several frames is under way.
    open: bool,
    count: u64,
    masked: u64,
    /// Payload of the message under way that has not gone on.
    payload: Vec<u8>,
    /// What stands before `payload[at]`: heads of frames, and control frames, which may come in between.
    marks: Vec<(usize, Vec<u8>)>,
    control: Vec<u8>,
}

struct Frame {
    left: u64,
    last: bool,
    control: bool,
}

impl FrameReader {
    /// Of frames that an agent sends: counted and checked.
    pub(crate) fn of_client() -> Self {
        Self::new(true, None)
    }

    /// Of frames that an upstream sends: scrubbed as well, where a credential went out.
    pub(crate) fn of_server(echoes: Option<Arc<Echoes>>) -> Self {
        Self::new(false, echoes)
    }

    fn new(from_client: bool, echoes: Option<Arc<Echoes>>) -> Self {
        Self {
            from_client,
            echoes,
            head: Vec::new(),
            frame: None,
            open: false,
            count: 0,
            masked: 0,
            payload: Vec::new(),
            marks: Vec::new(),
            control: Vec::new(),
        }
    }

    /// Frames so far.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    pub(crate) fn masked(&self) -> u64 {
        self.masked
    }

    /// One chunk in, what may go on out.
    pub(crate) fn push(&mut self, chunk: &Bytes) -> Result<Bytes, FrameFault> {
        let mut out = Vec::new();
        let mut rest = chunk.as_ref();
        while let Some((first, behind)) = rest.split_first() {
            if let Some(frame) = &mut self.frame {
                let take = usize::try_from(frame.left).unwrap_or(usize::MAX).min(rest.len());
                let (part, behind) = rest.split_at(take);
                frame.left -= take as u64;
                let (ended, control) = (frame.left == 0, frame.control);
                self.keep(part, control);
                rest = behind;
                if ended {
                    self.end(&mut out);
                }
                continue;
            }
            self.head.push(*first);
            rest = behind;
            if let Some(frame) = self.begun()? {
                let ended = frame.left == 0;
                self.begin(frame);
                if ended {
                    self.end(&mut out);
                }
            }
        }
        if self.echoes.is_none() {
            return Ok(chunk.clone());
        }
        self.emit(&mut out, false);
        Ok(Bytes::from(out))
    }

    /// The frame, once its head is whole.
    fn begun(&self) -> Result<Option<Frame>, FrameFault> {
        let [first, second, more @ ..] = self.head.as_slice() else { return Ok(None) };
        let (last, opcode) = (first & 0x80 != 0, first & 0x0f);
        if first & 0x70 != 0 {
            return Err(FrameFault("an extension that was not agreed on"));
        }
        if (second & 0x80 != 0) != self.from_client {
            return Err(FrameFault(if self.from_client { "unmasked" } else { "masked" }));
        }
        let control = match opcode {
            0 if self.open => false,
            1 | 2 if !self.open => false,
            8..=10 if last && second & 0x7f <= 125 => true,
            0..=2 => return Err(FrameFault("fragments out of order")),
            8..=10 => return Err(FrameFault("a control frame in parts, or too long")),
            _ => return Err(FrameFault("unknown opcode")),
        };
        let width = match second & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        if more.len() < width + if self.from_client { 4 } else { 0 } {
            return Ok(None);
        }
        let long = more.iter().take(width).fold(0u64, |n, b| n << 8 | u64::from(*b));
        let left = match width {
            0 => u64::from(second & 0x7f),
            2 if long > 125 => long,
            8 if long > 0xffff && long < 1 << 63 => long,
            _ => return Err(FrameFault("a length that is not in its shortest form")),
        };
        Ok(Some(Frame { left, last, control }))
    }

    fn begin(&mut self, frame: Frame) {
        self.count += 1;
        if !frame.control {
            self.open = !frame.last;
        }
        let head = std::mem::take(&mut self.head);
        if self.echoes.is_some() {
            if frame.control {
                self.control = head;
            } else {
                self.marks.push((self.payload.len(), head));
            }
        }
        self.frame = Some(frame);
    }

    fn keep(&mut self, part: &[u8], control: bool) {
        if self.echoes.is_some() {
            if control { &mut self.control } else { &mut self.payload }.extend_from_slice(part);
        }
    }

    fn end(&mut self, out: &mut Vec<u8>) {
        let Some(frame) = self.frame.take() else { return };
        let Some(echoes) = &self.echoes else { return };
        if frame.control {
            let mut whole = std::mem::take(&mut self.control);
            // Its head, two bytes, is no text.
            if let Some(payload) = whole.get_mut(2..) {
                self.masked += echoes.mask(payload) as u64;
            }
            self.marks.push((self.payload.len(), whole));
        } else if frame.last {
            // Nothing behind a message belongs to it, and its receiver may be waiting for all of it.
            self.emit(out, true);
        }
    }

    fn emit(&mut self, out: &mut Vec<u8>, whole: bool) {
        let Some(echoes) = &self.echoes else { return };
        self.masked += echoes.mask(&mut self.payload) as u64;
        let held = if whole { 0 } else { echoes.held(&self.payload) };
        let to = self.payload.len() - held;
        let mut from = 0;
        let ready = self.marks.iter().take_while(|(at, _)| *at <= to).count();
        for (at, bytes) in self.marks.drain(..ready) {
            out.extend_from_slice(self.payload.get(from..at).unwrap_or_default());
            out.extend_from_slice(&bytes);
            from = at;
        }
        out.extend_from_slice(self.payload.get(from..to).unwrap_or_default());
        self.payload.drain(..to);
        self.marks.iter_mut().for_each(|(at, _)| *at -= to);
    }
}

#[cfg(test)]
mod tests;
