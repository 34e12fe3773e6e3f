//! Sessions: a token for one run of an agent.

use std::sync::Arc;

use aegis_broker::Broker;
use axum::{Json, extract::State};
use http::StatusCode;

use crate::{
    answers::{IssuedSession, Session},
    auth::Admin,
    body::{Id, Ids, Request},
    convert::instant,
    doors::to_the_end,
    error::Failure,
    requests::Lease,
};

/// A token for one run, beside the agent's others. It ends with its lease unless it is renewed.
#[utoipa::path(post, path = "/v1/agents/{id}/sessions", tag = "agents", request_body = Option<Lease>,
    params(("id" = String, Path, description = "`agent_id`")),
    responses((status = 201, body = IssuedSession)), security(("admin" = [])))]
pub(crate) async fn start_session(
    State(broker): State<Arc<Broker>>,
    _: Admin,
    Id(id): Id,
    request: Request,
) -> Result<(StatusCode, Json<IssuedSession>), Failure> {
    let body = request.optional_json::<Lease>().await?;
    let started = to_the_end(async move { broker.start_session(&id, body.lease_seconds).await }).await?;
    Ok((StatusCode::CREATED, Json(started.into())))
}

/// Another lease from now on. A session that is over is a conflict.
#[utoipa::path(post, path = "/v1/agents/{id}/sessions/{session}/renew", tag = "agents", request_body = Option<Lease>,
    params(("id" = String, Path, description = "`agent_id`"), ("session" = String, Path, description = "`session_id`")),
    responses((status = 200, body = Session)), security(("admin" = [])))]
pub(crate) async fn renew_session(
    State(broker): State<Arc<Broker>>,
    _: Admin,
    Ids(agent_id, session_id): Ids,
    request: Request,
) -> Result<Json<Session>, Failure> {
    let body = request.optional_json::<Lease>().await?;
    to_the_end(async move {
        let until = broker.renew_session(&agent_id, &session_id, body.lease_seconds).await;
        until.map(|until| Json(Session { session_id, agent_id, expires_at: instant(until) }))
    })
    .await
}

/// Ends a session; in force for everything in flight when this returns.
#[utoipa::path(delete, path = "/v1/agents/{id}/sessions/{session}", tag = "agents",
    params(("id" = String, Path, description = "`agent_id`"), ("session" = String, Path, description = "`session_id`")),
    responses((status = 204)), security(("admin" = [])))]
pub(crate) async fn end_session(
    State(broker): State<Arc<Broker>>,
    _: Admin,
    Ids(agent_id, session_id): Ids,
) -> Result<StatusCode, Failure> {
    to_the_end(async move { broker.end_session(&agent_id, &session_id).await }).await?;
    Ok(StatusCode::NO_CONTENT)
}
