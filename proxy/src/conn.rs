//! A downstream connection: which listener it came to, and what Pingora answered before we were asked.
//!
//! Pingora refuses malformed heads by itself, without a callback. The stream wrapper sees
//! such an answer go out while no request is in the path, and puts it on record.

use std::{
    fmt,
    net::IpAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use aegis_broker::{Broker, admit::Door, refuse::Refusal};
use async_trait::async_trait;
use pingora_core::{
    apps::ServerApp,
    protocols::{
        ALPN, GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, Stream,
        TimingDigest, UniqueID, UniqueIDType, raw_connect::ProxyDigest, tls::SslDigest,
    },
    server::ShutdownWatch,
};
use pingora_http::ResponseHeader;
use pingora_proxy::Session;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::{
    connections::{Connections, Life, Origin, Verdict},
    relay::Moved,
};

/// What is known of a connection for as long as it lives.
#[derive(Clone, Default)]
pub(crate) struct ConnState(Arc<Inner>);

#[derive(Default)]
struct Inner {
    /// The route whose own listener this is.
    route: Option<String>,
    /// Whether a request is in the path.
    busy: AtomicBool,
    /// How far its request has come.
    life: Option<Arc<Life>>,
}

impl ConnState {
    /// The state that the listener put on the stream.
    pub(crate) fn of(session: &Session) -> Self {
        let digest = session.digest().and_then(|d| d.proxy_digest.as_ref());
        let found = digest.and_then(|p| p.user_data.as_ref()).and_then(|d| d.downcast_ref::<Self>());
        found.cloned().unwrap_or_default()
    }

    /// The route whose own listener this is.
    pub(crate) fn route(&self) -> Option<&str> {
        self.0.route.as_deref()
    }

    /// The client, also where another process took the connection in.
    pub(crate) fn peer(&self) -> Option<IpAddr> {
        self.0.life.as_ref().and_then(|life| life.origin().peer)
    }

    /// A request is in the path: its answer is ours to record.
    pub(crate) fn enter(&self) {
        self.0.busy.store(true, Ordering::Release);
        if let Some(life) = &self.0.life {
            life.enter();
        }
    }

    /// It is decided, answered or refused next: it cannot go to a successor any more.
    pub(crate) fn judging(&self) {
        if let Some(life) = &self.0.life {
            life.judging();
        }
    }

    /// It is permitted, and nothing but its outcome is still to be recorded.
    pub(crate) fn sent(&self) {
        if let Some(life) = &self.0.life {
            life.sent();
        }
    }

    /// Whether it went to a successor while it was read.
    pub(crate) fn moved(&self) -> bool {
        self.0.life.as_ref().is_some_and(|life| life.moved())
    }

    /// Whether the next answer is the connection's last.
    pub(crate) fn leaving(&self) -> bool {
        self.0.life.as_ref().is_some_and(|life| life.leaving())
    }

    /// How long a write may wait for the client.
    pub(crate) fn write_timeout(&self) -> Option<std::time::Duration> {
        self.0.life.as_ref().map(|life| life.limits().write)
    }

    /// The request is over; `was_sent` as told by [`ConnState::sent`].
    pub(crate) fn leave(&self, was_sent: bool) {
        self.0.busy.store(false, Ordering::Release);
        if let Some(life) = &self.0.life {
            life.leave(was_sent);
        }
    }
}

/// Stands before the HTTP application of one listener.
pub(crate) struct Doorway<A> {
    pub(crate) inner: Arc<A>,
    pub(crate) broker: Arc<Broker>,
    pub(crate) connections: Arc<Connections>,
    /// Where its connections come in; the client of each is seen when it comes.
    pub(crate) origin: Origin,
}

#[async_trait]
impl<A: ServerApp + Send + Sync + 'static> ServerApp for Doorway<A> {
    async fn process_new(self: &Arc<Self>, stream: Stream, shutdown: &ShutdownWatch) -> Option<Stream> {
        let stream = if stream.as_any().is::<Watched>() {
            stream
        } else {
            let response = Box::new(ResponseHeader::build(200, Some(0)).ok()?);
            let seen = stream.get_socket_digest().and_then(|d| d.peer_addr().and_then(|a| a.as_inet().map(|a| a.ip())));
            let peer = self.origin.peer.or(seen);
            let multiplexed = stream.selected_alpn_proto() == Some(ALPN::H2);
            let Some(life) = self.connections.open(Origin { peer, ..self.origin.clone() }, multiplexed) else {
                self.too_many(peer);
                return None;
            };
            let inner =
                Inner { route: self.origin.route.clone(), busy: AtomicBool::new(false), life: Some(life.clone()) };
            let state = ConnState(Arc::new(inner));
            let digest = Arc::new(ProxyDigest::new(response, Some(Box::new(state.clone()))));
            self.broker.metrics.connections.inc();
            Box::new(Watched { inner: Some(stream), state, life, digest, broker: self.broker.clone(), peer })
        };
        self.inner.process_new(stream, shutdown).await
    }

    // Pingora would end all waiting connections here, with whatever of a request had come in:
    // `Connections` does that by mode, and only where nothing has.
    async fn cleanup(&self) {}
}

impl<A> Doorway<A> {
    fn too_many(&self, peer: Option<IpAddr>) {
        self.broker.metrics.connections_ended.with_label_values(&["too_many"]).inc();
        self.broker.refuse(&Refusal {
            agent_id: None,
            route: self.origin.route.as_deref(),
            door: Door::Route,
            reason: "too_many_connections",
            detail: Some("the address has as many connections open as it may".into()),
            status: 503,
            peer,
            trace_id: None,
        });
    }
}

/// A stream that notices answers nobody was asked about.
struct Watched {
    /// `None` once it went to a successor.
    inner: Option<Stream>,
    state: ConnState,
    life: Arc<Life>,
    digest: Arc<ProxyDigest>,
    broker: Arc<Broker>,
    peer: Option<IpAddr>,
}

impl Watched {
    fn notice(&self, bytes: &[u8]) {
        if self.state.0.busy.load(Ordering::Acquire) {
            return;
        }
        let Some(status) = bytes.strip_prefix(b"HTTP/1.1 ").and_then(|rest| rest.get(..3)) else { return };
        let Some(status) = std::str::from_utf8(status).ok().and_then(|s| s.parse().ok()).filter(|s| *s >= 400) else {
            return;
        };
        self.broker.refuse(&Refusal {
            agent_id: None,
            route: self.state.route(),
            door: Door::Route,
            reason: "bad_framing",
            detail: Some("the bytes are not a well-formed HTTP/1.1 request".into()),
            status,
            peer: self.peer,
            trace_id: None,
        });
    }
}

impl Watched {
    /// Carries out what is to become of the connection; `None` where it just goes on.
    fn carry_out(&mut self, verdict: Verdict) -> Option<std::io::Result<()>> {
        let ended = |reason| self.broker.metrics.connections_ended.with_label_values(&[reason]).inc();
        match verdict {
            Verdict::Go => return None,
            Verdict::End => {}
            Verdict::TooIdle => ended("keepalive_timeout"),
            Verdict::TimedOut => {
                ended("head_timeout");
                return Some(Err(std::io::ErrorKind::TimedOut.into()));
            }
            Verdict::Move(seen) => {
                self.life.end();
                if let Some(stream) = self.inner.take() {
                    let moved = Moved { stream, seen, origin: self.life.origin().clone() };
                    tokio::spawn(moved.relay(self.life.all().clone()));
                }
            }
        }
        Some(Ok(()))
    }

    fn stream(&mut self) -> std::io::Result<&mut Stream> {
        self.inner.as_mut().ok_or_else(|| std::io::ErrorKind::BrokenPipe.into())
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.life.end();
        self.broker.metrics.connections.dec();
    }
}

impl AsyncRead for Watched {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        let this = self.get_mut();
        let verdict = this.life.before_read();
        if let Some(end) = this.carry_out(verdict) {
            return Poll::Ready(end);
        }
        let Some(inner) = &mut this.inner else { return Poll::Ready(Ok(())) };
        let before = buf.filled().len();
        match Pin::new(inner).poll_read(cx, buf) {
            Poll::Pending => {
                let verdict = this.life.nothing_to_read(cx.waker());
                this.carry_out(verdict).map_or(Poll::Pending, Poll::Ready)
            }
            Poll::Ready(read) => {
                this.life.read(buf.filled().get(before..).unwrap_or_default());
                Poll::Ready(read)
            }
        }
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        let written = Pin::new(self.stream()?).poll_write(cx, buf);
        if let Poll::Ready(Ok(_)) = written {
            self.notice(buf);
        }
        written
    }
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        let written = Pin::new(self.stream()?).poll_write_vectored(cx, bufs);
        if let (Poll::Ready(Ok(_)), Some(first)) = (&written, bufs.first()) {
            self.notice(first);
        }
        written
    }
    fn is_write_vectored(&self) -> bool {
        self.inner.as_ref().is_some_and(|inner| inner.is_write_vectored())
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(self.stream()?).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        self.inner.as_mut().map_or(Poll::Ready(Ok(())), |inner| Pin::new(inner).poll_shutdown(cx))
    }
}

#[async_trait]
impl Shutdown for Watched {
    async fn shutdown(&mut self) {
        if let Some(inner) = &mut self.inner {
            inner.shutdown().await;
        }
    }
}

impl UniqueID for Watched {
    fn id(&self) -> UniqueIDType {
        self.inner.as_ref().map_or(0, |inner| inner.id())
    }
}

impl Ssl for Watched {
    fn get_ssl_digest(&self) -> Option<Arc<SslDigest>> {
        self.inner.as_ref()?.get_ssl_digest()
    }
    fn selected_alpn_proto(&self) -> Option<ALPN> {
        self.inner.as_ref()?.selected_alpn_proto()
    }
}

impl GetTimingDigest for Watched {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        self.inner.as_ref().map(|inner| inner.get_timing_digest()).unwrap_or_default()
    }
    fn get_read_pending_time(&self) -> std::time::Duration {
        self.inner.as_ref().map(|inner| inner.get_read_pending_time()).unwrap_or_default()
    }
    fn get_write_pending_time(&self) -> std::time::Duration {
        self.inner.as_ref().map(|inner| inner.get_write_pending_time()).unwrap_or_default()
    }
}

impl GetProxyDigest for Watched {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        Some(self.digest.clone())
    }
}

impl GetSocketDigest for Watched {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        self.inner.as_ref()?.get_socket_digest()
    }
}

#[async_trait]
impl Peek for Watched {
    async fn try_peek(&mut self, buf: &mut [u8]) -> std::io::Result<bool> {
        match &mut self.inner {
            Some(inner) => inner.try_peek(buf).await,
            None => Ok(false),
        }
    }
}

impl fmt::Debug for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Watched(..)")
    }
}
