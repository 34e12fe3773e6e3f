//! Permission as a value: made only where a decision is on record, spent once.

use std::sync::Arc;

use aegis_action::Timestamp;
use aegis_connectors::{Call, UpstreamRequest};
use aegis_receipts::{CredentialUse, OutcomeEntry, OutcomeState, ReceiptLog, Transfer};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    Broker,
    admit::Ask,
    config::CredentialSpec,
    credential::{Credential, Secrets},
    identity::{AuthError, Identity},
    record::DecisionRecord,
    snapshot::Scope,
    vault::VaultError,
};

/// The right to send one request once. Only [`Broker::admit`] makes one, after its intent
/// leaves are written; [`Broker::lease`] takes it by value. Dropped unspent, it leaves an
/// outcome that says nothing was sent.
pub struct Permit {
    scope: Arc<Scope>,
    identity: Arc<Identity>,
    credential: Option<Arc<CredentialSpec>>,
    client_key: Option<Arc<CredentialSpec>>,
    proxy: Option<Arc<CredentialSpec>>,
    versions: Vec<(Call, Value)>,
    ticket: Ticket,
}

impl Permit {
    pub(crate) fn new(
        broker: &Broker,
        ask: &Ask<'_>,
        record: &DecisionRecord,
        intents: Vec<u64>,
        mutates: bool,
        versions: Vec<Option<(Call, Value)>>,
    ) -> Self {
        let route = ask.scope.route.as_ref();
        let spec = |name: Option<&String>| name.and_then(|name| ask.snapshot.config.credentials.get(name).cloned());
        let ticket = Ticket {
            log: broker.log.clone(),
            decision_id: record.decision_id.clone(),
            last: intents.last().copied().unwrap_or_default(),
            intents,
            mutates,
            forwards: ask.door.forwards(),
            started: broker.env.clock.now(),
            credential: None,
            sent: false,
            open: true,
        };
        Self {
            scope: ask.scope.clone(),
            identity: ask.identity.clone(),
            credential: spec(route.and_then(|r| r.credential.as_ref())),
            client_key: spec(route.and_then(|r| r.egress.client_key_credential())),
            proxy: spec(route.and_then(|r| r.egress.proxy.as_ref()?.credential.as_ref())),
            versions: versions.into_iter().flatten().collect(),
            ticket,
        }
    }

    /// Makes the upstream request conditional on the versions that were judged, where the API takes that.
    pub fn add_preconditions(&self, upstream: &mut UpstreamRequest) {
        for (call, version) in &self.versions {
            self.scope.connector.add_precondition(call, version, upstream);
        }
    }

    /// The decision this permit stands on.
    pub fn decision_id(&self) -> &str {
        &self.ticket.decision_id
    }

    /// Gives up the right to send without sending: an SDK runs the action itself and closes the pair later.
    pub(crate) fn into_ticket(mut self) -> Ticket {
        self.ticket.sent = true;
        self.ticket
    }
}

/// Owed by whoever spent a permit: says what came of it. Dropped without, it says "unknown".
pub struct Ticket {
    log: Arc<ReceiptLog>,
    decision_id: String,
    intents: Vec<u64>,
    last: u64,
    mutates: bool,
    /// Whether the gateway itself sends what was permitted.
    forwards: bool,
    started: Timestamp,
    credential: Option<CredentialUse>,
    sent: bool,
    open: bool,
}

/// A ticket of a call that an SDK runs itself, on its way to the process that serves from now on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CarriedTicket {
    decision_id: String,
    intents: Vec<u64>,
    mutates: bool,
    started: Timestamp,
}

/// What came of a permitted request.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Status upstream answered with.
    pub status: Option<u16>,
    /// The body that went upstream.
    pub sent: Option<Transfer>,
    /// The body that came back.
    pub received: Option<Transfer>,
    /// What the response guard found, e.g. `credential_echo`.
    pub tamper: Option<String>,
    /// When the exchange ended.
    pub ended: Timestamp,
    /// How it ended.
    pub state: OutcomeState,
}

impl Outcome {
    /// An exchange that ended at `ended` this way, nothing else known.
    pub fn ended(state: OutcomeState, ended: Timestamp) -> Self {
        Self { status: None, sent: None, received: None, tamper: None, ended, state }
    }
}

impl Ticket {
    /// Returns once the intent is durable: before the first byte of an answer goes to the agent.
    pub async fn durable(&self) -> Result<(), aegis_receipts::LogError> {
        if self.log.is_durable(self.last) { Ok(()) } else { self.log.durable(self.last).await }
    }

    /// The decision.
    pub fn decision_id(&self) -> &str {
        &self.decision_id
    }

    /// Closes the pair.
    pub fn close(mut self, outcome: Outcome) {
        self.write(outcome.state, &outcome);
    }

    /// Owes nothing here any more: whoever takes it up does.
    pub(crate) fn carry(mut self) -> CarriedTicket {
        self.open = false;
        CarriedTicket {
            decision_id: std::mem::take(&mut self.decision_id),
            intents: std::mem::take(&mut self.intents),
            mutates: self.mutates,
            started: self.started,
        }
    }

    /// Takes up what another process owed.
    pub(crate) fn carried(ticket: CarriedTicket, log: Arc<ReceiptLog>) -> Self {
        Self {
            log,
            last: ticket.intents.last().copied().unwrap_or_default(),
            decision_id: ticket.decision_id,
            intents: ticket.intents,
            mutates: ticket.mutates,
            forwards: false,
            started: ticket.started,
            credential: None,
            sent: true,
            open: true,
        }
    }

    fn write(&mut self, state: OutcomeState, outcome: &Outcome) {
        self.open = false;
        for intent_seq in std::mem::take(&mut self.intents) {
            let entry = OutcomeEntry {
                credential: self.credential.clone(),
                decision_id: self.decision_id.clone(),
                ended_at: outcome.ended,
                intent_seq,
                of_read: !self.mutates,
                received: outcome.received,
                sent: outcome.sent,
                started_at: self.started,
                state,
                tamper: outcome.tamper.clone(),
                upstream_status: outcome.status,
            };
            if self.forwards {
                self.log.outcome(entry);
            } else if let Err(error) = self.log.append(vec![entry.into()]) {
                // No room is kept for these: whoever runs the action itself may never report.
                tracing::error!(%error, decision = %self.decision_id, "reported outcome could not be recorded");
            }
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if self.open {
            let state = if self.sent { OutcomeState::Unknown } else { OutcomeState::Aborted };
            self.write(state, &Outcome::ended(state, self.started));
        }
    }
}

/// Why a permitted request gets no credential.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    /// The agent was contained after the decision.
    #[error(transparent)]
    Auth(#[from] AuthError),
    /// The vault has nothing usable.
    #[error("credential `{name}` cannot be had: {source}")]
    Vault {
        /// Name as in `routes.toml`.
        name: String,
        /// Why.
        source: VaultError,
    },
    /// The route names a vault that is not configured.
    #[error("vault `{0}` is not configured")]
    NoVault(String),
}

impl Broker {
    /// Spends a permit: what it opens, and the ticket that is owed for it.
    ///
    /// The agent's state is looked at once more: nothing leaves the vault for an agent that was
    /// frozen or revoked since the decision.
    pub async fn lease(&self, permit: Permit) -> Result<(Secrets, Ticket), LeaseError> {
        if let Some(refusal) = permit.identity.refusal(self.env.clock.now()) {
            return Err(refusal.into());
        }
        let Permit { credential, client_key, proxy, mut ticket, .. } = permit;
        let secrets = Secrets {
            credential: self.open(credential).await?,
            client_key: self.open(client_key).await?,
            proxy: self.open(proxy).await?,
        };
        ticket.credential =
            secrets.credential.as_ref().map(|c| CredentialUse { id: c.id.clone(), version: c.version.clone() });
        ticket.sent = true;
        Ok((secrets, ticket))
    }

    async fn open(&self, spec: Option<Arc<CredentialSpec>>) -> Result<Option<Arc<Credential>>, LeaseError> {
        match spec {
            None => Ok(None),
            Some(spec) => self.open_credential(&spec).await.map(Some),
        }
    }

    /// What is remembered is the last lease of a declaration, with the matcher built for it: it
    /// serves only while the vault says that its version is the current one.
    pub(crate) async fn open_credential(&self, spec: &Arc<CredentialSpec>) -> Result<Arc<Credential>, LeaseError> {
        let vault = self.vaults.get(spec.vault.as_str()).ok_or_else(|| LeaseError::NoVault(spec.vault.clone()))?;
        let known = self.credentials.read().get(&spec.name).filter(|c| c.is_of(spec)).cloned();
        if let Some(known) = &known
            && vault.current(&spec.key).is_some_and(|version| version == known.version)
        {
            return Ok(known.clone());
        }
        let named = |source| LeaseError::Vault { name: spec.name.clone(), source };
        let leased = vault.lease(&spec.key).await.map_err(named)?;
        if leased.expires_at.is_some_and(|end| self.env.clock.now() >= end) {
            return Err(named(VaultError::Unavailable("the leased value has expired".into())));
        }
        if let Some(known) = known.filter(|c| c.is(&leased)) {
            return Ok(known);
        }
        let credential = Arc::new(Credential::new(spec, leased).map_err(named)?);
        self.credentials.write().insert(spec.name.clone(), credential.clone());
        Ok(credential)
    }
}
