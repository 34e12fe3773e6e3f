//! Serving: listeners, ticks, reloads, and the way out.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use aegis_broker::Broker;
use aegis_proxy::{OwnCertificate, ProxyOptions, TlsListener};
use tokio::{
    net::TcpListener,
    sync::watch,
    task::JoinSet,
    time::{MissedTickBehavior, interval, timeout},
};

use super::{
    doors,
    open::{DRAIN, Gateway},
};
use crate::{
    config::Config,
    error::CliError,
    reload::{self, Files, Reloader},
    state, webhooks,
};

/// A gateway that answers.
pub struct Running {
    /// The agents' door.
    pub listen: SocketAddr,
    /// The door of admins and approvers.
    pub admin: SocketAddr,
    /// The listener that ends TLS.
    pub tls: Option<SocketAddr>,
    /// Doors of routes of their own, by route.
    pub routes: BTreeMap<String, SocketAddr>,
    /// What clients of the forward proxy have to trust.
    pub ca: PathBuf,
    /// The broker behind them.
    pub broker: Arc<Broker>,
    gateway: Gateway,
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
}

/// Binds and serves. On `Err` nothing is left bound.
pub async fn serve(gateway: Gateway, config: &Config) -> Result<Running, CliError> {
    let (stop, stopping) = watch::channel(false);
    let broker = gateway.broker.clone();
    let listener = TcpListener::bind(config.admin_listen).await;
    let listener =
        listener.map_err(|e| CliError::failed(format!("cannot listen on `{}`: {e}", config.admin_listen)))?;
    let admin = listener.local_addr().map_err(|e| CliError::failed(e.to_string()))?;
    gateway.dialer.own(admin);
    let authority = gateway.ca.authority().await.map_err(|e| CliError::failed(e.to_string()))?;
    let own = own_certificate(config)?;
    let options = ProxyOptions {
        listen: config.listen,
        tls: config.tls.as_ref().map(|tls| TlsListener { listen: tls.listen, own: own.clone() }),
        authority: authority.clone(),
        api: doors::agents(broker.clone(), gateway.ca.clone()),
        dialer: gateway.dialer.clone(),
    };
    let bound = aegis_proxy::serve(broker.clone(), options, stopping.clone()).await;
    let bound = bound.map_err(|e| CliError::failed(e.to_string()))?;
    let reloader = Arc::new(Reloader::new(broker.clone(), Files::of(config)).with_certificate(own));
    let mut tasks = bound.tasks;
    let admins = doors::admins(broker.clone(), reloader.clone(), gateway.ca.clone());
    tasks.spawn(doors::serve_admins(listener, admins, stopping.clone()));
    tasks.spawn(watch_files(reloader, stopping.clone()));
    tasks.spawn(webhooks::run(broker.clone(), stopping.clone()));
    tasks.spawn(tick(broker.clone(), stopping));
    gateway.publish(bound.listen, admin)?;
    let ca = config.in_state(state::CA).join(aegis_proxy::CaStatus::BUNDLE);
    Ok(Running { listen: bound.listen, admin, tls: bound.tls, routes: bound.routes, ca, broker, gateway, stop, tasks })
}

fn own_certificate(config: &Config) -> Result<Option<Arc<OwnCertificate>>, CliError> {
    let files = config.tls.as_ref().and_then(|tls| tls.own.as_ref());
    let opened = files.map(|files| OwnCertificate::open(&files.certificate, &files.key).map(Arc::new));
    opened.transpose().map_err(|e| CliError::usage(format!("[tls]: {e}")))
}

impl Running {
    /// Stops accepting, waits for what is in flight, at most ten seconds, and closes log and store.
    pub async fn stop(self) {
        let Self { gateway, stop, mut tasks, broker, .. } = self;
        let _ = stop.send(true);
        let drained = timeout(DRAIN, async {
            while tasks.join_next().await.is_some() {}
            // A listener's task ends before the connections it made.
            while broker.metrics.in_flight.get() > 0 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
        if drained.await.is_err() {
            tracing::warn!(event = "drain_timeout", "requests were still in flight when the time to drain was over");
        }
        tasks.abort_all();
        drop(broker);
        gateway.close().await;
    }
}

async fn watch_files(reloader: Arc<Reloader>, stopping: watch::Receiver<bool>) {
    if let Err(error) = reload::watch(reloader, stopping).await {
        tracing::error!(%error, "configuration changes are not noticed");
    }
}

/// Once a second: counted refusals become leaves. Once the log is quiet: rows for what is new in it.
async fn tick(broker: Arc<Broker>, mut stopping: watch::Receiver<bool>) {
    let mut every = interval(TICK);
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut flushed = Instant::now();
    let mut seen = (broker.log.head().next_seq, Instant::now());
    let mut projected = None;
    loop {
        tokio::select! {
            () = reload::stopped(&mut stopping) => return,
            _ = every.tick() => {}
        }
        if flushed.elapsed() >= Duration::from_secs(1) {
            broker.flush_refusals();
            if let Err(error) = broker.expire_approvals().await {
                tracing::warn!(%error, "approvals that are over could not be put on record; it is tried again");
            }
            flushed = Instant::now();
        }
        let head = broker.log.head().next_seq;
        if head != seen.0 {
            seen = (head, Instant::now());
        } else if projected != Some(head) && seen.1.elapsed() >= QUIET {
            match broker.project().await {
                Ok(()) => projected = Some(head),
                Err(error) => tracing::warn!(%error, "the log could not be projected; it is tried again"),
            }
        }
    }
}

const TICK: Duration = Duration::from_millis(250);
const QUIET: Duration = Duration::from_millis(500);
