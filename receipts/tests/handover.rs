//! One writer after another: what the first still owes, the second records.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may fail loudly, its helpers too"
)]

mod support;

use std::sync::{Arc, Mutex};

use aegis_receipts::{LogError, OutcomeEntry, RealDisk, ReceiptLog, verify::verify_dir};
use support::*;

#[test]
fn outcomes_after_a_handover_go_to_the_heir_and_into_the_next_writers_log() {
    let dir = tempfile::tempdir().unwrap();
    let (first, _) = open(dir.path());
    let seqs: Vec<u64> = first.append((0..3).map(allow).collect()).unwrap().iter().map(|a| a.seq).collect();
    first.outcome(outcome(0, seqs[0], false));
    let inherited: Arc<Mutex<Vec<OutcomeEntry>>> = Arc::default();
    let heir = inherited.clone();
    let open_intents = first.hand_over(Box::new(move |entry| heir.lock().unwrap().push(entry)));
    assert_eq!(open_intents, seqs[1..], "the first has its outcome already");
    assert_eq!(first.append(vec![deny(9)]).unwrap_err(), LogError::Closed);
    assert!(seqs.iter().all(|seq| first.is_durable(*seq)), "whoever waits for its intent goes on");

    // The directory is free although the first value lives on.
    let (second, recovered) = open(dir.path());
    assert_eq!(recovered.cut_bytes, 0);
    second.expect(&open_intents);
    assert_eq!(second.head().open_intents, 2);
    assert!(matches!(ReceiptLog::open(options(dir.path()), clock(), Arc::new(RealDisk)), Err(LogError::Locked(_))));

    first.outcome(outcome(1, seqs[1], false));
    first.outcome(outcome(2, seqs[2], false));
    for entry in inherited.lock().unwrap().drain(..) {
        second.outcome(entry);
    }
    second.shutdown();
    drop((first, second));
    let report = verify_dir(dir.path());
    assert!(report.is_verified(), "{report}");
    let (third, _) = open(dir.path());
    let with_outcome = third.read(0, 100).unwrap().iter().filter(|leaf| is_outcome(&leaf.bytes)).count();
    assert_eq!(with_outcome, 3);
}

#[test]
fn no_outcome_falls_between_the_two() {
    let dir = tempfile::tempdir().unwrap();
    for round in 0..20 {
        let (log, _) = open(dir.path());
        let seqs: Vec<u64> = log.append((0..64).map(allow).collect()).unwrap().iter().map(|a| a.seq).collect();
        let before = log.head().next_seq;
        let inherited: Arc<Mutex<Vec<OutcomeEntry>>> = Arc::default();
        let heir = inherited.clone();
        std::thread::scope(|scope| {
            scope.spawn(|| seqs.iter().enumerate().for_each(|(n, seq)| log.outcome(outcome(n as u64, *seq, false))));
            scope.spawn(|| log.hand_over(Box::new(move |entry| heir.lock().unwrap().push(entry))));
        });
        drop(log);
        let (log, _) = open(dir.path());
        let recorded = log.read(before, 1000).unwrap().iter().filter(|leaf| is_outcome(&leaf.bytes)).count();
        let inherited = inherited.lock().unwrap().len();
        assert_eq!(recorded + inherited, 64, "round {round}: {recorded} recorded, {inherited} inherited");
        log.shutdown();
    }
}

fn is_outcome(leaf: &[u8]) -> bool {
    String::from_utf8_lossy(leaf).contains("\"type\":\"outcome.v1\"")
}
