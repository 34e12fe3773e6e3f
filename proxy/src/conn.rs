//! A downstream connection: how it came in, and what Pingora answered before we were asked.
//!
//! Pingora refuses malformed heads by itself, without a callback. The stream wrapper sees
//! such an answer go out while no request is in the path, and puts it on record.

use std::{
    fmt,
    future::poll_fn,
    mem::MaybeUninit,
    net::IpAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use aegis_broker::{Broker, admit::Door, refuse::Refusal};
use async_trait::async_trait;
use pingora_core::protocols::{
    ALPN, GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, Stream, TimingDigest,
    UniqueID, UniqueIDType, raw_connect::ProxyDigest, tls::SslDigest,
};
use pingora_http::ResponseHeader;
use pingora_proxy::Session;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use zeroize::Zeroizing;

use crate::{
    caller::{PIECE, Place},
    connections::{Life, Mode, Verdict},
    frames::Frames,
};

/// How a connection came in.
pub(crate) enum Ingress {
    /// In the clear; the route whose own listener it is.
    Plain { route: Option<String> },
    /// TLS in a tunnel of the forward proxy, ended by us.
    Tunnel(Tunnel),
    /// The TLS listener, under the name of a host that a route has; the listener's port.
    Steered { host: String, port: u16 },
    /// The TLS listener, under a name of the gateway's own, or none.
    Named { name: Option<String> },
}

/// Where a tunnel leads.
pub(crate) struct Tunnel {
    pub(crate) host: String,
    pub(crate) port: u16,
    /// The token that opened it. Looked up anew for each request inside.
    pub(crate) token: Option<Zeroizing<String>>,
}

impl Default for Ingress {
    fn default() -> Self {
        Self::Plain { route: None }
    }
}

impl Ingress {
    /// For leaves and policies.
    pub(crate) fn door(&self) -> Door {
        match self {
            Self::Tunnel(_) => Door::Connect,
            Self::Plain { .. } | Self::Steered { .. } | Self::Named { .. } => Door::Route,
        }
    }

    /// What URLs of the gateway start with here.
    pub(crate) fn scheme(&self) -> &'static str {
        match self {
            Self::Plain { .. } => "http",
            Self::Tunnel(_) | Self::Steered { .. } | Self::Named { .. } => "https",
        }
    }
}

/// What is known of a connection for as long as it lives.
#[derive(Clone, Default)]
pub(crate) struct ConnState(Arc<Inner>);

#[derive(Default)]
struct Inner {
    ingress: Ingress,
    /// Requests in the path; HTTP/2 may have several.
    busy: AtomicUsize,
    /// How far its request has come.
    life: Option<Arc<Life>>,
}

/// A request is in the path: its answer is ours to record.
pub(crate) struct InPath {
    conn: ConnState,
    sent: bool,
}

impl ConnState {
    pub(crate) fn new(ingress: Ingress, life: Arc<Life>) -> Self {
        Self(Arc::new(Inner { ingress, busy: AtomicUsize::new(0), life: Some(life) }))
    }

    /// The state that the listener put on the stream.
    pub(crate) fn of(session: &Session) -> Self {
        let digest = session.digest().and_then(|d| d.proxy_digest.as_ref());
        let found = digest.and_then(|p| p.user_data.as_ref()).and_then(|d| d.downcast_ref::<Self>());
        found.cloned().unwrap_or_default()
    }

    pub(crate) fn ingress(&self) -> &Ingress {
        &self.0.ingress
    }

    /// The client, also where another process took the connection in.
    pub(crate) fn peer(&self) -> Option<IpAddr> {
        self.life().and_then(|life| life.origin().peer)
    }

    /// A request enters the path, and leaves it when what this returns is dropped.
    pub(crate) fn enter(&self) -> InPath {
        self.0.busy.fetch_add(1, Ordering::AcqRel);
        if let Some(life) = self.life() {
            life.enter();
        }
        InPath { conn: self.clone(), sent: false }
    }

    /// It is decided, answered or refused next: it cannot go to a successor any more.
    pub(crate) fn judging(&self) {
        if let Some(life) = self.life() {
            life.judging();
        }
    }

    /// Whether it went to a successor while it was read.
    pub(crate) fn moved(&self) -> bool {
        self.life().is_some_and(Life::moved)
    }

    /// Whether the next answer is the connection's last.
    pub(crate) fn leaving(&self) -> bool {
        self.life().is_some_and(Life::leaving)
    }

    /// Whether this process stops serving, or hands over.
    pub(crate) fn stops(&self) -> bool {
        self.life().is_some_and(|life| life.all().mode() != Mode::Serving)
    }

    /// Whether the process ends now, whatever is in flight.
    pub(crate) fn is_over(&self) -> bool {
        self.life().is_some_and(|life| life.all().mode() == Mode::Ending)
    }

    /// How long a write may wait for the client.
    pub(crate) fn write_timeout(&self) -> Option<Duration> {
        self.life().map(|life| life.limits().write)
    }

    fn life(&self) -> Option<&Life> {
        self.0.life.as_deref()
    }

    fn is_busy(&self) -> bool {
        self.0.busy.load(Ordering::Acquire) > 0
    }

    /// The route whose own listener this is.
    fn route(&self) -> Option<&str> {
        match &self.0.ingress {
            Ingress::Plain { route } => route.as_deref(),
            Ingress::Tunnel(_) | Ingress::Steered { .. } | Ingress::Named { .. } => None,
        }
    }
}

impl InPath {
    /// It is permitted, and nothing but its outcome is still to be recorded.
    pub(crate) fn sent(&mut self) {
        self.sent = true;
        if let Some(life) = self.conn.life() {
            life.sent();
        }
    }
}

impl Drop for InPath {
    fn drop(&mut self) {
        self.conn.0.busy.fetch_sub(1, Ordering::AcqRel);
        if let Some(life) = self.conn.life() {
            life.leave(self.sent);
        }
    }
}

/// A stream that notices answers nobody was asked about.
pub(crate) struct Watched {
    /// `None` once it went to a successor.
    inner: Option<Stream>,
    place: Place,
    /// First bytes of a request that nobody has asked for yet.
    early: Vec<u8>,
    state: ConnState,
    digest: Arc<ProxyDigest>,
    broker: Arc<Broker>,
    /// What goes out on HTTP/2.
    frames: Option<Frames>,
}

impl Watched {
    /// `None` only where memory for a header cannot be had.
    pub(crate) fn new(inner: Stream, ingress: Ingress, place: Place, broker: Arc<Broker>) -> Option<Self> {
        let state = ConnState::new(ingress, place.life().clone());
        let response = Box::new(ResponseHeader::build(200, Some(0)).ok()?);
        let digest = Arc::new(ProxyDigest::new(response, Some(Box::new(state.clone()))));
        let frames = (inner.selected_alpn_proto() == Some(ALPN::H2)).then(Frames::default);
        Some(Self { inner: Some(inner), place, early: Vec::new(), state, digest, broker, frames })
    }

    pub(crate) fn life(&self) -> &Life {
        &self.place
    }

    /// Waits for the first bytes of a request; `false` where none comes, or not to this process.
    pub(crate) async fn roused(&mut self) -> bool {
        let early = poll_fn(|cx| {
            let mut space = [MaybeUninit::uninit(); PIECE];
            let mut piece = ReadBuf::uninit(&mut space);
            Pin::new(&mut *self).poll_read(cx, &mut piece).map_ok(|()| piece.filled().to_vec())
        });
        self.early = early.await.unwrap_or_default();
        !self.early.is_empty()
    }

    /// Carries out what is to become of the connection; `None` where it just goes on.
    fn carry_out(&mut self, verdict: Verdict) -> Option<std::io::Result<()>> {
        self.place.note(&verdict);
        match verdict {
            Verdict::Go => return None,
            Verdict::End | Verdict::TooIdle => {}
            Verdict::TimedOut => return Some(Err(std::io::ErrorKind::TimedOut.into())),
            Verdict::Move(seen) => {
                self.early = Vec::new();
                if let Some(stream) = self.inner.take() {
                    self.place.relay(stream, seen);
                }
            }
        }
        Some(Ok(()))
    }

    fn stream(&mut self) -> std::io::Result<&mut Stream> {
        self.inner.as_mut().ok_or_else(|| std::io::ErrorKind::BrokenPipe.into())
    }

    /// Looks at what went out: `taken` bytes of `parts`.
    fn notice<'b>(&mut self, parts: impl Iterator<Item = &'b [u8]> + Clone, taken: usize) {
        let detail = match &mut self.frames {
            Some(frames) => {
                frames.refused(parts, taken, self.state.is_busy()).map(|status| (status, "malformed HTTP/2"))
            }
            None if self.state.is_busy() => None,
            None => parts.into_iter().next().and_then(refused).map(|status| (status, "malformed HTTP/1.1")),
        };
        let Some((status, detail)) = detail else { return };
        self.broker.refuse(&Refusal {
            agent_id: None,
            route: self.state.route(),
            door: self.state.ingress().door(),
            reason: "bad_framing",
            detail: Some(format!("the bytes are not a well-formed request: {detail}")),
            status,
            peer: self.state.peer(),
            trace_id: None,
        });
    }
}

/// The status of an answer that refuses, from its first bytes.
fn refused(bytes: &[u8]) -> Option<u16> {
    let status = bytes.strip_prefix(b"HTTP/1.1 ")?.get(..3)?;
    std::str::from_utf8(status).ok()?.parse().ok().filter(|s| *s >= 400)
}

impl AsyncRead for Watched {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        let this = self.get_mut();
        let verdict = this.place.before_read();
        if let Some(end) = this.carry_out(verdict) {
            return Poll::Ready(end);
        }
        if !this.early.is_empty() {
            let fits = this.early.len().min(buf.remaining());
            buf.put_slice(this.early.get(..fits).unwrap_or_default());
            // Nothing is kept for a connection that waits.
            this.early = this.early.split_off(fits);
            return Poll::Ready(Ok(()));
        }
        let Some(inner) = &mut this.inner else { return Poll::Ready(Ok(())) };
        let before = buf.filled().len();
        match Pin::new(inner).poll_read(cx, buf) {
            Poll::Pending => {
                let verdict = this.place.nothing_to_read(cx.waker());
                this.carry_out(verdict).map_or(Poll::Pending, Poll::Ready)
            }
            Poll::Ready(read) => {
                this.place.read(buf.filled().get(before..).unwrap_or_default());
                Poll::Ready(read)
            }
        }
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        let written = Pin::new(self.stream()?).poll_write(cx, buf);
        if let Poll::Ready(Ok(taken)) = written {
            self.notice(std::iter::once(buf), taken);
        }
        written
    }
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        let written = Pin::new(self.stream()?).poll_write_vectored(cx, bufs);
        if let Poll::Ready(Ok(taken)) = written {
            self.notice(bufs.iter().map(|b| &**b), taken);
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
    fn get_read_pending_time(&self) -> Duration {
        self.inner.as_ref().map(|inner| inner.get_read_pending_time()).unwrap_or_default()
    }
    fn get_write_pending_time(&self) -> Duration {
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
