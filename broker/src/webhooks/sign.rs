//! Signatures: ours on what goes out (Standard Webhooks), Slack's on what comes back.

use aegis_action::Timestamp;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use hmac::{Hmac, Mac as _};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::secret::Secret;

/// The value of `webhook-signature`: `v1,` and base64 of HMAC-SHA256 over `id.timestamp.body`.
/// `None` where the key is not one.
///
/// Source: Standard Webhooks 1.0, "Signature scheme".
pub(super) fn standard(key: &Secret, id: &str, timestamp: i64, body: &[u8]) -> Option<String> {
    let mut mac = mac(&key_bytes(key)?)?;
    mac.update(format!("{id}.{timestamp}.").as_bytes());
    mac.update(body);
    Some(format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes())))
}

/// Whether Slack signed this body lately: `v0=` and hex of HMAC-SHA256 over `v0:timestamp:body`.
///
/// Source: Slack API, "Verifying requests from Slack".
pub(super) fn is_slack(key: &Secret, timestamp: &str, signature: &str, body: &[u8], now: Timestamp) -> bool {
    let lately = timestamp.bytes().all(|b| b.is_ascii_digit())
        && timestamp.parse::<i64>().is_ok_and(|at| (now.0 / 1000).abs_diff(at) <= SKEW_SECONDS);
    let tag = signature.strip_prefix("v0=").and_then(|tag| hex::decode(tag).ok());
    let (Some(tag), Some(mut mac)) = (tag.filter(|_| lately), mac(key.expose())) else { return false };
    mac.update(format!("v0:{timestamp}:").as_bytes());
    mac.update(body);
    // In constant time.
    mac.verify_slice(&tag).is_ok()
}

/// `whsec_` and base64, or the bytes themselves.
fn key_bytes(key: &Secret) -> Option<Zeroizing<Vec<u8>>> {
    let bytes = match key.expose().strip_prefix(b"whsec_") {
        Some(text) => Zeroizing::new(STANDARD.decode(text).ok()?),
        None => Zeroizing::new(key.expose().to_vec()),
    };
    (!bytes.is_empty()).then_some(bytes)
}

fn mac(key: &[u8]) -> Option<Hmac<Sha256>> {
    Hmac::new_from_slice(key).ok()
}

/// How far Slack's clock and ours may be apart, and how long a message holds.
pub(super) const SKEW_SECONDS: u64 = 300;

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &str) -> Secret {
        Secret::from(text.to_owned())
    }

    /// Both answers are of Python's `hmac`: `b64encode(hmac.new(key, b"evt_1.1700000000." + body, "sha256").digest())`.
    #[test]
    fn a_standard_signature_is_what_other_implementations_compute() {
        let body = br#"{"id":"evt_1","type":"approval_asked"}"#;
        let raw = standard(&secret("a raw signing key"), "evt_1", 1_700_000_000, body);
        assert_eq!(raw.as_deref(), Some("v1,AnpfcS/nbWf6o/M5jjRV6kCN9rrIPLDkhqzBE3Ajy04="));
        let whsec = secret("whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX");
        assert_eq!(
            standard(&whsec, "evt_1", 1_700_000_000, body).as_deref(),
            Some("v1,LLSbVuiX7ejK5jjTNB7szijlRRUHW5RQm0CfXEKeHpM=")
        );
        assert_eq!(standard(&secret("whsec_not base64"), "evt_1", 1, body), None);
        assert_eq!(standard(&secret("whsec_"), "evt_1", 1, body), None);
    }

    /// The tag is of Python's `hmac.new(key, b"v0:1700000000:" + body, "sha256").hexdigest()`.
    #[test]
    fn a_slack_signature_holds_for_its_body_and_for_five_minutes() {
        let key = secret("8f742231b10e8888abcd99yyyzzz85a5");
        let (body, tag) = (
            b"payload=%7B%22type%22%3A%22block_actions%22%7D".as_slice(),
            "v0=8db5c6935539bab0224a57d21ee2f82f5789a9624fd2b92aa4529412fe007e74",
        );
        let at = |seconds: i64| Timestamp((1_700_000_000 + seconds) * 1000);
        assert!(is_slack(&key, "1700000000", tag, body, at(0)));
        assert!(is_slack(&key, "1700000000", tag, body, at(300)));
        assert!(is_slack(&key, "1700000000", tag, body, at(-300)));
        assert!(!is_slack(&key, "1700000000", tag, body, at(301)));
        assert!(!is_slack(&key, "1700000000", tag, body, at(-301)));
        assert!(!is_slack(&key, "1700000001", tag, body, at(0)), "the time is signed");
        assert!(!is_slack(&key, "1700000000", tag, b"payload=other", at(0)));
        assert!(!is_slack(&secret("another"), "1700000000", tag, body, at(0)));
        for bad in ["", "v0=", "v0=00", tag.trim_start_matches("v0="), &tag.replace("v0=", "v1=")] {
            assert!(!is_slack(&key, "1700000000", bad, body, at(0)), "{bad}");
        }
        assert!(!is_slack(&key, "-1700000000", tag, body, at(0)));
        assert!(!is_slack(&key, "", tag, body, at(0)));
    }
}
