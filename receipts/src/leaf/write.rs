//! Leaf bytes. Members are written straight in canonical order, because an intent is
//! serialised on the path of every request; a test holds the order against `aegis_action::canonicalize`.

use std::io::Write as _;

use aegis_action::{CANON_VERSION, CanonError, Digest, MAX_SAFE_INTEGER, Timestamp, canonicalize};
use serde_json::{Value, json};

use super::{Event, Intent, LeafBody, OutcomeEntry, Recovered, Refused, Transfer};

/// What the log adds to a body.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stamp<'a> {
    pub node: &'a str,
    pub seq: u64,
    pub ts: Timestamp,
    pub prev: &'a Digest,
}

/// Appends the bytes of a leaf to `out`. On an error `out` has a part of it: the caller cuts it off.
pub(crate) fn write_leaf(stamp: &Stamp<'_>, body: &LeafBody, out: &mut Vec<u8>) -> Result<(), CanonError> {
    let mut m = Members::open(out, body.type_name());
    match body {
        LeafBody::Intent(intent) => write_intent(stamp, intent, &mut m),
        LeafBody::Outcome(entry) => write_outcome(stamp, entry, &mut m),
        LeafBody::Outcomes(entries) => write_outcomes(stamp, entries, &mut m),
        LeafBody::Refused(refused) => write_refused(stamp, refused, &mut m),
        LeafBody::Event(event) => write_event(stamp, event, &mut m)?,
        LeafBody::Recovered(recovered) => write_recovered(stamp, recovered, &mut m),
    }
    m.close()
}

/// How many bytes an entry takes in an `outcomes.v1` leaf.
pub(crate) fn entry_bytes(entry: &OutcomeEntry) -> usize {
    let mut out = Vec::with_capacity(512);
    let mut m = Members::open(&mut out, "");
    write_entry(entry, None, &mut m);
    m.out.len() + 1
}

fn write_intent(stamp: &Stamp<'_>, i: &Intent, m: &mut Members<'_>) {
    m.text("action", &i.action);
    m.digest("action_commitment", &i.action_commitment);
    m.text("agent_binding", &i.agent_binding);
    m.opt_text("agent_id", i.agent_id.as_deref());
    if let Some(approval) = &i.approval {
        m.object("approval", |m| {
            m.texts("approvers", &approval.approvers);
            m.text("id", &approval.id);
        });
    }
    m.text("canon_version", CANON_VERSION);
    m.text("class", i.class.as_str());
    m.opt_int("count", i.count.map(u64::from));
    m.opt_text("credential", i.credential.as_deref());
    m.text("decision", i.decision.as_str());
    m.text("decision_id", &i.decision_id);
    m.text("door", i.door.as_str());
    if i.dry_run {
        m.flag("dry_run", true);
    }
    m.opt_int("index", i.index.map(u64::from));
    m.flag("mutates_state", i.mutates_state);
    m.text("node", stamp.node);
    m.digest("parameters_commitment", &i.parameters_commitment);
    m.opt_text("parent_run_id", i.parent_run_id.as_deref());
    if !i.policies.is_empty() {
        m.texts("policies", &i.policies);
    }
    m.digest("prev_receipt_hash", stamp.prev);
    m.text("reason", &i.reason);
    m.opt_text("request_id", i.request_id.as_deref());
    m.opt_text("resource", i.resource.as_deref());
    m.text("risk", i.risk.as_str());
    m.text("route", &i.route);
    m.opt_text("run_id", i.run_id.as_deref());
    if !i.sending.is_empty() {
        m.object("sending", |m| {
            for (name, value) in &i.sending {
                m.ascii_name(name);
                m.string(value);
            }
        });
    }
    m.int("seq", stamp.seq);
    m.digest("snapshot", &i.snapshot);
    m.text("source_trust", i.source_trust.as_str());
    m.text("tenant", &i.tenant);
    m.text("tool", &i.tool);
    m.opt_text("trace_id", i.trace_id.as_deref());
    m.time("ts", stamp.ts);
    m.kind();
    m.opt_text("user", i.user.as_deref());
}

fn write_outcome(stamp: &Stamp<'_>, entry: &OutcomeEntry, m: &mut Members<'_>) {
    write_entry(entry, Some(stamp), m);
}

/// An entry is written the same way alone, where the stamp's members stand between its own, and among others.
fn write_entry(e: &OutcomeEntry, stamp: Option<&Stamp<'_>>, m: &mut Members<'_>) {
    if let Some(credential) = &e.credential {
        m.object("credential", |m| {
            m.text("id", &credential.id);
            m.text("version", &credential.version);
        });
    }
    m.text("decision_id", &e.decision_id);
    m.time("ended_at", e.ended_at);
    m.int("intent_seq", e.intent_seq);
    if let Some(stamp) = stamp {
        m.text("node", stamp.node);
        m.digest("prev_receipt_hash", stamp.prev);
    }
    m.transfer("received", e.received.as_ref());
    m.transfer("sent", e.sent.as_ref());
    if let Some(stamp) = stamp {
        m.int("seq", stamp.seq);
    }
    m.time("started_at", e.started_at);
    m.text("state", e.state.as_str());
    m.opt_text("tamper", e.tamper.as_deref());
    if let Some(stamp) = stamp {
        m.time("ts", stamp.ts);
        m.kind();
    }
    m.opt_int("upstream_status", e.upstream_status.map(u64::from));
}

fn write_outcomes(stamp: &Stamp<'_>, entries: &[OutcomeEntry], m: &mut Members<'_>) {
    m.key("entries");
    m.out.push(b'[');
    for (at, entry) in entries.iter().enumerate() {
        if at > 0 {
            m.out.push(b',');
        }
        m.nested(|m| write_entry(entry, None, m));
    }
    m.out.push(b']');
    m.text("node", stamp.node);
    m.digest("prev_receipt_hash", stamp.prev);
    m.int("seq", stamp.seq);
    m.time("ts", stamp.ts);
    m.kind();
}

fn write_refused(stamp: &Stamp<'_>, r: &Refused, m: &mut Members<'_>) {
    m.opt_text("agent_id", r.agent_id.as_deref());
    m.int("count", r.count);
    m.opt_text("detail", r.detail.as_deref());
    m.text("door", r.door.as_str());
    m.text("node", stamp.node);
    m.digest("prev_receipt_hash", stamp.prev);
    m.text("reason", &r.reason);
    m.opt_text("route", r.route.as_deref());
    m.int("seq", stamp.seq);
    if let Some(since) = r.since {
        m.time("since", since);
    }
    m.text("source", &r.source);
    m.int("status", u64::from(r.status));
    m.opt_text("tenant", r.tenant.as_deref());
    m.opt_text("trace_id", r.trace_id.as_deref());
    m.time("ts", stamp.ts);
    m.kind();
}

fn write_event(stamp: &Stamp<'_>, e: &Event, m: &mut Members<'_>) -> Result<(), CanonError> {
    m.time("at", e.at);
    m.key("body");
    // One level deeper than it stands alone: measured there, so that what is written also parses.
    let body = canonicalize(&json!([Value::Object(e.body.clone())]))?;
    m.out.extend_from_slice(body.get(1..body.len().saturating_sub(1)).unwrap_or_default());
    m.text("event_id", &e.event_id);
    m.text("kind", &e.kind);
    m.text("node", stamp.node);
    m.digest("prev_receipt_hash", stamp.prev);
    m.int("seq", stamp.seq);
    m.time("ts", stamp.ts);
    m.kind();
    Ok(())
}

fn write_recovered(stamp: &Stamp<'_>, r: &Recovered, m: &mut Members<'_>) {
    m.int("bytes", r.bytes);
    m.int("leaves", r.leaves);
    m.text("node", stamp.node);
    m.digest("prev_receipt_hash", stamp.prev);
    m.int("seq", stamp.seq);
    m.text("torn", &r.torn);
    m.time("ts", stamp.ts);
    m.kind();
}

/// An object being written. Faults are remembered and come out of [`Members::close`],
/// so that the functions above read as the list of members that they are.
struct Members<'a> {
    out: &'a mut Vec<u8>,
    first: bool,
    fault: Option<CanonError>,
    /// The leaf's `type`; empty in objects within it.
    type_name: &'static str,
}

impl<'a> Members<'a> {
    fn open(out: &'a mut Vec<u8>, type_name: &'static str) -> Self {
        out.push(b'{');
        Self { out, first: true, fault: None, type_name }
    }

    fn close(self) -> Result<(), CanonError> {
        self.out.push(b'}');
        self.fault.map_or(Ok(()), Err)
    }

    fn key(&mut self, key: &str) {
        if !self.first {
            self.out.push(b',');
        }
        self.first = false;
        self.out.push(b'"');
        self.out.extend_from_slice(key.as_bytes());
        self.out.extend_from_slice(b"\":");
    }

    /// A name from outside. ASCII sorts the same by every rule, so the order of the map is canonical.
    fn ascii_name(&mut self, name: &str) {
        if !name.is_ascii() {
            self.fault = Some(CanonError::AmbiguousOrder);
        }
        if !self.first {
            self.out.push(b',');
        }
        self.first = false;
        self.string(name);
        self.out.push(b':');
    }

    /// RFC 8785 section 3.2.2.2 escapes what `serde_json` escapes, the same way.
    fn string(&mut self, text: &str) {
        if text.bytes().all(|b| b >= 0x20 && b != b'"' && b != b'\\') {
            self.out.push(b'"');
            self.out.extend_from_slice(text.as_bytes());
            self.out.push(b'"');
        } else if let Err(e) = serde_json::to_writer(&mut *self.out, text) {
            self.fault = Some(CanonError::Syntax(e.to_string()));
        }
    }

    fn text(&mut self, key: &str, text: &str) {
        self.key(key);
        self.string(text);
    }

    fn opt_text(&mut self, key: &str, text: Option<&str>) {
        if let Some(text) = text {
            self.text(key, text);
        }
    }

    fn texts(&mut self, key: &str, texts: &[String]) {
        self.key(key);
        self.out.push(b'[');
        for (at, text) in texts.iter().enumerate() {
            if at > 0 {
                self.out.push(b',');
            }
            self.string(text);
        }
        self.out.push(b']');
    }

    fn int(&mut self, key: &str, n: u64) {
        match i64::try_from(n) {
            Ok(n) => self.time(key, Timestamp(n)),
            Err(_) => self.fault = Some(CanonError::NumberRange),
        }
    }

    fn opt_int(&mut self, key: &str, n: Option<u64>) {
        if let Some(n) = n {
            self.int(key, n);
        }
    }

    fn time(&mut self, key: &str, Timestamp(n): Timestamp) {
        if !(-MAX_SAFE_INTEGER..=MAX_SAFE_INTEGER).contains(&n) {
            self.fault = Some(CanonError::NumberRange);
        }
        self.key(key);
        // Writing to a `Vec` cannot fail.
        let _ = write!(self.out, "{n}");
    }

    fn flag(&mut self, key: &str, value: bool) {
        self.key(key);
        self.out.extend_from_slice(if value { b"true" } else { b"false" });
    }

    fn digest(&mut self, key: &str, digest: &Digest) {
        self.key(key);
        self.out.push(b'"');
        self.out.extend_from_slice(&digest.hex());
        self.out.push(b'"');
    }

    fn transfer(&mut self, key: &str, transfer: Option<&Transfer>) {
        if let Some(transfer) = transfer {
            self.object(key, |m| {
                m.int("bytes", transfer.bytes);
                m.opt_int("frames", transfer.frames);
                if let Some(digest) = &transfer.sha256 {
                    m.digest("sha256", digest);
                }
            });
        }
    }

    fn kind(&mut self) {
        self.text("type", self.type_name);
    }

    fn object(&mut self, key: &str, members: impl FnOnce(&mut Members<'_>)) {
        self.key(key);
        self.nested(members);
    }

    fn nested(&mut self, members: impl FnOnce(&mut Members<'_>)) {
        let mut inner = Members::open(&mut *self.out, "");
        members(&mut inner);
        let fault = inner.close().err();
        self.fault = self.fault.take().or(fault);
    }
}

#[cfg(test)]
mod tests;
