//! From the rows that a person writes to a request of the Open Inference Protocol.

use serde_json::{Map, Value, json};

use super::{Metadata, TensorMetadata};
use crate::{exit::Failure, output::Table};

/// Whether the data is a request already.
pub(super) fn is_whole(data: &Value) -> bool {
    data.get("inputs").is_some_and(Value::is_array)
}

/// Makes a request of rows: a list, or `{"instances": […]}`.
///
/// A model of one input takes values; one of several takes an object by their names in each row. A single
/// row may be given without its outer brackets.
pub(super) fn build(metadata: &Metadata, data: Value) -> Result<Value, Failure> {
    let rows = match data {
        Value::Array(_) => data,
        Value::Object(mut fields) if fields.contains_key("instances") => {
            fields.remove("instances").unwrap_or(Value::Null)
        }
        Value::Object(_) | Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            return Err(wrong(metadata, "the data is neither a list, nor {\"instances\": […]}, nor {\"inputs\": […]}"));
        }
    };
    let Value::Array(rows) = rows else { return Err(wrong(metadata, "`instances` is not a list")) };
    let inputs = match metadata.inputs.as_slice() {
        [] => return Err(Failure::failed(format!("{} does not say what it takes", metadata.name))),
        [only] if !rows.iter().all(|row| row.is_object()) || rows.is_empty() => vec![tensor(only, Value::Array(rows))?],
        _ => columns(metadata, rows)?,
    };
    Ok(json!({"inputs": inputs}))
}

/// Rows that are objects, as one tensor for each input.
fn columns(metadata: &Metadata, rows: Vec<Value>) -> Result<Vec<Value>, Failure> {
    let mut columns: Map<String, Value> = Map::new();
    for input in &metadata.inputs {
        columns.insert(input.name.clone(), Value::Array(Vec::new()));
    }
    for (number, row) in rows.into_iter().enumerate() {
        let Value::Object(row) = row else {
            return Err(wrong(metadata, "it has several inputs, so each row must be an object by their names"));
        };
        for (name, value) in row {
            metadata.input(&name)?;
            if let Some(Value::Array(column)) = columns.get_mut(&name) {
                column.push(value);
            }
        }
        for (name, column) in &columns {
            if column.as_array().is_none_or(|column| column.len() != number + 1) {
                return Err(wrong(metadata, &format!("row {number} has no `{name}`")));
            }
        }
    }
    metadata.inputs.iter().map(|input| tensor(input, columns[&input.name].take())).collect()
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
            // One value a row, for a column that is declared as [-1, 1].
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
        .next(format!("See what it takes: modelway predict {name}"))
}

/// What the model takes and gives, and an example.
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

/// One row of nothings; long ones are cut, because only the form matters.
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

    fn iris() -> Metadata {
        metadata(json!([{"name": "input", "datatype": "FP32", "shape": [-1, 4]}]))
    }

    #[test]
    fn rows_become_a_tensor_of_the_models_own_datatype() {
        let expected = json!({"inputs": [
            {"name": "input", "datatype": "FP32", "shape": [2, 4], "data": [1, 2, 3, 4, 5, 6, 7, 8]}
        ]});
        let rows = json!([[1, 2, 3, 4], [5, 6, 7, 8]]);
        assert_eq!(build(&iris(), rows.clone()).expect("it fits"), expected);
        assert_eq!(build(&iris(), json!({"instances": rows})).expect("it fits"), expected);
    }

    #[test]
    fn a_single_row_may_come_without_its_brackets() {
        let request = build(&iris(), json!([1, 2, 3, 4])).expect("it fits");
        assert_eq!(request["inputs"][0]["shape"], json!([1, 4]));
        let column = metadata(json!([{"name": "x", "datatype": "FP32", "shape": [-1, 1]}]));
        let request = build(&column, json!([1, 2, 3])).expect("it fits");
        assert_eq!(request["inputs"][0]["shape"], json!([3, 1]), "a value a row where a row has one");
    }

    #[test]
    fn several_inputs_are_taken_by_name() {
        let two = metadata(json!([
            {"name": "age", "datatype": "INT64", "shape": [-1, 1]}, {"name": "city", "datatype": "BYTES", "shape": [-1, 1]}
        ]));
        let rows = json!([{"age": 1, "city": "a"}, {"city": "b", "age": 2}]);
        assert_eq!(
            build(&two, rows).expect("it fits"),
            json!({"inputs": [
                {"name": "age", "datatype": "INT64", "shape": [2, 1], "data": [1, 2]},
                {"name": "city", "datatype": "BYTES", "shape": [2, 1], "data": ["a", "b"]}
            ]})
        );
        for (rows, reason) in [
            (json!([{"age": 1}]), "row 0 has no `city`"),
            (json!([{"age": 1, "city": "a", "agee": 1}]), "has no input `agee`"),
            (json!([[1, "a"]]), "several inputs"),
        ] {
            let failure = build(&two, rows).expect_err(reason);
            assert!(failure.message.contains(reason), "{}", failure.message);
        }
    }

    #[test]
    fn ragged_rows_are_refused() {
        assert!(build(&iris(), json!([[1, 2, 3, 4], [5]])).is_err());
        assert!(build(&iris(), json!({"rows": []})).is_err());
    }

    #[test]
    fn the_usage_shows_tensors_and_an_example() {
        insta::assert_snapshot!(usage(&iris(), "iris"));
    }
}
