//! Where a request goes: by listener, by the name it was reached under, or by its path.

use std::sync::Arc;

use aegis_broker::{
    hosts::{Miss, Spoken},
    snapshot::{Scope, Snapshot},
};
use http::StatusCode;

use crate::{
    conn::{ConnState, Ingress},
    framing::Request,
    reply::Reply,
};

/// A route, and what of the request's path was there only to reach it.
pub(crate) struct Way {
    pub(crate) scope: Arc<Scope>,
    pub(crate) prefix: String,
}

/// Who the client says it talks to must be who it opened the connection to.
pub(crate) fn agree(request: &Request, conn: &ConnState) -> Result<(), Reply> {
    let host = request.target.as_ref().map(|t| t.host.as_str());
    let port = request.target.as_ref().and_then(|t| t.port);
    let agrees = match conn.ingress() {
        Ingress::Plain { .. } => true,
        Ingress::Tunnel(tunnel) => host == Some(&tunnel.host) && port.unwrap_or(443) == tunnel.port,
        Ingress::Steered { host: name, port: own } => {
            host == Some(name) && port.is_none_or(|port| port == 443 || port == *own)
        }
        Ingress::Named { name: Some(name) } => host == Some(name),
        // Without SNI the client has nothing but an address.
        Ingress::Named { name: None } => request.target.as_ref().is_some_and(|t| !t.is_name()),
    };
    if agrees {
        return Ok(());
    }
    let words = "the host of the request is not the host that the connection was opened to";
    Err(Reply::closing(StatusCode::MISDIRECTED_REQUEST, "authority_mismatch", words))
}

/// Whether the gateway itself answers: its own API, unless the request is for a route by its host or listener.
pub(crate) fn is_api(snapshot: &Snapshot, request: &Request, conn: &ConnState) -> bool {
    let own = match conn.ingress() {
        Ingress::Plain { route: None } => !request.absolute && snapshot.by_host(host_of(request)).is_none(),
        Ingress::Named { .. } => true,
        Ingress::Plain { route: Some(_) } | Ingress::Tunnel(_) | Ingress::Steered { .. } => false,
    };
    own && (request.path.starts_with("/v1/") || API.contains(&request.path.as_str()))
}

/// The route: the listener's own, else by host, else the first segment of the path.
pub(crate) fn route(snapshot: &Snapshot, request: &Request, conn: &ConnState) -> Result<Way, Reply> {
    let whole = |scope: &Arc<Scope>| Way { scope: scope.clone(), prefix: String::new() };
    match conn.ingress() {
        Ingress::Plain { route: Some(name) } => snapshot
            .by_name(name)
            .map(whole)
            .ok_or_else(|| Reply::refusal(StatusCode::NOT_FOUND, "unknown_route", "this listener's route was removed")),
        Ingress::Plain { route: None } if request.absolute => {
            let port = request.target.as_ref().and_then(|t| t.port).unwrap_or(80);
            by_target(snapshot, request, Some(port), Spoken::Plain)
        }
        Ingress::Plain { route: None } => match snapshot.by_host(host_of(request)) {
            Some(scope) => Ok(whole(scope)),
            None => by_path(snapshot, request),
        },
        Ingress::Tunnel(tunnel) => by_target(snapshot, request, Some(tunnel.port), Spoken::Tls),
        Ingress::Steered { .. } => by_target(snapshot, request, None, Spoken::Tls),
        Ingress::Named { .. } => by_path(snapshot, request),
    }
}

fn by_path(snapshot: &Snapshot, request: &Request) -> Result<Way, Reply> {
    let name = request.path.trim_start_matches('/').split('/').next().unwrap_or_default();
    snapshot
        .by_name(name)
        .filter(|_| request.path.strip_prefix('/').is_some_and(|p| p.starts_with(name)))
        .map(|scope| Way { scope: scope.clone(), prefix: format!("/{name}") })
        .ok_or_else(|| Reply::refusal(StatusCode::NOT_FOUND, "unknown_route", "no route of that name or host"))
}

fn by_target(snapshot: &Snapshot, request: &Request, port: Option<u16>, spoken: Spoken) -> Result<Way, Reply> {
    let found = snapshot.hosts.find(host_of(request), port, spoken, Some(&request.path));
    found.map(|entry| Way { scope: entry.scope.clone(), prefix: entry.base_path.clone() }).map_err(not_routed)
}

/// Why a host that the client named leads nowhere.
pub(crate) fn not_routed(miss: Miss) -> Reply {
    let (status, reason, words) = match miss {
        Miss::Unrouted => (StatusCode::FORBIDDEN, "unrouted_host", "no route serves this host"),
        Miss::Port => (StatusCode::FORBIDDEN, "port_not_routed", "the route of this host is at another port"),
        Miss::TlsOnly => (StatusCode::FORBIDDEN, "tls_required", "the route of this host takes `https://` only"),
        Miss::Path => (StatusCode::NOT_FOUND, "unknown_route", "no route of this host has that path"),
    };
    Reply::refusal(status, reason, words)
}

fn host_of(request: &Request) -> &str {
    request.target.as_ref().map(|t| t.host.as_str()).unwrap_or_default()
}

const API: [&str; 3] = ["/health", "/ready", "/openapi.json"];
