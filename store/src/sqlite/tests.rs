//! The suite on SQLite, and what only SQLite has: files, modes, disks that fill up, crashes.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use aegis_broker::store::AgentState::{Active, Frozen};
use aegis_broker::store::{Store, StoreError};
use sqlx::query;

use super::SqliteStore;
use crate::conformance::{
    self, Made, NOW, PAYLOAD, agent, approval, event, hash, later, token, waiting, with_agent, with_approved,
};

conformance::suite!(file, super::on_file);
conformance::suite!(memory, super::on_memory);

async fn on_file() -> Made {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("aegis.db");
    let one = SqliteStore::open(&path).await.unwrap();
    let two = SqliteStore::open(&path).await.unwrap();
    Made { one: Arc::new(one), two: Arc::new(two), _keep: Box::new(folder) }
}

async fn on_memory() -> Made {
    let only = Arc::new(SqliteStore::in_memory().await.unwrap());
    Made { one: only.clone(), two: only, _keep: Box::new(()) }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[track_caller]
fn unavailable<T: std::fmt::Debug>(answer: Result<T, StoreError>, says: &str) {
    match answer {
        Err(StoreError::Unavailable(text)) => assert!(text.contains(says), "`{text}` should say `{says}`"),
        other => panic!("expected unavailable, got {other:?}"),
    }
}

#[tokio::test]
async fn files_are_readable_by_their_owner_only() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("aegis.db");
    let store = SqliteStore::open(&path).await.unwrap();
    with_agent(&store, "a1").await;
    let mut seen = 0;
    for entry in fs::read_dir(folder.path()).unwrap() {
        let entry = entry.unwrap().path();
        assert_eq!(mode(&entry), 0o600, "{entry:?}");
        seen += 1;
    }
    assert!(seen >= 3, "database, log and index");
    store.close().await;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let store = SqliteStore::open(&path).await.unwrap();
    assert_eq!(mode(&path), 0o600);
    assert_eq!(store.agents().await.unwrap().len(), 1);
}

#[tokio::test]
async fn every_connection_is_set_up_as_promised() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&folder.path().join("aegis.db")).await.unwrap();
    for pool in [&store.writer, &store.reader] {
        let read = async |pragma: &'static str| {
            let row = query(sqlx::AssertSqlSafe(format!("SELECT CAST(\"{pragma}\" AS TEXT) FROM pragma_{pragma}")));
            sqlx::Row::get::<String, _>(&row.fetch_one(pool).await.unwrap(), 0)
        };
        assert_eq!(read("journal_mode").await, "wal");
        assert_eq!(read("synchronous").await, "2", "full");
        assert_eq!(read("foreign_keys").await, "1");
        assert_eq!(read("secure_delete").await, "1");
    }
    let written = query("DELETE FROM agents").execute(&store.reader).await;
    assert!(written.is_err(), "readers cannot write");
    assert_eq!(store.writer.options().get_max_connections(), 1);
}

#[tokio::test]
async fn what_was_written_is_there_after_reopening() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("aegis.db");
    let store = SqliteStore::open(&path).await.unwrap();
    with_approved(&store).await;
    store.close().await;
    unavailable(store.agent("a1").await, "closed");
    let store = SqliteStore::open(&path).await.unwrap();
    assert_eq!(store.agent("a1").await.unwrap(), Some(agent("a1")));
    assert_eq!(waiting(&store).await, ["add a1", "add p1", "ask q1", "yes q1"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_first_openers_all_get_a_whole_database() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("aegis.db");
    let mut openers = tokio::task::JoinSet::new();
    for n in 0..8 {
        let path = path.clone();
        openers.spawn(async move {
            let store = SqliteStore::open(&path).await.unwrap();
            with_agent(&store, &format!("a{n}")).await;
        });
    }
    openers.join_all().await;
    assert_eq!(SqliteStore::open(&path).await.unwrap().agents().await.unwrap().len(), 8);
}

#[tokio::test]
async fn a_path_that_cannot_be_opened_says_why() {
    let folder = tempfile::tempdir().unwrap();
    unavailable(SqliteStore::open(&folder.path().join("no/such/folder.db")).await, "not found");
    let garbage = folder.path().join("garbage.db");
    fs::write(&garbage, "not a database, but long enough to be taken for one".repeat(100)).unwrap();
    unavailable(SqliteStore::open(&garbage).await, "damaged");
}

#[tokio::test]
async fn a_database_of_a_newer_version_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("aegis.db");
    let store = SqliteStore::open(&path).await.unwrap();
    query("INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) VALUES (9999, '', 1, x'00', 0)")
        .execute(&store.writer)
        .await
        .unwrap();
    store.close().await;
    unavailable(SqliteStore::open(&path).await, "newer version");
}

#[tokio::test]
async fn a_full_disk_is_unavailable_and_heals_by_itself() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&folder.path().join("aegis.db")).await.unwrap();
    with_agent(&store, "a1").await;
    query("PRAGMA max_page_count = 1").execute(&store.writer).await.unwrap();
    let mut full = None;
    let mut added = 0;
    for n in 0..2000 {
        let id = format!("b{n}");
        match store.insert_agent(&agent(&id), &token(&id, &id), &event(&id)).await {
            Ok(()) => added += 1,
            Err(e) => {
                full = Some((id, e));
                break;
            }
        }
    }
    let (refused, error) = full.unwrap();
    unavailable::<()>(Err(error), "disk is full");
    assert_eq!(store.agent(&refused).await.unwrap(), None);
    assert_eq!(store.agents().await.unwrap().len(), added + 1);
    assert_eq!(waiting(&store).await.len(), added + 1);
    query("PRAGMA max_page_count = 1000000").execute(&store.writer).await.unwrap();
    store.insert_agent(&agent(&refused), &token(&refused, &refused), &event(&refused)).await.unwrap();
    store.health().await.unwrap();
}

#[tokio::test]
async fn a_read_only_database_is_unavailable_for_writes_and_serves_reads() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&folder.path().join("aegis.db")).await.unwrap();
    with_agent(&store, "a1").await;
    query("PRAGMA query_only = ON").execute(&store.writer).await.unwrap();
    unavailable(store.health().await, "read-only");
    unavailable(store.transition_agent("a1", &[Active], Frozen, &event("freeze")).await, "read-only");
    assert_eq!(store.agent("a1").await.unwrap(), Some(agent("a1")));
    assert_eq!(waiting(&store).await, ["add a1"]);
    query("PRAGMA query_only = OFF").execute(&store.writer).await.unwrap();
    store.health().await.unwrap();
}

#[tokio::test]
async fn a_transaction_left_open_does_not_poison_the_writer() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&folder.path().join("aegis.db")).await.unwrap();
    let mut tx = store.begin().await.unwrap();
    // What SQLite does by itself after some disk errors: sqlx still counts a transaction.
    query("ROLLBACK").execute(&mut *tx).await.unwrap();
    drop(tx);
    with_agent(&store, "a1").await;
    store.health().await.unwrap();
}

#[tokio::test]
async fn a_transaction_holds_the_write_lock_from_its_start() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("aegis.db");
    let (one, two) = (SqliteStore::open(&path).await.unwrap(), SqliteStore::open(&path).await.unwrap());
    let held = one.begin().await.unwrap();
    assert!(tokio::time::timeout(Duration::from_millis(100), two.begin()).await.is_err());
    assert_eq!(two.agents().await.unwrap(), [], "readers do not wait");
    held.rollback().await.unwrap();
    two.begin().await.unwrap();
}

#[tokio::test]
async fn a_value_of_another_version_is_unavailable_rather_than_guessed() {
    let store = SqliteStore::in_memory().await.unwrap();
    with_approved(&store).await;
    query("UPDATE approvals SET source_trust = 'blind'").execute(&store.writer).await.unwrap();
    unavailable(store.approval("q1", NOW).await, "source_trust");
    query("UPDATE agents SET bind_cidr = '{}'").execute(&store.writer).await.unwrap();
    unavailable(store.agent("a1").await, "bind_cidr");
}

#[tokio::test]
async fn an_erased_payload_is_nowhere_in_the_files() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("aegis.db");
    let store = SqliteStore::open(&path).await.unwrap();
    let on_disk = || {
        let files = fs::read_dir(folder.path()).unwrap().map(|e| fs::read(e.unwrap().path()).unwrap());
        files.into_iter().any(|bytes| bytes.windows(PAYLOAD.len()).any(|w| w == PAYLOAD))
    };
    with_approved(&store).await;
    assert!(on_disk(), "the search must be able to find it");
    store.consume_approval("q1", "a1", &hash("the action"), NOW, &event("consume")).await.unwrap();
    store.ask_approval(&approval("q2", "a1"), NOW, crate::conformance::MANY, &event("ask q2")).await.unwrap();
    assert_eq!(store.erase_expired_payloads(later(599)).await.unwrap(), 0);
    assert_eq!(store.erase_expired_payloads(later(600)).await.unwrap(), 1);
    store.close().await;
    assert!(!on_disk());
}

/// Writes in a child process until it is killed. Every call that returned must be there, and
/// every transition with its event.
#[test]
fn kill_9_loses_nothing_that_was_acknowledged() {
    const CHILD: &str = "AEGIS_STORE_TEST_DATABASE";
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    if let Some(path) = std::env::var_os(CHILD) {
        runtime.block_on(write_until_killed(Path::new(&path)));
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("aegis.db");
    for round in 0..5_u64 {
        let before = runtime.block_on(async { changes(&path).await });
        let acknowledged = folder.path().join("acknowledged");
        fs::write(&acknowledged, "").unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "sqlite::tests::kill_9_loses_nothing_that_was_acknowledged", "--nocapture"])
            .env(CHILD, &path)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let written = || fs::read_to_string(&acknowledged).unwrap().lines().count() as u64;
        let patience = Instant::now();
        while written() < 20 + round * 7 {
            assert!(patience.elapsed() < Duration::from_secs(60), "the child writes nothing");
            std::thread::sleep(Duration::from_millis(3));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let after = runtime.block_on(async { changes(&path).await });
        let acknowledged = written();
        assert!(after - before >= acknowledged, "{acknowledged} acknowledged, {} kept", after - before);
        assert!(after - before <= acknowledged + 1, "only the call under way may be unacknowledged");
    }
}

/// Transitions so far; there are as many events.
async fn changes(path: &Path) -> u64 {
    let store = SqliteStore::open(path).await.unwrap();
    let Some(agent) = store.agent("a1").await.unwrap() else {
        with_agent(&store, "a1").await;
        store.close().await;
        return 0;
    };
    assert_eq!(waiting(&store).await.len() as u64, agent.version, "one event for each version");
    store.close().await;
    agent.version - 1
}

async fn write_until_killed(path: &Path) {
    use std::io::Write as _;
    let store = SqliteStore::open(path).await.unwrap();
    let mut acknowledged = fs::OpenOptions::new().append(true).open(path.with_file_name("acknowledged")).unwrap();
    loop {
        let now = store.agent("a1").await.unwrap().unwrap();
        let to = if now.state == Active { Frozen } else { Active };
        store.transition_agent("a1", &[now.state], to, &event(&format!("change {}", now.version))).await.unwrap();
        acknowledged.write_all(b"done\n").unwrap();
    }
}
