//! A downstream connection: how it came in, and what Pingora answered before we were asked.
//!
//! Pingora refuses malformed heads by itself, without a callback. The stream wrapper sees
//! such an answer go out while no request is in the path, and puts it on record.

use std::{
    fmt,
    net::IpAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
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

use crate::frames::Frames;

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
}

/// A request is in the path: its answer is ours to record.
pub(crate) struct InPath(ConnState);

impl ConnState {
    pub(crate) fn new(ingress: Ingress) -> Self {
        Self(Arc::new(Inner { ingress, busy: AtomicUsize::new(0) }))
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

    /// A request enters the path, and leaves it when what this returns is dropped.
    pub(crate) fn enter(&self) -> InPath {
        self.0.busy.fetch_add(1, Ordering::AcqRel);
        InPath(self.clone())
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

impl Drop for InPath {
    fn drop(&mut self) {
        self.0.0.busy.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A stream that notices answers nobody was asked about.
pub(crate) struct Watched {
    inner: Stream,
    state: ConnState,
    digest: Arc<ProxyDigest>,
    broker: Arc<Broker>,
    peer: Option<IpAddr>,
    /// What goes out on HTTP/2.
    frames: Option<Frames>,
}

impl Watched {
    /// `None` only where memory for a header cannot be had.
    pub(crate) fn new(inner: Stream, ingress: Ingress, broker: Arc<Broker>) -> Option<Self> {
        let state = ConnState::new(ingress);
        let response = Box::new(ResponseHeader::build(200, Some(0)).ok()?);
        let digest = Arc::new(ProxyDigest::new(response, Some(Box::new(state.clone()))));
        let frames = (inner.selected_alpn_proto() == Some(ALPN::H2)).then(Frames::default);
        let peer = peer_of(inner.get_socket_digest());
        Some(Self { inner, state, digest, broker, peer, frames })
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
            peer: self.peer,
            trace_id: None,
        });
    }
}

/// The status of an answer that refuses, from its first bytes.
fn refused(bytes: &[u8]) -> Option<u16> {
    let status = bytes.strip_prefix(b"HTTP/1.1 ")?.get(..3)?;
    std::str::from_utf8(status).ok()?.parse().ok().filter(|s| *s >= 400)
}

pub(crate) fn peer_of(digest: Option<Arc<SocketDigest>>) -> Option<IpAddr> {
    digest?.peer_addr()?.as_inet().map(|a| a.ip())
}

impl AsyncRead for Watched {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write(cx, buf);
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
        let written = Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
        if let Poll::Ready(Ok(taken)) = written {
            self.notice(bufs.iter().map(|b| &**b), taken);
        }
        written
    }
    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[async_trait]
impl Shutdown for Watched {
    async fn shutdown(&mut self) {
        self.inner.shutdown().await;
    }
}

impl UniqueID for Watched {
    fn id(&self) -> UniqueIDType {
        self.inner.id()
    }
}

impl Ssl for Watched {
    fn get_ssl_digest(&self) -> Option<Arc<SslDigest>> {
        self.inner.get_ssl_digest()
    }
    fn selected_alpn_proto(&self) -> Option<ALPN> {
        self.inner.selected_alpn_proto()
    }
}

impl GetTimingDigest for Watched {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        self.inner.get_timing_digest()
    }
    fn get_read_pending_time(&self) -> std::time::Duration {
        self.inner.get_read_pending_time()
    }
    fn get_write_pending_time(&self) -> std::time::Duration {
        self.inner.get_write_pending_time()
    }
}

impl GetProxyDigest for Watched {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        Some(self.digest.clone())
    }
}

impl GetSocketDigest for Watched {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        self.inner.get_socket_digest()
    }
}

#[async_trait]
impl Peek for Watched {
    async fn try_peek(&mut self, buf: &mut [u8]) -> std::io::Result<bool> {
        self.inner.try_peek(buf).await
    }
}

impl fmt::Debug for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Watched(..)")
    }
}
