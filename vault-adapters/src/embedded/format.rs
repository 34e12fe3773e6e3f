//! The vault's file: JSON whose values are sealed one by one and whose whole is authenticated.

use std::collections::BTreeMap;
use std::sync::Arc;

use aegis_action::Timestamp;
use aegis_broker::secret::Secret;
use aegis_broker::vault::VaultError;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac as _};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::entropy::{Entropy, OsEntropy};
use crate::keys::{RootKey, Sealer, hmac};
use crate::master_key::Kdf;

/// Everything in the file but its authentication code.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Contents {
    format: Format,
    /// How the root key is locked.
    lock: Lock,
    /// Grows with every change; the first part of versions.
    pub counter: u64,
    pub entries: BTreeMap<String, Entry>,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
enum Format {
    #[serde(rename = "aegis-vault-1")]
    V1,
}

/// The root key, sealed with the master key.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lock {
    pub kdf: Kdf,
    sealed: String,
}

/// One credential.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    pub version: String,
    pub updated_at: Timestamp,
    pub sealed: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Whole {
    contents: Contents,
    /// HMAC-SHA256 in hex over the compact JSON of the contents, under a subkey of the root key.
    mac: String,
}

impl Contents {
    /// An empty vault.
    pub fn new(lock: Lock) -> Self {
        Self { format: Format::V1, lock, counter: 0, entries: BTreeMap::new() }
    }

    pub fn relock(&mut self, lock: Lock) {
        self.lock = lock;
    }

    /// The file's bytes.
    pub fn to_bytes(&self, root: &RootKey) -> Result<Vec<u8>, VaultError> {
        let mac = hex::encode(mac(root, self)?.finalize().into_bytes());
        let mut bytes = serde_json::to_vec_pretty(&Whole { contents: self.clone(), mac }).map_err(|_| unwritable())?;
        bytes.push(b'\n');
        Ok(bytes)
    }

    /// Reads the file. `unlock` gives the key of the lock, in which the root key is found.
    pub fn from_bytes(
        bytes: &[u8],
        unlock: impl FnOnce(&Kdf) -> Result<Zeroizing<[u8; 32]>, VaultError>,
    ) -> Result<(Self, RootKey), VaultError> {
        // The parser's message may quote the file; its position is enough to find the place.
        let whole: Whole = serde_json::from_slice(bytes).map_err(|e| {
            VaultError::Sealed(format!(
                "the vault's file is damaged or of a newer version (line {}); restore it from a backup",
                e.line()
            ))
        })?;
        let root = whole.contents.lock.open(&*unlock(&whole.contents.lock.kdf)?)?;
        let changed =
            || VaultError::Sealed("the vault's file was changed by something else; restore it from a backup".into());
        let code = hex::decode(&whole.mac).map_err(|_| changed())?;
        mac(&root, &whole.contents)?.verify_slice(&code).map_err(|_| changed())?;
        Ok((whole.contents, root))
    }
}

impl Lock {
    pub fn new(kdf: Kdf, key: &[u8; 32], root: &RootKey, entropy: Arc<dyn Entropy>) -> Result<Self, VaultError> {
        let sealed = locker(key, entropy).seal(&lock_aad(&kdf)?, root.expose())?;
        Ok(Self { kdf, sealed: STANDARD.encode(sealed) })
    }

    fn open(&self, key: &[u8; 32]) -> Result<RootKey, VaultError> {
        let wrong = || {
            VaultError::Sealed(
                "the master key does not open the vault; start with the master key that it was made with, \
                 or restore both from one backup"
                    .into(),
            )
        };
        let sealed = STANDARD.decode(&self.sealed).map_err(|_| wrong())?;
        let plain = locker(key, Arc::new(OsEntropy)).open(&lock_aad(&self.kdf)?, &sealed).map_err(|_| wrong())?;
        let mut root = Zeroizing::new([0; 32]);
        if plain.len() != root.len() {
            return Err(wrong());
        }
        root.copy_from_slice(&plain);
        Ok(RootKey::from_bytes(root))
    }
}

impl Entry {
    pub fn seal(
        sealer: &Sealer,
        key: &str,
        version: String,
        updated_at: Timestamp,
        value: &Secret,
    ) -> Result<Self, VaultError> {
        let sealed = sealer.seal(&entry_aad(key, &version), value.expose())?;
        Ok(Self { version, updated_at, sealed: STANDARD.encode(sealed) })
    }

    pub fn open(&self, sealer: &Sealer, key: &str) -> Result<Secret, VaultError> {
        let named = |e| match e {
            VaultError::Sealed(why) => VaultError::Sealed(format!("`{key}`: {why}")),
            other => other,
        };
        let sealed = STANDARD.decode(&self.sealed).map_err(|_| VaultError::Sealed(format!("`{key}` is damaged")))?;
        let mut plain = sealer.open(&entry_aad(key, &self.version), &sealed).map_err(named)?;
        Ok(Secret::new(std::mem::take(&mut *plain)))
    }
}

/// The subkey that values are sealed with.
pub const VALUES: &str = "vault-values";

/// Key and version, so that no sealed value can stand in for another or for an older one.
fn entry_aad(key: &str, version: &str) -> Vec<u8> {
    let mut aad = b"aegis-vault-1/entry/".to_vec();
    for part in [key, version] {
        aad.extend_from_slice(&(part.len() as u64).to_be_bytes());
        aad.extend_from_slice(part.as_bytes());
    }
    aad
}

fn lock_aad(kdf: &Kdf) -> Result<Vec<u8>, VaultError> {
    let mut aad = b"aegis-vault-1/lock/".to_vec();
    serde_json::to_writer(&mut aad, kdf).map_err(|_| unwritable())?;
    Ok(aad)
}

fn locker(key: &[u8; 32], entropy: Arc<dyn Entropy>) -> Sealer {
    RootKey::from_bytes(Zeroizing::new(*key)).sealer_with("vault-lock", entropy)
}

fn mac(root: &RootKey, contents: &Contents) -> Result<Hmac<Sha256>, VaultError> {
    let mut mac = hmac(&root.derive_key("vault-file"));
    mac.update(&serde_json::to_vec(contents).map_err(|_| unwritable())?);
    Ok(mac)
}

fn unwritable() -> VaultError {
    VaultError::Unavailable("the vault's contents cannot be written as JSON".into())
}
