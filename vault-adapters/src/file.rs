//! Secrets in files, as orchestrators mount them; the key is the path.

use std::collections::HashMap;
use std::fmt;
use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use aegis_action::Clock;
use aegis_broker::secret::Secret;
use aegis_broker::vault::{Leased, Vault, VaultError};
use async_trait::async_trait;
use parking_lot::Mutex;
use rustix::fs::OFlags;
use zeroize::Zeroizing;

use crate::entropy::Entropy;
use crate::value::{self, MAX_VALUE_BYTES, Versions};

/// Where files are and which are taken.
#[derive(Debug, Clone)]
pub struct FileOptions {
    /// Relative keys start here.
    pub base: PathBuf,
    /// Takes files that every user of the machine can use (mode `o+rwx`). Default: `false`.
    pub danger_world_readable: bool,
}

/// A read-only [`Vault`] that looks at the file at every lease, so a rotation is seen at once.
/// One line break at the end is not part of the value.
///
/// A value is read again unless device, inode, size and times are those of the last read and
/// the file had been still for two seconds by then; a write within one tick of the file
/// system's clock cannot hide behind an equal time.
pub struct FileVault(Arc<Inner>);

struct Inner {
    options: FileOptions,
    clock: Arc<dyn Clock>,
    versions: Versions,
    cache: Mutex<HashMap<PathBuf, Cached>>,
}

struct Cached {
    stamp: Stamp,
    leased: Leased,
}

/// What changes when a file does.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp {
    file: (u64, u64),
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl FileVault {
    /// Reads nothing yet.
    ///
    /// # Errors
    /// [`VaultError::Unavailable`] where there is no randomness.
    pub fn new(options: FileOptions, clock: Arc<dyn Clock>, entropy: &dyn Entropy) -> Result<Self, VaultError> {
        let versions = Versions::new(entropy)?;
        Ok(Self(Arc::new(Inner { options, clock, versions, cache: Mutex::default() })))
    }
}

#[async_trait]
impl Vault for FileVault {
    fn name(&self) -> &'static str {
        "file"
    }

    async fn lease(&self, key: &str) -> Result<Leased, VaultError> {
        check_key(key)?;
        let (inner, key) = (self.0.clone(), key.to_owned());
        // A mounted file may hang; that must not stop the other requests.
        let done = tokio::task::spawn_blocking(move || inner.lease(&key)).await;
        done.unwrap_or_else(|_| Err(VaultError::Unavailable("the process is stopping".into())))
    }

    async fn health(&self) -> Result<(), VaultError> {
        Ok(())
    }
}

impl Inner {
    fn lease(&self, key: &str) -> Result<Leased, VaultError> {
        let path = self.options.base.join(key);
        let failed = |e: io::Error| match e.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => VaultError::NotFound(key.to_owned()),
            kind => VaultError::Unavailable(format!("cannot read `{key}`: {kind}")),
        };
        let seen = Stamp::of(&std::fs::metadata(&path).map_err(failed)?);
        if let Some(cached) = self.cache.lock().get(&path)
            && cached.stamp == seen
        {
            return Ok(cached.leased.clone());
        }
        self.cache.lock().remove(&path);
        for _ in 0..ATTEMPTS {
            let (value, stamp) = match self.read(key, &path, &failed)? {
                Some(read) => read,
                None => continue,
            };
            value::check(value.expose())?;
            let version = self.versions.of(key, value.expose());
            let leased = Leased { value, version, expires_at: None, renewable: false };
            if stamp.is_still(&*self.clock) {
                let mut cache = self.cache.lock();
                if cache.len() >= MAX_CACHED {
                    cache.clear();
                }
                cache.insert(path, Cached { stamp, leased: leased.clone() });
            }
            return Ok(leased);
        }
        Err(VaultError::Unavailable(format!("`{key}` changes while it is read; replace it with a rename")))
    }

    /// `None` where the file was written meanwhile.
    fn read(
        &self,
        key: &str,
        path: &Path,
        failed: &dyn Fn(io::Error) -> VaultError,
    ) -> Result<Option<(Secret, Stamp)>, VaultError> {
        // Without waiting: a named pipe in the file's place must not hold the thread.
        let flags = OFlags::NONBLOCK.bits().cast_signed();
        let file: File = OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(failed)?;
        let before = file.metadata().map_err(failed)?;
        if !before.is_file() {
            return Err(VaultError::Unavailable(format!("`{key}` is not a regular file")));
        }
        if before.mode() & 0o007 != 0 && !self.options.danger_world_readable {
            return Err(VaultError::Unavailable(format!(
                "`{key}` has mode {:04o}, so every user can use it; run `chmod o= {key}`",
                before.mode() & 0o777
            )));
        }
        let stamp = || Ok(Stamp::of(&file.metadata()?));
        let Some((bytes, stamp)) = read_unchanged(&file, stamp).map_err(failed)? else { return Ok(None) };
        let line_break: &[u8] = if bytes.ends_with(b"\r\n") { b"\r\n" } else { b"\n" };
        let value = bytes.strip_suffix(line_break).unwrap_or(&bytes);
        Ok(Some((Secret::new(value.to_vec()), stamp)))
    }
}

impl Stamp {
    fn of(found: &Metadata) -> Self {
        Self {
            file: (found.dev(), found.ino()),
            size: found.size(),
            modified: (found.mtime(), found.mtime_nsec()),
            changed: (found.ctime(), found.ctime_nsec()),
        }
    }

    /// Whether nothing has happened to the file for a while. A time to come never counts.
    fn is_still(&self, clock: &dyn Clock) -> bool {
        clock.now().seconds().saturating_sub(self.modified.0.max(self.changed.0)) > STILL_SECONDS
    }
}

/// Bytes that were the file's both before and after they were read, or `None`.
fn read_unchanged(
    source: impl io::Read,
    stamp: impl Fn() -> io::Result<Stamp>,
) -> io::Result<Option<(Zeroizing<Vec<u8>>, Stamp)>> {
    let before = stamp()?;
    // Room for everything at once: a growing buffer would leave copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(LIMIT as usize));
    source.take(LIMIT).read_to_end(&mut bytes)?;
    Ok((stamp()? == before).then_some((bytes, before)))
}

/// A path without `.` and `..`, so that one file has one key.
fn check_key(key: &str) -> Result<(), VaultError> {
    let bad = |why: &str| Err(VaultError::BadKey(format!("a file's key is a path {why}")));
    if key.is_empty() || key.len() > MAX_KEY_BYTES {
        return bad("of 1 to 1024 bytes");
    }
    if key.chars().any(char::is_control) {
        return bad("without control characters");
    }
    let path = Path::new(key);
    let plain =
        path.file_name().is_some() && path.components().all(|c| matches!(c, Component::RootDir | Component::Normal(_)));
    if !plain || path.components().collect::<PathBuf>().as_os_str() != key {
        return bad("without `.`, `..`, `//` or a `/` at the end");
    }
    Ok(())
}

impl fmt::Debug for FileVault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("FileVault").field(&self.0.options).finish()
    }
}

/// Value, line break, and one byte more to see that there is more.
const LIMIT: u64 = MAX_VALUE_BYTES as u64 + 3;
const MAX_KEY_BYTES: usize = 1024;
const MAX_CACHED: usize = 1024;
const STILL_SECONDS: i64 = 2;
const ATTEMPTS: usize = 3;

#[cfg(test)]
mod tests;
