//! Where secrets live: the contract every vault adapter keeps.

use aegis_action::Timestamp;
use async_trait::async_trait;

use crate::secret::Secret;

/// One secret store.
///
/// Contract:
/// - [`Vault::lease`] returns the newest version the store has, or an error; it never
///   returns an expired value and never makes one up. It may serve a cached value only
///   until the lease's own `expires_at`, and without one only as long as the adapter
///   can notice a rotation at once (same process) or within its documented reload time.
/// - `version` changes whenever the bytes change and never comes back for other bytes.
///   It is not derived from the bytes in a way that allows guessing them.
/// - On an outage a still-valid lease may be served; after its expiry the answer is
///   [`VaultError::Unavailable`]. Callers deny.
/// - All methods may be called concurrently. A dropped future leaves the store whole.
/// - Nothing an adapter logs or puts into an error holds secret bytes.
#[async_trait]
pub trait Vault: Send + Sync {
    /// Adapter name as in `routes.toml`: `embedded`, `env`, `file`.
    fn name(&self) -> &'static str;

    /// The current value of `key`.
    async fn lease(&self, key: &str) -> Result<Leased, VaultError>;

    /// The version that [`Vault::lease`] would give at this moment, where the adapter knows it at once
    /// and without opening the value. `None` says nothing: ask for a lease.
    fn current(&self, key: &str) -> Option<String> {
        let _ = key;
        None
    }

    /// Whether the store answers at all.
    async fn health(&self) -> Result<(), VaultError>;

    /// Stores or replaces a value and returns the new version; read-only adapters refuse.
    async fn put(&self, key: &str, value: Secret) -> Result<String, VaultError> {
        let _ = (key, value);
        Err(VaultError::ReadOnly)
    }

    /// Removes a value; `Ok(false)` where there was none.
    async fn remove(&self, key: &str) -> Result<bool, VaultError> {
        let _ = key;
        Err(VaultError::ReadOnly)
    }

    /// Keys with their versions, for people; never values. Adapters that cannot list return `None`.
    async fn list(&self) -> Result<Option<Vec<StoredKey>>, VaultError> {
        Ok(None)
    }
}

/// A secret with what is known of its life.
#[derive(Debug, Clone)]
pub struct Leased {
    /// The bytes.
    pub value: Secret,
    /// Opaque version.
    pub version: String,
    /// When it stops working, where the store knows.
    pub expires_at: Option<Timestamp>,
    /// Whether the store can extend it.
    pub renewable: bool,
}

/// A key in a vault, without its value.
#[derive(Debug, Clone, serde::Serialize)]
pub struct StoredKey {
    /// Key.
    pub key: String,
    /// Version.
    pub version: String,
    /// When this version was stored, milliseconds since the epoch.
    pub updated_at: Timestamp,
}

/// What can go wrong; no variant carries secret bytes.
#[derive(Debug, Clone, thiserror::Error)]
pub enum VaultError {
    /// There is no such key.
    #[error("no secret under `{0}`")]
    NotFound(String),
    /// The store does not answer, or its answer cannot be used.
    #[error("secret store unavailable: {0}")]
    Unavailable(String),
    /// The stored bytes fail their integrity check, or the master key is not theirs.
    #[error("stored secret cannot be opened: {0}")]
    Sealed(String),
    /// The adapter only reads.
    #[error("this secret store is read-only")]
    ReadOnly,
    /// The key is not one that the adapter can hold.
    #[error("bad key: {0}")]
    BadKey(String),
    /// The value is not one that can be sent as a credential (empty, too long, control bytes).
    #[error("bad value: {0}")]
    BadValue(String),
}
