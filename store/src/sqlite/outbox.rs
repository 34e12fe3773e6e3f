//! Transitions on their way to the receipt log.

use aegis_broker::store::{OutboxEvent, StoreError};
use serde_json::Value;
use sqlx::{SqliteConnection, query};

use super::row::Row;
use crate::error::store_error;

/// Must run in the transaction of the transition that it tells of.
pub async fn add(db: &mut SqliteConnection, event: &OutboxEvent) -> Result<(), StoreError> {
    query("INSERT INTO outbox (event_id, kind, at, body) VALUES (?, ?, ?, ?)")
        .bind(&event.event_id)
        .bind(&event.kind)
        .bind(event.at.0)
        .bind(event.body.to_string())
        .execute(db)
        .await
        .map_err(store_error)?;
    Ok(())
}

/// Oldest first. Positions are given out under the write lock, so their order is that of the commits.
pub async fn pending(db: &mut SqliteConnection, limit: u32) -> Result<Vec<OutboxEvent>, StoreError> {
    let rows = query("SELECT * FROM outbox ORDER BY position LIMIT ?").bind(limit).fetch_all(db).await;
    rows.map_err(store_error)?.iter().map(|row| event(&Row(row))).collect()
}

pub async fn done(db: &mut SqliteConnection, event_ids: &[String]) -> Result<(), StoreError> {
    query("DELETE FROM outbox WHERE event_id IN (SELECT value FROM json_each(?))")
        .bind(Value::from(event_ids).to_string())
        .execute(db)
        .await
        .map_err(store_error)?;
    Ok(())
}

fn event(row: &Row<'_>) -> Result<OutboxEvent, StoreError> {
    Ok(OutboxEvent {
        event_id: row.text("event_id")?,
        kind: row.text("kind")?,
        at: row.time("at")?,
        body: row.json("body")?,
    })
}
