//! The sync thread: records queued outcomes, makes everything durable, tells those who wait.

use std::{
    io,
    sync::{Arc, atomic::Ordering},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use super::{
    MAX_BATCH, Shared,
    outcomes::{self, MERGE},
    writer::{Chunk, Purpose},
};
use crate::{
    disk::DiskFile,
    error::LogError,
    head::{HeadLine, head_path},
    leaf::LeafBody,
};

/// What waiters watch.
#[derive(Debug, Clone)]
pub(super) struct Progress {
    /// Number of durable leaves.
    pub durable: u64,
    /// The disk refuses to sync.
    pub failing: Option<Failing>,
}

#[derive(Debug, Clone)]
pub(super) struct Failing {
    pub since: Instant,
    pub cause: String,
}

pub(super) fn spawn(shared: Arc<Shared>) -> io::Result<JoinHandle<()>> {
    let mut syncer = Syncer {
        shared,
        held: Vec::new(),
        waiting: false,
        retry_at: None,
        head: None,
        payloads_at: Instant::now(),
        gave_up: false,
    };
    thread::Builder::new().name("receipt-sync".into()).spawn(move || syncer.run())
}

struct Syncer {
    shared: Arc<Shared>,
    /// Outcome leaves that are not recorded yet: the disk refused them.
    held: Vec<LeafBody>,
    /// Whether somebody was told that they wait.
    waiting: bool,
    retry_at: Option<Instant>,
    head: Option<Arc<dyn DiskFile>>,
    /// When payloads were last synced.
    payloads_at: Instant,
    /// The log is being shut down and the disk does not let it end well.
    gave_up: bool,
}

impl Syncer {
    fn run(&mut self) {
        let mut batch = 0;
        let mut closing_since = None;
        loop {
            let closing = self.wait();
            self.record_outcomes();
            // Under load the next leaves are a moment away, and one sync for many costs as
            // much as one for few. An idle request never pays for this.
            if batch >= BUSY && !closing {
                thread::sleep(LINGER);
            }
            batch = self.sync(closing);
            if closing {
                let since = *closing_since.get_or_insert_with(Instant::now);
                self.gave_up |= since.elapsed() > PATIENCE_AT_END;
                let drained = self.held.is_empty() && self.shared.writer.lock().unsynced.is_empty();
                if self.gave_up || drained && self.shared.wake.lock().finish() {
                    return self.end();
                }
            }
        }
    }

    /// Sleeps until there is something to do, and takes the outcomes that are due. Returns whether the log is being shut down.
    fn wait(&mut self) -> bool {
        let mut wake = self.shared.wake.lock();
        loop {
            let now = Instant::now();
            let due = wake.since.map(|since| since + MERGE_FOR);
            let outcomes = wake.urgent || wake.closing || wake.queue.len() >= MERGE || due.is_some_and(|at| at <= now);
            let retry = self.retry_at.is_some_and(|at| at <= now);
            if outcomes || retry || std::mem::take(&mut wake.appended) {
                if outcomes {
                    wake.appended = false;
                    (wake.since, wake.urgent) = (None, false);
                    self.held.extend(outcomes::leaves(std::mem::take(&mut wake.queue)));
                }
                return wake.closing;
            }
            match due.into_iter().chain(self.retry_at).min() {
                Some(at) => drop(self.shared.bell.wait_until(&mut wake, at)),
                None => self.shared.bell.wait(&mut wake),
            }
        }
    }

    /// Records what is held, in order; what the disk refuses is tried again.
    fn record_outcomes(&mut self) {
        self.retry_at = None;
        while !self.held.is_empty() {
            let few = self.held.get(..MAX_BATCH.min(self.held.len())).unwrap_or_default();
            let result = self.shared.writer.lock().append(few, Purpose::Outcomes);
            match result {
                Ok(appended) => {
                    self.waiting = false;
                    drop(self.held.drain(..appended.len()));
                }
                Err(LogError::BadLeaf(_) | LogError::TooLarge { .. }) if few.len() > 1 => self.record_one_by_one(),
                Err(e @ (LogError::BadLeaf(_) | LogError::TooLarge { .. })) => {
                    tracing::error!(error = %e, "an outcome that names no intent of this log is dropped");
                    self.held.remove(0);
                }
                Err(e) => {
                    if !std::mem::replace(&mut self.waiting, true) {
                        tracing::warn!(error = %e, waiting = self.held.len(), "outcomes wait for the disk");
                    }
                    self.retry_at = Some(Instant::now() + RETRY);
                    return;
                }
            }
        }
    }

    /// One bad entry must not take others with it: merged entries are taken apart again.
    fn record_one_by_one(&mut self) {
        let alone = std::mem::take(&mut self.held).into_iter().flat_map(|leaf| match leaf {
            LeafBody::Outcomes(entries) => entries.into_iter().map(LeafBody::Outcome).collect(),
            other => vec![other],
        });
        let mut refused = Vec::new();
        for leaf in alone {
            match self.shared.writer.lock().append(std::slice::from_ref(&leaf), Purpose::Outcomes) {
                Ok(_) => {}
                Err(e @ (LogError::BadLeaf(_) | LogError::TooLarge { .. })) => {
                    tracing::error!(error = %e, "an outcome that names no intent of this log is dropped");
                }
                Err(_) => refused.push(leaf),
            }
        }
        self.held = refused;
    }

    /// Makes what is written durable, however often it takes. Returns how many leaves that were.
    fn sync(&mut self, closing: bool) -> u64 {
        let mut chunks = self.unsynced();
        let started = Instant::now();
        let mut backoff = FIRST_BACKOFF;
        let mut synced = sync_files(&chunks);
        while let Err(e) = synced {
            self.report(&e);
            if closing && started.elapsed() > PATIENCE_AT_END {
                self.gave_up = true;
                return 0;
            }
            thread::sleep(backoff);
            backoff = (backoff * 2).min(LAST_BACKOFF);
            // After an error the kernel takes the pages for clean: what it lost is written
            // again, or the next sync would succeed with nothing on the disk. That goes for
            // leaves appended during the failed sync too, so all there are now are taken.
            chunks = self.unsynced();
            let rewritten = chunks.iter().try_for_each(|chunk| chunk.file.write_all_at(&chunk.bytes, chunk.offset));
            synced = rewritten.and_then(|()| sync_files(&chunks));
        }
        let Some((end, last_hash)) = chunks.last().map(|chunk| (chunk.end, chunk.last_hash)) else { return 0 };
        // 1. The leaves are on the disk. A crash here: durable, nobody was told.
        self.shared.writer.lock().synced(end);
        // 2. The head says so. A crash here: durable, nobody was told.
        self.write_head(HeadLine { next_seq: end, last_hash });
        // 3. Those who wait are told. A crash from here on: head and leaves are both there.
        let before = self.shared.durable.swap(end, Ordering::Release);
        self.shared.progress.send_replace(Progress { durable: end, failing: None });
        self.sync_payloads();
        end - before
    }

    fn unsynced(&self) -> Vec<Chunk> {
        self.shared.writer.lock().unsynced.iter().cloned().collect()
    }

    fn report(&self, error: &io::Error) {
        tracing::error!(error = %error, "receipts cannot be synced; trying again");
        self.shared.progress.send_modify(|progress| {
            let since = progress.failing.as_ref().map_or_else(Instant::now, |failing| failing.since);
            progress.failing = Some(Failing { since, cause: error.to_string() });
        });
    }

    /// A head that stays behind is safe: it only covers less.
    fn write_head(&mut self, head: HeadLine) {
        if let Err(e) = self.head_file().and_then(|file| file.write_all_at(head.encode().as_bytes(), 0)) {
            tracing::warn!(error = %e, "the head file could not be written");
        }
    }

    /// Opened once: a sync happens hundreds of times a second.
    fn head_file(&mut self) -> io::Result<Arc<dyn DiskFile>> {
        if let Some(file) = &self.head {
            return Ok(Arc::clone(file));
        }
        let file = self.shared.disk.open(&head_path(&self.shared.options.dir))?;
        Ok(Arc::clone(self.head.insert(file)))
    }

    fn sync_payloads(&mut self) {
        self.shared.writer.lock().sidecar.flush();
        if self.payloads_at.elapsed() < PAYLOAD_EVERY {
            return;
        }
        self.payloads_at = Instant::now();
        let dirty = self.shared.writer.lock().sidecar.take_dirty();
        if let Some(file) = dirty
            && let Err(e) = file.sync()
        {
            tracing::warn!(error = %e, "payloads could not be synced");
        }
    }

    fn end(&mut self) {
        if self.gave_up && !self.leave_to_heir() {
            tracing::error!(
                outcomes = self.held.len(),
                "the receipt log was shut down while the disk refused; intents without outcome read `unknown`"
            );
        }
        self.shared.wake.lock().ended = true;
        self.shared.writer.lock().sidecar.sync();
        let synced = self.head_file().and_then(|file| file.sync());
        if let Err(e) = synced {
            tracing::warn!(error = %e, "the head file could not be synced");
        }
    }

    /// What the disk refused to the last is the heir's to record, where there is one.
    fn leave_to_heir(&mut self) -> bool {
        let mut wake = self.shared.wake.lock();
        wake.ended = true;
        let queue = std::mem::take(&mut wake.queue);
        let Some(heir) = &wake.heir else { return false };
        for leaf in self.held.drain(..) {
            match leaf {
                LeafBody::Outcome(entry) => heir(entry),
                LeafBody::Outcomes(entries) => entries.into_iter().for_each(heir),
                _ => {}
            }
        }
        queue.into_iter().for_each(heir);
        true
    }
}

/// Syncs each file once, oldest first, so that no leaf is durable before the one it follows.
fn sync_files(chunks: &[Chunk]) -> io::Result<()> {
    let mut last: Option<&Arc<dyn DiskFile>> = None;
    for chunk in chunks {
        if last.is_none_or(|file| !Arc::ptr_eq(file, &chunk.file)) {
            chunk.file.sync()?;
            last = Some(&chunk.file);
        }
    }
    Ok(())
}

/// Leaves in a batch from which on the next one may wait.
const BUSY: u64 = 8;
const LINGER: Duration = Duration::from_millis(2);
/// How long an outcome of a read waits for others.
const MERGE_FOR: Duration = Duration::from_millis(20);
/// When refused outcomes are tried again.
const RETRY: Duration = Duration::from_millis(50);
const FIRST_BACKOFF: Duration = Duration::from_millis(10);
const LAST_BACKOFF: Duration = Duration::from_secs(1);
const PAYLOAD_EVERY: Duration = Duration::from_secs(1);
/// How long a shutdown waits for a failing disk.
const PATIENCE_AT_END: Duration = Duration::from_secs(2);
