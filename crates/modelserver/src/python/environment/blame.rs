//! Which line is to blame when a list of packages cannot be installed.

use std::fmt::Write as _;

use super::{Requirement, Wanted, builder::Told};
use crate::ServeError;

/// How many lines are named at most.
const NAMED: usize = 4;

/// The error of a failed installation: the lines that its words are about, and the words of the program `builder`.
pub(super) fn blame(wanted: &Wanted, builder: &str, told: &Told) -> ServeError {
    let cause = told.cause();
    let lines = [wanted.requirements.as_slice(), &wanted.constraints].concat();
    let mut reason = format!("the environment of {} cannot be built", wanted.file.display());
    for (place, line) in culprits(&lines, &cause).into_iter().take(NAMED).enumerate() {
        let lead = if place == 0 { ": " } else { ", and " };
        let _ = match line.line {
            0 => write!(reason, "{lead}`{}`, which every environment has", line.text),
            number => write!(reason, "{lead}line {number} of {} (`{}`)", line.file.display(), line.text),
        };
    }
    let _ = write!(reason, ". {builder} says: {cause}");
    ServeError::Environment { reason, retry: told.may_pass() }
}

/// The lines that are quoted whole; else those whose package is named.
fn culprits<'l>(lines: &'l [Requirement], cause: &str) -> Vec<&'l Requirement> {
    let squeezed: String = cause.chars().filter(|c| !c.is_whitespace()).collect();
    let whole = |line: &&Requirement| {
        let text: String = bare(&line.text).chars().filter(|c| !c.is_whitespace()).collect();
        text.contains(['=', '<', '>', '~', '@']) && squeezed.contains(&text)
    };
    let quoted: Vec<_> = lines.iter().filter(whole).collect();
    if !quoted.is_empty() {
        return quoted;
    }
    let words: Vec<String> = cause.split(|c: char| !is_of_name(c)).map(normal).collect();
    lines.iter().filter(|line| !line.name().is_empty() && words.contains(&line.name())).collect()
}

/// The requirement without its marker and comment.
fn bare(text: &str) -> &str {
    text.split([';', '#']).next().unwrap_or(text).trim()
}

/// The normal name of the package that a requirement asks for; empty for an option.
pub(super) fn name_of(text: &str) -> String {
    if text.starts_with('-') {
        return String::new();
    }
    normal(text.split(|c: char| !is_of_name(c)).next().unwrap_or_default())
}

fn is_of_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')
}

/// As the package index compares names: lower case, runs of `-`, `_` and `.` as one `-`.
fn normal(name: &str) -> String {
    let lower = name.to_ascii_lowercase();
    lower.split(['-', '_', '.']).filter(|part| !part.is_empty()).collect::<Vec<_>>().join("-")
}
