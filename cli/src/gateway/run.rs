//! Serving: listeners, ticks, reloads, and the way out.

use std::{
    collections::BTreeMap,
    io,
    net::{SocketAddr, TcpListener},
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use aegis_broker::Broker;
use aegis_proxy::{Connections, Entrance, Listener, Mode, OwnCertificate, ProxyOptions, Sockets, TlsListener, sockets};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{MissedTickBehavior, interval, sleep, timeout},
};

use super::{doors, open::Gateway};
use crate::{
    config::Config,
    error::CliError,
    handover::{Control, Doorstep, House},
    reload::{self, Files, Reloader},
    state, supervisor, webhooks,
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
    listening: Listening,
    drain: Duration,
}

/// What outlives the accepting: the sockets, and connections that were taken in.
pub struct Listening {
    /// Every connection there is.
    pub connections: Arc<Connections>,
    sockets: Sockets,
    entrance: Arc<Entrance>,
    doorstep: Doorstep,
}

/// Binds and serves. On `Err` nothing is left bound.
pub async fn serve(gateway: Gateway, config: &Config) -> Result<Running, CliError> {
    let connections = Connections::new(config.limits.clone());
    connections.keep_time();
    serve_on(gateway, config, Sockets::default(), connections).await
}

/// Serves on sockets that may be open already, and goes on with connections that may be there already.
pub async fn serve_on(
    gateway: Gateway,
    config: &Config,
    mut sockets: Sockets,
    connections: Arc<Connections>,
) -> Result<Running, CliError> {
    let (stop, stopping) = watch::channel(false);
    let broker = gateway.broker.clone();
    let failed = |e: &dyn std::fmt::Display| CliError::failed(e.to_string());
    let listener = sockets.open(sockets::ADMIN, config.admin_listen).map_err(|e| failed(&e))?;
    let listener = tokio::net::TcpListener::from_std(listener).map_err(|e| failed(&e))?;
    let admin = listener.local_addr().map_err(|e| failed(&e))?;
    gateway.dialer.own(admin);
    let authority = gateway.ca.authority().await.map_err(|e| failed(&e))?;
    let own = own_certificate(config)?;
    let options = ProxyOptions {
        listen: config.listen,
        tls: config.tls.as_ref().map(|tls| TlsListener { listen: tls.listen, own: own.clone() }),
        authority: authority.clone(),
        api: doors::agents(broker.clone(), gateway.ca.clone()),
        dialer: gateway.dialer.clone(),
        connections: connections.clone(),
    };
    let bound = aegis_proxy::serve(broker.clone(), options, &mut sockets, stopping.clone()).await;
    let bound = bound.map_err(|e| failed(&e))?;
    for name in sockets.keep_only(&bound.names()) {
        tracing::warn!(name, "nothing in the configuration listens on this socket; it is closed");
    }
    let house = House { entrance: bound.entrance.clone(), broker: broker.clone(), stopping: stopping.clone() };
    let doorstep = Doorstep::open(&config.state, house)
        .map_err(|e| CliError::failed(format!("cannot make `{}/handover.sock`: {e}", config.state.display())))?;
    let reloader = Arc::new(Reloader::new(broker.clone(), Files::of(config)).with_certificate(own));
    let mut tasks = bound.tasks;
    let admins = doors::admins(broker.clone(), reloader.clone(), gateway.ca.clone());
    tasks.spawn(doors::serve_admins(listener, admins, stopping.clone()));
    tasks.spawn(watch_files(reloader, stopping.clone()));
    tasks.spawn(supervisor::keep_watchdog(stopping.clone()));
    tasks.spawn(webhooks::run(broker.clone(), stopping.clone()));
    tasks.spawn(tick(broker.clone(), stopping));
    gateway.publish(bound.listen, admin)?;
    let ca = config.in_state(state::CA).join(aegis_proxy::CaStatus::BUNDLE);
    Ok(Running {
        listen: bound.listen,
        admin,
        tls: bound.tls,
        routes: bound.routes,
        ca,
        broker,
        gateway,
        stop,
        tasks,
        listening: Listening { connections, sockets, entrance: bound.entrance, doorstep },
        drain: config.drain,
    })
}

fn own_certificate(config: &Config) -> Result<Option<Arc<OwnCertificate>>, CliError> {
    let files = config.tls.as_ref().and_then(|tls| tls.own.as_ref());
    let opened = files.map(|files| OwnCertificate::open(&files.certificate, &files.key).map(Arc::new));
    opened.transpose().map_err(|e| CliError::usage(format!("[tls]: {e}")))
}

impl Running {
    /// The next process that wants to take over.
    pub async fn taker(&mut self) -> Control {
        self.listening.doorstep.taker().await
    }

    /// Name and socket of every listener.
    pub fn sockets(&self) -> impl Iterator<Item = (&str, &TcpListener)> {
        self.listening.sockets.iter()
    }

    /// Accepts nothing any more; connections that are there go on. New ones wait in the sockets.
    pub async fn cease(self) -> (Gateway, Listening) {
        let Self { gateway, stop, mut tasks, listening, .. } = self;
        let _ = stop.send(true);
        // The admins' door answers what it began; whoever only holds a connection open is not waited for.
        let ended = timeout(CEASE, async { while tasks.join_next().await.is_some() {} });
        if ended.await.is_err() {
            tasks.shutdown().await;
        }
        (gateway, listening)
    }

    /// Stops accepting, waits for what is in flight, as long as the configuration says, and closes log and store.
    ///
    /// Whoever asks within a second on a connection that is open gets an answer, and is told that it
    /// is the last one. What has arrived of a request is never thrown away.
    pub async fn stop(self) {
        let (until, connections) = (Instant::now() + self.drain, self.listening.connections.clone());
        connections.set_mode(Mode::Leaving);
        let broker = self.broker.clone();
        let (gateway, mut listening) = self.cease().await;
        listening.take_in_waiting();
        let gone = async || {
            let mut quiet = 0;
            // Work may outlive its connection; and what was accepted last is not known to anybody for a moment.
            while quiet < QUIET_STEPS {
                let ended = connections.is_empty() && broker.metrics.in_flight.get() == 0;
                quiet = if ended { quiet + 1 } else { 0 };
                sleep(STEP).await;
            }
        };
        let mut drained = timeout(GRACE.min(until.saturating_duration_since(Instant::now())), gone()).await.is_ok();
        if !drained {
            connections.set_mode(Mode::Closing);
            drained = timeout(until.saturating_duration_since(Instant::now()), gone()).await.is_ok();
        }
        if !drained {
            tracing::warn!(event = "drain_timeout", "requests were still in flight when the time to drain was over");
            // What is cut now still gets its outcome on record.
            connections.set_mode(Mode::Ending);
            let _ = timeout(LAST_WORDS, gone()).await;
        }
        drop(broker);
        listening.close().await;
        gateway.close().await;
    }
}

impl Listening {
    /// Ends the accepting for good; answers those who came to the handover socket until now.
    pub async fn close(self) -> Arc<Connections> {
        self.doorstep.close().await;
        self.connections
    }

    /// The sockets alone, for another start.
    pub async fn into_sockets(self) -> Sockets {
        self.doorstep.close().await;
        self.sockets
    }

    /// Closes the sockets. Connections that the kernel took in and nobody accepted would be reset with
    /// them, so they are accepted first; where the sockets outlive us, they are the next process's.
    fn take_in_waiting(&mut self) {
        let sockets = std::mem::take(&mut self.sockets);
        if sockets.outlive_us() {
            return;
        }
        let listeners = sockets.iter().filter_map(|(name, socket)| Some((Listener::of_name(name)?, socket)));
        for (listener, socket) in listeners {
            loop {
                match socket.accept() {
                    Ok((stream, _)) => self.take_in(listener.clone(), stream),
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                    Err(_) => break,
                }
            }
        }
    }

    fn take_in(&self, listener: Listener, stream: std::net::TcpStream) {
        let entrance = self.entrance.clone();
        let stream = stream.set_nonblocking(true).and_then(|()| tokio::net::TcpStream::from_std(stream));
        if let Ok(stream) = stream {
            let known = self.connections.busy();
            tokio::spawn(async move {
                entrance.late(stream, listener).await;
                drop(known);
            });
        }
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
/// How long the accepting may take to end.
const CEASE: Duration = Duration::from_secs(3);
/// How long an open connection may still ask after a stop.
const GRACE: Duration = Duration::from_secs(1);
/// How long what is cut at the end of a drain may take to say so: open exchanges look once a second.
const LAST_WORDS: Duration = Duration::from_millis(1500);
const STEP: Duration = Duration::from_millis(5);
const QUIET_STEPS: u32 = 10;
