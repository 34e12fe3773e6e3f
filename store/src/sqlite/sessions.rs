//! Sessions: tokens that are renewed while a run lasts and end with it.

use aegis_action::Timestamp;
use aegis_broker::store::{AgentState, StoreError, TokenRecord};
use sqlx::{SqliteConnection, query};

use super::agents;
use super::row::Row;
use crate::error::store_error;
use crate::text::Text as _;

pub async fn start(db: &mut SqliteConnection, token: &TokenRecord) -> Result<(), StoreError> {
    if token.session_id.is_none() {
        return Err(StoreError::Conflict("the token is not a session's".into()));
    }
    match agents::by_id(&mut *db, &token.agent_id).await? {
        Some(agent) if agent.state == AgentState::Active => {}
        _ => return Err(agents::refused(db, &token.agent_id).await?),
    }
    agents::forget_ended_tokens(&mut *db, &token.agent_id, token.created_at).await?;
    agents::insert_token(db, &token.agent_id, token).await
}

pub async fn renew(
    db: &mut SqliteConnection,
    agent_id: &str,
    session_id: &str,
    now: Timestamp,
    until: Timestamp,
) -> Result<Timestamp, StoreError> {
    let row = query(
        "UPDATE agent_tokens SET expires_at = max(expires_at, ?1)
         WHERE session_id = ?2 AND agent_id = ?3 AND expires_at > ?4
             AND EXISTS (SELECT 1 FROM agents WHERE agent_id = ?3 AND state <> ?5)
         RETURNING expires_at",
    )
    .bind(until.0)
    .bind(session_id)
    .bind(agent_id)
    .bind(now.0)
    .bind(AgentState::Revoked.text())
    .fetch_optional(&mut *db)
    .await
    .map_err(store_error)?;
    match row {
        Some(row) => Row(&row).time("expires_at"),
        None => Err(over_or_none(db, agent_id, session_id).await?),
    }
}

/// Whether there was such a session that had not ended.
pub async fn end(
    db: &mut SqliteConnection,
    agent_id: &str,
    session_id: &str,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let done = query(
        "UPDATE agent_tokens SET expires_at = ?1
         WHERE session_id = ?2 AND agent_id = ?3 AND expires_at > ?1",
    )
    .bind(now.0)
    .bind(session_id)
    .bind(agent_id)
    .execute(db);
    Ok(done.await.map_err(store_error)?.rows_affected() == 1)
}

async fn over_or_none(db: &mut SqliteConnection, agent_id: &str, session_id: &str) -> Result<StoreError, StoreError> {
    let row = query("SELECT 1 FROM agent_tokens WHERE session_id = ? AND agent_id = ?")
        .bind(session_id)
        .bind(agent_id)
        .fetch_optional(db)
        .await
        .map_err(store_error)?;
    Ok(match row {
        Some(_) => StoreError::Conflict(format!("session `{session_id}` is over")),
        None => StoreError::NotFound(format!("agent `{agent_id}` has no session `{session_id}`")),
    })
}
