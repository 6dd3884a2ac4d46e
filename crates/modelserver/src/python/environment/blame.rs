//! Finds the lines at fault when a list of packages cannot be installed.

use std::fmt::Write as _;

use super::{
    builder::Told,
    wanted::{Requirement, Wanted, is_of_name, normal},
};
use crate::ServeError;

/// Maximum number of lines in an error.
const NAMED: usize = 4;

/// The error of a failed installation: the lines that its output is about, and the output of the program `builder`.
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

/// The lines that the output quotes completely; otherwise those whose package it names.
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
