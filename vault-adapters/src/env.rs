//! Secrets in environment variables; the key is the variable's name.

use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::OsStringExt as _;

use aegis_broker::secret::Secret;
use aegis_broker::vault::{Leased, Vault, VaultError};
use async_trait::async_trait;

use crate::entropy::Entropy;
use crate::value::{self, Versions};

/// A read-only [`Vault`] that looks a variable up at every lease, so a change made in this
/// process is seen at once. Other processes cannot change its environment.
pub struct EnvVault {
    look_up: LookUp,
    versions: Versions,
}

type LookUp = Box<dyn Fn(&str) -> Option<OsString> + Send + Sync>;

impl EnvVault {
    /// The environment of this process.
    ///
    /// # Errors
    /// [`VaultError::Unavailable`] where there is no randomness.
    pub fn new(entropy: &dyn Entropy) -> Result<Self, VaultError> {
        Self::with_look_up(|name| std::env::var_os(name), entropy)
    }

    /// Another environment.
    ///
    /// # Errors
    /// As [`EnvVault::new`].
    pub fn with_look_up(
        look_up: impl Fn(&str) -> Option<OsString> + Send + Sync + 'static,
        entropy: &dyn Entropy,
    ) -> Result<Self, VaultError> {
        Ok(Self { look_up: Box::new(look_up), versions: Versions::new(entropy)? })
    }
}

#[async_trait]
impl Vault for EnvVault {
    fn name(&self) -> &'static str {
        "env"
    }

    async fn lease(&self, key: &str) -> Result<Leased, VaultError> {
        check_key(key)?;
        let value = (self.look_up)(key).ok_or_else(|| VaultError::NotFound(key.to_owned()))?;
        let value = Secret::new(value.into_vec());
        value::check(value.expose())?;
        let version = self.versions.of(key, value.expose());
        Ok(Leased { value, version, expires_at: None, renewable: false })
    }

    async fn health(&self) -> Result<(), VaultError> {
        Ok(())
    }
}

/// A name as POSIX has it (IEEE 1003.1, 8.1), lower case too.
fn check_key(key: &str) -> Result<(), VaultError> {
    let letters = key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if key.is_empty() || key.len() > 255 || !letters || key.starts_with(|c: char| c.is_ascii_digit()) {
        return Err(VaultError::BadKey("an environment variable has letters, digits and `_`, no digit first".into()));
    }
    Ok(())
}

impl fmt::Debug for EnvVault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EnvVault(..)")
    }
}
