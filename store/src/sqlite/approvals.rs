//! Approvals: asked once, settled by people, consumed once.
//!
//! A pending or approved row at or past `expires_at` reads as expired, without its payload, also before
//! [`expire`] writes so for its leaf. Every write erases the payloads of such rows.

use aegis_action::{Digest, Timestamp};
use aegis_broker::store::{ApprovalRecord, ApprovalStatus, StoreError};
use sqlx::{QueryBuilder, Sqlite, SqliteConnection, query};

use super::row::{Row, digest, list};
use crate::error::store_error;
use crate::text::Text;

/// The live approval of the same question, if any.
pub async fn live(
    db: &mut SqliteConnection,
    like: &ApprovalRecord,
    now: Timestamp,
) -> Result<Option<ApprovalRecord>, StoreError> {
    let row = query(
        "SELECT * FROM approvals
         WHERE agent_id = ? AND action_hash = ? AND route = ? AND version IS ?
           AND status = 'pending' AND expires_at > ?
         ORDER BY ordinal LIMIT 1",
    )
    .bind(&like.agent_id)
    .bind(digest(&like.action_hash))
    .bind(&like.route)
    .bind(&like.version)
    .bind(now.0)
    .fetch_optional(db)
    .await;
    row.map_err(store_error)?.map(|row| approval(&Row(&row), now)).transpose()
}

pub async fn insert(db: &mut SqliteConnection, a: &ApprovalRecord) -> Result<(), StoreError> {
    if a.status != ApprovalStatus::Pending || !a.settled_by.is_empty() || a.settled_at.is_some() {
        return Err(StoreError::Conflict(format!("a new approval is `pending`, this one is `{}`", a.status.text())));
    }
    query(
        "INSERT INTO approvals (approval_id, tenant, agent_id, route, action_hash, version, groups, quorum, status,
             action, resource, risk, source_trust, sealed_payload, policies, snapshot, created_at, expires_at,
             settled_at, settled_by)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, 'pending', ?, ?, ?, ?, ?, ?, ?, ?, ?, NULL, '[]')",
    )
    .bind(&a.approval_id)
    .bind(&a.tenant)
    .bind(&a.agent_id)
    .bind(&a.route)
    .bind(digest(&a.action_hash))
    .bind(&a.version)
    .bind(list(&a.groups))
    .bind(a.quorum)
    .bind(&a.action)
    .bind(&a.resource)
    .bind(&a.risk)
    .bind(a.source_trust.text())
    .bind(&a.sealed_payload)
    .bind(list(&a.policies))
    .bind(digest(&a.snapshot))
    .bind(a.created_at.0)
    .bind(a.expires_at.0)
    .execute(db)
    .await
    .map_err(store_error)?;
    Ok(())
}

pub async fn by_id(
    db: &mut SqliteConnection,
    approval_id: &str,
    now: Timestamp,
) -> Result<Option<ApprovalRecord>, StoreError> {
    let row = query("SELECT * FROM approvals WHERE approval_id = ?").bind(approval_id).fetch_optional(db).await;
    row.map_err(store_error)?.map(|row| approval(&Row(&row), now)).transpose()
}

pub async fn newest(
    db: &mut SqliteConnection,
    agent_id: Option<&str>,
    status: Option<ApprovalStatus>,
    limit: u32,
    now: Timestamp,
) -> Result<Vec<ApprovalRecord>, StoreError> {
    let mut select = QueryBuilder::<Sqlite>::new("SELECT * FROM approvals WHERE TRUE");
    if let Some(agent_id) = agent_id {
        select.push(" AND agent_id = ").push_bind(agent_id);
    }
    match status {
        None => {}
        Some(ApprovalStatus::Expired) => {
            select.push(" AND (status = 'expired' OR (status IN ('pending', 'approved') AND expires_at <= ");
            select.push_bind(now.0).push("))");
        }
        Some(status @ (ApprovalStatus::Pending | ApprovalStatus::Approved)) => {
            select.push(" AND status = ").push_bind(status.text());
            select.push(" AND expires_at > ").push_bind(now.0);
        }
        Some(status @ (ApprovalStatus::Rejected | ApprovalStatus::Consumed | ApprovalStatus::Cancelled)) => {
            select.push(" AND status = ").push_bind(status.text());
        }
    }
    select.push(" ORDER BY created_at DESC, ordinal DESC LIMIT ").push_bind(limit);
    let rows = select.build().fetch_all(db).await.map_err(store_error)?;
    rows.iter().map(|row| approval(&Row(row), now)).collect()
}

pub async fn granted(
    db: &mut SqliteConnection,
    agent_id: &str,
    route: &str,
    action_hash: &Digest,
    now: Timestamp,
) -> Result<Vec<ApprovalRecord>, StoreError> {
    let rows = query(
        "SELECT * FROM approvals
         WHERE agent_id = ? AND action_hash = ? AND route = ? AND status = 'approved' AND expires_at > ?
         ORDER BY ordinal",
    )
    .bind(agent_id)
    .bind(digest(action_hash))
    .bind(route)
    .bind(now.0)
    .fetch_all(db)
    .await
    .map_err(store_error)?;
    rows.iter().map(|row| approval(&Row(row), now)).collect()
}

/// One conditional update. The right-hand sides read the row as it was before.
pub async fn settle(
    db: &mut SqliteConnection,
    approval_id: &str,
    person_id: &str,
    yes: bool,
    seen: Option<&[String]>,
    now: Timestamp,
) -> Result<ApprovalRecord, StoreError> {
    let sql = if yes {
        "UPDATE approvals SET
             settled_by = json_insert(settled_by, '$[#]', ?2),
             status     = CASE WHEN json_array_length(settled_by) + 1 >= quorum THEN 'approved' ELSE 'pending' END,
             settled_at = CASE WHEN json_array_length(settled_by) + 1 >= quorum THEN ?3 END
         WHERE approval_id = ?1 AND status = 'pending' AND expires_at > ?3 AND (?4 IS NULL OR settled_by = ?4)
           AND NOT EXISTS (SELECT 1 FROM json_each(settled_by) WHERE value = ?2)
           AND EXISTS (SELECT 1 FROM people
                       WHERE person_id = ?2 AND revoked = 0 AND (people.expires_at IS NULL OR people.expires_at > ?3))
         RETURNING *"
    } else {
        "UPDATE approvals SET
             settled_by = json_array(?2), status = 'rejected', settled_at = ?3, sealed_payload = NULL
         WHERE approval_id = ?1 AND status = 'pending' AND expires_at > ?3 AND (?4 IS NULL OR settled_by = ?4)
           AND EXISTS (SELECT 1 FROM people
                       WHERE person_id = ?2 AND revoked = 0 AND (people.expires_at IS NULL OR people.expires_at > ?3))
         RETURNING *"
    };
    let row = query(sql).bind(approval_id).bind(person_id).bind(now.0).bind(seen.map(list));
    let row = row.fetch_optional(&mut *db).await;
    match row.map_err(store_error)? {
        Some(row) => approval(&Row(&row), now),
        None => Err(not_settled(db, approval_id, person_id, seen, now).await?),
    }
}

/// One conditional update; `false` where it found no row.
pub async fn consume(
    db: &mut SqliteConnection,
    approval_id: &str,
    agent_id: &str,
    action_hash: &Digest,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let done = query(
        "UPDATE approvals SET status = 'consumed', sealed_payload = NULL
         WHERE approval_id = ? AND agent_id = ? AND action_hash = ? AND status = 'approved' AND expires_at > ?",
    )
    .bind(approval_id)
    .bind(agent_id)
    .bind(digest(action_hash))
    .bind(now.0)
    .execute(db)
    .await
    .map_err(store_error)?;
    Ok(done.rows_affected() == 1)
}

/// How many of an agent's approvals are pending.
pub async fn pending_of(db: &mut SqliteConnection, agent_id: &str, now: Timestamp) -> Result<u64, StoreError> {
    let row = query("SELECT count(*) AS n FROM approvals WHERE agent_id = ? AND status = 'pending' AND expires_at > ?")
        .bind(agent_id)
        .bind(now.0)
        .fetch_one(db)
        .await
        .map_err(store_error)?;
    Row(&row).number("n")
}

/// Rows that are past their end and do not say so.
pub async fn due(db: &mut SqliteConnection, now: Timestamp, limit: u32) -> Result<Vec<ApprovalRecord>, StoreError> {
    let rows = query(
        "SELECT * FROM approvals WHERE status IN ('pending', 'approved') AND expires_at <= ?
         ORDER BY expires_at, ordinal LIMIT ?",
    )
    .bind(now.0)
    .bind(limit)
    .fetch_all(db)
    .await
    .map_err(store_error)?;
    rows.iter().map(|row| approval(&Row(row), now)).collect()
}

/// One conditional update; `false` where it found no row.
pub async fn expire(db: &mut SqliteConnection, approval_id: &str, now: Timestamp) -> Result<bool, StoreError> {
    let done = query(
        "UPDATE approvals SET status = 'expired', sealed_payload = NULL
         WHERE approval_id = ? AND status IN ('pending', 'approved') AND expires_at <= ?",
    )
    .bind(approval_id)
    .bind(now.0)
    .execute(db)
    .await
    .map_err(store_error)?;
    Ok(done.rows_affected() == 1)
}

/// Erases the payloads of rows at or past `expires_at`; how many there were.
pub async fn erase_expired(db: &mut SqliteConnection, now: Timestamp) -> Result<u64, StoreError> {
    let done = query("UPDATE approvals SET sealed_payload = NULL WHERE sealed_payload IS NOT NULL AND expires_at <= ?")
        .bind(now.0)
        .execute(db);
    Ok(done.await.map_err(store_error)?.rows_affected())
}

/// Why a settlement found no row.
async fn not_settled(
    db: &mut SqliteConnection,
    approval_id: &str,
    person_id: &str,
    seen: Option<&[String]>,
    now: Timestamp,
) -> Result<StoreError, StoreError> {
    let Some(found) = by_id(db, approval_id, now).await? else {
        return Ok(StoreError::NotFound(format!("no approval `{approval_id}`")));
    };
    if found.status != ApprovalStatus::Pending {
        return Ok(StoreError::Conflict(format!("approval `{approval_id}` is `{}`", found.status.text())));
    }
    if found.settled_by.iter().any(|p| p == person_id) {
        return Ok(StoreError::Conflict(format!(
            "`{person_id}` has said yes to `{approval_id}` already; it is `pending`"
        )));
    }
    if seen.is_some_and(|seen| seen != found.settled_by) {
        return Ok(StoreError::Conflict(format!("others have said yes to `{approval_id}` meanwhile")));
    }
    Ok(StoreError::NotFound(format!("no active person `{person_id}`")))
}

fn approval(row: &Row<'_>, now: Timestamp) -> Result<ApprovalRecord, StoreError> {
    let expires_at = row.time("expires_at")?;
    let stored: ApprovalStatus = row.choice("status")?;
    let open = matches!(stored, ApprovalStatus::Pending | ApprovalStatus::Approved);
    let expired = open && expires_at <= now;
    Ok(ApprovalRecord {
        approval_id: row.text("approval_id")?,
        tenant: row.text("tenant")?,
        agent_id: row.text("agent_id")?,
        route: row.text("route")?,
        action_hash: row.digest("action_hash")?,
        version: row.text_opt("version")?,
        groups: row.list("groups")?,
        quorum: u32::try_from(row.number("quorum")?).map_err(|_| crate::error::unreadable("quorum"))?,
        status: if expired { ApprovalStatus::Expired } else { stored },
        action: row.text("action")?,
        resource: row.text_opt("resource")?,
        risk: row.text("risk")?,
        source_trust: row.choice("source_trust")?,
        sealed_payload: if expired { None } else { row.bytes_opt("sealed_payload")? },
        policies: row.list("policies")?,
        snapshot: row.digest("snapshot")?,
        created_at: row.time("created_at")?,
        expires_at,
        settled_at: row.time_opt("settled_at")?,
        settled_by: row.list("settled_by")?,
    })
}
