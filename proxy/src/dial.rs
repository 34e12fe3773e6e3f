//! Where to: names are resolved here, every address is vetted, and the vetted one is dialled.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use aegis_broker::{
    config::{Route, Upstream as Target},
    credential::{Credential, Secrets},
    facts::{Upstream, UpstreamError},
    identity::Identity,
};
use aegis_connectors::{UpstreamBody, UpstreamRequest};
use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use http::{StatusCode, Uri, header};
use ipnet::IpNet;
use pingora_core::{
    connectors::{ConnectorOptions, http::Connector},
    protocols::http::client::HttpSession,
    upstreams::peer::HttpPeer,
};
use pingora_http::RequestHeader;
use tokio::time::timeout;

use crate::{
    chain::{Tunnelled, Way},
    material::Material,
    peer::{Kind, Whose, peer},
    resolve::{Names, Resolve, System},
    vet::{OwnListeners, vet},
};

/// Resolves, vets and dials.
pub struct Dialer {
    names: Names,
    own: OwnListeners,
    material: Material,
    connector: Connector,
}

/// Why an upstream is not dialled.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// An address is internal, or our own, and the route does not allow it.
    #[error("address forbidden")]
    Forbidden,
    /// The name has no address.
    #[error("`{0}` cannot be resolved")]
    Unresolved(String),
    /// The key in the vault is not the certificate's, or no key at all.
    #[error("client key unusable: {0}")]
    ClientKey(String),
    /// The upstream proxy's credential cannot stand in a header.
    #[error("proxy credential unusable: {0}")]
    ProxyCredential(String),
}

impl Dialer {
    /// One per process: it owns the pool of the gateway's own reads.
    pub fn new() -> Arc<Self> {
        Self::with(Arc::new(System), RESOLVED_FOR)
    }

    pub(crate) fn with(resolver: Arc<dyn Resolve>, keep: Duration) -> Arc<Self> {
        Arc::new(Self {
            names: Names::new(resolver, keep),
            own: OwnListeners::default(),
            material: Material::default(),
            connector: Connector::new(Some(ConnectorOptions::new(64))),
        })
    }

    /// Takes note of a listener of ours.
    pub fn own(&self, addr: SocketAddr) {
        self.own.add(addr);
    }

    /// The peers for one exchange, to be tried in turn until one takes the connection. Connections are
    /// shared only within the same agent, route, credential version, client certificate, trust and way out.
    pub(crate) async fn peers(
        &self,
        route: &Route,
        identity: &Identity,
        secrets: &Secrets,
        kind: Kind,
    ) -> Result<Vec<HttpPeer>, DialError> {
        let whose = Whose { tenant: &identity.agent.tenant, agent: &identity.agent.agent_id };
        self.peers_of(route, whose, secrets, kind).await
    }

    async fn peers_of(
        &self,
        route: &Route,
        whose: Whose<'_>,
        secrets: &Secrets,
        kind: Kind,
    ) -> Result<Vec<HttpPeer>, DialError> {
        let ways = self.ways(route, secrets.proxy.as_deref()).await?;
        let tls = self.material.of(route, secrets)?;
        Ok(ways.into_iter().map(|way| peer(route, whose, secrets, kind, way, tls.clone())).collect())
    }

    /// The vetted addresses of a host, by name or literal, at least one. They are vetted anew each time,
    /// also from the cache.
    pub(crate) async fn vetted(&self, host: &str, port: u16, allowed: &[IpNet]) -> Result<Vec<SocketAddr>, DialError> {
        let addrs = match host.parse::<IpAddr>() {
            Ok(ip) => Arc::new(vec![SocketAddr::new(ip, port)]),
            Err(_) => self.names.of(host, port).await.ok_or_else(|| DialError::Unresolved(host.to_owned()))?,
        };
        // One bad address spoils the name: a resolver that mixes answers is not to be trusted with the rest.
        let vetted: Option<Vec<SocketAddr>> = addrs.iter().map(|a| vet(*a, allowed, &self.own)).collect();
        let mut vetted = vetted.ok_or(DialError::Forbidden)?;
        vetted.truncate(TRIES);
        if vetted.is_empty() { Err(DialError::Unresolved(host.to_owned())) } else { Ok(vetted) }
    }

    async fn ways(&self, route: &Route, authorization: Option<&Credential>) -> Result<Vec<Way>, DialError> {
        let Target { host, port, .. } = &route.upstream;
        let Some(proxy) = &route.egress.proxy else {
            let addrs = self.vetted(host, *port, &route.allow_internal).await?;
            return Ok(addrs.into_iter().map(Way::Straight).collect());
        };
        // An address that the admin wrote down is allowed as such; a name must not wander inside.
        let literal = proxy.host.parse::<IpAddr>().map(IpNet::from).ok();
        let allowed: Vec<IpNet> = route.allow_internal.iter().copied().chain(literal).collect();
        let proxies = self.vetted(&proxy.host, proxy.port, &allowed).await?;
        let to = if proxy.danger_resolves && host.parse::<IpAddr>().is_err() {
            format!("{host}:{port}")
        } else {
            let addrs = self.vetted(host, *port, &route.allow_internal).await?;
            addrs.first().map(ToString::to_string).ok_or_else(|| DialError::Unresolved(host.clone()))?
        };
        let through =
            |at| Tunnelled::new(at, to.clone(), authorization).map(|tunnelled| Way::Through(Arc::new(tunnelled)));
        proxies.into_iter().map(through).collect::<Result<_, _>>().map_err(DialError::ProxyCredential)
    }
}

#[async_trait]
impl Upstream for Dialer {
    async fn fetch(
        &self,
        route: &Route,
        request: UpstreamRequest,
        secrets: &Secrets,
        max_answer: usize,
    ) -> Result<(StatusCode, Bytes), UpstreamError> {
        timeout(route.upstream_timeout, self.exchange(route, request, secrets, max_answer))
            .await
            .map_err(|_| UpstreamError("timed out".into()))?
    }
}

impl Dialer {
    async fn exchange(
        &self,
        route: &Route,
        request: UpstreamRequest,
        secrets: &Secrets,
        max_answer: usize,
    ) -> Result<(StatusCode, Bytes), UpstreamError> {
        let failed = |e: &dyn std::fmt::Display| UpstreamError(e.to_string());
        let own = Whose { tenant: "gateway", agent: "facts" };
        let peers = self.peers_of(route, own, secrets, Kind::Fact).await.map_err(|e| failed(&e))?;
        if !matches!(request.body, UpstreamBody::Empty) {
            return Err(failed(&"a fact is read without a body"));
        }
        let head = fact_head(route, request, secrets.credential.as_deref())?;
        // Errors of the connection are named by kind only: they may print what was sent.
        let kind = |e: Box<pingora_error::Error>| UpstreamError(e.etype().as_str().to_owned());
        let (peer, mut session) = self.connect(&peers).await.map_err(kind)?;
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
        self.connector.release_http_session(session, peer, peer.options.idle_timeout).await;
        Ok((status, body.freeze()))
    }

    async fn connect<'p>(&self, peers: &'p [HttpPeer]) -> pingora_error::Result<(&'p HttpPeer, HttpSession)> {
        let mut last = None;
        for peer in peers {
            match self.connector.get_http_session(peer).await {
                Ok((session, _)) => return Ok((peer, session)),
                Err(e) => last = Some(e),
            }
        }
        Err(last.unwrap_or_else(|| pingora_error::Error::new_str("no address")))
    }
}

fn fact_head(
    route: &Route,
    request: UpstreamRequest,
    credential: Option<&Credential>,
) -> Result<RequestHeader, UpstreamError> {
    let unusable = |what: &str| UpstreamError(what.to_owned());
    let mut path = format!("{}{}", route.upstream.base_path, request.path_and_query);
    if let Some(credential) = credential {
        credential.apply_query(&mut path);
    }
    let mut head = RequestHeader::build(request.method, path.as_bytes(), None).map_err(|_| unusable("bad request"))?;
    let insert = |_| unusable("bad header");
    if Kind::Fact.speaks_h2_only(route) {
        let uri: Uri = format!("{}{path}", route.upstream.origin()).parse().map_err(|_| unusable("bad request"))?;
        head.set_uri(uri);
    } else {
        head.insert_header(header::HOST, route.upstream.authority()).map_err(insert)?;
    }
    for (name, value) in request.headers {
        head.append_header(name, value).map_err(insert)?;
    }
    if let Some((name, value)) =
        credential.map(Credential::header).transpose().map_err(|_| unusable("credential"))?.flatten()
    {
        head.insert_header(name, value).map_err(insert)?;
    }
    Ok(head)
}

async fn read_body(session: &mut HttpSession) -> Result<Option<Bytes>, Box<pingora_error::Error>> {
    session.read_response_body().await
}

/// Addresses of one name that are tried.
pub(crate) const TRIES: usize = 3;
const RESOLVED_FOR: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests;
