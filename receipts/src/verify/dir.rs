//! A log directory, read once from front to back.

use std::{io, path::Path, sync::Arc, thread, time::Duration};

use aegis_action::Timestamp;

use super::{
    links::Links,
    report::{Report, Verdict},
};
use crate::{
    chain::{Chain, LeafView},
    disk::Disk,
    head::{HEAD_BYTES, HeadLine, head_path},
    log::CLOCK_STEP_MS,
    segment::{Next, Records, parse_segment_name, segment_path, segments_dir},
};

/// How far a verification is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Leaves checked.
    pub leaves: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Bytes there are.
    pub total_bytes: u64,
}

/// Verifies a log directory on any disk, in memory that does not grow with the log.
/// The log may be in use: then what is written meanwhile may or may not be covered.
pub fn verify_dir_with(disk: &dyn Disk, dir: &Path, progress: &mut dyn FnMut(Progress)) -> Report {
    let mut run = Run { disk, dir, report: Report::new(), chain: Chain::genesis(), links: Links::default() };
    let verdict = run.verify(progress).unwrap_or_else(|verdict| verdict);
    let mut report = run.report;
    report.node = run.chain.node;
    report.without_outcome = run.links.without_outcome();
    report.last_hash = (report.leaves > 0).then_some(run.chain.last_hash);
    report.verdict = verdict;
    report
}

struct Run<'a> {
    disk: &'a dyn Disk,
    dir: &'a Path,
    report: Report,
    chain: Chain,
    links: Links,
}

impl Run<'_> {
    fn verify(&mut self, progress: &mut dyn FnMut(Progress)) -> Result<Verdict, Verdict> {
        // The head comes first: in a log that is in use, the leaves are then never behind it.
        let head = self.head()?;
        let firsts = self.segments()?;
        let mut total_bytes = 0;
        for first in &firsts {
            let file = self.disk.open_read(&segment_path(self.dir, *first));
            total_bytes += file.and_then(|file| file.len()).map_err(unreadable("a segment"))?;
        }
        for (at, first) in firsts.iter().enumerate() {
            let last = at + 1 == firsts.len();
            let mut tell = |leaves, bytes| progress(Progress { leaves, bytes, total_bytes });
            self.segment(*first, last, &head, &mut tell)?;
        }
        if self.chain.next_seq < head.next_seq {
            let why = format!("the head file says that {} leaves are durable, and they are gone", head.next_seq);
            return Ok(Verdict::tampered(self.chain.next_seq, "head", why));
        }
        self.report.beyond_head = self.chain.next_seq - head.next_seq;
        Ok(Verdict::Verified)
    }

    /// Without it nothing vouches for the last leaf. Read again where it is just being rewritten.
    fn head(&self) -> Result<HeadLine, Verdict> {
        let file = self.disk.open_read(&head_path(self.dir)).map_err(unreadable("the head file"))?;
        for _ in 0..HEAD_TRIES {
            let mut line = [0; HEAD_BYTES + 1];
            let n = file.read_full_at(&mut line, 0).map_err(unreadable("the head file"))?;
            if let Some(head) = HeadLine::parse(line.get(..n).unwrap_or_default()) {
                return Ok(head);
            }
            thread::sleep(HEAD_PAUSE);
        }
        Err(Verdict::Unreadable { why: "the head file is damaged".into() })
    }

    fn segments(&mut self) -> Result<Vec<u64>, Verdict> {
        let names = self.disk.list(&segments_dir(self.dir)).map_err(unreadable("the segments"))?;
        let mut firsts = Vec::new();
        for name in &names {
            match parse_segment_name(name) {
                Some(first) => firsts.push(first),
                None => self.report.find(format!("`segments/{name}` is no segment")),
            }
        }
        firsts.sort_unstable();
        Ok(firsts)
    }

    fn segment(
        &mut self,
        first: u64,
        last: bool,
        head: &HeadLine,
        tell: &mut dyn FnMut(u64, u64),
    ) -> Result<(), Verdict> {
        let file_name = format!("segments/{first:020}.log");
        let file = self.disk.open_read(&segment_path(self.dir, first)).map_err(unreadable("a segment"))?;
        let len = file.len().map_err(unreadable("a segment"))?;
        if len == 0 && last {
            // Made in advance, for when the one before it is full.
            return Ok(());
        }
        let expected = self.chain.next_seq;
        if first != expected || len == 0 {
            let why = format!("it starts at leaf {first} with {len} bytes, expected leaf {expected}");
            return Err(Verdict::tampered(expected, &file_name, why));
        }
        self.report.segments += 1;
        let before = self.report.bytes;
        let mut records = Records::new(Arc::clone(&file), 0, len);
        loop {
            let at = records.position();
            self.report.bytes = before + at;
            let (seq, hole) = (self.chain.next_seq, self.chain.next_seq >= head.next_seq);
            match records.next().map_err(unreadable("a segment"))? {
                Next::Leaf { bytes, .. } => {
                    // A hole that a power cut left reads as zeros, which no leaf has.
                    if hole && last && bytes.contains(&0) {
                        self.torn(len - at);
                        return Ok(());
                    }
                    self.leaf(bytes, head).map_err(|why| Verdict::tampered(seq, &file_name, why))?;
                    if self.report.leaves.is_multiple_of(TELL_EVERY) {
                        tell(self.report.leaves, self.report.bytes);
                    }
                }
                Next::End => return Ok(()),
                Next::Torn if hole && last => {
                    self.torn(len - at);
                    return Ok(());
                }
                Next::Torn => return Err(Verdict::tampered(seq, &file_name, "no whole record")),
            }
        }
    }

    fn torn(&mut self, bytes: u64) {
        let seq = self.chain.next_seq;
        self.report.find(format!("{bytes} bytes behind the last leaf are torn (leaf {seq} was never acknowledged): a crash, or a write under way"));
    }

    fn leaf(&mut self, bytes: &[u8], head: &HeadLine) -> Result<(), String> {
        let view = LeafView::read(bytes)?;
        self.chain.check(&view)?;
        if let Some(odd) = self.links.follow(&view)? {
            self.report.find(odd);
        }
        let back = self.chain.last_ts - view.ts;
        if self.chain.next_seq > 0 && back > 0 {
            if back <= CLOCK_STEP_MS {
                return Err(format!(
                    "its time is {back} ms before that of the leaf before it, which the log does not write"
                ));
            }
            self.report.find(format!("the clock was set back by {back} ms at leaf {}", view.seq));
        }
        match self.report.types.get_mut(view.type_name) {
            Some(count) => *count += 1,
            None => drop(self.report.types.insert(view.type_name.to_owned(), 1)),
        }
        let hash = self.chain.advance(bytes, &view);
        if self.chain.next_seq == head.next_seq && hash != head.last_hash {
            return Err("it does not have the hash in the head file".into());
        }
        self.report.leaves += 1;
        self.report.first_ts.get_or_insert(Timestamp(view.ts));
        self.report.last_ts = Some(Timestamp(view.ts));
        Ok(())
    }
}

fn unreadable(what: &'static str) -> impl Fn(io::Error) -> Verdict {
    move |e| Verdict::Unreadable { why: format!("cannot read {what}: {e}") }
}

const HEAD_TRIES: u32 = 5;
const HEAD_PAUSE: Duration = Duration::from_millis(5);
const TELL_EVERY: u64 = 16_384;
