//! Approvers: people with a credential of their own.

use std::sync::Arc;

use aegis_broker::{Broker, store::PersonRole};
use axum::{Json, extract::State};
use http::StatusCode;

use crate::{
    answers::{Approver, Approvers, IssuedApprover},
    auth::Admin,
    body::{Id, Query, Request, limit},
    convert::instant,
    doors::to_the_end,
    error::{ApiError, Failure},
    requests::{AddApprover, Nothing, Page},
};

/// Adds an approver.
#[utoipa::path(post, path = "/v1/approvers", tag = "approvers", request_body = AddApprover,
    responses((status = 201, body = IssuedApprover)), security(("admin" = [])))]
pub(crate) async fn add_approver(
    State(broker): State<Arc<Broker>>,
    _: Admin,
    request: Request,
) -> Result<(StatusCode, Json<IssuedApprover>), Failure> {
    let body = request.json::<AddApprover>().await?;
    if body.ttl_seconds.is_some_and(|ttl| !(1..=MAX_TTL).contains(&ttl)) {
        return Err(ApiError::invalid("bad_field", format!("`ttl_seconds`: must be 1 to {MAX_TTL}")).into());
    }
    let (person, token) = to_the_end(async move {
        let AddApprover { name, groups, email, slack_user, ttl_seconds } = body;
        broker.add_person(&name, PersonRole::Approver, groups, email, slack_user, ttl_seconds).await
    })
    .await?;
    let issued = IssuedApprover {
        person_id: person.person_id,
        approver_token: String::from_utf8_lossy(token.expose()).into_owned(),
        name: person.name,
        groups: person.groups,
        expires_at: person.expires_at.map(instant),
    };
    Ok((StatusCode::CREATED, Json(issued)))
}

/// Approvers, oldest first.
#[utoipa::path(get, path = "/v1/approvers", tag = "approvers", params(Page),
    responses((status = 200, body = Approvers)), security(("admin" = [])))]
pub(crate) async fn list_approvers(
    State(broker): State<Arc<Broker>>,
    _: Admin,
    Query(page): Query<Page>,
) -> Result<Json<Approvers>, Failure> {
    let limit = limit(page.limit, 50, 500)? as usize;
    let mut all = broker.store.people().await?;
    all.retain(|p| p.role == PersonRole::Approver);
    let from = match &page.after {
        None => 0,
        Some(id) => all.iter().position(|p| p.person_id == *id).ok_or(ApiError::NotFound("approver"))? + 1,
    };
    let more = all.len() > from + limit;
    let approvers: Vec<Approver> = all.into_iter().skip(from).take(limit).map(Into::into).collect();
    let next = more.then(|| approvers.last().map(|a| a.person_id.clone())).flatten();
    Ok(Json(Approvers { approvers, next }))
}

/// Ends an approver's access, and the grants that they gave. What they approved stays approved.
#[utoipa::path(post, path = "/v1/approvers/{id}/revoke", tag = "approvers", request_body = Option<Nothing>,
    params(("id" = String, Path, description = "`person_id`")), responses((status = 204)), security(("admin" = [])))]
pub(crate) async fn revoke_approver(
    State(broker): State<Arc<Broker>>,
    _: Admin,
    Id(id): Id,
    request: Request,
) -> Result<StatusCode, Failure> {
    request.optional_json::<Nothing>().await?;
    // Admins are people of the store too, and are not ended here.
    let people = broker.store.people().await?;
    if !people.iter().any(|p| p.person_id == id && p.role == PersonRole::Approver) {
        return Err(ApiError::NotFound("approver").into());
    }
    to_the_end(async move { broker.revoke_person(&id).await }).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Ten years.
const MAX_TTL: i64 = 315_360_000;
