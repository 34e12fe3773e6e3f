//! Listeners: bound by us so that every address is known, served by Pingora.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    os::fd::IntoRawFd,
    sync::Arc,
};

use aegis_broker::Broker;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use pingora_core::{
    apps::ServerApp as _,
    protocols::{Stream, l4::stream::Stream as L4},
    server::{Fds, configuration::ServerConf},
    services::{Service as _, listening::Service},
};
use pingora_proxy::{HttpProxy, http_proxy};
use tokio::{
    net::{TcpStream, UnixStream},
    sync::watch,
    task::JoinSet,
};

use crate::{
    conn::Doorway,
    connections::{Connections, Origin},
    dial::Dialer,
    path::Gate,
    sockets::{self, Sockets},
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
    /// Takes every connection in.
    pub connections: Arc<Connections>,
}

/// Where the proxy listens, and its tasks.
pub struct Bound {
    /// The agents' door.
    pub listen: SocketAddr,
    /// Listeners of routes of their own, by route.
    pub routes: BTreeMap<String, SocketAddr>,
    /// They end after `shutdown`: nothing is accepted any more. Connections go on; `connections` knows of them.
    pub tasks: JoinSet<()>,
    /// For streams that did not come through a listener of this process.
    pub entrance: Arc<Entrance>,
}

/// Where streams come in that another process, or nobody yet, has accepted.
pub struct Entrance {
    app: Arc<HttpProxy<Gate>>,
    broker: Arc<Broker>,
    connections: Arc<Connections>,
    shutdown: watch::Receiver<bool>,
}

impl Entrance {
    /// Serves a connection that the process before relays.
    pub async fn relayed(&self, stream: UnixStream, origin: Origin) {
        self.serve(Box::new(L4::from(stream)), Origin { relayed: true, ..origin }).await;
    }

    /// Serves a connection that was waiting when its listener stopped.
    pub async fn late(&self, stream: TcpStream, socket: &str) {
        let route = socket.strip_prefix("route:").map(str::to_owned);
        let peer = stream.peer_addr().ok().map(|peer| peer.ip());
        let mut stream = L4::from(stream);
        if stream.set_nodelay().is_ok() {
            self.serve(Box::new(stream), Origin { route, peer, relayed: false }).await;
        }
    }

    async fn serve(&self, stream: Stream, origin: Origin) {
        let (inner, broker) = (self.app.clone(), self.broker.clone());
        let doorway = Arc::new(Doorway { inner, broker, connections: self.connections.clone(), origin });
        let mut again = doorway.process_new(stream, &self.shutdown).await;
        while let Some(stream) = again {
            again = doorway.process_new(stream, &self.shutdown).await;
        }
    }
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

/// Takes or binds all sockets, then accepts until `shutdown` turns true. On `Err` nothing is served.
pub async fn serve(
    broker: Arc<Broker>,
    options: ProxyOptions,
    sockets: &mut Sockets,
    shutdown: watch::Receiver<bool>,
) -> Result<Bound, ProxyError> {
    let mut listeners = vec![(None, sockets.open(sockets::AGENTS, options.listen)?)];
    for (route, addr) in broker.snapshot().listeners() {
        listeners.push((Some(route.clone()), sockets.open(&sockets::of_route(&route), addr)?));
    }
    // The default would sleep five minutes at every end.
    let conf = Arc::new(ServerConf { grace_period_seconds: Some(0), max_retries: 1, ..ServerConf::default() });
    let gate = Gate { broker: broker.clone(), dialer: options.dialer.clone(), api: options.api };
    let app = Arc::new(http_proxy(&conf, gate));
    let connections = options.connections;
    let entrance = Arc::new(Entrance {
        app: app.clone(),
        broker: broker.clone(),
        connections: connections.clone(),
        shutdown: shutdown.clone(),
    });
    let mut bound = Bound { listen: options.listen, routes: BTreeMap::new(), tasks: JoinSet::new(), entrance };
    for (route, listener) in &listeners {
        let addr = listener.local_addr().map_err(|source| ProxyError::Bind { addr: options.listen, source })?;
        options.dialer.own(addr);
        match route {
            None => bound.listen = addr,
            Some(route) => {
                bound.routes.insert(route.clone(), addr);
            }
        }
    }
    for (route, listener) in listeners {
        let origin = Origin { route: route.clone(), ..Origin::default() };
        let name = listener.local_addr().map_or_else(|_| options.listen.to_string(), |addr| addr.to_string());
        let (inner, broker) = (app.clone(), broker.clone());
        let doorway = Doorway { inner, broker, connections: connections.clone(), origin };
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
