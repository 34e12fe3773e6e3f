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
        GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, Stream, TimingDigest,
        UniqueID, UniqueIDType, raw_connect::ProxyDigest, tls::SslDigest,
    },
    server::ShutdownWatch,
};
use pingora_http::ResponseHeader;
use pingora_proxy::Session;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What is known of a connection for as long as it lives.
#[derive(Clone, Default)]
pub(crate) struct ConnState(Arc<Inner>);

#[derive(Default)]
struct Inner {
    /// The route whose own listener this is.
    route: Option<String>,
    /// Whether a request is in the path.
    busy: AtomicBool,
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

    /// A request is in the path: its answer is ours to record.
    pub(crate) fn enter(&self) {
        self.0.busy.store(true, Ordering::Release);
    }

    /// The request is over.
    pub(crate) fn leave(&self) {
        self.0.busy.store(false, Ordering::Release);
    }
}

/// Stands before the HTTP application of one listener.
pub(crate) struct Doorway<A> {
    pub(crate) inner: Arc<A>,
    pub(crate) broker: Arc<Broker>,
    /// The route whose own listener this is.
    pub(crate) route: Option<String>,
}

#[async_trait]
impl<A: ServerApp + Send + Sync + 'static> ServerApp for Doorway<A> {
    async fn process_new(self: &Arc<Self>, stream: Stream, shutdown: &ShutdownWatch) -> Option<Stream> {
        let stream = if stream.as_any().is::<Watched>() {
            stream
        } else {
            let state = ConnState(Arc::new(Inner { route: self.route.clone(), busy: AtomicBool::new(false) }));
            let response = Box::new(ResponseHeader::build(200, Some(0)).ok()?);
            let digest = Arc::new(ProxyDigest::new(response, Some(Box::new(state.clone()))));
            let peer = stream.get_socket_digest().and_then(|d| d.peer_addr().and_then(|a| a.as_inet().map(|a| a.ip())));
            Box::new(Watched { inner: stream, state, digest, broker: self.broker.clone(), peer })
        };
        self.inner.process_new(stream, shutdown).await
    }

    async fn cleanup(&self) {
        self.inner.cleanup().await;
    }
}

/// A stream that notices answers nobody was asked about.
struct Watched {
    inner: Stream,
    state: ConnState,
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

impl AsyncRead for Watched {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write(cx, buf);
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
        let written = Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
        if let (Poll::Ready(Ok(_)), Some(first)) = (&written, bufs.first()) {
            self.notice(first);
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
    fn selected_alpn_proto(&self) -> Option<pingora_core::protocols::ALPN> {
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
