//! Opening: what a crash may have left, and what it cannot have.
//!
//! The head file says up to where leaves are known to be durable. Below that nothing may
//! be missing or changed: that is [`LogError::Tampered`], and nothing is touched. Beyond
//! it no leaf was acknowledged, and the tail may be torn: it is cut where it stops to hold.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use aegis_action::{Clock, sha256};

use super::{
    LogOptions, Recovered,
    sidecar::{Sidecar, payloads_dir},
    tail::Tail,
    writer::{Purpose, Writer},
};
use crate::{
    chain::{Chain, GENESIS, LeafView},
    disk::{Disk, DiskFile, DiskLock},
    error::LogError,
    head::{HEAD_BYTES, HeadLine, head_path},
    leaf::{LeafBody, Recovered as RecoveredLeaf},
    segment::{Next, Records, parse_segment_name, segment_path, segments_dir},
};

/// Locks, recovers and opens the log for writing, everything in it durable.
pub(super) fn open(
    options: &LogOptions,
    clock: Arc<dyn Clock>,
    disk: &Arc<dyn Disk>,
) -> Result<(Writer, Recovered, Box<dyn DiskLock>), LogError> {
    let dir = &options.dir;
    for folder in [dir.clone(), segments_dir(dir), payloads_dir(dir), torn_dir(dir)] {
        disk.make_dir(&folder).map_err(|e| LogError::io("create a folder", &e))?;
    }
    let lock = disk.lock(&dir.join("lock")).map_err(|e| match e.kind() {
        io::ErrorKind::WouldBlock => LogError::Locked(dir.display().to_string()),
        _ => LogError::io("lock the directory", &e),
    })?;
    let (head, head_rebuilt) = read_head(&**disk, dir)?;
    let mut scan = Scan { disk: &**disk, dir, durable: head.next_seq, head, chain: Chain::genesis(), durable_bytes: 0 };
    let mut found = scan.run(options.segment_leaves)?;
    let chain = scan.chain;
    if let Some(node) = &chain.node
        && *node != options.node
    {
        return Err(LogError::OtherNode { found: node.clone(), expected: options.node.clone() });
    }
    let head_rebuilt = head_rebuilt && chain.next_seq > 0;
    let mut recovered = Recovered { leaves: chain.next_seq, head_rebuilt, ..Recovered::default() };

    // A torn tail is copied before it is cut. A crash in between: two copies, one cut.
    // A crash after the cut and before its leaf is durable: the copy's name still asks for it.
    if let Some(damage) = &found.damage {
        let name = format!("{:020}-{}.bin", chain.next_seq, clock.now().0);
        keep_torn(&**disk, dir, &found.tail, damage, &name).map_err(|e| LogError::io("keep a torn tail", &e))?;
        let tail = &mut found.tail;
        tail.torn = true;
        tail.cut()?;
        (recovered.cut_bytes, recovered.cut_leaves) = (damage.bytes, damage.records);
        recovered.torn = Some(torn_dir(dir).join(name));
    }
    recovered.preallocates = !matches!(
        found.tail.file.allocate(found.tail.pos.max(1)),
        Err(e) if e.kind() == io::ErrorKind::Unsupported
    );
    // Found is not durable: a killed process leaves leaves that only the page cache has.
    for span in &found.unsynced {
        span.make_durable().map_err(|e| LogError::io("sync a segment", &e))?;
    }
    let (sidecar, cut) = Sidecar::open(&**disk, dir, found.tail.first, chain.next_seq)?;
    recovered.cut_payload_bytes = cut;

    let next_seq = chain.next_seq;
    let mut writer = Writer::new(Arc::clone(disk), clock, options.clone(), (found.full, found.tail), chain, sidecar);
    if let Some(leaf) = unrecorded_cut(&**disk, dir, next_seq, &recovered)? {
        writer.append(&[leaf], Purpose::Ordinary)?;
        writer.current.file.sync().map_err(|e| LogError::io("sync a segment", &e))?;
        writer.synced(writer.next_seq());
    }
    write_head(&**disk, dir, &writer).map_err(|e| LogError::io("write the head file", &e))?;
    Ok((writer, recovered, lock))
}

/// What the segments turned out to be.
struct Found {
    full: Vec<u64>,
    tail: Tail,
    /// Leaves that nobody knows to be durable.
    unsynced: Vec<Span>,
    damage: Option<Damage>,
}

/// A stretch of a segment.
struct Span {
    file: Arc<dyn DiskFile>,
    from: u64,
    to: u64,
}

impl Span {
    /// Writes the bytes once more and syncs. The process before may have seen a sync fail:
    /// then the page cache has what the disk has not, and takes it for clean.
    fn make_durable(&self) -> io::Result<()> {
        copy(&*self.file, self.from, self.to, &*self.file, self.from)?;
        self.file.sync()
    }
}

/// Where the log stops to hold, beyond everything that was acknowledged.
struct Damage {
    /// Bytes in its segment from there on.
    bytes: u64,
    records: u64,
    /// Segments after the damaged one, none of which can hold.
    later: Vec<u64>,
}

/// Why a record does not hold.
struct Broken {
    why: String,
    /// A crash can have left it so.
    by_crash: bool,
    /// 1 where it is a whole record.
    records: u64,
}

struct Scan<'a> {
    disk: &'a dyn Disk,
    dir: &'a Path,
    durable: u64,
    head: HeadLine,
    chain: Chain,
    /// Bytes of the segment at hand that the head covers.
    durable_bytes: u64,
}

impl Scan<'_> {
    fn run(&mut self, segment_leaves: u32) -> Result<Found, LogError> {
        let mut firsts = self.segments()?;
        let Some(oldest) = firsts.first() else {
            self.check_durable()?;
            let tail = Tail::create(self.disk, self.dir, 0, segment_leaves)?;
            return Ok(Found { full: Vec::new(), tail, unsynced: Vec::new(), damage: None });
        };
        if *oldest != 0 {
            return Err(LogError::Tampered { seq: 0, why: format!("segments before leaf {oldest} are missing") });
        }
        // Everything from the last durable leaf's segment on is checked; segments before it are left to the verifier.
        let last_durable = self.durable.saturating_sub(1);
        let start = firsts.partition_point(|first| *first <= last_durable).saturating_sub(1);
        self.enter(&firsts, start)?;
        let mut unsynced = Vec::new();
        for at in start..firsts.len() {
            let (first, later) = (firsts.get(at).copied().unwrap_or(0), firsts.get(at + 1).copied());
            let (tail, damage) = self.segment(first, later, segment_leaves)?;
            unsynced.push(Span { file: Arc::clone(&tail.file), from: self.durable_bytes, to: tail.pos });
            if later.is_some() && damage.is_none() {
                continue;
            }
            self.check_durable()?;
            let later = firsts.split_off(at + 1);
            firsts.truncate(at);
            let damage = damage.map(|(bytes, records)| Damage { bytes, records, later });
            return Ok(Found { full: firsts, tail, unsynced, damage });
        }
        // There is at least one segment, and the last always returns.
        Err(LogError::Tampered { seq: self.chain.next_seq, why: "the segments changed while they were read".into() })
    }

    /// First sequence numbers in order, without empty segments at the end: those were only made in advance.
    fn segments(&self) -> Result<Vec<u64>, LogError> {
        let read = |e: io::Error| LogError::io("list the segments", &e);
        let names = self.disk.list(&segments_dir(self.dir)).map_err(read)?;
        let mut firsts: Vec<u64> = names.iter().filter_map(|name| parse_segment_name(name)).collect();
        firsts.sort_unstable();
        while let Some(last) = firsts.last() {
            let path = segment_path(self.dir, *last);
            if !self.disk.open_read(&path).and_then(|file| file.is_empty()).map_err(read)? {
                break;
            }
            self.disk.remove(&path).map_err(read)?;
            firsts.pop();
        }
        Ok(firsts)
    }

    /// Puts the chain where segment `start` begins, from the last leaf of the segment before.
    fn enter(&mut self, firsts: &[u64], start: usize) -> Result<(), LogError> {
        let Some((before, first)) =
            start.checked_sub(1).and_then(|b| firsts.get(b).copied().zip(firsts.get(start).copied()))
        else {
            return Ok(());
        };
        let read = |e: io::Error| LogError::io("read a segment", &e);
        let file = self.disk.open_read(&segment_path(self.dir, before)).map_err(read)?;
        let end = file.len().map_err(read)?;
        let mut records = Records::new(file, 0, end);
        let mut next_seq = before;
        let mut last = Vec::new();
        loop {
            match records.next().map_err(read)? {
                Next::Leaf { bytes, .. } => {
                    next_seq += 1;
                    if next_seq == first {
                        last.extend_from_slice(bytes);
                    }
                }
                Next::End => break,
                Next::Torn => return Err(LogError::Tampered { seq: next_seq, why: "no whole record".into() }),
            }
        }
        if next_seq != first {
            return Err(LogError::Tampered { seq: next_seq.min(first), why: "segments do not join".into() });
        }
        let view = LeafView::read(&last).map_err(|why| LogError::Tampered { seq: first - 1, why })?;
        self.chain.next_seq = first - 1;
        self.chain.advance(&last, &view);
        Ok(())
    }

    /// Follows the chain through one segment. The second value is what had to be given up, in bytes and records.
    fn segment(
        &mut self,
        first: u64,
        later: Option<u64>,
        segment_leaves: u32,
    ) -> Result<(Tail, Option<(u64, u64)>), LogError> {
        let read = |e: io::Error| LogError::io("read a segment", &e);
        let file = self.disk.open(&segment_path(self.dir, first)).map_err(read)?;
        let len = file.len().map_err(read)?;
        if first != self.chain.next_seq {
            return Err(LogError::Tampered { seq: self.chain.next_seq, why: "segments do not join".into() });
        }
        let mut tail = Tail::at(first, Arc::clone(&file), segment_leaves);
        let mut records = Records::new(file, 0, len);
        self.durable_bytes = 0;
        let broken = loop {
            match records.next().map_err(read)? {
                Next::Leaf { bytes, .. } => match self.leaf(bytes) {
                    Ok(()) => {
                        tail.accept(bytes.len() as u64 + 2, &[0]);
                        if self.chain.next_seq <= self.durable {
                            self.durable_bytes = tail.pos;
                        }
                    }
                    Err(why) => break Broken { why, by_crash: bytes.contains(&0), records: 1 },
                },
                Next::End if later.is_none_or(|next| next == self.chain.next_seq) => {
                    tail.settle();
                    return Ok((tail, None));
                }
                Next::End => break Broken { why: "its segment ends before it".into(), by_crash: true, records: 0 },
                Next::Torn => break Broken { why: "no whole record".into(), by_crash: true, records: 0 },
            }
        };
        tail.settle();
        let seq = self.chain.next_seq;
        if seq < self.durable {
            return Err(LogError::Tampered { seq, why: broken.why });
        }
        // What a crash leaves are ends, and holes, which read as zeros. A whole record
        // without a zero that does not fit, with a good leaf behind it, was changed by someone.
        let (records, good_leaf_next) = rest(records).map_err(read)?;
        if !broken.by_crash && good_leaf_next {
            return Err(LogError::Tampered { seq, why: broken.why });
        }
        let bytes = len - tail.pos;
        Ok((tail, Some((bytes, broken.records + records))))
    }

    fn leaf(&mut self, bytes: &[u8]) -> Result<(), String> {
        let view = LeafView::read(bytes)?;
        self.chain.check(&view)?;
        let seq = self.chain.next_seq;
        if seq + 1 == self.durable && sha256(bytes) != self.head.last_hash {
            return Err("it does not have the hash in the head file".into());
        }
        self.chain.advance(bytes, &view);
        Ok(())
    }

    fn check_durable(&self) -> Result<(), LogError> {
        let seq = self.chain.next_seq;
        if seq < self.durable {
            let why = format!("leaves up to {} were durable and are gone", self.durable - 1);
            return Err(LogError::Tampered { seq, why });
        }
        Ok(())
    }
}

/// How many whole records follow, and whether the first of them is a leaf.
fn rest(mut records: Records) -> io::Result<(u64, bool)> {
    let (mut count, mut leaf) = (0, false);
    while let Next::Leaf { bytes, .. } = records.next()? {
        if count == 0 {
            leaf = LeafView::read(bytes).is_ok();
        }
        count += 1;
    }
    Ok((count, leaf))
}

/// Copies a torn tail aside and moves the segments behind it there, durably.
fn keep_torn(disk: &dyn Disk, dir: &Path, tail: &Tail, damage: &Damage, name: &str) -> io::Result<()> {
    let kept = disk.open(&torn_dir(dir).join(name))?;
    kept.truncate(0)?;
    copy(&*tail.file, tail.pos, tail.file.len()?, &*kept, 0)?;
    kept.sync()?;
    for first in &damage.later {
        disk.rename(&segment_path(dir, *first), &torn_dir(dir).join(format!("{name}.{first:020}")))?;
    }
    disk.sync_dir(&torn_dir(dir))?;
    disk.sync_dir(&segments_dir(dir))
}

/// Copies bytes `from..to` of one file to another place.
fn copy(source: &dyn DiskFile, from: u64, to: u64, target: &dyn DiskFile, at: u64) -> io::Result<()> {
    let mut buf = vec![0; 64 * 1024];
    let mut done = 0;
    while from + done < to {
        let want = usize::try_from(to - from - done).map_or(buf.len(), |left| left.min(buf.len()));
        let n = source.read_full_at(buf.get_mut(..want).unwrap_or_default(), from + done)?;
        if n == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        target.write_all_at(buf.get(..n).unwrap_or_default(), at + done)?;
        done += n as u64;
    }
    Ok(())
}

/// The leaf for a cut that has none yet: of this opening, or of one that crashed before its leaf was durable.
fn unrecorded_cut(disk: &dyn Disk, dir: &Path, next_seq: u64, now: &Recovered) -> Result<Option<LeafBody>, LogError> {
    let list = |e: io::Error| LogError::io("list torn tails", &e);
    let names = disk.list(&torn_dir(dir)).map_err(list)?;
    let kept = names.into_iter().rev().find(|name| {
        let seq = name.get(..20).and_then(|digits| digits.parse::<u64>().ok());
        seq.is_some_and(|seq| seq >= next_seq) && name.ends_with(".bin")
    });
    let Some(torn) = kept else { return Ok(None) };
    let mut leaf = RecoveredLeaf { bytes: now.cut_bytes, leaves: now.cut_leaves, torn };
    if now.torn.is_none() {
        leaf.bytes = disk.open_read(&torn_dir(dir).join(&leaf.torn)).and_then(|file| file.len()).map_err(list)?;
    }
    Ok(Some(LeafBody::Recovered(leaf)))
}

/// The head, and whether it has to be made anew. Without one nothing counts as durable, so every leaf is checked.
fn read_head(disk: &dyn Disk, dir: &Path) -> Result<(HeadLine, bool), LogError> {
    let read = || -> io::Result<Option<HeadLine>> {
        let file = disk.open_read(&head_path(dir))?;
        let mut line = [0; HEAD_BYTES + 1];
        let n = file.read_full_at(&mut line, 0)?;
        Ok(HeadLine::parse(line.get(..n).unwrap_or_default()))
    };
    match read() {
        Ok(Some(head)) => Ok((head, false)),
        Ok(None) => Ok((NO_HEAD, true)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok((NO_HEAD, true)),
        Err(e) => Err(LogError::io("read the head file", &e)),
    }
}

fn write_head(disk: &dyn Disk, dir: &Path, writer: &Writer) -> io::Result<()> {
    let head = HeadLine { next_seq: writer.next_seq(), last_hash: writer.last_hash() };
    let file = disk.open(&head_path(dir))?;
    file.write_all_at(head.encode().as_bytes(), 0)?;
    if file.len()? > HEAD_BYTES as u64 {
        file.truncate(HEAD_BYTES as u64)?;
    }
    file.sync()?;
    disk.sync_dir(dir)
}

fn torn_dir(dir: &Path) -> PathBuf {
    dir.join("torn")
}

const NO_HEAD: HeadLine = HeadLine { next_seq: 0, last_hash: GENESIS };
