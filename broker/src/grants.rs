//! Grants: this agent may do this action on this resource until an instant, says a person of the groups that gate it.

use aegis_action::Timestamp;
use serde_json::json;

use crate::{
    Broker,
    admit::AdmitError,
    approvals::ApprovalError,
    env::RandomError,
    store::{GrantRecord, PersonRecord, StoreError},
};

/// `POST /v1/grants`.
#[derive(Debug, Clone, PartialEq)]
pub struct GrantRequest {
    /// Whom it is for.
    pub agent_id: String,
    /// `tool.action`.
    pub action: String,
    /// Exactly this one; `None` for actions without a resource.
    pub resource: Option<String>,
    /// Groups to speak for; all of the person's where not given.
    pub groups: Option<Vec<String>>,
    /// How long it holds.
    pub ttl_seconds: i64,
    /// Why.
    pub reason: Option<String>,
}

/// Why a grant is not given or not ended.
#[derive(Debug, thiserror::Error)]
pub enum GrantError {
    /// A member that is not usable.
    #[error("`{field}`: {problem}")]
    Invalid {
        /// Which.
        field: &'static str,
        /// What is wrong, and what would do.
        problem: String,
    },
    /// There is none.
    #[error("no such {0}")]
    NotFound(&'static str),
    /// The person may not give it.
    #[error(transparent)]
    Approval(#[from] ApprovalError),
    /// The store cannot be used.
    #[error("{0}")]
    Store(#[from] StoreError),
    /// The step cannot be put on record.
    #[error("{0}")]
    Unrecorded(String),
}

impl From<AdmitError> for GrantError {
    fn from(error: AdmitError) -> Self {
        Self::Unrecorded(error.to_string())
    }
}

impl From<RandomError> for GrantError {
    fn from(error: RandomError) -> Self {
        Self::Unrecorded(error.to_string())
    }
}

impl Broker {
    /// A person's yes in advance. On record before it lifts anything.
    pub async fn grant(&self, request: GrantRequest, person: &PersonRecord) -> Result<GrantRecord, GrantError> {
        let invalid = |field, problem: String| GrantError::Invalid { field, problem };
        if !(1..=LONGEST).contains(&request.ttl_seconds) {
            return Err(invalid("ttl_seconds", format!("must be 1 to {LONGEST}")));
        }
        if request.reason.as_ref().is_some_and(|r| r.chars().count() > 500 || r.chars().any(char::is_control)) {
            return Err(invalid("reason", "at most 500 characters, none of them a control character".into()));
        }
        let groups = request.groups.unwrap_or_else(|| person.groups.clone());
        if groups.is_empty() {
            return Err(invalid("groups", "name at least one group".into()));
        }
        if let Some(other) = groups.iter().find(|g| !person.groups.contains(g)) {
            return Err(ApprovalError::NotInGroup(other.clone()).into());
        }
        let entry = self.entry(&request.action).ok_or_else(|| {
            invalid("action", format!("no action `{}`; `aegis actions search` finds names", request.action))
        })?;
        if entry.resource.is_some() != request.resource.is_some() {
            let problem = match &entry.resource {
                Some(template) => format!("this action is done on one: name it, in the form `{template}`"),
                None => "this action has none: leave it out".to_owned(),
            };
            return Err(invalid("resource", problem));
        }
        self.store.agent(&request.agent_id).await?.ok_or(GrantError::NotFound("agent"))?;
        self.apart(person, &request.agent_id, entry.risk.as_str()).await?;
        let now = self.env.clock.now();
        let wanted = now.plus_seconds(request.ttl_seconds);
        let grant = GrantRecord {
            grant_id: self.env.id("grt_")?,
            tenant: self.tenant.clone(),
            agent_id: request.agent_id,
            action: request.action,
            resource: request.resource,
            groups,
            person_id: person.person_id.clone(),
            reason: request.reason,
            created_at: now,
            // Nobody's yes outlives their own access.
            expires_at: person.expires_at.map_or(wanted, |end| end.min(wanted)),
            revoked_at: None,
        };
        let event = self.event(
            "grant_given",
            json!({"grant_id": grant.grant_id, "agent_id": grant.agent_id, "action": grant.action,
                "resource": grant.resource, "groups": grant.groups, "person_id": grant.person_id,
                "expires_at": grant.expires_at}),
        )?;
        self.store.insert_grant(&grant, &event).await?;
        self.drain_outbox().await?;
        Ok(grant)
    }

    /// Ends a grant; in force for the next decision.
    pub async fn revoke_grant(&self, grant_id: &str, by: &str) -> Result<(), GrantError> {
        let event = self.event("grant_revoked", json!({"grant_id": grant_id, "person_id": by}))?;
        let now: Timestamp = self.env.clock.now();
        if !self.store.revoke_grant(grant_id, now, &event).await? {
            return Err(GrantError::NotFound("grant that holds"));
        }
        self.drain_outbox().await?;
        Ok(())
    }

    pub(crate) fn entry(&self, qualified: &str) -> Option<std::sync::Arc<aegis_connectors::Entry>> {
        let (tool, action) = qualified.split_once('.')?;
        let snapshot = self.snapshot();
        let catalogs = self.grammars.catalogs();
        let mut all = catalogs.iter().flat_map(|c| c.catalog()).chain(&snapshot.config.tools);
        all.find(|e| e.tool.as_ref() == tool && e.name == action).cloned()
    }
}

/// Thirty days: longer than that is a policy.
const LONGEST: i64 = 2_592_000;
