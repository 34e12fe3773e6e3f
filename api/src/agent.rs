//! The agents' door: decisions, their outcomes, the agent's own approvals, receipts and token.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use aegis_broker::{Broker, authorize::OutcomeReport};
use axum::{
    Json, Router,
    extract::State,
    routing::{get, post},
};
use http::StatusCode;
use tokio::sync::Mutex;

use crate::{
    admin::checks,
    answers::{Action, Actions, Approval, Decision, IssuedToken, Ready, Why},
    auth::Caller,
    body::{Id, Query, Request},
    ca::{self, Ca, CertificateAuthority},
    catalog,
    doors::{door, to_the_end},
    error::{ApiError, Failure},
    explain,
    requests::{Authorize, Consume, Outcome, RotateSelf, Search},
};

/// What agents may ask, to be mounted on their listener. Requests carry the extension [`crate::Peer`].
///
/// Only agent tokens are let in: `Authorization: Bearer` or `Aegis-Agent-Token`. What clients have to
/// trust is told to anyone.
pub fn agent_router(broker: Arc<Broker>, ca: Arc<dyn CertificateAuthority>) -> Router {
    let roots = Router::new().route("/v1/ca", get(ca::bundle)).with_state(Ca(ca));
    let looked = Arc::<Mutex<Option<Looked>>>::default();
    let routes = Router::new()
        .route("/v1/authorize", post(authorize))
        .route("/v1/decisions/{id}/outcome", post(report_outcome))
        .route("/v1/approvals/{id}", get(own_approval))
        .route("/v1/approvals/{id}/consume", post(consume))
        .route("/v1/agents/self/rotate", post(rotate_self))
        .route("/v1/why/{receipt}", get(own_why))
        .route("/v1/actions", get(actions))
        .route("/v1/actions/{name}", get(action))
        .route("/ready", get(move |State(broker)| ready(broker, looked.clone())))
        .merge(roots);
    door(routes, broker)
}

/// What a look at store, log and vaults found, and when.
struct Looked {
    at: Instant,
    ready: bool,
}

/// As on the admins' listener, without saying what is wrong: load balancers and kubelets see this
/// door only, and so does everybody else. It is looked at once a second, however often it is asked.
async fn ready(broker: Arc<Broker>, looked: Arc<Mutex<Option<Looked>>>) -> Result<Json<Ready>, Failure> {
    let mut looked = looked.lock().await;
    let known = looked.as_ref().filter(|l| l.at.elapsed() < LOOK_EVERY).map(|l| l.ready);
    let ready = match known {
        Some(ready) => ready,
        None => checks(&broker).await.iter().all(|check| check.ok),
    };
    if known.is_none() {
        *looked = Some(Looked { at: Instant::now(), ready });
    }
    match ready {
        true => Ok(Json(Ready { status: "ready".into(), checks: Vec::new() })),
        false => Err(ApiError::NotReady(Vec::new()).into()),
    }
}

const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Decides a call that the agent runs itself. 200 for every decision, deny included.
#[utoipa::path(post, path = "/v1/authorize", tag = "agent", request_body = Authorize,
    responses((status = 200, body = Decision)), security(("agent" = [])))]
pub(crate) async fn authorize(
    State(broker): State<Arc<Broker>>,
    caller: Caller,
    request: Request,
) -> Result<Json<Decision>, Failure> {
    let (body, digest) = request.json_and_digest::<Authorize>().await.map_err(|e| caller.deny(e))?;
    to_the_end(async move {
        let decided = broker.authorize(&caller.identity, body.into(), &digest).await;
        decided.map(|record| Json(record.into())).map_err(|e| caller.deny(e))
    })
    .await
}

/// Closes the pair of an allowed decision: how the call ended, and the digest of its result.
#[utoipa::path(post, path = "/v1/decisions/{id}/outcome", tag = "agent", request_body = Outcome,
    params(("id" = String, Path, description = "`decision_id`")), responses((status = 204)), security(("agent" = [])))]
pub(crate) async fn report_outcome(
    State(broker): State<Arc<Broker>>,
    caller: Caller,
    Id(id): Id,
    request: Request,
) -> Result<StatusCode, Failure> {
    let report: OutcomeReport = request.json::<Outcome>().await.map_err(|e| caller.deny(e))?.into();
    if report.result_bytes.is_some() && report.result_digest.is_none() {
        return Err(caller.deny(ApiError::invalid("bad_field", "`result_bytes`: only with `result_digest`")));
    }
    match broker.report_outcome(&caller.identity, &id, &report) {
        true => Ok(StatusCode::NO_CONTENT),
        false => Err(ApiError::NotFound("open decision of this agent").into()),
    }
}

/// The agent's own approval.
pub(crate) async fn own_approval(
    State(broker): State<Arc<Broker>>,
    caller: Caller,
    Id(id): Id,
) -> Result<Json<Approval>, Failure> {
    let found = broker.store.approval(&id, broker.env.clock.now()).await?;
    let own = found.filter(|a| a.agent_id == caller.identity.agent.agent_id);
    Ok(Json(own.ok_or(ApiError::NotFound("approval"))?.into()))
}

/// Uses an approval up for exactly the action whose hash is named, decided anew. The answer is that decision.
#[utoipa::path(post, path = "/v1/approvals/{id}/consume", tag = "agent", request_body = Consume,
    params(("id" = String, Path, description = "`approval_id`")), responses((status = 200, body = Decision)),
    security(("agent" = [])))]
pub(crate) async fn consume(
    State(broker): State<Arc<Broker>>,
    caller: Caller,
    Id(id): Id,
    request: Request,
) -> Result<Json<Decision>, Failure> {
    let body = request.json::<Consume>().await.map_err(|e| caller.deny(e))?;
    to_the_end(async move {
        let consumed = broker.consume_approval(&caller.identity, &id, &body.action_hash, body.tool_call).await;
        consumed.map(|record| Json(record.into())).map_err(|e| caller.deny(e))
    })
    .await
}

/// A new token for the agent itself. It can shorten a token's life and never lengthen it. A session's token cannot
/// be rotated: what came of it would outlive the session.
#[utoipa::path(post, path = "/v1/agents/self/rotate", tag = "agent", request_body = Option<RotateSelf>,
    responses((status = 200, body = IssuedToken)), security(("agent" = [])))]
pub(crate) async fn rotate_self(
    State(broker): State<Arc<Broker>>,
    caller: Caller,
    request: Request,
) -> Result<Json<IssuedToken>, Failure> {
    let body = request.optional_json::<RotateSelf>().await.map_err(|e| caller.deny(e))?;
    let token = &caller.identity.token;
    if token.session_id.is_some() {
        return Err(caller.deny(ApiError::WrongRole("a session's token is renewed by whoever started the session")));
    }
    let life = token.expires_at.0.saturating_sub(token.created_at.0) / 1000;
    let ttl = body.ttl_seconds.unwrap_or(life);
    if ttl > life {
        return Err(caller.deny(ApiError::invalid(
            "bad_field",
            format!("`ttl_seconds`: at most {life}, the life of the present token"),
        )));
    }
    to_the_end(async move {
        let rotated = broker.rotate(&caller.identity.agent.agent_id, Some(ttl), OVERLAP_SECONDS).await;
        rotated.map(|enrolled| Json(enrolled.into())).map_err(|e| caller.deny(e))
    })
    .await
}

async fn own_why(State(broker): State<Arc<Broker>>, caller: Caller, Id(receipt): Id) -> Result<Json<Why>, Failure> {
    explain::why(&broker, &receipt, Some(&caller.identity)).await
}

async fn actions(
    State(broker): State<Arc<Broker>>,
    _: Caller,
    Query(query): Query<Search>,
) -> Result<Json<Actions>, Failure> {
    Ok(Json(catalog::search(&broker, query.q.as_deref(), query.limit)?))
}

async fn action(State(broker): State<Arc<Broker>>, _: Caller, Id(name): Id) -> Result<Json<Action>, Failure> {
    Ok(Json(catalog::named(&broker, &name)?))
}

/// How long the present token still works after the agent rotated it.
const OVERLAP_SECONDS: i64 = 60;
