//! Operations: reload, readiness, metrics.

use std::sync::Arc;

use aegis_broker::{Broker, reload::Reload};
use axum::{Json, extract::State, response::IntoResponse};
use http::header;

use crate::{
    admin::{AdminState, ReloadError},
    answers::{Check, ConfigFinding, Ready, Reloaded},
    auth::Admin,
    body::Request,
    doors::to_the_end,
    error::{ApiError, Failure},
    requests::Nothing,
};

/// Reads the configuration anew. One that is not usable is refused with everything that is wrong, and the old one stays.
#[utoipa::path(post, path = "/v1/reload", tag = "operations", request_body = Option<Nothing>,
    responses((status = 200, body = Reloaded)), security(("admin" = [])))]
pub(crate) async fn reload(
    State(state): State<AdminState>,
    _: Admin,
    request: Request,
) -> Result<Json<Reloaded>, Failure> {
    request.optional_json::<Nothing>().await?;
    let reload = state.reload();
    let done = to_the_end(async move {
        reload().await.map_err(|e| match e {
            ReloadError::Unreadable(why) => ApiError::conflict("configuration_unreadable", why),
            ReloadError::Admit(e) => e.into(),
        })
    })
    .await?;
    let (result, warnings) = match done {
        Reload::Kept(problems) => return Err(ApiError::BadConfig(problems).into()),
        Reload::Swapped(warnings) => ("swapped", warnings),
        Reload::Unchanged => ("unchanged", Vec::new()),
    };
    Ok(Json(Reloaded {
        result: result.to_owned(),
        warnings: warnings.into_iter().map(ConfigFinding::from).collect(),
        snapshot: state.broker().snapshot().hash.to_hex(),
    }))
}

/// Whether the gateway can do its work: store, log and vaults. 503 says which cannot.
#[utoipa::path(get, path = "/ready", tag = "operations", responses((status = 200, body = Ready)))]
pub(crate) async fn ready(State(broker): State<Arc<Broker>>) -> Result<Json<Ready>, Failure> {
    let checks = checks(&broker).await;
    match checks.iter().all(|c| c.ok) {
        true => Ok(Json(Ready { status: "ready".into(), checks })),
        false => Err(ApiError::NotReady(checks).into()),
    }
}

/// Asks store, log and vaults.
pub(crate) async fn checks(broker: &Broker) -> Vec<Check> {
    let mut checks = Vec::new();
    let mut note = |name: String, problem: Option<String>| {
        if let Some(cause) = &problem {
            tracing::warn!(%name, cause, "not ready");
        }
        checks.push(Check { name, ok: problem.is_none() });
    };
    note("store".into(), broker.store.health().await.err().map(|e| e.to_string()));
    let log = broker.log.clone();
    // It may try to write, which waits for the disk.
    let log = tokio::task::spawn_blocking(move || log.health()).await;
    note("log".into(), log.map_or_else(|e| Some(e.to_string()), |health| health.err().map(|e| e.to_string())));
    for (name, vault) in &broker.vaults {
        note(format!("vault:{name}"), vault.health().await.err().map(|e| e.to_string()));
    }
    checks
}

/// Prometheus text. Label values come from configuration and closed lists only.
#[utoipa::path(get, path = "/metrics", tag = "operations",
    responses((status = 200, content_type = "text/plain", body = String)))]
pub(crate) async fn metrics(State(broker): State<Arc<Broker>>) -> impl IntoResponse {
    let head = broker.log.head();
    let snapshot = broker.snapshot();
    let memo = snapshot.engine.memo_counters();
    let durable = head.durable_through.map_or(0, |seq| seq + 1);
    let text = broker.metrics.render(&[
        ("aegis_log_leaves", "leaves in the receipt log", head.next_seq as f64),
        ("aegis_log_durable_leaves", "leaves that a power cut cannot take", durable as f64),
        ("aegis_log_open_intents", "allowed actions whose outcome is not recorded yet", head.open_intents as f64),
        ("aegis_log_payloads_lost", "sealed payloads that could not be stored", head.payloads_lost as f64),
        ("aegis_memo_hits", "decisions from memory since the last reload", memo.hits as f64),
        ("aegis_memo_misses", "decisions evaluated and remembered since the last reload", memo.misses as f64),
        ("aegis_memo_uncached", "decisions that cannot be remembered since the last reload", memo.uncached as f64),
        ("aegis_routes", "routes in force", snapshot.config.routes.len() as f64),
        ("aegis_policies", "policies in force", snapshot.engine.len() as f64),
    ]);
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text)
}
