//! An answer of the Open Inference Protocol, as a small table.

use serde_json::Value;

use crate::output::Table;

/// The most rows, and the most values in a cell, that people are shown.
const ROWS: usize = 20;
const CELL: usize = 12;

/// A column for each output and a line for each row.
pub(super) fn table(answer: &Value) -> String {
    let outputs = answer["outputs"].as_array().map(Vec::as_slice).unwrap_or_default();
    let mut table = Table::new(outputs.iter().map(|output| output["name"].as_str().unwrap_or("?")));
    let columns: Vec<_> = outputs.iter().map(rows).collect();
    let count = columns.iter().map(Vec::len).max().unwrap_or(0);
    for row in 0..count.min(ROWS) {
        table.row(columns.iter().map(|column| column.get(row).cloned().unwrap_or_default()));
    }
    let more = if count > ROWS { format!("… {} more; -o json shows all\n", count - ROWS) } else { String::new() };
    table.text() + &more
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
            // Six digits tell probabilities apart; the rest is noise of the datatype.
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
    fn many_rows_are_cut_and_the_rest_is_counted() {
        let data: Vec<_> = (0..30).collect();
        let answer = json!({"outputs": [{"name": "y", "shape": [30, 1], "data": data}]});
        assert!(table(&answer).ends_with("19\n… 10 more; -o json shows all\n"));
    }
}
