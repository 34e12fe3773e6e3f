//! Agents and their tokens.

use aegis_action::{Digest, Timestamp};
use aegis_broker::store::{AgentRecord, AgentState, StoreError, TokenRecord};
use serde_json::Value;
use sqlx::{SqliteConnection, query};

use super::row::{Row, digest, list, number};
use crate::error::store_error;
use crate::text::Text;

pub async fn insert(db: &mut SqliteConnection, agent: &AgentRecord, token: &TokenRecord) -> Result<(), StoreError> {
    query(
        "INSERT INTO agents (agent_id, agent_key, tenant, name, owner_team, owner_email, environment, risk_tier,
             framework, purpose, model_provider, model_name, bind_cidr, state, created_at, version)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(&agent.agent_id)
    .bind(&agent.agent_key)
    .bind(&agent.tenant)
    .bind(&agent.name)
    .bind(&agent.owner_team)
    .bind(&agent.owner_email)
    .bind(&agent.environment)
    .bind(&agent.risk_tier)
    .bind(&agent.framework)
    .bind(&agent.purpose)
    .bind(&agent.model_provider)
    .bind(&agent.model_name)
    .bind(list(&agent.bind_cidr))
    .bind(agent.state.text())
    .bind(agent.created_at.0)
    .bind(number(agent.version, "version")?)
    .execute(&mut *db)
    .await
    .map_err(store_error)?;
    insert_token(db, &agent.agent_id, token).await
}

pub async fn by_id(db: &mut SqliteConnection, agent_id: &str) -> Result<Option<AgentRecord>, StoreError> {
    let row = query("SELECT * FROM agents WHERE agent_id = ?").bind(agent_id).fetch_optional(db).await;
    row.map_err(store_error)?.map(|row| agent(&Row(&row))).transpose()
}

pub async fn by_key(db: &mut SqliteConnection, agent_key: &str) -> Result<Option<AgentRecord>, StoreError> {
    let row = query("SELECT * FROM agents WHERE agent_key = ?").bind(agent_key).fetch_optional(db).await;
    row.map_err(store_error)?.map(|row| agent(&Row(&row))).transpose()
}

pub async fn all(db: &mut SqliteConnection) -> Result<Vec<AgentRecord>, StoreError> {
    let rows = query("SELECT * FROM agents ORDER BY created_at, ordinal").fetch_all(db).await.map_err(store_error)?;
    rows.iter().map(|row| agent(&Row(row))).collect()
}

pub async fn by_token(
    db: &mut SqliteConnection,
    token_hash: &Digest,
) -> Result<Option<(AgentRecord, TokenRecord)>, StoreError> {
    let row = query(
        "SELECT a.*, t.token_hash, t.session_id, t.created_at AS token_created_at, t.expires_at AS token_expires_at
         FROM agent_tokens t JOIN agents a USING (agent_id) WHERE t.token_hash = ?",
    )
    .bind(digest(token_hash))
    .fetch_optional(db)
    .await
    .map_err(store_error)?;
    let Some(row) = row else { return Ok(None) };
    let row = Row(&row);
    let agent = agent(&row)?;
    let token = TokenRecord {
        token_hash: row.digest("token_hash")?,
        agent_id: agent.agent_id.clone(),
        session_id: row.text_opt("session_id")?,
        created_at: row.time("token_created_at")?,
        expires_at: row.time("token_expires_at")?,
    };
    Ok(Some((agent, token)))
}

/// One conditional update; `revoked` is final whatever `from` says.
pub async fn transition(
    db: &mut SqliteConnection,
    agent_id: &str,
    from: &[AgentState],
    to: AgentState,
) -> Result<AgentRecord, StoreError> {
    let from: Value = from.iter().map(|s| s.text()).collect();
    let row = query(
        "UPDATE agents SET state = ?1, version = version + 1
         WHERE agent_id = ?2 AND state <> 'revoked' AND state IN (SELECT value FROM json_each(?3))
         RETURNING *",
    )
    .bind(to.text())
    .bind(agent_id)
    .bind(from.to_string())
    .fetch_optional(&mut *db)
    .await
    .map_err(store_error)?;
    match row {
        Some(row) => agent(&Row(&row)),
        None => Err(refused(db, agent_id).await?),
    }
}

/// Adds the new token, ends the others but for those of sessions, and forgets those that ended long ago.
pub async fn rotate_token(
    db: &mut SqliteConnection,
    agent_id: &str,
    token: &TokenRecord,
    old_until: Timestamp,
) -> Result<(), StoreError> {
    // The version is part of every cache key: bumping it drops what was cached under the old tokens.
    let bumped = query("UPDATE agents SET version = version + 1 WHERE agent_id = ? AND state <> 'revoked'")
        .bind(agent_id)
        .execute(&mut *db)
        .await
        .map_err(store_error)?;
    if bumped.rows_affected() == 0 {
        return Err(refused(db, agent_id).await?);
    }
    query("UPDATE agent_tokens SET expires_at = min(expires_at, ?) WHERE agent_id = ? AND session_id IS NULL")
        .bind(old_until.0)
        .bind(agent_id)
        .execute(&mut *db)
        .await
        .map_err(store_error)?;
    forget_ended_tokens(db, agent_id, token.created_at).await?;
    insert_token(db, agent_id, token).await
}

pub async fn forget_ended_tokens(db: &mut SqliteConnection, agent_id: &str, now: Timestamp) -> Result<(), StoreError> {
    query("DELETE FROM agent_tokens WHERE agent_id = ? AND expires_at < ?")
        .bind(agent_id)
        .bind(now.plus_seconds(-KEEP_ENDED_TOKENS_SECONDS).0)
        .execute(db)
        .await
        .map_err(store_error)?;
    Ok(())
}

pub async fn insert_token(db: &mut SqliteConnection, agent_id: &str, token: &TokenRecord) -> Result<(), StoreError> {
    if token.agent_id != agent_id {
        return Err(StoreError::Conflict(format!("the token is not one of agent `{agent_id}`")));
    }
    query("INSERT INTO agent_tokens (token_hash, agent_id, session_id, created_at, expires_at) VALUES (?, ?, ?, ?, ?)")
        .bind(digest(&token.token_hash))
        .bind(&token.agent_id)
        .bind(&token.session_id)
        .bind(token.created_at.0)
        .bind(token.expires_at.0)
        .execute(db)
        .await
        .map_err(store_error)?;
    Ok(())
}

/// Why a conditional update of an agent found no row.
pub async fn refused(db: &mut SqliteConnection, agent_id: &str) -> Result<StoreError, StoreError> {
    Ok(match by_id(db, agent_id).await? {
        Some(agent) => StoreError::Conflict(format!("agent `{agent_id}` is `{}`", agent.state.text())),
        None => StoreError::NotFound(format!("no agent `{agent_id}`")),
    })
}

fn agent(row: &Row<'_>) -> Result<AgentRecord, StoreError> {
    Ok(AgentRecord {
        agent_id: row.text("agent_id")?,
        agent_key: row.text("agent_key")?,
        tenant: row.text("tenant")?,
        name: row.text("name")?,
        owner_team: row.text("owner_team")?,
        owner_email: row.text("owner_email")?,
        environment: row.text("environment")?,
        risk_tier: row.text("risk_tier")?,
        framework: row.text_opt("framework")?,
        purpose: row.text_opt("purpose")?,
        model_provider: row.text_opt("model_provider")?,
        model_name: row.text_opt("model_name")?,
        bind_cidr: row.list("bind_cidr")?,
        state: row.choice("state")?,
        created_at: row.time("created_at")?,
        version: row.number("version")?,
    })
}

/// An ended token is remembered for 30 days, so that its user is told `expired` and not `unknown`.
const KEEP_ENDED_TOKENS_SECONDS: i64 = 30 * 24 * 3600;
