//! Leaves and clocks for tests.
#![allow(dead_code, reason = "each test file uses a part of it")]

pub mod sim;

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};

use aegis_action::{AccessClass, Clock, Risk, SourceTrust, Timestamp, sha256};
use aegis_receipts::{
    Decision, Disk, Door, Event, Intent, LeafBody, LogOptions, OutcomeEntry, OutcomeState, RealDisk, ReceiptLog,
    Recovered, Transfer,
};

/// A clock that goes on by a millisecond per look.
pub struct TestClock(pub AtomicI64);

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.fetch_add(1, Ordering::Relaxed))
    }
}

pub fn clock() -> Arc<TestClock> {
    Arc::new(TestClock(AtomicI64::new(1_700_000_000_000)))
}

pub fn options(dir: &Path) -> LogOptions {
    LogOptions { segment_leaves: 256, preallocate: 64 * 1024, ..LogOptions::new(dir, "gw-1") }
}

pub fn open(dir: &Path) -> (Arc<ReceiptLog>, Recovered) {
    open_on(Arc::new(RealDisk), dir)
}

pub fn open_on(disk: Arc<dyn Disk>, dir: &Path) -> (Arc<ReceiptLog>, Recovered) {
    ReceiptLog::open(options(dir), clock(), disk).unwrap()
}

pub fn intent(n: u64, decision: Decision) -> LeafBody {
    Intent {
        action: "create_issue".into(),
        action_commitment: sha256(&n.to_be_bytes()),
        agent_binding: "bearer".into(),
        agent_id: Some("agt_7f3k2".into()),
        approval: None,
        class: AccessClass::Write,
        count: None,
        credential: Some("github-main".into()),
        decision,
        decision_id: format!("dec_{n}"),
        door: Door::Route,
        dry_run: false,
        index: None,
        mutates_state: true,
        parameters_commitment: sha256(b"parameters"),
        parent_run_id: None,
        policies: vec!["write-issues".into()],
        reason: "allowed".into(),
        request_id: None,
        resource: Some("octo/payments".into()),
        risk: Risk::Medium,
        route: "github".into(),
        run_id: Some("run_1".into()),
        sending: [("Idempotency-Key".to_owned(), format!("k{n}"))].into(),
        snapshot: sha256(b"snapshot"),
        source_trust: SourceTrust::SemiTrustedCustomer,
        tenant: "default".into(),
        tool: "github".into(),
        trace_id: Some("4bf92f3577b34da6a3ce929d0e0e4736".into()),
        user: None,
    }
    .into()
}

pub fn allow(n: u64) -> LeafBody {
    intent(n, Decision::Allow)
}

pub fn deny(n: u64) -> LeafBody {
    intent(n, Decision::Deny)
}

pub fn outcome(n: u64, intent_seq: u64, of_read: bool) -> OutcomeEntry {
    OutcomeEntry {
        credential: None,
        decision_id: format!("dec_{n}"),
        ended_at: Timestamp(1_700_000_000_500),
        intent_seq,
        of_read,
        received: Some(Transfer { bytes: 12, frames: None, sha256: Some(sha256(b"body")) }),
        sent: None,
        started_at: Timestamp(1_700_000_000_400),
        state: OutcomeState::Completed,
        tamper: None,
        upstream_status: Some(200),
    }
}

pub fn event(text: &str) -> LeafBody {
    let body = serde_json::json!({ "text": text });
    Event {
        at: Timestamp(1_700_000_000_000),
        body: body.as_object().unwrap().clone(),
        event_id: "evt_1".into(),
        kind: "agent_frozen".into(),
    }
    .into()
}

/// Runs a future to its end.
pub fn wait<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(future)
}

/// Waits for what another thread does.
pub fn eventually(mut done: impl FnMut() -> bool) {
    for _ in 0..2000 {
        if done() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    panic!("it did not happen within 10 s");
}
