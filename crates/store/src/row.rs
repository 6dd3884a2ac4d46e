//! Reading columns, and writing text that both databases take.
//!
//! A record is stored as JSON with the version of its form. A later version of Modelway may store a record in another form, and
//! goes on reading the older ones; a record of a form that is not known yet is refused and never misread. The golden files in
//! `tests/store/forms` hold what each form looks like.

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use sqlx::{Row as _, any::AnyRow};

use crate::StoreError;

/// The form in which records are written. Form 1, which 0.1.0 wrote, names no form.
const FORM: u32 = 2;

/// What a record of the present form begins with.
const PRESENT: &str = r#"{"form":2,"#;

#[derive(Debug, thiserror::Error)]
#[error(
    "it has form {0}, and this version reads forms up to {FORM}: a newer version of Modelway wrote it; upgrade this one"
)]
struct NewerForm(u32);

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

    /// A record that was written by [`record`], or by an earlier version. `what` is what it is, for the error.
    fn record<T: DeserializeOwned>(&self, column: &str, what: &'static str) -> Result<T, StoreError> {
        let text = self.text(column)?;
        read_record(&text).map_err(|source| StoreError::Corrupt { what, source })
    }

    /// A value that was written by [`json`]. `what` is what it is, for the error.
    fn json<T: DeserializeOwned>(&self, column: &str, what: &'static str) -> Result<T, StoreError> {
        serde_json::from_str(&self.text(column)?)
            .map_err(|source| StoreError::Corrupt { what, source: Box::new(source) })
    }

    /// The same, where there may be none.
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

/// A record as it is stored.
pub(crate) fn record(value: &impl Serialize) -> Result<String, StoreError> {
    #[derive(Serialize)]
    struct Record<'v, T> {
        form: u32,
        #[serde(flatten)]
        value: &'v T,
    }
    json(&Record { form: FORM, value })
}

/// A structured value as it is stored: a part of a record, or what has no form of our own.
pub(crate) fn json(value: &impl Serialize) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|source| StoreError::Corrupt { what: "value", source: Box::new(source) })
}

/// A person's text as it is stored: PostgreSQL refuses the character NUL, so neither database gets one.
pub(crate) fn clean(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}
