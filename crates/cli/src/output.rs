//! The output of commands: tables for people, JSON and YAML for programs.
//!
//! **Invariant:** nothing printed here can control a terminal, whoever wrote it. Text from elsewhere that may contain
//! line breaks goes through [`visible::part`] or [`visible::line`] before it is combined with our text.

use std::io::{self, Write as _};

use api::Timestamp;
use base::visible;
use clap::ValueEnum;
use serde::Serialize;

use crate::exit::Failure;

/// The output format.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Tables and sentences for people.
    #[default]
    Table,
    /// JSON, as in the response of the control plane.
    Json,
    /// The same as YAML.
    Yaml,
}

/// Writes text to standard output, with terminal control characters escaped.
///
/// # Errors
/// The reader has closed the output.
pub fn print(text: impl AsRef<str>) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(visible::lines(text.as_ref()).as_bytes())?;
    Ok(out.flush()?)
}

/// Writes a line to standard error, for progress and hints. A closed standard error is no error.
pub fn tell(line: impl AsRef<str>) {
    let _ = writeln!(io::stderr().lock(), "{}", visible::lines(line.as_ref()));
}

/// Prints `value` in the requested format; `table` creates the text for people.
///
/// # Errors
/// The reader has closed the output.
pub fn show<T: Serialize>(format: Format, value: &T, table: impl FnOnce() -> String) -> Result<(), Failure> {
    match format {
        Format::Table => print(table()),
        Format::Json => print(json(value)?),
        Format::Yaml => print(yaml(value)?),
    }
}

/// `value` as indented JSON with a line break at its end.
///
/// # Errors
/// A value that JSON cannot represent.
pub fn json<T: Serialize>(value: &T) -> Result<String, Failure> {
    let text = serde_json::to_string_pretty(value).map_err(|error| Failure::of(&error))?;
    Ok(visible::json(&text).into_owned() + "\n")
}

/// `value` as JSON on one line, with a line break at its end.
///
/// # Errors
/// A value that JSON cannot represent.
pub fn json_line<T: Serialize>(value: &T) -> Result<String, Failure> {
    let text = serde_json::to_string(value).map_err(|error| Failure::of(&error))?;
    Ok(visible::json(&text).into_owned() + "\n")
}

/// `value` as YAML. If it contains terminal control characters, it is written as JSON, which is valid YAML.
///
/// # Errors
/// A value that YAML cannot represent.
pub fn yaml<T: Serialize>(value: &T) -> Result<String, Failure> {
    let text = serde_yaml_ng::to_string(value).map_err(|error| Failure::of(&error))?;
    if visible::is_plain(&text) { Ok(text) } else { json(value) }
}

/// Rows under headings, each column as wide as its widest cell, three spaces apart.
#[derive(Debug)]
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with headings and no rows.
    #[must_use]
    pub fn new<'h>(headings: impl IntoIterator<Item = &'h str>) -> Self {
        Self { rows: vec![headings.into_iter().map(|heading| visible::line(heading).into_owned()).collect()] }
    }

    /// Adds a row.
    pub fn row<T: Into<String>>(&mut self, cells: impl IntoIterator<Item = T>) {
        self.rows.push(cells.into_iter().map(|cell| visible::line(&cell.into()).into_owned()).collect());
    }

    /// The text, with a line break at its end.
    #[must_use]
    pub fn text(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            self.rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<_> = (0..columns).map(width).collect();
        let mut text = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                line.push_str(&format!("{cell:<width$}   "));
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

/// A time to the millisecond, and that it is UTC: `2025-03-09T02:16:33.792Z`.
#[must_use]
pub fn at(time: Timestamp) -> String {
    let text = time.to_string();
    format!("{}Z", text.get(..23).unwrap_or(&text))
}

/// A duration as in flags: `500ms`, `30s`.
#[must_use]
pub fn time(milliseconds: u64) -> String {
    if milliseconds.is_multiple_of(1_000) { format!("{}s", milliseconds / 1_000) } else { format!("{milliseconds}ms") }
}

/// `1 replica`, `2 replicas`.
#[must_use]
pub fn count(number: usize, thing: &str) -> String {
    format!("{number} {thing}{}", if number == 1 { "" } else { "s" })
}

/// The age of something, in one unit: `12s`, `5m`, `3h`, `2d`.
#[must_use]
pub fn age(past: std::time::Duration) -> String {
    match past.as_secs() {
        seconds @ 0..120 => format!("{seconds}s"),
        seconds @ 120..7_200 => format!("{}m", seconds / 60),
        seconds @ 7_200..172_800 => format!("{}h", seconds / 3_600),
        seconds => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell_and_lines_have_no_trailing_space() {
        let mut table = Table::new(["NAME", "STATE", ""]);
        table.row(["iris", "active", ""]);
        table.row(["a-longer-name", "x\ny", "z"]);
        assert_eq!(table.text(), "NAME            STATE\niris            active\na-longer-name   x\\ny     z\n");
    }

    #[test]
    fn a_program_reads_the_very_text_that_a_terminal_is_not_shown() {
        let value = serde_json::json!({"error": "a\u{1b}[2J\u{202e}\u{9b}\nb", "plain": "é\nb", "number": 1});
        for text in [json(&value), json_line(&value), yaml(&value)] {
            let text = text.expect("it can be said");
            assert!(!text.contains(['\u{1b}', '\u{202e}', '\u{9b}']), "{text:?}");
            assert_eq!(serde_yaml_ng::from_str::<serde_json::Value>(&text).expect("it is YAML"), value, "{text}");
        }
        let plain = yaml(&serde_json::json!({"a": "b"})).expect("it can be said");
        assert_eq!(plain, "a: b\n", "what is harmless stays YAML in blocks");
    }

    #[test]
    fn times_and_numbers_are_as_people_write_them() {
        let moment: Timestamp = "2025-03-09T02:16:33.792720".parse().expect("a time");
        assert_eq!(at(moment), "2025-03-09T02:16:33.792Z");
        assert_eq!([time(30_000), time(1_500)], ["30s", "1500ms"]);
        assert_eq!([count(1, "replica"), count(0, "replica")], ["1 replica", "0 replicas"]);
    }

    #[test]
    fn an_age_has_one_unit() {
        let ages: Vec<_> = [5, 119, 120, 7_300, 200_000].map(|s| age(Duration::from_secs(s))).into();
        assert_eq!(ages, ["5s", "119s", "2m", "2h", "2d"]);
    }
}
