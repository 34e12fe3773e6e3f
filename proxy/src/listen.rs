//! Listeners: bound by us so that every address is known, served by Pingora.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr, TcpListener},
    os::fd::IntoRawFd,
    sync::Arc,
};

use aegis_broker::Broker;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use pingora_core::{
    apps::HttpServerOptions,
    server::{Fds, configuration::ServerConf},
    services::{Service as _, listening::Service},
};
use pingora_proxy::http_proxy;
use tokio::{sync::watch, task::JoinSet};

use crate::{
    conn::Doorway,
    dial::{self, Dialer},
    lifeline::Tied,
    path::Gate,
};

/// The HTTP API for agents, called in-process.
pub type AgentApi =
    Arc<dyn Fn(http::Request<Bytes>, Option<IpAddr>) -> BoxFuture<'static, http::Response<Bytes>> + Send + Sync>;

/// What the proxy is started with.
pub struct ProxyOptions {
    /// The agents' door: base-URL routes, routes by host, and the API.
    pub listen: SocketAddr,
    /// Answers `/v1/…`, `/health` and `/openapi.json`.
    pub api: AgentApi,
    /// Resolves, vets and dials.
    pub dialer: Arc<Dialer>,
}

/// Where the proxy listens, and its tasks.
pub struct Bound {
    /// The agents' door.
    pub listen: SocketAddr,
    /// Listeners of routes of their own, by route.
    pub routes: BTreeMap<String, SocketAddr>,
    /// They end after `shutdown` and a drain.
    pub tasks: JoinSet<()>,
}

/// Why the proxy does not start.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// An address cannot be bound.
    #[error("cannot listen on `{addr}`: {source}")]
    Bind {
        /// The address.
        addr: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
}

/// Binds everything, then serves until `shutdown` turns true. On `Err` nothing is left bound.
pub async fn serve(
    broker: Arc<Broker>,
    options: ProxyOptions,
    shutdown: watch::Receiver<bool>,
) -> Result<Bound, ProxyError> {
    let mut listeners = vec![(None, bind(options.listen)?)];
    for (route, addr) in broker.snapshot().listeners() {
        listeners.push((Some(route), bind(addr)?));
    }
    let mut bound = Bound { listen: options.listen, routes: BTreeMap::new(), tasks: JoinSet::new() };
    for (route, (listener, _)) in &listeners {
        let addr = listener.local_addr().map_err(|source| ProxyError::Bind { addr: options.listen, source })?;
        options.dialer.own(addr);
        match route {
            None => bound.listen = addr,
            Some(route) => {
                bound.routes.insert(route.clone(), addr);
            }
        }
    }
    // The default would sleep five minutes at every end.
    let conf =
        Arc::new(ServerConf { grace_period_seconds: Some(0), max_retries: dial::TRIES, ..ServerConf::default() });
    let gate = Gate { broker: broker.clone(), dialer: options.dialer, api: options.api };
    let app = Arc::new(http_proxy(&conf, gate));
    for (route, (listener, addr)) in listeners {
        let tied = Arc::new(Tied { inner: app.clone(), options: options_for(&broker, route.as_deref()) });
        let doorway = Doorway { inner: tied, broker: broker.clone(), route: route.clone() };
        let name = addr.to_string();
        let mut service = Service::new(route.unwrap_or_else(|| "agents".into()), doorway);
        service.add_tcp(&name);
        let mut fds = Fds::new();
        fds.add(name, listener.into_raw_fd());
        let shutdown = shutdown.clone();
        bound.tasks.spawn(async move {
            service.start_service(Some(Arc::new(parking_lot::Mutex::new(fds))), shutdown, 1).await;
        });
    }
    Ok(bound)
}

/// A route that takes gRPC takes it on its own port without TLS as well, where clients speak HTTP/2 unasked.
fn options_for(broker: &Broker, route: Option<&str>) -> HttpServerOptions {
    let snapshot = broker.snapshot();
    let route = route.and_then(|name| snapshot.by_name(name)).and_then(|scope| scope.route.clone());
    let mut options = HttpServerOptions::default();
    options.h2c = route.is_some_and(|r| r.egress.grpc);
    options
}

fn bind(addr: SocketAddr) -> Result<(TcpListener, SocketAddr), ProxyError> {
    let failed = |source| ProxyError::Bind { addr, source };
    let listener = TcpListener::bind(addr).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    let local = listener.local_addr().map_err(failed)?;
    Ok((listener, local))
}
