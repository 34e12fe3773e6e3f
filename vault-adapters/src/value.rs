//! Which bytes can be a credential, and versions that do not give them away.

use aegis_broker::vault::VaultError;
use hmac::Mac as _;
use zeroize::Zeroizing;

use crate::entropy::Entropy;
use crate::keys::hmac;

/// Longest value in bytes.
pub const MAX_VALUE_BYTES: usize = 64 * 1024;

/// Refuses what could not be sent as a header value or would end it early (RFC 9110, 5.5).
///
/// # Errors
/// [`VaultError::BadValue`], which says what is wrong and where, never with what bytes.
pub fn check(value: &[u8]) -> Result<(), VaultError> {
    if value.is_empty() {
        return Err(VaultError::BadValue("it is empty".into()));
    }
    if value.len() > MAX_VALUE_BYTES {
        return Err(VaultError::BadValue(format!("it is longer than {MAX_VALUE_BYTES} bytes")));
    }
    match value.iter().position(u8::is_ascii_control) {
        None => Ok(()),
        Some(at) if value.get(at..).is_some_and(|rest| rest.iter().all(|b| matches!(b, b'\r' | b'\n'))) => {
            Err(VaultError::BadValue("it ends with a line break; store it without".into()))
        }
        Some(at) => Err(VaultError::BadValue(format!("byte {at} is a control character, which no header can carry"))),
    }
}

/// Versions of values that others change: equal bytes of a key have equal versions within this
/// process, and without the process's random key nothing can be guessed from them.
pub struct Versions(Zeroizing<[u8; 32]>);

impl Versions {
    pub fn new(entropy: &dyn Entropy) -> Result<Self, VaultError> {
        let mut key = Zeroizing::new([0; 32]);
        entropy.fill(key.as_mut_slice())?;
        Ok(Self(key))
    }

    pub fn of(&self, key: &str, value: &[u8]) -> String {
        let mut mac = hmac(&self.0);
        // The length keeps (`a`, `bc`) and (`ab`, `c`) apart.
        mac.update(&(key.len() as u64).to_be_bytes());
        mac.update(key.as_bytes());
        mac.update(value);
        let mut text = hex::encode(mac.finalize().into_bytes());
        text.truncate(32);
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entropy::OsEntropy;

    #[test]
    fn control_bytes_are_refused_wherever_they_stand() {
        for byte in (0..0x20).chain([0x7f]) {
            for value in [vec![byte, b'a'], vec![b'a', byte], vec![b'a', byte, b'b'], vec![byte]] {
                assert!(matches!(check(&value), Err(VaultError::BadValue(_))), "{value:?}");
            }
        }
        for value in [&b"ghp_abc"[..], b"a b", "schlüssel".as_bytes(), b"=+/-_.~!\"", &[b'x'; MAX_VALUE_BYTES]] {
            check(value).unwrap();
        }
        assert!(check(b"").is_err());
        assert!(check(&[b'x'; MAX_VALUE_BYTES + 1]).is_err());
        assert!(check(b"token\r\n").unwrap_err().to_string().contains("line break"));
        assert!(check(b"token\r\nInjected: 1").unwrap_err().to_string().contains("byte 5"));
    }

    #[test]
    fn versions_follow_key_and_bytes_and_differ_between_processes() {
        let (one, two) = (Versions::new(&OsEntropy).unwrap(), Versions::new(&OsEntropy).unwrap());
        let of = |v: &Versions, key, value| v.of(key, value);
        assert_eq!(of(&one, "k", b"v"), of(&one, "k", b"v"));
        assert_ne!(of(&one, "k", b"v"), of(&one, "k", b"w"));
        assert_ne!(of(&one, "a", b"bc"), of(&one, "ab", b"c"));
        assert_ne!(of(&one, "k", b"v"), of(&two, "k", b"v"));
    }
}
