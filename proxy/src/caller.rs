//! A connection before it is HTTP: it waits for its first bytes, and costs little while it does.

use std::{
    future::poll_fn,
    mem::MaybeUninit,
    ops::Deref,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use aegis_broker::Broker;
use pingora_core::protocols::{Stream, l4::stream::Stream as L4Stream};
use tokio::io::{AsyncRead as _, ReadBuf};

use crate::{
    connections::{Life, Verdict},
    relay::Moved,
};

/// A connection's place among all; given up when this is dropped.
pub(crate) struct Place {
    life: Arc<Life>,
    broker: Arc<Broker>,
}

impl Place {
    pub(crate) fn new(life: Arc<Life>, broker: Arc<Broker>) -> Self {
        broker.metrics.connections.inc();
        Self { life, broker }
    }

    pub(crate) fn life(&self) -> &Arc<Life> {
        &self.life
    }

    /// Counts why a connection ends.
    pub(crate) fn note(&self, verdict: &Verdict) {
        let reason = match verdict {
            Verdict::TooIdle => "keepalive_timeout",
            Verdict::TimedOut => "head_timeout",
            Verdict::Go | Verdict::End | Verdict::Move(_) => return,
        };
        self.broker.metrics.connections_ended.with_label_values(&[reason]).inc();
    }

    /// Lets the connection go on in the successor, which is given what was `seen` of it first.
    pub(crate) fn relay(&self, stream: Stream, seen: Vec<u8>) {
        self.life.end();
        let moved = Moved { stream, seen, origin: self.life.origin().clone() };
        tokio::spawn(moved.relay(self.life.all().clone()));
    }
}

impl Deref for Place {
    type Target = Life;

    fn deref(&self) -> &Life {
        &self.life
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.life.end();
        self.broker.metrics.connections.dec();
    }
}

/// A connection of whose request nothing is decided.
pub(crate) struct Caller {
    pub(crate) stream: L4Stream,
    pub(crate) place: Place,
}

/// What a caller said.
pub(crate) struct Heard {
    pub(crate) caller: Caller,
    pub(crate) bytes: Vec<u8>,
    /// Nothing more comes, or not in time.
    pub(crate) ended: bool,
}

impl Caller {
    /// Reads behind `bytes` until they are `enough`. `None` where nothing came, or the connection ends here.
    pub(crate) async fn hear(mut self, mut bytes: Vec<u8>, enough: impl Fn(&[u8]) -> bool) -> Option<Heard> {
        while !enough(&bytes) {
            let late = match poll_fn(|cx| self.poll_more(&mut bytes, cx)).await {
                Ok(true) => continue,
                Ok(false) => true,
                Err(Verdict::Move(_)) => {
                    let Self { stream, place } = self;
                    place.relay(Box::new(stream), bytes);
                    return None;
                }
                Err(verdict) => {
                    self.place.note(&verdict);
                    verdict == Verdict::TimedOut
                }
            };
            return (late && !bytes.is_empty()).then_some(Heard { caller: self, bytes, ended: true });
        }
        Some(Heard { caller: self, bytes, ended: false })
    }

    /// `false` at the end of the stream.
    fn poll_more(&mut self, bytes: &mut Vec<u8>, cx: &mut Context<'_>) -> Poll<Result<bool, Verdict>> {
        match self.place.before_read() {
            Verdict::Go => {}
            verdict => return Poll::Ready(Err(verdict)),
        }
        let mut space = [MaybeUninit::uninit(); PIECE];
        let mut piece = ReadBuf::uninit(&mut space);
        match Pin::new(&mut self.stream).poll_read(cx, &mut piece) {
            Poll::Ready(Ok(())) if !piece.filled().is_empty() => {
                self.place.begun();
                bytes.extend_from_slice(piece.filled());
                Poll::Ready(Ok(true))
            }
            Poll::Ready(_) => Poll::Ready(Ok(false)),
            Poll::Pending => match self.place.nothing_to_read(cx.waker()) {
                Verdict::Go => Poll::Pending,
                verdict => Poll::Ready(Err(verdict)),
            },
        }
    }
}

/// Whether the first bytes of a connection say if it starts with `sign`.
pub(crate) fn tells(bytes: &[u8], sign: &[u8]) -> bool {
    let known = bytes.len().min(sign.len());
    known == sign.len() || bytes.get(..known) != sign.get(..known)
}

/// As much as most heads are.
pub(crate) const PIECE: usize = 4096;
