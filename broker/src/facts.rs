//! What policies need and the request does not carry: fetched by brokered, receipted, briefly cached reads.

use std::{sync::Arc, time::Duration};

use aegis_connectors::{Call, Connector, FactRead, FactStep, UpstreamRequest};
use async_trait::async_trait;
use bytes::Bytes;
use http::StatusCode;
use moka::sync::Cache;
use serde_json::{Map, Value};

use crate::{config::Route, credential::Secrets};

/// Sends one request upstream on the gateway's own account and reads the whole answer.
///
/// Contract: vets and dials like the request path does, follows no redirect, reads at
/// most `max_answer` bytes, and returns within the route's time-out. The secrets go nowhere else.
#[async_trait]
pub trait Upstream: Send + Sync {
    /// Status and body, or why there is none.
    async fn fetch(
        &self,
        route: &Route,
        request: UpstreamRequest,
        secrets: &Secrets,
        max_answer: usize,
    ) -> Result<(StatusCode, Bytes), UpstreamError>;
}

/// The upstream gave no usable answer.
#[derive(Debug, Clone, thiserror::Error)]
#[error("upstream read failed: {0}")]
pub struct UpstreamError(pub String);

/// Recent answers by route and read.
pub(crate) struct FactCache(Cache<(String, String), Arc<(StatusCode, Value)>>);

impl FactCache {
    pub(crate) fn new() -> Self {
        Self(Cache::builder().max_capacity(4096).time_to_live(FRESH_FOR).build())
    }
    pub(crate) fn get(&self, route: &Route, read: &FactRead) -> Option<Arc<(StatusCode, Value)>> {
        self.0.get(&key(route, read))
    }
    pub(crate) fn put(&self, route: &Route, read: &FactRead, answer: Arc<(StatusCode, Value)>) {
        self.0.insert(key(route, read), answer);
    }
}

/// The next thing to read for any of the wanted facts, or `None` when no read can teach more.
pub(crate) fn next_read(
    connector: &dyn Connector,
    call: &Call,
    wanted: &[String],
    known: &Map<String, Value>,
) -> Option<Box<FactRead>> {
    wanted.iter().find_map(|fact| match connector.fact_step(call, fact, known) {
        FactStep::Read(read) => Some(read),
        FactStep::Known | FactStep::Unknown => None,
    })
}

fn key(route: &Route, read: &FactRead) -> (String, String) {
    (route.name.clone(), read.upstream.path_and_query.clone())
}

/// A fact older than this is read again; before an approval is used it is always read again.
const FRESH_FOR: Duration = Duration::from_secs(3);
/// Reads per decision; a chain longer than this is a connector's mistake.
pub(crate) const MAX_READS: usize = 6;
/// Bytes of one answer.
pub(crate) const MAX_ANSWER: usize = 4 << 20;
