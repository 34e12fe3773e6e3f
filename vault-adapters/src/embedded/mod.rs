//! The embedded vault: one sealed file in the state folder.

mod disk;
mod format;
#[cfg(test)]
mod tests;

use std::fmt;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aegis_action::Clock;
use aegis_broker::secret::Secret;
use aegis_broker::vault::{Leased, StoredKey, Vault, VaultError};
use async_trait::async_trait;
use parking_lot::{Mutex, RwLock};

use self::disk::{Disk, OsDisk};
use self::format::{Contents, Entry, Lock, VALUES};
use crate::entropy::{Entropy, OsEntropy};
use crate::keys::{RootKey, Sealer};
use crate::master_key::MasterKey;
use crate::value;

/// A [`Vault`] in one file that belongs to this process alone.
///
/// - Each value is sealed with XChaCha20-Poly1305 and bound to its key and version; the file as
///   a whole is authenticated. Whoever can write the file can put an older copy of the whole
///   file in its place, and nothing else, unnoticed.
/// - A change is a new file put in the place of the old one: a crash leaves the one or the other.
///   When `put` or `remove` returns `Ok` the change is durable.
/// - Leases read memory and are always the newest. Values are in the clear only in a lease.
#[derive(Clone)]
pub struct EmbeddedVault(Arc<Inner>);

struct Inner {
    path: PathBuf,
    root: RootKey,
    sealer: Sealer,
    parts: Parts,
    current: RwLock<Arc<Contents>>,
    /// Held while a change is made and written, so that no change is lost.
    writing: Mutex<()>,
    /// Holds the exclusive lock until the vault is closed or the last clone goes.
    lock: Mutex<Option<File>>,
}

/// Disk, clock and randomness.
#[derive(Clone)]
struct Parts {
    disk: Arc<dyn Disk>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
}

impl EmbeddedVault {
    /// Opens the vault, or makes an empty one where there is none. Blocks: it reads files, and a
    /// passphrase takes about 0.1 s. The folder must exist.
    ///
    /// # Errors
    /// [`VaultError::Sealed`] where the master key is not the vault's or the file was changed,
    /// [`VaultError::Unavailable`] where another process has it or the disk fails.
    pub fn open(path: &Path, master: &MasterKey, clock: Arc<dyn Clock>) -> Result<Self, VaultError> {
        Self::open_with(path, master, Parts { disk: Arc::new(OsDisk), clock, entropy: Arc::new(OsEntropy) })
    }

    fn open_with(path: &Path, master: &MasterKey, parts: Parts) -> Result<Self, VaultError> {
        let lock = lock(path)?;
        let found = parts.disk.read(path).map_err(|e| failed("read", path, &e))?;
        let (contents, root) = match found {
            Some(bytes) => {
                tighten(path).map_err(|e| failed("set the mode of", path, &e))?;
                Contents::from_bytes(&bytes, |kdf| master.unlock(kdf))?
            }
            None => {
                // The key file first: a crash after it leaves a key without a vault, which the
                // next start takes up. A vault without its key could never be opened.
                let root = RootKey::generate(&*parts.entropy)?;
                let contents = Contents::new(parts.lock(master, &root)?);
                parts.replace(path, &contents.to_bytes(&root)?)?;
                (contents, root)
            }
        };
        let sealer = root.sealer_with(VALUES, parts.entropy.clone());
        let current = RwLock::new(Arc::new(contents));
        let path = path.to_owned();
        Ok(Self(Arc::new(Inner {
            path,
            root,
            sealer,
            parts,
            current,
            writing: Mutex::new(()),
            lock: Mutex::new(Some(lock)),
        })))
    }

    /// Gives the file free for another process, once a change under way is made. Leases still read
    /// memory; changes are refused from here on.
    pub async fn close(&self) -> Result<(), VaultError> {
        self.blocking(|vault| {
            let _after_the_last_change = vault.writing.lock();
            drop(vault.lock.lock().take());
            Ok(())
        })
        .await
    }

    /// The key that the gateway derives its other keys from. It outlives a rekey.
    pub fn root_key(&self) -> RootKey {
        self.0.root.clone()
    }

    /// Locks the vault with another master key; the old one no longer opens the file. Values,
    /// versions and derived keys stay as they are. Older copies of the file still open with the old key.
    ///
    /// # Errors
    /// As of [`EmbeddedVault::open`]; on an error the old key still opens the vault.
    pub async fn rekey(&self, master: MasterKey) -> Result<(), VaultError> {
        self.blocking(move |vault| {
            let _one_at_a_time = vault.writing.lock();
            let mut next = vault.contents();
            next.relock(vault.parts.lock(&master, &vault.root)?);
            vault.adopt(next)
        })
        .await
    }

    /// Runs to its end even if the caller goes away: no change is left half made.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T, VaultError> + Send + 'static,
    ) -> Result<T, VaultError> {
        let inner = self.0.clone();
        let done = tokio::task::spawn_blocking(move || work(&inner)).await;
        done.unwrap_or_else(|_| Err(VaultError::Unavailable("the process is stopping".into())))
    }
}

#[async_trait]
impl Vault for EmbeddedVault {
    fn name(&self) -> &'static str {
        "embedded"
    }

    async fn lease(&self, key: &str) -> Result<Leased, VaultError> {
        check_key(key)?;
        let current = self.0.current.read().clone();
        let entry = current.entries.get(key).ok_or_else(|| VaultError::NotFound(key.to_owned()))?;
        let value = entry.open(&self.0.sealer, key)?;
        Ok(Leased { value, version: entry.version.clone(), expires_at: None, renewable: false })
    }

    fn current(&self, key: &str) -> Option<String> {
        self.0.current.read().entries.get(key).map(|entry| entry.version.clone())
    }

    async fn health(&self) -> Result<(), VaultError> {
        self.blocking(|vault| {
            let _no_change_meanwhile = vault.writing.lock();
            let expected = vault.current.read().to_bytes(&vault.root)?;
            match vault.parts.disk.read(&vault.path).map_err(|e| failed("read", &vault.path, &e))? {
                Some(found) if found == expected => Ok(()),
                Some(_) => Err(VaultError::Unavailable("the vault's file was changed by something else".into())),
                None => Err(VaultError::Unavailable("the vault's file is gone".into())),
            }
        })
        .await
    }

    async fn put(&self, key: &str, value: Secret) -> Result<String, VaultError> {
        check_key(key)?;
        value::check(value.expose())?;
        let key = key.to_owned();
        self.blocking(move |vault| {
            let _one_at_a_time = vault.writing.lock();
            let mut next = vault.contents();
            next.counter = next.counter.saturating_add(1);
            let version = vault.parts.version(next.counter)?;
            let entry = Entry::seal(&vault.sealer, &key, version.clone(), vault.parts.clock.now(), &value)?;
            next.entries.insert(key, entry);
            vault.adopt(next)?;
            Ok(version)
        })
        .await
    }

    async fn remove(&self, key: &str) -> Result<bool, VaultError> {
        check_key(key)?;
        let key = key.to_owned();
        self.blocking(move |vault| {
            let _one_at_a_time = vault.writing.lock();
            let mut next = vault.contents();
            if next.entries.remove(&key).is_none() {
                return Ok(false);
            }
            vault.adopt(next)?;
            Ok(true)
        })
        .await
    }

    async fn list(&self) -> Result<Option<Vec<StoredKey>>, VaultError> {
        let current = self.0.current.read().clone();
        let key = |(key, e): (&String, &Entry)| StoredKey {
            key: key.clone(),
            version: e.version.clone(),
            updated_at: e.updated_at,
        };
        Ok(Some(current.entries.iter().map(key).collect()))
    }
}

impl Inner {
    fn contents(&self) -> Contents {
        (**self.current.read()).clone()
    }

    /// Writes the new contents and serves them from then on.
    fn adopt(&self, next: Contents) -> Result<(), VaultError> {
        if self.lock.lock().is_none() {
            return Err(VaultError::Unavailable("the vault is another process's now; ask that one".into()));
        }
        let bytes = next.to_bytes(&self.root)?;
        self.parts.place(&self.path, &bytes)?;
        // The file is the new one from here on, so memory must be as well, durable or not.
        *self.current.write() = Arc::new(next);
        self.parts.settle(&self.path)
    }
}

impl Parts {
    /// Locks a root key. Makes the key file where the master key is one that does not exist yet.
    fn lock(&self, master: &MasterKey, root: &RootKey) -> Result<Lock, VaultError> {
        let (kdf, key) = master.lock(&*self.entropy, |path, text| {
            let fresh = with_suffix(path, ".tmp");
            self.disk.write_synced(&fresh, text)?;
            self.disk.link_new(&fresh, path)?;
            self.disk.remove(&fresh)?;
            self.disk.sync_folder_of(path)
        })?;
        Lock::new(kdf, &key, root, self.entropy.clone())
    }

    fn replace(&self, path: &Path, bytes: &[u8]) -> Result<(), VaultError> {
        self.place(path, bytes)?;
        self.settle(path)
    }

    /// A crash here leaves the old file, and perhaps a `.tmp` that the next change removes.
    fn place(&self, path: &Path, bytes: &[u8]) -> Result<(), VaultError> {
        let fresh = with_suffix(path, ".tmp");
        self.disk.write_synced(&fresh, bytes).map_err(|e| failed("write", &fresh, &e))?;
        self.disk.rename(&fresh, path).map_err(|e| failed("replace", path, &e))
    }

    /// A power cut before this leaves the old or the new file, after it the new one.
    fn settle(&self, path: &Path) -> Result<(), VaultError> {
        self.disk.sync_folder_of(path).map_err(|e| {
            VaultError::Unavailable(format!(
                "the change is made, but a power cut may undo it, as the folder of `{}` cannot be synced ({}); repeat it",
                path.display(),
                e.kind()
            ))
        })
    }

    /// The counter keeps versions in order; the random part keeps them apart when an older copy
    /// of the file, counter included, is put back.
    fn version(&self, counter: u64) -> Result<String, VaultError> {
        let mut random = [0; 8];
        self.entropy.fill(&mut random)?;
        Ok(format!("{counter}-{}", hex::encode(random)))
    }
}

/// The lock has a file of its own: the vault's file is another one after every change.
fn lock(path: &Path) -> Result<File, VaultError> {
    let lock_path = with_suffix(path, ".lock");
    let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&lock_path);
    let file = file.map_err(|e| failed("open", &lock_path, &e))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(VaultError::Unavailable(format!(
            "`{}` is in use by another process; stop it, or make the change through it",
            path.display()
        ))),
        Err(TryLockError::Error(e)) => Err(failed("lock", &lock_path, &e)),
    }
}

fn tighten(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    if fs::metadata(path)?.permissions().mode() & 0o077 != 0 {
        tracing::warn!(path = %path.display(), "vault was open to other users; its mode is now 0600");
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    }
    Ok(())
}

fn check_key(key: &str) -> Result<(), VaultError> {
    let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '/' | '-');
    if key.is_empty() || key.len() > MAX_KEY_BYTES || !key.chars().all(fine) {
        return Err(VaultError::BadKey(format!(
            "a key has 1 to {MAX_KEY_BYTES} letters, digits, `.`, `_`, `/` or `-`"
        )));
    }
    Ok(())
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn failed(what: &str, path: &Path, error: &io::Error) -> VaultError {
    VaultError::Unavailable(format!("cannot {what} `{}`: {}", path.display(), error.kind()))
}

impl fmt::Debug for EmbeddedVault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmbeddedVault").field("path", &self.0.path).finish_non_exhaustive()
    }
}

const MAX_KEY_BYTES: usize = 128;
