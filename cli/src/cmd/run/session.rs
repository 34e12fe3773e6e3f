//! The session of a run: started, kept alive by a heartbeat, ended.

use std::time::Duration;

use aegis_broker::secret::Secret;
use serde_json::{Value, json};
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::{
    client::Client,
    cmd::{agent, segment},
    error::CliError,
    output::{WARN, printable, text},
};

/// A session that the gateway has given us.
pub struct Session {
    client: Client,
    agent_id: String,
    /// Its id, which is the run's in every receipt.
    pub id: String,
    /// Its token.
    pub token: Secret,
    lease: i64,
    /// Whether the agent was made for this run and goes with it.
    ephemeral: bool,
}

impl Session {
    /// A session of the agent with this key or id; without one, of an agent made for this run.
    pub async fn start(client: Client, agent: Option<&str>, lease: i64, what: &str) -> Result<Self, CliError> {
        let agent_id = match agent {
            Some(agent) => agent::id_of(&client, agent).await?,
            None => register(&client, what).await?,
        };
        let path = format!("/v1/agents/{}/sessions", segment(&agent_id));
        let body = json!({"lease_seconds": lease});
        match client.call("POST", &path, Some(&body)).await {
            Ok(answer) => Ok(Self {
                client,
                id: text(&answer, "session_id"),
                token: Secret::from(text(&answer, "agent_token")),
                lease,
                ephemeral: agent.is_none(),
                agent_id,
            }),
            Err(error) => {
                if agent.is_none() {
                    let _ = revoke(&client, &agent_id).await;
                }
                Err(error)
            }
        }
    }

    /// Renews the session three times a lease, for as long as it is polled. What goes wrong is said once.
    pub async fn keep_alive(&self) -> std::convert::Infallible {
        let mut every = interval(Duration::from_millis(self.lease.unsigned_abs() * 1000 / 3));
        every.set_missed_tick_behavior(MissedTickBehavior::Delay);
        every.tick().await;
        let path = format!("{}/renew", self.path());
        let body = json!({"lease_seconds": self.lease});
        let mut failing = false;
        loop {
            every.tick().await;
            let renewed = self.client.call("POST", &path, Some(&body)).await;
            if let (Err(error), false) = (&renewed, failing) {
                warn(&format!("the session cannot be renewed and ends within {} s: {error}", self.lease));
            }
            failing = renewed.is_err();
        }
    }

    /// Ends the session, and the agent that was made for it.
    pub async fn end(self) {
        let ended = async {
            match self.ephemeral {
                true => revoke(&self.client, &self.agent_id).await,
                false => self.client.call("DELETE", &self.path(), None).await,
            }
        };
        match timeout(PATIENCE, ended).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => warn(&format!("the session could not be ended, and ends by itself: {error}")),
            Err(_) => warn("the session could not be ended, and ends by itself: the gateway does not answer"),
        }
        self.client.close().await;
    }

    fn path(&self) -> String {
        format!("/v1/agents/{}/sessions/{}", segment(&self.agent_id), segment(&self.id))
    }
}

/// An agent for one run. The token that comes with it is not used; it ends at once.
async fn register(client: &Client, what: &str) -> Result<String, CliError> {
    let mut random = [0; 8];
    getrandom::fill(&mut random).map_err(|_| CliError::failed("no randomness available"))?;
    let body = json!({
        "agent_key": format!("run-{}", hex::encode(random)),
        "name": what, "purpose": "one run of `aegis run`",
        "owner_team": "default", "owner_email": "owner@localhost",
        "environment": "development", "risk_tier": "medium", "ttl_seconds": 1,
    });
    let answer = client.call("POST", "/v1/agents/register", Some(&body)).await?;
    Ok(text(&answer, "agent_id"))
}

async fn revoke(client: &Client, agent_id: &str) -> Result<Value, CliError> {
    client.call("POST", &format!("/v1/agents/{}/revoke", segment(agent_id)), None).await
}

fn warn(message: &str) {
    anstream::eprintln!("{WARN}aegis{WARN:#}: {}", printable(message));
}

/// How long the command's exit waits for the gateway.
const PATIENCE: Duration = Duration::from_secs(5);
