//! One canonical log line per decision, the same fields everywhere.
//!
//! The receipts are the record; this is for people and log shippers. Lines are buffered
//! and written by a thread of their own, so that a slow terminal does not hold up a request
//! until the buffer's bound; from there on requests wait rather than lose a line.

use std::{io::Write, sync::Arc, thread, time::Duration};

use parking_lot::{Condvar, Mutex};
use serde::Serialize;

use aegis_action::Timestamp;

use crate::{admit::Ask, record::DecisionRecord};

/// How lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// `key=value` for terminals.
    Text,
    /// None at all.
    Off,
}

/// Writes decision lines.
pub struct DecisionLog {
    format: LogFormat,
    shared: Arc<Shared>,
    writer: Option<thread::JoinHandle<()>>,
}

struct Shared {
    buffer: Mutex<(Vec<u8>, bool)>,
    changed: Condvar,
    room: Condvar,
}

#[derive(Serialize)]
struct Line<'a> {
    event: &'static str,
    ts: i64,
    decision: &'a str,
    reason: &'a str,
    route: &'a str,
    door: &'a str,
    agent_id: &'a str,
    action: String,
    resource: Option<&'a str>,
    class: &'a str,
    risk: &'a str,
    source_trust: &'a str,
    policies: &'a [String],
    decision_id: &'a str,
    receipt_id: &'a str,
    action_hash: aegis_action::Digest,
    #[serde(skip_serializing_if = "Option::is_none")]
    approval_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_id: Option<&'a str>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    dry_run: bool,
}

impl DecisionLog {
    /// Lines go to `sink`.
    pub fn new(format: LogFormat, mut sink: Box<dyn Write + Send>) -> Self {
        let shared = Arc::new(Shared { buffer: Mutex::default(), changed: Condvar::new(), room: Condvar::new() });
        let writer = (format != LogFormat::Off).then(|| {
            let theirs = shared.clone();
            thread::spawn(move || {
                loop {
                    let (batch, closed) = {
                        let mut buffer = theirs.buffer.lock();
                        while buffer.0.is_empty() && !buffer.1 {
                            theirs.changed.wait(&mut buffer);
                        }
                        (std::mem::take(&mut buffer.0), buffer.1)
                    };
                    theirs.room.notify_all();
                    let _ = sink.write_all(&batch).and_then(|()| sink.flush());
                    if closed {
                        return;
                    }
                    // Gathers what comes together; a lone line has been written at once.
                    thread::sleep(Duration::from_millis(10));
                }
            })
        });
        Self { format, shared, writer }
    }

    pub(crate) fn write(&self, ask: &Ask<'_>, record: &DecisionRecord, now: Timestamp) {
        if self.format == LogFormat::Off {
            return;
        }
        let Some(call) = ask.calls.first() else { return };
        let line = Line {
            event: "decision",
            ts: now.0,
            decision: record.decision.as_str(),
            reason: &record.reason,
            route: ask.scope.label(),
            door: ask.door.as_str(),
            agent_id: &ask.identity.agent.agent_id,
            action: call.action.qualified_name(),
            resource: call.action.resource(),
            class: record.risk.class.as_str(),
            risk: record.risk.level.as_str(),
            source_trust: record.effective_trust.as_str(),
            policies: &record.matched_policies,
            decision_id: &record.decision_id,
            receipt_id: &record.receipt.receipt_id,
            action_hash: record.action_hash,
            approval_id: record.approval.as_ref().map(|a| a.approval_id.as_str()),
            trace_id: ask.trace.trace_id.as_deref(),
            dry_run: record.dry_run,
        };
        let mut bytes = Vec::with_capacity(TYPICAL_LINE);
        if serde_json::to_writer(&mut bytes, &line).is_err() {
            return;
        }
        if self.format == LogFormat::Text {
            bytes = text(&bytes);
        }
        bytes.push(b'\n');
        let mut buffer = self.shared.buffer.lock();
        while buffer.0.len() > MAX_BUFFER {
            self.shared.room.wait(&mut buffer);
        }
        let wake = buffer.0.is_empty();
        buffer.0.extend_from_slice(&bytes);
        drop(buffer);
        if wake {
            self.shared.changed.notify_one();
        }
    }
}

impl Drop for DecisionLog {
    fn drop(&mut self) {
        self.shared.buffer.lock().1 = true;
        self.shared.changed.notify_one();
        // The last lines are written before the process ends.
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}

/// The same fields as `key=value`; JSON spelling for whatever has blanks in it.
fn text(json: &[u8]) -> Vec<u8> {
    let Ok(serde_json::Value::Object(map)) = serde_json::from_slice(json) else { return json.to_vec() };
    let mut out = String::new();
    for (key, value) in &map {
        let plain = value.as_str().filter(|s| !s.is_empty() && !s.contains([' ', '"', '='])).map(str::to_owned);
        if !out.is_empty() {
            out.push(' ');
        }
        out.push_str(&format!("{key}={}", plain.unwrap_or_else(|| value.to_string())));
    }
    out.into_bytes()
}

const MAX_BUFFER: usize = 4 << 20;
const TYPICAL_LINE: usize = 1024;
