//! What only the embedded vault has: its master key, its file, crashes.

use std::sync::atomic::{AtomicUsize, Ordering};

use aegis_action::Timestamp;
use zeroize::Zeroizing;

use super::*;
use crate::conformance::TestClock;

const KEY: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
const OTHER: &str = "ff0102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

fn master(hex: &str) -> MasterKey {
    MasterKey::from_env(hex).unwrap()
}

fn open(path: &Path, master: &MasterKey) -> Result<EmbeddedVault, VaultError> {
    EmbeddedVault::open(path, master, TestClock::at(42))
}

fn folder() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("vault.json");
    (folder, path)
}

async fn put(vault: &EmbeddedVault, key: &str, value: &str) -> Result<String, VaultError> {
    vault.put(key, Secret::from(value.to_owned())).await
}

async fn value(vault: &EmbeddedVault, key: &str) -> Option<String> {
    match vault.lease(key).await {
        Ok(leased) => Some(String::from_utf8(leased.value.expose().to_vec()).unwrap()),
        Err(VaultError::NotFound(_)) => None,
        Err(other) => panic!("{other}"),
    }
}

#[track_caller]
fn sealed<T: fmt::Debug>(answer: Result<T, VaultError>, says: &str) {
    match answer {
        Err(VaultError::Sealed(text)) => assert!(text.contains(says), "`{text}` should say `{says}`"),
        other => panic!("expected sealed, got {other:?}"),
    }
}

#[track_caller]
fn unavailable<T: fmt::Debug>(answer: Result<T, VaultError>, says: &str) {
    match answer {
        Err(VaultError::Unavailable(text)) => assert!(text.contains(says), "`{text}` should say `{says}`"),
        other => panic!("expected unavailable, got {other:?}"),
    }
}

#[tokio::test]
async fn values_versions_and_derived_keys_are_there_after_reopening() {
    let (_folder, path) = folder();
    let vault = open(&path, &master(KEY)).unwrap();
    let version = put(&vault, "github", "ghp_1").await.unwrap();
    put(&vault, "npm/token", "npm_1").await.unwrap();
    assert!(vault.remove("npm/token").await.unwrap());
    assert!(!vault.remove("npm/token").await.unwrap());
    let derived = vault.root_key().derive_key("token-hash");
    drop(vault);
    let vault = open(&path, &master(KEY)).unwrap();
    let leased = vault.lease("github").await.unwrap();
    assert_eq!((leased.value.expose(), leased.version), (&b"ghp_1"[..], version.clone()));
    assert_eq!(vault.root_key().derive_key("token-hash"), derived);
    let listed = vault.list().await.unwrap().unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!((listed[0].key.as_str(), &listed[0].version, listed[0].updated_at), ("github", &version, Timestamp(42)));
}

#[tokio::test]
async fn two_vaults_share_no_key() {
    let ((_a, one), (_b, two)) = (folder(), folder());
    let (one, two) = (open(&one, &master(KEY)).unwrap(), open(&two, &master(KEY)).unwrap());
    assert_ne!(one.root_key().derive_key("token-hash"), two.root_key().derive_key("token-hash"));
}

#[tokio::test]
async fn the_wrong_master_key_says_how_to_fix_it() {
    let (_folder, path) = folder();
    let passphrase = |text: &str| MasterKey::from_passphrase(Zeroizing::new(text.into())).unwrap();
    drop(open(&path, &master(KEY)).unwrap());
    sealed(open(&path, &master(OTHER)), "start with the master key that it was made with");
    sealed(open(&path, &passphrase("a long passphrase")), "start with that key");
    let missing = path.with_file_name("master.key");
    sealed(open(&path, &MasterKey::from_file(&missing).unwrap()), "restore the file from your backup");
    assert!(!missing.exists(), "a key that opens nothing is not made");

    let (_folder, path) = folder();
    drop(open(&path, &passphrase("a long passphrase")).unwrap());
    sealed(open(&path, &passphrase("another passphrase")), "start with the master key");
    sealed(open(&path, &master(KEY)), "start with that passphrase");
    open(&path, &passphrase("a long passphrase")).unwrap();
}

#[tokio::test]
async fn a_key_file_is_made_once_and_for_its_owner_only() {
    use std::os::unix::fs::PermissionsExt as _;
    let (folder, path) = folder();
    let key_path = folder.path().join("master.key");
    let vault = open(&path, &MasterKey::from_file(&key_path).unwrap()).unwrap();
    put(&vault, "k", "v").await.unwrap();
    let key = fs::read_to_string(&key_path).unwrap();
    drop(vault);
    assert_eq!(value(&open(&path, &MasterKey::from_file(&key_path).unwrap()).unwrap(), "k").await.unwrap(), "v");
    assert_eq!(fs::read_to_string(&key_path).unwrap(), key);
    assert_eq!(value(&open(&path, &master(key.trim())).unwrap(), "k").await.unwrap(), "v");
    for entry in fs::read_dir(folder.path()).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{entry:?}");
    }
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let _vault = open(&path, &master(key.trim())).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
}

#[tokio::test]
async fn the_vault_belongs_to_one_process() {
    let (_folder, path) = folder();
    let vault = open(&path, &master(KEY)).unwrap();
    let clone = vault.clone();
    unavailable(open(&path, &master(KEY)), "in use by another process");
    drop(vault);
    unavailable(open(&path, &master(KEY)), "in use by another process");
    drop(clone);
    open(&path, &master(KEY)).unwrap();
}

#[tokio::test]
async fn no_changed_byte_of_the_file_goes_unnoticed() {
    let (_folder, path) = folder();
    let vault = open(&path, &master(KEY)).unwrap();
    put(&vault, "a", "value-a").await.unwrap();
    put(&vault, "b", "value-b").await.unwrap();
    drop(vault);
    let whole = fs::read(&path).unwrap();
    let mut refused = 0;
    for at in 0..whole.len() {
        for flip in [0x01, 0x20] {
            let mut changed = whole.clone();
            changed[at] ^= flip;
            fs::write(&path, &changed).unwrap();
            match open(&path, &master(KEY)) {
                Err(VaultError::Sealed(_)) => refused += 1,
                Err(other) => panic!("byte {at}: {other}"),
                // White space of the JSON, or the case of a hex digit, says the same.
                Ok(vault) => {
                    assert_eq!(value(&vault, "a").await.unwrap(), "value-a");
                    assert_eq!(value(&vault, "b").await.unwrap(), "value-b");
                }
            }
        }
    }
    assert!(refused > whole.len());
    for cut in [0, 1, whole.len() / 2, whole.len() - 3] {
        fs::write(&path, &whole[..cut]).unwrap();
        sealed(open(&path, &master(KEY)), "restore it from a backup");
    }
}

#[tokio::test]
async fn entries_cannot_be_swapped_dropped_or_put_back() {
    let (_folder, path) = folder();
    let vault = open(&path, &master(KEY)).unwrap();
    put(&vault, "a", "value-a").await.unwrap();
    let old: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    put(&vault, "a", "value-2").await.unwrap();
    put(&vault, "b", "value-b").await.unwrap();
    drop(vault);
    let now: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let try_with = |change: &dyn Fn(&mut serde_json::Value)| {
        let mut changed = now.clone();
        change(&mut changed["contents"]["entries"]);
        assert_ne!(changed, now);
        fs::write(&path, changed.to_string()).unwrap();
        sealed(open(&path, &master(KEY)), "changed by something else");
    };
    try_with(&|e| (e["a"], e["b"]) = (e["b"].clone(), e["a"].clone()));
    try_with(&|e| e["a"] = old["contents"]["entries"]["a"].clone());
    try_with(&|e| drop(e.as_object_mut().unwrap().remove("b")));
    fs::write(&path, now.to_string()).unwrap();
    open(&path, &master(KEY)).unwrap();
}

/// Also without the code over the whole file.
#[test]
fn a_sealed_value_opens_only_under_its_key_and_version() {
    let sealer = RootKey::generate(&OsEntropy).unwrap().sealer(VALUES);
    let seal = |key: &str, version: &str| {
        let value = Secret::from("value".to_owned());
        Entry::seal(&sealer, key, version.into(), Timestamp(1), &value).unwrap()
    };
    let entry = seal("a", "1-x");
    assert_eq!(entry.open(&sealer, "a").unwrap().expose(), b"value");
    sealed(entry.open(&sealer, "b"), "`b`");
    let under = |version: &str, entry: Entry| Entry { version: version.into(), ..entry };
    sealed(under("2-x", entry).open(&sealer, "a"), "its place");
    sealed(under("1", seal("a", "11")).open(&sealer, "a1"), "its place");
}

#[tokio::test]
async fn versions_stay_apart_when_an_older_copy_is_put_back() {
    let (_folder, path) = folder();
    let vault = open(&path, &master(KEY)).unwrap();
    let copy = fs::read(&path).unwrap();
    let first = put(&vault, "k", "one").await.unwrap();
    let second = put(&vault, "k", "two").await.unwrap();
    let count = |v: &str| v.split('-').next().unwrap().parse::<u64>().unwrap();
    assert!(count(&second) > count(&first));
    drop(vault);
    fs::write(&path, copy).unwrap();
    let again = put(&open(&path, &master(KEY)).unwrap(), "k", "other").await.unwrap();
    assert_eq!(count(&again), count(&first));
    assert_ne!(again, first);
}

#[tokio::test]
async fn a_rekey_changes_the_lock_and_nothing_else() {
    let (folder, path) = folder();
    let vault = open(&path, &master(KEY)).unwrap();
    let version = put(&vault, "k", "v").await.unwrap();
    let derived = vault.root_key().derive_key("token-hash");
    vault.rekey(master(OTHER)).await.unwrap();
    assert_eq!(vault.lease("k").await.unwrap().version, version);
    drop(vault);
    sealed(open(&path, &master(KEY)), "start with the master key");
    let vault = open(&path, &master(OTHER)).unwrap();
    assert_eq!(vault.lease("k").await.unwrap().version, version);
    assert_eq!(vault.root_key().derive_key("token-hash"), derived);
    let key_path = folder.path().join("master.key");
    vault.rekey(MasterKey::from_file(&key_path).unwrap()).await.unwrap();
    drop(vault);
    let vault = open(&path, &MasterKey::from_file(&key_path).unwrap()).unwrap();
    vault.rekey(MasterKey::from_passphrase(Zeroizing::new("a long passphrase".into())).unwrap()).await.unwrap();
    drop(vault);
    sealed(open(&path, &MasterKey::from_file(&key_path).unwrap()), "start with that passphrase");
}

#[tokio::test]
async fn a_file_that_is_changed_or_gone_is_not_healthy_and_the_next_change_mends_it() {
    let (_folder, path) = folder();
    let vault = open(&path, &master(KEY)).unwrap();
    put(&vault, "k", "v").await.unwrap();
    fs::write(&path, "{}").unwrap();
    unavailable(vault.health().await, "changed by something else");
    fs::remove_file(&path).unwrap();
    unavailable(vault.health().await, "gone");
    put(&vault, "k2", "v2").await.unwrap();
    vault.health().await.unwrap();
    drop(vault);
    assert_eq!(value(&open(&path, &master(KEY)).unwrap(), "k").await.unwrap(), "v");
}

/// When a disk operation is cut short.
#[derive(Clone, Copy, Debug, PartialEq)]
enum When {
    Before,
    Halfway,
    After,
}

/// Fails the operation with number `at`; from then on everything (a crash) or nothing else (a hiccup).
struct FaultyDisk {
    at: usize,
    when: When,
    crash: bool,
    calls: AtomicUsize,
}

impl FaultyDisk {
    fn run(&self, halfway: impl FnOnce(), whole: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let call = self.calls.fetch_add(1, Ordering::SeqCst);
        if call < self.at || (call > self.at && !self.crash) {
            return whole();
        }
        if call == self.at {
            match self.when {
                When::Before => {}
                When::Halfway => halfway(),
                When::After => whole()?,
            }
        }
        Err(io::Error::from(io::ErrorKind::StorageFull))
    }
}

impl Disk for FaultyDisk {
    fn read(&self, path: &Path) -> io::Result<Option<Vec<u8>>> {
        OsDisk.read(path)
    }
    fn write_synced(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let half = || OsDisk.write_synced(path, &bytes[..bytes.len() / 2]).unwrap();
        self.run(half, || OsDisk.write_synced(path, bytes))
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.run(|| {}, || OsDisk.rename(from, to))
    }
    fn link_new(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.run(|| {}, || OsDisk.link_new(from, to))
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.run(|| {}, || OsDisk.remove(path))
    }
    fn sync_folder_of(&self, path: &Path) -> io::Result<()> {
        self.run(|| {}, || OsDisk.sync_folder_of(path))
    }
}

fn faulty(at: usize, when: When, crash: bool) -> (Parts, Arc<FaultyDisk>) {
    let disk = Arc::new(FaultyDisk { at, when, crash, calls: AtomicUsize::new(0) });
    (Parts { disk: disk.clone(), clock: TestClock::at(42), entropy: Arc::new(OsEntropy) }, disk)
}

/// Every (step, moment) until the work needs fewer steps than the step that fails.
async fn at_each_step(mut work: impl AsyncFnMut(Parts, Arc<FaultyDisk>)) {
    for at in 0.. {
        let mut reached = false;
        for when in [When::Before, When::Halfway, When::After] {
            let (parts, disk) = faulty(at, when, true);
            work(parts, disk.clone()).await;
            reached |= disk.calls.load(Ordering::SeqCst) > at;
        }
        if !reached {
            assert!(at >= 3, "write, rename and sync are steps");
            return;
        }
    }
}

#[tokio::test]
async fn a_crash_at_any_step_of_a_put_leaves_the_old_or_the_new() {
    let mut outcomes = Vec::new();
    at_each_step(async |parts, _| {
        let (_folder, path) = folder();
        let vault = open(&path, &master(KEY)).unwrap();
        put(&vault, "k", "old").await.unwrap();
        put(&vault, "other", "kept").await.unwrap();
        drop(vault);
        let vault = EmbeddedVault::open_with(&path, &master(KEY), parts).unwrap();
        let done = put(&vault, "k", "new").await.is_ok();
        drop(vault);
        let vault = open(&path, &master(KEY)).unwrap();
        let found = value(&vault, "k").await.unwrap();
        assert_eq!(value(&vault, "other").await.unwrap(), "kept");
        assert!(found == "new" || (found == "old" && !done));
        put(&vault, "k", "next").await.unwrap();
        assert!(!path.with_file_name("vault.json.tmp").exists());
        outcomes.push((found, done));
    })
    .await;
    for expected in [("old", false), ("new", false), ("new", true)] {
        assert!(outcomes.contains(&(expected.0.to_owned(), expected.1)), "{expected:?} never happened");
    }
}

#[tokio::test]
async fn a_crash_at_any_step_of_a_removal_leaves_the_old_or_the_new() {
    at_each_step(async |parts, _| {
        let (_folder, path) = folder();
        let vault = open(&path, &master(KEY)).unwrap();
        put(&vault, "k", "old").await.unwrap();
        drop(vault);
        let vault = EmbeddedVault::open_with(&path, &master(KEY), parts).unwrap();
        let done = vault.remove("k").await.is_ok();
        drop(vault);
        let found = value(&open(&path, &master(KEY)).unwrap(), "k").await;
        assert!(found.is_none() || (found.as_deref() == Some("old") && !done));
    })
    .await;
}

#[tokio::test]
async fn a_crash_at_any_step_of_the_first_start_leaves_one_that_can_be_repeated() {
    at_each_step(async |parts, _| {
        let (folder, path) = folder();
        let key_path = folder.path().join("master.key");
        let first = EmbeddedVault::open_with(&path, &MasterKey::from_file(&key_path).unwrap(), parts);
        drop(first);
        let vault = open(&path, &MasterKey::from_file(&key_path).unwrap()).unwrap();
        put(&vault, "k", "v").await.unwrap();
        drop(vault);
        let vault = open(&path, &MasterKey::from_file(&key_path).unwrap()).unwrap();
        assert_eq!(value(&vault, "k").await.unwrap(), "v");
    })
    .await;
}

#[tokio::test]
async fn a_crash_at_any_step_of_a_rekey_leaves_a_vault_that_one_of_the_keys_opens() {
    at_each_step(async |parts, _| {
        let (folder, path) = folder();
        let key_path = folder.path().join("new.key");
        let vault = open(&path, &master(KEY)).unwrap();
        put(&vault, "k", "v").await.unwrap();
        drop(vault);
        let vault = EmbeddedVault::open_with(&path, &master(KEY), parts).unwrap();
        let done = vault.rekey(MasterKey::from_file(&key_path).unwrap()).await.is_ok();
        drop(vault);
        let with_new = open(&path, &MasterKey::from_file(&key_path).unwrap());
        assert!(with_new.is_ok() || !done);
        let vault = with_new.or_else(|_| open(&path, &master(KEY))).unwrap();
        assert_eq!(value(&vault, "k").await.unwrap(), "v");
    })
    .await;
}

#[tokio::test]
async fn a_full_disk_refuses_changes_keeps_serving_and_heals_by_itself() {
    for when in [When::Before, When::Halfway] {
        // A new vault takes three steps, the first value three more.
        for at in 6..8 {
            let (_folder, path) = folder();
            let (parts, disk) = faulty(at, when, false);
            let vault = EmbeddedVault::open_with(&path, &master(KEY), parts).unwrap();
            let version = put(&vault, "k", "old").await.unwrap();
            unavailable(put(&vault, "k", "new").await, "cannot");
            assert!(disk.calls.load(Ordering::SeqCst) > at);
            assert_eq!(value(&vault, "k").await.unwrap(), "old");
            assert_eq!(vault.lease("k").await.unwrap().version, version);
            vault.health().await.unwrap();
            put(&vault, "k", "new").await.unwrap();
            assert_eq!(value(&vault, "k").await.unwrap(), "new");
        }
    }
}

#[tokio::test]
async fn a_change_that_may_not_be_durable_is_served_and_said_to_be_repeated() {
    let (_folder, path) = folder();
    let (parts, _disk) = faulty(8, When::Before, false);
    let vault = EmbeddedVault::open_with(&path, &master(KEY), parts).unwrap();
    put(&vault, "k", "old").await.unwrap();
    unavailable(put(&vault, "k", "new").await, "repeat it");
    assert_eq!(value(&vault, "k").await.unwrap(), "new", "the file holds it, so memory must");
    vault.health().await.unwrap();
    drop(vault);
    assert_eq!(value(&open(&path, &master(KEY)).unwrap(), "k").await.unwrap(), "new");
}

#[tokio::test]
async fn without_randomness_nothing_is_stored() {
    struct Nothing;
    impl Entropy for Nothing {
        fn fill(&self, _: &mut [u8]) -> Result<(), VaultError> {
            Err(VaultError::Unavailable("none".into()))
        }
    }
    let (_folder, path) = folder();
    let parts = Parts { disk: Arc::new(OsDisk), clock: TestClock::at(42), entropy: Arc::new(Nothing) };
    unavailable(EmbeddedVault::open_with(&path, &master(KEY), parts.clone()), "none");
    assert!(!path.exists());
    drop(open(&path, &master(KEY)).unwrap());
    let vault = EmbeddedVault::open_with(&path, &master(KEY), parts).unwrap();
    unavailable(put(&vault, "k", "v").await, "none");
    assert_eq!(value(&vault, "k").await, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_changes_are_all_kept() {
    let (_folder, path) = folder();
    let vault = open(&path, &master(KEY)).unwrap();
    let mut writers = tokio::task::JoinSet::new();
    for n in 0..24 {
        let vault = vault.clone();
        writers.spawn(async move { put(&vault, &format!("k{n}"), &format!("v{n}")).await.unwrap() });
    }
    let mut versions = writers.join_all().await;
    versions.sort();
    versions.dedup();
    assert_eq!(versions.len(), 24);
    drop(vault);
    let vault = open(&path, &master(KEY)).unwrap();
    for n in 0..24 {
        assert_eq!(value(&vault, &format!("k{n}")).await.unwrap(), format!("v{n}"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_whose_caller_went_away_is_still_made_whole() {
    let (_folder, path) = folder();
    let vault = open(&path, &master(KEY)).unwrap();
    for n in 0..20 {
        let value = format!("v{n}");
        let _ = tokio::time::timeout(std::time::Duration::from_micros(n * 30), put(&vault, "k", &value)).await;
        vault.health().await.unwrap();
    }
}

#[tokio::test]
async fn a_closed_vault_is_anothers_and_changes_nothing_more() {
    let (_folder, path) = folder();
    let old = open(&path, &master(KEY)).unwrap();
    put(&old, "k", "v1").await.unwrap();
    assert!(open(&path, &master(KEY)).is_err());
    old.close().await.unwrap();
    let new = open(&path, &master(KEY)).unwrap();
    put(&new, "k", "v2").await.unwrap();
    unavailable(put(&old, "k", "v3").await, "another process's");
    unavailable(old.remove("k").await, "another process's");
    assert_eq!(value(&new, "k").await.unwrap(), "v2");
}
