//! Data frames for an ONNX model from MLflow, which this server runs itself.
//!
//! MLflow gives such a model its logged columns in order: as one matrix if it has one input, otherwise each column to
//! the input with its name. Unlogged columns are ignored.

use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
};

use inference::{Ignored, TensorMetadata};
use serde_json::value::RawValue;

use super::{
    super::fields::{Fields, MOST},
    split::{NAN, Split, is_float, list, object},
};
use crate::{
    error::InferError,
    runtime::{Logged, Signature},
};

/// Rows with column names; each cell is the text of its JSON.
struct Frame<'j> {
    names: Vec<Cow<'j, str>>,
    rows: Vec<Vec<&'j str>>,
}

/// The field of a V1 body, and its value, for a body whose field `form` is a data frame. `None`: it is not one.
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
        // Columns without names are identified by their order.
        _ if frame.names.is_empty() => Vec::new(),
        (Logged::Table(names), _) if !names.is_empty() => frame.places(names.iter().map(String::as_str), ignored)?,
        (_, [_]) => (0..frame.names.len()).collect(),
        (_, inputs) => frame.places(inputs.iter().map(|input| input.name.as_str()), ignored)?,
    };
    let inputs = signature.inputs.as_slice();
    let mut out = String::new();
    if frame.names.is_empty() {
        // All cells of a matrix belong to its input. A row of another length is refused as such.
        let input = |place: usize| if inputs.len() == 1 { inputs.first() } else { inputs.get(place) };
        list(&mut out, &frame.rows, |out, row| {
            list(out, row.iter().enumerate(), |out, (place, text)| out.push_str(cell(input(place), text)));
        });
        return Ok(Some(("instances", out)));
    }
    if let [input] = inputs {
        list(&mut out, &frame.rows, |out, row| {
            list(out, &places, |out, place| out.push_str(cell(Some(input), row[*place])));
        });
        return Ok(Some(("instances", out)));
    }
    let columns = places.iter().map(|place| (frame.names[*place].as_ref(), *place));
    let columns = columns.map(|(name, place)| (name, (place, inputs.iter().find(|input| input.name == name))));
    object(&mut out, columns, |out, (place, input)| {
        list(out, &frame.rows, |out, row| out.push_str(cell(input, row[place])));
    });
    Ok(Some(("inputs", out)))
}

impl Frame<'_> {
    /// The positions of the columns with these names. Others are recorded as ignored.
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

/// The value of a cell for an input, where a number may be missing.
fn cell<'j>(input: Option<&TensorMetadata>, text: &'j str) -> &'j str {
    if text == "null" && input.is_some_and(is_float) { NAN } else { text }
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

/// Records, some of which may lack names that others have.
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
    // A record with all columns has at least one byte of text for each: missing ones cost memory without text.
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

/// Columns by name, all of the same length.
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

    fn input(name: &str) -> TensorMetadata {
        let datatype = inference::Datatype::Fp32;
        TensorMetadata { name: name.to_owned(), datatype, shape: vec![-1], labels: Vec::new() }
    }

    #[test]
    fn a_row_without_names_keeps_all_of_its_cells() {
        let two = Signature { inputs: vec![input("a"), input("b")], logged: Logged::Tensors, ..Signature::default() };
        let value = RawValue::from_string(r#"{"data":[[1,null,3]]}"#.to_owned()).unwrap();
        let body = rewritten(&two, "dataframe_split", &value, &mut Ignored::default()).unwrap();
        assert_eq!(body, Some(("instances", r#"[[1,"NaN",3]]"#.to_owned())), "V1 refuses it for its length");
    }

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
