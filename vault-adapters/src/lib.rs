//! One secret store per file behind the broker's `Vault`, and the keys that the gateway derives.
//!
//! Every error is a [`aegis_broker::vault::VaultError`]; none holds secret bytes.

mod embedded;
mod entropy;
mod env;
mod file;
mod keys;
mod master_key;
mod value;

#[cfg(test)]
mod canary;
#[cfg(test)]
mod conformance;

pub use embedded::EmbeddedVault;
pub use entropy::{Entropy, OsEntropy};
pub use env::EnvVault;
pub use file::{FileOptions, FileVault};
pub use keys::{RootKey, Sealer};
pub use master_key::MasterKey;
pub use value::MAX_VALUE_BYTES;
