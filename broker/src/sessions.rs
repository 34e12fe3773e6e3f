//! Sessions: a token for one run of an agent, that ends with the run.
//!
//! A session lasts for its lease unless whoever started it renews it. So the token of a run that
//! was killed ends by itself soon after, however long the run was meant to take.

use aegis_action::Timestamp;
use serde_json::json;

use crate::{
    Broker,
    agents::AgentError,
    secret::Secret,
    store::{StoreError, TokenRecord},
};

/// A session and its token, shown once.
#[derive(Debug)]
pub struct Session {
    /// `run_…`; the run's id in every receipt.
    pub session_id: String,
    /// Whose.
    pub agent_id: String,
    /// Its token.
    pub token: Secret,
    /// When it ends unless it is renewed.
    pub expires_at: Timestamp,
}

impl Broker {
    /// A token for one run, beside the agent's others. Only an active agent gets one.
    pub async fn start_session(&self, agent_id: &str, lease_seconds: Option<i64>) -> Result<Session, AgentError> {
        let lease = check_lease(lease_seconds)?;
        let session_id = self.env.id("run_")?;
        let (token, record) = self.mint_token(agent_id, self.env.clock.now(), lease)?;
        let record = TokenRecord { session_id: Some(session_id.clone()), ..record };
        let event = self.event(
            "session_started",
            json!({"agent_id": agent_id, "session_id": session_id, "expires_at": record.expires_at}),
        )?;
        self.store.start_session(&record, &event).await?;
        self.drain_outbox().await?;
        Ok(Session { session_id, agent_id: record.agent_id, token, expires_at: record.expires_at })
    }

    /// Lets a session last for another lease from now on. One that is over stays over.
    pub async fn renew_session(
        &self,
        agent_id: &str,
        session_id: &str,
        lease_seconds: Option<i64>,
    ) -> Result<Timestamp, AgentError> {
        let now = self.env.clock.now();
        let until = now.plus_seconds(check_lease(lease_seconds)?);
        let event = self
            .event("session_renewed", json!({"agent_id": agent_id, "session_id": session_id, "expires_at": until}))?;
        let renewed = self.store.renew_session(agent_id, session_id, now, until, &event).await;
        let until = renewed.map_err(|e| match e {
            StoreError::NotFound(_) => AgentError::NotFound("session"),
            other => other.into(),
        })?;
        self.auth.session_changed(session_id, until);
        self.drain_outbox().await?;
        Ok(until)
    }

    /// Ends a session. In force for everything in flight when this returns.
    pub async fn end_session(&self, agent_id: &str, session_id: &str) -> Result<(), AgentError> {
        let now = self.env.clock.now();
        let event = self.event("session_ended", json!({"agent_id": agent_id, "session_id": session_id}))?;
        if !self.store.end_session(agent_id, session_id, now, &event).await? {
            return Err(AgentError::NotFound("session"));
        }
        // Before the leaf: containment must not wait for a disk.
        self.auth.session_changed(session_id, now);
        self.drain_outbox().await?;
        Ok(())
    }
}

fn check_lease(seconds: Option<i64>) -> Result<i64, AgentError> {
    match seconds.unwrap_or(DEFAULT_LEASE) {
        lease @ 1..=MAX_LEASE => Ok(lease),
        _ => Err(AgentError::Invalid { field: "lease_seconds", problem: format!("must be 1 to {MAX_LEASE}") }),
    }
}

const DEFAULT_LEASE: i64 = 900;
const MAX_LEASE: i64 = 3600;
