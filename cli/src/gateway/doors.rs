//! The API behind the agents' door and the admins' listener.

use std::{
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::Arc,
};

use aegis_api::{AdminOptions, Peer, admin_router, agent_router};
use aegis_broker::Broker;
use aegis_proxy::AgentApi;
use axum::{
    Router,
    body::{Body, to_bytes},
};
use bytes::Bytes;
use http::StatusCode;
use tokio::{net::TcpListener, sync::watch};
use tower::ServiceExt as _;

use crate::reload::{Reloader, stopped};

/// The agents' API as the proxy calls it.
pub fn agents(broker: Arc<Broker>) -> AgentApi {
    let router = agent_router(broker);
    Arc::new(move |request, peer| {
        let router = router.clone();
        Box::pin(async move { call(router, request.map(Body::from), peer).await })
    })
}

/// The admins' API as a router that still lacks its callers' addresses.
pub fn admins(broker: Arc<Broker>, reloader: Arc<Reloader>) -> Router {
    let reload = Arc::new(move || {
        let reloader = reloader.clone();
        Box::pin(async move { reloader.reload().await }) as Pin<Box<dyn Future<Output = _> + Send>>
    });
    admin_router(broker, AdminOptions { reload })
}

/// One request in process.
pub async fn call(router: Router, mut request: http::Request<Body>, peer: Option<IpAddr>) -> http::Response<Bytes> {
    request.extensions_mut().insert(Peer(peer));
    let answer = match router.oneshot(request).await {
        Ok(answer) => answer,
        Err(never) => match never {},
    };
    let (head, body) = answer.into_parts();
    match to_bytes(body, MAX_ANSWER).await {
        Ok(bytes) => http::Response::from_parts(head, bytes),
        Err(_) => {
            let mut failed = http::Response::new(Bytes::new());
            *failed.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
            failed
        }
    }
}

/// Serves the admins' API until `shutdown` turns true and what is in flight has ended.
pub async fn serve_admins(listener: TcpListener, router: Router, mut shutdown: watch::Receiver<bool>) {
    let router = router.into_make_service_with_connect_info::<SocketAddr>();
    let stop = async move { stopped(&mut shutdown).await };
    if let Err(error) = axum::serve(listener, router).with_graceful_shutdown(stop).await {
        tracing::error!(%error, "the admin listener failed");
    }
}

/// Larger than any page the API answers with.
const MAX_ANSWER: usize = 64 << 20;
