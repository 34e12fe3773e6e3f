//! Stands before the HTTP application of a listener: tells tunnels from requests, ends TLS, and lets
//! whatever is HTTP in the end go the one way.

use std::sync::Arc;

use aegis_broker::{Broker, admit::Door, refuse::Refusal};
use async_trait::async_trait;
use pingora_core::{
    apps::ServerApp,
    protocols::{GetSocketDigest as _, Stream, l4::stream::Stream as L4Stream},
    server::ShutdownWatch,
};

use crate::{
    conn::{Ingress, Watched, peer_of},
    connect,
    dial::Dialer,
    tls::{NoTls, Tls},
};

/// One listener.
pub(crate) struct Doorway<A> {
    pub(crate) inner: Arc<A>,
    pub(crate) front: Arc<Front>,
    pub(crate) listener: Listener,
}

/// Whose a listener is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Listener {
    /// The agents' door, the forward proxy included.
    Agents,
    /// A route's own.
    Route(String),
    /// TLS, by SNI.
    Tls,
}

/// What the listeners share.
pub(crate) struct Front {
    pub(crate) broker: Arc<Broker>,
    pub(crate) dialer: Arc<Dialer>,
    pub(crate) tls: Tls,
}

#[async_trait]
impl<A: ServerApp + Send + Sync + 'static> ServerApp for Doorway<A> {
    async fn process_new(self: &Arc<Self>, stream: Stream, shutdown: &ShutdownWatch) -> Option<Stream> {
        if !stream.as_any().is::<L4Stream>() {
            return self.inner.process_new(stream, shutdown).await;
        }
        let stream = *stream.into_any().downcast::<L4Stream>().ok()?;
        let (stream, ingress) = match &self.listener {
            Listener::Agents => connect::enter(&self.front, stream, shutdown).await?,
            Listener::Route(name) => (Box::new(stream) as Stream, Ingress::Plain { route: Some(name.clone()) }),
            Listener::Tls => self.front.accept_tls(stream).await?,
        };
        let watched = Watched::new(stream, ingress, self.front.broker.clone())?;
        self.inner.process_new(Box::new(watched), shutdown).await
    }

    async fn cleanup(&self) {
        self.inner.cleanup().await;
    }
}

impl Front {
    async fn accept_tls(&self, stream: L4Stream) -> Option<(Stream, Ingress)> {
        let digest = stream.get_socket_digest();
        let local = digest.as_ref().and_then(|d| d.local_addr().and_then(|a| a.as_inet().copied()));
        let peer = peer_of(digest);
        match self.tls.accept(stream, local).await {
            Ok((stream, ingress)) => Some((Box::new(stream), ingress)),
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
