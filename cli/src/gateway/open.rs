//! From a state folder to a broker.

use std::{
    collections::BTreeMap, io, net::SocketAddr, os::unix::fs::DirBuilderExt as _, path::Path, sync::Arc, time::Duration,
};

use aegis_action::Clock;
use aegis_broker::{
    Broker, Parts as BrokerParts, StartError,
    authorize::CarriedDecision,
    config::Problem,
    decision_log::DecisionLog,
    env::Env,
    metrics::Metrics,
    sealer,
    secret::Secret,
    snapshot::{Grammars, Snapshot, Sources},
    store::PersonRole,
    token::TokenHasher,
    vault::Vault,
};
use aegis_proxy::{CaOptions, Dialer, Provided};
use aegis_receipts::{Heir, LogOptions, RealDisk, ReceiptLog};
use aegis_store::SqliteStore;
use aegis_vault_adapters::{EmbeddedVault, EnvVault, FileOptions, FileVault, MasterKey, OsEntropy, Sealer};
use zeroize::Zeroizing;

use super::doors::Ca;
use crate::{
    config::{Config, MasterSource},
    error::CliError,
    state::{self, Held},
};

/// A broker on a state folder that this process holds.
pub struct Gateway {
    /// The decision path.
    pub broker: Arc<Broker>,
    /// Dials upstreams; knows our own listeners.
    pub dialer: Arc<Dialer>,
    /// What the configuration says that may not be meant.
    pub warnings: Vec<Problem>,
    /// Roots and certificates, opened when they are first needed.
    pub ca: Arc<Ca>,
    store: SqliteStore,
    vault: EmbeddedVault,
    held: Held,
}

/// What a process still owes, and is owed, when it has let go of everything else.
pub struct Released {
    /// Intents without an outcome.
    pub open: Vec<u64>,
    /// SDK decisions whose callers will report.
    pub decisions: Vec<CarriedDecision>,
}

/// Routes and policies that can be used, checked before anything is opened.
pub struct Prepared {
    grammars: Grammars,
    snapshot: Snapshot,
    warnings: Vec<Problem>,
    decisions: DecisionLog,
}

impl Prepared {
    /// Loads catalogs and policies, which takes the most part of a start.
    pub fn new(parts: Parts) -> Result<Self, CliError> {
        let grammars = Grammars::load();
        let built = Snapshot::build(&parts.sources, &grammars);
        let (snapshot, warnings) = built.map_err(|problems| CliError::Problems(crate::reload::errors(&problems)))?;
        Ok(Self { grammars, snapshot, warnings, decisions: parts.decisions })
    }
}

/// What differs between a served gateway, a command without one, and the demo.
pub struct Parts {
    /// Routes and policies.
    pub sources: Sources,
    /// Decision lines.
    pub decisions: DecisionLog,
}

/// Whether this start made the first admin.
#[derive(Debug, PartialEq, Eq)]
pub enum NewAdmin {
    /// Yes; its token is in the state folder.
    Made,
    /// There is one.
    Known,
}

impl Gateway {
    /// Opens the state folder of `held`, making what is missing: keys, log, database, admin.
    pub async fn open(config: &Config, held: Held, parts: Parts) -> Result<Self, CliError> {
        Self::open_prepared(config, held, Prepared::new(parts)?).await
    }

    /// The same with routes and policies that were checked before.
    pub async fn open_prepared(config: &Config, held: Held, prepared: Prepared) -> Result<Self, CliError> {
        let env = Env::system();
        let vault = embedded_vault(config, env.clock.clone()).await?;
        let root = vault.root_key();
        let log = receipt_log(config, env.clock.clone()).await?;
        let store = SqliteStore::open(&config.in_state(DATABASE)).await.map_err(failed)?;
        let dialer = Dialer::new();
        let ca = ca_options(config, Arc::new(RootSealer(root.sealer(CA))));
        let started = Broker::start_with(
            BrokerParts {
                vaults: vaults(config, vault.clone(), &env)?,
                env,
                log: log.clone(),
                store: Arc::new(store.clone()),
                sealer: Arc::new(RootSealer(root.sealer(PAYLOADS))),
                hasher: TokenHasher::new(root.derive_key(TOKENS)),
                upstream: dialer.clone(),
                grammars: prepared.grammars,
                metrics: Metrics::new().map_err(failed)?,
                decisions_log: prepared.decisions,
                tenant: TENANT.to_owned(),
            },
            prepared.snapshot,
        )
        .await;
        let broker = started.map_err(|e| failed(StartError::Unrecorded(e)))?;
        let ca = Ca::new(ca, broker.clone());
        Ok(Self { broker, dialer, warnings: prepared.warnings, ca, store, vault, held })
    }

    /// Makes an admin where there is none yet, with its token in the state folder.
    ///
    /// A crash between the two leaves an admin whose token nobody has; `aegis admin reset` replaces it.
    pub async fn ensure_admin(&self, config: &Config) -> Result<NewAdmin, CliError> {
        let people = self.broker.store.people().await.map_err(failed)?;
        if people.iter().any(|p| p.role == PersonRole::Admin && !p.revoked) {
            return Ok(NewAdmin::Known);
        }
        self.add_admin(config).await?;
        Ok(NewAdmin::Made)
    }

    /// Ends the access of all admins and makes a new one.
    pub async fn reset_admin(&self, config: &Config) -> Result<(), CliError> {
        for person in self.broker.store.people().await.map_err(failed)? {
            if person.role == PersonRole::Admin && !person.revoked {
                self.broker.revoke_person(&person.person_id).await.map_err(failed)?;
            }
        }
        self.add_admin(config).await
    }

    async fn add_admin(&self, config: &Config) -> Result<(), CliError> {
        let (_, token) =
            self.broker.add_person("admin", PersonRole::Admin, Vec::new(), None, None, None).await.map_err(failed)?;
        save_token(&config.in_state(state::ADMIN_TOKEN), &token)
    }

    /// Makes an approver with its token in the state folder, where the file does not exist yet.
    pub async fn ensure_approver(&self, config: &Config, name: &str, group: &str) -> Result<(), CliError> {
        let path = config.in_state(state::APPROVER_TOKEN);
        if path.exists() {
            return Ok(());
        }
        let groups = vec![group.to_owned()];
        let (_, token) =
            self.broker.add_person(name, PersonRole::Approver, groups, None, None, None).await.map_err(failed)?;
        save_token(&path, &token)
    }

    /// Tells other commands where the doors are.
    pub fn publish(&self, listen: SocketAddr, admin: SocketAddr) -> Result<(), CliError> {
        self.held.publish(listen, admin)
    }

    /// Lets another process have log, vault, database and state folder. Outcomes that come later are the heir's.
    ///
    /// The outbox is drained by one of the two only: here for the last time before the log is given
    /// up, there for the first time after it was opened.
    pub async fn release(self, heir: Heir) -> Released {
        self.record_queued().await;
        let decisions = self.broker.carry_decisions();
        let log = self.broker.log.clone();
        let open = tokio::task::spawn_blocking(move || log.hand_over(heir)).await.unwrap_or_default();
        // A connection that is still busy keeps its own time; the next process can open the file beside it.
        let _ = tokio::time::timeout(CLOSE, self.store.close()).await;
        if let Err(error) = self.vault.close().await {
            tracing::error!(%error, "the vault cannot be given up");
        }
        drop(self.held);
        Released { open, decisions }
    }

    async fn record_queued(&self) {
        self.broker.flush_refusals();
        if let Err(error) = self.broker.drain_outbox().await {
            tracing::error!(%error, "transitions could not be recorded; the next start records them");
        }
    }

    /// Records what is queued, syncs the log and closes the database.
    pub async fn close(self) {
        self.record_queued().await;
        let log = self.broker.log.clone();
        let _ = tokio::task::spawn_blocking(move || log.shutdown()).await;
        self.store.close().await;
    }
}

/// Seals under a key of the installation.
struct RootSealer(Sealer);

impl sealer::Sealer for RootSealer {
    fn seal(&self, label: &[u8], plain: &[u8]) -> Option<Vec<u8>> {
        self.0.seal(label, plain).ok()
    }

    fn open(&self, label: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
        self.0.open(label, sealed).ok().map(|plain| plain.to_vec())
    }
}

fn ca_options(config: &Config, sealer: Arc<dyn sealer::Sealer>) -> CaOptions {
    let mut names: Vec<String> = config.tls.iter().flat_map(|tls| tls.names.clone()).collect();
    // Clients that know the listener by its address alone send no name.
    names.extend(
        config.tls.iter().map(|tls| tls.listen.ip()).filter(|ip| !ip.is_unspecified()).map(|ip| ip.to_string()),
    );
    let provided = config.intermediate.clone();
    CaOptions {
        dir: config.in_state(state::CA),
        sealer,
        names,
        provided: provided.map(|files| Provided { certificate: files.certificate, key: files.key }),
    }
}

async fn embedded_vault(config: &Config, clock: Arc<dyn Clock>) -> Result<EmbeddedVault, CliError> {
    let master = master_key(&config.master)?;
    let path = config.in_state(VAULT);
    tokio::task::spawn_blocking(move || EmbeddedVault::open(&path, &master, clock))
        .await
        .map_err(failed)?
        .map_err(failed)
}

fn master_key(source: &MasterSource) -> Result<MasterKey, CliError> {
    let variable = |name: &str| {
        std::env::var(name)
            .map(Zeroizing::new)
            .map_err(|_| CliError::usage(format!("`[keys] master` names the variable `{name}`, which is not set")))
    };
    match source {
        MasterSource::File(path) => {
            if let Some(folder) = path.parent() {
                make_key_folder(folder).map_err(|e| failed(format!("cannot make `{}`: {e}", folder.display())))?;
            }
            MasterKey::from_file(path).map_err(failed)
        }
        MasterSource::Env(name) => MasterKey::from_env(&variable(name)?).map_err(failed),
        MasterSource::Passphrase(name) => MasterKey::from_passphrase(variable(name)?).map_err(failed),
    }
}

fn make_key_folder(folder: &Path) -> io::Result<()> {
    if folder.as_os_str().is_empty() || folder.is_dir() {
        return Ok(());
    }
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

async fn receipt_log(config: &Config, clock: Arc<dyn Clock>) -> Result<Arc<ReceiptLog>, CliError> {
    let options = LogOptions::new(config.in_state(RECEIPTS), config.node.clone());
    let opened = tokio::task::spawn_blocking(move || ReceiptLog::open(options, clock, Arc::new(RealDisk)));
    let (log, recovered) = opened.await.map_err(failed)?.map_err(failed)?;
    if recovered.cut_bytes > 0 {
        tracing::warn!(
            event = "log_recovered",
            cut_bytes = recovered.cut_bytes,
            "a crash left an unfinished end in the receipt log; it is cut and kept in `torn`"
        );
    }
    if !recovered.preallocates {
        tracing::warn!("this file system cannot reserve space; a full disk may leave outcomes unknown");
    }
    Ok(log)
}

fn vaults(
    config: &Config,
    embedded: EmbeddedVault,
    env: &Env,
) -> Result<BTreeMap<&'static str, Arc<dyn Vault>>, CliError> {
    let base = config.file.parent().map(Path::to_owned).unwrap_or_default();
    let options = FileOptions { base, danger_world_readable: false };
    let file = FileVault::new(options, env.clock.clone(), &OsEntropy).map_err(failed)?;
    let all: [Arc<dyn Vault>; 3] =
        [Arc::new(embedded), Arc::new(EnvVault::new(&OsEntropy).map_err(failed)?), Arc::new(file)];
    Ok(all.into_iter().map(|vault| (vault.name(), vault)).collect())
}

fn save_token(path: &Path, token: &Secret) -> Result<(), CliError> {
    let mut line = Zeroizing::new(token.expose().to_vec());
    line.push(b'\n');
    state::write_private(path, &line)
}

fn failed(error: impl std::fmt::Display) -> CliError {
    CliError::failed(error.to_string())
}

/// Folder of the receipt log in the state folder.
pub const RECEIPTS: &str = "receipts";
/// How long the database may take to close.
const CLOSE: Duration = Duration::from_secs(2);
const DATABASE: &str = "aegis.db";
const VAULT: &str = "vault";
const TENANT: &str = "default";
const TOKENS: &str = "token-hash";
const PAYLOADS: &str = "payload";
const CA: &str = "ca";
