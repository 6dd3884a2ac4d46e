//! A data frame as pandas splits it, and the JSON that data frames become.

use inference::{Datatype, TensorMetadata};
use serde::Deserialize;
use serde_json::{json, value::RawValue};

use crate::error::InferError;

/// A data frame as pandas splits it. Its index says nothing to a model.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Split<'j> {
    #[serde(borrow, default)]
    pub(super) columns: Vec<&'j RawValue>,
    #[serde(borrow, default)]
    pub(super) index: Option<Vec<&'j RawValue>>,
    #[serde(borrow)]
    pub(super) data: Vec<Vec<&'j RawValue>>,
}

impl<'j> Split<'j> {
    pub(super) fn read(value: &'j RawValue) -> Result<Self, InferError> {
        let split: Self = serde_json::from_str(value.get()).map_err(|error| {
            let reason = format!("`dataframe_split` is not {{\"columns\": […], \"data\": [[…]]}}: {error}");
            InferError::Invalid(reason)
        })?;
        if let Some(index) = split.index.as_ref().filter(|index| index.len() != split.data.len()) {
            let (names, rows) = (index.len(), split.data.len());
            return Err(InferError::Invalid(format!(
                "`dataframe_split`: `index` has {names} values, and `data` {rows}"
            )));
        }
        let width = split.columns.len();
        match split.data.iter().position(|row| width > 0 && row.len() != width) {
            None => Ok(split),
            Some(row) => Err(InferError::Invalid(format!(
                "`dataframe_split`: row {row} has {} values, and there are {width} columns",
                split.data[row].len()
            ))),
        }
    }
}

/// What pandas makes of a number that is not there.
pub(super) const NAN: &str = "\"NaN\"";

pub(super) fn is_float(input: &TensorMetadata) -> bool {
    matches!(input.datatype, Datatype::Fp32 | Datatype::Fp64)
}

/// Appends a list of JSON; `write` appends each value.
pub(super) fn list<T>(out: &mut String, values: impl IntoIterator<Item = T>, mut write: impl FnMut(&mut String, T)) {
    out.push('[');
    for (place, value) in values.into_iter().enumerate() {
        if place > 0 {
            out.push(',');
        }
        write(out, value);
    }
    out.push(']');
}

/// Appends an object of JSON, of fields by their names; `write` appends each value.
pub(super) fn object<'n, T>(
    out: &mut String,
    fields: impl IntoIterator<Item = (&'n str, T)>,
    mut write: impl FnMut(&mut String, T),
) {
    out.push('{');
    for (place, (name, value)) in fields.into_iter().enumerate() {
        if place > 0 {
            out.push(',');
        }
        out.push_str(&json!(name).to_string());
        out.push(':');
        write(out, value);
    }
    out.push('}');
}
