//! What admins do to credentials, and what they take out of the record.

use std::{collections::BTreeMap, sync::Arc};

use aegis_action::{Timestamp, canonicalize};
use aegis_receipts::{
    Bundle, Decision, Event, Intent, Leaf, LeafBody, LogError, Opening, outcome_seq, parse_receipt_id,
};
use serde_json::{Map, Value, json};

use crate::{
    Broker,
    admit::AdmitError,
    config::Webhook,
    secret::Secret,
    vault::{StoredKey, Vault, VaultError},
};

/// A credential without its value.
#[derive(Debug, Clone, PartialEq)]
pub struct CredentialStatus {
    /// Name as in `routes.toml`, or the vault's key where no `[[credential]]` names it.
    pub name: String,
    /// Vault adapter.
    pub vault: String,
    /// Key in that vault.
    pub key: String,
    /// How it is sent; `None` where no `[[credential]]` says.
    pub kind: Option<&'static str>,
    /// Routes that send it, in file order.
    pub routes: Vec<String>,
    /// Webhooks that use it, in file order.
    pub webhooks: Vec<String>,
    /// Version that the vault has now.
    pub version: Option<String>,
    /// When this version was stored, where the vault knows.
    pub updated_at: Option<Timestamp>,
    /// Why there is no version.
    pub problem: Option<String>,
}

/// Why a credential is not stored or removed.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    /// `routes.toml` says that it is in a vault that is not ours to write.
    #[error("credential `{name}` is in vault `{vault}`, which is changed where it is kept")]
    Elsewhere {
        /// Credential.
        name: String,
        /// Its vault.
        vault: String,
    },
    /// The process has no such vault.
    #[error("vault `{0}` is not configured")]
    NoVault(String),
    /// The vault refused.
    #[error(transparent)]
    Vault(VaultError),
    /// The change was made, or not made, but cannot be put on record.
    #[error("{0}")]
    Unrecorded(String),
}

impl Broker {
    /// Every credential that `routes.toml` names, in name order, then what else the embedded vault holds.
    pub async fn credentials(&self) -> Vec<CredentialStatus> {
        let snapshot = self.snapshot();
        let mut out = Vec::new();
        for spec in snapshot.config.credentials.values() {
            let routes = snapshot.config.routes.iter().filter(|r| r.credential.as_ref() == Some(&spec.name));
            let uses = |w: &&Arc<Webhook>| w.credentials().any(|(_, name, _)| name == spec.name);
            let webhooks = snapshot.config.webhooks.iter().filter(uses);
            let mut status = CredentialStatus {
                name: spec.name.clone(),
                vault: spec.vault.clone(),
                key: spec.key.clone(),
                kind: Some(spec.kind.word()),
                routes: routes.map(|r| r.name.clone()).collect(),
                webhooks: webhooks.map(|w| w.name.clone()).collect(),
                version: None,
                updated_at: None,
                problem: None,
            };
            match self.vaults.get(spec.vault.as_str()) {
                None => status.problem = Some(CredentialError::NoVault(spec.vault.clone()).to_string()),
                Some(vault) => match stored(vault.as_ref(), &spec.key).await {
                    Ok(key) => (status.version, status.updated_at) = (Some(key.0), key.1),
                    Err(e) => status.problem = Some(e.to_string()),
                },
            }
            out.push(status);
        }
        if let Some(vault) = self.vaults.get(EMBEDDED)
            && let Ok(Some(keys)) = vault.list().await
        {
            let named = |key: &str| out.iter().any(|c: &CredentialStatus| c.vault == EMBEDDED && c.key == key);
            let rest: Vec<StoredKey> = keys.into_iter().filter(|k| !named(&k.key)).collect();
            out.extend(rest.into_iter().map(|k| CredentialStatus {
                name: k.key.clone(),
                vault: EMBEDDED.into(),
                key: k.key,
                kind: None,
                routes: Vec::new(),
                webhooks: Vec::new(),
                version: Some(k.version),
                updated_at: Some(k.updated_at),
                problem: None,
            }));
        }
        out
    }

    /// Stores or replaces a value in the embedded vault; `by` is the admin. Returns the new version.
    ///
    /// The leaf comes after the change, since it names the version. A crash in between leaves a value
    /// whose version first shows in the outcome that uses it; a log that is known to fail changes nothing.
    pub async fn store_credential(&self, name: &str, value: Secret, by: &str) -> Result<String, CredentialError> {
        let (vault, key) = self.writable(name)?;
        let version = vault.put(&key, value).await.map_err(CredentialError::Vault)?;
        let body = json!({"credential": name, "vault": EMBEDDED, "version": version, "person_id": by});
        self.record_change("credential_stored", body).await?;
        Ok(version)
    }

    /// Removes a value from the embedded vault; `by` is the admin. `false` where there was none.
    ///
    /// Order as in [`Broker::store_credential`].
    pub async fn remove_credential(&self, name: &str, by: &str) -> Result<bool, CredentialError> {
        let (vault, key) = self.writable(name)?;
        if !vault.remove(&key).await.map_err(CredentialError::Vault)? {
            return Ok(false);
        }
        self.credentials.write().remove(name);
        let body = json!({"credential": name, "vault": EMBEDDED, "person_id": by});
        self.record_change("credential_removed", body).await?;
        Ok(true)
    }

    /// The embedded vault and the key of a credential. A name that `routes.toml` does not know (yet) is its own key.
    fn writable(&self, name: &str) -> Result<(&dyn Vault, String), CredentialError> {
        let snapshot = self.snapshot();
        let key = match snapshot.config.credentials.get(name) {
            Some(spec) if spec.vault != EMBEDDED => {
                return Err(CredentialError::Elsewhere { name: name.to_owned(), vault: spec.vault.clone() });
            }
            Some(spec) => spec.key.clone(),
            None => name.to_owned(),
        };
        let vault = self.vaults.get(EMBEDDED).ok_or_else(|| CredentialError::NoVault(EMBEDDED.into()))?;
        self.log.health().map_err(|e| CredentialError::Unrecorded(e.to_string()))?;
        Ok((vault.as_ref(), key))
    }

    /// A receipt to hand to someone: its leaf, the leaves of the same decision, the outcome, and what
    /// opens their commitments where nothing of the action is masked or erased. `None` where there is none.
    pub async fn bundle(&self, receipt_id: &str) -> Result<Option<Bundle>, LogError> {
        let Some((node, seq)) = parse_receipt_id(receipt_id) else { return Ok(None) };
        if node != self.log.node() {
            return Ok(None);
        }
        let Some(stored) = self.log.leaf(seq)? else { return Ok(None) };
        let mut seqs = vec![seq];
        let mut openings = BTreeMap::new();
        if let Ok(Leaf { body: LeafBody::Intent(intent), .. }) = Leaf::parse(&stored.bytes) {
            // The leaves of one request stand together in the log.
            let first = seq.saturating_sub(intent.index.unwrap_or(0).into());
            seqs = (first..first + u64::from(intent.count.unwrap_or(1))).collect();
            for at in &seqs {
                if let Some(opening) = self.opening(*at, &intent)? {
                    openings.insert(*at, opening);
                }
            }
            if intent.decision == Decision::Allow && !intent.dry_run {
                let (log, from) = (self.log.clone(), seq);
                let outcome = tokio::task::spawn_blocking(move || outcome_seq(&log, from)).await;
                seqs.extend(outcome.map_err(|e| LogError::Io { doing: "read", cause: e.to_string() })??);
            }
        }
        Bundle::export(&self.log, seqs, openings).map(Some)
    }

    fn opening(&self, seq: u64, intent: &Intent) -> Result<Option<Opening>, LogError> {
        let sealed = self.log.payload(seq)?;
        let plain = sealed.and_then(|sealed| self.sealer.open(intent.decision_id.as_bytes(), &sealed));
        let Some(Value::Object(payload)) = plain.and_then(|plain| serde_json::from_slice(&plain).ok()) else {
            return Ok(None);
        };
        let mut salt = [0; 32];
        let salted =
            payload.get("salt").and_then(Value::as_str).is_some_and(|s| hex::decode_to_slice(s, &mut salt).is_ok());
        let five = ["tool", "action", "resource", "mutates_state", "parameters"];
        let action: Map<String, Value> =
            five.iter().filter_map(|k| Some(((*k).to_owned(), payload.get(*k)?.clone()))).collect();
        let opening = canonicalize(&Value::Object(action)).ok().and_then(|bytes| Opening::new(bytes, salt));
        // With parts masked it would be another action's hash, and would open nothing.
        Ok(opening.filter(|o| salted && payload.get("action_hash") == Some(&json!(o.action_hash))))
    }

    /// Puts a change of state on record that no row of the store stands for; durable on return.
    pub async fn record_change(&self, kind: &str, body: Value) -> Result<(), CredentialError> {
        let unrecorded = |e: &dyn std::fmt::Display| CredentialError::Unrecorded(e.to_string());
        let mut body: Map<String, Value> = body.as_object().cloned().unwrap_or_default();
        body.insert("tenant".into(), self.tenant.clone().into());
        let event = self.event(kind, Value::Null).map_err(|e: AdmitError| unrecorded(&e))?;
        let leaf = LeafBody::Event(Event { at: event.at, body, event_id: event.event_id, kind: event.kind });
        let appended = self.log.append(vec![leaf]).map_err(|e| unrecorded(&e))?;
        match appended.last() {
            Some(last) => self.log.durable(last.seq).await.map_err(|e| unrecorded(&e)),
            None => Ok(()),
        }
    }
}

/// Version of a key. A vault that cannot list is asked for the value, which is wiped at once.
async fn stored(vault: &dyn Vault, key: &str) -> Result<(String, Option<Timestamp>), VaultError> {
    match vault.list().await? {
        Some(keys) => {
            let found = keys.into_iter().find(|k| k.key == key);
            found.map(|k| (k.version, Some(k.updated_at))).ok_or_else(|| VaultError::NotFound(key.to_owned()))
        }
        None => vault.lease(key).await.map(|leased| (leased.version, None)),
    }
}

const EMBEDDED: &str = "embedded";
