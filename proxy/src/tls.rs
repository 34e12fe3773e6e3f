//! TLS that the gateway ends: in tunnels of the forward proxy, and on a listener of its own.

mod own;

use std::{
    net::IpAddr,
    sync::{Arc, OnceLock},
    time::Duration,
};

use aegis_broker::{Broker, hosts::Spoken, snapshot::Snapshot};
use pingora_core::{listeners::tls::Acceptor, protocols::l4::stream::Stream as L4Stream, protocols::tls::TlsStream};
use rustls::{
    ServerConfig,
    crypto::ring,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use tokio::{io::AsyncReadExt as _, time::timeout};

use crate::{
    ca::{Authority, CaError},
    conn::Ingress,
};
pub use own::OwnCertificate;

/// Ends TLS with certificates of ours.
pub(crate) struct Tls {
    base: ServerConfig,
    authority: Arc<Authority>,
    own: Option<Arc<OwnCertificate>>,
    broker: Arc<Broker>,
}

/// Why there is no TLS.
pub(crate) enum NoTls {
    /// The client went away, or did not like our certificate: nothing was asked for.
    Gone(String),
    /// Refused: a stable code, and words.
    Refused(&'static str, String),
    /// No certificate can be had.
    NoCertificate(CaError),
}

impl Tls {
    pub(crate) fn new(
        authority: Arc<Authority>,
        own: Option<Arc<OwnCertificate>>,
        broker: Arc<Broker>,
    ) -> Result<Self, rustls::Error> {
        let mut base = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(Nobody));
        base.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        // Stateless resumption: nothing is kept for a client that may not come back.
        base.ticketer = ring::Ticketer::new()?;
        Ok(Self { base, authority, own, broker })
    }

    /// What a tunnel to `host` is answered with. Before the tunnel opens, so that a client learns in time.
    pub(crate) async fn certificate(&self, snapshot: &Snapshot, host: &str) -> Result<Arc<CertifiedKey>, CaError> {
        self.authority.cover(snapshot).await?;
        self.authority.leaf(host)
    }

    /// Ends the TLS of a tunnel to `host`: SNI must name it, or the host be an address.
    pub(crate) async fn terminate(
        &self,
        stream: L4Stream,
        host: &str,
        certificate: Arc<CertifiedKey>,
    ) -> Result<TlsStream<L4Stream>, NoTls> {
        let chosen = Arc::new(OnceLock::new());
        let by_name = host.parse::<IpAddr>().is_err();
        let resolver = ForTunnel { host: host.to_owned(), by_name, certificate, chosen: chosen.clone() };
        self.handshake(stream, Arc::new(resolver), || chosen.get().copied()).await
    }

    /// Ends the TLS of a connection to our own listener, and tells under which name it came.
    pub(crate) async fn accept(
        &self,
        stream: L4Stream,
        local: Option<std::net::SocketAddr>,
    ) -> Result<(TlsStream<L4Stream>, Ingress), NoTls> {
        let snapshot = self.broker.snapshot();
        self.authority.cover(&snapshot).await.map_err(NoTls::NoCertificate)?;
        let chosen = Arc::new(OnceLock::new());
        let resolver = ByName {
            snapshot,
            authority: self.authority.clone(),
            own: self.own.clone(),
            local: local.map(|a| a.ip().to_canonical()),
            chosen: chosen.clone(),
        };
        let refused = || match chosen.get() {
            Some(Err(why)) => Some(*why),
            Some(Ok(_)) | None => None,
        };
        let stream = self.handshake(stream, Arc::new(resolver), refused).await?;
        let port = local.map_or(443, |a| a.port());
        match chosen.get() {
            Some(Ok(Name::Routed(host))) => Ok((stream, Ingress::Steered { host: host.clone(), port })),
            Some(Ok(Name::Ours(name))) => Ok((stream, Ingress::Named { name: name.clone() })),
            Some(Err(_)) | None => Err(NoTls::Refused("bad_tls", "no certificate was chosen".into())),
        }
    }

    async fn handshake(
        &self,
        mut stream: L4Stream,
        resolver: Arc<dyn ResolvesServerCert>,
        refused: impl Fn() -> Option<&'static str>,
    ) -> Result<TlsStream<L4Stream>, NoTls> {
        let mut first = [0; 1];
        match timeout(HANDSHAKE, stream.read(&mut first)).await {
            Ok(Ok(1)) => stream.rewind(&first),
            Ok(_) => return Err(NoTls::Gone("closed before the first byte".into())),
            Err(_) => return Err(NoTls::Gone("nothing was said".into())),
        }
        if first != [HANDSHAKE_RECORD] {
            return Err(NoTls::Refused("not_tls", "what was sent is not TLS".into()));
        }
        let mut config = self.base.clone();
        config.cert_resolver = resolver;
        let acceptor = Acceptor::from_server_config(Arc::new(config));
        match timeout(HANDSHAKE, acceptor.tls_handshake(stream)).await {
            Ok(Ok(stream)) => Ok(stream),
            Err(_) => Err(NoTls::Refused("tls_timeout", "the handshake took too long".into())),
            Ok(Err(error)) => match refused() {
                Some(reason) => Err(NoTls::Refused(reason, words(reason).to_owned())),
                None => Err(failure(&error.to_string())),
            },
        }
    }
}

/// A client that goes away, or says by an alert that it does not trust us, asked for nothing.
fn failure(text: &str) -> NoTls {
    let why = text.rsplit("tls connect error: ").next().unwrap_or(text).chars().take(200).collect::<String>();
    if why.contains("received fatal alert") || why.contains("eof") || why.contains("reset") || why.contains("pipe") {
        return NoTls::Gone(why);
    }
    NoTls::Refused("bad_tls", why)
}

fn words(reason: &str) -> &'static str {
    match reason {
        "sni_mismatch" => "the name in the handshake is not the host of the tunnel",
        "no_sni" => "the handshake names no host",
        "unknown_sni" => "no route and no name of the gateway's is the host in the handshake",
        _ => "no certificate can be issued",
    }
}

/// The one certificate of a tunnel.
#[derive(Debug)]
struct ForTunnel {
    host: String,
    by_name: bool,
    certificate: Arc<CertifiedKey>,
    chosen: Arc<OnceLock<&'static str>>,
}

impl ResolvesServerCert for ForTunnel {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let refusal = match hello.server_name() {
            Some(name) if name.eq_ignore_ascii_case(&self.host) => None,
            Some(_) => Some("sni_mismatch"),
            None => self.by_name.then_some("no_sni"),
        };
        match refusal {
            None => Some(self.certificate.clone()),
            Some(refusal) => {
                let _ = self.chosen.set(refusal);
                None
            }
        }
    }
}

/// Under which name a connection came to our own listener.
#[derive(Debug)]
enum Name {
    /// A route's.
    Routed(String),
    /// Ours, or none.
    Ours(Option<String>),
}

/// By the name in the handshake: a route's host, a name of ours; nothing else gets a certificate.
struct ByName {
    snapshot: Arc<Snapshot>,
    authority: Arc<Authority>,
    own: Option<Arc<OwnCertificate>>,
    local: Option<IpAddr>,
    chosen: Arc<OnceLock<Result<Name, &'static str>>>,
}

impl ByName {
    fn choose(&self, name: Option<&str>) -> Result<(Name, Arc<CertifiedKey>), &'static str> {
        let name = name.map(str::to_ascii_lowercase);
        let minted = |host: &str| {
            self.authority.leaf(host).map_err(|error| {
                tracing::warn!(%error, "no certificate for the TLS listener");
                "no_certificate"
            })
        };
        let Some(name) = name else {
            if let Some(own) = &self.own {
                return Ok((Name::Ours(None), own.current()));
            }
            let local = self.local.map(|ip| ip.to_string()).unwrap_or_default();
            let certificate = self.authority.leaf(&local).map_err(|_| "no_sni")?;
            return Ok((Name::Ours(None), certificate));
        };
        if self.snapshot.hosts.find(&name, None, Spoken::Tls, None).is_ok() {
            return minted(&name).map(|certificate| (Name::Routed(name), certificate));
        }
        if let Some(own) = self.own.as_ref().filter(|own| own.names(&name)) {
            return Ok((Name::Ours(Some(name)), own.current()));
        }
        if self.authority.names().contains(&name) {
            return minted(&name).map(|certificate| (Name::Ours(Some(name)), certificate));
        }
        Err("unknown_sni")
    }
}

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let (chosen, certificate) = match self.choose(hello.server_name()) {
            Ok((name, certificate)) => (Ok(name), Some(certificate)),
            Err(why) => (Err(why), None),
        };
        let _ = self.chosen.set(chosen);
        certificate
    }
}

impl std::fmt::Debug for ByName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ByName(..)")
    }
}

/// Stands in until a connection brings its own.
#[derive(Debug)]
struct Nobody;

impl ResolvesServerCert for Nobody {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        None
    }
}

const HANDSHAKE: Duration = Duration::from_secs(10);
/// RFC 8446, section 5.1.
const HANDSHAKE_RECORD: u8 = 22;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_that_leaves_was_refused_nothing() {
        for gone in ["received fatal alert: UnknownCA", "tls handshake eof", "Connection reset by peer"] {
            assert!(matches!(failure(&format!("x tls connect error: {gone}")), NoTls::Gone(_)), "{gone}");
        }
        let bad = failure("TLSHandshakeFailure context: tls connect error: received corrupt message");
        assert!(matches!(bad, NoTls::Refused("bad_tls", why) if why == "received corrupt message"));
    }
}
