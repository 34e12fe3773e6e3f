//! A tunnel whose inside is not read: its host, its sizes and its times are on record, and it ends when
//! its agent may act no more.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use aegis_broker::{
    Broker,
    admit::{ApprovalUse, Ask},
    permit::{Outcome, Ticket},
    snapshot::Snapshot,
};
use aegis_receipts::{OutcomeState, Transfer};
use http::StatusCode;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
    time::{MissedTickBehavior, interval, timeout},
};

use super::Wanted;
use crate::{
    caller::Caller,
    connections::{Life, Mode},
    exchange::Exchange,
    front::Front,
    lifeline::GATEWAY_STOPPED,
    reply::Reply,
    upstream,
};

/// A tunnel that policies permitted, connected.
pub(super) struct Opened {
    upstream: TcpStream,
    ticket: Ticket,
    idle: Duration,
}

/// Asks the policies, and dials. The intent is on record and durable before a packet leaves.
pub(super) async fn open(
    front: &Front,
    wanted: &Wanted,
    snapshot: &Arc<Snapshot>,
    x: &mut Exchange,
) -> Result<Opened, Reply> {
    let broker = &front.broker;
    let call = broker.grammars.tunnel.connect(&wanted.host, wanted.port)?;
    let verdict = broker
        .admit(Ask {
            identity: &wanted.identity,
            snapshot,
            scope: &snapshot.tunnel,
            calls: std::slice::from_ref(&call),
            door: x.door,
            declared_trust: wanted.request.declared_trust,
            contains_sensitive_data: None,
            trace: &wanted.request.trace,
            request_id: None,
            dry_run: false,
            approvals: ApprovalUse::Any,
        })
        .await?;
    x.decided(&verdict.record);
    let Some(permit) = verdict.permit else { return Err(Reply::decided(&verdict.record)) };
    let (_, ticket) = broker.lease(permit).await?;
    let settings = &snapshot.config.tunnel;
    let dialled = match front.dialer.vetted(&wanted.host, wanted.port, &settings.allow_internal).await {
        Ok(vetted) => timeout(CONNECT_TIME, TcpStream::connect(vetted.as_slice())).await.ok().and_then(Result::ok),
        Err(refused) => {
            ticket.close(upstream::nothing_sent(broker.env.clock.now()));
            return Err(refused.into());
        }
    };
    match dialled {
        Some(upstream) => Ok(Opened { upstream, ticket, idle: settings.idle_timeout }),
        None => {
            ticket.close(upstream::nothing_sent(broker.env.clock.now()));
            let words = "the host of the tunnel could not be reached";
            Err(Reply::closing(StatusCode::BAD_GATEWAY, "upstream_unavailable", words))
        }
    }
}

/// Bytes of one tunnel, and when the last of them moved.
#[derive(Default)]
struct Moved {
    sent: AtomicU64,
    received: AtomicU64,
    last: AtomicI64,
}

impl Opened {
    /// Moves bytes until either side, the agent's standing, idleness or the process ends it.
    pub(super) async fn run(self, front: &Front, caller: Caller, wanted: &Wanted) {
        let Caller { stream, place } = caller;
        let Self { mut upstream, ticket, idle } = self;
        let broker = &front.broker;
        let moved = Moved::default();
        moved.last.store(broker.env.clock.now().0, Ordering::Relaxed);
        let (mut agent_in, mut agent_out) = tokio::io::split(stream);
        let (mut there_in, mut there_out) = upstream.split();
        let both = async {
            tokio::join!(
                pump(&mut agent_in, &mut there_out, &moved.sent, &moved.last, broker),
                pump(&mut there_in, &mut agent_out, &moved.received, &moved.last, broker),
            )
        };
        let (state, why) = tokio::select! {
            ends = both => match ends {
                (true, true) => (OutcomeState::Completed, None),
                // Cut off by one of them: what the other got is not known here.
                _ => (OutcomeState::Unknown, None),
            },
            why = ended(broker, wanted, &place, &moved.last) => (OutcomeState::Unknown, Some(why)),
            () = idled(broker, &moved.last, idle) => (OutcomeState::Completed, Some("idle")),
        };
        let transfer =
            |count: &AtomicU64| Some(Transfer { bytes: count.load(Ordering::Relaxed), frames: None, sha256: None });
        ticket.close(Outcome {
            sent: transfer(&moved.sent),
            received: transfer(&moved.received),
            tamper: why.map(str::to_owned),
            ..Outcome::ended(state, broker.env.clock.now())
        });
    }
}

/// One direction, to its orderly end (`true`) or to an error.
async fn pump(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    count: &AtomicU64,
    last: &AtomicI64,
    broker: &Broker,
) -> bool {
    let mut buffer = vec![0; BUFFER];
    loop {
        let read = match from.read(&mut buffer).await {
            Ok(0) => return to.shutdown().await.is_ok(),
            Ok(read) => read,
            Err(_) => return false,
        };
        let piece = buffer.get(..read).unwrap_or_default();
        if to.write_all(piece).await.is_err() || to.flush().await.is_err() {
            return false;
        }
        count.fetch_add(read as u64, Ordering::Relaxed);
        last.store(broker.env.clock.now().0, Ordering::Relaxed);
    }
}

/// Returns once the agent may act no more, or the process has no more time, or none to wait for silence.
async fn ended(broker: &Broker, wanted: &Wanted, life: &Life, last: &AtomicI64) -> &'static str {
    let mut every = interval(LOOK);
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        every.tick().await;
        let (mode, now) = (life.all().mode(), broker.env.clock.now());
        let refused = match mode {
            // Tokens are the successor's to look up; it tells what becomes of the agent.
            Mode::Moving => wanted.identity.refusal(now).is_some(),
            _ => broker.auth.agent(&wanted.token, life.origin().peer, now).await.is_err(),
        };
        if refused {
            return "agent_contained";
        }
        let quiet = now.0.saturating_sub(last.load(Ordering::Relaxed)) >= QUIET;
        if mode == Mode::Ending || mode == Mode::Closing && quiet {
            return GATEWAY_STOPPED;
        }
    }
}

/// Returns once nothing has moved for too long.
async fn idled(broker: &Broker, last: &AtomicI64, idle: Duration) {
    loop {
        let since = broker.env.clock.now().0.saturating_sub(last.load(Ordering::Relaxed));
        let since = Duration::from_millis(u64::try_from(since).unwrap_or_default());
        match idle.checked_sub(since) {
            Some(left) if !left.is_zero() => tokio::time::sleep(left).await,
            _ => return,
        }
    }
}

const CONNECT_TIME: Duration = Duration::from_secs(10);
/// How often the agent's standing is looked at; a look is a look-up in memory.
const LOOK: Duration = Duration::from_secs(1);
/// A stop does not wait for a tunnel in which nothing has moved for so many milliseconds.
const QUIET: i64 = 1000;
const BUFFER: usize = 16 * 1024;
