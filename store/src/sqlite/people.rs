//! Approvers and admins.

use aegis_action::Digest;
use aegis_broker::store::{PersonRecord, StoreError};
use sqlx::{SqliteConnection, query};

use super::row::{Row, digest, list};
use crate::error::store_error;
use crate::text::Text;

pub async fn insert(db: &mut SqliteConnection, person: &PersonRecord) -> Result<(), StoreError> {
    query(
        "INSERT INTO people (person_id, name, email, slack_user, role, groups, token_hash, created_at, expires_at,
             revoked)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(&person.person_id)
    .bind(&person.name)
    .bind(&person.email)
    .bind(&person.slack_user)
    .bind(person.role.text())
    .bind(list(&person.groups))
    .bind(digest(&person.token_hash))
    .bind(person.created_at.0)
    .bind(person.expires_at.map(|t| t.0))
    .bind(i64::from(person.revoked))
    .execute(db)
    .await
    .map_err(store_error)?;
    Ok(())
}

pub async fn by_token(db: &mut SqliteConnection, token_hash: &Digest) -> Result<Option<PersonRecord>, StoreError> {
    let row = query("SELECT * FROM people WHERE token_hash = ?").bind(digest(token_hash)).fetch_optional(db).await;
    row.map_err(store_error)?.map(|row| person(&Row(&row))).transpose()
}

pub async fn all(db: &mut SqliteConnection) -> Result<Vec<PersonRecord>, StoreError> {
    let rows = query("SELECT * FROM people ORDER BY created_at, ordinal").fetch_all(db).await.map_err(store_error)?;
    rows.iter().map(|row| person(&Row(row))).collect()
}

/// Whether there was such a person with access.
pub async fn revoke(db: &mut SqliteConnection, person_id: &str) -> Result<bool, StoreError> {
    let done = query("UPDATE people SET revoked = 1 WHERE person_id = ? AND revoked = 0").bind(person_id).execute(db);
    Ok(done.await.map_err(store_error)?.rows_affected() == 1)
}

fn person(row: &Row<'_>) -> Result<PersonRecord, StoreError> {
    Ok(PersonRecord {
        person_id: row.text("person_id")?,
        name: row.text("name")?,
        email: row.text_opt("email")?,
        slack_user: row.text_opt("slack_user")?,
        role: row.choice("role")?,
        groups: row.list("groups")?,
        token_hash: row.digest("token_hash")?,
        created_at: row.time("created_at")?,
        expires_at: row.time_opt("expires_at")?,
        revoked: row.flag("revoked")?,
    })
}
