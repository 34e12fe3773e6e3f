//! The old process: lets go step by step, and takes everything up again where the new one fails.

use std::{
    io,
    time::{Duration, Instant},
};

use aegis_broker::snapshot::Sources;
use aegis_proxy::{Connections, Mode};
use tokio::time::{sleep, timeout};

use super::{
    Control, Estate, Message,
    after::{self, Owed},
    socket::SOCKET,
};
use crate::{
    config::Config,
    error::CliError,
    gateway::{self, Gateway, Listening, Parts, Running},
    logging,
    process::Signals,
    state::Held,
};

/// How a handover ended.
pub enum End {
    /// The other process serves; what is in flight here goes on.
    Gone(Box<Afterwards>),
    /// This one goes on.
    Kept(Box<Running>),
}

/// Gives everything to the process at the other end of `control`.
///
/// `Err` only where this process could neither give it away nor take it up again.
pub async fn hand_over(running: Running, mut control: Control, config: &Config) -> Result<End, CliError> {
    if let Err(error) = offer(&running, &mut control).await {
        tracing::warn!(event = "handover_refused", %error, "the other process did not take over");
        return Ok(End::Kept(Box::new(running)));
    }
    let started = Instant::now();
    let (gateway, listening) = running.cease().await;
    listening.connections.set_mode(Mode::Moving);
    if !settled(&listening).await {
        let why = "requests that are being decided do not end; try again".to_owned();
        let _ = control.say(&Message::Kept { why: why.clone() }).await;
        tracing::warn!(event = "handover_refused", "{why}");
        return resume(gateway, listening, config).await;
    }
    // From here on another process may write: whatever this one still has to say goes through it.
    let sources = gateway.broker.snapshot().sources.clone();
    let (broker, owed) = (gateway.broker.clone(), Owed::default());
    let (heir, notes) = owed.heir();
    let released = gateway.release(heir).await;
    broker.auth.retire();
    let estate = Estate { open: released.open, decisions: released.decisions };
    let bringing = tokio::spawn(after::bring(config.clone(), broker.clone(), owed.clone(), notes));
    if let Err(error) = finish(&mut control, estate).await {
        tracing::warn!(event = "handover_failed", %error, "the other process is gone; this one opens everything again");
        return reopen(sources, listening, config).await;
    }
    tracing::info!(
        event = "handed_over",
        pause_ms = started.elapsed().as_millis() as u64,
        "another process serves now"
    );
    listening.connections.set_successor(&config.in_state(SOCKET));
    let connections = listening.close().await;
    Ok(End::Gone(Box::new(Afterwards { config: config.clone(), connections, broker, owed, bringing })))
}

/// Sockets first: a process that does not get that far changes nothing here.
async fn offer(running: &Running, control: &mut Control) -> io::Result<()> {
    let (names, sockets): (Vec<_>, Vec<_>) = running.sockets().unzip();
    let names = names.into_iter().map(str::to_owned).collect();
    control.say(&Message::Sockets { names }).await?;
    control.give(&sockets).await?;
    match control.hear_within(TAKE).await? {
        Message::Take => Ok(()),
        _ => Err(io::Error::other("it said something unexpected")),
    }
}

async fn settled(listening: &Listening) -> bool {
    let settling = async {
        while !listening.connections.settled() {
            sleep(STEP).await;
        }
    };
    timeout(SETTLE, settling).await.is_ok()
}

/// A process that is alive is waited for, however slow: only its death gives the lock back.
async fn finish(control: &mut Control, estate: Estate) -> io::Result<()> {
    control.say(&Message::Go(estate)).await?;
    match control.hear().await? {
        Message::Ready => Ok(()),
        _ => Err(io::Error::other("it said something unexpected")),
    }
}

/// Nothing was let go of: the same gateway accepts again.
async fn resume(gateway: Gateway, listening: Listening, config: &Config) -> Result<End, CliError> {
    let connections = listening.connections.clone();
    let sockets = listening.into_sockets().await;
    connections.set_mode(Mode::Serving);
    connections.set_successor(&config.in_state(SOCKET));
    Ok(End::Kept(Box::new(gateway::serve_on(gateway, config, sockets, connections).await?)))
}

/// Everything was let go of: it is opened again, as at a start, with the configuration that was in force.
async fn reopen(sources: Sources, listening: Listening, config: &Config) -> Result<End, CliError> {
    let until = Instant::now() + LOCK;
    let held = loop {
        match Held::alone(&config.state) {
            Ok(held) => break held,
            Err(error) if Instant::now() > until => return Err(error),
            Err(_) => sleep(STEP).await,
        }
    };
    let parts = Parts { sources, decisions: logging::decisions(config.log) };
    let gateway = Gateway::open(config, held, parts).await?;
    // Connections of before know the log that was given up: they come in again like a predecessor's.
    let moved = listening.connections.clone();
    let sockets = listening.into_sockets().await;
    let connections = Connections::new(config.limits.clone());
    connections.keep_time();
    let running = gateway::serve_on(gateway, config, sockets, connections).await?;
    moved.set_successor(&config.in_state(SOCKET));
    Ok(End::Kept(Box::new(running)))
}

/// What goes on in a process that was taken over from.
pub struct Afterwards {
    config: Config,
    connections: std::sync::Arc<aegis_proxy::Connections>,
    broker: std::sync::Arc<aegis_broker::Broker>,
    owed: Owed,
    bringing: tokio::task::JoinHandle<()>,
}

impl Afterwards {
    /// Returns once all connections have ended, or their time is over, or a stop was asked for, and
    /// every outcome is in the log.
    pub async fn last(self, signals: &mut Signals) {
        let ended = async {
            while !self.connections.is_empty() || self.broker.metrics.in_flight.get() > 0 {
                sleep(IDLE_STEP).await;
            }
        };
        tokio::pin!(ended);
        tokio::select! {
            () = &mut ended => {}
            () = sleep(self.config.upgrade_drain) => {
                tracing::warn!(event = "drain_timeout", "requests were still in flight when the time to drain was over");
            }
            () = signals.stop() => {
                let _ = timeout(self.config.drain, ended).await;
            }
        }
        after::settle(&self.config, &self.owed, self.broker.env.clock.clone()).await;
        self.bringing.abort();
    }
}

/// How long the other process may take between having the sockets and wanting everything: it has prepared before.
const TAKE: Duration = Duration::from_secs(5);
/// How long what is being decided may take. The kernel queues connections meanwhile.
const SETTLE: Duration = Duration::from_secs(5);
/// How long a dead process may keep the lock.
const LOCK: Duration = Duration::from_secs(30);
const STEP: Duration = Duration::from_millis(2);
const IDLE_STEP: Duration = Duration::from_millis(50);
