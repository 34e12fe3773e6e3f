//! Denials before there is an action: bad tokens, frozen agents, refused bytes. Each is a leaf.

use std::{collections::HashMap, net::IpAddr};

use aegis_action::Timestamp;
use aegis_receipts::{Door, LeafBody, Refused};
use parking_lot::Mutex;

use crate::{Broker, record::ReceiptRef};

/// What was refused.
pub struct Refusal<'a> {
    /// The agent, where the token named one.
    pub agent_id: Option<&'a str>,
    /// Route, where it was found.
    pub route: Option<&'a str>,
    /// Door.
    pub door: Door,
    /// Stable code.
    pub reason: &'static str,
    /// For people; never bytes of the request that could be a secret.
    pub detail: Option<String>,
    /// Status that is answered.
    pub status: u16,
    /// Peer address.
    pub peer: Option<IpAddr>,
    /// W3C trace id.
    pub trace_id: Option<String>,
}

/// Counts unauthenticated refusals by source, so that a flood of them is one leaf a second, not the log.
#[derive(Default)]
pub(crate) struct RefusalMeter(Mutex<HashMap<String, Window>>);

struct Window {
    second: i64,
    leaves: u32,
    held: u64,
    since: Timestamp,
    last: (&'static str, u16, Door),
}

impl Broker {
    /// Puts a refusal on record. `None` when it was merged into a counted leaf or the log cannot be
    /// written: the answer is a refusal either way.
    pub fn refuse(&self, refusal: &Refusal<'_>) -> Option<ReceiptRef> {
        self.metrics.refusal(refusal.reason);
        let now = self.env.clock.now();
        let source = bucket(refusal.peer);
        if refusal.agent_id.is_none() && self.refusals.holds(&source, now, refusal) {
            return None;
        }
        let leaf = Refused {
            agent_id: refusal.agent_id.map(str::to_owned),
            count: 1,
            detail: refusal.detail.as_ref().map(|d| d.chars().filter(|c| !c.is_control()).take(400).collect()),
            door: refusal.door,
            reason: refusal.reason.to_owned(),
            route: refusal.route.map(str::to_owned),
            since: None,
            source,
            status: refusal.status,
            tenant: refusal.agent_id.map(|_| self.tenant.clone()),
            trace_id: refusal.trace_id.clone(),
        };
        match self.log.append(vec![LeafBody::Refused(leaf)]) {
            Ok(appended) => appended.into_iter().next().map(ReceiptRef::from),
            Err(error) => {
                tracing::error!(%error, reason = refusal.reason, "refusal could not be recorded");
                None
            }
        }
    }

    /// Writes the counted leaves of windows that have ended; called once a second.
    pub fn flush_refusals(&self) {
        let leaves: Vec<LeafBody> = self.refusals.ended(self.env.clock.now());
        if !leaves.is_empty()
            && let Err(error) = self.log.append(leaves)
        {
            tracing::error!(%error, "counted refusals could not be recorded");
        }
    }
}

impl RefusalMeter {
    /// Whether this refusal is only counted.
    fn holds(&self, source: &str, now: Timestamp, refusal: &Refusal<'_>) -> bool {
        let mut windows = self.0.lock();
        if windows.len() >= MAX_SOURCES && !windows.contains_key(source) {
            // More sources than we keep apart: all further ones share one window.
            return Self::count(&mut windows, "other", now, refusal);
        }
        Self::count(&mut windows, source, now, refusal)
    }

    fn count(windows: &mut HashMap<String, Window>, source: &str, now: Timestamp, refusal: &Refusal<'_>) -> bool {
        let last = (refusal.reason, refusal.status, refusal.door);
        let window = windows.entry(source.to_owned()).or_insert_with(|| Window {
            second: now.seconds(),
            leaves: 0,
            held: 0,
            since: now,
            last,
        });
        if window.second != now.seconds() && window.held == 0 {
            *window = Window { second: now.seconds(), leaves: 0, held: 0, since: now, last };
        }
        if window.leaves < LEAVES_A_SECOND {
            window.leaves += 1;
            return false;
        }
        if window.held == 0 {
            window.since = now;
        }
        window.held += 1;
        window.last = last;
        true
    }

    fn ended(&self, now: Timestamp) -> Vec<LeafBody> {
        let mut out = Vec::new();
        self.0.lock().retain(|source, window| {
            if window.second == now.seconds() {
                return true;
            }
            if window.held > 0 {
                let (reason, status, door) = window.last;
                out.push(LeafBody::Refused(Refused {
                    agent_id: None,
                    count: window.held,
                    detail: None,
                    door,
                    reason: reason.to_owned(),
                    route: None,
                    since: Some(window.since),
                    source: source.clone(),
                    status,
                    tenant: None,
                    trace_id: None,
                }));
            }
            false
        });
        out
    }
}

/// Networks rather than addresses: /24 for IPv4, /48 for IPv6.
fn bucket(peer: Option<IpAddr>) -> String {
    match peer.map(|ip| ip.to_canonical()) {
        Some(IpAddr::V4(v4)) => {
            let [a, b, c, _] = v4.octets();
            format!("{a}.{b}.{c}.0/24")
        }
        Some(IpAddr::V6(v6)) => {
            let [a, b, c, ..] = v6.segments();
            format!("{a:x}:{b:x}:{c:x}::/48")
        }
        None => "unknown".into(),
    }
}

const LEAVES_A_SECOND: u32 = 10;
const MAX_SOURCES: usize = 4096;
