//! Echoes of the credential masked in a byte stream, also across chunk borders, without holding it up.

use std::sync::Arc;

use aegis_broker::credential::Echoes;
use bytes::Bytes;

/// Masks one stream.
///
/// Of what could be the start of an echo the first bytes go on all the same ([`Echoes::loose`]: too
/// few to say anything), so that a stream does not stop because its last letter happens to be the
/// first of a credential. Only a tail that is longer than that waits for the next chunk.
pub(crate) struct Scrubber {
    echoes: Arc<Echoes>,
    /// The end of what was seen, while it could be the start of an echo.
    tail: Vec<u8>,
    /// How many bytes of `tail` have gone on already.
    gone: usize,
    masked: u64,
}

impl Scrubber {
    pub(crate) fn new(echoes: Arc<Echoes>) -> Self {
        Self { echoes, tail: Vec::new(), gone: 0, masked: 0 }
    }

    pub(crate) fn masked(&self) -> u64 {
        self.masked
    }

    /// One chunk in, what may go on out. After `last` nothing belongs to what came before it.
    pub(crate) fn push(&mut self, chunk: Bytes, last: bool) -> Bytes {
        if self.tail.is_empty() && !self.echoes.found_in(&chunk) {
            let held = if last { 0 } else { self.echoes.held(&chunk) };
            if held <= self.echoes.loose() {
                // Nothing to mask and nothing to hold: the chunk goes on as it is.
                self.tail.extend_from_slice(chunk.get(chunk.len() - held..).unwrap_or_default());
                self.gone = held;
                return chunk;
            }
        }
        self.tail.extend_from_slice(&chunk);
        self.masked += self.echoes.mask(&mut self.tail) as u64;
        let held = if last { 0 } else { self.echoes.held(&self.tail) };
        let from = self.tail.len() - held;
        let gone = self.gone.saturating_sub(from).max(held.min(self.echoes.loose()));
        let out = self.tail.get(self.gone..from + gone).map(Bytes::copy_from_slice).unwrap_or_default();
        self.tail.drain(..from);
        self.gone = gone;
        out
    }
}

#[cfg(test)]
mod tests;
