//! The answer on its way to the agent: echoes of the credential are masked across chunk borders,
//! URLs that the schema calls URLs lead back to the gateway, and everything is hashed.

use std::sync::Arc;

use aegis_action::Digest;
use aegis_broker::credential::Echoes;
use aegis_connectors::UriFields;
use aegis_receipts::Transfer;
use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use crate::rewrite::JsonUrls;

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
    pub(crate) fn transfer(&self) -> Option<Transfer> {
        if self.bytes == 0 {
            return None;
        }
        let whole = self.ended.then(|| Digest(self.hash.clone().finalize().into()));
        Some(Transfer { bytes: self.bytes, sha256: whole })
    }
}

/// Guards one answer.
pub(crate) struct ResponseGuard {
    echoes: Option<Arc<Echoes>>,
    urls: Option<(Arc<dyn UriFields>, String, String)>,
    active_urls: Option<JsonUrls>,
    held: Vec<u8>,
    masked: u64,
    received: Digester,
}

impl ResponseGuard {
    pub(crate) fn new(echoes: Option<Arc<Echoes>>, urls: Option<(Arc<dyn UriFields>, (String, String))>) -> Self {
        let urls = urls.map(|(fields, (from, to))| (fields, from, to));
        Self { echoes, urls, active_urls: None, held: Vec::new(), masked: 0, received: Digester::default() }
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

    pub(crate) fn echoes(&self) -> Option<&Arc<Echoes>> {
        self.echoes.as_ref()
    }

    pub(crate) fn note_masked(&mut self, count: usize) {
        self.masked += count as u64;
    }

    pub(crate) fn masked(&self) -> u64 {
        self.masked
    }

    pub(crate) fn received(&self) -> Option<Transfer> {
        self.received.transfer()
    }

    /// One chunk in, what may go on out. Bytes are held back only while they could be the start of an echo.
    pub(crate) fn body(&mut self, body: &mut Option<Bytes>, end: bool) {
        self.received.push(body.as_ref(), end);
        let Some(echoes) = self.echoes.clone() else {
            return self.rewrite(body, end);
        };
        if let (Some(chunk), true) = (body.as_ref(), self.held.is_empty())
            && !echoes.found_in(chunk)
            && (end || echoes.held(chunk) == 0)
        {
            // Nothing to mask and nothing to hold: the chunk goes on as it is.
            return self.rewrite(body, end);
        }
        if let Some(chunk) = body.take() {
            self.held.extend_from_slice(&chunk);
        }
        self.masked += echoes.mask(&mut self.held) as u64;
        let keep = if end { 0 } else { echoes.held(&self.held) };
        let rest = self.held.split_off(self.held.len() - keep);
        let out = std::mem::replace(&mut self.held, rest);
        *body = (!out.is_empty()).then(|| Bytes::from(out));
        self.rewrite(body, end);
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
