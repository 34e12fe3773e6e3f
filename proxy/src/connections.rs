//! Every downstream connection: whose it is, how far its request has come, how long that may take.
//!
//! A stop and an upgrade are a change of [`Mode`]. Each connection sees it at its next read, in its
//! own task, so a request that is being decided is never torn away, and no byte that has arrived is lost.

mod life;

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::sockets::Listener;
pub(crate) use life::{Life, Verdict};

/// What one client can hold on to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// From the first byte of a request's head to its last.
    pub head: Duration,
    /// Before the first request and between two.
    pub keepalive: Duration,
    /// Without progress while an answer is written.
    pub write: Duration,
    /// Connections of one address; of one /64 where that is IPv6.
    pub per_source: usize,
    /// Connections of all.
    pub total: usize,
}

/// What becomes of connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Mode {
    /// They are served.
    Serving,
    /// The next answer is the last on each.
    Leaving,
    /// The same, and those that wait for a request end.
    Closing,
    /// What is not decided yet goes to the successor, connection and all; what cannot go there ends when it can.
    Moving,
    /// Whatever is in flight ends now, its outcome unknown.
    Ending,
}

/// Where a connection came in; goes with it to a successor.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origin {
    /// Whose listener it was.
    pub listener: Listener,
    /// The client.
    pub peer: Option<IpAddr>,
    /// The listener's address, as the client knows it.
    pub local: Option<SocketAddr>,
    /// It came from the process before: its next answer is the last.
    pub relayed: bool,
}

/// All connections of a process.
pub struct Connections {
    limits: Limits,
    epoch: Instant,
    mode: AtomicU8,
    mode_since: AtomicU64,
    next: AtomicU64,
    live: Mutex<Live>,
    /// Work outside of a connection that must end before the record is handed over.
    busy: AtomicUsize,
    relays: AtomicUsize,
    successor: watch::Sender<Option<PathBuf>>,
}

#[derive(Default)]
struct Live {
    by_id: HashMap<u64, Arc<Life>>,
    by_source: HashMap<IpAddr, usize>,
}

impl Connections {
    /// None yet.
    pub fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self {
            limits,
            epoch: Instant::now(),
            mode: AtomicU8::new(Mode::Serving as u8),
            mode_since: AtomicU64::new(0),
            next: AtomicU64::new(0),
            live: Mutex::default(),
            busy: AtomicUsize::new(0),
            relays: AtomicUsize::new(0),
            successor: watch::Sender::new(None),
        })
    }

    /// The limits in force.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Changes what becomes of all connections.
    pub fn set_mode(&self, mode: Mode) {
        self.mode_since.store(self.now(), Ordering::Release);
        self.mode.store(mode as u8, Ordering::Release);
        let all: Vec<Arc<Life>> = self.live.lock().by_id.values().cloned().collect();
        for life in all {
            life.wake();
        }
    }

    /// Where moved connections are served from now on.
    pub fn set_successor(&self, socket: &Path) {
        self.successor.send_replace(Some(socket.to_owned()));
    }

    pub(crate) fn successor(&self) -> watch::Receiver<Option<PathBuf>> {
        self.successor.subscribe()
    }

    /// Whether nothing is left that could still need the record, outcomes apart.
    pub fn settled(&self) -> bool {
        self.busy.load(Ordering::Acquire) == 0 && self.live.lock().by_id.values().all(|life| life.settled())
    }

    /// Whether all connections have ended, moved ones included.
    pub fn is_empty(&self) -> bool {
        self.relays.load(Ordering::Acquire) == 0
            && self.busy.load(Ordering::Acquire) == 0
            && self.live.lock().by_id.is_empty()
    }

    /// Held while something outside of a request's own connection is decided or recorded.
    pub fn busy(self: &Arc<Self>) -> Busy {
        self.busy.fetch_add(1, Ordering::AcqRel);
        Busy(self.clone())
    }

    pub(crate) fn relay(self: &Arc<Self>) -> Relaying {
        self.relays.fetch_add(1, Ordering::AcqRel);
        Relaying(self.clone())
    }

    /// Ends what is over its time, for as long as there is somebody to ask.
    ///
    /// One timer for all: one for each head costs more than looking at all of them now and then.
    pub fn keep_time(self: &Arc<Self>) {
        let all = Arc::downgrade(self);
        tokio::spawn(async move {
            while let Some(all) = all.upgrade() {
                all.wake_late();
                drop(all);
                tokio::time::sleep(SWEEP).await;
            }
        });
    }

    fn wake_late(&self) {
        let parting = self.mode() != Mode::Serving;
        let now = self.now();
        let is_due = |life: &&Arc<Life>| life.is_late(now) || parting && life.is_rooted();
        let due: Vec<Arc<Life>> = self.live.lock().by_id.values().filter(is_due).cloned().collect();
        for life in due {
            life.wake();
        }
    }

    /// Takes a connection in; `None` where there are too many already.
    pub(crate) fn open(self: &Arc<Self>, origin: Origin) -> Option<Arc<Life>> {
        let mut live = self.live.lock();
        // One that was taken in before is not refused now, and nothing is recorded while moving.
        let counts = !origin.relayed && self.mode() != Mode::Moving;
        let source = source(origin.peer);
        if counts {
            let of_source = source.and_then(|s| live.by_source.get(&s)).copied().unwrap_or(0);
            if of_source >= self.limits.per_source || live.by_id.len() >= self.limits.total {
                return None;
            }
        }
        if let Some(source) = source {
            *live.by_source.entry(source).or_default() += 1;
        }
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let life = Arc::new(Life::new(self.clone(), id, origin));
        live.by_id.insert(id, life.clone());
        Some(life)
    }

    fn close(&self, life: &Life) {
        let mut live = self.live.lock();
        if live.by_id.remove(&life.id()).is_none() {
            return;
        }
        if let Some(source) = source(life.origin().peer)
            && let Some(count) = live.by_source.get_mut(&source)
        {
            *count -= 1;
            if *count == 0 {
                live.by_source.remove(&source);
            }
        }
    }

    pub(crate) fn mode(&self) -> Mode {
        match self.mode.load(Ordering::Acquire) {
            m if m == Mode::Serving as u8 => Mode::Serving,
            m if m == Mode::Leaving as u8 => Mode::Leaving,
            m if m == Mode::Closing as u8 => Mode::Closing,
            m if m == Mode::Moving as u8 => Mode::Moving,
            _ => Mode::Ending,
        }
    }

    fn now(&self) -> u64 {
        millis(self.epoch.elapsed())
    }
}

/// See [`Connections::busy`].
pub struct Busy(Arc<Connections>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.busy.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A connection that goes on in the successor, through this process.
pub(crate) struct Relaying(Arc<Connections>);

impl Drop for Relaying {
    fn drop(&mut self) {
        self.0.relays.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Whom a connection counts for.
fn source(peer: Option<IpAddr>) -> Option<IpAddr> {
    match peer?.to_canonical() {
        IpAddr::V4(v4) => Some(v4.into()),
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            Some(std::net::Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into())
        }
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX / 2)
}

const SWEEP: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> Limits {
        Limits {
            head: Duration::from_millis(0),
            keepalive: Duration::from_secs(60),
            write: Duration::from_secs(60),
            per_source: 2,
            total: 3,
        }
    }

    fn from(peer: &str) -> Origin {
        Origin { peer: Some(peer.parse().unwrap()), ..Origin::default() }
    }

    #[test]
    fn one_source_cannot_take_all_connections_nor_hide_in_its_network() {
        let all = Connections::new(limits());
        let first = all.open(from("10.0.0.1")).unwrap();
        let _second = all.open(from("10.0.0.1")).unwrap();
        assert!(all.open(from("::ffff:10.0.0.1")).is_none(), "the same address, spelt otherwise");
        let _other = all.open(from("2001:db8::1")).unwrap();
        assert!(all.open(from("10.0.0.9")).is_none(), "the total");
        first.end();
        first.end();
        assert!(all.open(from("2001:db8::2")).is_some());
        assert!(all.open(from("2001:db8:0:0:1::")).is_none(), "the same /64");
    }

    #[test]
    fn what_was_taken_in_by_the_process_before_is_not_refused() {
        let all = Connections::new(Limits { per_source: 0, ..limits() });
        assert!(all.open(from("10.0.0.1")).is_none());
        let relayed = all.open(Origin { relayed: true, ..from("10.0.0.1") }).unwrap();
        assert!(relayed.leaving());
    }
}
