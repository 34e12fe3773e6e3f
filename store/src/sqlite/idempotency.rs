//! Idempotency keys of agents. They are erased when their agent is frozen, quarantined or revoked.

use aegis_action::{Digest, Timestamp};
use aegis_broker::store::{IdempotencyClaim, StoreError};
use serde_json::Value;
use sqlx::{SqliteConnection, query};

use super::agents;
use super::row::{Row, digest};
use crate::error::store_error;

/// One conditional upsert: a free or expired key becomes ours. It takes an active agent, so that
/// a claim that races with a freeze cannot leave a key behind that outlives it.
pub async fn claim(
    db: &mut SqliteConnection,
    agent_id: &str,
    request_id: &str,
    body_hash: &Digest,
    now: Timestamp,
    expires_at: Timestamp,
) -> Result<IdempotencyClaim, StoreError> {
    let ours = query(
        "INSERT INTO idempotency (agent_id, request_id, body_hash, answer, expires_at)
         SELECT agent_id, ?2, ?3, NULL, ?5 FROM agents WHERE agent_id = ?1 AND state = 'active'
         ON CONFLICT (agent_id, request_id) DO UPDATE
             SET body_hash = excluded.body_hash, answer = NULL, expires_at = excluded.expires_at
             WHERE idempotency.expires_at <= ?4",
    )
    .bind(agent_id)
    .bind(request_id)
    .bind(digest(body_hash))
    .bind(now.0)
    .bind(expires_at.0)
    .execute(&mut *db)
    .await
    .map_err(store_error)?;
    if ours.rows_affected() == 1 {
        drop_some_expired(db, now).await?;
        return Ok(IdempotencyClaim::Fresh);
    }
    let held = query("SELECT body_hash, answer FROM idempotency WHERE agent_id = ? AND request_id = ?")
        .bind(agent_id)
        .bind(request_id)
        .fetch_optional(&mut *db)
        .await
        .map_err(store_error)?;
    let Some(held) = held else { return Err(agents::refused(db, agent_id).await?) };
    let held = Row(&held);
    if held.digest("body_hash")? != *body_hash {
        return Ok(IdempotencyClaim::Mismatch);
    }
    match held.text_opt("answer")? {
        Some(_) => Ok(IdempotencyClaim::Replay(held.json("answer")?)),
        None => Ok(IdempotencyClaim::InFlight),
    }
}

pub async fn finish(
    db: &mut SqliteConnection,
    agent_id: &str,
    request_id: &str,
    answer: &Value,
) -> Result<(), StoreError> {
    let done = query("UPDATE idempotency SET answer = ? WHERE agent_id = ? AND request_id = ? AND answer IS NULL")
        .bind(answer.to_string())
        .bind(agent_id)
        .bind(request_id)
        .execute(db)
        .await
        .map_err(store_error)?;
    match done.rows_affected() {
        1 => Ok(()),
        _ => Err(StoreError::NotFound(format!("no claim in flight for request `{request_id}`"))),
    }
}

/// An answered key stays: its answer was given out.
pub async fn release(db: &mut SqliteConnection, agent_id: &str, request_id: &str) -> Result<(), StoreError> {
    query("DELETE FROM idempotency WHERE agent_id = ? AND request_id = ? AND answer IS NULL")
        .bind(agent_id)
        .bind(request_id)
        .execute(db)
        .await
        .map_err(store_error)?;
    Ok(())
}

/// No key outlives a freeze.
pub async fn forget_agent(db: &mut SqliteConnection, agent_id: &str) -> Result<(), StoreError> {
    query("DELETE FROM idempotency WHERE agent_id = ?").bind(agent_id).execute(db).await.map_err(store_error)?;
    Ok(())
}

/// Each claim removes more than it adds, so the table stays as small as its live keys.
async fn drop_some_expired(db: &mut SqliteConnection, now: Timestamp) -> Result<(), StoreError> {
    query(
        "DELETE FROM idempotency WHERE (agent_id, request_id) IN
             (SELECT agent_id, request_id FROM idempotency WHERE expires_at <= ? ORDER BY expires_at LIMIT 8)",
    )
    .bind(now.0)
    .execute(db)
    .await
    .map_err(store_error)?;
    Ok(())
}
