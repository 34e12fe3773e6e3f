//! The admins' door: agents, approvers, approvals, evidence, credentials, operations.

mod agents;
mod approvals;
mod approvers;
mod credentials;
mod grants;
mod operations;
mod sessions;

use std::{future::Future, pin::Pin, sync::Arc};

use aegis_broker::{Broker, admit::AdmitError, reload::Reload};
use axum::{
    Json, Router,
    extract::{FromRef, State},
    routing::{delete, get, post, put},
};

use crate::{
    answers::{Action, Actions},
    auth::Person,
    body::{Id, Query},
    ca::{self, CertificateAuthority},
    catalog,
    doors::door,
    error::Failure,
    evidence,
    pages::{self, Sessions},
    requests::Search,
    slack::{self, SlackReply},
    throttle::Throttle,
};
pub(crate) use {agents::*, approvals::*, approvers::*, credentials::*, grants::*, operations::*, sessions::*};

/// Reads the configuration from where it is kept and hands it to [`Broker::reload`].
pub type ReloadFn = Arc<dyn Fn() -> Pin<Box<dyn Future<Output = Result<Reload, ReloadError>> + Send>> + Send + Sync>;

/// Why a reload came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// A file cannot be read; says which and why.
    #[error("{0}")]
    Unreadable(String),
    /// The new configuration cannot be put on record.
    #[error(transparent)]
    Admit(#[from] AdmitError),
}

/// What the admins' door needs besides the broker.
#[derive(Clone)]
pub struct AdminOptions {
    /// `POST /v1/reload`.
    pub reload: ReloadFn,
    /// `/v1/ca`.
    pub ca: Arc<dyn CertificateAuthority>,
    /// Answers to clicks in Slack.
    pub slack_reply: SlackReply,
}

/// What admins and approvers may ask, to be served on the admin listener.
///
/// Serve it with `into_make_service_with_connect_info::<SocketAddr>()`, or set
/// [`crate::Peer`] on every request, so that failed authentications are counted by address.
/// Tokens of admins and approvers are let in by role; agents' tokens never are.
pub fn admin_router(broker: Arc<Broker>, admin: AdminOptions) -> Router {
    let routes = Router::new()
        .route("/v1/agents", get(list_agents))
        .route("/v1/agents/register", post(register))
        .route("/v1/agents/{id}", get(get_agent))
        .route("/v1/agents/{id}/rotate", post(rotate))
        .route("/v1/agents/{id}/freeze", post(freeze))
        .route("/v1/agents/{id}/unfreeze", post(unfreeze))
        .route("/v1/agents/{id}/quarantine", post(quarantine))
        .route("/v1/agents/{id}/revoke", post(revoke))
        .route("/v1/agents/{id}/sessions", post(start_session))
        .route("/v1/agents/{id}/sessions/{session}", delete(end_session))
        .route("/v1/agents/{id}/sessions/{session}/renew", post(renew_session))
        .route("/v1/approvers", get(list_approvers).post(add_approver))
        .route("/v1/approvers/{id}/revoke", post(revoke_approver))
        .route("/v1/approvals", get(list_approvals))
        .route("/v1/approvals/{id}", get(get_approval))
        .route("/v1/approvals/{id}/approve", post(approve))
        .route("/v1/approvals/{id}/reject", post(reject))
        .route("/v1/grants", get(list_grants).post(give_grant))
        .route("/v1/grants/{id}/revoke", post(revoke_grant))
        .route("/v1/decisions", get(evidence::decisions))
        .route("/v1/receipts", get(evidence::receipts))
        .route("/v1/receipts/{id}", get(evidence::receipt))
        .route("/v1/receipts/{id}/bundle", get(evidence::bundle))
        .route("/v1/why/{receipt}", get(evidence::why))
        .route("/v1/actions", get(actions))
        .route("/v1/actions/{name}", get(action))
        .route("/v1/credentials", get(list_credentials))
        .route("/v1/credentials/{name}", put(put_credential).delete(remove_credential))
        .route("/v1/ca", get(ca::bundle))
        .route("/v1/ca/status", get(ca::ca_status))
        .route("/v1/ca/rotate", post(ca::rotate_ca))
        .route("/v1/ca/finish", post(ca::finish_ca))
        .route("/v1/reload", post(reload))
        .route("/ready", get(ready))
        .route("/metrics", get(metrics))
        .route("/slack/actions", post(slack::actions))
        .merge(pages::routes());
    let AdminOptions { reload, ca, slack_reply } = admin;
    door(
        routes,
        AdminState(Arc::new(Inner {
            broker,
            reload,
            ca,
            slack_reply,
            throttle: Throttle::default(),
            sessions: Sessions::default(),
        })),
    )
}

/// State of the admins' door.
#[derive(Clone)]
pub(crate) struct AdminState(Arc<Inner>);

struct Inner {
    broker: Arc<Broker>,
    reload: ReloadFn,
    ca: Arc<dyn CertificateAuthority>,
    slack_reply: SlackReply,
    throttle: Throttle,
    sessions: Sessions,
}

impl AdminState {
    pub(crate) fn broker(&self) -> &Broker {
        &self.0.broker
    }
    pub(crate) fn throttle(&self) -> &Throttle {
        &self.0.throttle
    }
    pub(crate) fn sessions(&self) -> &Sessions {
        &self.0.sessions
    }
    pub(crate) fn reload(&self) -> ReloadFn {
        self.0.reload.clone()
    }
    pub(crate) fn slack_reply(&self) -> SlackReply {
        self.0.slack_reply.clone()
    }
    pub(crate) fn ca(&self) -> Arc<dyn CertificateAuthority> {
        self.0.ca.clone()
    }
}

impl FromRef<AdminState> for Arc<Broker> {
    fn from_ref(state: &AdminState) -> Self {
        state.0.broker.clone()
    }
}

/// Searches the catalog of actions and the declared tools.
#[utoipa::path(get, path = "/v1/actions", tag = "catalog", params(Search), responses((status = 200, body = Actions)),
    security(("agent" = []), ("admin" = []), ("approver" = [])))]
pub(crate) async fn actions(
    State(broker): State<Arc<Broker>>,
    _: Person,
    Query(query): Query<Search>,
) -> Result<Json<Actions>, Failure> {
    Ok(Json(catalog::search(&broker, query.q.as_deref(), query.limit)?))
}

/// One catalog entry by its whole name.
#[utoipa::path(get, path = "/v1/actions/{name}", tag = "catalog",
    params(("name" = String, Path, description = "`tool.action`")), responses((status = 200, body = Action)),
    security(("agent" = []), ("admin" = []), ("approver" = [])))]
pub(crate) async fn action(
    State(broker): State<Arc<Broker>>,
    _: Person,
    Id(name): Id,
) -> Result<Json<Action>, Failure> {
    Ok(Json(catalog::named(&broker, &name)?))
}
