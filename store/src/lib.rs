//! SQL behind the broker's `Store`: agents, people, approvals, idempotency keys, the outbox
//! and the projection of the receipt log. The only user of sqlx.

mod error;
mod sqlite;
mod text;

#[cfg(test)]
mod conformance;

pub use sqlite::SqliteStore;
