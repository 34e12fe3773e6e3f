//! What the log promises when the disk fails, the power goes, or someone pulls the plug on the process.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may fail loudly, its helpers too"
)]

mod support;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use aegis_action::Digest;
use aegis_receipts::{Leaf, LeafBody, LogError, OUTCOME_RESERVE, ReceiptLog, verify::verify_dir_with};
use support::{
    sim::{Fault, SimDisk},
    *,
};

const DIR: &str = "/log";

fn dir() -> PathBuf {
    PathBuf::from(DIR)
}

fn open_sim(disk: &SimDisk) -> Result<(Arc<ReceiptLog>, aegis_receipts::Recovered), LogError> {
    ReceiptLog::open(options(Path::new(DIR)), clock(), disk.process())
}

fn assert_verifies(disk: &SimDisk, context: &str) {
    let report = verify_dir_with(&*disk.process(), Path::new(DIR), &mut |_| ());
    assert!(report.is_verified(), "{context}: {report}");
}

fn segment(first: u64) -> PathBuf {
    dir().join(format!("segments/{first:020}.log"))
}

/// Every leaf of `known` is in the log, byte for byte as it was acknowledged.
fn assert_has(log: &ReceiptLog, known: &BTreeMap<u64, Digest>, context: &str) {
    let mut found = BTreeMap::new();
    loop {
        let leaves = log.read(found.len() as u64, 4096).unwrap_or_else(|e| panic!("{context}: {e}"));
        if leaves.is_empty() {
            break;
        }
        found.extend(leaves.into_iter().map(|leaf| (leaf.seq, leaf.hash)));
    }
    for (seq, hash) in known {
        assert_eq!(found.get(seq), Some(hash), "{context}: leaf {seq}");
    }
}

#[test]
fn after_any_fault_and_any_power_cut_every_acknowledged_leaf_is_there() {
    // More of them: `AEGIS_TEST_SEEDS=500`.
    let seeds = std::env::var("AEGIS_TEST_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(25);
    for seed in 1..=seeds {
        let disk = SimDisk::new(seed);
        let mut durable = BTreeMap::new();
        for round in 0..4 {
            let context = format!("seed {seed} round {round}");
            let (log, _) = open_sim(&disk).unwrap_or_else(|e| panic!("{context}: {e}"));
            assert_has(&log, &durable, &context);
            assert_verifies(&disk, &context);
            let mut written = BTreeMap::new();
            for n in 0..disk.random(40) {
                if disk.random(5) == 0 {
                    let nth = disk.random(4);
                    disk.set_fault(Some(match disk.random(4) {
                        0 => Fault::WriteError(nth),
                        1 => Fault::WriteErrorAfter(nth),
                        2 => Fault::ShortWrite(nth),
                        _ => Fault::SyncError(nth),
                    }));
                }
                let leaves =
                    (0..=disk.random(40)).map(|i| if i % 2 == 0 { allow(n * 100 + i) } else { deny(n) }).collect();
                match log.append(leaves) {
                    Ok(appended) => {
                        let last = appended[appended.len() - 1].seq;
                        for (at, one) in appended.iter().enumerate() {
                            written.insert(one.seq, one.receipt_hash);
                            if at % 2 == 0 && disk.random(2) == 0 {
                                log.outcome(outcome(n * 100 + at as u64, one.seq, disk.random(2) == 0));
                            }
                        }
                        if disk.random(4) == 0 {
                            wait(log.durable(last)).unwrap();
                        }
                    }
                    Err(LogError::Io { .. }) => {}
                    Err(e) => panic!("{context}: {e}"),
                }
            }
            let through = log.head().durable_through;
            if disk.random(2) == 0 {
                disk.crash();
                durable.extend(written.into_iter().filter(|(seq, _)| Some(*seq) <= through));
            } else {
                // A killed process loses nothing that was appended.
                disk.kill();
                durable.extend(written);
            }
        }
        let (log, _) = open_sim(&disk).unwrap();
        assert_has(&log, &durable, &format!("seed {seed} at the end"));
        drop(log);
        assert_verifies(&disk, &format!("seed {seed} at the end"));
    }
}

#[test]
fn whichever_write_fails_the_log_goes_on_and_verifies() {
    type Kind = fn(u64) -> Fault;
    let kinds: [Kind; 4] = [Fault::WriteError, Fault::WriteErrorAfter, Fault::ShortWrite, Fault::SyncError];
    for (kind, nth) in kinds.iter().flat_map(|kind| (0..12).map(move |nth| (kind(nth), nth))) {
        let disk = SimDisk::new(nth + 1);
        disk.set_fault(Some(kind));
        // Opening writes too; where it fails, a second try finds a whole directory.
        let log = open_sim(&disk).or_else(|_| open_sim(&disk)).unwrap().0;
        let mut known = BTreeMap::new();
        for n in 0..300 {
            // Across a segment border.
            let appended = log.append(vec![deny(n)]).or_else(|_| log.append(vec![deny(n)])).unwrap();
            wait(log.durable(appended[0].seq)).unwrap();
            known.insert(appended[0].seq, appended[0].receipt_hash);
        }
        assert_eq!(log.health(), Ok(()), "{kind:?}");
        disk.crash();
        let (log, _) = open_sim(&disk).unwrap_or_else(|e| panic!("{kind:?}: {e}"));
        assert_has(&log, &known, &format!("{kind:?}"));
        drop(log);
        assert_verifies(&disk, &format!("{kind:?}"));
    }
}

#[test]
fn nothing_is_acknowledged_while_the_disk_does_not_sync() {
    let disk = SimDisk::new(3);
    let (log, _) = open_sim(&disk).unwrap();
    disk.set_fault(Some(Fault::SyncErrors));
    let seq = log.append(vec![allow(0)]).unwrap()[0].seq;
    let started = Instant::now();
    let refused = wait(log.durable(seq));
    assert!(matches!(refused, Err(LogError::NotDurable { seq: 0, .. })), "{refused:?}");
    assert!((Duration::from_millis(1900)..Duration::from_secs(4)).contains(&started.elapsed()));
    assert!(!log.is_durable(seq) && log.health().is_err());
    // What the kernel dropped is written again: only then is it durable.
    disk.set_fault(None);
    eventually(|| log.is_durable(seq));
    assert_eq!(log.health(), Ok(()));
    disk.crash();
    let (log, recovered) = open_sim(&disk).unwrap();
    assert_eq!((recovered.leaves, recovered.torn), (1, None));
    assert!(log.leaf(seq).unwrap().is_some());
}

#[test]
fn leaves_written_while_a_sync_fails_are_written_again_too() {
    let disk = SimDisk::new(4);
    let (log, _) = open_sim(&disk).unwrap();
    let before = disk.syncs();
    disk.set_fault(Some(Fault::SlowSyncError));
    log.append(vec![deny(0)]).unwrap();
    eventually(|| disk.syncs() > before);
    // Enough to lie on pages of their own, which that sync takes for clean when it fails.
    let last = log.append((1..60).map(deny).collect()).unwrap().pop().unwrap();
    wait(log.durable(last.seq)).unwrap();
    disk.crash();
    let (log, recovered) = open_sim(&disk).unwrap();
    assert_eq!((recovered.leaves, recovered.torn), (60, None));
    assert_eq!(log.leaf(last.seq).unwrap().unwrap().hash, last.receipt_hash);
}

#[test]
fn a_full_disk_refuses_intents_and_still_takes_the_outcomes_in_flight() {
    let disk = SimDisk::new(5);
    let (log, _) = open_sim(&disk).unwrap();
    disk.set_capacity(400_000);
    let mut open = Vec::new();
    let full = loop {
        match log.append(vec![allow(open.len() as u64)]) {
            Ok(appended) => open.push(appended[0].seq),
            Err(e) => break e,
        }
    };
    assert!(matches!(full, LogError::Full(_)), "{full}");
    assert!(open.len() > 50 && log.health().is_err(), "{}", open.len());
    while log.append(vec![deny(0)]).is_ok() {}
    assert!(matches!(log.append(vec![deny(0)]), Err(LogError::Full(_))));
    // Nothing at all fits any more, except where room was kept.
    disk.set_capacity(0);
    for (n, seq) in open.iter().enumerate() {
        log.outcome(outcome(n as u64, *seq, false));
    }
    eventually(|| log.head().open_intents == 0);
    wait(log.durable(log.head().next_seq - 1)).unwrap();
    assert!(open.len() as u64 * OUTCOME_RESERVE > 100_000);
    // Space comes back: so does the log, without help, and its probe says so.
    disk.set_capacity(usize::MAX);
    assert_eq!(log.health(), Ok(()));
    log.append(vec![allow(1)]).unwrap();
    drop(log);
    assert_verifies(&disk, "full");
}

#[test]
fn room_for_outcomes_is_kept_across_the_end_of_a_segment() {
    let disk = SimDisk::new(6);
    let (log, _) = open_sim(&disk).unwrap();
    let appended = log.append((0..256).map(allow).collect()).unwrap();
    // The segment is full to the last leaf; its outcomes go into the next.
    disk.set_capacity(0);
    for (n, one) in appended.iter().enumerate() {
        log.outcome(outcome(n as u64, one.seq, false));
    }
    eventually(|| log.head().open_intents == 0);
    assert_eq!(log.head().next_seq, 512);
    disk.set_capacity(usize::MAX);
    drop(log);
    assert_verifies(&disk, "across");
}

#[test]
fn outcomes_wait_for_a_disk_that_fails() {
    let disk = SimDisk::new(7);
    let (log, _) = open_sim(&disk).unwrap();
    let seq = log.append(vec![allow(0)]).unwrap()[0].seq;
    wait(log.durable(seq)).unwrap();
    disk.set_fault(Some(Fault::WriteError(0)));
    log.outcome(outcome(0, seq, false));
    eventually(|| log.head().open_intents == 0);
    drop(log);
    let report = verify_dir_with(&*disk.process(), Path::new(DIR), &mut |_| ());
    assert_eq!((report.leaves, report.without_outcome), (2, 0), "{report}");
}

/// A log of `leaves` leaves, synced up to `synced`, of which the process was killed.
fn killed(leaves: u64, synced: u64) -> SimDisk {
    let disk = SimDisk::new(11);
    let (log, _) = open_sim(&disk).unwrap();
    for n in 0..synced {
        log.append(vec![deny(n)]).unwrap();
    }
    if synced > 0 {
        wait(log.durable(synced - 1)).unwrap();
        // The head is written before anyone is told.
    }
    disk.set_fault(Some(Fault::SyncErrors));
    for n in synced..leaves {
        log.append(vec![deny(n)]).unwrap();
    }
    disk.kill();
    disk
}

#[test]
fn wherever_a_write_is_torn_the_tail_is_cut_kept_and_put_on_record() {
    let template = killed(6, 3);
    let whole = template.bytes(&segment(0));
    let mut borders = vec![0];
    while *borders.last().unwrap() < whole.len() {
        let at = *borders.last().unwrap();
        borders.push(at + 2 + usize::from(u16::from_be_bytes([whole[at], whole[at + 1]])));
    }
    for end in (borders[3]..whole.len()).chain([whole.len()]) {
        let disk = template.fork();
        disk.put(&segment(0), &whole[..end]);
        assert_verifies(&disk, &format!("torn at {end}, not opened yet"));
        let (log, recovered) = open_sim(&disk).unwrap_or_else(|e| panic!("torn at {end}: {e}"));
        let kept = borders.iter().rposition(|border| *border <= end).unwrap();
        let torn = end - borders[kept];
        assert_eq!((recovered.leaves, recovered.cut_bytes), (kept as u64, torn as u64), "torn at {end}");
        if torn == 0 {
            assert_eq!((recovered.torn, log.head().next_seq), (None, kept as u64));
        } else {
            assert_eq!(disk.bytes(&recovered.torn.unwrap()), &whole[borders[kept]..end]);
            let leaf = Leaf::parse(&log.leaf(kept as u64).unwrap().unwrap().bytes).unwrap();
            let LeafBody::Recovered(on_record) = leaf.body else { panic!("{leaf:?}") };
            assert_eq!(on_record.bytes, torn as u64);
        }
        log.append(vec![deny(99)]).unwrap();
        drop(log);
        assert_verifies(&disk, &format!("torn at {end}"));
        // The cut is on record once.
        let (log, again) = open_sim(&disk).unwrap();
        assert_eq!((again.torn, log.head().next_seq), (None, kept as u64 + 1 + u64::from(torn > 0)));
    }
}

#[test]
fn a_hole_that_a_power_cut_left_is_cut_with_all_that_follows() {
    let disk = killed(200, 3);
    let mut bytes = disk.bytes(&segment(0));
    bytes[8192..12_288].fill(0);
    disk.put(&segment(0), &bytes);
    let (log, recovered) = open_sim(&disk).unwrap();
    assert!(recovered.leaves >= 3 && recovered.leaves < 20 && recovered.cut_bytes > 100_000, "{recovered:?}");
    drop(log);
    assert_verifies(&disk, "hole");
}

#[test]
fn a_cut_that_crashed_before_its_leaf_is_put_on_record_by_the_next_opening() {
    let disk = killed(6, 3);
    let bytes = disk.bytes(&segment(0));
    disk.put(&segment(0), &bytes[..bytes.len() - 5]);
    let (log, recovered) = open_sim(&disk).unwrap();
    let torn = recovered.torn.unwrap();
    let with_leaf = log.head().next_seq;
    disk.kill();
    drop(log);
    // Back to the moment after the cut: the leaf was not durable, the copy was.
    let len = u64::from(u32::try_from(bytes.len()).unwrap());
    let cut = usize::try_from(len - 5 - recovered.cut_bytes).unwrap();
    disk.put(&segment(0), &bytes[..cut]);
    let head = dir().join("head");
    disk.put(&head, b"");
    let (log, recovered) = open_sim(&disk).unwrap();
    assert!(recovered.head_rebuilt && recovered.torn.is_none());
    assert_eq!(log.head().next_seq, with_leaf);
    let leaf = Leaf::parse(&log.leaf(with_leaf - 1).unwrap().unwrap().bytes).unwrap();
    let LeafBody::Recovered(on_record) = leaf.body else { panic!("{leaf:?}") };
    assert!(torn.ends_with(&on_record.torn) && on_record.bytes > 0);
}

#[test]
fn what_was_durable_may_not_change_or_vanish() {
    let template = killed(10, 10);
    let whole = template.bytes(&segment(0));
    let mut changed = whole.clone();
    let at = changed.windows(6).position(|w| w == b"dec_4\"").unwrap();
    changed[at + 4] = b'5';
    let disk = template.fork();
    disk.put(&segment(0), &changed);
    // Leaf 4 is still JSON; the break shows at the leaf after it.
    let refused = open_sim(&disk).err();
    assert!(matches!(refused, Some(LogError::Tampered { seq: 5, .. })), "{refused:?}");
    assert_eq!(disk.bytes(&segment(0)), changed, "a damaged log is left as it is");

    let disk = template.fork();
    disk.put(&segment(0), &whole[..whole.len() - 1]);
    assert!(matches!(open_sim(&disk).err(), Some(LogError::Tampered { seq: 9, .. })));
    let disk = template.fork();
    disk.put(&segment(0), b"");
    assert!(matches!(open_sim(&disk).err(), Some(LogError::Tampered { seq: 0, .. })));
}

#[test]
fn a_changed_leaf_with_good_ones_behind_it_is_no_torn_tail() {
    let disk = killed(10, 3);
    let mut changed = disk.bytes(&segment(0));
    let at = changed.windows(6).position(|w| w == b"dec_6\"").unwrap();
    changed[at + 4] = b'5';
    disk.put(&segment(0), &changed);
    let refused = open_sim(&disk).err();
    assert!(matches!(refused, Some(LogError::Tampered { seq: 7, .. })), "{refused:?}");
}

#[test]
fn a_lost_head_file_is_made_anew_after_checking_every_leaf() {
    let disk = killed(600, 600);
    disk.put(&dir().join("head"), b"torn");
    let (log, recovered) = open_sim(&disk).unwrap();
    assert!(recovered.head_rebuilt && recovered.leaves == 600);
    drop(log);
    assert_verifies(&disk, "head");
}

#[test]
fn payloads_that_a_crash_took_are_missing_and_never_another_leafs() {
    for seed in 1..=40 {
        let disk = SimDisk::new(seed);
        for round in 0..3_u64 {
            let (log, _) = open_sim(&disk).unwrap();
            for seq in 0..log.head().next_seq {
                if let Some(payload) = log.payload(seq).unwrap() {
                    // A page that was lost reads as zeros; a sealed payload then fails to open.
                    assert!(payload == sealed(seq) || payload.contains(&0), "seed {seed} leaf {seq}");
                }
            }
            for n in 0..20 {
                let seq = log.head().next_seq;
                log.append_with_payloads(vec![(deny(round * 100 + n), Some(sealed(seq)))]).unwrap();
                assert_eq!(log.payload(seq).unwrap(), Some(sealed(seq)));
            }
            disk.crash();
        }
    }
}

fn sealed(seq: u64) -> Vec<u8> {
    format!("payload of leaf {seq}").repeat(30).into_bytes()
}

#[test]
fn an_idle_append_is_synced_at_once() {
    let disk = SimDisk::new(9);
    let (log, _) = open_sim(&disk).unwrap();
    let before = disk.syncs();
    for n in 0..5 {
        let seq = log.append(vec![deny(n)]).unwrap()[0].seq;
        wait(log.durable(seq)).unwrap();
    }
    assert_eq!(disk.syncs() - before, 5, "one sync for each, none for nothing");
}
