//! The embedded store: one SQLite file, one writer connection and a few readers.

mod agents;
mod approvals;
mod grants;
mod idempotency;
mod open;
mod outbox;
mod people;
mod projection;
mod row;
mod sessions;
mod webhooks;

use std::path::Path;

use aegis_action::{Digest, Timestamp};
use aegis_broker::store::{
    AgentRecord, AgentState, ApprovalRecord, ApprovalStatus, DecisionFilter, GrantRecord, IdempotencyClaim,
    OutboxEvent, PersonRecord, ProjectedLeaf, Store, StoreError, TokenRecord,
};
use async_trait::async_trait;
use serde_json::Value;
use sqlx::pool::PoolConnection;
use sqlx::{Sqlite, SqlitePool, Transaction};

use crate::error::store_error;

/// A [`Store`] in one SQLite file that several processes may share.
///
/// - Durability: write-ahead log with `synchronous = FULL`; a method that returned `Ok` has
///   reached the disk. A full or failing disk gives [`StoreError::Unavailable`] and heals by itself.
/// - Concurrency: every write runs in a `BEGIN IMMEDIATE` transaction on the one writer
///   connection, so writes of all processes have one order. Readers never wait for writers.
/// - A dropped future rolls its transaction back unless the commit was already under way.
/// - Erased payloads are overwritten in the file (`secure_delete`), at the latest with the next checkpoint.
#[derive(Debug, Clone)]
pub struct SqliteStore {
    writer: SqlitePool,
    reader: SqlitePool,
}

impl SqliteStore {
    /// Opens or creates the database, readable by its owner only, and brings its tables up to date.
    /// The folder must exist. Concurrent openers wait for each other.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] where the file cannot be opened or was made by a newer version.
    pub async fn open(path: &Path) -> Result<Self, StoreError> {
        let (writer, reader) = open::file(path).await?;
        Ok(Self { writer, reader })
    }

    /// A database that lives as long as this value; for tests and the demo.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] where there is not enough memory.
    pub async fn in_memory() -> Result<Self, StoreError> {
        let only = open::memory().await?;
        Ok(Self { writer: only.clone(), reader: only })
    }

    /// Finishes what is under way and closes the file. Later calls give [`StoreError::Unavailable`].
    pub async fn close(&self) {
        // The writer last: the last connection checkpoints the log into the file, and readers cannot.
        self.reader.close().await;
        self.writer.close().await;
    }

    /// Erases the payloads of approvals that have expired at `now`; how many there were. Every
    /// write to approvals does the same, so this is for times without any.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn erase_expired_payloads(&self, now: Timestamp) -> Result<u64, StoreError> {
        let mut tx = self.begin().await?;
        let erased = approvals::erase_expired(&mut tx, now).await?;
        commit(tx).await?;
        Ok(erased)
    }

    /// The write lock is taken at once, so that no transaction reads what another is changing.
    async fn begin(&self) -> Result<Transaction<'static, Sqlite>, StoreError> {
        self.writer.begin_with("BEGIN IMMEDIATE").await.map_err(store_error)
    }

    async fn read(&self) -> Result<PoolConnection<Sqlite>, StoreError> {
        self.reader.acquire().await.map_err(store_error)
    }
}

/// A crash before this line leaves nothing of the transaction, after it everything.
async fn commit(tx: Transaction<'static, Sqlite>) -> Result<(), StoreError> {
    tx.commit().await.map_err(store_error)
}

#[async_trait]
impl Store for SqliteStore {
    async fn insert_agent(
        &self,
        agent: &AgentRecord,
        token: &TokenRecord,
        event: &OutboxEvent,
    ) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        agents::insert(&mut tx, agent, token).await?;
        outbox::add(&mut tx, event).await?;
        commit(tx).await
    }

    async fn agent(&self, agent_id: &str) -> Result<Option<AgentRecord>, StoreError> {
        agents::by_id(&mut *self.read().await?, agent_id).await
    }

    async fn agent_by_key(&self, agent_key: &str) -> Result<Option<AgentRecord>, StoreError> {
        agents::by_key(&mut *self.read().await?, agent_key).await
    }

    async fn agents(&self) -> Result<Vec<AgentRecord>, StoreError> {
        agents::all(&mut *self.read().await?).await
    }

    async fn agent_by_token(&self, token_hash: &Digest) -> Result<Option<(AgentRecord, TokenRecord)>, StoreError> {
        agents::by_token(&mut *self.read().await?, token_hash).await
    }

    async fn transition_agent(
        &self,
        agent_id: &str,
        from: &[AgentState],
        to: AgentState,
        event: &OutboxEvent,
    ) -> Result<AgentRecord, StoreError> {
        let mut tx = self.begin().await?;
        let agent = agents::transition(&mut tx, agent_id, from, to).await?;
        if to != AgentState::Active {
            idempotency::forget_agent(&mut tx, agent_id).await?;
        }
        outbox::add(&mut tx, event).await?;
        commit(tx).await?;
        Ok(agent)
    }

    async fn rotate_token(
        &self,
        agent_id: &str,
        token: &TokenRecord,
        old_until: Timestamp,
        event: &OutboxEvent,
    ) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        agents::rotate_token(&mut tx, agent_id, token, old_until).await?;
        outbox::add(&mut tx, event).await?;
        commit(tx).await
    }

    async fn start_session(&self, token: &TokenRecord, event: &OutboxEvent) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        sessions::start(&mut tx, token).await?;
        outbox::add(&mut tx, event).await?;
        commit(tx).await
    }

    async fn renew_session(
        &self,
        agent_id: &str,
        session_id: &str,
        now: Timestamp,
        until: Timestamp,
        event: &OutboxEvent,
    ) -> Result<Timestamp, StoreError> {
        let mut tx = self.begin().await?;
        let until = sessions::renew(&mut tx, agent_id, session_id, now, until).await?;
        outbox::add(&mut tx, event).await?;
        commit(tx).await?;
        Ok(until)
    }

    async fn end_session(
        &self,
        agent_id: &str,
        session_id: &str,
        now: Timestamp,
        event: &OutboxEvent,
    ) -> Result<bool, StoreError> {
        let mut tx = self.begin().await?;
        if !sessions::end(&mut tx, agent_id, session_id, now).await? {
            return Ok(false);
        }
        outbox::add(&mut tx, event).await?;
        commit(tx).await?;
        Ok(true)
    }

    async fn insert_person(&self, person: &PersonRecord, event: &OutboxEvent) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        people::insert(&mut tx, person).await?;
        outbox::add(&mut tx, event).await?;
        commit(tx).await
    }

    async fn person_by_token(&self, token_hash: &Digest) -> Result<Option<PersonRecord>, StoreError> {
        people::by_token(&mut *self.read().await?, token_hash).await
    }

    async fn people(&self) -> Result<Vec<PersonRecord>, StoreError> {
        people::all(&mut *self.read().await?).await
    }

    async fn revoke_person(&self, person_id: &str, event: &OutboxEvent) -> Result<bool, StoreError> {
        let mut tx = self.begin().await?;
        if !people::revoke(&mut tx, person_id).await? {
            return Ok(false);
        }
        grants::revoke_of(&mut tx, person_id, event.at).await?;
        outbox::add(&mut tx, event).await?;
        commit(tx).await?;
        Ok(true)
    }

    async fn ask_approval(
        &self,
        approval: &ApprovalRecord,
        now: Timestamp,
        most: u32,
        event: &OutboxEvent,
    ) -> Result<ApprovalRecord, StoreError> {
        let mut tx = self.begin().await?;
        approvals::erase_expired(&mut tx, now).await?;
        if let Some(live) = approvals::live(&mut tx, approval, now).await? {
            commit(tx).await?;
            return Ok(live);
        }
        let pending = approvals::pending_of(&mut tx, &approval.agent_id, now).await?;
        if pending >= u64::from(most) {
            return Err(StoreError::TooMany(format!("{pending} approvals of this agent are pending")));
        }
        approvals::insert(&mut tx, approval).await?;
        outbox::add(&mut tx, event).await?;
        commit(tx).await?;
        Ok(approval.clone())
    }

    async fn approval(&self, approval_id: &str, now: Timestamp) -> Result<Option<ApprovalRecord>, StoreError> {
        approvals::by_id(&mut *self.read().await?, approval_id, now).await
    }

    async fn approvals(
        &self,
        agent_id: Option<&str>,
        status: Option<ApprovalStatus>,
        limit: u32,
        now: Timestamp,
    ) -> Result<Vec<ApprovalRecord>, StoreError> {
        approvals::newest(&mut *self.read().await?, agent_id, status, limit, now).await
    }

    async fn granted_approvals(
        &self,
        agent_id: &str,
        route: &str,
        action_hash: &Digest,
        now: Timestamp,
    ) -> Result<Vec<ApprovalRecord>, StoreError> {
        approvals::granted(&mut *self.read().await?, agent_id, route, action_hash, now).await
    }

    async fn settle_approval(
        &self,
        approval_id: &str,
        person_id: &str,
        yes: bool,
        seen: Option<&[String]>,
        now: Timestamp,
        event: &OutboxEvent,
    ) -> Result<ApprovalRecord, StoreError> {
        let mut tx = self.begin().await?;
        let settled = approvals::settle(&mut tx, approval_id, person_id, yes, seen, now).await?;
        approvals::erase_expired(&mut tx, now).await?;
        outbox::add(&mut tx, event).await?;
        commit(tx).await?;
        Ok(settled)
    }

    async fn consume_approval(
        &self,
        approval_id: &str,
        agent_id: &str,
        action_hash: &Digest,
        now: Timestamp,
        event: &OutboxEvent,
    ) -> Result<bool, StoreError> {
        let mut tx = self.begin().await?;
        if !approvals::consume(&mut tx, approval_id, agent_id, action_hash, now).await? {
            return Ok(false);
        }
        approvals::erase_expired(&mut tx, now).await?;
        outbox::add(&mut tx, event).await?;
        commit(tx).await?;
        Ok(true)
    }

    async fn due_approvals(&self, now: Timestamp, limit: u32) -> Result<Vec<ApprovalRecord>, StoreError> {
        approvals::due(&mut *self.read().await?, now, limit).await
    }

    async fn expire_approval(
        &self,
        approval_id: &str,
        now: Timestamp,
        event: &OutboxEvent,
    ) -> Result<bool, StoreError> {
        let mut tx = self.begin().await?;
        if !approvals::expire(&mut tx, approval_id, now).await? {
            return Ok(false);
        }
        outbox::add(&mut tx, event).await?;
        commit(tx).await?;
        Ok(true)
    }

    async fn insert_grant(&self, grant: &GrantRecord, event: &OutboxEvent) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        grants::insert(&mut tx, grant).await?;
        outbox::add(&mut tx, event).await?;
        commit(tx).await
    }

    async fn grants(&self, agent_id: Option<&str>, limit: u32) -> Result<Vec<GrantRecord>, StoreError> {
        grants::newest(&mut *self.read().await?, agent_id, limit).await
    }

    async fn live_grants(
        &self,
        agent_id: &str,
        action: &str,
        resource: Option<&str>,
        now: Timestamp,
    ) -> Result<Vec<GrantRecord>, StoreError> {
        grants::live(&mut *self.read().await?, agent_id, action, resource, now).await
    }

    async fn revoke_grant(&self, grant_id: &str, now: Timestamp, event: &OutboxEvent) -> Result<bool, StoreError> {
        let mut tx = self.begin().await?;
        if !grants::revoke(&mut tx, grant_id, now).await? {
            return Ok(false);
        }
        outbox::add(&mut tx, event).await?;
        commit(tx).await?;
        Ok(true)
    }

    async fn idempotency_claim(
        &self,
        agent_id: &str,
        request_id: &str,
        body_hash: &Digest,
        now: Timestamp,
        expires_at: Timestamp,
    ) -> Result<IdempotencyClaim, StoreError> {
        let mut tx = self.begin().await?;
        let claim = idempotency::claim(&mut tx, agent_id, request_id, body_hash, now, expires_at).await?;
        commit(tx).await?;
        Ok(claim)
    }

    async fn idempotency_finish(&self, agent_id: &str, request_id: &str, answer: &Value) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        idempotency::finish(&mut tx, agent_id, request_id, answer).await?;
        commit(tx).await
    }

    async fn idempotency_release(&self, agent_id: &str, request_id: &str) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        idempotency::release(&mut tx, agent_id, request_id).await?;
        commit(tx).await
    }

    async fn outbox(&self, limit: u32) -> Result<Vec<OutboxEvent>, StoreError> {
        outbox::pending(&mut *self.read().await?, limit).await
    }

    async fn outbox_done(&self, event_ids: &[String]) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        outbox::done(&mut tx, event_ids).await?;
        commit(tx).await
    }

    async fn project(&self, rows: &[ProjectedLeaf]) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        projection::project(&mut tx, rows).await?;
        commit(tx).await
    }

    async fn projected_through(&self, node: &str) -> Result<u64, StoreError> {
        projection::through(&mut *self.read().await?, node).await
    }

    async fn decisions(&self, filter: &DecisionFilter) -> Result<Vec<ProjectedLeaf>, StoreError> {
        projection::decisions(&mut *self.read().await?, filter).await
    }

    async fn outcome_of(&self, decision_id: &str) -> Result<Option<ProjectedLeaf>, StoreError> {
        projection::outcome_of(&mut *self.read().await?, decision_id).await
    }

    async fn clear_projection(&self, node: &str) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        projection::clear(&mut tx, node).await?;
        commit(tx).await
    }

    async fn webhook_cursor(&self, webhook: &str, node: &str) -> Result<Option<u64>, StoreError> {
        webhooks::cursor(&mut *self.read().await?, webhook, node).await
    }

    async fn put_webhook_cursor(&self, webhook: &str, node: &str, next_seq: u64) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        webhooks::put(&mut tx, webhook, node, next_seq).await?;
        commit(tx).await
    }

    async fn keep_webhook_cursors(&self, webhooks: &[String], node: &str) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        webhooks::keep(&mut tx, webhooks, node).await?;
        commit(tx).await
    }

    async fn health(&self) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        // A real write: a full or read-only disk shows only then.
        sqlx::query("UPDATE health SET checks = checks + 1").execute(&mut *tx).await.map_err(store_error)?;
        commit(tx).await
    }
}

#[cfg(test)]
mod tests;
