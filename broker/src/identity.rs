//! Who is asking: agents by token, people by token, each with a credential of their own.

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU8, Ordering},
    },
};

use aegis_action::{Digest, Timestamp};
use foldhash::HashMap;
use ipnet::IpNet;
use parking_lot::RwLock;

use crate::{
    policy::Principal,
    store::{AgentRecord, AgentState, PersonRecord, PersonRole, Store, StoreError, TokenRecord},
    token::{TokenHasher, TokenKind, well_formed},
};

/// An authenticated agent. Cheap to clone; `state` is shared by everything the agent has in flight.
pub struct Identity {
    /// The agent as enrolled.
    pub agent: AgentRecord,
    /// The token it came with.
    pub token: TokenRecord,
    /// The agent as policies see it.
    pub principal: Principal,
    bind: Vec<IpNet>,
    live: Arc<AtomicU8>,
    /// When the token ends. A session's moves while requests are in flight.
    until: Arc<AtomicI64>,
}

impl Identity {
    /// The run that the token was issued for, if it was issued for one.
    pub fn run_id(&self) -> Option<&str> {
        self.token.session_id.as_deref()
    }

    /// Why this agent may not act at `now`, if so. Checked at every step, not only at the door.
    pub fn refusal(&self, now: Timestamp) -> Option<AuthError> {
        match state_of(self.live.load(Ordering::Acquire)) {
            AgentState::Active if now.0 < self.until.load(Ordering::Acquire) => None,
            AgentState::Active | AgentState::Expired => Some(AuthError::Expired),
            AgentState::Frozen => Some(AuthError::Frozen),
            AgentState::Quarantined => Some(AuthError::Quarantined),
            AgentState::Revoked => Some(AuthError::Revoked),
        }
    }
}

/// Why a caller is not let in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// No credential at all.
    #[error("no agent token")]
    Missing,
    /// More than one credential, and they differ.
    #[error("conflicting agent tokens")]
    Conflicting,
    /// Not a token of this installation.
    #[error("unknown token")]
    Unknown,
    /// Past its end.
    #[error("expired token")]
    Expired,
    /// The agent is revoked for good.
    #[error("revoked agent")]
    Revoked,
    /// The agent is frozen.
    #[error("frozen agent")]
    Frozen,
    /// The agent is quarantined.
    #[error("quarantined agent")]
    Quarantined,
    /// The token is bound to other addresses.
    #[error("token used outside its address binding")]
    Elsewhere,
    /// The store cannot be asked.
    #[error("identity store unavailable")]
    Unavailable,
}

impl AuthError {
    /// Stable code for `Aegis-Reason`, leaves and metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Missing => "no_credential",
            Self::Conflicting => "conflicting_credentials",
            Self::Unknown => "unknown_token",
            Self::Expired => "expired_token",
            Self::Revoked => "agent_revoked",
            Self::Frozen => "agent_frozen",
            Self::Quarantined => "agent_quarantined",
            Self::Elsewhere => "token_binding",
            Self::Unavailable => "identity_unavailable",
        }
    }

    /// Status for the client.
    pub fn status(&self) -> http::StatusCode {
        match self {
            Self::Missing | Self::Unknown | Self::Expired | Self::Revoked => http::StatusCode::UNAUTHORIZED,
            Self::Conflicting => http::StatusCode::BAD_REQUEST,
            Self::Frozen | Self::Quarantined | Self::Elsewhere => http::StatusCode::FORBIDDEN,
            Self::Unavailable => http::StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

/// Turns tokens into identities.
pub struct Authenticator {
    store: Arc<dyn Store>,
    hasher: TokenHasher,
    cache: RwLock<Cache>,
}

/// A session, renewals and its end included.
pub struct FollowedSession {
    until: Arc<AtomicI64>,
}

impl FollowedSession {
    /// When it ends, as known now.
    pub fn until(&self) -> Timestamp {
        Timestamp(self.until.load(Ordering::Acquire))
    }
}

#[derive(Default)]
struct Cache {
    /// Grows with every transition, so that a look-up that raced one is not kept.
    generation: u64,
    by_token: HashMap<Digest, Arc<Identity>>,
    /// One cell an agent, shared by all its identities.
    live: HashMap<String, Arc<AtomicU8>>,
    /// One cell a session, likewise.
    sessions: HashMap<String, Arc<AtomicI64>>,
}

impl Authenticator {
    /// One per process: the cache is exact because every transition goes through [`Authenticator::changed`].
    pub fn new(store: Arc<dyn Store>, hasher: TokenHasher) -> Self {
        Self { store, hasher, cache: RwLock::default() }
    }

    /// Keyed hash of a token.
    pub fn hash(&self, token: &str) -> Digest {
        self.hasher.hash(token)
    }

    /// The agent of a token, if it may act at `now` from `peer`.
    pub async fn agent(
        &self,
        token: &str,
        peer: Option<IpAddr>,
        now: Timestamp,
    ) -> Result<Arc<Identity>, (AuthError, Option<Arc<Identity>>)> {
        if !well_formed(TokenKind::Agent, token) {
            return Err((AuthError::Unknown, None));
        }
        let hash = self.hasher.hash(token);
        let identity = match self.cached(&hash) {
            Some(identity) => identity,
            None => match self.load(&hash).await.map_err(|e| (e, None))? {
                Some(identity) => identity,
                // A transition came in between: what was read may be old. Once more, then give up.
                None => self.load(&hash).await.and_then(|i| i.ok_or(AuthError::Unavailable)).map_err(|e| (e, None))?,
            },
        };
        if let Some(refusal) = identity.refusal(now) {
            return Err((refusal, Some(identity)));
        }
        if !identity.bind.is_empty()
            && !peer.is_some_and(|ip| identity.bind.iter().any(|net| net.contains(&ip.to_canonical())))
        {
            return Err((AuthError::Elsewhere, Some(identity)));
        }
        Ok(identity)
    }

    /// The admin or approver of a token.
    pub async fn person(&self, token: &str, role: PersonRole, now: Timestamp) -> Result<PersonRecord, AuthError> {
        if !well_formed(role.into(), token) {
            return Err(AuthError::Unknown);
        }
        let person = self.store.person_by_token(&self.hasher.hash(token)).await.map_err(|_| AuthError::Unavailable)?;
        match person {
            Some(p) if p.role != role => Err(AuthError::Unknown),
            Some(p) if p.revoked => Err(AuthError::Revoked),
            Some(p) if p.expires_at.is_some_and(|end| now >= end) => Err(AuthError::Expired),
            Some(p) => Ok(p),
            None => Err(AuthError::Unknown),
        }
    }

    /// Takes a transition into account: whatever is in flight for the agent sees it at once.
    pub fn changed(&self, agent: &AgentRecord) {
        let mut cache = self.cache.write();
        cache.generation += 1;
        cache.by_token.retain(|_, identity| identity.agent.agent_id != agent.agent_id);
        if let Some(live) = cache.live.get(&agent.agent_id) {
            live.store(agent.state as u8, Ordering::Release);
        }
    }

    /// Takes a renewal or the end of a session into account, as [`Authenticator::changed`] does.
    pub fn session_changed(&self, session_id: &str, until: Timestamp) {
        let mut cache = self.cache.write();
        cache.generation += 1;
        if let Some(cell) = cache.sessions.get(session_id) {
            cell.store(until.0, Ordering::Release);
        }
    }

    /// Ends the look-ups of this process: from here on only requests in flight know identities.
    pub fn retire(&self) {
        let mut cache = self.cache.write();
        cache.generation += 1;
        cache.by_token.clear();
    }

    /// What the requests in flight of a retired process depend on: ids of agents; sessions, and until when they last.
    pub fn in_flight(&self) -> (Vec<String>, Vec<(String, Timestamp)>) {
        let mut cache = self.cache.write();
        // Only requests hold cells, beside the map itself.
        cache.live.retain(|_, live| Arc::strong_count(live) > 1);
        cache.sessions.retain(|_, until| Arc::strong_count(until) > 1);
        let until = |cell: &AtomicI64| Timestamp(cell.load(Ordering::Acquire));
        let sessions = cache.sessions.iter().map(|(id, cell)| (id.clone(), until(cell))).collect();
        (cache.live.keys().cloned().collect(), sessions)
    }

    /// Follows a session that requests in another process depend on; `until` is what that process knows.
    pub fn follow_session(&self, session_id: &str, until: Timestamp) -> FollowedSession {
        let mut cache = self.cache.write();
        let cell = cache.sessions.entry(session_id.to_owned()).or_insert_with(|| Arc::new(AtomicI64::new(until.0)));
        FollowedSession { until: cell.clone() }
    }

    /// Contains every agent: nobody could tell any more which of them are.
    pub fn contain_all(&self) {
        let mut cache = self.cache.write();
        cache.generation += 1;
        cache.by_token.clear();
        for live in cache.live.values() {
            live.store(AgentState::Revoked as u8, Ordering::Release);
        }
    }

    fn cached(&self, hash: &Digest) -> Option<Arc<Identity>> {
        self.cache.read().by_token.get(hash).cloned()
    }

    /// `None` when a transition came between look-up and here.
    async fn load(&self, hash: &Digest) -> Result<Option<Arc<Identity>>, AuthError> {
        let generation = self.cache.read().generation;
        let found = self.store.agent_by_token(hash).await.map_err(|e| match e {
            StoreError::NotFound(_) => AuthError::Unknown,
            StoreError::Conflict(_) | StoreError::TooMany(_) | StoreError::Unavailable(_) => AuthError::Unavailable,
        })?;
        let (agent, token) = found.ok_or(AuthError::Unknown)?;
        let mut cache = self.cache.write();
        if cache.generation != generation {
            return Ok(None);
        }
        if cache.by_token.len() >= MAX_CACHED {
            cache.by_token.clear();
            // A cell that somebody still holds must stay the one that transitions reach.
            cache.live.retain(|_, live| Arc::strong_count(live) > 1);
            cache.sessions.retain(|_, until| Arc::strong_count(until) > 1);
        }
        let live =
            cache.live.entry(agent.agent_id.clone()).or_insert_with(|| Arc::new(AtomicU8::new(agent.state as u8)));
        let live = live.clone();
        let until = match &token.session_id {
            None => Arc::new(AtomicI64::new(token.expires_at.0)),
            Some(session) => {
                let cell = cache.sessions.entry(session.clone()).or_default();
                cell.store(token.expires_at.0, Ordering::Release);
                cell.clone()
            }
        };
        let identity = Arc::new(Identity {
            principal: principal(&agent),
            bind: agent.bind_cidr.iter().filter_map(|block| block.parse().ok()).collect(),
            live,
            until,
            agent,
            token,
        });
        cache.by_token.insert(*hash, identity.clone());
        Ok(Some(identity))
    }
}

pub(crate) fn principal(agent: &AgentRecord) -> Principal {
    Principal {
        agent_id: agent.agent_id.clone(),
        team: agent.owner_team.clone(),
        owner: agent.owner_email.clone(),
        environment: agent.environment.clone(),
        risk_tier: agent.risk_tier.clone(),
        framework: agent.framework.clone(),
        binding: if agent.bind_cidr.is_empty() { "bearer".into() } else { "bearer+cidr".into() },
        version: agent.version,
    }
}

fn state_of(byte: u8) -> AgentState {
    match byte {
        b if b == AgentState::Active as u8 => AgentState::Active,
        b if b == AgentState::Frozen as u8 => AgentState::Frozen,
        b if b == AgentState::Quarantined as u8 => AgentState::Quarantined,
        b if b == AgentState::Expired as u8 => AgentState::Expired,
        // Anything else could only be a state added later; it may not act.
        _ => AgentState::Revoked,
    }
}

const MAX_CACHED: usize = 65_536;
