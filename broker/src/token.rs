//! Bearer tokens of agents, admins and approvers: random, checksummed, stored only as keyed hashes.
//!
//! Form: prefix, 32 characters of `A-Za-z0-9` (190 bits), 6 characters of CRC-32. The
//! checksum lets secret scanners tell a token from a look-alike and lets the gateway
//! refuse garbage without asking the store.

use aegis_action::Digest;
use hmac::{Hmac, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::{
    env::{Random, RandomError},
    secret::Secret,
    store::PersonRole,
};

/// Whose token it is; the prefix says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenKind {
    /// An agent's.
    Agent,
    /// An admin's.
    Admin,
    /// An approver's.
    Approver,
}

impl TokenKind {
    /// What the token starts with.
    pub fn prefix(self) -> &'static str {
        match self {
            Self::Agent => "aegis_agt_",
            Self::Admin => "aegis_adm_",
            Self::Approver => "aegis_apr_",
        }
    }
}

impl From<PersonRole> for TokenKind {
    fn from(role: PersonRole) -> Self {
        match role {
            PersonRole::Admin => Self::Admin,
            PersonRole::Approver => Self::Approver,
        }
    }
}

/// Makes a token. Shown once to its owner; only its hash is kept.
pub fn mint(kind: TokenKind, random: &dyn Random) -> Result<Secret, RandomError> {
    let mut body = Zeroizing::new(String::with_capacity(RANDOM_CHARS + CHECK_CHARS));
    let mut pool = Zeroizing::new([0u8; 64]);
    while body.len() < RANDOM_CHARS {
        random.fill(pool.as_mut())?;
        // 248 = 4 * 62: bytes above it would make some characters likelier than others.
        let fair = pool.iter().filter(|b| **b < 248).filter_map(|b| BASE62.get(usize::from(*b) % 62));
        for c in fair.take(RANDOM_CHARS - body.len()) {
            body.push(char::from(*c));
        }
    }
    let check = checksum(kind, &body);
    Ok(Secret::from(format!("{}{}{check}", kind.prefix(), body.as_str())))
}

/// Whether a string has the form and the checksum of a token of this kind.
pub fn well_formed(kind: TokenKind, token: &str) -> bool {
    token
        .strip_prefix(kind.prefix())
        .filter(|rest| rest.len() == RANDOM_CHARS + CHECK_CHARS && rest.bytes().all(|b| b.is_ascii_alphanumeric()))
        .is_some_and(|rest| {
            let (body, check) = rest.split_at(RANDOM_CHARS);
            checksum(kind, body) == check
        })
}

/// Hashes tokens under a key of the installation, so that a copy of the database
/// does not allow tokens to be tested.
pub struct TokenHasher(Zeroizing<[u8; 32]>);

impl TokenHasher {
    /// Takes the key over.
    pub fn new(key: Zeroizing<[u8; 32]>) -> Self {
        Self(key)
    }

    /// HMAC-SHA256 of the whole token.
    pub fn hash(&self, token: &str) -> Digest {
        // The block-sized key makes construction infallible; 32 bytes are padded with zeros as HMAC itself does.
        let mut block = Zeroizing::new([0u8; 64]);
        block.iter_mut().zip(self.0.iter()).for_each(|(to, from)| *to = *from);
        let mut mac = <Hmac<Sha256> as hmac::digest::KeyInit>::new((&*block).into());
        mac.update(token.as_bytes());
        Digest(mac.finalize().into_bytes().into())
    }
}

fn checksum(kind: TokenKind, body: &str) -> String {
    let mut crc = crc32fast::Hasher::new();
    crc.update(kind.prefix().as_bytes());
    crc.update(body.as_bytes());
    let mut n = u64::from(crc.finalize());
    let mut out = String::with_capacity(CHECK_CHARS);
    for _ in 0..CHECK_CHARS {
        out.push(char::from(BASE62.get((n % 62) as usize).copied().unwrap_or(b'0')));
        n /= 62;
    }
    out
}

const RANDOM_CHARS: usize = 32;
/// 62^6 > 2^32.
const CHECK_CHARS: usize = 6;
const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::SystemRandom;

    fn text(kind: TokenKind) -> String {
        String::from_utf8(mint(kind, &SystemRandom).unwrap().expose().to_vec()).unwrap()
    }

    #[test]
    fn a_token_is_known_by_prefix_and_checksum() {
        let token = text(TokenKind::Agent);
        assert!(well_formed(TokenKind::Agent, &token));
        assert!(!well_formed(TokenKind::Admin, &token));
        assert!(!well_formed(TokenKind::Admin, &token.replace("_agt_", "_adm_")), "the prefix is part of the checksum");
        let mut flipped = token.clone().into_bytes();
        flipped[12] = if flipped[12] == b'a' { b'b' } else { b'a' };
        assert!(!well_formed(TokenKind::Agent, std::str::from_utf8(&flipped).unwrap()));
        assert_ne!(token, text(TokenKind::Agent));
    }

    #[test]
    fn the_hash_depends_on_the_key() {
        let token = text(TokenKind::Agent);
        let a = TokenHasher::new(Zeroizing::new([1; 32])).hash(&token);
        let b = TokenHasher::new(Zeroizing::new([2; 32])).hash(&token);
        assert_ne!(a, b);
    }
}
