//! What comes back from Slack: who signed it, whether it came before, and whose click it is.

use std::collections::HashMap;

use aegis_action::{Digest, Timestamp, sha256};
use parking_lot::Mutex;

use super::sign;
use crate::{
    Broker,
    config::WebhookFormat,
    store::{PersonRecord, PersonRole, StoreError},
};

/// Signatures that were taken, until they are too old to be taken again.
#[derive(Default)]
pub(crate) struct Clicks(Mutex<HashMap<Digest, Timestamp>>);

impl Clicks {
    /// Whether this one is new. Only signatures that hold come here, so nobody else fills it.
    fn first(&self, signature: &str, now: Timestamp) -> bool {
        let mut taken = self.0.lock();
        // A signature may be of a clock ahead of ours, and holds as long after that.
        let kept_ms = 2 * i64::try_from(sign::SKEW_SECONDS).unwrap_or(i64::MAX / 2000) * 1000;
        taken.retain(|_, at| now.0.saturating_sub(at.0) <= kept_ms);
        if taken.len() >= MOST {
            return false;
        }
        taken.insert(sha256(signature.to_ascii_lowercase().as_bytes()), now).is_none()
    }
}

impl Broker {
    /// Whether one of the Slack apps that `routes.toml` names signed this, lately and not before.
    pub async fn slack_signed(&self, timestamp: &str, signature: &str, body: &[u8]) -> bool {
        let now = self.env.clock.now();
        let snapshot = self.snapshot();
        for webhook in &snapshot.config.webhooks {
            let WebhookFormat::Slack { signing_secret: Some(name) } = &webhook.format else { continue };
            match self.webhook_secret(name).await {
                Ok(key) if sign::is_slack(&key, timestamp, signature, body, now) => {
                    return self.clicks.first(signature, now);
                }
                Ok(_) => {}
                Err(error) => tracing::warn!(webhook = webhook.name, %error, "a Slack signature cannot be checked"),
            }
        }
        false
    }

    /// The approver with access who has this Slack user id on record.
    pub async fn slack_person(&self, slack_user: &str) -> Result<Option<PersonRecord>, StoreError> {
        let now = self.env.clock.now();
        let holds = |p: &PersonRecord| {
            p.role == PersonRole::Approver
                && !p.revoked
                && p.expires_at.is_none_or(|end| now < end)
                && p.slack_user.as_deref() == Some(slack_user)
        };
        Ok(self.store.people().await?.into_iter().find(holds))
    }
}

/// More clicks than that within ten minutes are not made by people.
const MOST: usize = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_taken_once_in_either_case() {
        let clicks = Clicks::default();
        assert!(clicks.first("v0=aa", Timestamp(1_000_000)));
        assert!(!clicks.first("v0=aa", Timestamp(1_500_000)));
        assert!(!clicks.first("v0=AA", Timestamp(1_500_000)));
        assert!(clicks.first("v0=bb", Timestamp(1_500_000)));
    }
}
