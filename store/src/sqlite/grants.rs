//! Grants: a yes in advance, for one agent, action and resource, until an instant.

use aegis_action::Timestamp;
use aegis_broker::store::{GrantRecord, StoreError};
use sqlx::{QueryBuilder, Sqlite, SqliteConnection, query};

use super::row::{Row, list};
use crate::error::store_error;

pub async fn insert(db: &mut SqliteConnection, grant: &GrantRecord) -> Result<(), StoreError> {
    query(
        "INSERT INTO grants (grant_id, tenant, agent_id, action, resource, groups, person_id, reason, created_at,
             expires_at, revoked_at)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, NULL)",
    )
    .bind(&grant.grant_id)
    .bind(&grant.tenant)
    .bind(&grant.agent_id)
    .bind(&grant.action)
    .bind(&grant.resource)
    .bind(list(&grant.groups))
    .bind(&grant.person_id)
    .bind(&grant.reason)
    .bind(grant.created_at.0)
    .bind(grant.expires_at.0)
    .execute(db)
    .await
    .map_err(store_error)?;
    Ok(())
}

pub async fn newest(
    db: &mut SqliteConnection,
    agent_id: Option<&str>,
    limit: u32,
) -> Result<Vec<GrantRecord>, StoreError> {
    let mut select = QueryBuilder::<Sqlite>::new("SELECT * FROM grants WHERE TRUE");
    if let Some(agent_id) = agent_id {
        select.push(" AND agent_id = ").push_bind(agent_id);
    }
    select.push(" ORDER BY created_at DESC, ordinal DESC LIMIT ").push_bind(limit);
    let rows = select.build().fetch_all(db).await.map_err(store_error)?;
    rows.iter().map(|row| grant(&Row(row))).collect()
}

pub async fn live(
    db: &mut SqliteConnection,
    agent_id: &str,
    action: &str,
    resource: Option<&str>,
    now: Timestamp,
) -> Result<Vec<GrantRecord>, StoreError> {
    let rows = query(
        "SELECT * FROM grants
         WHERE agent_id = ? AND action = ? AND resource IS ? AND expires_at > ? AND revoked_at IS NULL
         ORDER BY ordinal",
    )
    .bind(agent_id)
    .bind(action)
    .bind(resource)
    .bind(now.0)
    .fetch_all(db)
    .await
    .map_err(store_error)?;
    rows.iter().map(|row| grant(&Row(row))).collect()
}

/// Whether there was such a grant that still held.
pub async fn revoke(db: &mut SqliteConnection, grant_id: &str, now: Timestamp) -> Result<bool, StoreError> {
    let done =
        query("UPDATE grants SET revoked_at = ?2 WHERE grant_id = ?1 AND revoked_at IS NULL AND expires_at > ?2")
            .bind(grant_id)
            .bind(now.0)
            .execute(db);
    Ok(done.await.map_err(store_error)?.rows_affected() == 1)
}

/// Ends what a person gave and what still holds of it.
pub async fn revoke_of(db: &mut SqliteConnection, person_id: &str, now: Timestamp) -> Result<(), StoreError> {
    query("UPDATE grants SET revoked_at = ?2 WHERE person_id = ?1 AND revoked_at IS NULL AND expires_at > ?2")
        .bind(person_id)
        .bind(now.0)
        .execute(db)
        .await
        .map_err(store_error)?;
    Ok(())
}

fn grant(row: &Row<'_>) -> Result<GrantRecord, StoreError> {
    Ok(GrantRecord {
        grant_id: row.text("grant_id")?,
        tenant: row.text("tenant")?,
        agent_id: row.text("agent_id")?,
        action: row.text("action")?,
        resource: row.text_opt("resource")?,
        groups: row.list("groups")?,
        person_id: row.text("person_id")?,
        reason: row.text_opt("reason")?,
        created_at: row.time("created_at")?,
        expires_at: row.time("expires_at")?,
        revoked_at: row.time_opt("revoked_at")?,
    })
}
