//! The order of members is held against the reference canonicaliser.

use std::collections::BTreeMap;

use aegis_action::{AccessClass, Risk, SourceTrust, parse_strict, sha256};
use serde_json::Map;

use super::*;
use crate::leaf::{ApprovalUse, CredentialUse, Decision, Door, OutcomeState};

/// The body by serde, the stamp put in, sorted by the reference canonicaliser.
fn reference(stamp: &Stamp<'_>, body: &LeafBody) -> Vec<u8> {
    let mut value = match body {
        LeafBody::Intent(b) => serde_json::to_value(b),
        LeafBody::Outcome(b) => serde_json::to_value(b),
        LeafBody::Outcomes(b) => Ok(json!({ "entries": b })),
        LeafBody::Refused(b) => serde_json::to_value(b),
        LeafBody::Event(b) => serde_json::to_value(b),
        LeafBody::Recovered(b) => serde_json::to_value(b),
    }
    .unwrap();
    let map = value.as_object_mut().unwrap();
    if matches!(body, LeafBody::Intent(_)) {
        map.insert("canon_version".into(), json!(CANON_VERSION));
    }
    map.insert("node".into(), json!(stamp.node));
    map.insert("seq".into(), json!(stamp.seq));
    map.insert("ts".into(), json!(stamp.ts));
    map.insert("prev_receipt_hash".into(), json!(stamp.prev));
    map.insert("type".into(), json!(body.type_name()));
    canonicalize(&value).unwrap()
}

fn full_intent() -> Intent {
    let text = |s: &str| Some(s.to_owned());
    Intent {
        action: "merge_pull_request".into(),
        action_commitment: sha256(b"a"),
        agent_binding: "bearer".into(),
        agent_id: text("agt_1"),
        approval: Some(ApprovalUse { approvers: vec!["p1".into(), "p\n2".into()], id: "apr_1".into() }),
        class: AccessClass::Write,
        count: Some(2),
        credential: text("gh-main"),
        decision: Decision::Allow,
        decision_id: "dec_1".into(),
        door: Door::Route,
        dry_run: true,
        index: Some(1),
        mutates_state: true,
        parameters_commitment: sha256(b"p"),
        parent_run_id: text("run_0"),
        policies: vec!["reads".into(), "wri\"tes".into()],
        reason: "allowed".into(),
        request_id: text("req \u{1} \\ é 😀"),
        resource: text("octo/payments#482"),
        risk: Risk::High,
        route: "github".into(),
        run_id: text("run_1"),
        sending: BTreeMap::from([("Idempotency-Key".into(), "k\t1".into()), ("a\"b".into(), String::new())]),
        snapshot: sha256(b"s"),
        source_trust: SourceTrust::SemiTrustedCustomer,
        tenant: "default".into(),
        tool: "github".into(),
        trace_id: text("4bf92f3577b34da6a3ce929d0e0e4736"),
        user: text("u1"),
    }
}

fn bare(mut i: Intent) -> Intent {
    (i.agent_id, i.approval, i.count, i.credential, i.index) = (None, None, None, None, None);
    (i.parent_run_id, i.request_id, i.resource, i.run_id, i.trace_id, i.user) = (None, None, None, None, None, None);
    i.dry_run = false;
    i.policies.clear();
    i.sending.clear();
    i
}

fn entry(full: bool) -> OutcomeEntry {
    OutcomeEntry {
        credential: full.then(|| CredentialUse { id: "gh".into(), version: "v\u{7f}3".into() }),
        decision_id: "dec_1".into(),
        ended_at: Timestamp(1_700_000_000_500),
        intent_seq: 7,
        of_read: full,
        received: full.then(|| Transfer { bytes: 512, frames: Some(3), sha256: Some(sha256(b"r")) }),
        sent: full.then_some(Transfer { bytes: 0, frames: None, sha256: None }),
        started_at: Timestamp(1_700_000_000_000),
        state: OutcomeState::Completed,
        tamper: full.then(|| "credential_echo".into()),
        upstream_status: full.then_some(200),
    }
}

fn refused(full: bool) -> Refused {
    let text = |s: &str| full.then(|| s.to_owned());
    Refused {
        agent_id: text("agt"),
        count: 3,
        detail: text("`..` in the path"),
        door: Door::Connect,
        reason: "bad_path".into(),
        route: text("github"),
        since: full.then_some(Timestamp(5)),
        source: "127.0.0.0/24".into(),
        status: 400,
        tenant: text("default"),
        trace_id: text("t"),
    }
}

fn bodies() -> Vec<LeafBody> {
    let event = Event {
        at: Timestamp(9),
        body: json!({"b":[1,{"z":null,"a":1.5}],"a":"x"}).as_object().unwrap().clone(),
        event_id: "evt_1".into(),
        kind: "agent_frozen".into(),
    };
    vec![
        full_intent().into(),
        bare(full_intent()).into(),
        entry(true).into(),
        entry(false).into(),
        LeafBody::Outcomes(vec![entry(true), entry(false)]),
        LeafBody::Outcomes(Vec::new()),
        refused(true).into(),
        refused(false).into(),
        event.into(),
        LeafBody::Recovered(Recovered { bytes: 17, leaves: 1, torn: "x.bin".into() }),
    ]
}

#[test]
fn every_leaf_is_written_in_canonical_order_and_reads_back() {
    let prev = sha256(b"prev");
    let stamp = Stamp { node: "gw-1", seq: 42, ts: Timestamp(1_700_000_000_123), prev: &prev };
    for body in bodies() {
        let mut out = Vec::new();
        write_leaf(&stamp, &body, &mut out).unwrap();
        let text = String::from_utf8(out.clone()).unwrap();
        assert_eq!(text, String::from_utf8(reference(&stamp, &body)).unwrap());
        assert_eq!(canonicalize(&parse_strict(&out).unwrap()).unwrap(), out);

        let leaf = crate::Leaf::parse(&out).unwrap();
        assert_eq!((leaf.node.as_str(), leaf.seq, leaf.ts, leaf.prev_receipt_hash), ("gw-1", 42, stamp.ts, prev));
        let mut expected = body;
        match &mut expected {
            LeafBody::Outcome(e) => e.of_read = false,
            LeafBody::Outcomes(es) => es.iter_mut().for_each(|e| e.of_read = false),
            _ => {}
        }
        assert_eq!(leaf.body, expected);
    }
}

#[test]
fn what_has_no_canonical_form_is_refused() {
    let prev = sha256(b"prev");
    let stamp = Stamp { node: "n", seq: 1, ts: Timestamp(1), prev: &prev };
    let write = |body: &LeafBody| write_leaf(&stamp, body, &mut Vec::new());

    let mut intent = full_intent();
    intent.sending.insert("schlüssel".into(), "x".into());
    assert_eq!(write(&intent.into()), Err(CanonError::AmbiguousOrder));

    let mut huge = entry(true);
    huge.received = Some(Transfer { bytes: 1 << 53, frames: None, sha256: None });
    assert_eq!(write(&huge.clone().into()), Err(CanonError::NumberRange));
    assert_eq!(write(&LeafBody::Outcomes(vec![huge])), Err(CanonError::NumberRange));

    let mut event = Event { at: Timestamp(0), body: Map::new(), event_id: "e".into(), kind: "k".into() };
    event.body.insert("n".into(), json!(u64::MAX));
    assert_eq!(write(&event.clone().into()), Err(CanonError::NumberRange));
    let mut deep = json!(1);
    for _ in 0..63 {
        deep = json!([deep]);
    }
    event.body.insert("n".into(), deep);
    assert_eq!(write(&event.into()), Err(CanonError::TooDeep));
}
