//! A disk in memory that fails on purpose and forgets what was not synced.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard},
};

use aegis_receipts::{Disk, DiskFile, DiskLock};

const PAGE: usize = 4096;

/// What goes wrong, counted in calls from when it is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The nth write does nothing and fails.
    WriteError(u64),
    /// The nth write is done and fails all the same.
    WriteErrorAfter(u64),
    /// The nth write does a part, and the next fails.
    ShortWrite(u64),
    /// The nth sync of a file fails, and the kernel forgets what was dirty.
    SyncError(u64),
    /// The next sync takes 100 ms and then fails, for what was written meanwhile too.
    SlowSyncError,
    /// Syncs fail until the fault is cleared.
    SyncErrors,
}

#[derive(Default, Clone)]
struct Node {
    /// What processes see.
    live: Vec<u8>,
    /// What the platters have.
    synced: Vec<u8>,
    dirty: BTreeSet<usize>,
    reserved: usize,
}

struct State {
    nodes: Vec<Node>,
    names: BTreeMap<PathBuf, usize>,
    durable_names: BTreeMap<PathBuf, usize>,
    /// Handles of a dead process do nothing.
    epoch: u64,
    locked: bool,
    fault: Option<Fault>,
    fail_next_write: bool,
    capacity: usize,
    rng: u64,
    pub syncs: u64,
}

#[derive(Clone)]
pub struct SimDisk(Arc<Mutex<State>>);

struct SimFile {
    disk: SimDisk,
    node: usize,
    epoch: u64,
}

struct SimLock(SimDisk, u64);
impl DiskLock for SimLock {}
impl Drop for SimLock {
    fn drop(&mut self) {
        let mut state = self.0.state();
        if state.epoch == self.1 {
            state.locked = false;
        }
    }
}

impl SimDisk {
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(State {
            nodes: Vec::new(),
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            epoch: 0,
            locked: false,
            fault: None,
            fail_next_write: false,
            capacity: usize::MAX,
            rng: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            syncs: 0,
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    pub fn random(&self, below: u64) -> u64 {
        self.state().random(below)
    }

    pub fn set_fault(&self, fault: Option<Fault>) {
        let mut state = self.state();
        state.fault = fault;
        state.fail_next_write = false;
    }

    /// Bytes that fit, all files together.
    pub fn set_capacity(&self, bytes: usize) {
        self.state().capacity = bytes;
    }

    pub fn used(&self) -> usize {
        self.state().used()
    }

    pub fn syncs(&self) -> u64 {
        self.state().syncs
    }

    /// kill -9: what was written stays, whoever wrote it is gone.
    pub fn kill(&self) {
        let mut state = self.state();
        state.epoch += 1;
        state.locked = false;
        state.fault = None;
        state.fail_next_write = false;
    }

    /// Power cut: of what was not synced, any pages and any names survive.
    pub fn crash(&self) {
        self.kill();
        let mut state = self.state();
        let mut nodes = std::mem::take(&mut state.nodes);
        for node in &mut nodes {
            let mut after = node.synced.clone();
            for page in std::mem::take(&mut node.dirty) {
                if state.random(2) == 0 {
                    continue;
                }
                let start = page * PAGE;
                let end = node.live.len().min(start + PAGE);
                if start < end {
                    if after.len() < end {
                        after.resize(end, 0);
                    }
                    after[start..end].copy_from_slice(&node.live[start..end]);
                }
            }
            node.live.clone_from(&after);
            node.synced = after;
            node.reserved = node.reserved.min(node.live.len());
        }
        state.nodes = nodes;
        let (live, durable) = (state.names.clone(), state.durable_names.clone());
        let all: BTreeSet<&PathBuf> = live.keys().chain(durable.keys()).collect();
        let mut names = BTreeMap::new();
        for name in all {
            let from = if live.get(name) == durable.get(name) || state.random(2) == 0 { &durable } else { &live };
            if let Some(node) = from.get(name) {
                names.insert(name.clone(), *node);
            }
        }
        state.names.clone_from(&names);
        state.durable_names = names;
    }

    /// The bytes of a file as processes see them.
    pub fn bytes(&self, path: &Path) -> Vec<u8> {
        let state = self.state();
        state.nodes[state.names[path]].live.clone()
    }

    /// Replaces a file, durably.
    pub fn put(&self, path: &Path, bytes: &[u8]) {
        let mut state = self.state();
        let node = state.names[path];
        state.nodes[node] = Node { live: bytes.to_vec(), synced: bytes.to_vec(), ..Node::default() };
    }

    pub fn names(&self) -> Vec<PathBuf> {
        self.state().names.keys().cloned().collect()
    }

    /// A disk of its own with the same files.
    pub fn fork(&self) -> Self {
        let state = self.state();
        Self(Arc::new(Mutex::new(State {
            nodes: state.nodes.clone(),
            names: state.names.clone(),
            durable_names: state.durable_names.clone(),
            epoch: 0,
            locked: false,
            fault: None,
            fail_next_write: false,
            capacity: usize::MAX,
            rng: state.rng,
            syncs: 0,
        })))
    }

    /// A process that uses this disk, until it is killed.
    pub fn process(&self) -> Arc<dyn Disk> {
        Arc::new(Process { disk: self.clone(), epoch: self.state().epoch })
    }

    fn file(&self, path: &Path, create: bool, epoch: u64) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.state();
        let node = match state.names.get(path) {
            Some(node) => *node,
            // A file of its own, and of nobody else.
            None if create && state.epoch != epoch => {
                state.nodes.push(Node::default());
                state.nodes.len() - 1
            }
            None if create => {
                state.nodes.push(Node::default());
                let node = state.nodes.len() - 1;
                state.names.insert(path.to_path_buf(), node);
                node
            }
            None => return Err(io::ErrorKind::NotFound.into()),
        };
        Ok(Arc::new(SimFile { disk: self.clone(), node, epoch }))
    }
}

impl State {
    fn random(&mut self, below: u64) -> u64 {
        self.rng ^= self.rng << 13;
        self.rng ^= self.rng >> 7;
        self.rng ^= self.rng << 17;
        (self.rng >> 11) % below
    }

    fn used(&self) -> usize {
        let alive: BTreeSet<_> = self.names.values().collect();
        alive.into_iter().map(|n| self.nodes[*n].live.len().max(self.nodes[*n].reserved)).sum()
    }

    /// Counts a fault down; true when it strikes.
    fn strikes(&mut self, is: impl Fn(&mut Fault) -> Option<&mut u64>) -> bool {
        let Some(left) = self.fault.as_mut().and_then(is) else { return false };
        if *left > 0 {
            *left -= 1;
            return false;
        }
        self.fault = None;
        true
    }
}

/// The disk as one process sees it. What a dead process still does has no effect.
struct Process {
    disk: SimDisk,
    epoch: u64,
}

impl Process {
    fn alive(&self) -> Option<MutexGuard<'_, State>> {
        let state = self.disk.state();
        (state.epoch == self.epoch).then_some(state)
    }
}

impl Disk for Process {
    fn make_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }
    fn lock(&self, _: &Path) -> io::Result<Box<dyn DiskLock>> {
        let mut state = self.disk.state();
        if std::mem::replace(&mut state.locked, true) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(Box::new(SimLock(self.disk.clone(), self.epoch)))
    }
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.disk.file(path, true, self.epoch)
    }
    fn open_read(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.disk.file(path, false, self.epoch)
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let state = self.disk.state();
        let here = state.names.keys().filter(|path| path.parent() == Some(dir));
        Ok(here.map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()).collect())
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let Some(mut state) = self.alive() else { return Ok(()) };
        let node = state.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        state.names.insert(to.to_path_buf(), node);
        Ok(())
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        let Some(mut state) = self.alive() else { return Ok(()) };
        state.names.remove(path).map(|_| ()).ok_or(io::ErrorKind::NotFound.into())
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let Some(mut state) = self.alive() else { return Ok(()) };
        let live: Vec<_> =
            state.names.iter().filter(|(p, _)| p.parent() == Some(dir)).map(|(p, n)| (p.clone(), *n)).collect();
        state.durable_names.retain(|path, _| path.parent() != Some(dir));
        state.durable_names.extend(live);
        Ok(())
    }
}

impl DiskFile for SimFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let state = self.disk.state();
        let live = &state.nodes[self.node].live;
        let start = live.len().min(offset as usize);
        let n = buf.len().min(live.len() - start);
        buf[..n].copy_from_slice(&live[start..start + n]);
        Ok(n)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let mut state = self.disk.state();
        if state.epoch != self.epoch {
            return Ok(bytes.len());
        }
        let broken = || io::Error::other("simulated write error");
        if std::mem::take(&mut state.fail_next_write) {
            return Err(broken());
        }
        if state.strikes(|f| if let Fault::WriteError(n) = f { Some(n) } else { None }) {
            return Err(broken());
        }
        let after = state.strikes(|f| if let Fault::WriteErrorAfter(n) = f { Some(n) } else { None });
        let short = state.strikes(|f| if let Fault::ShortWrite(n) = f { Some(n) } else { None });
        let start = offset as usize;
        let mut n = bytes.len();
        if short {
            n = 1.max(state.random(n as u64) as usize);
            state.fail_next_write = true;
        }
        // Within length or reservation there is always space.
        let (used, capacity) = (state.used(), state.capacity);
        let node = &mut state.nodes[self.node];
        let owned = node.live.len().max(node.reserved);
        let may_end = owned.saturating_add(capacity.saturating_sub(used));
        if start + n > may_end {
            n = may_end.saturating_sub(start);
            if n == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
        }
        if node.live.len() < start + n {
            node.live.resize(start + n, 0);
        }
        node.live[start..start + n].copy_from_slice(&bytes[..n]);
        node.dirty.extend(start / PAGE..=(start + n.max(1) - 1) / PAGE);
        if after { Err(broken()) } else { Ok(n) }
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.disk.state();
        if state.epoch != self.epoch {
            return Ok(());
        }
        state.syncs += 1;
        let slow = state.fault == Some(Fault::SlowSyncError);
        if slow {
            state.fault = None;
            drop(state);
            std::thread::sleep(std::time::Duration::from_millis(100));
            state = self.disk.state();
        }
        let fails = slow
            || state.fault == Some(Fault::SyncErrors)
            || state.strikes(|f| if let Fault::SyncError(n) = f { Some(n) } else { None });
        let node = &mut state.nodes[self.node];
        let dirty = std::mem::take(&mut node.dirty);
        if fails {
            return Err(io::Error::other("simulated sync error"));
        }
        node.synced.resize(node.live.len(), 0);
        for page in dirty {
            let start = page * PAGE;
            let end = node.live.len().min(start + PAGE);
            if start < end {
                let (synced, live) = (&mut node.synced, &node.live);
                synced[start..end].copy_from_slice(&live[start..end]);
            }
        }
        Ok(())
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        let mut state = self.disk.state();
        if state.epoch != self.epoch {
            return Ok(());
        }
        let (used, capacity) = (state.used(), state.capacity);
        let node = &mut state.nodes[self.node];
        let owned = node.live.len().max(node.reserved);
        if (len as usize).saturating_sub(owned) > capacity.saturating_sub(used) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        node.reserved = node.reserved.max(len as usize);
        Ok(())
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        let mut state = self.disk.state();
        if state.epoch == self.epoch {
            let node = &mut state.nodes[self.node];
            node.live.resize(len as usize, 0);
            node.reserved = len as usize;
        }
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.state().nodes[self.node].live.len() as u64)
    }
}
