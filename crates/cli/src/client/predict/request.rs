//! Recognises the data from the user: a complete request body, or rows that are put into one.

use std::borrow::Cow;

use serde_json::{Map, Value, json};

use super::metadata::{Metadata, TensorMetadata};
use crate::{exit::Failure, output::Table};

/// The kind of the data.
#[derive(Debug, PartialEq)]
pub(super) enum Given {
    /// A body of V2's `infer`.
    Inference(String),
    /// A body of V1's `predict`.
    Instances(String),
    /// A body of `generate`: one field per input; other fields are parameters.
    Fields(String),
    /// Only rows.
    Rows(Vec<Value>),
}

/// Recognises the data by its form. A complete body is kept unchanged.
///
/// # Errors
/// What is wrong with the data, as the continuation of "--data".
pub(super) fn read(text: String) -> Result<Given, String> {
    let data = serde_json::from_str(&with_quoted_floats(&text)).map_err(|error| format!("is not JSON: {error}"))?;
    Ok(match data {
        Value::Array(rows) => Given::Rows(rows),
        Value::Object(fields) if fields.get("inputs").is_some_and(are_tensors) => Given::Inference(text),
        Value::Object(fields) if fields.contains_key("instances") || fields.contains_key("inputs") => {
            if fields.contains_key("params") {
                Given::Instances(without_frames(fields)?)
            } else {
                Given::Instances(text)
            }
        }
        Value::Object(fields) if fields.contains_key("dataframe_records") || fields.contains_key("dataframe_split") => {
            Given::Instances(without_frames(fields)?)
        }
        Value::Object(_) => Given::Fields(text),
        one @ (Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_)) => Given::Rows(vec![one]),
    })
}

/// Whether `inputs` are those of V2: objects with a name and data, or with a location of the data.
fn are_tensors(inputs: &Value) -> bool {
    let is_tensor = |input: &Value| {
        input.get("name").is_some_and(Value::is_string)
            && ["datatype", "shape", "data"].iter().any(|field| input.get(field).is_some())
    };
    inputs.as_array().is_some_and(|inputs| inputs.iter().all(is_tensor) && !inputs.is_empty())
}

/// Converts a body of MLflow's scoring server to V1, because gateways do not support `/invocations`.
fn without_frames(mut fields: Map<String, Value>) -> Result<String, String> {
    if let Some(records) = fields.remove("dataframe_records") {
        fields.insert("instances".to_owned(), records);
    }
    if let Some(split) = fields.remove("dataframe_split") {
        fields.insert("instances".to_owned(), rows_of_split(split)?);
    }
    if let Some(parameters) = fields.remove("params") {
        fields.insert("parameters".to_owned(), parameters);
    }
    Ok(Value::Object(fields).to_string())
}

/// The rows of `dataframe_split`: objects with the names of the columns, or lists if the names are numbers.
fn rows_of_split(mut split: Value) -> Result<Value, String> {
    let mut list = |name: &str| split.get_mut(name).and_then(Value::as_array_mut).map(std::mem::take);
    let columns = list("columns").unwrap_or_default();
    let rows = list("data").ok_or("has a `dataframe_split` without a list of rows, `data`")?;
    let named = columns.iter().any(Value::is_string);
    let name = |name: Value| name.as_str().map_or_else(|| name.to_string(), str::to_owned);
    let columns: Vec<_> = columns.into_iter().map(name).collect();
    let row = |(place, row): (usize, Value)| match row {
        Value::Array(values) if named && values.len() != columns.len() => Err(format!(
            "has {} values in row {place} of `dataframe_split`, and {} columns",
            values.len(),
            columns.len()
        )),
        Value::Array(values) if named => Ok(Value::Object(columns.iter().cloned().zip(values).collect())),
        row @ (Value::Null
        | Value::Bool(_)
        | Value::Number(_)
        | Value::String(_)
        | Value::Array(_)
        | Value::Object(_)) => Ok(row),
    };
    rows.into_iter().enumerate().map(row).collect()
}

/// The same text with bare `NaN` and `Infinity`, which Python writes but JSON does not allow, as strings.
fn with_quoted_floats(text: &str) -> Cow<'_, str> {
    let mut made = String::new();
    let (mut from, mut at, mut in_string) = (0, 0, false);
    let bytes = text.as_bytes();
    while at < bytes.len() {
        match bytes[at] {
            b'\\' if in_string => at += 1,
            b'"' => in_string = !in_string,
            _ if !in_string => {
                let word =
                    ["NaN", "-Infinity", "Infinity"].into_iter().find(|word| bytes[at..].starts_with(word.as_bytes()));
                if let Some(word) = word {
                    made.push_str(&text[from..at]);
                    made.push_str(&json!(word).to_string());
                    at += word.len();
                    from = at;
                    continue;
                }
            }
            _ => {}
        }
        at += 1;
    }
    if from == 0 {
        return text.into();
    }
    made.push_str(&text[from..]);
    made.into()
}

/// Creates a request from rows. A single row may be given without its outer brackets.
///
/// For a model with one input, a row is a value; for a model with several inputs, it is an object by name, or a list in
/// the order of the inputs.
pub(super) fn build(metadata: &Metadata, rows: Vec<Value>) -> Result<Value, Failure> {
    let inputs = match metadata.inputs.as_slice() {
        [] => return Err(Failure::failed(format!("{} does not list its inputs", metadata.name))),
        [only] if !rows.iter().all(|row| is_by_name(only, row)) || rows.is_empty() => {
            vec![tensor(only, Value::Array(rows))?]
        }
        _ => columns(metadata, rows)?,
    };
    Ok(json!({"inputs": inputs}))
}

/// Whether a row is an object with the names of inputs, and not the bytes of a string: `{"b64": "…"}`.
fn is_by_name(only: &TensorMetadata, row: &Value) -> bool {
    row.as_object().is_some_and(|row| only.datatype != "BYTES" || only.name == "b64" || !row.contains_key("b64"))
}

/// Rows by name or in order, as one tensor for each given input.
fn columns(metadata: &Metadata, rows: Vec<Value>) -> Result<Vec<Value>, Failure> {
    let mut columns: Map<String, Value> = Map::new();
    for (number, row) in rows.into_iter().enumerate() {
        let row: Map<String, Value> = match row {
            Value::Object(row) => row,
            Value::Array(values) if values.len() == metadata.inputs.len() => {
                metadata.inputs.iter().map(|input| input.name.clone()).zip(values).collect()
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
                let names: Vec<_> = metadata.inputs.iter().map(|input| input.name.as_str()).collect();
                let reason = format!(
                    "it has several inputs, so each row must be an object by their names, or a list in this order: {}",
                    names.join(", ")
                );
                return Err(wrong(metadata, &reason));
            }
        };
        let lacks = |row: usize, name: &str| wrong(metadata, &format!("row {row} has no `{name}`, and others have it"));
        for (name, value) in row {
            metadata.input(&name)?;
            let column = columns.entry(&name).or_insert_with(|| Value::Array(Vec::new())).as_array_mut();
            column.filter(|column| column.len() == number).ok_or_else(|| lacks(0, &name))?.push(value);
        }
        if let Some((name, _)) = columns.iter().find(|(_, column)| column.as_array().is_none_or(|c| c.len() == number))
        {
            return Err(lacks(number, name));
        }
    }
    let given = metadata.inputs.iter().filter_map(|input| Some((input, columns.remove(&input.name)?)));
    given.collect::<Vec<_>>().into_iter().map(|(input, column)| tensor(input, column)).collect()
}

fn tensor(input: &TensorMetadata, rows: Value) -> Result<Value, Failure> {
    let mut shape = shape(&rows);
    let mut data = Vec::new();
    flatten(rows, &mut data);
    if shape.iter().product::<usize>() != data.len() {
        return Err(Failure::usage(format!("the rows for `{}` are not all of the same length", input.name)));
    }
    let rank = input.shape.len();
    if shape.len() + 1 == rank {
        match fixed(&input.shape[1..]) == fixed_of(&shape) || input.shape.last() != Some(&1) {
            true => shape.insert(0, 1),
            // One value per row, for a column with the shape [-1, 1].
            false => shape.push(1),
        }
    }
    Ok(json!({"name": input.name, "datatype": input.datatype, "shape": shape, "data": data}))
}

fn fixed(shape: &[i64]) -> Vec<Option<usize>> {
    shape.iter().map(|size| usize::try_from(*size).ok()).collect()
}

fn fixed_of(shape: &[usize]) -> Vec<Option<usize>> {
    shape.iter().copied().map(Some).collect()
}

/// The shape of nested lists, by their first elements.
fn shape(value: &Value) -> Vec<usize> {
    match value {
        Value::Array(items) => {
            let below = items.first().map(shape).unwrap_or_default();
            [items.len()].into_iter().chain(below).collect()
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_) => Vec::new(),
    }
}

fn flatten(value: Value, into: &mut Vec<Value>) {
    match value {
        Value::Array(items) => items.into_iter().for_each(|item| flatten(item, into)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_) => into.push(value),
    }
}

fn wrong(metadata: &Metadata, reason: &str) -> Failure {
    let name = &metadata.name;
    Failure::usage(format!("the data does not fit {name}: {reason}"))
        .next(format!("See its inputs: modelway predict {name}"))
}

/// The inputs and outputs of the model, and an example.
pub(super) fn usage(metadata: &Metadata, who: &str) -> String {
    let mut table = Table::new(["TENSOR", "NAME", "DATATYPE", "SHAPE"]);
    let sides = [("input", &metadata.inputs), ("output", &metadata.outputs)];
    for (side, tensors) in sides {
        for tensor in tensors {
            let shape: Vec<_> =
                tensor.shape.iter().map(|size| if *size < 0 { "?".to_owned() } else { size.to_string() }).collect();
            table.row([
                side.to_owned(),
                tensor.name.clone(),
                tensor.datatype.clone(),
                format!("[{}]", shape.join(", ")),
            ]);
        }
    }
    let row = match metadata.inputs.as_slice() {
        [only] => example(only),
        several => {
            let row: Map<_, _> = several.iter().map(|input| (input.name.clone(), example(input))).collect();
            Value::Object(row)
        }
    };
    format!("{}\nFor example:  modelway predict {who} --data '{}'\n", table.text(), Value::Array(vec![row]))
}

/// One row of zeros; long rows are cut, because only the form matters.
fn example(input: &TensorMetadata) -> Value {
    let one = match input.datatype.as_str() {
        "BYTES" => json!("text"),
        "BOOL" => json!(false),
        "FP16" | "FP32" | "FP64" | "BF16" => json!(0.0),
        _ => json!(0),
    };
    let sizes = input.shape.iter().skip(1).rev();
    sizes.fold(one, |inner, size| Value::Array(vec![inner; usize::try_from(*size).unwrap_or(1).min(64)]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata(inputs: Value) -> Metadata {
        serde_json::from_value(json!({"name": "iris", "inputs": inputs, "outputs": []})).expect("metadata")
    }

    /// The request for the rows.
    fn built(metadata: &Metadata, rows: &str) -> Result<Value, Failure> {
        match read(rows.to_owned()).expect("it is JSON") {
            Given::Rows(rows) => build(metadata, rows),
            other @ (Given::Inference(_) | Given::Instances(_) | Given::Fields(_)) => panic!("{rows}: {other:?}"),
        }
    }

    fn iris() -> Metadata {
        metadata(json!([{"name": "input", "datatype": "FP32", "shape": [-1, 4]}]))
    }

    #[test]
    fn rows_become_a_tensor_of_the_models_own_datatype() {
        let expected = json!({"inputs": [
            {"name": "input", "datatype": "FP32", "shape": [2, 4], "data": [1, 2, 3, 4, 5, 6, 7, 8]}
        ]});
        assert_eq!(built(&iris(), "[[1, 2, 3, 4], [5, 6, 7, 8]]").expect("it fits"), expected);
    }

    #[test]
    fn what_is_a_body_already_is_kept_to_the_letter() {
        let is = |text: &str| read(text.to_owned()).expect(text);
        for text in [
            r#"{"inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data": [NaN]}]}"#,
            r#"{"id": "1", "inputs": [{"name": "x", "data": [1.10]}], "parameters": {"timeout": 5}}"#,
            r#"{"inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "parameters": {}}]}"#,
        ] {
            assert_eq!(is(text), Given::Inference(text.to_owned()));
        }
        for text in [
            r#"{"instances": [{"b64": "AP8="}]}"#,
            r#"{"instances": [[5.10, NaN, -Infinity]], "parameters": {"horizon": 2}}"#,
            r#"{"instances": [{"a": "NaN \" Infinity"}], "signature_name": "x"}"#,
            r#"{"inputs": [[1, 2]]}"#,
            r#"{"inputs": {"a": [1], "b": [18446744073709551615]}}"#,
            r#"{"inputs": [{"a": 1}]}"#,
        ] {
            assert_eq!(is(text), Given::Instances(text.to_owned()));
        }
        for text in [r#"{"text": "Once", "words": 2}"#, r#"{"text": "a", "parameters": {"words": 2}}"#] {
            assert_eq!(is(text), Given::Fields(text.to_owned()));
        }
    }

    #[test]
    fn a_data_frame_of_mlflow_becomes_instances() {
        for (text, wanted) in [
            (
                r#"{"dataframe_records": [{"a": 1}], "params": {"n": 3}}"#,
                r#"{"instances":[{"a":1}],"parameters":{"n":3}}"#,
            ),
            (
                r#"{"dataframe_split": {"columns": ["b", "a"], "index": [0], "data": [[1, null], [2, "x"]]}}"#,
                r#"{"instances":[{"b":1,"a":null},{"b":2,"a":"x"}]}"#,
            ),
            (r#"{"dataframe_split": {"columns": [0, 1], "data": [[1, 2]]}}"#, r#"{"instances":[[1,2]]}"#),
            (r#"{"inputs": {"a": [1]}, "params": {"n": 3}}"#, r#"{"inputs":{"a":[1]},"parameters":{"n":3}}"#),
        ] {
            assert_eq!(read(text.to_owned()).expect(text), Given::Instances(wanted.to_owned()));
        }
    }

    #[test]
    fn a_data_frame_that_is_none_is_told() {
        for (text, wanted) in [
            (r#"{"dataframe_split": [1]}"#, "without a list of rows, `data`"),
            (r#"{"dataframe_split": {"columns": ["a"]}}"#, "without a list of rows, `data`"),
            (r#"{"dataframe_split": {"columns": ["a"], "data": [[1], [2, 3]]}}"#, "2 values in row 1"),
            ("{", "is not JSON"),
        ] {
            let words = read(text.to_owned()).expect_err(text);
            assert!(words.contains(wanted), "{words}");
        }
    }

    #[test]
    fn a_single_row_may_come_without_its_brackets() {
        let request = built(&iris(), "[1, 2, 3, 4]").expect("it fits");
        assert_eq!(request["inputs"][0]["shape"], json!([1, 4]));
        let column = metadata(json!([{"name": "x", "datatype": "FP32", "shape": [-1, 1]}]));
        let request = built(&column, "[1, NaN, 3]").expect("it fits");
        assert_eq!(request["inputs"][0]["shape"], json!([3, 1]), "a value a row where a row has one");
        assert_eq!(request["inputs"][0]["data"], json!([1, "NaN", 3]));
        let text = metadata(json!([{"name": "text", "datatype": "BYTES", "shape": [-1]}]));
        for (given, data) in [
            ("\"a\"", json!(["a"])),
            ("[\"a\", \"b\"]", json!(["a", "b"])),
            (r#"[{"b64": "AP8="}]"#, json!([{"b64": "AP8="}])),
            (r#"[{"text": "a"}]"#, json!(["a"])),
        ] {
            assert_eq!(built(&text, given).expect(given)["inputs"][0]["data"], data);
        }
    }

    #[test]
    fn several_inputs_are_taken_by_name_or_in_order() {
        let two = metadata(json!([
            {"name": "age", "datatype": "INT64", "shape": [-1, 1]}, {"name": "city", "datatype": "BYTES", "shape": [-1, 1]}
        ]));
        let expected = json!({"inputs": [
            {"name": "age", "datatype": "INT64", "shape": [2, 1], "data": [1, 2]},
            {"name": "city", "datatype": "BYTES", "shape": [2, 1], "data": ["a", "b"]}
        ]});
        let rows = r#"[{"age": 1, "city": "a"}, {"city": "b", "age": 2}]"#;
        assert_eq!(built(&two, rows).expect("it fits"), expected);
        assert_eq!(built(&two, r#"[[1, "a"], [2, "b"]]"#).expect("it fits"), expected);
        let one = built(&two, r#"[{"city": "a"}]"#).expect("the server knows what may be left out");
        assert_eq!(one["inputs"].as_array().expect("a list").len(), 1);
        for (rows, reason) in [
            (r#"[{"age": 1, "city": "a"}, {"age": 2}]"#, "row 1 has no `city`"),
            (r#"[{"age": 1}, {"age": 2, "city": "a"}]"#, "row 0 has no `city`"),
            (r#"[{"age": 1, "city": "a", "agee": 1}]"#, "has no input `agee`"),
            ("[[1]]", "in this order: age, city"),
            ("[1]", "several inputs"),
        ] {
            let failure = built(&two, rows).expect_err(reason);
            assert!(failure.message.contains(reason), "{}", failure.message);
        }
    }

    #[test]
    fn ragged_rows_are_refused() {
        assert!(built(&iris(), "[[1, 2, 3, 4], [5]]").is_err());
    }

    #[test]
    fn the_usage_shows_tensors_and_an_example() {
        insta::assert_snapshot!(usage(&iris(), "iris"));
    }
}
