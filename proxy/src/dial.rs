//! Where to: names are resolved here, every address is vetted, and the vetted one is dialled.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use aegis_broker::{
    config::{Route, Upstream as Target},
    credential::Credential,
    facts::{Upstream, UpstreamError},
    identity::Identity,
};
use aegis_connectors::{UpstreamBody, UpstreamRequest};
use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use http::{StatusCode, header};
use ipnet::IpNet;
use moka::future::Cache;
use pingora_core::{
    connectors::{ConnectorOptions, http::Connector},
    protocols::http::client::HttpSession,
    upstreams::peer::{ALPN, HttpPeer, HttpUpstreamRequestPolicy},
};
use pingora_http::RequestHeader;
use sha2::{Digest as _, Sha256};
use tokio::time::timeout;

/// Resolves, vets and dials.
pub struct Dialer {
    resolved: Cache<(String, u16), Arc<Vec<SocketAddr>>>,
    /// Our own listeners: a route must not lead back to us.
    own: std::sync::RwLock<BTreeSet<SocketAddr>>,
    connector: Connector,
}

/// Why an upstream is not dialled.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// Every address is internal, or our own, and the route does not allow it.
    #[error("address forbidden")]
    Forbidden,
    /// The name has no address.
    #[error("`{0}` cannot be resolved")]
    Unresolved(String),
}

impl Dialer {
    /// One per process: it owns the pool of the gateway's own reads.
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            resolved: Cache::builder().max_capacity(1024).time_to_live(RESOLVED_FOR).build(),
            own: std::sync::RwLock::default(),
            connector: Connector::new(Some(ConnectorOptions::new(64))),
        })
    }

    /// Takes note of a listener of ours.
    pub fn own(&self, addr: SocketAddr) {
        if let Ok(mut own) = self.own.write() {
            own.insert(addr);
        }
    }

    /// The peer for one exchange. Connections are shared only within the same agent, route and credential version.
    pub(crate) async fn peer(
        &self,
        route: &Route,
        identity: &Identity,
        credential: Option<&Credential>,
    ) -> Result<Box<HttpPeer>, DialError> {
        let addr = self.vetted(route).await?;
        Ok(Box::new(peer(route, addr, group(route, &identity.agent.tenant, &identity.agent.agent_id, credential))))
    }

    async fn vetted(&self, route: &Route) -> Result<SocketAddr, DialError> {
        let Target { host, port, .. } = &route.upstream;
        self.vet(host, *port, &route.allow_internal).await
    }

    /// The address of a host, if it may be dialled.
    pub(crate) async fn vet(&self, host: &str, port: u16, allowed: &[IpNet]) -> Result<SocketAddr, DialError> {
        let addrs = match host.parse::<IpAddr>() {
            Ok(ip) => Arc::new(vec![SocketAddr::new(ip, port)]),
            Err(_) => self.resolve(host, port).await?,
        };
        // One bad address spoils the name: a resolver that mixes answers is not to be trusted with the rest.
        if addrs.iter().any(|a| !self.may_dial(*a, allowed)) {
            return Err(DialError::Forbidden);
        }
        addrs.first().copied().ok_or_else(|| DialError::Unresolved(host.to_owned()))
    }

    async fn resolve(&self, host: &str, port: u16) -> Result<Arc<Vec<SocketAddr>>, DialError> {
        let key = (host.to_owned(), port);
        let looked_up = self
            .resolved
            .try_get_with(key.clone(), async move {
                let found = timeout(RESOLVE_TIME, tokio::net::lookup_host(key)).await;
                match found {
                    Ok(Ok(addrs)) => Ok(Arc::new(addrs.collect::<Vec<_>>())),
                    Ok(Err(_)) | Err(_) => Err(()),
                }
            })
            .await;
        looked_up.ok().filter(|addrs| !addrs.is_empty()).ok_or_else(|| DialError::Unresolved(host.to_owned()))
    }

    fn may_dial(&self, addr: SocketAddr, allowed: &[IpNet]) -> bool {
        let ip = canonical(addr.ip());
        let ours = self.own.read().is_ok_and(|own| {
            own.iter().any(|o| o.port() == addr.port() && (o.ip() == ip || o.ip().is_unspecified() && is_local(ip)))
        });
        !ours && (!is_internal(ip) || allowed.iter().any(|net| net.contains(&ip)))
    }
}

#[async_trait]
impl Upstream for Dialer {
    async fn fetch(
        &self,
        route: &Route,
        request: UpstreamRequest,
        credential: Option<&Credential>,
        max_answer: usize,
    ) -> Result<(StatusCode, Bytes), UpstreamError> {
        timeout(route.upstream_timeout, self.exchange(route, request, credential, max_answer))
            .await
            .map_err(|_| UpstreamError("timed out".into()))?
    }
}

impl Dialer {
    async fn exchange(
        &self,
        route: &Route,
        request: UpstreamRequest,
        credential: Option<&Credential>,
        max_answer: usize,
    ) -> Result<(StatusCode, Bytes), UpstreamError> {
        let failed = |e: &dyn std::fmt::Display| UpstreamError(e.to_string());
        let addr = self.vetted(route).await.map_err(|e| failed(&e))?;
        let peer = peer(route, addr, group(route, "gateway", "facts", credential));
        let mut path = format!("{}{}", route.upstream.base_path, request.path_and_query);
        if let Some(credential) = credential {
            credential.apply_query(&mut path);
        }
        let mut head =
            RequestHeader::build(request.method, path.as_bytes(), None).map_err(|_| failed(&"bad request"))?;
        let insert = |_| UpstreamError("bad header".into());
        head.insert_header(header::HOST, route.upstream.authority()).map_err(insert)?;
        for (name, value) in request.headers {
            head.append_header(name, value).map_err(insert)?;
        }
        if let Some((name, value)) =
            credential.map(Credential::header).transpose().map_err(|_| failed(&"credential"))?.flatten()
        {
            head.insert_header(name, value).map_err(insert)?;
        }
        if !matches!(request.body, UpstreamBody::Empty) {
            return Err(failed(&"a fact is read without a body"));
        }
        // Errors of the connection are named by kind only: they may print what was sent.
        let kind = |e: Box<pingora_error::Error>| UpstreamError(e.etype().as_str().to_owned());
        let (mut session, _) = self.connector.get_http_session(&peer).await.map_err(kind)?;
        session.set_read_timeout(Some(route.upstream_timeout));
        session.write_request_header(Box::new(head)).await.map_err(kind)?;
        session.finish_request_body().await.map_err(kind)?;
        session.read_response_header().await.map_err(kind)?;
        let status = session.response_header().map(|h| h.status).ok_or_else(|| failed(&"no answer"))?;
        let mut body = BytesMut::new();
        while let Some(chunk) = read_body(&mut session).await.map_err(kind)? {
            if body.len() + chunk.len() > max_answer {
                return Err(failed(&"answer too large"));
            }
            body.extend_from_slice(&chunk);
        }
        self.connector.release_http_session(session, &peer, Some(IDLE)).await;
        Ok((status, body.freeze()))
    }
}

async fn read_body(session: &mut HttpSession) -> Result<Option<Bytes>, Box<pingora_error::Error>> {
    session.read_response_body().await
}

fn peer(route: &Route, addr: SocketAddr, group_key: u64) -> HttpPeer {
    // An address as SNI would switch verification off for it; the name check then stands on `alternative_cn`.
    let mut peer = HttpPeer::new(addr, route.upstream.tls, route.upstream.host.clone());
    peer.group_key = group_key;
    peer.options.alpn = ALPN::H1;
    peer.options.verify_cert = true;
    peer.options.verify_hostname = true;
    peer.options.connection_timeout = Some(CONNECT_TIME);
    peer.options.total_connection_timeout = Some(CONNECT_TIME + CONNECT_TIME);
    peer.options.read_timeout = Some(route.upstream_timeout);
    peer.options.write_timeout = Some(route.upstream_timeout);
    peer.options.idle_timeout = Some(IDLE);
    peer.options.http_upstream_request_policy = HttpUpstreamRequestPolicy::deny_upgrades();
    peer
}

/// Pool key: nobody rides on a connection that was made for another agent or another credential.
fn group(route: &Route, tenant: &str, agent: &str, credential: Option<&Credential>) -> u64 {
    let mut hash = Sha256::new();
    let (id, version) = credential.map_or(("", ""), |c| (&c.id, &c.version));
    for part in [&route.name, tenant, agent, id, version, &route.upstream.host, "h1"] {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part.as_bytes());
    }
    let digest: [u8; 32] = hash.finalize().into();
    u64::from_be_bytes(digest.first_chunk().copied().unwrap_or_default())
}

/// IPv4 hidden in IPv6: mapped, compatible, NAT64, 6to4.
fn canonical(ip: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = ip else { return ip };
    let s = v6.segments();
    let embedded = |hi: u16, lo: u16| {
        let [a, b] = hi.to_be_bytes();
        let [c, d] = lo.to_be_bytes();
        IpAddr::V4(std::net::Ipv4Addr::new(a, b, c, d))
    };
    match s {
        [0, 0, 0, 0, 0, 0xffff, hi, lo] => embedded(hi, lo),
        [0, 0, 0, 0, 0xffff, 0, hi, lo] => embedded(hi, lo),
        [0, 0, 0, 0, 0, 0, hi, lo] if hi != 0 => embedded(hi, lo),
        [0x64, 0xff9b, 0, 0, 0, 0, hi, lo] => embedded(hi, lo),
        [0x64, 0xff9b, 1, ..] => IpAddr::V4(std::net::Ipv4Addr::LOCALHOST),
        [0x2002, hi, lo, ..] => embedded(hi, lo),
        _ => ip,
    }
}

fn is_local(ip: IpAddr) -> bool {
    ip.is_loopback() || ip.is_unspecified()
}

/// Loopback, private, link-local, metadata, shared, documentation, multicast, reserved.
fn is_internal(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => {
            let [a, b, c, _] = v4.octets();
            v4.is_loopback()
                || v4.is_private()
                || v4.is_link_local()
                || v4.is_unspecified()
                || v4.is_broadcast()
                || v4.is_multicast()
                || v4.is_documentation()
                || a == 0
                || (a == 100 && (64..128).contains(&b))
                || (a == 192 && b == 0 && c == 0)
                || (a == 198 && (18..20).contains(&b))
                || a >= 240
        }
        IpAddr::V6(v6) => {
            let [first, second, ..] = v6.segments();
            v6.is_loopback()
                || v6.is_unspecified()
                || v6.is_multicast()
                || (first & 0xfe00) == 0xfc00
                || (first & 0xffc0) == 0xfe80
                || (first & 0xffc0) == 0xfec0
                || (first == 0x2001 && (second < 0x200 || second == 0xdb8))
                || first == 0x5f00
                || first == 0x100
                || first == 0
        }
    }
}

const RESOLVED_FOR: Duration = Duration::from_secs(30);
const RESOLVE_TIME: Duration = Duration::from_secs(5);
const CONNECT_TIME: Duration = Duration::from_secs(10);
const IDLE: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(text: &str, nets: &[&str]) -> bool {
        let nets: Vec<IpNet> = nets.iter().map(|n| n.parse().unwrap()).collect();
        Dialer::new().may_dial(SocketAddr::new(text.parse().unwrap(), 80), &nets)
    }

    #[test]
    fn internal_addresses_are_refused_in_every_spelling() {
        for internal in [
            "127.0.0.1",
            "10.0.0.1",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "169.254.170.2",
            "0.0.0.0",
            "100.64.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "::1",
            "::",
            "::ffff:127.0.0.1",
            "::127.0.0.1",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b:1::1",
            "2002:7f00:1::",
            "fe80::1",
            "fd00::1",
            "ff02::1",
            "::ffff:0:10.0.0.1",
            "2001:db8::1",
            "198.18.0.1",
            "192.0.0.1",
            "240.0.0.1",
        ] {
            assert!(!allowed(internal, &[]), "{internal}");
        }
        for public in ["140.82.121.6", "1.1.1.1", "2606:50c0:8000::153"] {
            assert!(allowed(public, &[]), "{public}");
        }
        assert!(allowed("127.0.0.1", &["127.0.0.0/8"]));
        assert!(allowed("::ffff:127.0.0.1", &["127.0.0.0/8"]));
        assert!(!allowed("127.0.0.1", &["10.0.0.0/8"]));
    }

    #[test]
    fn our_own_listeners_are_never_dialled() {
        let dialer = Dialer::new();
        dialer.own("127.0.0.1:8080".parse().unwrap());
        let nets = ["127.0.0.0/8".parse().unwrap()];
        assert!(!dialer.may_dial("127.0.0.1:8080".parse().unwrap(), &nets));
        assert!(dialer.may_dial("127.0.0.1:8081".parse().unwrap(), &nets));
        dialer.own("0.0.0.0:9090".parse().unwrap());
        assert!(!dialer.may_dial("127.0.0.1:9090".parse().unwrap(), &nets));
    }
}
