//! How far each webhook has been told.

use aegis_broker::store::StoreError;
use sqlx::{SqliteConnection, query};

use super::row::{Row, list, number};
use crate::error::store_error;

pub async fn cursor(db: &mut SqliteConnection, webhook: &str, node: &str) -> Result<Option<u64>, StoreError> {
    let row = query("SELECT next_seq FROM webhook_cursors WHERE webhook = ? AND node = ?")
        .bind(webhook)
        .bind(node)
        .fetch_optional(db)
        .await;
    row.map_err(store_error)?.map(|row| Row(&row).number("next_seq")).transpose()
}

pub async fn put(db: &mut SqliteConnection, webhook: &str, node: &str, next_seq: u64) -> Result<(), StoreError> {
    query(
        "INSERT INTO webhook_cursors (webhook, node, next_seq) VALUES (?, ?, ?)
         ON CONFLICT (webhook, node) DO UPDATE SET next_seq = excluded.next_seq",
    )
    .bind(webhook)
    .bind(node)
    .bind(number(next_seq, "next_seq")?)
    .execute(db)
    .await
    .map_err(store_error)?;
    Ok(())
}

pub async fn keep(db: &mut SqliteConnection, webhooks: &[String], node: &str) -> Result<(), StoreError> {
    query("DELETE FROM webhook_cursors WHERE node = ? AND webhook NOT IN (SELECT value FROM json_each(?))")
        .bind(node)
        .bind(list(webhooks))
        .execute(db)
        .await
        .map_err(store_error)?;
    Ok(())
}
