//! Reads columns, and writes text that both databases accept.
//!
//! A record is stored as JSON with the version of its format. A later version of Modelway may use another format, and
//! still reads the older ones. A record in an unknown format is refused. The golden files in `tests/store/forms`
//! contain an example of each format.

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use sqlx::{Row as _, any::AnyRow};

use crate::StoreError;

/// The format in which records are written. Format 1, of 0.1.0, has no version field.
const FORM: u32 = 2;

/// The beginning of a record in the current format.
const PRESENT: &str = r#"{"form":2,"#;

#[derive(Debug, thiserror::Error)]
#[error(
    "it has format {0}, but this version reads formats up to {FORM}: a newer version of Modelway wrote it; upgrade this one"
)]
struct NewerForm(u32);

/// Reads the columns of a row by name.
pub(crate) trait Columns {
    fn int(&self, column: &str) -> Result<i64, StoreError>;
    fn maybe_int(&self, column: &str) -> Result<Option<i64>, StoreError>;
    fn text(&self, column: &str) -> Result<String, StoreError>;
    fn maybe_text(&self, column: &str) -> Result<Option<String>, StoreError>;

    /// A small number, such as that of a revision.
    fn small(&self, column: &'static str) -> Result<u32, StoreError> {
        let number = self.int(column)?;
        u32::try_from(number).map_err(|source| StoreError::Corrupt { what: column, source: Box::new(source) })
    }

    /// A record that [`record`] or an earlier version wrote. `what` names it in errors.
    fn record<T: DeserializeOwned>(&self, column: &str, what: &'static str) -> Result<T, StoreError> {
        let text = self.text(column)?;
        read_record(&text).map_err(|source| StoreError::Corrupt { what, source })
    }

    /// A value that [`json`] wrote. `what` names it in errors.
    fn json<T: DeserializeOwned>(&self, column: &str, what: &'static str) -> Result<T, StoreError> {
        serde_json::from_str(&self.text(column)?)
            .map_err(|source| StoreError::Corrupt { what, source: Box::new(source) })
    }

    /// The same for a value that may be absent.
    fn maybe_json<T: DeserializeOwned>(&self, column: &str, what: &'static str) -> Result<Option<T>, StoreError> {
        if self.maybe_text(column)?.is_none() { Ok(None) } else { self.json(column, what).map(Some) }
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

fn read_record<T: DeserializeOwned>(text: &str) -> Result<T, Box<dyn std::error::Error + Send + Sync>> {
    #[derive(Deserialize)]
    struct Head {
        form: Option<u32>,
    }
    if !text.starts_with(PRESENT)
        && let Head { form: Some(form) } = serde_json::from_str(text)?
        && form > FORM
    {
        return Err(Box::new(NewerForm(form)));
    }
    Ok(serde_json::from_str(text)?)
}

/// The stored form of a record.
pub(crate) fn record(value: &impl Serialize) -> Result<String, StoreError> {
    #[derive(Serialize)]
    struct Record<'v, T> {
        form: u32,
        #[serde(flatten)]
        value: &'v T,
    }
    json(&Record { form: FORM, value })
}

/// The stored form of a structured value: a part of a record, or a value without a format version.
pub(crate) fn json(value: &impl Serialize) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|source| StoreError::Corrupt { what: "value", source: Box::new(source) })
}

/// The stored form of text from a person: PostgreSQL refuses the character NUL, so it is removed for both databases.
pub(crate) fn clean(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}
