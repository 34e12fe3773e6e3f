//! Reading columns by name into the types that the contract speaks of.

use aegis_action::{Digest, Timestamp};
use aegis_broker::store::StoreError;
use serde_json::Value;
use sqlx::sqlite::SqliteRow;
use sqlx::{Decode, Row as _, Sqlite, Type};

use crate::error::{store_error, unreadable};
use crate::text::Text;

/// One row; every getter fails with [`StoreError::Unavailable`] when the column is not what it must be.
pub struct Row<'r>(pub &'r SqliteRow);

impl<'r> Row<'r> {
    pub fn text(&self, column: &str) -> Result<String, StoreError> {
        self.get(column)
    }

    pub fn text_opt(&self, column: &str) -> Result<Option<String>, StoreError> {
        self.get(column)
    }

    pub fn bytes_opt(&self, column: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.get(column)
    }

    pub fn flag(&self, column: &str) -> Result<bool, StoreError> {
        self.get::<i64>(column).map(|n| n != 0)
    }

    pub fn number(&self, column: &str) -> Result<u64, StoreError> {
        u64::try_from(self.get::<i64>(column)?).map_err(|_| unreadable(column))
    }

    pub fn time(&self, column: &str) -> Result<Timestamp, StoreError> {
        self.get(column).map(Timestamp)
    }

    pub fn time_opt(&self, column: &str) -> Result<Option<Timestamp>, StoreError> {
        Ok(self.get::<Option<i64>>(column)?.map(Timestamp))
    }

    pub fn digest(&self, column: &str) -> Result<Digest, StoreError> {
        self.get::<Vec<u8>>(column)?.try_into().map(Digest).map_err(|_| unreadable(column))
    }

    pub fn choice<T: Text>(&self, column: &str) -> Result<T, StoreError> {
        T::from_text(&self.text(column)?).ok_or_else(|| unreadable(column))
    }

    pub fn list(&self, column: &str) -> Result<Vec<String>, StoreError> {
        serde_json::from_str(&self.text(column)?).map_err(|_| unreadable(column))
    }

    pub fn json(&self, column: &str) -> Result<Value, StoreError> {
        serde_json::from_str(&self.text(column)?).map_err(|_| unreadable(column))
    }

    fn get<T: Decode<'r, Sqlite> + Type<Sqlite>>(&self, column: &str) -> Result<T, StoreError> {
        self.0.try_get(column).map_err(store_error)
    }
}

/// A list as the JSON array that its column holds.
pub fn list(items: &[String]) -> String {
    Value::from(items).to_string()
}

/// An unsigned number as SQLite holds it.
pub fn number(n: u64, what: &str) -> Result<i64, StoreError> {
    i64::try_from(n).map_err(|_| StoreError::Conflict(format!("`{what}` is out of range")))
}

/// A digest as the bytes that its column holds.
pub fn digest(d: &Digest) -> &[u8] {
    d.0.as_slice()
}
