//! The one decision path: agents, routes, policy, approvals, permits, credentials and leases.
//!
//! [`Broker::admit`] decides and records; it is the only maker of a [`permit::Permit`].
//! [`Broker::lease`] spends one. The proxy and the API are both clients of these two.

pub mod admin_ops;
pub mod admit;
pub mod agents;
pub mod approvals;
pub mod authorize;
pub mod config;
pub mod credential;
pub mod decision_log;
pub mod env;
pub mod facts;
pub mod grants;
pub mod hosts;
pub mod identity;
mod learn;
mod lift;
mod mask;
pub mod metrics;
mod outbox;
pub mod permit;
pub mod policy;
mod projection;
pub mod record;
pub mod refuse;
pub mod reload;
pub mod sealer;
pub mod secret;
pub mod sessions;
pub mod snapshot;
pub mod store;
pub mod token;
pub mod vault;
pub mod webhooks;
pub mod why;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use aegis_receipts::ReceiptLog;
use arc_swap::ArcSwap;
use foldhash::HashMap;
use moka::sync::Cache;

use crate::{
    authorize::OpenDecision,
    config::Problem,
    credential::Credential,
    decision_log::DecisionLog,
    env::Env,
    facts::{FactCache, Upstream},
    identity::Authenticator,
    metrics::Metrics,
    refuse::RefusalMeter,
    sealer::Sealer,
    snapshot::{Grammars, Snapshot, Sources},
    store::Store,
    vault::Vault,
};

/// What a broker is made of; everything that touches the world is passed in.
pub struct Parts {
    /// Clock and randomness.
    pub env: Env,
    /// The record.
    pub log: Arc<ReceiptLog>,
    /// State.
    pub store: Arc<dyn Store>,
    /// Secret stores by adapter name.
    pub vaults: BTreeMap<&'static str, Arc<dyn Vault>>,
    /// Seals payloads.
    pub sealer: Arc<dyn Sealer>,
    /// Hashes tokens.
    pub hasher: token::TokenHasher,
    /// Reads facts upstream.
    pub upstream: Arc<dyn Upstream>,
    /// Embedded catalogs.
    pub grammars: Grammars,
    /// Metrics.
    pub metrics: Metrics,
    /// Decision lines.
    pub decisions_log: DecisionLog,
    /// Tenant of every row and leaf.
    pub tenant: String,
}

/// The decision path with its state.
pub struct Broker {
    /// Clock and randomness.
    pub env: Env,
    /// The record.
    pub log: Arc<ReceiptLog>,
    /// State.
    pub store: Arc<dyn Store>,
    /// Secret stores by adapter name.
    pub vaults: BTreeMap<&'static str, Arc<dyn Vault>>,
    /// Who is asking.
    pub auth: Authenticator,
    /// Metrics.
    pub metrics: Metrics,
    /// Embedded catalogs.
    pub grammars: Grammars,
    sealer: Arc<dyn Sealer>,
    upstream: Arc<dyn Upstream>,
    decisions_log: DecisionLog,
    tenant: String,
    snapshot: ArcSwap<Snapshot>,
    facts: FactCache,
    /// The last lease of each credential of the configuration in force.
    credentials: parking_lot::RwLock<HashMap<String, Arc<Credential>>>,
    open_decisions: Cache<String, Arc<parking_lot::Mutex<Option<OpenDecision>>>>,
    refusals: RefusalMeter,
    settling: tokio::sync::Mutex<()>,
    /// Changes whenever an approval may have been settled.
    settled: tokio::sync::watch::Sender<u64>,
    draining: tokio::sync::Mutex<()>,
    projecting: tokio::sync::Mutex<()>,
    swapping: tokio::sync::Mutex<()>,
    clicks: webhooks::Clicks,
}

impl Broker {
    /// Starts with a validated configuration, whose leaf is durable when this returns; so are the
    /// leaves of transitions that an earlier process stored and did not get to.
    pub async fn start(parts: Parts, sources: &Sources) -> Result<(Arc<Self>, Vec<Problem>), StartError> {
        let (snapshot, warnings) = Snapshot::build(sources, &parts.grammars).map_err(StartError::Config)?;
        let broker = Self::start_with(parts, snapshot).await.map_err(StartError::Unrecorded)?;
        Ok((broker, warnings))
    }

    /// The same with a configuration that was built before, with the same grammars: who takes over
    /// from another process does not want to find mistakes in it only then.
    ///
    /// # Errors
    /// Why the log cannot be written.
    pub async fn start_with(parts: Parts, snapshot: Snapshot) -> Result<Arc<Self>, String> {
        let broker = Arc::new(Self {
            auth: Authenticator::new(parts.store.clone(), parts.hasher),
            env: parts.env,
            log: parts.log,
            store: parts.store,
            vaults: parts.vaults,
            metrics: parts.metrics,
            grammars: parts.grammars,
            sealer: parts.sealer,
            upstream: parts.upstream,
            decisions_log: parts.decisions_log,
            tenant: parts.tenant,
            facts: FactCache::new(),
            credentials: parking_lot::RwLock::default(),
            open_decisions: Cache::builder().max_capacity(100_000).time_to_live(Duration::from_secs(86_400)).build(),
            refusals: RefusalMeter::default(),
            settling: tokio::sync::Mutex::default(),
            settled: tokio::sync::watch::Sender::new(0),
            draining: tokio::sync::Mutex::default(),
            projecting: tokio::sync::Mutex::default(),
            swapping: tokio::sync::Mutex::default(),
            clicks: webhooks::Clicks::default(),
            snapshot: ArcSwap::from_pointee(snapshot),
        });
        let unrecorded = |e: admit::AdmitError| e.to_string();
        broker.drain_outbox().await.map_err(unrecorded)?;
        broker.record_snapshot(&broker.snapshot()).await.map_err(unrecorded)?;
        Ok(broker)
    }

    /// The configuration in force; a request takes it once and keeps it.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }
}

/// Why a broker does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Routes or policies are not usable.
    #[error("{} problem(s) in the configuration", .0.len())]
    Config(Vec<Problem>),
    /// The log cannot be written.
    #[error("the receipt log cannot be written: {0}")]
    Unrecorded(String),
}
