//! Salted commitments: a leaf binds what it does not show, so the payload can be erased later.

use aegis_action::{Digest, canonicalize, parse_strict, sha256};

/// Bytes of randomness per leaf. Few-valued parameters cannot be guessed from their commitment without it.
pub const SALT_BYTES: usize = 32;

/// `SHA-256("aegis-commitment-1\0" || salt || digest)`.
///
/// `digest` is the action hash, or the SHA-256 of the canonical parameters. The salt is
/// fresh for every leaf, kept only with the sealed payload and in exported bundles;
/// erasing the payload therefore leaves nothing to test a guess against.
pub fn commit(salt: &[u8; SALT_BYTES], digest: &Digest) -> Digest {
    let mut bytes = Vec::with_capacity(DOMAIN.len() + SALT_BYTES + 32);
    bytes.extend_from_slice(DOMAIN);
    bytes.extend_from_slice(salt);
    bytes.extend_from_slice(&digest.0);
    sha256(&bytes)
}

/// Both commitments of an intent, `(action, parameters)`, from the canonical bytes of
/// its action; `None` when the bytes are not those of an action.
pub fn open_commitments(salt: &[u8; SALT_BYTES], canonical_action: &[u8]) -> Option<(Digest, Digest)> {
    let value = parse_strict(canonical_action).ok()?;
    if canonicalize(&value).ok()? != canonical_action {
        return None;
    }
    let parameters = canonicalize(value.get("parameters")?).ok()?;
    Some((commit(salt, &sha256(canonical_action)), commit(salt, &sha256(&parameters))))
}

const DOMAIN: &[u8] = b"aegis-commitment-1\0";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commitment_depends_on_salt_and_digest() {
        let (a, b) = (sha256(b"a"), sha256(b"b"));
        assert_eq!(commit(&[1; 32], &a), commit(&[1; 32], &a));
        assert_ne!(commit(&[1; 32], &a), commit(&[2; 32], &a));
        assert_ne!(commit(&[1; 32], &a), commit(&[1; 32], &b));
        // The definition, spelt out, so that another implementation can be held against it.
        let mut spelt = b"aegis-commitment-1\0".to_vec();
        spelt.extend([7; 32]);
        spelt.extend(a.0);
        assert_eq!(commit(&[7; 32], &a), sha256(&spelt));
    }

    #[test]
    fn only_canonical_actions_open() {
        let good = br#"{"action":"a","mutates_state":true,"parameters":{"x":1},"resource":null,"tool":"t"}"#;
        let (action, parameters) = open_commitments(&[3; 32], good).unwrap();
        assert_eq!(action, commit(&[3; 32], &sha256(good)));
        assert_eq!(parameters, commit(&[3; 32], &sha256(br#"{"x":1}"#)));
        assert!(open_commitments(&[3; 32], br#"{ "parameters":{} }"#).is_none());
        assert!(open_commitments(&[3; 32], b"{}").is_none());
    }
}
