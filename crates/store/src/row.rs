//! Reading columns, and writing text that both databases take.

use serde::{Serialize, de::DeserializeOwned};
use sqlx::{Row as _, any::AnyRow};

use crate::StoreError;

/// A row, read by the names of its columns.
pub(crate) trait Columns {
    fn int(&self, column: &str) -> Result<i64, StoreError>;
    fn maybe_int(&self, column: &str) -> Result<Option<i64>, StoreError>;
    fn text(&self, column: &str) -> Result<String, StoreError>;
    fn maybe_text(&self, column: &str) -> Result<Option<String>, StoreError>;

    /// A small number, such as a revision's.
    fn small(&self, column: &'static str) -> Result<u32, StoreError> {
        let number = self.int(column)?;
        u32::try_from(number).map_err(|source| StoreError::Corrupt { what: column, source: Box::new(source) })
    }

    /// A value that was written by [`json`]. `what` is what it is, for the error.
    fn json<T: DeserializeOwned>(&self, column: &str, what: &'static str) -> Result<T, StoreError> {
        serde_json::from_str(&self.text(column)?)
            .map_err(|source| StoreError::Corrupt { what, source: Box::new(source) })
    }
}

impl Columns for AnyRow {
    fn int(&self, column: &str) -> Result<i64, StoreError> {
        Ok(self.try_get(column)?)
    }

    fn maybe_int(&self, column: &str) -> Result<Option<i64>, StoreError> {
        Ok(self.try_get(column)?)
    }

    fn text(&self, column: &str) -> Result<String, StoreError> {
        Ok(self.try_get(column)?)
    }

    fn maybe_text(&self, column: &str) -> Result<Option<String>, StoreError> {
        Ok(self.try_get(column)?)
    }
}

/// A structured value as it is stored.
pub(crate) fn json(value: &impl Serialize) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|source| StoreError::Corrupt { what: "value", source: Box::new(source) })
}

/// A person's text as it is stored: PostgreSQL refuses the character NUL, so neither database gets one.
pub(crate) fn clean(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}
