//! One connection: how far its request has come, and what follows from that at its next read.

use std::{
    future::poll_fn,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering},
    },
    task::{Poll, Waker},
    time::Duration,
};

use futures_util::task::AtomicWaker;
use parking_lot::Mutex;

use super::{Connections, Limits, Mode, Origin, millis};

/// How far the request on a connection has come. With several at once it says nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Phase {
    /// None.
    Idle,
    /// The head comes in.
    Head,
    /// The head is here; what is read before the decision comes in.
    Reading,
    /// It is being decided or refused.
    Judging,
    /// Permitted and on record; only its outcome is owed.
    Sent,
}

/// One connection.
pub(crate) struct Life {
    all: Arc<Connections>,
    id: u64,
    origin: Origin,
    /// TLS ends here, or it is HTTP/2: it cannot go to a successor.
    rooted: AtomicBool,
    /// HTTP/2: requests overlap.
    multiplexed: AtomicBool,
    phase: AtomicU8,
    deadline: AtomicU64,
    /// Since when there has been no request.
    resting: AtomicU64,
    waker: AtomicWaker,
    /// What was read of a request that is not decided yet.
    seen: Mutex<Vec<u8>>,
    /// More was read than is kept.
    fixed: AtomicBool,
    moved: AtomicBool,
    active: AtomicUsize,
    unsent: AtomicUsize,
}

/// What a connection does at a read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    Go,
    /// As if the client had closed it.
    End,
    /// The same, because it said nothing for too long.
    TooIdle,
    /// It said too little for too long.
    TimedOut,
    /// To the successor, with what was read.
    Move(Vec<u8>),
}

impl Life {
    pub(super) fn new(all: Arc<Connections>, id: u64, origin: Origin) -> Self {
        Self {
            deadline: AtomicU64::new(all.now() + millis(all.limits.keepalive)),
            resting: AtomicU64::new(all.now()),
            all,
            id,
            origin,
            rooted: AtomicBool::new(false),
            multiplexed: AtomicBool::new(false),
            phase: AtomicU8::new(Phase::Idle as u8),
            waker: AtomicWaker::new(),
            seen: Mutex::default(),
            fixed: AtomicBool::new(false),
            moved: AtomicBool::new(false),
            active: AtomicUsize::new(0),
            unsent: AtomicUsize::new(0),
        }
    }

    pub(super) fn id(&self) -> u64 {
        self.id
    }

    pub(super) fn wake(&self) {
        self.waker.wake();
    }

    pub(super) fn is_rooted(&self) -> bool {
        self.rooted.load(Ordering::Acquire)
    }

    fn is_multiplexed(&self) -> bool {
        self.multiplexed.load(Ordering::Acquire)
    }

    /// TLS ends here: from here on the connection cannot go to a successor.
    pub(crate) fn takes_root(&self) {
        self.rooted.store(true, Ordering::Release);
    }

    /// It is HTTP/2.
    pub(crate) fn multiplex(&self) {
        self.takes_root();
        self.multiplexed.store(true, Ordering::Release);
        self.rests();
    }

    /// A handshake, which keeps its own time.
    pub(crate) fn greeting(&self) {
        self.set(Phase::Head, u64::MAX);
    }

    /// The first byte of a head came in.
    pub(crate) fn begun(&self) {
        if self.phase() == Phase::Idle {
            self.set(Phase::Head, self.all.now() + millis(self.all.limits.head));
        }
    }

    /// There is no request.
    pub(crate) fn rests(&self) {
        let now = self.all.now();
        self.resting.store(now, Ordering::Release);
        self.set(Phase::Idle, now + millis(self.all.limits.keepalive));
    }

    pub(crate) fn origin(&self) -> &Origin {
        &self.origin
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.all.limits
    }

    pub(crate) fn all(&self) -> &Arc<Connections> {
        &self.all
    }

    /// The head is complete.
    pub(crate) fn enter(&self) {
        self.active.fetch_add(1, Ordering::AcqRel);
        self.unsent.fetch_add(1, Ordering::AcqRel);
        self.set(Phase::Reading, u64::MAX);
    }

    /// From here on the request is this process's to answer.
    pub(crate) fn judging(&self) {
        self.set(Phase::Judging, u64::MAX);
        *self.seen.lock() = Vec::new();
    }

    /// Permitted: from here on only the outcome needs the record.
    pub(crate) fn sent(&self) {
        self.unsent.fetch_sub(1, Ordering::AcqRel);
        self.set(Phase::Sent, u64::MAX);
    }

    /// The request is over.
    pub(crate) fn leave(&self, was_sent: bool) {
        if !was_sent {
            self.unsent.fetch_sub(1, Ordering::AcqRel);
        }
        *self.seen.lock() = Vec::new();
        self.fixed.store(false, Ordering::Release);
        if self.active.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.rests();
        }
    }

    /// Bytes came in.
    pub(crate) fn read(&self, bytes: &[u8]) {
        if self.is_multiplexed() || bytes.is_empty() {
            return;
        }
        self.begun();
        if !self.is_undecided() || self.is_rooted() {
            return;
        }
        let mut seen = self.seen.lock();
        if self.fixed.load(Ordering::Acquire) || seen.len() + bytes.len() > MAX_SEEN {
            self.fixed.store(true, Ordering::Release);
            *seen = Vec::new();
        } else {
            seen.extend_from_slice(bytes);
        }
    }

    /// Before a read: what is not decided yet goes to the successor.
    pub(crate) fn before_read(&self) -> Verdict {
        let stays = self.is_rooted() || self.fixed.load(Ordering::Acquire);
        if self.all.mode() != Mode::Moving || !self.is_undecided() || stays {
            return Verdict::Go;
        }
        self.moved.store(true, Ordering::Release);
        Verdict::Move(std::mem::take(&mut self.seen.lock()))
    }

    /// Where there is nothing to read. What has arrived is always served first.
    pub(crate) fn nothing_to_read(&self, waker: &Waker) -> Verdict {
        // Registered before it is looked: whoever changes something after the look wakes us.
        self.waker.register(waker);
        if self.is_late(self.all.now()) {
            return if self.phase() == Phase::Head { Verdict::TimedOut } else { Verdict::TooIdle };
        }
        match self.all.mode() {
            Mode::Serving | Mode::Leaving => Verdict::Go,
            Mode::Closing if self.may_end() => Verdict::End,
            Mode::Closing => Verdict::Go,
            Mode::Moving => match self.before_read() {
                Verdict::Go if self.may_end() => Verdict::End,
                Verdict::Go if self.keeps_waiting() => Verdict::TimedOut,
                verdict => verdict,
            },
            Mode::Ending => Verdict::End,
        }
    }

    /// For whoever reads elsewhere: returns once the connection is not to be waited for any more.
    pub(crate) async fn forsaken(&self) -> Verdict {
        poll_fn(|cx| match self.nothing_to_read(cx.waker()) {
            Verdict::Go => Poll::Pending,
            verdict => Poll::Ready(verdict),
        })
        .await
    }

    /// Whether the stream went to the successor.
    pub(crate) fn moved(&self) -> bool {
        self.moved.load(Ordering::Acquire)
    }

    /// Whether the next answer is the last.
    pub(crate) fn leaving(&self) -> bool {
        self.origin.relayed || self.all.mode() != Mode::Serving
    }

    /// The connection has ended, or goes on elsewhere.
    pub(crate) fn end(&self) {
        self.all.close(self);
    }

    fn at_rest(&self) -> bool {
        if self.is_multiplexed() { self.active.load(Ordering::Acquire) == 0 } else { self.phase() == Phase::Idle }
    }

    pub(super) fn settled(&self) -> bool {
        if self.is_multiplexed() {
            self.active.load(Ordering::Acquire) > 0 && self.unsent.load(Ordering::Acquire) == 0
        } else {
            self.phase() == Phase::Sent
        }
    }

    fn is_undecided(&self) -> bool {
        matches!(self.phase(), Phase::Idle | Phase::Head | Phase::Reading)
    }

    /// No request, and whoever cannot be moved had the time to see that no more are taken, or to send one that was under way.
    fn may_end(&self) -> bool {
        let since = self.all.mode_since.load(Ordering::Acquire).max(self.resting.load(Ordering::Acquire));
        self.at_rest() && (!self.is_rooted() || self.all.now().saturating_sub(since) > millis(GOODBYE))
    }

    /// A half of a request that cannot be moved, for too long.
    fn keeps_waiting(&self) -> bool {
        let since = self.all.mode_since.load(Ordering::Acquire);
        self.is_rooted()
            && !self.is_multiplexed()
            && self.is_undecided()
            && self.all.now().saturating_sub(since) > millis(REST_OF_REQUEST)
    }

    pub(super) fn is_late(&self, now: u64) -> bool {
        // Of requests that overlap one may begin at the moment in which the last of the others ends.
        let may_be = !self.is_multiplexed() || self.active.load(Ordering::Acquire) == 0;
        may_be && now >= self.deadline.load(Ordering::Acquire)
    }

    fn set(&self, phase: Phase, deadline: u64) {
        self.phase.store(phase as u8, Ordering::Release);
        self.deadline.store(deadline, Ordering::Release);
    }

    fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Acquire) {
            p if p == Phase::Idle as u8 => Phase::Idle,
            p if p == Phase::Head as u8 => Phase::Head,
            p if p == Phase::Reading as u8 => Phase::Reading,
            p if p == Phase::Judging as u8 => Phase::Judging,
            _ => Phase::Sent,
        }
    }
}

/// How much of an undecided request is kept, so that the successor can be given it.
const MAX_SEEN: usize = 256 * 1024;
/// How long clients of HTTP/2 and TLS get to see that no new request is taken.
const GOODBYE: Duration = Duration::from_millis(500);
/// How long clients of TLS get for the rest of a request, while a successor waits.
const REST_OF_REQUEST: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> Limits {
        Limits {
            head: Duration::from_secs(60),
            keepalive: Duration::from_secs(60),
            write: Duration::from_secs(60),
            per_source: 9,
            total: 9,
        }
    }

    fn from(peer: &str) -> Origin {
        Origin { peer: Some(peer.parse().unwrap()), ..Origin::default() }
    }

    #[test]
    fn an_undecided_request_moves_with_all_its_bytes_and_a_decided_one_stays() {
        let all = Connections::new(limits());
        let life = all.open(from("10.0.0.1")).unwrap();
        life.read(b"POST / HTTP/1.1\r\n");
        life.read(b"\r\nhalf");
        life.enter();
        life.read(b" a body");
        assert_eq!(life.before_read(), Verdict::Go);
        all.set_mode(Mode::Moving);
        assert!(!all.settled());
        assert_eq!(life.before_read(), Verdict::Move(b"POST / HTTP/1.1\r\n\r\nhalf a body".to_vec()));
        assert!(life.moved());

        let decided = all.open(from("10.0.0.2")).unwrap();
        decided.enter();
        decided.judging();
        assert_eq!(decided.before_read(), Verdict::Go);
        life.end();
        assert!(!all.settled(), "its intent may not be written yet");
        decided.sent();
        assert!(all.settled());
        decided.leave(true);
        assert!(!all.settled(), "another request may come");
        assert_eq!(decided.before_read(), Verdict::Move(Vec::new()));
    }

    #[test]
    fn a_request_of_which_too_much_was_read_is_waited_for() {
        let all = Connections::new(limits());
        let life = all.open(from("10.0.0.1")).unwrap();
        life.read(&vec![0; MAX_SEEN]);
        life.read(b"x");
        all.set_mode(Mode::Moving);
        assert_eq!(life.before_read(), Verdict::Go);
        assert!(!all.settled());
    }

    #[test]
    fn what_ends_here_says_goodbye_and_is_waited_for_while_it_works() {
        let all = Connections::new(Limits { keepalive: Duration::ZERO, ..limits() });
        let waker = futures_util::task::noop_waker();
        let h2 = all.open(from("10.0.0.1")).unwrap();
        h2.multiplex();
        assert_eq!(h2.nothing_to_read(&waker), Verdict::TooIdle);
        h2.enter();
        h2.enter();
        h2.leave(false);
        // As a request finds it that begins just before the other one notes that there is none.
        h2.rests();
        assert_eq!(h2.nothing_to_read(&waker), Verdict::Go);

        let all = Connections::new(limits());
        let tls = all.open(from("10.0.0.2")).unwrap();
        tls.takes_root();
        tls.rests();
        all.set_mode(Mode::Moving);
        assert_eq!(tls.before_read(), Verdict::Go, "it cannot move");
        assert_eq!(tls.nothing_to_read(&waker), Verdict::Go, "a request may be under way");
        tls.read(b"GET");
        std::thread::sleep(GOODBYE + Duration::from_millis(50));
        assert_eq!(tls.nothing_to_read(&waker), Verdict::Go, "it has begun");
        assert!(!all.settled());
        tls.enter();
        tls.leave(false);
        assert_eq!(tls.nothing_to_read(&waker), Verdict::Go);
        std::thread::sleep(GOODBYE + Duration::from_millis(50));
        assert_eq!(tls.nothing_to_read(&waker), Verdict::End);
    }

    #[test]
    fn only_a_connection_without_a_byte_of_a_request_is_closed() {
        let all = Connections::new(limits());
        let (rest, begun) = (all.open(from("10.0.0.1")).unwrap(), all.open(from("10.0.0.2")).unwrap());
        begun.read(b"G");
        all.set_mode(Mode::Leaving);
        let waker = futures_util::task::noop_waker();
        assert_eq!(rest.nothing_to_read(&waker), Verdict::Go);
        all.set_mode(Mode::Closing);
        assert_eq!(rest.nothing_to_read(&waker), Verdict::End);
        assert_eq!(begun.nothing_to_read(&waker), Verdict::Go);
    }
}
