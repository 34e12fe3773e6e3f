//! Credentials: values go in and never come out.

use std::sync::Arc;

use aegis_broker::{Broker, secret::Secret};
use axum::{Json, extract::State};
use http::StatusCode;

use crate::{
    answers::{Credentials, StoredCredential},
    auth::Admin,
    body::{Id, Request},
    doors::to_the_end,
    error::{ApiError, Failure},
    requests::PutCredential,
};

/// Credentials by name, without values: those that `routes.toml` names, then what else the embedded vault holds.
#[utoipa::path(get, path = "/v1/credentials", tag = "credentials",
    responses((status = 200, body = Credentials)), security(("admin" = [])))]
pub(crate) async fn list_credentials(State(broker): State<Arc<Broker>>, _: Admin) -> Json<Credentials> {
    Json(Credentials { credentials: broker.credentials().await.into_iter().map(Into::into).collect() })
}

/// Stores or replaces a value in the embedded vault. The next request uses it.
#[utoipa::path(put, path = "/v1/credentials/{name}", tag = "credentials", request_body = PutCredential,
    params(("name" = String, Path, description = "as in `routes.toml`")),
    responses((status = 200, body = StoredCredential)), security(("admin" = [])))]
pub(crate) async fn put_credential(
    State(broker): State<Arc<Broker>>,
    Admin(admin): Admin,
    Id(name): Id,
    request: Request,
) -> Result<Json<StoredCredential>, Failure> {
    let value = Secret::from(request.json::<PutCredential>().await?.value);
    to_the_end(async move {
        let version = broker.store_credential(&name, value, &admin.person_id).await?;
        Ok::<_, Failure>(Json(StoredCredential { name, vault: "embedded".into(), version }))
    })
    .await
}

/// Removes a value from the embedded vault. The next request that needs it is denied.
#[utoipa::path(delete, path = "/v1/credentials/{name}", tag = "credentials",
    params(("name" = String, Path, description = "as in `routes.toml`")),
    responses((status = 204)), security(("admin" = [])))]
pub(crate) async fn remove_credential(
    State(broker): State<Arc<Broker>>,
    Admin(admin): Admin,
    Id(name): Id,
) -> Result<StatusCode, Failure> {
    match to_the_end(async move { broker.remove_credential(&name, &admin.person_id).await }).await? {
        true => Ok(StatusCode::NO_CONTENT),
        false => Err(ApiError::NotFound("credential").into()),
    }
}
