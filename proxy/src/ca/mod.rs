//! The certificate authority of an installation: a sealed root, a constrained intermediate, short leaves.
//!
//! Clients trust the root once. It signs nothing but intermediates, and is unsealed only for that. The
//! intermediate is limited, by name constraints, to the hosts that routes and `aegis.toml` name, and is
//! issued anew when they change. Leaves live for a week at most and share one key that never leaves the
//! process.

mod error;
mod files;
mod intermediate;
mod leaf;
mod permitted;
mod root;
mod rotation;
mod status;
#[cfg(test)]
mod tests;

use std::{path::PathBuf, sync::Arc};

use aegis_action::{Digest, Timestamp};
use aegis_broker::{Broker, sealer::Sealer, snapshot::Snapshot};
use arc_swap::ArcSwap;
use moka::sync::Cache;
use rustls::{pki_types::CertificateDer, sign::CertifiedKey};
use serde_json::json;
use tokio::{sync::Mutex, task::spawn_blocking};

pub use error::CaError;
pub(crate) use files::{read_certificates, read_key};
pub use status::{CaStatus, RootStatus, inspect};

use files::Folder;
use intermediate::Intermediate;
use leaf::LeafKey;
use permitted::Permitted;
use root::{Root, Roots};

/// What an authority is opened with.
#[derive(Clone)]
pub struct CaOptions {
    /// Folder of keys and certificates, made for its owner only.
    pub dir: PathBuf,
    /// Seals the root's key.
    pub sealer: Arc<dyn Sealer>,
    /// Names and addresses of the gateway itself, lower case.
    pub names: Vec<String>,
    /// An intermediate of the operator's own; then there is no root of ours.
    pub provided: Option<Provided>,
}

/// An intermediate of the operator's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Provided {
    /// PEM: the intermediate, then what stands above it.
    pub certificate: PathBuf,
    /// PEM, PKCS #8, for its owner only.
    pub key: PathBuf,
}

/// Issues certificates for the hosts of the routes in force, and for nothing else.
pub struct Authority {
    options: CaOptions,
    folder: Folder,
    broker: Arc<Broker>,
    leaf_key: LeafKey,
    current: ArcSwap<Issuing>,
    /// Held while roots or the intermediate change. `None` where the operator brings an intermediate.
    roots: Mutex<Option<Roots>>,
    /// PEM of what clients trust, as published.
    bundle: ArcSwap<String>,
}

/// What certificates are issued with, for one configuration.
#[derive(Clone)]
struct Issuing {
    snapshot: Digest,
    /// When something has to be done about it: the intermediate nears its end, or a rotation does.
    due: Timestamp,
    permitted: Permitted,
    intermediate: Arc<Intermediate>,
    leaves: Cache<String, Arc<CertifiedKey>>,
}

impl Authority {
    /// Reads what is there and makes what is missing; the leaves of what it makes are durable on return.
    pub async fn open(options: CaOptions, broker: Arc<Broker>) -> Result<Arc<Self>, CaError> {
        let folder = Folder::new(&options.dir);
        let now = broker.env.clock.now();
        let snapshot = broker.snapshot();
        let permitted = Permitted::of(&snapshot, &options.names);
        let made = Maker { options: &options, folder: &folder, broker: &broker };
        let (roots, intermediate) = match &options.provided {
            Some(files) => (None, intermediate::provided(files, now)?),
            None => {
                let roots = made.roots(now).await?;
                let intermediate = made.intermediate(&roots, &permitted, now).await?;
                (Some(roots), intermediate)
            }
        };
        let bundle = files::pem(&published(roots.as_ref(), &intermediate));
        folder.publish(&bundle)?;
        let issuing = Issuing {
            snapshot: snapshot.hash,
            due: due(&intermediate, roots.as_ref()),
            permitted,
            intermediate: Arc::new(intermediate),
            leaves: leaf::cache(),
        };
        Ok(Arc::new(Self {
            leaf_key: LeafKey::generate()?,
            current: ArcSwap::from_pointee(issuing),
            roots: Mutex::new(roots),
            bundle: ArcSwap::from_pointee(bundle),
            options,
            folder,
            broker,
        }))
    }

    /// Makes sure that certificates can be issued for the hosts of `snapshot`. Costs one comparison where
    /// nothing has changed.
    pub async fn cover(&self, snapshot: &Snapshot) -> Result<(), CaError> {
        let current = self.current.load();
        if current.snapshot == snapshot.hash && self.now() < current.due {
            return Ok(());
        }
        let mut roots = self.roots.lock().await;
        let current = self.current.load();
        let now = self.now();
        if current.snapshot == snapshot.hash && now < current.due {
            return Ok(());
        }
        if roots.as_ref().is_some_and(|r| r.next.as_ref().is_some_and(|next| now >= next.from)) {
            self.switch(&mut roots, now).await?;
        }
        let permitted = Permitted::of(snapshot, &self.options.names);
        let mut issuing = Issuing { snapshot: snapshot.hash, ..Issuing::clone(&current) };
        if let Some(roots) = roots.as_ref()
            && (permitted != current.permitted || !current.intermediate.serves(&roots.active, now))
        {
            issuing.intermediate = Arc::new(self.maker().issue(&roots.active, &permitted, now).await?);
        }
        if permitted != current.permitted || !Arc::ptr_eq(&issuing.intermediate, &current.intermediate) {
            issuing.leaves = leaf::cache();
        }
        issuing.permitted = permitted;
        issuing.due = due(&issuing.intermediate, roots.as_ref());
        self.current.store(Arc::new(issuing));
        Ok(())
    }

    /// The certificate of a host, lower case or an address without brackets. Single flight: however many
    /// ask, it is signed once.
    pub(crate) fn leaf(&self, host: &str) -> Result<Arc<CertifiedKey>, CaError> {
        let current = self.current.load();
        if !current.permitted.covers(host) {
            return Err(CaError::NotPermitted(host.to_owned()));
        }
        let mint = || self.leaf_key.mint(host, &current.intermediate, self.now()).map(Arc::new);
        current.leaves.try_get_with_by_ref(host, mint).map_err(CaError::shared)
    }

    /// PEM of the roots to trust, the one that signs first.
    pub fn roots_pem(&self) -> Arc<String> {
        self.bundle.load_full()
    }

    /// Names and addresses of the gateway itself.
    pub(crate) fn names(&self) -> &[String] {
        &self.options.names
    }

    fn maker(&self) -> Maker<'_> {
        Maker { options: &self.options, folder: &self.folder, broker: &self.broker }
    }

    fn now(&self) -> Timestamp {
        self.broker.env.clock.now()
    }
}

/// What makes keys and certificates, and puts on record that it did before they are used.
struct Maker<'a> {
    options: &'a CaOptions,
    folder: &'a Folder,
    broker: &'a Broker,
}

impl Maker<'_> {
    /// The roots on disk, or a first one.
    async fn roots(&self, now: Timestamp) -> Result<Roots, CaError> {
        if let Some(roots) = Roots::load(self.folder, self.options.sealer.as_ref())? {
            return Ok(roots);
        }
        let root = Root::generate(now)?;
        // A crash after the leaf leaves a record of a root that nobody ever saw; never a root without one.
        self.record("ca_created", json!({"root": root.fingerprint(), "expires_at": root.not_after().0})).await?;
        root.seal(self.folder, self.options.sealer.as_ref())?;
        Ok(Roots { active: root.certificate(), next: None })
    }

    /// The intermediate on disk, if it still serves, or a new one.
    async fn intermediate(
        &self,
        roots: &Roots,
        permitted: &Permitted,
        now: Timestamp,
    ) -> Result<Intermediate, CaError> {
        match Intermediate::load(self.folder) {
            Some((known, limits)) if limits == *permitted && known.serves(&roots.active, now) => Ok(known),
            Some(_) | None => self.issue(&roots.active, permitted, now).await,
        }
    }

    /// A new intermediate. The root's key is in memory for this signature alone.
    async fn issue(
        &self,
        root: &CertificateDer<'static>,
        permitted: &Permitted,
        now: Timestamp,
    ) -> Result<Intermediate, CaError> {
        let (folder, sealer, root) = (self.folder.clone(), self.options.sealer.clone(), root.clone());
        let constraints = permitted.constraints();
        let signed = spawn_blocking(move || {
            let root = Root::unseal(&folder, sealer.as_ref(), &root)?;
            Intermediate::issue(&root, constraints, now)
        });
        let intermediate = signed.await.map_err(|e| CaError::Failed(e.to_string()))??;
        let body = json!({
            "intermediate": intermediate.fingerprint(),
            "root": intermediate.root_fingerprint(),
            "expires_at": intermediate.not_after.0,
            "permitted": permitted.listed(),
        });
        self.record("ca_intermediate_issued", body).await?;
        let folder = self.folder.clone();
        let stored = spawn_blocking(move || intermediate.store(&folder).map(|()| intermediate));
        stored.await.map_err(|e| CaError::Failed(e.to_string()))?
    }

    async fn record(&self, kind: &str, body: serde_json::Value) -> Result<(), CaError> {
        self.broker.record_change(kind, body).await.map_err(|e| CaError::Unrecorded(e.to_string()))
    }
}

/// What clients are told to trust: the roots, or what stands highest above the operator's intermediate.
fn published(roots: Option<&Roots>, intermediate: &Intermediate) -> Vec<CertificateDer<'static>> {
    match roots {
        Some(roots) => {
            let next = roots.next.iter().map(|next| next.certificate.clone());
            std::iter::once(roots.active.clone()).chain(next).collect()
        }
        None => intermediate.chain.last().cloned().into_iter().collect(),
    }
}

fn due(intermediate: &Intermediate, roots: Option<&Roots>) -> Timestamp {
    match roots {
        Some(roots) => {
            let renew = intermediate.not_after.plus_seconds(-intermediate::RENEW_BEFORE);
            roots.next.as_ref().map_or(renew, |next| renew.min(next.from))
        }
        // Nothing that we could do about it.
        None => Timestamp(i64::MAX),
    }
}
