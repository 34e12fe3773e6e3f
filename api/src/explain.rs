//! `GET /v1/why/{receipt}`, at both doors.

use aegis_broker::{Broker, identity::Identity};
use axum::Json;

use crate::{
    answers::Why,
    error::{ApiError, Failure},
};

/// Explains a receipt; for an agent only its own, and others are as if they were not there.
pub(crate) async fn why(broker: &Broker, receipt: &str, asker: Option<&Identity>) -> Result<Json<Why>, Failure> {
    let unreadable = |cause| ApiError::Unavailable { what: "record", cause };
    let why = broker.why(receipt, asker).await.map_err(unreadable)?.ok_or(ApiError::NotFound("receipt"))?;
    let explanation = why.explanation.map(serde_json::to_value).transpose();
    Ok(Json(Why {
        receipt_id: why.receipt_id,
        leaf: why.leaf,
        action: why.action,
        explanation: explanation.map_err(|e| ApiError::Internal { cause: e.to_string() })?,
        same_snapshot: why.same_snapshot,
        outcome: why.outcome,
        next: why.next,
    }))
}
