//! The API behind the agents' door and the admins' listener.

use std::{
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use aegis_api::{AdminOptions, CaFuture, CaRefused, CaView, CertificateAuthority, Peer, admin_router, agent_router};
use aegis_broker::Broker;
use aegis_proxy::{AgentApi, Authority, CaError, CaOptions, CaStatus};
use axum::{
    Router,
    body::{Body, to_bytes},
};
use bytes::Bytes;
use http::StatusCode;
use tokio::{
    net::TcpListener,
    sync::{OnceCell, watch},
};
use tower::ServiceExt as _;

use crate::{
    reload::{Reloader, stopped},
    webhooks,
};

/// The agents' API as the proxy calls it.
pub fn agents(broker: Arc<Broker>, ca: Arc<Ca>) -> AgentApi {
    let router = agent_router(broker, ca);
    Arc::new(move |request, peer| {
        let router = router.clone();
        Box::pin(async move { call(router, request.map(Body::from), peer).await })
    })
}

/// The admins' API as a router that still lacks its callers' addresses.
pub fn admins(broker: Arc<Broker>, reloader: Arc<Reloader>, ca: Arc<Ca>) -> Router {
    let reload = Arc::new(move || {
        let reloader = reloader.clone();
        Box::pin(async move { reloader.reload().await }) as Pin<Box<dyn Future<Output = _> + Send>>
    });
    admin_router(broker, AdminOptions { reload, ca, slack_reply: webhooks::slack_reply() })
}

/// The certificate authority, opened by whoever needs it first: most short commands never do.
pub struct Ca {
    options: CaOptions,
    broker: Arc<Broker>,
    opened: OnceCell<Arc<Authority>>,
}

impl Ca {
    /// Nothing is read or made yet.
    pub fn new(options: CaOptions, broker: Arc<Broker>) -> Arc<Self> {
        Arc::new(Self { options, broker, opened: OnceCell::new() })
    }

    /// The authority; the first call makes what is missing of it.
    pub async fn authority(&self) -> Result<&Arc<Authority>, CaError> {
        self.opened.get_or_try_init(|| Authority::open(self.options.clone(), self.broker.clone())).await
    }
}

impl CertificateAuthority for Ca {
    fn status(&self) -> CaFuture<'_> {
        Box::pin(async { view(self.authority().await.map_err(refused)?.status().await) })
    }

    fn rotate(&self, overlap: Duration) -> CaFuture<'_> {
        Box::pin(async move { view(self.authority().await.map_err(refused)?.rotate(overlap).await) })
    }

    fn finish(&self) -> CaFuture<'_> {
        Box::pin(async { view(self.authority().await.map_err(refused)?.finish_rotation().await) })
    }
}

fn view(status: Result<CaStatus, CaError>) -> Result<CaView, CaRefused> {
    let status = status.map_err(refused)?;
    Ok(CaView {
        roots: status.roots.into_iter().map(|r| (r.fingerprint, r.subject, r.not_before, r.not_after)).collect(),
        bundle: status.bundle,
        rotates_at: status.rotates_at,
        intermediate_expires_at: status.intermediate_not_after,
        provided: status.provided,
    })
}

fn refused(error: CaError) -> CaRefused {
    match error {
        CaError::Rotating | CaError::NotRotating | CaError::NotOurs => CaRefused::Conflict(error.to_string()),
        CaError::Unrecorded(why) => CaRefused::Unrecorded(why),
        other => CaRefused::Failed(other.to_string()),
    }
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
