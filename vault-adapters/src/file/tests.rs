//! What only files have: modes, kinds, rotations in place.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tempfile::TempDir;

use super::*;
use crate::OsEntropy;
use crate::conformance::{FAR, TestClock};

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn write(folder: &TempDir, name: &str, bytes: impl AsRef<[u8]>, mode: u32) {
    let path = folder.path().join(name);
    fs::write(&path, bytes).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
}

fn vault_at(folder: &TempDir, danger_world_readable: bool, now: i64) -> FileVault {
    let options = FileOptions { base: folder.path().to_owned(), danger_world_readable };
    FileVault::new(options, TestClock::at(now), &OsEntropy).unwrap()
}

async fn value(vault: &FileVault, key: &str) -> String {
    String::from_utf8(vault.lease(key).await.unwrap().value.expose().to_vec()).unwrap()
}

#[tokio::test]
async fn a_file_that_everyone_can_use_is_refused_unless_allowed() {
    let folder = folder();
    let (strict, lax) = (vault_at(&folder, false, FAR), vault_at(&folder, true, FAR));
    for (mode, fine) in [(0o600, true), (0o440, true), (0o640, true), (0o604, false), (0o602, false), (0o601, false)] {
        let name = format!("m{mode:o}");
        write(&folder, &name, "value", mode);
        match strict.lease(&name).await {
            Ok(_) => assert!(fine, "{mode:o}"),
            Err(e) => assert!(!fine && e.to_string().contains("chmod o="), "{mode:o}: {e}"),
        }
        assert_eq!(value(&lax, &name).await, "value");
    }
}

#[tokio::test]
async fn a_mode_that_becomes_too_wide_is_seen_despite_the_cache() {
    let folder = folder();
    let vault = vault_at(&folder, false, FAR);
    write(&folder, "k", "value", 0o600);
    assert_eq!(value(&vault, "k").await, "value");
    fs::set_permissions(folder.path().join("k"), fs::Permissions::from_mode(0o644)).unwrap();
    assert!(matches!(vault.lease("k").await, Err(VaultError::Unavailable(_))));
}

#[tokio::test]
async fn one_line_break_at_the_end_is_not_part_of_the_value() {
    let folder = folder();
    let vault = vault_at(&folder, false, FAR);
    for (bytes, expected) in [("v", "v"), ("v\n", "v"), ("v\r\n", "v"), (" v \n", " v ")] {
        write(&folder, "k", bytes, 0o600);
        assert_eq!(value(&vault, "k").await, expected);
    }
    for bytes in ["\n", "\r\n", "v\r", "v\n\n", "v\nw\n", ""] {
        write(&folder, "k", bytes, 0o600);
        assert!(matches!(vault.lease("k").await, Err(VaultError::BadValue(_))), "{bytes:?}");
    }
}

#[tokio::test]
async fn the_longest_value_fits_with_either_line_break() {
    let folder = folder();
    let vault = vault_at(&folder, false, FAR);
    let longest = "x".repeat(MAX_VALUE_BYTES);
    for end in ["", "\n", "\r\n"] {
        write(&folder, "k", format!("{longest}{end}"), 0o600);
        assert_eq!(value(&vault, "k").await.len(), MAX_VALUE_BYTES);
        write(&folder, "k", format!("{longest}x{end}"), 0o600);
        assert!(matches!(vault.lease("k").await, Err(VaultError::BadValue(_))));
    }
}

#[tokio::test]
async fn folders_and_pipes_are_unavailable_and_do_not_hang() {
    let folder = folder();
    let vault = vault_at(&folder, false, FAR);
    fs::create_dir(folder.path().join("sub")).unwrap();
    assert!(matches!(vault.lease("sub").await, Err(VaultError::Unavailable(_))));
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mkfifoat(rustix::fs::CWD, folder.path().join("pipe"), mode).unwrap();
    let leased = tokio::time::timeout(Duration::from_secs(5), vault.lease("pipe")).await;
    assert!(matches!(leased.unwrap(), Err(VaultError::Unavailable(_))));
    write(&folder, "plain", "value", 0o600);
    assert!(matches!(vault.lease("plain/below").await, Err(VaultError::NotFound(_))));
    let absolute = folder.path().join("plain");
    assert_eq!(value(&vault, absolute.to_str().unwrap()).await, "value");
}

#[tokio::test]
async fn a_rotation_in_place_with_equal_length_and_time_is_seen() {
    let folder = folder();
    let path = folder.path().join("k");
    for now in [0, FAR] {
        let vault = vault_at(&folder, false, now);
        write(&folder, "k", "value-a", 0o600);
        let then = SystemTime::now() - Duration::from_secs(3600);
        let set_time = || File::options().write(true).open(&path).unwrap().set_modified(then).unwrap();
        set_time();
        assert_eq!(value(&vault, "k").await, "value-a");
        // The change time moves by one tick of the kernel's clock, at most 10 ms.
        std::thread::sleep(Duration::from_millis(20));
        fs::write(&path, "value-b").unwrap();
        set_time();
        assert_eq!(value(&vault, "k").await, "value-b");
    }
}

#[tokio::test]
async fn a_file_written_just_now_is_read_every_time() {
    let folder = folder();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64;
    let vault = vault_at(&folder, false, now);
    write(&folder, "k", "value", 0o600);
    vault.lease("k").await.unwrap();
    assert!(vault.0.cache.lock().is_empty(), "its times cannot tell it from the next write");
    let later = vault_at(&folder, false, now + 10_000);
    later.lease("k").await.unwrap();
    assert_eq!(later.0.cache.lock().len(), 1);
    fs::remove_file(folder.path().join("k")).unwrap();
    assert!(matches!(later.lease("k").await, Err(VaultError::NotFound(_))));
}

#[test]
fn bytes_of_a_file_that_changes_while_it_is_read_are_not_used() {
    let folder = folder();
    let path = folder.path().join("k");
    fs::write(&path, "old").unwrap();
    let still = Stamp::of(&fs::metadata(&path).unwrap());
    let (bytes, _) = read_unchanged(&b"old"[..], || Ok(still)).unwrap().unwrap();
    assert_eq!(bytes.as_slice(), b"old");

    /// Rewrites the file when it is read.
    struct Rewriting<'p>(&'p Path);
    impl io::Read for Rewriting<'_> {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            fs::write(self.0, "something longer")?;
            Ok(0)
        }
    }
    let stamp = || Ok(Stamp::of(&fs::metadata(&path)?));
    assert!(read_unchanged(Rewriting(&path), stamp).unwrap().is_none());
}
