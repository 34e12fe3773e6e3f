//! Approvals: seen by admins and approvers, settled by approvers alone.

use std::sync::Arc;

use aegis_broker::{
    Broker,
    store::{ApprovalStatus, PersonRecord},
};
use axum::{Json, extract::State};
use serde::Deserialize;
use serde::de::{IntoDeserializer, value};
use serde_json::Value;

use crate::{
    answers::{Approval, Approvals},
    auth::{Approver, Person},
    body::{Id, Query, Request, limit},
    doors::to_the_end,
    error::{ApiError, Failure},
    requests::{ApprovalQuery, Nothing},
};

/// Approvals, newest first, without their payloads.
#[utoipa::path(get, path = "/v1/approvals", tag = "approvals", params(ApprovalQuery),
    responses((status = 200, body = Approvals)), security(("admin" = []), ("approver" = [])))]
pub(crate) async fn list_approvals(
    State(broker): State<Arc<Broker>>,
    _: Person,
    Query(query): Query<ApprovalQuery>,
) -> Result<Json<Approvals>, Failure> {
    let limit = limit(query.limit, 50, 500)?;
    let status = query.status.as_deref().map(status).transpose()?;
    let found = broker.store.approvals(query.agent_id.as_deref(), status, limit, broker.env.clock.now()).await?;
    Ok(Json(Approvals { approvals: found.into_iter().map(Into::into).collect() }))
}

/// One approval, with its payload while it waits. An agent sees its own, without the payload.
#[utoipa::path(get, path = "/v1/approvals/{id}", tag = "approvals",
    params(("id" = String, Path, description = "`approval_id`")),
    responses((status = 200, body = Approval)), security(("agent" = []), ("admin" = []), ("approver" = [])))]
pub(crate) async fn get_approval(
    State(broker): State<Arc<Broker>>,
    _: Person,
    Id(id): Id,
) -> Result<Json<Approval>, Failure> {
    let record = broker.store.approval(&id, broker.env.clock.now()).await?.ok_or(ApiError::NotFound("approval"))?;
    let payload = match broker.approval_payload(&record) {
        Some(Value::Array(calls)) => Some(calls),
        _ => None,
    };
    Ok(Json(Approval { payload, ..record.into() }))
}

/// One person's yes. The last one that was needed approves.
#[utoipa::path(post, path = "/v1/approvals/{id}/approve", tag = "approvals", request_body = Option<Nothing>,
    params(("id" = String, Path, description = "`approval_id`")),
    responses((status = 200, body = Approval)), security(("approver" = [])))]
pub(crate) async fn approve(
    State(broker): State<Arc<Broker>>,
    Approver(person): Approver,
    Id(id): Id,
    request: Request,
) -> Result<Json<Approval>, Failure> {
    settle(broker, person, id, request, true).await
}

/// One person's no, which settles at once.
#[utoipa::path(post, path = "/v1/approvals/{id}/reject", tag = "approvals", request_body = Option<Nothing>,
    params(("id" = String, Path, description = "`approval_id`")),
    responses((status = 200, body = Approval)), security(("approver" = [])))]
pub(crate) async fn reject(
    State(broker): State<Arc<Broker>>,
    Approver(person): Approver,
    Id(id): Id,
    request: Request,
) -> Result<Json<Approval>, Failure> {
    settle(broker, person, id, request, false).await
}

async fn settle(
    broker: Arc<Broker>,
    person: PersonRecord,
    id: String,
    request: Request,
    yes: bool,
) -> Result<Json<Approval>, Failure> {
    request.optional_json::<Nothing>().await?;
    let settled = to_the_end(async move { broker.settle(&id, &person, yes).await }).await?;
    Ok(Json(settled.into()))
}

fn status(text: &str) -> Result<ApprovalStatus, ApiError> {
    let word: value::StrDeserializer<'_, value::Error> = text.into_deserializer();
    ApprovalStatus::deserialize(word).map_err(|_| {
        let words = "`status`: expected `pending`, `approved`, `rejected`, `expired`, `consumed` or `cancelled`";
        ApiError::invalid("bad_query", words)
    })
}
