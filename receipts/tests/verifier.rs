//! What the verifier must notice, through the library and the binary.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may fail loudly, its helpers too"
)]

mod support;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use aegis_action::{Action, Digest, ToolCall, canonicalize, sha256};
use aegis_receipts::{
    Bundle, Leaf, LeafBody, Opening, ReceiptLog, commit, outcome_seq,
    verify::{Verdict, verify_bundle, verify_dir, verify_dir_with},
};
use serde_json::{Value, json};
use support::{sim::SimDisk, *};
use tempfile::TempDir;

/// Intents, an event and both forms of outcome.
fn fill(log: &ReceiptLog) {
    let seqs = log.append(vec![allow(0), allow(1), allow(2), deny(3), event("é \" \n")]).unwrap();
    log.append(vec![outcome(0, seqs[0].seq, false).into()]).unwrap();
    log.append(vec![LeafBody::Outcomes(vec![outcome(1, seqs[1].seq, true), outcome(2, seqs[2].seq, true)])]).unwrap();
}

/// A closed log in one segment.
fn small() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    fill(&open(dir.path()).0);
    assert!(verify_dir(dir.path()).is_verified());
    dir
}

fn segment(dir: &Path, first: u64) -> PathBuf {
    dir.join(format!("segments/{first:020}.log"))
}

fn records(bytes: &[u8]) -> Vec<Vec<u8>> {
    let (mut out, mut at) = (Vec::new(), 0);
    while at < bytes.len() {
        let end = at + 2 + usize::from(u16::from_be_bytes([bytes[at], bytes[at + 1]]));
        out.push(bytes[at..end].to_vec());
        at = end;
    }
    out
}

/// Writes leaves as a chain of their own: what someone would do who knows how.
fn rechain(dir: &Path, leaves: &mut [Value]) {
    let mut prev = Digest([0; 32]);
    let mut out = Vec::new();
    for (seq, leaf) in leaves.iter_mut().enumerate() {
        leaf["seq"] = json!(seq);
        leaf["prev_receipt_hash"] = json!(prev);
        let bytes = canonicalize(leaf).unwrap();
        out.extend(u16::try_from(bytes.len()).unwrap().to_be_bytes());
        out.extend(&bytes);
        prev = sha256(&bytes);
    }
    fs::write(segment(dir, 0), out).unwrap();
    write_head(dir, leaves.len(), prev);
}

fn write_head(dir: &Path, next: usize, hash: Digest) {
    let line = format!("aegis-receipts-head-1 {next:020} {hash}");
    let check = &sha256(line.as_bytes()).to_hex()[..16];
    fs::write(dir.join("head"), format!("{line} {check}\n")).unwrap();
}

fn leaves(dir: &Path) -> Vec<Value> {
    let bytes = fs::read(segment(dir, 0)).unwrap();
    records(&bytes).iter().map(|record| serde_json::from_slice(&record[2..]).unwrap()).collect()
}

#[test]
fn no_single_byte_of_a_segment_can_change_unnoticed() {
    // In memory: this verifies some 20,000 logs.
    let (disk, dir) = (SimDisk::new(1), Path::new("/log"));
    fill(&open_on(disk.process(), dir).0);
    let verify = |bytes: &[u8]| {
        disk.put(&segment(dir, 0), bytes);
        verify_dir_with(&*disk.process(), dir, &mut |_| ())
    };
    let good = disk.bytes(&segment(dir, 0));
    for at in 0..good.len() {
        let mut variants: Vec<Vec<u8>> = [0x01, 0x20, 0x80, good[at].max(1)]
            .map(|mask| {
                let mut bad = good.clone();
                bad[at] ^= mask;
                bad
            })
            .to_vec();
        variants.push([&good[..at], &good[at + 1..]].concat());
        variants.push([&good[..at], b" ", &good[at..]].concat());
        for (n, bad) in variants.iter().enumerate() {
            let report = verify(bad);
            assert_ne!(report.verdict.exit_code(), 0, "byte {at}, variant {n}: {report}");
        }
    }
    assert!(verify(&good).is_verified());
}

#[test]
fn no_leaf_can_be_removed_moved_or_doubled() {
    let dir = small();
    let path = segment(dir.path(), 0);
    let good = records(&fs::read(&path).unwrap());
    let mut variants = Vec::new();
    for at in 0..good.len() {
        let mut removed = good.clone();
        removed.remove(at);
        let mut doubled = good.clone();
        doubled.insert(at, good[at].clone());
        variants.extend([removed, doubled]);
        for other in at + 1..good.len() {
            let mut swapped = good.clone();
            swapped.swap(at, other);
            variants.push(swapped);
        }
    }
    for (n, variant) in variants.iter().enumerate() {
        fs::write(&path, variant.concat()).unwrap();
        let report = verify_dir(dir.path());
        assert_eq!(report.verdict.exit_code(), 1, "variant {n}: {report}");
    }
}

#[test]
fn segments_cannot_be_removed_or_swapped() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = open(dir.path());
    for n in 0..700 {
        log.append(vec![deny(n)]).unwrap();
    }
    drop(log);
    let report = verify_dir(dir.path());
    assert_eq!((report.verdict, report.leaves, report.segments), (Verdict::Verified, 700, 3));
    for first in [0, 256, 512] {
        let (path, aside) = (segment(dir.path(), first), dir.path().join("aside"));
        fs::rename(&path, &aside).unwrap();
        assert!(matches!(verify_dir(dir.path()).verdict, Verdict::Tampered { seq, .. } if seq == first), "{first}");
        fs::write(&path, b"").unwrap();
        assert!(matches!(verify_dir(dir.path()).verdict, Verdict::Tampered { seq, .. } if seq == first), "{first}");
        fs::rename(&aside, &path).unwrap();
    }
    let (a, b) = (fs::read(segment(dir.path(), 0)).unwrap(), fs::read(segment(dir.path(), 256)).unwrap());
    fs::write(segment(dir.path(), 0), b).unwrap();
    fs::write(segment(dir.path(), 256), a).unwrap();
    assert!(matches!(verify_dir(dir.path()).verdict, Verdict::Tampered { seq: 0, .. }));
}

#[test]
fn a_damaged_or_missing_head_is_not_verified() {
    let dir = small();
    let head = dir.path().join("head");
    let good = fs::read(&head).unwrap();
    for at in 0..good.len() {
        if at % 16 != 0 {
            continue;
        }
        let mut bad = good.clone();
        bad[at] ^= 1;
        fs::write(&head, bad).unwrap();
        assert_eq!(verify_dir(dir.path()).verdict.exit_code(), 2, "byte {at}");
    }
    fs::remove_file(&head).unwrap();
    assert_eq!(verify_dir(dir.path()).verdict.exit_code(), 2);
    // A whole head of another log.
    write_head(dir.path(), 7, sha256(b"another"));
    assert!(matches!(verify_dir(dir.path()).verdict, Verdict::Tampered { seq: 6, .. }));
    assert_eq!(verify_dir(&dir.path().join("nothing")).verdict.exit_code(), 2);
}

#[test]
fn references_between_leaves_are_followed() {
    let dir = small();
    let good = leaves(dir.path());
    rechain(dir.path(), &mut good.clone());
    assert!(verify_dir(dir.path()).is_verified());

    type Change = fn(&mut Vec<Value>);
    let tampered: [(u64, Change); 7] = [
        (5, |l| l[5]["intent_seq"] = json!(5)),
        (5, |l| l[5]["decision_id"] = json!("dec_other")),
        (6, |l| l[6]["entries"][1]["intent_seq"] = json!(40)),
        (6, |l| l[6]["entries"][0]["decision_id"] = json!("dec_other")),
        (6, |l| drop(l[6]["entries"][0].as_object_mut().unwrap().remove("intent_seq"))),
        (4, |l| l[4]["type"] = json!("event.v9")),
        (2, |l| l[2]["node"] = json!("gw-2")),
    ];
    for (at, change) in tampered {
        let mut bad = good.clone();
        change(&mut bad);
        rechain(dir.path(), &mut bad);
        let report = verify_dir(dir.path());
        assert!(matches!(report.verdict, Verdict::Tampered { seq, .. } if seq == at), "{at}: {report}");
    }

    // An outcome of a denial, or a second one: odd, and said, and no tampering.
    let mut odd = good.clone();
    odd[5]["intent_seq"] = json!(3);
    odd.push(good[6].clone());
    rechain(dir.path(), &mut odd);
    let report = verify_dir(dir.path());
    assert!(report.is_verified());
    assert_eq!((report.findings.len(), report.without_outcome), (2, 1), "{report}");
}

fn merge() -> Action {
    let call: ToolCall =
        serde_json::from_value(json!({"tool":"github","action":"create_issue","resource":"octo/payments",
        "mutates_state":true,"parameters":{"title":"t"}}))
        .unwrap();
    Action::new(call).unwrap()
}

fn bundle_log(dir: &Path) -> (std::sync::Arc<ReceiptLog>, BTreeMap<u64, Opening>) {
    let (log, _) = open(dir);
    log.append(vec![deny(9)]).unwrap();
    let (action, salt) = (merge(), [7; 32]);
    let LeafBody::Intent(mut body) = allow(1) else { panic!() };
    body.action_commitment = commit(&salt, &action.hash());
    body.parameters_commitment = commit(&salt, &sha256(br#"{"title":"t"}"#));
    let seq = log.append(vec![LeafBody::Intent(body)]).unwrap()[0].seq;
    log.append(vec![deny(10), outcome(1, seq, false).into()]).unwrap();
    (log, BTreeMap::from([(seq, Opening::new(action.canonical(), salt).unwrap())]))
}

#[test]
fn a_bundle_opens_its_commitments_and_shows_any_change() {
    let dir = tempfile::tempdir().unwrap();
    let (log, openings) = bundle_log(dir.path());
    assert_eq!((outcome_seq(&log, 1).unwrap(), outcome_seq(&log, 0).unwrap()), (Some(3), None));
    let bundle = Bundle::export(&log, [3, 1, 2, 2], openings.clone()).unwrap();
    let text = serde_json::to_string(&bundle).unwrap();
    let report = verify_bundle(text.as_bytes());
    assert_eq!((&report.verdict, report.leaves, report.openings), (&Verdict::Verified, 3, 1), "{report}");
    assert!(report.findings.is_empty());
    assert_eq!(bundle.leaves[0].leaf.as_bytes(), log.leaf(1).unwrap().unwrap().bytes);

    for at in 0..text.len() {
        let mut bad = text.clone().into_bytes();
        bad[at] ^= 1;
        assert_ne!(verify_bundle(&bad).verdict.exit_code(), 0, "byte {at}: {}", &text[at.saturating_sub(20)..at]);
    }

    let gap = Bundle::export(&log, [1, 3], openings).unwrap();
    let report = verify_bundle(&serde_json::to_vec(&gap).unwrap());
    assert!(report.is_verified() && report.findings.len() == 1, "{report}");
    assert!(Bundle::export(&log, [77], BTreeMap::new()).is_err());
}

#[test]
fn an_opening_of_another_action_does_not_open() {
    let dir = tempfile::tempdir().unwrap();
    let (log, openings) = bundle_log(dir.path());
    let (seq, opening) = openings.first_key_value().unwrap();
    let other = br#"{"action":"create_issue","mutates_state":true,"parameters":{"title":"u"},"resource":"octo/payments","tool":"github"}"#;
    for wrong in [
        Opening::new(other.to_vec(), opening.salt).unwrap(),
        Opening::new(opening.action.clone().into_bytes(), [8; 32]).unwrap(),
        Opening { action_hash: sha256(b"x"), ..opening.clone() },
    ] {
        let bundle = Bundle::export(&log, [*seq], BTreeMap::from([(*seq, wrong)])).unwrap();
        let report = verify_bundle(&serde_json::to_vec(&bundle).unwrap());
        assert!(matches!(report.verdict, Verdict::Tampered { seq: 1, .. }), "{report}");
    }
    // A leaf that commits to one action and names another.
    let LeafBody::Intent(mut body) = Leaf::parse(&log.leaf(*seq).unwrap().unwrap().bytes).unwrap().body else {
        panic!()
    };
    body.resource = Some("octo/website".into());
    let seq = log.append(vec![LeafBody::Intent(body)]).unwrap()[0].seq;
    let bundle = Bundle::export(&log, [seq], BTreeMap::from([(seq, opening.clone())])).unwrap();
    assert_eq!(verify_bundle(&serde_json::to_vec(&bundle).unwrap()).verdict.exit_code(), 1);
}

fn run(args: &[&str]) -> (i32, String) {
    let out = Command::new(env!("CARGO_BIN_EXE_aegis-verify-receipts")).args(args).output().unwrap();
    (out.status.code().unwrap(), String::from_utf8(out.stdout).unwrap())
}

#[test]
fn the_binary_says_0_verified_1_tampered_2_unreadable() {
    let dir = small();
    let path = dir.path().to_str().unwrap();
    let (code, text) = run(&[path]);
    assert!(code == 0 && text.starts_with("verified: 7 leaves of node `gw-1`"), "{code} {text}");
    let (code, text) = run(&["--json", path]);
    let json: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((code, &json["verdict"], &json["leaves"]), (0, &json!("verified"), &json!(7)));

    let good = fs::read(segment(dir.path(), 0)).unwrap();
    let mut bad = good.clone();
    let at = bad.windows(5).position(|w| w == b"dec_2").unwrap();
    bad[at + 4] = b'9';
    fs::write(segment(dir.path(), 0), bad).unwrap();
    let (code, text) = run(&[path]);
    assert!(code == 1 && text.starts_with("TAMPERED at leaf 3 (segments/00000000000000000000.log): "), "{code} {text}");
    let (code, text) = run(&["--json", path]);
    let json: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((code, &json["verdict"], &json["seq"]), (1, &json!("tampered"), &json!(3)));

    assert_eq!(run(&[dir.path().join("none").to_str().unwrap()]).0, 2);
    assert_eq!(run(&[dir.path().join("head").to_str().unwrap()]).0, 2);
}
