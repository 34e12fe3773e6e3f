//! Opening the file: who may read it, how it is written, which tables it has.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use aegis_broker::store::StoreError;
use sqlx::migrate::{MigrateError, Migrator};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Connection as _, SqliteConnection, SqlitePool};

use crate::error::store_error;

/// Writer and readers of a file.
pub async fn file(path: &Path) -> Result<(SqlitePool, SqlitePool), StoreError> {
    let owned = path.to_owned();
    let guard = tokio::task::spawn_blocking(move || prepare(&owned)).await.map_err(|_| stopped())?;
    let guard = guard.map_err(|e| unavailable(path, &e))?;
    let options = common().filename(path).create_if_missing(false).journal_mode(SqliteJournalMode::Wal);
    let writer = pool(1).connect_with(options.clone()).await.map_err(store_error)?;
    migrate(&writer).await?;
    // WAL needs its side files; they exist now, so that a read-only connection can be opened.
    let reader = pool(READERS).connect_with(options.read_only(true)).await.map_err(store_error)?;
    drop(guard);
    Ok((writer, reader))
}

/// The one connection of a database in memory; it is never closed, as the database goes with it.
pub async fn memory() -> Result<SqlitePool, StoreError> {
    let only = pool(1)
        .min_connections(1)
        .idle_timeout(None)
        .max_lifetime(None)
        .connect_with(common().in_memory(true))
        .await
        .map_err(store_error)?;
    migrate(&only).await?;
    Ok(only)
}

fn common() -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .foreign_keys(true)
        .busy_timeout(WAIT)
        .synchronous(SqliteSynchronous::Full)
        .pragma("secure_delete", "ON")
        .pragma("trusted_schema", "OFF")
}

fn pool(connections: u32) -> SqlitePoolOptions {
    SqlitePoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(WAIT)
        .idle_timeout(None)
        .max_lifetime(None)
        .test_before_acquire(false)
        // SQLite rolls a transaction back by itself on some disk errors. sqlx then counts it as
        // open for ever, so such a connection is replaced before anyone gets it.
        .before_acquire(|connection: &mut SqliteConnection, _| {
            let clean = !connection.is_in_transaction();
            Box::pin(async move { Ok(clean) })
        })
}

/// Creates the file for its owner only, before SQLite would create it for everyone; its side
/// files inherit the mode. Returns the lock that makes concurrent openers wait for each other.
///
/// An existing database must not be opened here: closing any handle of a file drops all of the
/// process's POSIX locks on it, SQLite's included.
fn prepare(path: &Path) -> io::Result<File> {
    let lock_path = with_suffix(path, ".lock");
    let lock = OpenOptions::new().create(true).truncate(false).write(true).mode(OWNER_ONLY).open(lock_path)?;
    lock.lock()?;
    match OpenOptions::new().create_new(true).write(true).mode(OWNER_ONLY).open(path) {
        Ok(file) => {
            file.sync_all()?;
            let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
            File::open(folder)?.sync_all()?;
        }
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => tighten(path)?,
        Err(e) => return Err(e),
    }
    Ok(lock)
}

/// Takes group's and others' rights away from a database that was copied in with them.
fn tighten(path: &Path) -> io::Result<()> {
    for suffix in ["", "-wal", "-shm"] {
        let path = with_suffix(path, suffix);
        let mode = match fs::metadata(&path) {
            Ok(found) => found.permissions().mode(),
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            Err(e) => return Err(e),
        };
        if mode & 0o077 != 0 {
            tracing::warn!(path = %path.display(), "database was open to other users; its mode is now 0600");
            fs::set_permissions(&path, Permissions::from_mode(OWNER_ONLY))?;
        }
    }
    Ok(())
}

async fn migrate(writer: &SqlitePool) -> Result<(), StoreError> {
    MIGRATIONS.run(writer).await.map_err(|e| match e {
        MigrateError::VersionMissing(_) => {
            StoreError::Unavailable("the database was made by a newer version; run that version".into())
        }
        MigrateError::Execute(e) | MigrateError::ExecuteMigration(e, _) => store_error(e),
        _ => StoreError::Unavailable("the database's tables are not those of any released version".into()),
    })
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn unavailable(path: &Path, error: &io::Error) -> StoreError {
    StoreError::Unavailable(format!("cannot open `{}`: {}", path.display(), error.kind()))
}

fn stopped() -> StoreError {
    StoreError::Unavailable("the process is stopping".into())
}

static MIGRATIONS: Migrator = sqlx::migrate!("./migrations/sqlite");

/// How long a call waits for a lock or a connection before the answer is `Unavailable`.
const WAIT: Duration = Duration::from_secs(5);
const READERS: u32 = 4;
const OWNER_ONLY: u32 = 0o600;
