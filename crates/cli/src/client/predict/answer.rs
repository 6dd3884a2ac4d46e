//! Prints an answer of any protocol as a small table.

use serde_json::{Map, Value};

use crate::output::Table;

/// Maximum number of rows, and of values in a cell.
const ROWS: usize = 20;
const CELL: usize = 12;

/// A column: its name, and a text for each row.
type Column = (String, Vec<String>);

/// One column per output and one line per row.
pub(super) fn table(answer: &Value) -> String {
    let columns = if let Some(outputs) = answer["outputs"].as_array() {
        outputs.iter().map(|output| (output["name"].as_str().unwrap_or("?").to_owned(), rows(output))).collect()
    } else if answer.get("predictions").is_some() {
        predictions(answer)
    } else {
        generated(answer)
    };
    let mut table = Table::new(columns.iter().map(|(name, _)| name.as_str()));
    let count = columns.iter().map(|(_, rows)| rows.len()).max().unwrap_or(0);
    for row in 0..count.min(ROWS) {
        table.row(columns.iter().map(|(_, rows)| rows.get(row).cloned().unwrap_or_default()));
    }
    let more = if count > ROWS { format!("… {} more; -o json shows all\n", count - ROWS) } else { String::new() };
    table.text() + &more
}

/// An answer of V1.
fn predictions(answer: &Value) -> Vec<Column> {
    let rows = |name: &str| answer[name].as_array().map(Vec::as_slice).unwrap_or_default();
    let predictions = rows("predictions");
    let objects: Option<Vec<_>> = predictions.iter().map(Value::as_object).collect();
    let mut columns = match objects {
        Some(objects) if !objects.is_empty() => by_field(&objects),
        _ => vec![("predictions".to_owned(), predictions.iter().map(flat_cell).collect())],
    };
    if answer.get("probabilities").is_some() {
        columns.push(("probabilities".to_owned(), rows("probabilities").iter().map(flat_cell).collect()));
    }
    columns
}

/// The answer of `generate`, or the answers of a stream.
fn generated(answer: &Value) -> Vec<Column> {
    let answers = answer.as_array().map_or_else(|| std::slice::from_ref(answer), Vec::as_slice);
    let outputs = |answer: &Value| -> Map<String, Value> {
        let fields = answer.as_object().into_iter().flatten();
        let fields = fields.filter(|(name, _)| !["model_name", "model_version", "id"].contains(&name.as_str()));
        fields.map(|(name, value)| (name.clone(), value.clone())).collect()
    };
    let answers: Vec<_> = answers.iter().map(outputs).collect();
    by_field(&answers.iter().collect::<Vec<_>>())
}

/// One column for each field of the first object.
fn by_field(objects: &[&Map<String, Value>]) -> Vec<Column> {
    let names = objects.first().map(|first| first.keys().cloned().collect::<Vec<_>>()).unwrap_or_default();
    let column = |name: String| {
        let rows = objects.iter().map(|object| object.get(&name).map(flat_cell).unwrap_or_default()).collect();
        (name, rows)
    };
    names.into_iter().map(column).collect()
}

/// All values of one row.
fn flat_cell(value: &Value) -> String {
    let mut values = Vec::new();
    flatten(value, &mut values);
    cell(&values)
}

/// An output's values, grouped by its first dimension.
fn rows(output: &Value) -> Vec<String> {
    let mut values = Vec::new();
    flatten(&output["data"], &mut values);
    let count = output["shape"][0].as_u64().and_then(|count| usize::try_from(count).ok()).unwrap_or(1).max(1);
    let width = values.len().div_ceil(count).max(1);
    values.chunks(width).map(cell).collect()
}

fn cell(values: &[&Value]) -> String {
    let mut words: Vec<_> = values.iter().take(CELL).map(|value| word(value)).collect();
    if values.len() > CELL {
        words.push(format!("… ({})", values.len()));
    }
    words.join("  ")
}

fn word(value: &Value) -> String {
    match (value, value.as_f64()) {
        (Value::String(text), _) => text.clone(),
        (Value::Number(number), Some(real)) if number.is_f64() => {
            // Six digits are enough for probabilities; the rest is rounding noise.
            let text = format!("{real:.6}");
            if real != 0.0 && real.abs() < 1e-4 {
                format!("{real:.3e}")
            } else {
                text.trim_end_matches('0').trim_end_matches('.').to_owned()
            }
        }
        (other, _) => other.to_string(),
    }
}

fn flatten<'v>(value: &'v Value, into: &mut Vec<&'v Value>) {
    match value.as_array() {
        Some(items) => items.iter().for_each(|item| flatten(item, into)),
        None => into.push(value),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_answer_is_a_line_for_each_row() {
        let answer = json!({"model_name": "iris", "outputs": [
            {"name": "label", "datatype": "INT64", "shape": [2], "data": [0, 2]},
            {"name": "probabilities", "datatype": "FP32", "shape": [2, 3],
             "data": [0.9799996, 0.02, 0.00000012, 0.0, 0.25, 0.75]}
        ]});
        assert_eq!(table(&answer), "label   probabilities\n0       0.98  0.02  1.200e-7\n2       0  0.25  0.75\n");
    }

    #[test]
    fn the_answers_of_the_other_protocols_are_tables_too() {
        for (answer, wanted) in [
            (
                json!({"predictions": [0, 2], "probabilities": [[0.98, 0.02], [0.25, 0.75]], "model_name": "iris"}),
                "predictions   probabilities\n0             0.98  0.02\n2             0.25  0.75\n",
            ),
            (json!({"predictions": [{"label": "a", "n": [1, 2]}]}), "label   n\na       1  2\n"),
            (json!({"model_name": "writer", "model_version": "1", "output": "Once 0"}), "output\nOnce 0\n"),
            (json!([{"output": "Once 0"}, {"output": "Once 1"}]), "output\nOnce 0\nOnce 1\n"),
        ] {
            assert_eq!(table(&answer), wanted, "{answer}");
        }
    }

    #[test]
    fn many_rows_are_cut_and_the_rest_is_counted() {
        let data: Vec<_> = (0..30).collect();
        let answer = json!({"outputs": [{"name": "y", "shape": [30, 1], "data": data}]});
        assert!(table(&answer).ends_with("19\n… 10 more; -o json shows all\n"));
    }
}
