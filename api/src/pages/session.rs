//! Who is signed in to the pages: in this process, for some hours, and as long as the person has access.

use std::collections::HashMap;

use aegis_action::Timestamp;
use aegis_broker::{env::Random, store::PersonRecord};
use axum::http::{HeaderMap, header};
use parking_lot::Mutex;

/// One browser of one person.
#[derive(Clone)]
pub(super) struct Session {
    /// In the cookie.
    pub(super) id: String,
    /// In every form.
    pub(super) csrf: String,
    pub(super) person_id: String,
    expires_at: Timestamp,
}

/// All sessions of this process. A restart ends them.
#[derive(Default)]
pub(crate) struct Sessions(Mutex<HashMap<String, Session>>);

impl Sessions {
    /// `None` where there is no randomness, or as many sessions as there may be.
    pub(super) fn start(&self, person: &PersonRecord, now: Timestamp, random: &dyn Random) -> Option<Session> {
        let session = Session {
            id: token(random)?,
            csrf: token(random)?,
            person_id: person.person_id.clone(),
            expires_at: now.plus_seconds(LIFE),
        };
        let mut all = self.0.lock();
        all.retain(|_, s| s.expires_at > now);
        if all.len() >= MOST {
            return None;
        }
        all.insert(session.id.clone(), session.clone());
        Some(session)
    }

    pub(super) fn find(&self, id: &str, now: Timestamp) -> Option<Session> {
        self.0.lock().get(id).filter(|s| s.expires_at > now).cloned()
    }

    pub(super) fn end(&self, id: &str) {
        self.0.lock().remove(id);
    }
}

/// The id in the cookie.
pub(super) fn named(headers: &HeaderMap) -> Option<&str> {
    let all = headers.get_all(header::COOKIE).iter().filter_map(|v| v.to_str().ok());
    let mut pairs = all.flat_map(|v| v.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(name, _)| *name == COOKIE).map(|(_, value)| value)
}

pub(super) fn cookie(id: &str, secure: bool) -> String {
    format!("{COOKIE}={id}; Path=/approvals; HttpOnly; SameSite=Lax; Max-Age={LIFE}{}", flag(secure))
}

pub(super) fn no_cookie(secure: bool) -> String {
    format!("{COOKIE}=; Path=/approvals; HttpOnly; SameSite=Lax; Max-Age=0{}", flag(secure))
}

fn flag(secure: bool) -> &'static str {
    if secure { "; Secure" } else { "" }
}

/// 256 random bits.
fn token(random: &dyn Random) -> Option<String> {
    let mut bytes = [0; 32];
    random.fill(&mut bytes).ok()?;
    Some(aegis_action::Digest(bytes).to_hex())
}

const COOKIE: &str = "aegis_approver";
/// A working day.
const LIFE: i64 = 8 * 3600;
const MOST: usize = 1000;
