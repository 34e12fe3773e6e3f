//! What both doors have in common: answers to the lost, headers on everything, work that is not cut short.

use std::future::Future;

use axum::{
    Json, Router,
    extract::Request,
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::get,
};
use http::{HeaderValue, Method, header};

use crate::{
    answers::Health,
    error::{ApiError, Failure},
    openapi,
};

/// Adds what every door has. Nothing is answered outside of it.
pub(crate) fn door<S: Clone + Send + Sync + 'static>(routes: Router<S>, state: S) -> Router {
    routes
        .route("/health", get(health))
        .route("/openapi.json", get(openapi::serve))
        .fallback(no_path)
        .method_not_allowed_fallback(bad_method)
        .with_state(state)
        .layer(middleware::from_fn(guard))
}

/// Runs a change to its end: a client that goes away cancels nothing that was begun.
pub(crate) async fn to_the_end<T, E>(work: impl Future<Output = Result<T, E>> + Send + 'static) -> Result<T, Failure>
where
    T: Send + 'static,
    E: Into<Failure> + Send + 'static,
{
    match tokio::spawn(work).await {
        Ok(result) => result.map_err(Into::into),
        Err(e) => Err(ApiError::Internal { cause: e.to_string() }.into()),
    }
}

/// Whether the process answers.
#[utoipa::path(get, path = "/health", tag = "operations", responses((status = 200, body = Health)))]
pub(crate) async fn health() -> Json<Health> {
    Json(Health { status: "ok".to_owned() })
}

async fn guard(request: Request, next: Next) -> Response {
    // axum would answer HEAD with the work of GET.
    let mut response = match request.method() {
        &Method::HEAD => Failure::from(ApiError::Method(Method::HEAD)).into_response(),
        _ => next.run(request).await,
    };
    if response.status() == http::StatusCode::METHOD_NOT_ALLOWED {
        let allowed = response.headers().get(header::ALLOW).and_then(|v| v.to_str().ok()).unwrap_or("GET");
        let without_head: Vec<&str> =
            allowed.split(',').map(str::trim).filter(|m| !m.is_empty() && *m != "HEAD").collect();
        if let Ok(value) = HeaderValue::try_from(without_head.join(", ")) {
            response.headers_mut().insert(header::ALLOW, value);
        }
    }
    // Tokens are shown once, not once more from a cache.
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

async fn no_path() -> Failure {
    ApiError::NoPath.into()
}

async fn bad_method(method: Method) -> Failure {
    ApiError::Method(method).into()
}
