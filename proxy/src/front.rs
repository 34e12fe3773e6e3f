//! Stands before the HTTP application of a listener: counts connections, tells tunnels from requests,
//! ends TLS, and lets whatever is HTTP in the end go the one way.

use std::{net::IpAddr, sync::Arc};

use aegis_broker::{Broker, admit::Door, refuse::Refusal};
use async_trait::async_trait;
use pingora_core::{
    apps::{HttpPersistentSettings, HttpServerApp, ServerApp},
    protocols::{ALPN, GetSocketDigest as _, Ssl as _, Stream, http::ServerSession, l4::stream::Stream as L4Stream},
    server::ShutdownWatch,
};

use crate::{
    caller::{Caller, Heard, Place, tells},
    conn::{Ingress, Watched},
    connect,
    connections::{Connections, Origin},
    dial::Dialer,
    sockets::Listener,
    tls::{NoTls, Tls},
};

/// One listener, or one connection that came by another process.
pub(crate) struct Doorway<A> {
    pub(crate) inner: Arc<A>,
    pub(crate) front: Arc<Front>,
    /// Where its connections come in; the client of each is seen when it comes.
    pub(crate) origin: Origin,
}

/// What the listeners share.
pub(crate) struct Front {
    pub(crate) broker: Arc<Broker>,
    pub(crate) dialer: Arc<Dialer>,
    pub(crate) tls: Tls,
    pub(crate) connections: Arc<Connections>,
}

#[async_trait]
impl<A: HttpServerApp + Send + Sync + 'static> ServerApp for Doorway<A> {
    /// Thousands wait here for a first byte: only then is room made for what may follow.
    async fn process_new(self: &Arc<Self>, stream: Stream, shutdown: &ShutdownWatch) -> Option<Stream> {
        let caller = self.take_in(*stream.into_any().downcast::<L4Stream>().ok()?)?;
        let heard = caller.hear(Vec::new(), |bytes| self.tells(bytes)).await?;
        Box::pin(self.receive(heard, shutdown)).await;
        None
    }

    // Pingora would end all waiting connections here, with whatever of a request had come in:
    // `Connections` does that by mode, and only where nothing has.
    async fn cleanup(&self) {}
}

impl<A: HttpServerApp + Send + Sync + 'static> Doorway<A> {
    /// `None` where there are too many already.
    fn take_in(&self, stream: L4Stream) -> Option<Caller> {
        let digest = stream.get_socket_digest();
        let mut origin = self.origin.clone();
        if let Some(digest) = digest {
            origin.peer = origin.peer.or_else(|| digest.peer_addr()?.as_inet().map(|a| a.ip()));
            origin.local = origin.local.or_else(|| digest.local_addr()?.as_inet().copied());
        }
        let peer = origin.peer;
        match self.front.connections.open(origin) {
            Some(life) => Some(Caller { stream, place: Place::new(life, self.front.broker.clone()) }),
            None => {
                self.too_many(peer);
                None
            }
        }
    }

    fn too_many(&self, peer: Option<IpAddr>) {
        let broker = &self.front.broker;
        broker.metrics.connections_ended.with_label_values(&["too_many"]).inc();
        broker.refuse(&Refusal {
            agent_id: None,
            route: self.own_route(),
            door: Door::Route,
            reason: "too_many_connections",
            detail: Some("the address has as many connections open as it may".into()),
            status: 503,
            peer,
            trace_id: None,
        });
    }

    /// Whether the first bytes of a connection say what it is.
    fn tells(&self, bytes: &[u8]) -> bool {
        match &self.origin.listener {
            Listener::Agents => tells(bytes, connect::CONNECT),
            Listener::Route(_) if self.takes_h2c() => tells(bytes, H2_PREFACE),
            Listener::Route(_) | Listener::Tls => !bytes.is_empty(),
        }
    }

    async fn receive(&self, heard: Heard, shutdown: &ShutdownWatch) {
        let h2c = self.takes_h2c() && heard.bytes.starts_with(H2_PREFACE);
        let came = match &self.origin.listener {
            Listener::Agents => Box::pin(connect::enter(&self.front, heard)).await,
            Listener::Route(name) => {
                let Heard { caller: Caller { mut stream, place }, bytes, .. } = heard;
                stream.rewind(&bytes);
                Some((Box::new(stream) as Stream, Ingress::Plain { route: Some(name.clone()) }, place))
            }
            Listener::Tls => Box::pin(self.front.accept_tls(heard)).await,
        };
        let Some((stream, ingress, place)) = came else { return };
        let Some(watched) = Watched::new(stream, ingress, place, self.front.broker.clone()) else { return };
        if h2c || watched.selected_alpn_proto() == Some(ALPN::H2) {
            watched.life().multiplex();
            self.inner.process_new(Box::new(watched), shutdown).await;
        } else {
            self.http1(watched, shutdown).await;
        }
    }

    /// One request after another. Between two of them nothing is held but the stream.
    async fn http1(&self, mut stream: Watched, shutdown: &ShutdownWatch) {
        let mut settings: Option<HttpPersistentSettings> = None;
        while stream.roused().await {
            let mut session = ServerSession::new_http1(Box::new(stream));
            match settings.take() {
                None => session.set_keepalive(Some(self.front.connections.limits().keepalive.as_secs())),
                Some(settings) => settings.apply_to_session(&mut session),
            }
            let Some(reused) = self.inner.process_new_http(session, shutdown).await else { return };
            let (same, kept) = reused.consume();
            let Ok(same) = same.into_any().downcast::<Watched>() else { return };
            (stream, settings) = (*same, kept);
        }
    }

    fn takes_h2c(&self) -> bool {
        self.inner.server_options().is_some_and(|options| options.h2c)
    }

    fn own_route(&self) -> Option<&str> {
        match &self.origin.listener {
            Listener::Route(name) => Some(name),
            Listener::Agents | Listener::Tls => None,
        }
    }
}

impl Front {
    async fn accept_tls(&self, heard: Heard) -> Option<(Stream, Ingress, Place)> {
        let Heard { caller: Caller { mut stream, place }, bytes, .. } = heard;
        stream.rewind(&bytes);
        place.takes_root();
        place.greeting();
        let (local, peer) = (place.origin().local, place.origin().peer);
        let accepted = tokio::select! {
            biased;
            accepted = self.tls.accept(stream, local) => accepted,
            verdict = place.forsaken() => {
                place.note(&verdict);
                return None;
            }
        };
        match accepted {
            Ok((stream, ingress)) => {
                place.rests();
                Some((Box::new(stream), ingress, place))
            }
            Err(error) => {
                self.no_tls(
                    error,
                    &Refusal {
                        agent_id: None,
                        route: None,
                        door: Door::Route,
                        reason: "",
                        detail: None,
                        status: 421,
                        peer,
                        trace_id: None,
                    },
                );
                None
            }
        }
    }

    /// Puts on record that a connection came to nothing; `about` says whose it was.
    pub(crate) fn no_tls(&self, error: NoTls, about: &Refusal<'_>) {
        let (reason, detail) = match error {
            NoTls::Gone(why) => {
                tracing::debug!(why, route = about.route, "the client ended the handshake");
                return;
            }
            NoTls::Refused(reason, words) => (reason, words),
            NoTls::NoCertificate(error) => {
                tracing::error!(%error, "no certificate can be issued");
                ("no_certificate", "no certificate can be issued".to_owned())
            }
        };
        self.broker.refuse(&Refusal {
            agent_id: about.agent_id,
            route: about.route,
            door: about.door,
            reason,
            detail: Some(detail),
            status: about.status,
            peer: about.peer,
            trace_id: about.trace_id.clone(),
        });
    }
}

const H2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
