//! What an open log promises while nothing goes wrong.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may fail loudly, its helpers too"
)]

mod support;

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use aegis_action::{Digest, sha256};
use aegis_receipts::{
    Leaf, LeafBody, LogError, LogOptions, MAX_LEAF_BYTES, RealDisk, ReceiptLog, parse_receipt_id, verify::verify_dir,
};
use support::*;

#[test]
fn leaves_are_chained_and_read_back_across_segments() {
    let dir = tempfile::tempdir().unwrap();
    let (log, recovered) = open(dir.path());
    assert_eq!((recovered.leaves, recovered.cut_bytes, recovered.head_rebuilt), (0, 0, false));
    let mut appended = Vec::new();
    while appended.len() < 1000 {
        let n = appended.len() as u64;
        appended.extend(log.append((n..(n + 7).min(1000)).map(deny).collect()).unwrap());
    }
    let mut prev = Digest([0; 32]);
    for (seq, one) in appended.iter().enumerate() {
        assert_eq!((one.seq, one.prev_receipt_hash), (seq as u64, prev));
        assert_eq!(parse_receipt_id(&one.receipt_id), Some(("gw-1", one.seq)));
        prev = one.receipt_hash;
    }
    for from in [0, 1, 255, 256, 257, 511, 700, 999] {
        let leaves = log.read(from, 300).unwrap();
        assert_eq!(leaves.len(), 300.min(1000 - from as usize));
        for (leaf, one) in leaves.iter().zip(&appended[from as usize..]) {
            assert_eq!((leaf.seq, leaf.hash), (one.seq, one.receipt_hash));
            assert_eq!(sha256(&leaf.bytes), one.receipt_hash);
            assert_eq!(Leaf::parse(&leaf.bytes).unwrap().prev_receipt_hash, one.prev_receipt_hash);
        }
        assert_eq!(log.leaf(from).unwrap().unwrap().hash, appended[from as usize].receipt_hash);
    }
    assert!(log.read(1000, 10).unwrap().is_empty());
    assert_eq!(log.leaf(1000).unwrap(), None);
    drop(log);

    let report = verify_dir(dir.path());
    assert!(report.is_verified(), "{report}");
    assert_eq!((report.leaves, report.segments, report.last_hash, report.beyond_head), (1000, 4, Some(prev), 0));
    let (log, recovered) = open(dir.path());
    assert_eq!((recovered.leaves, recovered.torn, log.head().last_hash), (1000, None, prev));
    assert_eq!(log.append(vec![deny(1000)]).unwrap()[0].prev_receipt_hash, prev);
    assert_eq!(log.leaf(3).unwrap().unwrap().hash, appended[3].receipt_hash);
}

#[test]
fn a_segment_is_a_run_of_tlog_tiles_entry_bundles() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = open(dir.path());
    for n in 0..600 {
        log.append(vec![deny(n)]).unwrap();
    }
    let leaves = log.read(0, 600).unwrap();
    drop(log);
    for (segment, leaves) in leaves.chunks(256).enumerate() {
        let mut bundle = Vec::new();
        for leaf in leaves {
            bundle.extend(u16::try_from(leaf.bytes.len()).unwrap().to_be_bytes());
            bundle.extend(&leaf.bytes);
        }
        let path = dir.path().join(format!("segments/{:020}.log", segment * 256));
        assert!(std::fs::read(path).unwrap() == bundle, "segment {segment}");
    }
}

#[test]
fn a_directory_has_one_writer_and_one_node() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = open(dir.path());
    log.append(vec![deny(0)]).unwrap();
    let second = ReceiptLog::open(options(dir.path()), clock(), Arc::new(RealDisk));
    assert!(matches!(second, Err(LogError::Locked(_))));
    drop(log);
    let other = LogOptions { node: "gw-2".into(), ..options(dir.path()) };
    let other = ReceiptLog::open(other, clock(), Arc::new(RealDisk)).err();
    assert_eq!(other, Some(LogError::OtherNode { found: "gw-1".into(), expected: "gw-2".into() }));
    open(dir.path());
}

#[test]
fn options_that_cannot_work_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    for bad in [
        LogOptions { node: "GW".into(), ..options(dir.path()) },
        LogOptions { node: String::new(), ..options(dir.path()) },
        LogOptions { segment_leaves: 300, ..options(dir.path()) },
        LogOptions { segment_leaves: 0, ..options(dir.path()) },
        LogOptions { preallocate: 0, ..options(dir.path()) },
    ] {
        assert!(matches!(ReceiptLog::open(bad, clock(), Arc::new(RealDisk)), Err(LogError::BadOptions(_))));
    }
}

#[test]
fn a_batch_is_recorded_whole_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = open(dir.path());
    log.append(vec![deny(0)]).unwrap();
    let before = log.head();
    let too_large = log.append(vec![deny(1), event(&"x".repeat(MAX_LEAF_BYTES))]).unwrap_err();
    assert!(matches!(too_large, LogError::TooLarge { .. }), "{too_large}");
    let forward = log.append(vec![deny(1), outcome(9, 9, false).into()]).unwrap_err();
    assert!(matches!(forward, LogError::BadLeaf(_)), "{forward}");
    let LeafBody::Intent(mut bad_id) = deny(1) else { panic!() };
    bad_id.decision_id = "dec 1".into();
    assert!(matches!(log.append(vec![deny(1), LeafBody::Intent(bad_id)]), Err(LogError::BadLeaf(_))));
    assert!(matches!(log.append((0..257).map(deny).collect()), Err(LogError::TooLarge { .. })));
    assert_eq!((log.head().next_seq, log.head().last_hash), (before.next_seq, before.last_hash));
    // The largest leaf there is goes in.
    let overhead = {
        let one = log.append(vec![event("")]).unwrap()[0].seq;
        log.leaf(one).unwrap().unwrap().bytes.len()
    };
    let largest = log.append(vec![event(&"x".repeat(MAX_LEAF_BYTES - overhead))]).unwrap()[0].seq;
    assert_eq!(log.leaf(largest).unwrap().unwrap().bytes.len(), MAX_LEAF_BYTES);
    assert!(matches!(
        log.append(vec![event(&"x".repeat(MAX_LEAF_BYTES - overhead + 1))]),
        Err(LogError::TooLarge { .. })
    ));
    assert_eq!(log.append(Vec::new()).unwrap(), []);
    drop(log);
    assert!(verify_dir(dir.path()).is_verified());
}

#[test]
fn eight_threads_append_and_wait_and_everything_is_there_once() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = open(dir.path());
    let threads: Vec<_> = (0..8)
        .map(|t| {
            let log = Arc::clone(&log);
            std::thread::spawn(move || {
                let mut hashes = Vec::new();
                for n in 0..100 {
                    let one = log.append(vec![allow(t * 1000 + n), deny(t * 1000 + n + 500)]).unwrap();
                    assert_eq!(one[0].seq + 1, one[1].seq);
                    wait(log.durable(one[1].seq)).unwrap();
                    assert!(log.is_durable(one[1].seq));
                    log.outcome(outcome(t * 1000 + n, one[0].seq, n % 3 > 0));
                    hashes.extend(one.into_iter().map(|a| (a.seq, a.receipt_hash)));
                }
                hashes
            })
        })
        .collect();
    let mut hashes: Vec<_> = threads.into_iter().flat_map(|t| t.join().unwrap()).collect();
    hashes.sort_unstable_by_key(|(seq, _)| *seq);
    assert_eq!(hashes.len(), 1600);
    for (seq, hash) in hashes {
        assert_eq!(log.leaf(seq).unwrap().unwrap().hash, hash);
    }
    log.shutdown();
    assert_eq!(log.head().open_intents, 0);
    assert_eq!(log.head().durable_through, Some(log.head().next_seq - 1));
    assert_eq!(log.append(vec![deny(1)]), Err(LogError::Closed));
    let report = verify_dir(dir.path());
    assert!(report.is_verified() && report.findings.is_empty(), "{report}");
    assert_eq!((report.types["intent.v1"], report.without_outcome), (1600, 0));
    assert!(report.types["outcomes.v1"] > 0, "{report}");
}

fn types(log: &ReceiptLog) -> Vec<&'static str> {
    log.read(0, 4096).unwrap().iter().map(|leaf| Leaf::parse(&leaf.bytes).unwrap().body.type_name()).collect()
}

#[test]
fn outcomes_of_reads_share_a_leaf_and_wait_only_a_moment() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = open(dir.path());
    let intents = log.append((0..5).map(allow).collect()).unwrap();
    assert_eq!(log.head().open_intents, 5);
    for (n, intent) in intents.iter().enumerate().take(3) {
        log.outcome(outcome(n as u64, intent.seq, true));
    }
    eventually(|| log.head().open_intents == 2);
    assert_eq!(types(&log)[5..], ["outcomes.v1"]);
    // A write takes the reads that wait along at once.
    log.outcome(outcome(3, intents[3].seq, true));
    log.outcome(outcome(4, intents[4].seq, false));
    eventually(|| log.head().open_intents == 0);
    let mut last = types(&log)[6..].to_vec();
    last.sort_unstable();
    assert_eq!(last, ["outcome.v1", "outcome.v1"]);
}

#[test]
fn an_outcome_of_nothing_is_dropped_and_takes_no_other_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = open(dir.path());
    let seq = log.append(vec![allow(0)]).unwrap()[0].seq;
    log.outcome(outcome(7, 1 << 40, true));
    log.outcome(outcome(0, seq, true));
    log.outcome(outcome(8, 1 << 40, false));
    eventually(|| log.head().open_intents == 0);
    log.shutdown();
    let report = verify_dir(dir.path());
    assert!(report.is_verified(), "{report}");
    assert_eq!((report.leaves, report.without_outcome), (2, 0));
}

#[test]
fn queued_outcomes_are_recorded_before_the_log_closes() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = open(dir.path());
    let seq = log.append(vec![allow(0)]).unwrap()[0].seq;
    log.outcome(outcome(0, seq, true));
    drop(log);
    let report = verify_dir(dir.path());
    assert_eq!((report.leaves, report.without_outcome), (2, 0));
}

#[test]
fn payloads_come_back_and_can_be_erased_without_breaking_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = open(dir.path());
    for n in 0..300_u64 {
        let payload = (n % 2 == 0).then(|| format!("sealed {n}").into_bytes());
        log.append_with_payloads(vec![(deny(n), payload)]).unwrap();
    }
    let too_large = log.append_with_payloads(vec![(deny(300), Some(vec![1; aegis_receipts::MAX_PAYLOAD_BYTES + 1]))]);
    assert!(matches!(too_large, Err(LogError::TooLarge { .. })));
    let check = |log: &ReceiptLog, erased: &[u64]| {
        for n in [0_u64, 100, 254, 256, 298] {
            let kept = !erased.contains(&n);
            assert_eq!(log.payload(n).unwrap(), kept.then(|| format!("sealed {n}").into_bytes()), "{n}");
        }
        assert_eq!((log.payload(1).unwrap(), log.payload(999).unwrap()), (None, None));
    };
    check(&log, &[]);
    assert!(log.erase_payload(100).unwrap());
    assert!(log.erase_payload(298).unwrap());
    assert!(!log.erase_payload(298).unwrap());
    assert!(!log.erase_payload(1).unwrap());
    check(&log, &[100, 298]);
    drop(log);
    let (log, recovered) = open(dir.path());
    assert_eq!(recovered.cut_payload_bytes, 0);
    check(&log, &[100, 298]);
    drop(log);
    assert!(verify_dir(dir.path()).is_verified());
}

#[test]
fn a_clock_that_is_set_back_a_little_does_not_take_the_log_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let time = clock();
    let (log, _) = ReceiptLog::open(options(dir.path()), time.clone(), Arc::new(RealDisk)).unwrap();
    let mut stamps = Vec::new();
    for shift in [0, -3_000, 4_000, -100_000, 0] {
        time.0.fetch_add(shift, Ordering::Relaxed);
        let seq = log.append(vec![deny(0)]).unwrap()[0].seq;
        stamps.push(Leaf::parse(&log.leaf(seq).unwrap().unwrap().bytes).unwrap().ts.0);
    }
    assert_eq!(stamps[0], stamps[1]);
    assert!(stamps[2] > stamps[1] && stamps[3] < stamps[2] - 90_000 && stamps[4] > stamps[3], "{stamps:?}");
    drop(log);
    let report = verify_dir(dir.path());
    assert!(report.is_verified() && report.findings.len() == 1, "{report}");
}

#[test]
fn waiting_for_a_leaf_that_is_not_there_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = open(dir.path());
    assert_eq!(wait(log.durable(0)), Err(LogError::NoSuchLeaf(0)));
    assert!(!log.is_durable(0));
    assert_eq!(log.head().durable_through, None);
}

/// Prints figures; run with `--release -- --ignored --nocapture figures`.
#[test]
#[ignore = "a measurement"]
fn figures() {
    let dir = tempfile::tempdir().unwrap();
    let options = LogOptions::new(dir.path(), "gw-1");
    let (log, _) = ReceiptLog::open(options, clock(), Arc::new(RealDisk)).unwrap();
    let leaves: u64 = 200_000;
    let started = Instant::now();
    for n in 0..leaves {
        log.append(vec![deny(n)]).unwrap();
    }
    let appended = started.elapsed();
    wait(log.durable(leaves - 1)).unwrap();
    let durable = started.elapsed();
    let bytes = log.leaf(7).unwrap().unwrap().bytes.len();
    drop(log);
    println!("append: {:.0}/s, durable: {:.0}/s, {bytes} bytes", rate(leaves, appended), rate(leaves, durable));
    let started = Instant::now();
    assert!(verify_dir(dir.path()).is_verified());
    println!("verify: {:.0}/s", rate(leaves, started.elapsed()));
}

fn rate(n: u64, time: Duration) -> f64 {
    n as f64 / time.as_secs_f64()
}
