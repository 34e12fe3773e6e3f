//! Listeners: bound by us so that every address is known, served by Pingora.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr, TcpListener},
    os::fd::IntoRawFd,
    sync::Arc,
    time::Duration,
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
    ca::Authority,
    dial::{self, Dialer},
    front::{Doorway, Front, Listener},
    lifeline::Tied,
    path::Gate,
    tls::{OwnCertificate, Tls},
};

/// The HTTP API for agents, called in-process.
pub type AgentApi =
    Arc<dyn Fn(http::Request<Bytes>, Option<IpAddr>) -> BoxFuture<'static, http::Response<Bytes>> + Send + Sync>;

/// What the proxy is started with.
pub struct ProxyOptions {
    /// The agents' door: base-URL routes, routes by host, the forward proxy, and the API.
    pub listen: SocketAddr,
    /// A listener that ends TLS.
    pub tls: Option<TlsListener>,
    /// Issues certificates for the hosts of routes.
    pub authority: Arc<Authority>,
    /// Answers `/v1/…`, `/health` and `/openapi.json`.
    pub api: AgentApi,
    /// Resolves, vets and dials.
    pub dialer: Arc<Dialer>,
}

/// A listener that ends TLS: for clients that are steered to it by name, and for base URLs.
pub struct TlsListener {
    /// Where.
    pub listen: SocketAddr,
    /// For the gateway's own names; minted where there is none.
    pub own: Option<Arc<OwnCertificate>>,
}

/// Where the proxy listens, and its tasks.
pub struct Bound {
    /// The agents' door.
    pub listen: SocketAddr,
    /// The listener that ends TLS.
    pub tls: Option<SocketAddr>,
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
    /// TLS cannot be set up.
    #[error("TLS: {0}")]
    Tls(String),
}

/// Binds everything, then serves until `shutdown` turns true. On `Err` nothing is left bound.
pub async fn serve(
    broker: Arc<Broker>,
    options: ProxyOptions,
    shutdown: watch::Receiver<bool>,
) -> Result<Bound, ProxyError> {
    let mut listeners = vec![(Listener::Agents, bind(options.listen)?)];
    if let Some(tls) = &options.tls {
        listeners.push((Listener::Tls, bind(tls.listen)?));
    }
    for (route, addr) in broker.snapshot().listeners() {
        listeners.push((Listener::Route(route), bind(addr)?));
    }
    let mut bound = Bound { listen: options.listen, tls: None, routes: BTreeMap::new(), tasks: JoinSet::new() };
    for (listener, (socket, _)) in &listeners {
        let addr = socket.local_addr().map_err(|source| ProxyError::Bind { addr: options.listen, source })?;
        options.dialer.own(addr);
        match listener {
            Listener::Agents => bound.listen = addr,
            Listener::Tls => bound.tls = Some(addr),
            Listener::Route(route) => {
                bound.routes.insert(route.clone(), addr);
            }
        }
    }
    // The default would sleep five minutes at every end.
    let conf =
        Arc::new(ServerConf { grace_period_seconds: Some(0), max_retries: dial::TRIES, ..ServerConf::default() });
    let gate = Gate { broker: broker.clone(), dialer: options.dialer.clone(), api: options.api };
    let mut app = http_proxy(&conf, gate);
    app.server_options = Some(options_for(&broker, &Listener::Agents));
    let app = Arc::new(app);
    let own = options.tls.and_then(|tls| tls.own);
    let tls = Tls::new(options.authority, own, broker.clone()).map_err(|e| ProxyError::Tls(e.to_string()))?;
    let front = Arc::new(Front { broker: broker.clone(), dialer: options.dialer, tls });
    for (listener, (socket, addr)) in listeners {
        let name = addr.to_string();
        let label = match &listener {
            Listener::Agents => "agents",
            Listener::Tls => "tls",
            Listener::Route(route) => route,
        };
        let label = label.to_owned();
        let tied = Arc::new(Tied { inner: app.clone(), options: options_for(&broker, &listener) });
        let mut service = Service::new(label, Doorway { inner: tied, front: front.clone(), listener });
        service.add_tcp(&name);
        let mut fds = Fds::new();
        fds.add(name, socket.into_raw_fd());
        let shutdown = shutdown.clone();
        bound.tasks.spawn(async move {
            service.start_service(Some(Arc::new(parking_lot::Mutex::new(fds))), shutdown, 1).await;
        });
    }
    Ok(bound)
}

/// A route that takes gRPC takes it on its own port without TLS as well, where clients speak HTTP/2 unasked.
fn options_for(broker: &Broker, listener: &Listener) -> HttpServerOptions {
    let mut options = HttpServerOptions::default();
    // A late `CONNECT` reaches the path, which refuses it on record.
    options.allow_connect_method_proxying = true;
    options.h2_idle_timeout = Some(H2_IDLE);
    if let Listener::Route(name) = listener {
        let snapshot = broker.snapshot();
        let route = snapshot.by_name(name).and_then(|scope| scope.route.as_ref());
        options.h2c = route.is_some_and(|r| r.egress.grpc);
    }
    options
}

fn bind(addr: SocketAddr) -> Result<(TcpListener, SocketAddr), ProxyError> {
    let failed = |source| ProxyError::Bind { addr, source };
    let listener = TcpListener::bind(addr).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    let local = listener.local_addr().map_err(failed)?;
    Ok((listener, local))
}

/// A connection of HTTP/2 without a request for this long is closed.
const H2_IDLE: Duration = Duration::from_secs(300);
