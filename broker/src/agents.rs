//! Enrolment and containment: every transition is stored with its leaf's event, and seen at once by what is in flight.

use aegis_action::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{
    Broker,
    admit::AdmitError,
    env::RandomError,
    secret::Secret,
    store::{AgentRecord, AgentState, PersonRecord, PersonRole, StoreError, TokenRecord},
    token::{self, TokenKind},
};

/// `POST /v1/agents/register`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Enrolment {
    /// The owner's own key for the agent; unique.
    pub agent_key: String,
    /// For people.
    pub name: String,
    /// Team that answers for it.
    pub owner_team: String,
    /// Person that answers for it.
    pub owner_email: String,
    /// `production`, `staging`, …
    pub environment: String,
    /// `low`, `medium`, `high`, `critical`.
    pub risk_tier: String,
    /// Agent framework.
    #[serde(default)]
    pub framework: Option<String>,
    /// What it is for.
    #[serde(default)]
    pub purpose: Option<String>,
    /// Who makes its model.
    #[serde(default)]
    pub model_provider: Option<String>,
    /// Its model.
    #[serde(default)]
    pub model_name: Option<String>,
    /// Shapes of credential to issue; only `bearer` so far.
    #[serde(default)]
    pub credential_shapes: Option<Vec<String>>,
    /// Life of the token in seconds, 1 to 2,592,000; 86,400 where not given.
    #[serde(default)]
    pub ttl_seconds: Option<i64>,
    /// Where the token may be used from.
    #[serde(default)]
    pub bind: Option<Binding>,
}

/// Binding of a token.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Binding {
    /// CIDR blocks, or a single one as a string.
    #[serde(default, deserialize_with = "one_or_many")]
    pub cidr: Option<Vec<String>>,
    /// Not supported yet; refused.
    #[serde(default)]
    pub mtls: Option<serde_json::Value>,
    /// Not supported yet; refused.
    #[serde(default)]
    pub dpop: Option<serde_json::Value>,
}

/// An agent and its token, shown once.
#[derive(Debug)]
pub struct Enrolled {
    /// The agent.
    pub agent: AgentRecord,
    /// Its token.
    pub token: Secret,
    /// When the token ends.
    pub expires_at: Timestamp,
}

/// Why an agent or person is not changed.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// A field of the request is not usable.
    #[error("`{field}`: {problem}")]
    Invalid {
        /// Which.
        field: &'static str,
        /// Why.
        problem: String,
    },
    /// The key is taken, or the state does not allow the step.
    #[error("{0}")]
    Conflict(String),
    /// There is none.
    #[error("no such {0}")]
    NotFound(&'static str),
    /// The store cannot be used.
    #[error("{0}")]
    Store(StoreError),
    /// The step cannot be put on record.
    #[error("{0}")]
    Unrecorded(String),
}

impl From<StoreError> for AgentError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Conflict(message) => Self::Conflict(message),
            StoreError::NotFound(_) => Self::NotFound("agent"),
            other @ (StoreError::Unavailable(_) | StoreError::TooMany(_)) => Self::Store(other),
        }
    }
}

impl From<AdmitError> for AgentError {
    fn from(error: AdmitError) -> Self {
        Self::Unrecorded(error.to_string())
    }
}

impl From<RandomError> for AgentError {
    fn from(error: RandomError) -> Self {
        Self::Unrecorded(error.to_string())
    }
}

impl Broker {
    /// Adds an agent. A known `agent_key` is a conflict: registering again never lifts a freeze.
    pub async fn register(&self, enrolment: Enrolment) -> Result<Enrolled, AgentError> {
        let ttl = check(&enrolment)?;
        let now = self.env.clock.now();
        let (token, record) = self.mint_token("", now, ttl)?;
        let agent = AgentRecord {
            agent_id: self.env.id("agt_")?,
            agent_key: enrolment.agent_key,
            tenant: self.tenant.clone(),
            name: enrolment.name,
            owner_team: enrolment.owner_team,
            owner_email: enrolment.owner_email,
            environment: enrolment.environment,
            risk_tier: enrolment.risk_tier,
            framework: enrolment.framework,
            purpose: enrolment.purpose,
            model_provider: enrolment.model_provider,
            model_name: enrolment.model_name,
            bind_cidr: enrolment.bind.and_then(|b| b.cidr).unwrap_or_default(),
            state: AgentState::Active,
            created_at: now,
            version: 1,
        };
        let record = TokenRecord { agent_id: agent.agent_id.clone(), ..record };
        let event = self.event(
            "agent_registered",
            json!({"agent_id": agent.agent_id, "agent_key": agent.agent_key, "owner_team": agent.owner_team,
                "environment": agent.environment, "risk_tier": agent.risk_tier, "expires_at": record.expires_at}),
        )?;
        self.store.insert_agent(&agent, &record, &event).await.map_err(|e| match e {
            StoreError::Conflict(_) => AgentError::Conflict(format!(
                "agent key `{}` is registered already; rotate its token instead of registering it again",
                agent.agent_key
            )),
            other => other.into(),
        })?;
        self.drain_outbox().await?;
        Ok(Enrolled { agent, token, expires_at: record.expires_at })
    }

    /// A new token; earlier ones end after `overlap_seconds`, but for those of sessions. State is left as it is.
    pub async fn rotate(
        &self,
        agent_id: &str,
        ttl_seconds: Option<i64>,
        overlap_seconds: i64,
    ) -> Result<Enrolled, AgentError> {
        let agent = self.store.agent(agent_id).await?.ok_or(AgentError::NotFound("agent"))?;
        if agent.state == AgentState::Revoked {
            return Err(AgentError::Conflict("the agent is revoked, which is final; register a new one".into()));
        }
        let now = self.env.clock.now();
        let (token, record) = self.mint_token(agent_id, now, check_ttl(ttl_seconds)?)?;
        let event =
            self.event("agent_token_rotated", json!({"agent_id": agent_id, "expires_at": record.expires_at}))?;
        self.store.rotate_token(agent_id, &record, now.plus_seconds(overlap_seconds), &event).await?;
        self.auth.changed(&agent);
        self.drain_outbox().await?;
        Ok(Enrolled { agent, token, expires_at: record.expires_at })
    }

    /// Freezes, unfreezes, quarantines or revokes. In force for everything in flight when this returns.
    pub async fn transition(&self, agent_id: &str, to: AgentState) -> Result<AgentRecord, AgentError> {
        let (from, kind): (&[AgentState], _) = match to {
            AgentState::Active => (&[AgentState::Frozen, AgentState::Quarantined], "agent_unfrozen"),
            AgentState::Frozen => (&[AgentState::Active], "agent_frozen"),
            AgentState::Quarantined => (&[AgentState::Active, AgentState::Frozen], "agent_quarantined"),
            AgentState::Revoked => (
                &[AgentState::Active, AgentState::Frozen, AgentState::Quarantined, AgentState::Expired],
                "agent_revoked",
            ),
            AgentState::Expired => return Err(AgentError::Conflict("an agent expires by itself".into())),
        };
        let event = self.event(kind, json!({"agent_id": agent_id}))?;
        let agent = self.store.transition_agent(agent_id, from, to, &event).await?;
        // Before the leaf: containment must not wait for a disk.
        self.auth.changed(&agent);
        self.metrics.transition(kind);
        self.drain_outbox().await?;
        Ok(agent)
    }

    /// Adds an approver or admin; the token is shown once.
    pub async fn add_person(
        &self,
        name: &str,
        role: PersonRole,
        groups: Vec<String>,
        email: Option<String>,
        slack_user: Option<String>,
        ttl_seconds: Option<i64>,
    ) -> Result<(PersonRecord, Secret), AgentError> {
        check_text("name", name, 200)?;
        if let Some(email) = &email {
            check_text("email", email, 320)?;
            if !email.contains('@') {
                return Err(AgentError::Invalid { field: "email", problem: "must be an e-mail address".into() });
            }
        }
        if slack_user.as_ref().is_some_and(|user| !is_slack_user(user)) {
            let problem = "must be a Slack user id such as `U0123ABCD`".into();
            return Err(AgentError::Invalid { field: "slack_user", problem });
        }
        if role == PersonRole::Approver && groups.is_empty() {
            return Err(AgentError::Invalid {
                field: "groups",
                problem: "an approver needs at least one group".into(),
            });
        }
        for group in &groups {
            check_text("groups", group, 100)?;
        }
        let now = self.env.clock.now();
        let token = token::mint(role.into(), self.env.random.as_ref())?;
        let person = PersonRecord {
            person_id: self.env.id("per_")?,
            name: name.to_owned(),
            email,
            slack_user,
            role,
            groups,
            token_hash: self.auth.hash(&String::from_utf8_lossy(token.expose())),
            created_at: now,
            expires_at: ttl_seconds.map(|s| now.plus_seconds(s)),
            revoked: false,
        };
        let event = self.event(
            "person_added",
            json!({"person_id": person.person_id, "role": person.role, "groups": person.groups}),
        )?;
        self.store.insert_person(&person, &event).await?;
        self.drain_outbox().await?;
        Ok((person, token))
    }

    /// Ends a person's access.
    pub async fn revoke_person(&self, person_id: &str) -> Result<(), AgentError> {
        let event = self.event("person_revoked", json!({"person_id": person_id}))?;
        if !self.store.revoke_person(person_id, &event).await? {
            return Err(AgentError::NotFound("person"));
        }
        self.drain_outbox().await?;
        Ok(())
    }

    pub(crate) fn mint_token(
        &self,
        agent_id: &str,
        now: Timestamp,
        ttl: i64,
    ) -> Result<(Secret, TokenRecord), AgentError> {
        let token = token::mint(TokenKind::Agent, self.env.random.as_ref())?;
        let record = TokenRecord {
            token_hash: self.auth.hash(&String::from_utf8_lossy(token.expose())),
            agent_id: agent_id.to_owned(),
            session_id: None,
            created_at: now,
            expires_at: now.plus_seconds(ttl),
        };
        Ok((token, record))
    }
}

fn one_or_many<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Option<Vec<String>>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Either {
        One(String),
        Many(Vec<String>),
    }
    Ok(Option::<Either>::deserialize(d)?.map(|either| match either {
        Either::One(block) => vec![block],
        Either::Many(blocks) => blocks,
    }))
}

fn check(e: &Enrolment) -> Result<i64, AgentError> {
    check_text("agent_key", &e.agent_key, 200)?;
    check_text("name", &e.name, 200)?;
    check_text("owner_team", &e.owner_team, 200)?;
    check_text("owner_email", &e.owner_email, 320)?;
    check_text("environment", &e.environment, 64)?;
    if !["low", "medium", "high", "critical"].contains(&e.risk_tier.as_str()) {
        return Err(AgentError::Invalid {
            field: "risk_tier",
            problem: "expected `low`, `medium`, `high` or `critical`".into(),
        });
    }
    for (field, value) in [
        ("framework", &e.framework),
        ("purpose", &e.purpose),
        ("model_provider", &e.model_provider),
        ("model_name", &e.model_name),
    ] {
        if let Some(text) = value {
            check_text(field, text, 1000)?;
        }
    }
    for shape in e.credential_shapes.iter().flatten() {
        if shape != "bearer" {
            return Err(AgentError::Invalid {
                field: "credential_shapes",
                problem: format!("`{shape}` is not supported; expected `bearer`"),
            });
        }
    }
    if let Some(bind) = &e.bind {
        if bind.mtls.is_some() || bind.dpop.is_some() {
            return Err(AgentError::Invalid { field: "bind", problem: "only `cidr` is supported".into() });
        }
        for block in bind.cidr.iter().flatten() {
            if block.parse::<ipnet::IpNet>().is_err() {
                return Err(AgentError::Invalid { field: "bind", problem: format!("`{block}` is not a CIDR block") });
            }
        }
        if bind.cidr.as_ref().is_none_or(Vec::is_empty) {
            return Err(AgentError::Invalid { field: "bind", problem: "`cidr` needs at least one block".into() });
        }
    }
    check_ttl(e.ttl_seconds)
}

fn check_ttl(ttl: Option<i64>) -> Result<i64, AgentError> {
    match ttl.unwrap_or(DEFAULT_TTL) {
        ttl @ 1..=MAX_TTL => Ok(ttl),
        _ => Err(AgentError::Invalid { field: "ttl_seconds", problem: format!("must be 1 to {MAX_TTL}") }),
    }
}

/// `U` or `W`, then capitals and digits, as Slack numbers its users.
fn is_slack_user(user: &str) -> bool {
    (2..=32).contains(&user.len())
        && user.starts_with(['U', 'W'])
        && user.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit())
}

fn check_text(field: &'static str, text: &str, max: usize) -> Result<(), AgentError> {
    if text.trim().is_empty() || text.len() > max || text.chars().any(char::is_control) {
        return Err(AgentError::Invalid { field, problem: format!("must be 1 to {max} bytes without controls") });
    }
    Ok(())
}

const DEFAULT_TTL: i64 = 86_400;
const MAX_TTL: i64 = 30 * 86_400;
