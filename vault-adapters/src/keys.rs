//! Keys: one random root, a subkey for each purpose, and sealing with a subkey.

use std::fmt;
use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicU64, Ordering},
};

use aegis_broker::vault::VaultError;
use chacha20::{cipher::consts::U10, hchacha};
use chacha20poly1305::aead::{Aead as _, Payload};
use chacha20poly1305::{KeyInit, XChaCha20Poly1305, XNonce};
use hmac::{Hmac, Mac as _};
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::entropy::{Entropy, OsEntropy};

/// 32 random bytes that every other key is derived from. They stay the same when the master
/// key changes, so token hashes and sealed payloads outlive a rekey.
#[derive(Clone)]
pub struct RootKey(Zeroizing<[u8; 32]>);

impl RootKey {
    /// A new one.
    ///
    /// # Errors
    /// [`VaultError::Unavailable`] where there is no randomness.
    pub fn generate(entropy: &dyn Entropy) -> Result<Self, VaultError> {
        let mut bytes = Zeroizing::new([0; 32]);
        entropy.fill(bytes.as_mut_slice())?;
        Ok(Self(bytes))
    }

    pub(crate) fn from_bytes(bytes: Zeroizing<[u8; 32]>) -> Self {
        Self(bytes)
    }

    pub(crate) fn expose(&self) -> &[u8; 32] {
        &self.0
    }

    /// The key for one purpose, e.g. `token-hash`: HKDF-Expand (RFC 5869) with SHA-256, one block.
    /// Another label gives an unrelated key.
    pub fn derive_key(&self, label: &str) -> Zeroizing<[u8; 32]> {
        let mut mac = hmac(&self.0);
        mac.update(b"aegis-key-1/");
        mac.update(label.as_bytes());
        mac.update(&[1]);
        let mut out = Zeroizing::new([0; 32]);
        out.copy_from_slice(&mac.finalize().into_bytes());
        out
    }

    /// Seals under the subkey of `label`.
    pub fn sealer(&self, label: &str) -> Sealer {
        self.sealer_with(label, Arc::new(OsEntropy))
    }

    /// The same with randomness of the caller's.
    pub fn sealer_with(&self, label: &str, entropy: Arc<dyn Entropy>) -> Sealer {
        Sealer { key: self.derive_key(label), entropy, writing: Arc::default() }
    }
}

/// XChaCha20-Poly1305, no nonce twice.
///
/// A sealed message is one format byte, the 24-byte nonce, the ciphertext and the 16-byte tag. The nonce is
/// 16 random bytes, drawn once a sealer, and a counter: the key that the construction derives from the
/// random part serves all messages of a process, which a payload a request makes worth keeping.
#[derive(Clone)]
pub struct Sealer {
    key: Zeroizing<[u8; 32]>,
    entropy: Arc<dyn Entropy>,
    writing: Arc<OnceLock<Writing>>,
}

/// What messages are sealed with: made at the first, shared by all clones.
struct Writing {
    /// First part of every nonce.
    random: [u8; 16],
    /// Second part of the next one.
    next: AtomicU64,
    cipher: LessSafeKey,
}

impl Sealer {
    /// Seals `plain`; `aad` says where it belongs and must be the same on opening.
    ///
    /// # Errors
    /// [`VaultError::Unavailable`] where there is no randomness.
    pub fn seal(&self, aad: &[u8], plain: &[u8]) -> Result<Vec<u8>, VaultError> {
        let writing = self.writing()?;
        // 2^64 messages of one process: it cannot come round.
        let counter = writing.next.fetch_add(1, Ordering::Relaxed).to_le_bytes();
        let mut out = Vec::with_capacity(HEAD + plain.len() + TAG);
        out.push(FORMAT);
        out.extend_from_slice(&writing.random);
        out.extend_from_slice(&counter);
        out.extend_from_slice(plain);
        let [a, b, c, d, e, f, g, h] = counter;
        let nonce = Nonce::assume_unique_for_key([0, 0, 0, 0, a, b, c, d, e, f, g, h]);
        let body = out.get_mut(HEAD..).unwrap_or_default();
        let tag = writing
            .cipher
            .seal_in_place_separate_tag(nonce, Aad::from(aad), body)
            .map_err(|_| VaultError::Unavailable("the message is too long to seal".into()))?;
        out.extend_from_slice(tag.as_ref());
        Ok(out)
    }

    fn writing(&self) -> Result<&Writing, VaultError> {
        if let Some(writing) = self.writing.get() {
            return Ok(writing);
        }
        let mut random = [0; 16];
        self.entropy.fill(&mut random)?;
        let subkey: Zeroizing<[u8; 32]> =
            Zeroizing::new(hchacha::<U10>(self.key.as_slice().into(), (&random).into()).into());
        let cipher = UnboundKey::new(&CHACHA20_POLY1305, subkey.as_slice())
            .map_err(|_| VaultError::Unavailable("the sealing key cannot be made".into()))?;
        // Another thread may have been first; then its random part is the one in use.
        Ok(self.writing.get_or_init(|| Writing { random, next: AtomicU64::new(0), cipher: LessSafeKey::new(cipher) }))
    }

    /// Opens what [`Sealer::seal`] gave.
    ///
    /// # Errors
    /// [`VaultError::Sealed`] where a byte, the key or `aad` is another.
    pub fn open(&self, aad: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, VaultError> {
        let broken = || VaultError::Sealed("its bytes, its place or its key are not those it was sealed with".into());
        let (head, body) = sealed.split_at_checked(HEAD).ok_or_else(broken)?;
        let Some((&FORMAT, nonce)) = head.split_first() else { return Err(broken()) };
        let plain = self.cipher().decrypt(XNonce::from_slice(nonce), Payload { msg: body, aad });
        plain.map(Zeroizing::new).map_err(|_| broken())
    }

    fn cipher(&self) -> XChaCha20Poly1305 {
        XChaCha20Poly1305::new(self.key.as_slice().into())
    }
}

impl fmt::Debug for RootKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RootKey(..)")
    }
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sealer(..)")
    }
}

/// HMAC-SHA256. RFC 2104 pads a short key with zeros to one block; a block-sized key cannot fail.
pub(crate) fn hmac(key: &[u8; 32]) -> Hmac<Sha256> {
    let mut block = Zeroizing::new([0; 64]);
    for (to, from) in block.iter_mut().zip(key) {
        *to = *from;
    }
    <Hmac<Sha256> as KeyInit>::new((&*block).into())
}

const FORMAT: u8 = 1;
const HEAD: usize = 1 + 24;
const TAG: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn root(byte: u8) -> RootKey {
        RootKey::from_bytes(Zeroizing::new([byte; 32]))
    }

    #[test]
    fn derived_keys_are_pinned() {
        // HKDF-Expand by another implementation; a change here invalidates every stored token hash.
        assert_eq!(
            hex::encode(*root(7).derive_key("token-hash")),
            "aa9b22576a94f609021209ce36269b838c51b1cf9da5b3898f867cd75a11b9cb"
        );
        assert_ne!(root(7).derive_key("a"), root(7).derive_key("b"));
        assert_ne!(root(7).derive_key("a"), root(8).derive_key("a"));
    }

    #[test]
    fn a_message_opens_only_whole_in_its_place_and_with_its_key() {
        let sealer = root(1).sealer("payload");
        let sealed = sealer.seal(b"approval/q1", b"hello").unwrap();
        assert_eq!(sealer.open(b"approval/q1", &sealed).unwrap().as_slice(), b"hello");
        assert!(sealer.open(b"approval/q2", &sealed).is_err());
        assert!(root(1).sealer("other").open(b"approval/q1", &sealed).is_err());
        assert!(root(2).sealer("payload").open(b"approval/q1", &sealed).is_err());
        for at in 0..sealed.len() {
            let mut broken = sealed.clone();
            broken[at] ^= 1;
            assert!(matches!(sealer.open(b"approval/q1", &broken), Err(VaultError::Sealed(_))), "byte {at}");
            assert!(sealer.open(b"approval/q1", &sealed[..at]).is_err());
        }
        assert_eq!(sealer.open(b"", &sealer.seal(b"", b"").unwrap()).unwrap().as_slice(), b"");
    }

    #[test]
    fn the_same_message_never_seals_to_the_same_bytes() {
        let sealer = root(1).sealer("payload");
        assert_ne!(sealer.seal(b"", b"hello").unwrap(), sealer.seal(b"", b"hello").unwrap());
    }

    #[test]
    fn without_randomness_nothing_is_sealed() {
        struct None;
        impl Entropy for None {
            fn fill(&self, _: &mut [u8]) -> Result<(), VaultError> {
                Err(VaultError::Unavailable("none".into()))
            }
        }
        assert!(root(1).sealer_with("payload", Arc::new(None)).seal(b"", b"hello").is_err());
        assert!(RootKey::generate(&None).is_err());
    }
}
