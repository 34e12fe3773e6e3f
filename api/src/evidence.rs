//! What is on record, for admins: decisions, leaves, bundles, explanations.

use std::sync::Arc;

use aegis_broker::{Broker, store::DecisionFilter};
use aegis_receipts::{LogError, StoredLeaf, parse_receipt_id};
use axum::{Json, extract::State};

use crate::{
    answers::{Bundle, Decisions, RecordedDecision, RecordedLeaf, RecordedLeaves, Why},
    auth::{Admin, Person},
    body::{Id, Query, limit},
    error::{ApiError, Failure},
    explain,
    requests::{DecisionQuery, LeafQuery},
};

/// Decisions, newest first, up to the end of the log as of now.
#[utoipa::path(get, path = "/v1/decisions", tag = "evidence", params(DecisionQuery),
    responses((status = 200, body = Decisions)), security(("admin" = [])))]
pub(crate) async fn decisions(
    State(broker): State<Arc<Broker>>,
    _: Admin,
    Query(query): Query<DecisionQuery>,
) -> Result<Json<Decisions>, Failure> {
    let limit = limit(query.limit, 50, 500)?;
    if query.decision.as_deref().is_some_and(|d| !["allow", "deny", "require_approval"].contains(&d)) {
        return Err(ApiError::invalid("bad_query", "`decision`: expected `allow`, `deny` or `require_approval`").into());
    }
    broker.project().await?;
    let projected_through = broker.store.projected_through(broker.log.node()).await?;
    let filter = DecisionFilter {
        agent_id: query.agent_id,
        decision: query.decision,
        action: query.action,
        before_seq: query.before_seq,
        limit,
    };
    let decisions: Vec<RecordedDecision> = broker.store.decisions(&filter).await?.into_iter().map(Into::into).collect();
    let next = (decisions.len() == limit as usize).then(|| decisions.last().map(|d| d.seq)).flatten();
    Ok(Json(Decisions { decisions, projected_through, next }))
}

/// Leaves of the log in order, with their exact bytes.
#[utoipa::path(get, path = "/v1/receipts", tag = "evidence", params(LeafQuery),
    responses((status = 200, body = RecordedLeaves)), security(("admin" = [])))]
pub(crate) async fn receipts(
    State(broker): State<Arc<Broker>>,
    _: Admin,
    Query(query): Query<LeafQuery>,
) -> Result<Json<RecordedLeaves>, Failure> {
    let limit = limit(query.limit, 50, 500)?;
    let head = broker.log.head().next_seq;
    let from = query.from_seq.unwrap_or_else(|| head.saturating_sub(limit.into()));
    let leaves = read(&broker, from, limit as usize).await?;
    let next = leaves.last().map_or(from.min(head), |last| last.seq + 1);
    let node = broker.log.node().to_owned();
    let receipts = leaves.into_iter().map(|leaf| RecordedLeaf::new(&node, leaf)).collect();
    Ok(Json(RecordedLeaves { receipts, node, next, head: head.max(next) }))
}

/// One leaf, with its exact bytes.
#[utoipa::path(get, path = "/v1/receipts/{id}", tag = "evidence",
    params(("id" = String, Path, description = "`receipt_id`")),
    responses((status = 200, body = RecordedLeaf)), security(("admin" = [])))]
pub(crate) async fn receipt(
    State(broker): State<Arc<Broker>>,
    _: Admin,
    Id(id): Id,
) -> Result<Json<RecordedLeaf>, Failure> {
    let node = broker.log.node().to_owned();
    let seq = match parse_receipt_id(&id) {
        Some((of, seq)) if of == node => seq,
        _ => return Err(ApiError::NotFound("receipt").into()),
    };
    let found = read(&broker, seq, 1).await?.pop().ok_or(ApiError::NotFound("receipt"))?;
    Ok(Json(RecordedLeaf::new(&node, found)))
}

/// A receipt with the leaves of its decision and what opens their commitments, to be verified offline.
#[utoipa::path(get, path = "/v1/receipts/{id}/bundle", tag = "evidence",
    params(("id" = String, Path, description = "`receipt_id`")),
    responses((status = 200, body = Bundle)), security(("admin" = [])))]
pub(crate) async fn bundle(State(broker): State<Arc<Broker>>, _: Admin, Id(id): Id) -> Result<Json<Bundle>, Failure> {
    let bundle = broker.bundle(&id).await.map_err(unreadable)?.ok_or(ApiError::NotFound("receipt"))?;
    let leaves: Result<Vec<_>, _> = bundle.leaves.iter().map(serde_json::to_value).collect();
    let leaves = leaves.map_err(|e| ApiError::Internal { cause: e.to_string() })?;
    Ok(Json(Bundle { format: bundle.format, node: bundle.node, leaves }))
}

/// Explains a receipt: the action as mapped, the policies that decided, what would have to be true, whom to ask.
/// An agent may ask about its own.
#[utoipa::path(get, path = "/v1/why/{receipt}", tag = "evidence",
    params(("receipt" = String, Path, description = "`receipt_id`")),
    responses((status = 200, body = Why)), security(("agent" = []), ("admin" = []), ("approver" = [])))]
pub(crate) async fn why(State(broker): State<Arc<Broker>>, _: Person, Id(receipt): Id) -> Result<Json<Why>, Failure> {
    explain::why(&broker, &receipt, None).await
}

/// Off the async threads: reading waits for the disk.
async fn read(broker: &Arc<Broker>, from: u64, max: usize) -> Result<Vec<StoredLeaf>, ApiError> {
    let log = broker.log.clone();
    let read = tokio::task::spawn_blocking(move || log.read(from, max)).await;
    read.map_err(|e| ApiError::Internal { cause: e.to_string() })?.map_err(unreadable)
}

fn unreadable(error: LogError) -> ApiError {
    match error {
        LogError::NoSuchLeaf(_) => ApiError::NotFound("receipt"),
        other => ApiError::Unavailable { what: "receipt log", cause: other.to_string() },
    }
}
