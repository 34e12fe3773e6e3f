//! The log: one directory, one writer, leaves in the order they were decided.

mod outcomes;
mod read;
mod recover;
mod sidecar;
mod sync;
mod tail;
mod writer;

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use aegis_action::{Clock, Digest};
use parking_lot::{Condvar, Mutex};
use tokio::sync::watch;

use crate::{
    disk::{Disk, DiskLock},
    error::LogError,
    id::is_node,
    leaf::{LeafBody, OutcomeEntry},
    segment::BUNDLE,
};
use outcomes::Wake;
use sync::Progress;
pub(crate) use writer::CLOCK_STEP_MS;
use writer::{Purpose, Writer};

/// Leaves in one append.
pub const MAX_BATCH: usize = BUNDLE as usize;
/// Allowed intents without an outcome.
pub const MAX_OPEN_INTENTS: usize = 65_536;
/// Bytes of segment kept free for the outcome of each allowed intent in flight.
pub const OUTCOME_RESERVE: u64 = 2048;
/// One sealed payload.
pub const MAX_PAYLOAD_BYTES: usize = 2 * 1024 * 1024;

/// Where and how a log is kept.
#[derive(Debug, Clone)]
pub struct LogOptions {
    /// Its directory, of its own; created for the owner only.
    pub dir: PathBuf,
    /// Node id, 1 to 32 of `a-z0-9-`. Processes that share a store have distinct ones.
    pub node: String,
    /// Leaves per segment file, a multiple of 256. Default 65,536.
    pub segment_leaves: u32,
    /// Bytes by which a segment's reserved space grows. Default 16 MiB.
    pub preallocate: u64,
}

impl LogOptions {
    /// The defaults.
    pub fn new(dir: impl Into<PathBuf>, node: impl Into<String>) -> Self {
        Self { dir: dir.into(), node: node.into(), segment_leaves: 65_536, preallocate: 16 * 1024 * 1024 }
    }

    fn check(&self) -> Result<(), LogError> {
        if !is_node(&self.node) {
            return Err(LogError::BadOptions("`node` must be 1 to 32 of `a-z`, `0-9`, `-`".into()));
        }
        if self.segment_leaves == 0 || !self.segment_leaves.is_multiple_of(BUNDLE) {
            return Err(LogError::BadOptions(format!("`segment_leaves` must be a multiple of {BUNDLE}")));
        }
        if self.preallocate == 0 {
            return Err(LogError::BadOptions("`preallocate` must not be 0".into()));
        }
        Ok(())
    }
}

/// A leaf that was just recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Appended {
    /// Its place in the log.
    pub seq: u64,
    /// `rcp_<node>_<seq>`.
    pub receipt_id: String,
    /// SHA-256 of its bytes.
    pub receipt_hash: Digest,
    /// SHA-256 of the leaf before it.
    pub prev_receipt_hash: Digest,
}

/// A leaf read back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredLeaf {
    /// Its place in the log.
    pub seq: u64,
    /// Exactly the bytes that were hashed.
    pub bytes: Vec<u8>,
    /// SHA-256 of them.
    pub hash: Digest,
}

/// Where the log ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// Sequence number of the next leaf.
    pub next_seq: u64,
    /// Hash of the last leaf; zeros where there is none.
    pub last_hash: Digest,
    /// The last leaf that a power cut cannot take; `None` where there is none.
    pub durable_through: Option<u64>,
    /// Allowed intents whose outcome is not recorded yet.
    pub open_intents: usize,
    /// Payloads that could not be stored since the log was opened. Their leaves stand.
    pub payloads_lost: u64,
}

/// What opening found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Leaves in the log, before one was added for the recovery itself.
    pub leaves: u64,
    /// Bytes of a torn tail that were cut.
    pub cut_bytes: u64,
    /// Whole records among them.
    pub cut_leaves: u64,
    /// Where they are kept.
    pub torn: Option<PathBuf>,
    /// Bytes of the payload sidecar that were cut.
    pub cut_payload_bytes: u64,
    /// The head file was missing or torn, so all leaves were checked.
    pub head_rebuilt: bool,
    /// Whether the file system can reserve space. Where it cannot, a full disk may lose outcomes to "unknown".
    pub preallocates: bool,
}

/// An open log.
///
/// Contract:
/// - When [`ReceiptLog::append`] returns, the leaves are with the kernel: they survive the
///   death of this process. When [`ReceiptLog::durable`] returns `Ok`, they survive a power cut.
/// - An append records all its leaves, in order and without others between them, or none.
///   It does not await, so dropping a future cannot tear it.
/// - After an error the log is usable: the next append tries again by itself.
/// - All methods may be called concurrently. `append` and `read` block for as long as a
///   write to the page cache takes.
pub struct ReceiptLog {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
    lock: Mutex<Option<Box<dyn DiskLock>>>,
}

/// Who records the outcomes that a log gets after it was handed over. Called under a lock: it must not block.
pub type Heir = Box<dyn Fn(OutcomeEntry) + Send>;

/// What the callers and the sync thread share. Lock order: `writer` before `wake`.
struct Shared {
    options: LogOptions,
    disk: Arc<dyn Disk>,
    writer: Mutex<Writer>,
    wake: Mutex<Wake>,
    bell: Condvar,
    /// Number of durable leaves; the copy of [`Progress`] that is read without a lock.
    durable: AtomicU64,
    progress: watch::Sender<Progress>,
    /// Offsets of finished segments, by first sequence number, made when first read.
    indexes: Mutex<HashMap<u64, Arc<read::Index>>>,
}

impl ReceiptLog {
    /// Opens or creates a log, alone: a second opener gets [`LogError::Locked`].
    ///
    /// A tail torn by a crash is cut, kept in `torn/` and put on record. Anything else
    /// that does not hold is [`LogError::Tampered`] and is left as it is.
    pub fn open(
        options: LogOptions,
        clock: Arc<dyn Clock>,
        disk: Arc<dyn Disk>,
    ) -> Result<(Arc<Self>, Recovered), LogError> {
        options.check()?;
        let (writer, recovered, lock) = recover::open(&options, clock, &disk)?;
        let durable = writer.next_seq();
        let (progress, _) = watch::channel(Progress { durable, failing: None });
        let shared = Arc::new(Shared {
            options,
            disk,
            writer: Mutex::new(writer),
            wake: Mutex::new(Wake::default()),
            bell: Condvar::new(),
            durable: AtomicU64::new(durable),
            progress,
            indexes: Mutex::new(HashMap::new()),
        });
        let thread = sync::spawn(Arc::clone(&shared)).map_err(|e| LogError::io("start the sync thread", &e))?;
        Ok((Arc::new(Self { shared, thread: Mutex::new(Some(thread)), lock: Mutex::new(Some(lock)) }), recovered))
    }

    /// Records leaves: at most [`MAX_BATCH`], all or none.
    pub fn append(&self, leaves: Vec<LeafBody>) -> Result<Vec<Appended>, LogError> {
        let appended = self.shared.writer.lock().append(&leaves, Purpose::Ordinary)?;
        self.shared.ring();
        Ok(appended)
    }

    /// Records leaves with one opaque payload each, sealed by the caller, at most
    /// [`MAX_PAYLOAD_BYTES`]. A payload that cannot be stored does not hold the leaf up: it
    /// is counted in [`Head::payloads_lost`].
    pub fn append_with_payloads(&self, leaves: Vec<(LeafBody, Option<Vec<u8>>)>) -> Result<Vec<Appended>, LogError> {
        let (leaves, payloads): (Vec<_>, Vec<_>) = leaves.into_iter().unzip();
        if let Some(bytes) = payloads.iter().flatten().map(Vec::len).find(|len| *len > MAX_PAYLOAD_BYTES) {
            return Err(LogError::TooLarge { bytes, limit: MAX_PAYLOAD_BYTES });
        }
        let appended = {
            let mut writer = self.shared.writer.lock();
            let appended = writer.append(&leaves, Purpose::Ordinary)?;
            for (leaf, payload) in appended.iter().zip(&payloads) {
                if let Some(payload) = payload {
                    writer.store_payload(leaf.seq, payload);
                }
            }
            appended
        };
        self.shared.ring();
        Ok(appended)
    }

    /// Waits until everything up to and including `seq` is synced.
    ///
    /// Fails once the disk has refused for 2 s, or has not answered for 10 s. The leaf may
    /// become durable later, so the caller denies and records an aborted outcome.
    pub async fn durable(&self, seq: u64) -> Result<(), LogError> {
        if self.is_durable(seq) {
            return Ok(());
        }
        if seq >= self.shared.writer.lock().next_seq() {
            return Err(LogError::NoSuchLeaf(seq));
        }
        let mut progress = self.shared.progress.subscribe();
        let patience = Instant::now() + PATIENCE;
        loop {
            let until = {
                let now = progress.borrow_and_update();
                if now.durable > seq {
                    return Ok(());
                }
                now.failing.as_ref().map_or(patience, |failing| patience.min(failing.since + PATIENCE_WITH_ERRORS))
            };
            match tokio::time::timeout_at(until.into(), progress.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Err(LogError::Closed),
                Err(_) => return self.not_durable(seq),
            }
        }
    }

    fn not_durable(&self, seq: u64) -> Result<(), LogError> {
        let now = self.shared.progress.borrow();
        if now.durable > seq {
            return Ok(());
        }
        let cause = now.failing.as_ref().map_or_else(|| "the disk does not answer".to_owned(), |f| f.cause.clone());
        Err(LogError::NotDurable { seq, cause })
    }

    /// Whether a leaf is synced. Takes no lock.
    pub fn is_durable(&self, seq: u64) -> bool {
        self.shared.durable.load(Ordering::Acquire) > seq
    }

    /// Queues what became of an allowed intent of [`ReceiptLog::append`]; never waits, never fails.
    ///
    /// Room for it was kept when the intent was admitted. Reads are merged, for at most
    /// 20 ms. Texts are clipped to 128 bytes (`tamper` 256). For an outcome that someone else reports (the
    /// SDK door), append [`LeafBody::Outcome`] instead, which can say that the log is full.
    pub fn outcome(&self, outcome: OutcomeEntry) {
        self.shared.queue_outcome(outcome);
    }

    /// Where the log ends.
    pub fn head(&self) -> Head {
        let writer = self.shared.writer.lock();
        let durable = self.shared.durable.load(Ordering::Acquire);
        Head {
            next_seq: writer.next_seq(),
            last_hash: writer.last_hash(),
            durable_through: durable.checked_sub(1),
            open_intents: writer.open_intents(),
            payloads_lost: writer.payloads_lost(),
        }
    }

    /// At most `max` leaves from `from_seq` on, fewer when they are more than 8 MiB; empty at the end of the log.
    pub fn read(&self, from_seq: u64, max: usize) -> Result<Vec<StoredLeaf>, LogError> {
        self.shared.read(from_seq, max)
    }

    /// One leaf.
    pub fn leaf(&self, seq: u64) -> Result<Option<StoredLeaf>, LogError> {
        Ok(self.shared.read(seq, 1)?.pop())
    }

    /// The payload of a leaf; `None` where there was none, it was erased, or a crash took it.
    pub fn payload(&self, seq: u64) -> Result<Option<Vec<u8>>, LogError> {
        self.shared.payload(seq)
    }

    /// Overwrites a payload with zeros, durably; `Ok(false)` where there was none. The leaf and the chain stand.
    pub fn erase_payload(&self, seq: u64) -> Result<bool, LogError> {
        self.shared.erase_payload(seq)
    }

    /// Whether the log can be written at present. After a failure this tries whether the
    /// disk has room again, so a readiness probe recovers without an append.
    pub fn health(&self) -> Result<(), LogError> {
        if let Some(failing) = &self.shared.progress.borrow().failing {
            return Err(LogError::Io { doing: "sync", cause: failing.cause.clone() });
        }
        self.shared.writer.lock().probe()
    }

    /// Records queued outcomes, syncs and ends the sync thread; blocks meanwhile, at most
    /// about 2 s when the disk fails. Later appends are [`LogError::Closed`].
    pub fn shutdown(&self) {
        self.shared.writer.lock().close();
        self.shared.wake.lock().closing = true;
        self.shared.bell.notify_one();
        if let Some(thread) = self.thread.lock().take()
            && thread.join().is_err()
        {
            tracing::error!("receipt sync thread ended abnormally");
        }
    }

    /// Ends this process's writing and frees the directory for the next writer. Everything so far
    /// is recorded and synced as by [`ReceiptLog::shutdown`]; outcomes that come later go to `heir`.
    ///
    /// Returns the intents that still wait for their outcome, which the next writer is told with
    /// [`ReceiptLog::expect`].
    pub fn hand_over(&self, heir: Heir) -> Vec<u64> {
        self.shared.wake.lock().heir = Some(heir);
        self.shutdown();
        // Last: from here on the directory is somebody else's.
        drop(self.lock.lock().take());
        self.shared.writer.lock().open()
    }

    /// Keeps room for the outcomes of intents that an earlier writer still has in flight.
    pub fn expect(&self, intents: &[u64]) {
        self.shared.writer.lock().expect(intents);
    }

    /// The node this log belongs to.
    pub fn node(&self) -> &str {
        &self.shared.options.node
    }
}

impl Drop for ReceiptLog {
    fn drop(&mut self) {
        self.shutdown();
    }
}

/// How long [`ReceiptLog::durable`] waits for a disk that says nothing.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long it waits for a disk that reports errors.
const PATIENCE_WITH_ERRORS: Duration = Duration::from_secs(2);
