//! The certificate authority: what clients have to trust, and its rotation.

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use aegis_action::Timestamp;
use axum::{
    Json,
    extract::{FromRef, State},
    response::IntoResponse,
};
use http::header;

use crate::{
    admin::AdminState,
    answers::{CaAnswer, CaRoot},
    auth::Admin,
    body::Request,
    convert::instant,
    doors::to_the_end,
    error::{ApiError, Failure},
    requests::{Nothing, RotateCa},
};

/// The authority as the API uses it. Its steps run to their end once begun.
pub trait CertificateAuthority: Send + Sync {
    /// How things stand.
    fn status(&self) -> CaFuture<'_>;
    /// A new root beside the present one, which signs for so much longer.
    fn rotate(&self, overlap: Duration) -> CaFuture<'_>;
    /// The new root signs, the old one is trusted no more.
    fn finish(&self) -> CaFuture<'_>;
}

/// What a step of the authority comes to.
pub type CaFuture<'a> = Pin<Box<dyn Future<Output = Result<CaView, CaRefused>> + Send + 'a>>;

/// Roots and intermediate.
#[derive(Debug, Clone)]
pub struct CaView {
    /// PEM of the roots to trust.
    pub bundle: String,
    /// SHA-256, subject, start and end of each, the one that signs first.
    pub roots: Vec<(String, String, Timestamp, Timestamp)>,
    /// When the second root takes over.
    pub rotates_at: Option<Timestamp>,
    /// When the intermediate ends.
    pub intermediate_expires_at: Timestamp,
    /// Whether the intermediate is the operator's own.
    pub provided: bool,
}

/// Why a step is not made.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CaRefused {
    /// The state does not allow it; says what to do.
    #[error("{0}")]
    Conflict(String),
    /// It cannot be put on record.
    #[error("{0}")]
    Unrecorded(String),
    /// It failed.
    #[error("{0}")]
    Failed(String),
}

impl From<CaRefused> for ApiError {
    fn from(error: CaRefused) -> Self {
        match error {
            CaRefused::Conflict(detail) => Self::conflict("ca_conflict", detail),
            CaRefused::Unrecorded(cause) => Self::Unrecorded { cause },
            CaRefused::Failed(cause) => Self::Unavailable { what: "certificate authority", cause },
        }
    }
}

/// PEM of the roots that clients of the forward proxy and the TLS listener have to trust. Public: no credential is needed.
#[utoipa::path(get, path = "/v1/ca", tag = "ca",
    responses((status = 200, content_type = "application/x-pem-file", body = String)))]
pub(crate) async fn bundle(State(ca): State<Ca>) -> Result<impl IntoResponse, Failure> {
    let view = ca.0.status().await.map_err(ApiError::from)?;
    Ok(([(header::CONTENT_TYPE, "application/x-pem-file")], view.bundle))
}

/// Roots, intermediate, and where a rotation stands.
#[utoipa::path(get, path = "/v1/ca/status", tag = "ca", responses((status = 200, body = CaAnswer)), security(("admin" = [])))]
pub(crate) async fn ca_status(State(ca): State<Ca>, _: Admin) -> Result<Json<CaAnswer>, Failure> {
    Ok(Json(ca.0.status().await.map_err(ApiError::from)?.into()))
}

/// Makes a root that takes over after an overlap, in which both are published.
#[utoipa::path(post, path = "/v1/ca/rotate", tag = "ca", request_body = Option<RotateCa>,
    responses((status = 200, body = CaAnswer)), security(("admin" = [])))]
pub(crate) async fn rotate_ca(State(ca): State<Ca>, _: Admin, request: Request) -> Result<Json<CaAnswer>, Failure> {
    let body = request.optional_json::<RotateCa>().await?;
    let overlap = body.overlap_seconds.unwrap_or(DEFAULT_OVERLAP);
    if !(0..=MAX_OVERLAP).contains(&overlap) {
        return Err(ApiError::invalid("bad_field", format!("`overlap_seconds`: must be 0 to {MAX_OVERLAP}")).into());
    }
    let overlap = Duration::from_secs(u64::try_from(overlap).unwrap_or_default());
    let view = to_the_end(async move { ca.0.rotate(overlap).await.map_err(ApiError::from) }).await?;
    Ok(Json(view.into()))
}

/// Ends the overlap of a rotation: the new root signs, the old one is published no more.
#[utoipa::path(post, path = "/v1/ca/finish", tag = "ca", request_body = Option<Nothing>,
    responses((status = 200, body = CaAnswer)), security(("admin" = [])))]
pub(crate) async fn finish_ca(State(ca): State<Ca>, _: Admin, request: Request) -> Result<Json<CaAnswer>, Failure> {
    request.optional_json::<Nothing>().await?;
    let view = to_the_end(async move { ca.0.finish().await.map_err(ApiError::from) }).await?;
    Ok(Json(view.into()))
}

/// The authority among a door's state.
#[derive(Clone)]
pub(crate) struct Ca(pub(crate) Arc<dyn CertificateAuthority>);

impl FromRef<AdminState> for Ca {
    fn from_ref(state: &AdminState) -> Self {
        Self(state.ca())
    }
}

impl From<CaView> for CaAnswer {
    fn from(view: CaView) -> Self {
        let root = |(fingerprint, subject, from, until)| CaRoot {
            sha256: fingerprint,
            subject,
            not_before: instant(from),
            expires_at: instant(until),
        };
        Self {
            roots: view.roots.into_iter().map(root).collect(),
            rotates_at: view.rotates_at.map(instant),
            intermediate_expires_at: instant(view.intermediate_expires_at),
            provided: view.provided,
            bundle: view.bundle,
        }
    }
}

const DEFAULT_OVERLAP: i64 = 30 * 86_400;
const MAX_OVERLAP: i64 = 365 * 86_400;
