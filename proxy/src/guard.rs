//! The answer on its way to the agent: decoded where it must be looked into, echoes of the credential
//! masked, URLs that the schema calls URLs led back to the gateway, and everything hashed.

use std::sync::Arc;

use aegis_action::Digest;
use aegis_broker::credential::Echoes;
use aegis_connectors::UriFields;
use aegis_receipts::Transfer;
use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use crate::{
    decode::{Coding, DecodeFault, Decoder},
    grpc::Messages,
    messages::{FrameFault, FrameReader},
    rewrite::JsonUrls,
    scrub::Scrubber,
};

/// SHA-256 and size of a body that passes by.
#[derive(Default)]
pub(crate) struct Digester {
    hash: Sha256,
    bytes: u64,
    ended: bool,
}

impl Digester {
    pub(crate) fn push(&mut self, chunk: Option<&Bytes>, end: bool) {
        if let Some(chunk) = chunk {
            self.hash.update(chunk);
            self.bytes += chunk.len() as u64;
        }
        self.ended |= end;
    }

    /// Nothing for an empty body; no digest for one that broke off.
    pub(crate) fn transfer(&self, frames: Option<u64>) -> Option<Transfer> {
        if self.bytes == 0 {
            return None;
        }
        let whole = self.ended.then(|| Digest(self.hash.clone().finalize().into()));
        Some(Transfer { bytes: self.bytes, frames, sha256: whole })
    }
}

/// Why an answer is not passed on to its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GuardFault {
    #[error(transparent)]
    Decode(#[from] DecodeFault),
    #[error(transparent)]
    Frame(#[from] FrameFault),
}

impl GuardFault {
    /// Stable code, for the outcome leaf.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::Decode(DecodeFault::Malformed) => "bad_encoding",
            Self::Decode(DecodeFault::Bomb) => "decompression_bomb",
            Self::Frame(_) => "bad_frame",
        }
    }
}

/// What the bytes of a body are, as far as it matters for looking into them.
enum Shape {
    Plain,
    /// Encoded; goes on decoded.
    Encoded(Decoder),
    /// gRPC messages: each goes on when it is whole.
    Messages(Messages),
    /// WebSocket frames.
    Frames(Box<FrameReader>),
}

/// Guards one answer.
pub(crate) struct ResponseGuard {
    echoes: Option<Arc<Echoes>>,
    scrubber: Option<Scrubber>,
    shape: Shape,
    urls: Option<(Arc<dyn UriFields>, String, String)>,
    active_urls: Option<JsonUrls>,
    masked: u64,
    received: Digester,
}

impl ResponseGuard {
    pub(crate) fn new(echoes: Option<Arc<Echoes>>, urls: Option<(Arc<dyn UriFields>, (String, String))>) -> Self {
        let urls = urls.map(|(fields, (from, to))| (fields, from, to));
        let scrubber = echoes.clone().map(Scrubber::new);
        Self {
            echoes,
            scrubber,
            shape: Shape::Plain,
            urls,
            active_urls: None,
            masked: 0,
            received: Digester::default(),
        }
    }

    /// Schema and base URLs, where answers lead back to the gateway.
    pub(crate) fn urls(&self) -> Option<(Arc<dyn UriFields>, String, String)> {
        self.urls.clone()
    }

    /// The body is JSON of the schema: URLs in it will be rewritten, so its length changes.
    pub(crate) fn rewrite_json(&mut self) -> bool {
        self.active_urls =
            self.urls.as_ref().map(|(fields, from, to)| JsonUrls::new(fields.clone(), from.clone(), to.clone()));
        self.active_urls.is_some()
    }

    /// The body goes on decoded.
    pub(crate) fn decode(&mut self, coding: Coding) {
        self.shape = Shape::Encoded(Decoder::new(coding));
    }

    /// The body is gRPC messages.
    pub(crate) fn messages(&mut self) {
        self.shape = Shape::Messages(Messages::default());
    }

    /// The connection speaks WebSocket from here on.
    pub(crate) fn frames(&mut self) {
        self.shape = Shape::Frames(Box::new(FrameReader::of_server(self.echoes.clone())));
    }

    pub(crate) fn echoes(&self) -> Option<&Arc<Echoes>> {
        self.echoes.as_ref()
    }

    pub(crate) fn note_masked(&mut self, count: usize) {
        self.masked += count as u64;
    }

    pub(crate) fn masked(&self) -> u64 {
        let in_frames = if let Shape::Frames(frames) = &self.shape { frames.masked() } else { 0 };
        self.masked + in_frames + self.scrubber.as_ref().map_or(0, Scrubber::masked)
    }

    pub(crate) fn received(&self) -> Option<Transfer> {
        let frames = if let Shape::Frames(frames) = &self.shape { Some(frames.count()) } else { None };
        self.received.transfer(frames)
    }

    /// One chunk in, what may go on out.
    pub(crate) fn body(&mut self, body: &mut Option<Bytes>, end: bool) -> Result<(), GuardFault> {
        self.received.push(body.as_ref(), end);
        let chunk = body.take().unwrap_or_default();
        let (chunk, last) = match &mut self.shape {
            Shape::Plain => (chunk, end),
            Shape::Encoded(decoder) => {
                let mut out = Vec::with_capacity(chunk.len() * 4);
                decoder.push(&chunk, &mut out)?;
                if end {
                    decoder.finish()?;
                }
                (Bytes::from(out), end)
            }
            // Behind a whole message nothing is held: its receiver may be waiting for the last byte
            // before it sends what the upstream is waiting for.
            Shape::Messages(messages) => {
                let whole = messages.push(&chunk);
                (chunk, end || whole)
            }
            Shape::Frames(frames) => {
                let out = frames.push(&chunk)?;
                *body = (!out.is_empty()).then_some(out);
                return Ok(());
            }
        };
        let chunk = match &mut self.scrubber {
            Some(scrubber) => scrubber.push(chunk, last),
            None => chunk,
        };
        *body = (!chunk.is_empty()).then_some(chunk);
        self.rewrite(body, end);
        Ok(())
    }

    fn rewrite(&mut self, body: &mut Option<Bytes>, end: bool) {
        let Some(urls) = &mut self.active_urls else { return };
        let mut out = Vec::with_capacity(body.as_ref().map_or(0, Bytes::len) + 64);
        if let Some(chunk) = body.as_ref() {
            urls.push(chunk, &mut out);
        }
        if end {
            urls.finish(&mut out);
        }
        *body = (!out.is_empty()).then(|| Bytes::from(out));
    }
}
