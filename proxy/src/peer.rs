//! One connection's peer: how it is dialled, what it speaks, and with whom it may be shared.

use std::time::Duration;

use aegis_broker::{config::Route, credential::Secrets};
use pingora_core::upstreams::peer::{ALPN, HttpPeer, HttpUpstreamRequestPolicy};
use sha2::{Digest as _, Sha256};

use crate::{chain::Way, material::Tls};

/// What goes over the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Requests and answers.
    Http,
    /// gRPC: HTTP/2, and streams that may be silent.
    Grpc,
    /// A WebSocket: HTTP/1.1, then frames.
    WebSocket,
    /// The gateway's own reads.
    Fact,
}

impl Kind {
    /// What is offered in the TLS handshake; over plain HTTP it is spoken without asking.
    fn alpn(self, route: &Route) -> ALPN {
        match self {
            Self::WebSocket => ALPN::H1,
            Self::Http | Self::Grpc | Self::Fact if route.egress.grpc => ALPN::H2,
            Self::Http | Self::Grpc | Self::Fact if !route.upstream.tls && route.egress.http2 => ALPN::H2,
            Self::Http | Self::Grpc if route.egress.http2 => ALPN::H2H1,
            Self::Http | Self::Grpc | Self::Fact => ALPN::H1,
        }
    }

    /// Whether nothing but HTTP/2 is spoken.
    pub(crate) fn speaks_h2_only(self, route: &Route) -> bool {
        self.alpn(route) == ALPN::H2
    }

    /// How long a read may take.
    fn silence(self, route: &Route) -> Duration {
        match self {
            Self::Http | Self::Fact => route.upstream_timeout,
            Self::Grpc | Self::WebSocket => route.egress.stream_idle,
        }
    }
}

/// For whom.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Whose<'a> {
    pub(crate) tenant: &'a str,
    pub(crate) agent: &'a str,
}

pub(crate) fn peer(route: &Route, whose: Whose<'_>, secrets: &Secrets, kind: Kind, way: Way, tls: Tls) -> HttpPeer {
    let alpn = kind.alpn(route);
    let group_key = group(route, whose, secrets, &alpn, &way, &tls);
    // The host is never empty (`config` sees to it): with an empty name nothing would be verified.
    let mut peer = HttpPeer::new(way.first_hop(), route.upstream.tls, route.upstream.host.clone());
    peer.group_key = group_key;
    peer.client_cert_key = tls.client;
    peer.options.ca = tls.roots;
    peer.options.alpn = alpn;
    peer.options.verify_cert = true;
    peer.options.verify_hostname = true;
    peer.options.connection_timeout = Some(CONNECT_TIME);
    peer.options.total_connection_timeout = Some(CONNECT_TIME + CONNECT_TIME);
    peer.options.read_timeout = Some(kind.silence(route));
    peer.options.write_timeout = Some(kind.silence(route));
    peer.options.idle_timeout = Some(IDLE);
    peer.options.max_h2_streams = H2_STREAMS;
    peer.options.h2_stream_window_size = Some(H2_STREAM_WINDOW);
    // The head is rebuilt anyway: what of an upgrade goes upstream stands there.
    peer.options.http_upstream_request_policy = HttpUpstreamRequestPolicy::deny_upgrades();
    if let Way::Through(tunnelled) = way {
        peer.options.custom_l4 = Some(tunnelled);
    }
    peer
}

/// Pool key: nobody rides on a connection that was made for another agent, with another credential or
/// certificate, on other trust, or by another way. Pingora's own key knows none of these: of a client
/// certificate only the serial number, of trusted roots nothing.
fn group(route: &Route, whose: Whose<'_>, secrets: &Secrets, alpn: &ALPN, way: &Way, tls: &Tls) -> u64 {
    let mut hash = Sha256::new();
    let mut part = |bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_be_bytes());
        hash.update(bytes);
    };
    part(route.name.as_bytes());
    part(whose.tenant.as_bytes());
    part(whose.agent.as_bytes());
    for secret in [&secrets.credential, &secrets.client_key, &secrets.proxy] {
        let (id, version) = secret.as_ref().map_or(("", ""), |c| (&c.id, &c.version));
        part(id.as_bytes());
        part(version.as_bytes());
    }
    part(route.upstream.origin().as_bytes());
    part(way.label().as_bytes());
    part(match alpn {
        ALPN::H1 => b"h1",
        ALPN::H2 => b"h2",
        ALPN::H2H1 => b"h2h1",
        ALPN::Custom(_) => b"custom",
    });
    let egress = &route.egress;
    part(egress.client.as_ref().map_or(&[], |c| &c.fingerprint.0));
    part(egress.roots.as_ref().map_or(&[], |r| &r.fingerprint.0));
    part(&[u8::from(tls.client.is_some()), u8::from(tls.roots.is_some())]);
    let digest: [u8; 32] = hash.finalize().into();
    u64::from_be_bytes(digest.first_chunk().copied().unwrap_or_default())
}

const CONNECT_TIME: Duration = Duration::from_secs(10);
const IDLE: Duration = Duration::from_secs(60);
/// Streams of one agent on one connection.
const H2_STREAMS: usize = 100;
/// What an upstream may send ahead of a slow agent.
const H2_STREAM_WINDOW: u32 = 512 * 1024;

#[cfg(test)]
mod tests;
