//! From database errors to [`StoreError`]: what happened and what to do, never a value from a row.

use aegis_broker::store::StoreError;
use sqlx::error::ErrorKind;

/// Sorts a database error. Taken unique keys are conflicts, missing parents are absent rows,
/// and everything else means that the database cannot be used right now.
pub fn store_error(error: sqlx::Error) -> StoreError {
    match &error {
        sqlx::Error::Database(db) => match db.kind() {
            ErrorKind::UniqueViolation => StoreError::Conflict(format!("{} is taken", constraint(db.message()))),
            ErrorKind::ForeignKeyViolation => {
                StoreError::NotFound("the row that this one belongs to does not exist".into())
            }
            ErrorKind::CheckViolation | ErrorKind::NotNullViolation => {
                StoreError::Conflict(format!("{} does not hold", constraint(db.message())))
            }
            _ => StoreError::Unavailable(sqlite_reason(db.code().as_deref())),
        },
        sqlx::Error::PoolTimedOut => StoreError::Unavailable(
            "no connection became free in time; the database is overloaded or its disk is stuck".into(),
        ),
        sqlx::Error::PoolClosed => StoreError::Unavailable("the store is closed".into()),
        sqlx::Error::WorkerCrashed => StoreError::Unavailable("the database connection broke".into()),
        sqlx::Error::Io(e) => StoreError::Unavailable(format!("i/o error: {}", e.kind())),
        sqlx::Error::ColumnDecode { index, .. } => unreadable(index),
        other => StoreError::Unavailable(format!("database error: {}", variant(other))),
    }
}

/// A stored value that is not one of those this version writes.
pub fn unreadable(column: &str) -> StoreError {
    StoreError::Unavailable(format!("column `{column}` holds a value this version cannot read"))
}

/// SQLite names the column or check after a colon: `UNIQUE constraint failed: agents.agent_key`.
fn constraint(message: &str) -> String {
    match message.rsplit_once(": ") {
        Some((_, name)) => format!("`{name}`"),
        None => "a constraint".into(),
    }
}

/// The primary result code is the low byte of the extended one, <https://www.sqlite.org/rescode.html>.
fn sqlite_reason(code: Option<&str>) -> String {
    let Some(code) = code.and_then(|c| c.parse::<i32>().ok()) else {
        return "database error without a code".into();
    };
    match code & 0xff {
        5 | 6 => "the database is locked by another process for too long".into(),
        8 => "the database is read-only; check the file's owner and mount".into(),
        10 => format!("the disk reported an i/o error (sqlite code {code})"),
        11 | 26 => "the database file is damaged; restore it from a backup".into(),
        13 => "the disk is full; free some space, no restart is needed".into(),
        14 => "the database file cannot be opened; check that its folder exists and is ours".into(),
        _ => format!("sqlite code {code}"),
    }
}

/// The error's kind only: its text may quote what was read.
fn variant(error: &sqlx::Error) -> &'static str {
    match error {
        sqlx::Error::Configuration(_) => "configuration",
        sqlx::Error::RowNotFound => "a row that must exist does not",
        sqlx::Error::ColumnNotFound(_) | sqlx::Error::ColumnIndexOutOfBounds { .. } => "a column is missing",
        sqlx::Error::Decode(_) => "a value cannot be decoded",
        sqlx::Error::Encode(_) => "a value cannot be encoded",
        sqlx::Error::Migrate(_) => "migration",
        sqlx::Error::BeginFailed => "a transaction cannot begin",
        _ => "unexpected",
    }
}
