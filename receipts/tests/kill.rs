//! kill -9 under load: what a child process was told is on record, is.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may fail loudly, its helpers too"
)]

mod support;

use std::{
    io::{BufRead as _, BufReader},
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use aegis_action::sha256;
use aegis_receipts::verify::verify_dir;
use support::*;

/// Not a test of its own: the process that is killed. It says what is durable.
#[test]
#[ignore = "the child of the test below"]
fn child() {
    let Ok(dir) = std::env::var("AEGIS_TEST_LOG_DIR") else { return };
    let (log, _) = open(dir.as_ref());
    let threads: Vec<_> = (0..3_u64)
        .map(|t| {
            let log = Arc::clone(&log);
            std::thread::spawn(move || {
                for n in 0.. {
                    let id = t * 1_000_000 + n;
                    let one = log.append_with_payloads(vec![(allow(id), Some(vec![7; 100]))]).unwrap().remove(0);
                    // Written, and so to survive, before it is durable.
                    println!("leaf {} {}", one.seq, one.receipt_hash);
                    if n % 3 == 0 {
                        wait(log.durable(one.seq)).unwrap();
                    }
                    log.outcome(outcome(id, one.seq, n % 2 == 0));
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
}

#[test]
fn a_killed_process_leaves_every_leaf_it_was_told_of() {
    let dir = tempfile::tempdir().unwrap();
    let mut told = 0;
    for round in 0..12_u64 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child", "--ignored", "--nocapture"])
            .env("AEGIS_TEST_LOG_DIR", dir.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let first = lines.by_ref().map(|line| line.unwrap()).find(|line| line.contains("leaf ")).unwrap();
        std::thread::sleep(Duration::from_millis(5 + 7 * round));
        child.kill().unwrap();
        let lines: Vec<String> = std::iter::once(first).chain(lines.map_while(Result::ok)).collect();
        child.wait().unwrap();

        let before = verify_dir(dir.path());
        assert!(before.is_verified(), "round {round}, before it is opened: {before}");
        let (log, _) = open(dir.path());
        for line in &lines {
            let words: Vec<_> = line.rsplit("leaf ").next().unwrap().split(' ').collect();
            // The last line may be torn itself.
            let [seq, hash] = words[..] else { continue };
            let Ok(seq) = seq.parse() else { continue };
            if hash.len() == 64 {
                let leaf = log.leaf(seq).unwrap().unwrap_or_else(|| panic!("round {round}: leaf {seq} is gone"));
                assert_eq!(sha256(&leaf.bytes).to_hex(), hash);
                told += 1;
            }
        }
        drop(log);
        let after = verify_dir(dir.path());
        assert!(after.is_verified() && after.findings.is_empty(), "round {round}: {after}");
    }
    assert!(told > 500, "{told}");
}
