//! Randomness as a value, so that a test can replay or fail it.

use aegis_broker::{
    env::{Random as _, SystemRandom},
    vault::VaultError,
};

/// Where random bytes come from.
pub trait Entropy: Send + Sync {
    /// Fills the whole buffer, or fails.
    ///
    /// # Errors
    /// [`VaultError::Unavailable`] where there is no randomness.
    fn fill(&self, buffer: &mut [u8]) -> Result<(), VaultError>;
}

/// The operating system's generator.
#[derive(Debug, Clone, Copy, Default)]
pub struct OsEntropy;

impl Entropy for OsEntropy {
    fn fill(&self, buffer: &mut [u8]) -> Result<(), VaultError> {
        SystemRandom.fill(buffer).map_err(|_| VaultError::Unavailable("the system gives no random bytes".into()))
    }
}
