//! The master key: the one secret that the operator keeps. It locks the root key and nothing else.

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use aegis_broker::vault::VaultError;
use argon2::{Algorithm, Argon2, Params, Version};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::entropy::Entropy;

/// Where the master key comes from.
pub struct MasterKey(Source);

enum Source {
    Key(Zeroizing<[u8; 32]>),
    Passphrase(Zeroizing<Vec<u8>>),
    /// A key file that is made together with the vault. Opening an existing vault with it fails.
    NewFile(PathBuf),
}

impl MasterKey {
    /// Reads 32 bytes in hex or base64 from a file that only its owner can read. Where there is no
    /// file, one is made when a new vault is made; an existing vault then fails to open.
    ///
    /// # Errors
    /// [`VaultError::BadKey`] for a file that others can read or that holds no key,
    /// [`VaultError::Unavailable`] where it cannot be read.
    pub fn from_file(path: &Path) -> Result<Self, VaultError> {
        let shown = path.display();
        let file = match File::open(path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Self(Source::NewFile(path.to_owned()))),
            Err(e) => return Err(unreadable(path, &e)),
        };
        let found = file.metadata().map_err(|e| unreadable(path, &e))?;
        if !found.is_file() {
            return Err(VaultError::BadKey(format!("`{shown}` is not a regular file")));
        }
        let mode = found.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(VaultError::BadKey(format!(
                "master key file `{shown}` has mode {mode:04o}, so others can use it; run `chmod 600 {shown}`"
            )));
        }
        let mut text = Zeroizing::new(String::with_capacity(MAX_FILE_BYTES as usize + 1));
        file.take(MAX_FILE_BYTES).read_to_string(&mut text).map_err(|e| unreadable(path, &e))?;
        parse(&text).map(|key| Self(Source::Key(key)))
    }

    /// Takes 32 bytes in hex or base64, as an environment variable holds them.
    ///
    /// # Errors
    /// [`VaultError::BadKey`] for anything else.
    pub fn from_env(value: &str) -> Result<Self, VaultError> {
        parse(value).map(|key| Self(Source::Key(key)))
    }

    /// Stretches a passphrase with Argon2id; salt and cost stand in the vault's file.
    ///
    /// # Errors
    /// [`VaultError::BadKey`] for one of less than 12 characters.
    pub fn from_passphrase(passphrase: Zeroizing<String>) -> Result<Self, VaultError> {
        if passphrase.chars().count() < MIN_PASSPHRASE {
            return Err(VaultError::BadKey(format!("a passphrase has at least {MIN_PASSPHRASE} characters")));
        }
        Ok(Self(Source::Passphrase(Zeroizing::new(passphrase.as_bytes().to_vec()))))
    }

    /// The key and how it was made, for a vault that is locked anew. `create_file` writes the
    /// text of a new key to a path that must not exist yet.
    pub(crate) fn lock(
        &self,
        entropy: &dyn Entropy,
        create_file: impl FnOnce(&Path, &[u8]) -> io::Result<()>,
    ) -> Result<(Kdf, Zeroizing<[u8; 32]>), VaultError> {
        match &self.0 {
            Source::Key(key) => Ok((Kdf::None, key.clone())),
            Source::Passphrase(passphrase) => {
                let mut salt = [0; 16];
                entropy.fill(&mut salt)?;
                let kdf =
                    Kdf::Argon2id { memory_kib: MEMORY_KIB, passes: PASSES, lanes: LANES, salt: hex::encode(salt) };
                let key = kdf.stretch(passphrase)?;
                Ok((kdf, key))
            }
            Source::NewFile(path) => {
                let mut key = Zeroizing::new([0; 32]);
                entropy.fill(key.as_mut_slice())?;
                let mut text = Zeroizing::new(hex::encode(key.as_slice()));
                text.push('\n');
                create_file(path, text.as_bytes()).map_err(|e| {
                    VaultError::Unavailable(format!("cannot write master key file `{}`: {}", path.display(), e.kind()))
                })?;
                Ok((Kdf::None, key))
            }
        }
    }

    /// The key of a vault that was locked with `kdf`.
    pub(crate) fn unlock(&self, kdf: &Kdf) -> Result<Zeroizing<[u8; 32]>, VaultError> {
        match (&self.0, kdf) {
            (Source::Key(key), Kdf::None) => Ok(key.clone()),
            (Source::Passphrase(passphrase), Kdf::Argon2id { .. }) => kdf.stretch(passphrase),
            (Source::Key(_), Kdf::Argon2id { .. }) => {
                Err(VaultError::Sealed("the vault is locked with a passphrase; start with that passphrase".into()))
            }
            (Source::Passphrase(_), Kdf::None) => {
                Err(VaultError::Sealed("the vault is locked with a key, not a passphrase; start with that key".into()))
            }
            (Source::NewFile(path), _) => Err(VaultError::Sealed(format!(
                "the vault exists, but its master key file `{}` does not; restore the file from your backup",
                path.display()
            ))),
        }
    }
}

/// How the master key becomes 32 bytes; stands in the vault's file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Kdf {
    /// It is 32 random bytes already.
    None,
    /// RFC 9106; memory in KiB, salt in hex.
    Argon2id { memory_kib: u32, passes: u32, lanes: u32, salt: String },
}

impl Kdf {
    fn stretch(&self, passphrase: &[u8]) -> Result<Zeroizing<[u8; 32]>, VaultError> {
        let Self::Argon2id { memory_kib, passes, lanes, salt } = self else {
            return Err(VaultError::Sealed("the vault's file names no way to use a passphrase".into()));
        };
        let bad = || VaultError::Sealed("the vault's file holds an argon2 cost out of bounds; restore it".into());
        // The cost is read before anything is authenticated: a bad file must not take all memory.
        if *memory_kib > MAX_MEMORY_KIB || *passes > MAX_PASSES || *lanes > MAX_LANES {
            return Err(bad());
        }
        let salt = hex::decode(salt).map_err(|_| bad())?;
        let params = Params::new(*memory_kib, *passes, *lanes, Some(32)).map_err(|_| bad())?;
        let mut key = Zeroizing::new([0; 32]);
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
            .hash_password_into(passphrase, &salt, key.as_mut_slice())
            .map_err(|_| bad())?;
        Ok(key)
    }
}

fn parse(text: &str) -> Result<Zeroizing<[u8; 32]>, VaultError> {
    let bad = || {
        VaultError::BadKey("a master key is 32 random bytes in hex or base64; `openssl rand -hex 32` makes one".into())
    };
    let text = text.trim();
    let mut key = Zeroizing::new([0; 32]);
    if hex::decode_to_slice(text, key.as_mut_slice()).is_err() {
        let text = text.trim_end_matches('=');
        let engine = if text.contains(['-', '_']) { &URL_SAFE_NO_PAD } else { &STANDARD_NO_PAD };
        let bytes = Zeroizing::new(engine.decode(text).map_err(|_| bad())?);
        if bytes.len() != key.len() {
            return Err(bad());
        }
        key.copy_from_slice(&bytes);
    }
    match key.first() {
        Some(first) if key.iter().any(|b| b != first) => Ok(key),
        _ => Err(bad()),
    }
}

fn unreadable(path: &Path, error: &io::Error) -> VaultError {
    VaultError::Unavailable(format!("cannot read master key file `{}`: {}", path.display(), error.kind()))
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MasterKey(..)")
    }
}

const MAX_FILE_BYTES: u64 = 1024;
const MIN_PASSPHRASE: usize = 12;
/// 64 MiB and three passes, the second choice of RFC 9106, on one lane: about 0.1 s.
const MEMORY_KIB: u32 = 64 * 1024;
const PASSES: u32 = 3;
const LANES: u32 = 1;
const MAX_MEMORY_KIB: u32 = 1024 * 1024;
const MAX_PASSES: u32 = 16;
const MAX_LANES: u32 = 4;

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::OpenOptionsExt as _;

    use super::*;

    const HEX: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

    fn key_of(master: &MasterKey) -> String {
        hex::encode(*master.unlock(&Kdf::None).unwrap())
    }

    #[test]
    fn hex_and_every_base64_are_the_same_key() {
        let bytes = hex::decode(HEX).unwrap();
        let standard = base64::engine::general_purpose::STANDARD.encode(&bytes);
        for text in [HEX, &HEX.to_uppercase(), &format!(" {HEX}\n"), &standard, standard.trim_end_matches('=')] {
            assert_eq!(key_of(&MasterKey::from_env(text).unwrap()), HEX);
        }
        let high = [[0xfb; 31].as_slice(), &[0xff]].concat();
        let url = URL_SAFE_NO_PAD.encode(&high);
        assert!(url.contains(['-', '_']));
        assert_eq!(key_of(&MasterKey::from_env(&url).unwrap()), hex::encode(high));
    }

    #[test]
    fn anything_else_is_refused_without_quoting_it() {
        let zeros = "00".repeat(32);
        let long = format!("{HEX}00");
        for text in ["", "hunter2", &HEX[2..], &long, &zeros, "not hex, not base64 ****************************"] {
            match MasterKey::from_env(text) {
                Err(VaultError::BadKey(says)) => assert!(text.is_empty() || !says.contains(text)),
                other => panic!("{text}: {other:?}"),
            }
        }
    }

    #[test]
    fn a_key_file_that_others_can_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        for (mode, fine) in
            [(0o600, true), (0o400, true), (0o640, false), (0o604, false), (0o620, false), (0o610, false)]
        {
            let path = folder.path().join(format!("{mode:o}"));
            fs::OpenOptions::new().create_new(true).write(true).mode(0o600).open(&path).unwrap();
            fs::write(&path, HEX).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            match MasterKey::from_file(&path) {
                Ok(key) => assert_eq!((fine, key_of(&key).as_str()), (true, HEX)),
                Err(e) => assert!(!fine && e.to_string().contains("chmod 600"), "{mode:o}: {e}"),
            }
        }
        assert!(matches!(MasterKey::from_file(folder.path()), Err(VaultError::BadKey(_))));
    }

    #[test]
    fn a_passphrase_is_stretched_with_the_costs_of_its_vault() {
        let master = MasterKey::from_passphrase(Zeroizing::new("correct horse battery".into())).unwrap();
        let (kdf, key) = master.lock(&crate::OsEntropy, |_, _| Ok(())).unwrap();
        let Kdf::Argon2id { memory_kib, passes, lanes, salt } = kdf.clone() else { panic!("{kdf:?}") };
        assert_eq!((memory_kib, passes, lanes, salt.len()), (65_536, 3, 1, 32));
        assert_eq!(master.unlock(&kdf).unwrap(), key);
        let other_salt = Kdf::Argon2id { memory_kib: 8, passes: 1, lanes: 1, salt: "00".repeat(16) };
        assert_ne!(master.unlock(&other_salt).unwrap(), key);
        assert!(MasterKey::from_passphrase(Zeroizing::new("short".into())).is_err());
    }

    #[test]
    fn a_cost_out_of_bounds_is_refused_before_it_is_paid() {
        let master = MasterKey::from_passphrase(Zeroizing::new("correct horse battery".into())).unwrap();
        let cost = |memory_kib, passes, lanes, salt: &str| {
            master.unlock(&Kdf::Argon2id { memory_kib, passes, lanes, salt: salt.into() })
        };
        let salt = "00".repeat(16);
        assert!(cost(8, 1, 1, &salt).is_ok());
        for bad in [
            cost(u32::MAX, 1, 1, &salt),
            cost(8, 1000, 1, &salt),
            cost(64, 1, 8, &salt),
            cost(0, 1, 1, &salt),
            cost(8, 1, 1, "xyz"),
            cost(8, 1, 1, ""),
        ] {
            assert!(matches!(bad, Err(VaultError::Sealed(_))));
        }
    }
}
