//! Sealing of payloads that may have to be erased or shown once.

/// Authenticated encryption under a key of the installation.
///
/// Contract: `open(label, seal(label, x)) == x`; anything else (another label, changed
/// bytes, another installation) is `None`. Nonces are never reused. Safe to call concurrently.
pub trait Sealer: Send + Sync {
    /// Seals `plain`; `label` is bound to it and not stored.
    fn seal(&self, label: &[u8], plain: &[u8]) -> Option<Vec<u8>>;
    /// Opens what [`Sealer::seal`] made.
    fn open(&self, label: &[u8], sealed: &[u8]) -> Option<Vec<u8>>;
}
