//! Agents: enrolment, tokens, containment.

use std::sync::Arc;

use aegis_broker::{Broker, store::AgentState};
use axum::{Json, extract::State};
use http::StatusCode;

use crate::{
    answers::{Agent, Agents, IssuedToken},
    auth::Admin,
    body::{Id, Query, Request, limit},
    doors::to_the_end,
    error::{ApiError, Failure},
    requests::{Nothing, Page, Register, Rotate},
};

/// Enrols an agent. A known `agent_key` is a conflict; it never lifts a freeze or a quarantine.
#[utoipa::path(post, path = "/v1/agents/register", tag = "agents", request_body = Register,
    responses((status = 201, body = IssuedToken)), security(("admin" = [])))]
pub(crate) async fn register(
    State(broker): State<Arc<Broker>>,
    _: Admin,
    request: Request,
) -> Result<(StatusCode, Json<IssuedToken>), Failure> {
    let body = request.json::<Register>().await?;
    let enrolled = to_the_end(async move { broker.register(body.into()).await }).await?;
    Ok((StatusCode::CREATED, Json(enrolled.into())))
}

/// Agents, oldest first.
#[utoipa::path(get, path = "/v1/agents", tag = "agents", params(Page),
    responses((status = 200, body = Agents)), security(("admin" = [])))]
pub(crate) async fn list_agents(
    State(broker): State<Arc<Broker>>,
    _: Admin,
    Query(page): Query<Page>,
) -> Result<Json<Agents>, Failure> {
    let limit = limit(page.limit, 50, 500)? as usize;
    let all = broker.store.agents().await?;
    let from = match &page.after {
        None => 0,
        Some(id) => all.iter().position(|a| a.agent_id == *id).ok_or(ApiError::NotFound("agent"))? + 1,
    };
    let more = all.len() > from + limit;
    let agents: Vec<Agent> = all.into_iter().skip(from).take(limit).map(Into::into).collect();
    let next = more.then(|| agents.last().map(|a| a.agent_id.clone())).flatten();
    Ok(Json(Agents { agents, next }))
}

/// One agent.
#[utoipa::path(get, path = "/v1/agents/{id}", tag = "agents", params(("id" = String, Path, description = "`agent_id`")),
    responses((status = 200, body = Agent)), security(("admin" = [])))]
pub(crate) async fn get_agent(State(broker): State<Arc<Broker>>, _: Admin, Id(id): Id) -> Result<Json<Agent>, Failure> {
    let agent = broker.store.agent(&id).await?.ok_or(ApiError::NotFound("agent"))?;
    Ok(Json(agent.into()))
}

/// A new token for an agent, whatever its state, which is left as it is.
#[utoipa::path(post, path = "/v1/agents/{id}/rotate", tag = "agents", request_body = Option<Rotate>,
    params(("id" = String, Path, description = "`agent_id`")),
    responses((status = 200, body = IssuedToken)), security(("admin" = [])))]
pub(crate) async fn rotate(
    State(broker): State<Arc<Broker>>,
    _: Admin,
    Id(id): Id,
    request: Request,
) -> Result<Json<IssuedToken>, Failure> {
    let body = request.optional_json::<Rotate>().await?;
    let overlap = body.overlap_seconds.unwrap_or(0);
    if !(0..=3600).contains(&overlap) {
        return Err(ApiError::invalid("bad_field", "`overlap_seconds`: must be 0 to 3600").into());
    }
    let rotated = to_the_end(async move { broker.rotate(&id, body.ttl_seconds, overlap).await }).await?;
    Ok(Json(rotated.into()))
}

/// Stops an active agent; in force for everything in flight when this returns.
#[utoipa::path(post, path = "/v1/agents/{id}/freeze", tag = "agents", request_body = Option<Nothing>,
    params(("id" = String, Path, description = "`agent_id`")),
    responses((status = 200, body = Agent)), security(("admin" = [])))]
pub(crate) async fn freeze(
    state: State<Arc<Broker>>,
    admin: Admin,
    id: Id,
    request: Request,
) -> Result<Json<Agent>, Failure> {
    transition(state, admin, id, request, AgentState::Frozen).await
}

/// Lets a frozen or quarantined agent act again.
#[utoipa::path(post, path = "/v1/agents/{id}/unfreeze", tag = "agents", request_body = Option<Nothing>,
    params(("id" = String, Path, description = "`agent_id`")),
    responses((status = 200, body = Agent)), security(("admin" = [])))]
pub(crate) async fn unfreeze(
    state: State<Arc<Broker>>,
    admin: Admin,
    id: Id,
    request: Request,
) -> Result<Json<Agent>, Failure> {
    transition(state, admin, id, request, AgentState::Active).await
}

/// Stops an agent that is under suspicion.
#[utoipa::path(post, path = "/v1/agents/{id}/quarantine", tag = "agents", request_body = Option<Nothing>,
    params(("id" = String, Path, description = "`agent_id`")),
    responses((status = 200, body = Agent)), security(("admin" = [])))]
pub(crate) async fn quarantine(
    state: State<Arc<Broker>>,
    admin: Admin,
    id: Id,
    request: Request,
) -> Result<Json<Agent>, Failure> {
    transition(state, admin, id, request, AgentState::Quarantined).await
}

/// Ends an agent for good.
#[utoipa::path(post, path = "/v1/agents/{id}/revoke", tag = "agents", request_body = Option<Nothing>,
    params(("id" = String, Path, description = "`agent_id`")),
    responses((status = 200, body = Agent)), security(("admin" = [])))]
pub(crate) async fn revoke(
    state: State<Arc<Broker>>,
    admin: Admin,
    id: Id,
    request: Request,
) -> Result<Json<Agent>, Failure> {
    transition(state, admin, id, request, AgentState::Revoked).await
}

async fn transition(
    State(broker): State<Arc<Broker>>,
    _: Admin,
    Id(id): Id,
    request: Request,
    to: AgentState,
) -> Result<Json<Agent>, Failure> {
    request.optional_json::<Nothing>().await?;
    let agent = to_the_end(async move { broker.transition(&id, to).await }).await?;
    Ok(Json(agent.into()))
}
