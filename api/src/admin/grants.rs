//! Grants: given by approvers, ended by approvers and admins.

use std::sync::Arc;

use aegis_broker::{Broker, grants::GrantRequest};
use axum::{Json, extract::State};
use http::StatusCode;

use crate::{
    answers::{Grant, Grants},
    auth::{Approver, Person},
    body::{Id, Query, Request, limit},
    doors::to_the_end,
    error::Failure,
    requests::{GiveGrant, GrantQuery, Nothing},
};

/// A person's yes in advance: one agent, one action, one resource, for some time. It lifts gates that want one
/// person of a group.
#[utoipa::path(post, path = "/v1/grants", tag = "approvals", request_body = GiveGrant,
    responses((status = 201, body = Grant)), security(("approver" = [])))]
pub(crate) async fn give_grant(
    State(broker): State<Arc<Broker>>,
    Approver(person): Approver,
    request: Request,
) -> Result<(StatusCode, Json<Grant>), Failure> {
    let body = request.json::<GiveGrant>().await?;
    let asked = GrantRequest {
        agent_id: body.agent_id,
        action: body.action,
        resource: body.resource,
        groups: body.groups,
        ttl_seconds: body.ttl_seconds,
        reason: body.reason,
    };
    let now = broker.env.clock.now();
    let given = to_the_end(async move { broker.grant(asked, &person).await }).await?;
    Ok((StatusCode::CREATED, Json(Grant::at(given, now))))
}

/// Grants, newest first.
#[utoipa::path(get, path = "/v1/grants", tag = "approvals", params(GrantQuery),
    responses((status = 200, body = Grants)), security(("admin" = []), ("approver" = [])))]
pub(crate) async fn list_grants(
    State(broker): State<Arc<Broker>>,
    _: Person,
    Query(query): Query<GrantQuery>,
) -> Result<Json<Grants>, Failure> {
    let limit = limit(query.limit, 50, 500)?;
    let now = broker.env.clock.now();
    let found = broker.store.grants(query.agent_id.as_deref(), limit).await?;
    Ok(Json(Grants { grants: found.into_iter().map(|g| Grant::at(g, now)).collect() }))
}

/// Ends a grant; in force for the next decision.
#[utoipa::path(post, path = "/v1/grants/{id}/revoke", tag = "approvals", request_body = Option<Nothing>,
    params(("id" = String, Path, description = "`grant_id`")), responses((status = 204)),
    security(("admin" = []), ("approver" = [])))]
pub(crate) async fn revoke_grant(
    State(broker): State<Arc<Broker>>,
    Person(person): Person,
    Id(id): Id,
    request: Request,
) -> Result<StatusCode, Failure> {
    request.optional_json::<Nothing>().await?;
    to_the_end(async move { broker.revoke_grant(&id, &person.person_id).await }).await?;
    Ok(StatusCode::NO_CONTENT)
}
