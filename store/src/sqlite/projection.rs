//! The receipt log as rows to list and search. Lost or wrong rows are replayed from the log.

use aegis_broker::store::{DecisionFilter, ProjectedLeaf, StoreError};
use serde_json::Value;
use sqlx::{QueryBuilder, Sqlite, SqliteConnection, query, query_scalar};

use super::row::{Row, digest, number};
use crate::error::store_error;

/// Adds the rows that are not there and moves each node's progress on.
pub async fn project(db: &mut SqliteConnection, rows: &[ProjectedLeaf]) -> Result<(), StoreError> {
    let mut nodes: Vec<&str> = Vec::new();
    for row in rows {
        insert(db, row).await?;
        if !nodes.contains(&row.node.as_str()) {
            nodes.push(&row.node);
        }
    }
    for node in nodes {
        advance(db, node).await?;
    }
    Ok(())
}

pub async fn through(db: &mut SqliteConnection, node: &str) -> Result<u64, StoreError> {
    let row = query("SELECT next_seq FROM projection_progress WHERE node = ?").bind(node).fetch_optional(db).await;
    row.map_err(store_error)?.map_or(Ok(0), |row| Row(&row).number("next_seq"))
}

/// Newest first by sequence number.
pub async fn decisions(db: &mut SqliteConnection, filter: &DecisionFilter) -> Result<Vec<ProjectedLeaf>, StoreError> {
    let mut select = QueryBuilder::<Sqlite>::new("SELECT * FROM leaves WHERE is_intent = 1");
    if let Some(agent_id) = &filter.agent_id {
        select.push(" AND agent_id = ").push_bind(agent_id);
    }
    if let Some(decision) = &filter.decision {
        select.push(" AND decision = ").push_bind(decision);
    }
    if let Some(action) = &filter.action {
        select.push(" AND action = ").push_bind(action);
    }
    if let Some(before) = filter.before_seq {
        // A number beyond the column's range is beyond every row.
        select.push(" AND seq < ").push_bind(i64::try_from(before).unwrap_or(i64::MAX));
    }
    select.push(" ORDER BY seq DESC, at DESC, node LIMIT ").push_bind(filter.limit);
    let rows = select.build().fetch_all(db).await.map_err(store_error)?;
    rows.iter().map(|row| leaf(&Row(row))).collect()
}

pub async fn outcome_of(db: &mut SqliteConnection, decision_id: &str) -> Result<Option<ProjectedLeaf>, StoreError> {
    let row = query(
        "SELECT l.* FROM leaf_outcomes o JOIN leaves l ON l.node = o.node AND l.seq = o.seq
         WHERE o.decision_id = ? ORDER BY l.at, l.seq LIMIT 1",
    )
    .bind(decision_id)
    .fetch_optional(db)
    .await;
    row.map_err(store_error)?.map(|row| leaf(&Row(&row))).transpose()
}

pub async fn clear(db: &mut SqliteConnection, node: &str) -> Result<(), StoreError> {
    query("DELETE FROM leaves WHERE node = ?").bind(node).execute(&mut *db).await.map_err(store_error)?;
    query("DELETE FROM projection_progress WHERE node = ?").bind(node).execute(db).await.map_err(store_error)?;
    Ok(())
}

async fn insert(db: &mut SqliteConnection, row: &ProjectedLeaf) -> Result<(), StoreError> {
    let seq = number(row.seq, "seq")?;
    let added = query(
        "INSERT INTO leaves (node, seq, receipt_hash, kind, at, decision_id, agent_id, action, resource, decision,
             leaf, is_intent)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (node, seq) DO NOTHING",
    )
    .bind(&row.node)
    .bind(seq)
    .bind(digest(&row.receipt_hash))
    .bind(&row.kind)
    .bind(row.at.0)
    .bind(&row.decision_id)
    .bind(&row.agent_id)
    .bind(&row.action)
    .bind(&row.resource)
    .bind(&row.decision)
    .bind(row.leaf.to_string())
    .bind(i64::from(stem(&row.kind) == "intent"))
    .execute(&mut *db)
    .await
    .map_err(store_error)?;
    if added.rows_affected() == 0 {
        return Ok(());
    }
    for decision_id in outcomes(row) {
        query("INSERT INTO leaf_outcomes (decision_id, node, seq) VALUES (?, ?, ?) ON CONFLICT DO NOTHING")
            .bind(decision_id)
            .bind(&row.node)
            .bind(seq)
            .execute(&mut *db)
            .await
            .map_err(store_error)?;
    }
    Ok(())
}

/// Walks from the old progress over what is there now, so a batch costs what it adds.
async fn advance(db: &mut SqliteConnection, node: &str) -> Result<(), StoreError> {
    let from = number(through(db, node).await?, "seq")?;
    let next: i64 = query_scalar(
        "WITH RECURSIVE run (n) AS (
             SELECT ?2 UNION ALL
             SELECT n + 1 FROM run WHERE EXISTS (SELECT 1 FROM leaves WHERE node = ?1 AND seq = n)
         ) SELECT max(n) FROM run",
    )
    .bind(node)
    .bind(from)
    .fetch_one(&mut *db)
    .await
    .map_err(store_error)?;
    query(
        "INSERT INTO projection_progress (node, next_seq) VALUES (?, ?)
         ON CONFLICT (node) DO UPDATE SET next_seq = excluded.next_seq",
    )
    .bind(node)
    .bind(next)
    .execute(db)
    .await
    .map_err(store_error)?;
    Ok(())
}

/// The decisions whose outcome a leaf holds: its own, and for merged outcomes those of its entries.
fn outcomes(row: &ProjectedLeaf) -> Vec<&str> {
    match stem(&row.kind) {
        "outcome" => row.decision_id.as_deref().into_iter().collect(),
        "outcomes" => {
            let entries = row.leaf.get("entries").and_then(Value::as_array);
            let named = entries.into_iter().flatten().filter_map(|entry| entry.get("decision_id")?.as_str());
            row.decision_id.as_deref().into_iter().chain(named).collect()
        }
        _ => Vec::new(),
    }
}

/// A leaf's kind without the version of its format: `intent.v1` is an `intent`.
fn stem(kind: &str) -> &str {
    kind.split_once('.').map_or(kind, |(stem, _)| stem)
}

fn leaf(row: &Row<'_>) -> Result<ProjectedLeaf, StoreError> {
    Ok(ProjectedLeaf {
        node: row.text("node")?,
        seq: row.number("seq")?,
        receipt_hash: row.digest("receipt_hash")?,
        kind: row.text("kind")?,
        at: row.time("at")?,
        decision_id: row.text_opt("decision_id")?,
        agent_id: row.text_opt("agent_id")?,
        action: row.text_opt("action")?,
        resource: row.text_opt("resource")?,
        decision: row.text_opt("decision")?,
        leaf: row.json("leaf")?,
    })
}
