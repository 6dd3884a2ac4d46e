//! CSV tables for an ONNX model from MLflow; for other models pandas reads them in the workers.

use serde_json::{Value, json};

/// The values that pandas treats as missing.
const MISSING: [&str; 17] = [
    "", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "<NA>", "N/A", "NA", "NULL", "NaN",
    "None", "nan", "null",
];

/// Maximum number of missing cells in total, for any length of the table.
const MOST_MISSING: usize = 10_000;

/// The equivalent body of `/invocations`: the first line contains the names of the columns. A missing cell costs more
/// than its text, so a table with mostly missing cells is refused.
pub(super) fn as_split(text: &str) -> Result<String, String> {
    let mut rows = rows(text).into_iter();
    let columns = rows.next().unwrap_or_default();
    let missing: usize = rows.as_slice().iter().map(|row| columns.len().saturating_sub(row.len())).sum();
    if missing > MOST_MISSING.max(text.len() / 8) {
        return Err(format!(
            "the first line of the CSV names {} columns, and its rows lack {missing} cells in all",
            columns.len()
        ));
    }
    let data: Vec<Vec<Value>> = rows
        .map(|mut row| {
            row.resize(row.len().max(columns.len()), String::new());
            row.iter().map(|cell| value(cell)).collect()
        })
        .collect();
    Ok(json!({"dataframe_split": {"columns": columns, "data": data}}).to_string())
}

fn value(cell: &str) -> Value {
    match cell {
        "True" | "TRUE" | "true" => json!(true),
        "False" | "FALSE" | "false" => json!(false),
        missing if MISSING.contains(&missing) => Value::Null,
        other => {
            let number = other.trim().parse::<i64>().map(Value::from);
            let number = number.or_else(|_| other.trim().parse::<f64>().map(Value::from));
            number.ok().filter(Value::is_number).unwrap_or_else(|| json!(other))
        }
    }
}

/// The cells of each non-empty line. A quoted cell may contain commas, line breaks and doubled quotes.
fn rows(text: &str) -> Vec<Vec<String>> {
    let (mut rows, mut row, mut cell) = (Vec::new(), Vec::new(), String::new());
    let (mut quoted, mut letters) = (false, text.trim_start_matches('\u{feff}').chars().peekable());
    while let Some(letter) = letters.next() {
        match letter {
            '"' if quoted && letters.next_if_eq(&'"').is_some() => cell.push('"'),
            '"' if quoted || cell.is_empty() => quoted = !quoted,
            ',' if !quoted => row.push(std::mem::take(&mut cell)),
            '\n' if !quoted => {
                if cell.ends_with('\r') {
                    cell.pop();
                }
                end(&mut rows, &mut row, &mut cell);
            }
            other => cell.push(other),
        }
    }
    end(&mut rows, &mut row, &mut cell);
    rows
}

fn end(rows: &mut Vec<Vec<String>>, row: &mut Vec<String>, cell: &mut String) {
    if !row.is_empty() || !cell.is_empty() {
        row.push(std::mem::take(cell));
        rows.push(std::mem::take(row));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_rows_by_the_names_of_the_first_line() {
        for (text, columns, data) in [
            ("a,b\n1,2.5\n", json!(["a", "b"]), json!([[1, 2.5]])),
            ("a,b\r\n1,x y\r\n\r\n,NaN", json!(["a", "b"]), json!([[1, "x y"], [null, null]])),
            ("\"a, \"\"b\"\"\",c\n\"x\ny\",True", json!(["a, \"b\"", "c"]), json!([["x\ny", true]])),
            ("\u{feff}a,b\n1\n1,2,3\n-1e3, 4", json!(["a", "b"]), json!([[1, null], [1, 2, 3], [-1000.0, 4]])),
            ("a\n1e999\ninf\n", json!(["a"]), json!([["1e999"], ["inf"]])),
            ("", json!([]), json!([])),
        ] {
            let made: Value = serde_json::from_str(&as_split(text).unwrap()).unwrap();
            assert_eq!(made, json!({"dataframe_split": {"columns": columns, "data": data}}), "{text}");
        }
    }

    #[test]
    fn a_short_text_is_no_large_table() {
        let wide = format!("{}\n{}", ",".repeat(32_000), "1\n".repeat(32_000));
        assert!(as_split(&wide).is_err_and(|words| words.contains("32001 columns")));
        assert!(as_split(&format!("a,b\n{}", "1\n".repeat(9_000))).is_ok());
    }
}
