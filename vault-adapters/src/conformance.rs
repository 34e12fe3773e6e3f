//! What every `Vault` must do, as one suite: `suite!(name, make)` makes a test of each promise.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use aegis_action::{Clock, Timestamp, sha256};
use aegis_broker::secret::Secret;
use aegis_broker::vault::{Vault, VaultError};
use async_trait::async_trait;
use parking_lot::Mutex;
use tempfile::TempDir;

use crate::value::MAX_VALUE_BYTES;
use crate::{EmbeddedVault, EnvVault, FileOptions, FileVault, MasterKey, OsEntropy};

/// A vault, and what stands behind it, as its operator sees it.
#[async_trait]
pub trait Harness: Send + Sync {
    fn vault(&self) -> Arc<dyn Vault>;
    /// Stores a value the way the adapter's operator does, where that way takes it.
    async fn set(&self, key: &str, value: &[u8]) -> Result<(), VaultError>;
    async fn unset(&self, key: &str);
    fn bad_keys(&self) -> &'static [&'static str];
    fn writable(&self) -> bool;
}

macro_rules! suite {
    ($name:ident, $make:path) => {
        $crate::conformance::cases! { $name, $make: [
            a_missing_key_is_not_found,
            a_value_is_leased_byte_for_byte,
            a_bad_key_is_refused,
            what_no_header_can_carry_is_never_leased,
            a_rotation_is_seen_at_once_under_another_version,
            a_removed_value_is_no_longer_leased,
            concurrent_leases_and_rotations_never_mix_values,
            versions_tell_nothing_about_the_bytes,
            keys_do_not_share_values,
            read_only_adapters_refuse_writes,
            dropped_calls_leave_the_vault_whole,
            a_whole_vault_is_healthy,
        ] }
    };
}

macro_rules! cases {
    ($name:ident, $make:path: [$($case:ident),* $(,)?]) => {
        mod $name {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    $crate::conformance::$case(&$make()).await;
                }
            )*
        }
    };
}

pub(crate) use cases;

suite!(embedded, super::Embedded::new);
suite!(env, super::Env::new);
suite!(file, super::Files::new);

pub async fn a_missing_key_is_not_found(harness: &impl Harness) {
    match harness.vault().lease("MISSING").await {
        Err(VaultError::NotFound(key)) => assert_eq!(key, "MISSING"),
        other => panic!("{other:?}"),
    }
}

pub async fn a_value_is_leased_byte_for_byte(harness: &impl Harness) {
    let any: Vec<u8> = (0x20..=0xff).filter(|b| *b != 0x7f).collect();
    for value in [b"ghp_0123456789".as_slice(), &any, &vec![b'x'; MAX_VALUE_BYTES]] {
        harness.set("KEY", value).await.unwrap();
        let leased = harness.vault().lease("KEY").await.unwrap();
        assert_eq!(leased.value.expose(), value);
        assert!(!leased.version.is_empty());
        assert_eq!((leased.expires_at, leased.renewable), (None, false));
        let again = harness.vault().lease("KEY").await.unwrap();
        assert_eq!((again.value.expose(), again.version), (value, leased.version));
    }
}

pub async fn a_bad_key_is_refused(harness: &impl Harness) {
    let long = "x".repeat(2000);
    for key in harness.bad_keys().iter().copied().chain(["", "with\nbreak", "nul\0", &long]) {
        match harness.vault().lease(key).await {
            Err(VaultError::BadKey(_)) => {}
            other => panic!("{key}: {other:?}"),
        }
    }
}

pub async fn what_no_header_can_carry_is_never_leased(harness: &impl Harness) {
    let long = vec![b'x'; MAX_VALUE_BYTES + 1];
    let much_longer = vec![b'x'; MAX_VALUE_BYTES * 2];
    let values: [&[u8]; 9] =
        [b"", b"a\r\nInjected: 1", b"a\nb", b"a\rb", b"a\tb", b"\x7f", b"two breaks\n\n", &long, &much_longer];
    for value in values {
        harness.set("KEY", b"before").await.unwrap();
        let before = harness.vault().lease("KEY").await.unwrap();
        let leased = match harness.set("KEY", value).await {
            Ok(()) => harness.vault().lease("KEY").await,
            Err(refused) => {
                let kept = harness.vault().lease("KEY").await.unwrap();
                assert_eq!((kept.value.expose(), kept.version), (&b"before"[..], before.version));
                Err(refused)
            }
        };
        assert!(matches!(leased, Err(VaultError::BadValue(_))), "{:?}: {leased:?}", String::from_utf8_lossy(value));
    }
}

pub async fn a_rotation_is_seen_at_once_under_another_version(harness: &impl Harness) {
    let mut versions = Vec::new();
    for n in 0..20 {
        // Equal lengths: nothing but the bytes may give a rotation away.
        let value = format!("value-{n:02}");
        harness.set("KEY", value.as_bytes()).await.unwrap();
        let leased = harness.vault().lease("KEY").await.unwrap();
        assert_eq!(leased.value.expose(), value.as_bytes());
        assert!(!versions.contains(&leased.version));
        // Who says which version is current says so of this one: an old lease must not pass for it.
        let current = harness.vault().current("KEY");
        assert!(current.is_none_or(|version| version == leased.version), "not the version that is leased");
        versions.push(leased.version);
    }
}

pub async fn a_removed_value_is_no_longer_leased(harness: &impl Harness) {
    harness.set("KEY", b"value").await.unwrap();
    harness.vault().lease("KEY").await.unwrap();
    harness.unset("KEY").await;
    assert!(matches!(harness.vault().lease("KEY").await, Err(VaultError::NotFound(_))));
    assert_eq!(harness.vault().current("KEY"), None, "what is gone has no version");
    harness.set("KEY", b"value again").await.unwrap();
    assert_eq!(harness.vault().lease("KEY").await.unwrap().value.expose(), b"value again");
}

pub async fn concurrent_leases_and_rotations_never_mix_values(harness: &impl Harness) {
    harness.set("KEY", b"start").await.unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let mut readers = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let (vault, stop) = (harness.vault(), stop.clone());
        readers.spawn(async move {
            let mut seen = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                let leased = vault.lease("KEY").await.unwrap();
                seen.push((leased.version, leased.value.expose().to_vec()));
                tokio::task::yield_now().await;
            }
            seen
        });
    }
    for n in 0..40 {
        harness.set("KEY", format!("value-{n}").repeat(n + 1).as_bytes()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    stop.store(true, Ordering::Relaxed);
    let mut bytes_of = HashMap::new();
    for (version, bytes) in readers.join_all().await.into_iter().flatten() {
        assert_eq!(bytes_of.entry(version).or_insert_with(|| bytes.clone()), &bytes, "one version, two values");
    }
    assert!(bytes_of.len() > 1, "the readers must have seen a rotation");
}

pub async fn versions_tell_nothing_about_the_bytes(harness: &impl Harness) {
    harness.set("KEY", b"pin 1234").await.unwrap();
    let version = harness.vault().lease("KEY").await.unwrap().version;
    let digest = sha256(b"pin 1234").to_hex();
    assert!(!version.contains("pin") && !version.contains(&hex::encode("pin 1234")));
    assert!(!version.contains(&digest[..8]) && !digest.contains(&version));
}

pub async fn keys_do_not_share_values(harness: &impl Harness) {
    harness.set("ONE", b"same").await.unwrap();
    harness.set("TWO", b"same").await.unwrap();
    let vault = harness.vault();
    assert_ne!(vault.lease("ONE").await.unwrap().version, vault.lease("TWO").await.unwrap().version);
    harness.unset("ONE").await;
    assert_eq!(vault.lease("TWO").await.unwrap().value.expose(), b"same");
}

pub async fn read_only_adapters_refuse_writes(harness: &impl Harness) {
    let vault = harness.vault();
    let put = vault.put("KEY", Secret::from("value".to_owned())).await;
    let removed = vault.remove("KEY").await;
    let listed = vault.list().await.unwrap();
    match harness.writable() {
        true => assert_eq!((put.is_ok(), removed.unwrap(), listed.unwrap().len()), (true, true, 0)),
        false => {
            assert!(matches!((put, removed), (Err(VaultError::ReadOnly), Err(VaultError::ReadOnly))));
            assert!(listed.is_none());
        }
    }
}

pub async fn dropped_calls_leave_the_vault_whole(harness: &impl Harness) {
    harness.set("KEY", b"value").await.unwrap();
    let vault = harness.vault();
    for n in 0..30 {
        let _ = tokio::time::timeout(Duration::from_micros(n * 20), vault.lease("KEY")).await;
        let put = vault.put("OTHER", Secret::from(format!("other-{n}")));
        let _ = tokio::time::timeout(Duration::from_micros(n * 20), put).await;
    }
    assert_eq!(vault.lease("KEY").await.unwrap().value.expose(), b"value");
    vault.health().await.unwrap();
}

pub async fn a_whole_vault_is_healthy(harness: &impl Harness) {
    harness.vault().health().await.unwrap();
    harness.set("KEY", b"value").await.unwrap();
    harness.vault().health().await.unwrap();
}

/// A clock that a test sets.
pub struct TestClock(AtomicI64);

impl TestClock {
    pub fn at(millis: i64) -> Arc<Self> {
        Arc::new(Self(AtomicI64::new(millis)))
    }
}

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::Relaxed))
    }
}

/// Long after any file was written, so that a file counts as still.
pub const FAR: i64 = 32_503_680_000_000;

pub struct Embedded {
    vault: EmbeddedVault,
    _folder: TempDir,
}

impl Embedded {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let master = MasterKey::from_file(&folder.path().join("master.key")).unwrap();
        let vault = EmbeddedVault::open(&folder.path().join("vault.json"), &master, TestClock::at(1)).unwrap();
        Self { vault, _folder: folder }
    }
}

#[async_trait]
impl Harness for Embedded {
    fn vault(&self) -> Arc<dyn Vault> {
        Arc::new(self.vault.clone())
    }
    async fn set(&self, key: &str, value: &[u8]) -> Result<(), VaultError> {
        self.vault.put(key, Secret::new(value.to_vec())).await.map(drop)
    }
    async fn unset(&self, key: &str) {
        assert!(self.vault.remove(key).await.unwrap());
    }
    fn bad_keys(&self) -> &'static [&'static str] {
        &["a b", "ä", "a\"b", "a%00"]
    }
    fn writable(&self) -> bool {
        true
    }
}

pub struct Env {
    vault: Arc<EnvVault>,
    variables: Arc<Mutex<HashMap<String, OsString>>>,
}

impl Env {
    pub fn new() -> Self {
        let variables = Arc::new(Mutex::new(HashMap::<String, OsString>::new()));
        let seen = variables.clone();
        let vault = EnvVault::with_look_up(move |name| seen.lock().get(name).cloned(), &OsEntropy).unwrap();
        Self { vault: Arc::new(vault), variables }
    }
}

#[async_trait]
impl Harness for Env {
    fn vault(&self) -> Arc<dyn Vault> {
        self.vault.clone()
    }
    async fn set(&self, key: &str, value: &[u8]) -> Result<(), VaultError> {
        self.variables.lock().insert(key.into(), OsString::from_vec(value.to_vec()));
        Ok(())
    }
    async fn unset(&self, key: &str) {
        self.variables.lock().remove(key);
    }
    fn bad_keys(&self) -> &'static [&'static str] {
        &["A=B", "1A", "A-B", "A B", "Ä"]
    }
    fn writable(&self) -> bool {
        false
    }
}

pub struct Files {
    vault: Arc<FileVault>,
    folder: TempDir,
}

impl Files {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let options = FileOptions { base: folder.path().to_owned(), danger_world_readable: false };
        // With the clock far ahead every file counts as still, so the cache is in full use.
        let vault = FileVault::new(options, TestClock::at(FAR), &OsEntropy).unwrap();
        Self { vault: Arc::new(vault), folder }
    }
}

#[async_trait]
impl Harness for Files {
    fn vault(&self) -> Arc<dyn Vault> {
        self.vault.clone()
    }
    async fn set(&self, key: &str, value: &[u8]) -> Result<(), VaultError> {
        let (path, fresh) = (self.folder.path().join(key), self.folder.path().join("fresh"));
        fs::OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&fresh).unwrap();
        fs::set_permissions(&fresh, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&fresh, [value, b"\n"].concat()).unwrap();
        fs::rename(&fresh, path).unwrap();
        Ok(())
    }
    async fn unset(&self, key: &str) {
        fs::remove_file(self.folder.path().join(key)).unwrap();
    }
    fn bad_keys(&self) -> &'static [&'static str] {
        &["../escape", "a/../b", "./a", "a//b", "a/", "a/.", "/"]
    }
    fn writable(&self) -> bool {
        false
    }
}
