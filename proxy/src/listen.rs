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
    apps::{HttpServerOptions, ServerApp as _},
    listeners::ListenerConfig,
    protocols::l4::stream::{L4BufferSettings, Stream as L4Stream},
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
    ca::Authority,
    connections::{Connections, Origin},
    dial::{self, Dialer},
    front::{Doorway, Front},
    lifeline::Tied,
    path::Gate,
    sockets::{Listener, Sockets},
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
    /// Takes every connection in.
    pub connections: Arc<Connections>,
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
    /// They end after `shutdown`: nothing is accepted any more. Connections go on; `connections` knows of them.
    pub tasks: JoinSet<()>,
    /// For streams that did not come through a listener of this process.
    pub entrance: Arc<Entrance>,
}

impl Bound {
    /// Names of the sockets that are in use, the admins' door included.
    pub fn names(&self) -> Vec<String> {
        let routes = self.routes.keys().map(|route| Listener::Route(route.clone()).name());
        let tls = self.tls.map(|_| Listener::Tls.name());
        routes.chain(tls).chain([Listener::Agents.name(), crate::sockets::ADMIN.to_owned()]).collect()
    }
}

/// Where streams come in that another process, or nobody yet, has accepted.
pub struct Entrance {
    app: Arc<HttpProxy<Gate>>,
    front: Arc<Front>,
    shutdown: watch::Receiver<bool>,
}

impl Entrance {
    /// Serves a connection that the process before relays.
    pub async fn relayed(&self, stream: UnixStream, origin: Origin) {
        self.serve(L4Stream::from(stream), Origin { relayed: true, ..origin }).await;
    }

    /// Serves a connection that was waiting when its listener stopped.
    pub async fn late(&self, stream: TcpStream, listener: Listener) {
        let (peer, local) = (stream.peer_addr().ok().map(|peer| peer.ip()), stream.local_addr().ok());
        let mut stream = L4Stream::from(stream);
        if stream.set_nodelay().is_ok() {
            self.serve(stream, Origin { listener, peer, local, relayed: false }).await;
        }
    }

    async fn serve(&self, stream: L4Stream, origin: Origin) {
        let doorway = Arc::new(Doorway { inner: self.tied(&origin.listener), front: self.front.clone(), origin });
        doorway.process_new(Box::new(stream), &self.shutdown).await;
    }

    fn tied(&self, listener: &Listener) -> Arc<Tied<HttpProxy<Gate>>> {
        Arc::new(Tied { inner: self.app.clone(), options: options_for(&self.front, listener) })
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
    /// TLS cannot be set up.
    #[error("TLS: {0}")]
    Tls(String),
}

/// Takes or binds all sockets, then accepts until `shutdown` turns true. On `Err` nothing is served.
pub async fn serve(
    broker: Arc<Broker>,
    options: ProxyOptions,
    sockets: &mut Sockets,
    shutdown: watch::Receiver<bool>,
) -> Result<Bound, ProxyError> {
    let mut wanted = vec![(Listener::Agents, options.listen)];
    wanted.extend(options.tls.as_ref().map(|tls| (Listener::Tls, tls.listen)));
    wanted.extend(broker.snapshot().listeners().into_iter().map(|(route, addr)| (Listener::Route(route), addr)));
    // The default would sleep five minutes at every end.
    let conf =
        Arc::new(ServerConf { grace_period_seconds: Some(0), max_retries: dial::TRIES, ..ServerConf::default() });
    let own = options.tls.and_then(|tls| tls.own);
    let tls = Tls::new(options.authority, own, broker.clone()).map_err(|e| ProxyError::Tls(e.to_string()))?;
    let gate = Gate { broker: broker.clone(), dialer: options.dialer.clone(), api: options.api };
    let front = Arc::new(Front { broker, dialer: options.dialer, tls, connections: options.connections });
    let mut app = http_proxy(&conf, gate);
    app.server_options = Some(options_for(&front, &Listener::Agents));
    let entrance = Arc::new(Entrance { app: Arc::new(app), front: front.clone(), shutdown: shutdown.clone() });
    let mut bound =
        Bound { listen: options.listen, tls: None, routes: BTreeMap::new(), tasks: JoinSet::new(), entrance };
    let mut open = Vec::new();
    for (listener, addr) in wanted {
        let socket = sockets.open(&listener.name(), addr)?;
        let addr = socket.local_addr().map_err(|source| ProxyError::Bind { addr, source })?;
        front.dialer.own(addr);
        match &listener {
            Listener::Agents => bound.listen = addr,
            Listener::Tls => bound.tls = Some(addr),
            Listener::Route(route) => drop(bound.routes.insert(route.clone(), addr)),
        }
        open.push((listener, addr.to_string(), socket));
    }
    for (listener, name, socket) in open {
        let inner = bound.entrance.tied(&listener);
        let label = listener.name();
        let origin = Origin { listener, ..Origin::default() };
        let mut service = Service::new(label, Doorway { inner, front: front.clone(), origin });
        // Whoever reads has a buffer of its own; this one would be 64 KiB for each connection.
        let unbuffered = L4BufferSettings::default().read(0);
        service.add_listener(ListenerConfig::tcp(&name).l4_buffer(unbuffered));
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
fn options_for(front: &Front, listener: &Listener) -> HttpServerOptions {
    let mut options = HttpServerOptions::default();
    // A late `CONNECT` reaches the path, which refuses it on record.
    options.allow_connect_method_proxying = true;
    options.h2_idle_timeout = Some(front.connections.limits().keepalive);
    if let Listener::Route(name) = listener {
        let snapshot = front.broker.snapshot();
        let route = snapshot.by_name(name).and_then(|scope| scope.route.as_ref());
        options.h2c = route.is_some_and(|r| r.egress.grpc);
    }
    options
}
