//! Data frames for a model of MLflow's that is in ONNX, which this server runs itself.
//!
//! MLflow gives such a model its logged columns in their order: as one matrix if it has one input, else each column to the
//! input of its name. Columns that were not logged are ignored.

use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
};

use api::inference::{Ignored, TensorMetadata};
use serde_json::value::RawValue;

use super::{
    super::fields::{Fields, MOST},
    Split, field, is_float, list, object,
};
use crate::{
    error::InferError,
    runtime::{Logged, Signature},
};

/// Rows with names for their cells; each cell is the text of its JSON.
struct Frame<'j> {
    names: Vec<Cow<'j, str>>,
    rows: Vec<Vec<&'j str>>,
}

/// The field of V1's body, and its value, that a body means whose field `form` is a data frame. `None`: it is none.
pub(super) fn rewritten(
    signature: &Signature,
    form: &str,
    value: &RawValue,
    ignored: &mut Ignored,
) -> Result<Option<(&'static str, String)>, InferError> {
    let frame = match form {
        "dataframe_split" => of_split(value)?,
        "dataframe_records" => of_records(value)?,
        _ if matches!(signature.logged, Logged::Table(_)) => match of_records(value) {
            Ok(frame) => frame,
            Err(_) => match of_columns(value) {
                Some(frame) => frame,
                None => return Ok(None),
            },
        },
        _ => return Ok(None),
    };
    let places = match (&signature.logged, signature.inputs.as_slice()) {
        // Columns without names are known by their order.
        _ if frame.names.is_empty() => Vec::new(),
        (Logged::Table(names), _) if !names.is_empty() => frame.places(names.iter().map(String::as_str), ignored)?,
        (_, [_]) => (0..frame.names.len()).collect(),
        (_, inputs) => frame.places(inputs.iter().map(|input| input.name.as_str()), ignored)?,
    };
    let row = |row: &Vec<&str>| match signature.inputs.as_slice() {
        [input] if frame.names.is_empty() => list(row.iter().map(|text| cell(input, text))),
        [input] => list(places.iter().map(|place| cell(input, row[*place]))),
        inputs => list(row.iter().zip(inputs).map(|(text, input)| cell(input, text))),
    };
    if frame.names.is_empty() || signature.inputs.len() == 1 {
        return Ok(Some(("instances", list(frame.rows.iter().map(row)))));
    }
    let known = |name: &str| signature.inputs.iter().find(|input| input.name == name);
    let column = |place: &usize| {
        let name = frame.names[*place].as_ref();
        let cells = frame.rows.iter().map(|row| row[*place]);
        field(name, &list(cells.map(|text| known(name).map_or_else(|| text.to_owned(), |input| cell(input, text)))))
    };
    Ok(Some(("inputs", object(places.iter().map(column)))))
}

impl Frame<'_> {
    /// Where the columns of these names are. Others are noted as ignored.
    fn places<'n>(
        &self,
        wanted: impl Iterator<Item = &'n str>,
        ignored: &mut Ignored,
    ) -> Result<Vec<usize>, InferError> {
        let (mut places, mut missing) = (Vec::new(), Vec::new());
        let mut index = HashMap::new();
        for (place, name) in self.names.iter().enumerate() {
            index.entry(name.as_ref()).or_insert(place);
        }
        for name in wanted {
            match index.get(name) {
                Some(place) => places.push(*place),
                None => missing.push(format!("`{name}`")),
            }
        }
        if !missing.is_empty() {
            let are = if missing.len() == 1 { "column is" } else { "columns are" };
            let reason = format!("{} {are} missing: {}", missing.len(), missing.join(", "));
            return Err(InferError::Invalid(reason));
        }
        let taken: HashSet<_> = places.iter().copied().collect();
        let extra = self.names.iter().enumerate().filter(|(place, _)| !taken.contains(place));
        extra.for_each(|(_, name)| ignored.add("", name));
        Ok(places)
    }
}

/// A cell's value for an input, for which a number may be missing.
fn cell(input: &TensorMetadata, text: &str) -> String {
    if text == "null" && is_float(input) { super::NAN.to_owned() } else { text.to_owned() }
}

fn of_split(value: &RawValue) -> Result<Frame<'_>, InferError> {
    let split = Split::read(value)?;
    let name = |name: &&'_ RawValue| match serde_json::from_str::<String>(name.get()) {
        Ok(text) => Cow::Owned(text),
        Err(_) => Cow::Owned(name.get().to_owned()),
    };
    let rows = split.data.iter().map(|row| row.iter().map(|cell| cell.get()).collect()).collect();
    Ok(Frame { names: split.columns.iter().map(name).collect(), rows })
}

/// Records, of which some may lack names that others have.
fn of_records<'j>(value: &'j RawValue) -> Result<Frame<'j>, InferError> {
    let records: Vec<Fields<'j>> = serde_json::from_str(value.get())
        .map_err(|error| InferError::Invalid(format!("`dataframe_records` is not a list of objects: {error}")))?;
    let mut names: Vec<Cow<'j, str>> = Vec::new();
    let mut index: HashMap<&str, usize> = HashMap::new();
    for (name, _) in records.iter().flat_map(|record| &record.0) {
        if index.contains_key(name.as_ref()) {
            continue;
        }
        if names.len() == MOST {
            let reason = format!("the records of `dataframe_records` have more than {MOST} columns together");
            return Err(InferError::Invalid(reason));
        }
        index.insert(name, names.len());
        names.push(name.clone());
    }
    // A record that has all columns has at least one byte of text for each: what is missing costs memory and no text.
    if names.len() * records.len() > value.get().len() {
        let reason =
            "the records of `dataframe_records` lack most of each other's columns: send the same columns in each";
        return Err(InferError::Invalid(reason.to_owned()));
    }
    let row = |record: &Fields<'j>| {
        let mut row = vec!["null"; names.len()];
        for (name, value) in &record.0 {
            row[index[name.as_ref()]] = value.get();
        }
        row
    };
    let rows = records.iter().map(row).collect();
    Ok(Frame { names, rows })
}

/// Columns by their names, all of one length.
fn of_columns(value: &RawValue) -> Option<Frame<'_>> {
    let columns: Fields<'_> = serde_json::from_str(value.get()).ok()?;
    let cells: Vec<Vec<&RawValue>> =
        columns.0.iter().map(|(_, column)| serde_json::from_str(column.get())).collect::<Result<_, _>>().ok()?;
    let count = cells.first()?.len();
    let even = cells.iter().all(|column| column.len() == count);
    let row = |row: usize| cells.iter().map(|column| column[row].get()).collect();
    even.then(|| Frame {
        names: columns.0.iter().map(|(name, _)| name.clone()).collect(),
        rows: (0..count).map(row).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(records: &str) -> String {
        match of_records(&RawValue::from_string(records.to_owned()).unwrap()) {
            Ok(frame) => format!("{:?} {:?}", frame.names, frame.rows),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn records_may_lack_columns_but_not_most_of_them() {
        assert_eq!(said(r#"[{"a":1,"b":2},{"b":3}]"#), r#"["a", "b"] [["1", "2"], ["null", "3"]]"#);
        let records = |count: usize| (0..count).map(|at| format!("{{\"a{at}\":1}}")).collect::<Vec<_>>().join(",");
        assert!(said(&format!("[{}]", records(3_000))).contains("send the same columns in each"));
        assert!(said(&format!("[{}]", records(5_000))).contains("more than 4096 columns"));
    }
}
