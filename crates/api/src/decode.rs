//! Reads JSON that a person wrote, and reports all of its faults at once.
//!
//! serde stops at the first fault and does not say where it is. Here a payload first becomes a [`serde_json::Value`]. A
//! [`Fields`] then reads one object of it: each `take` removes a field, and [`Fields::finish`] reports each remaining
//! field as unknown, with the nearest known name.

#![allow(clippy::wildcard_enum_match_arm, reason = "JSON has no further kinds of value")]

use std::{borrow::Cow, collections::BTreeMap, str::FromStr};

use serde_json::{Map, Value};

use crate::problem::Fault;

/// Maximum number of faults that are listed.
pub const MOST_FAULTS: usize = 100;
/// Code of the last fault in a list that was cut; its detail says how many faults are missing.
pub const MORE_FAULTS: &str = "more_faults";
/// Maximum length of a word of the payload in a fault, in bytes.
const MOST_OF_A_WORD: usize = 200;

/// The faults found so far. At most [`MOST_FAULTS`] of them are kept in detail.
#[derive(Debug, Default)]
pub struct Faults {
    listed: Vec<Fault>,
    more: usize,
}

impl Faults {
    /// Adds a fault at `pointer`.
    pub fn add(&mut self, pointer: impl AsRef<str>, code: &str, detail: impl Into<String>) {
        self.add_with(pointer, code, || detail.into());
    }

    /// Adds a fault whose detail is computed only if it is kept.
    pub fn add_with(&mut self, pointer: impl AsRef<str>, code: &str, detail: impl FnOnce() -> String) {
        if self.listed.len() == MOST_FAULTS {
            self.more += 1;
            return;
        }
        let pointer = short(pointer.as_ref()).into_owned();
        self.listed.push(Fault { pointer, code: code.to_owned(), detail: detail() });
    }

    /// The list; if it was cut, the last entry says how many faults are missing.
    #[must_use]
    pub fn into_list(mut self) -> Vec<Fault> {
        if self.more > 0 {
            let detail = format!("{} more faults are not listed; fix these first", self.more);
            self.listed.push(Fault { pointer: String::new(), code: MORE_FAULTS.to_owned(), detail });
        }
        self.listed
    }

    /// Returns the value, or the faults if there are any.
    ///
    /// # Errors
    /// All faults that were added.
    pub fn into_result<T>(self, value: Option<T>) -> Result<T, Vec<Fault>> {
        match value {
            Some(value) if self.listed.is_empty() => Ok(value),
            _ => Err(self.into_list()),
        }
    }
}

/// Reads one JSON object field by field. `null` counts as absent.
pub struct Fields<'f> {
    at: String,
    left: Map<String, Value>,
    known: Vec<&'static str>,
    faults: &'f mut Faults,
}

impl<'f> Fields<'f> {
    /// Starts to read `value`, which is at `pointer`. If it is not an object, adds a fault and returns `None`.
    pub fn of(value: Value, pointer: &str, faults: &'f mut Faults) -> Option<Self> {
        match value {
            Value::Object(left) => Some(Self { at: pointer.to_owned(), left, known: Vec::new(), faults }),
            other => {
                faults.add(pointer, "wrong_type", format!("expected an object, found {}", kind(&other)));
                None
            }
        }
    }

    /// The JSON pointer of a field of this object.
    #[must_use]
    pub fn pointer(&self, field: &str) -> String {
        pointer(&self.at, field)
    }

    /// Adds a fault at a field of this object.
    pub fn fault(&mut self, field: &str, code: &str, detail: impl Into<String>) {
        let pointer = self.pointer(field);
        self.faults.add(pointer, code, detail);
    }

    /// Adds a fault at any pointer.
    pub fn fault_at(&mut self, pointer: impl AsRef<str>, code: &str, detail: impl Into<String>) {
        self.faults.add(pointer, code, detail);
    }

    /// Whether the field is present and not null.
    #[must_use]
    pub fn has(&self, field: &str) -> bool {
        self.left.get(field).is_some_and(|value| !value.is_null())
    }

    /// Takes a field without checking its type.
    pub fn take(&mut self, field: &'static str) -> Option<Value> {
        self.known.push(field);
        self.left.shift_remove(field).filter(|value| !value.is_null())
    }

    /// Takes a field that is never suggested for a misspelt one.
    pub fn take_unlisted(&mut self, field: &str) -> Option<Value> {
        self.left.shift_remove(field)
    }

    /// Takes a string.
    pub fn text(&mut self, field: &'static str) -> Option<String> {
        match self.take(field)? {
            Value::String(text) => Some(text),
            other => self.wrong(field, "a string", &other),
        }
    }

    /// Takes a required string.
    pub fn required_text(&mut self, field: &'static str) -> Option<String> {
        self.require(field).then(|| self.text(field)).flatten()
    }

    /// Takes a string that parses as a `T`.
    pub fn parsed<T: FromStr<Err: std::fmt::Display>>(&mut self, field: &'static str) -> Option<T> {
        let text = match self.take(field)? {
            // `cpu: 1` in YAML is a number; treat it like "1".
            Value::Number(number) => number.to_string(),
            Value::String(text) => text,
            other => return self.wrong(field, "a string", &other),
        };
        text.parse().map_err(|e: T::Err| self.fault(field, "invalid", e.to_string())).ok()
    }

    /// Takes a whole number between `low` and `high`.
    pub fn number(&mut self, field: &'static str, low: u64, high: u64) -> Option<u64> {
        let value = self.take(field)?;
        match value.as_u64().filter(|n| (low..=high).contains(n)) {
            Some(number) => Some(number),
            None if value.is_number() => {
                self.fault(field, "out_of_range", format!("{value} is not a whole number from {low} to {high}"));
                None
            }
            None => self.wrong(field, "a whole number", &value),
        }
    }

    /// Takes a boolean.
    pub fn boolean(&mut self, field: &'static str) -> Option<bool> {
        match self.take(field)? {
            Value::Bool(value) => Some(value),
            other => self.wrong(field, "true or false", &other),
        }
    }

    /// Takes one of the given words.
    pub fn choice<T: Copy>(&mut self, field: &'static str, choices: &[(&'static str, T)]) -> Option<T> {
        let text = self.text(field)?;
        let found = choices.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
        if found.is_none() {
            let words: Vec<_> = choices.iter().map(|(word, _)| format!("`{word}`")).collect();
            self.fault(field, "invalid", format!("`{}` is not one of {}", short(&text), words.join(", ")));
        }
        found
    }

    /// Takes an object whose values are all strings.
    pub fn text_map(&mut self, field: &'static str) -> Option<BTreeMap<String, String>> {
        let entries = match self.take(field)? {
            Value::Object(entries) => entries,
            other => return self.wrong(field, "an object of strings", &other),
        };
        let mut map = BTreeMap::new();
        for (key, value) in entries {
            match value {
                Value::String(text) => {
                    map.insert(key, text);
                }
                other => {
                    self.faults.add(
                        pointer(&self.pointer(field), &key),
                        "wrong_type",
                        format!("expected a string, found {}", kind(&other)),
                    );
                }
            }
        }
        Some(map)
    }

    /// Takes an object and reads it with `read`.
    pub fn object<T>(&mut self, field: &'static str, read: impl FnOnce(Fields<'_>) -> Option<T>) -> Option<T> {
        let value = self.take(field)?;
        let pointer = self.pointer(field);
        read(Fields::of(value, &pointer, self.faults)?)
    }

    /// Adds a fault if the field is absent. Returns whether it is present.
    pub fn require(&mut self, field: &'static str) -> bool {
        let there = self.has(field);
        if !there {
            self.known.push(field);
            self.fault(field, "required", format!("`{field}` is required"));
        }
        there
    }

    /// Ends the reading: every field that was not taken is a fault.
    pub fn finish(mut self) {
        for field in std::mem::take(&mut self.left).keys() {
            let detail = || {
                let hint = match nearest(field, self.known.iter().copied()) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("the known fields are {}", self.known.join(", ")),
                };
                format!("`{}` is not a field here; {hint}", short(field))
            };
            self.faults.add_with(pointer(&self.at, field), "unknown_field", detail);
        }
    }

    fn wrong<T>(&mut self, field: &str, wanted: &str, found: &Value) -> Option<T> {
        self.fault(field, "wrong_type", format!("expected {wanted}, found {}", kind(found)));
        None
    }
}

/// The known word that is closest to `word`, if one is close enough.
pub fn nearest<'k>(word: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    let length = word.chars().count();
    known
        .into_iter()
        .filter_map(|near| {
            let (near_length, most) = (near.chars().count(), (near.len() / 3).max(1));
            // Words may be megabytes long, and comparing two takes as much time and memory as the product of their lengths.
            if near_length.abs_diff(length) > most {
                return None;
            }
            let distance = strsim::damerau_levenshtein(word, near);
            // The word itself is no suggestion. A word that becomes empty is not close to any other, however short.
            (distance > 0 && distance <= most && distance < near_length).then_some((distance, near))
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, near)| near)
}

/// The JSON pointer of a field in the object at the pointer `at`.
pub(crate) fn pointer(at: &str, field: &str) -> String {
    format!("{at}/{}", field.replace('~', "~0").replace('/', "~1"))
}

/// A word of the payload as it appears in a fault: a long word is cut.
#[must_use]
pub fn short(word: &str) -> Cow<'_, str> {
    if word.len() <= MOST_OF_A_WORD {
        return word.into();
    }
    format!("{}… ({} bytes)", &word[..word.floor_char_boundary(MOST_OF_A_WORD)], word.len()).into()
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_payload_that_is_all_faults_gets_a_short_list_of_them() {
        let many: Map<_, _> =
            (0..80_000).map(|n| (format!("f{n}{}", "x".repeat(n % 20_000 / 100)), json!(1))).collect();
        let mut faults = Faults::default();
        Fields::of(Value::Object(many), "", &mut faults).expect("an object").finish();
        let list = faults.into_result(Some(())).expect_err("they are unknown");
        assert_eq!(list.len(), MOST_FAULTS + 1);
        assert!(list[MOST_FAULTS].detail.starts_with("79900 more"), "{:?}", list[MOST_FAULTS]);
        assert_eq!(list[MOST_FAULTS].code, MORE_FAULTS);
        assert_eq!(list[7].pointer, "/f7", "the first ones are told as ever");

        let long = "日".repeat(100_000);
        let mut faults = Faults::default();
        let fields = json!({&long: 1, "kind": &long, "map": {&long: 1}, "number": &long});
        let mut fields = Fields::of(fields, "", &mut faults).expect("an object");
        let _ = fields.choice("kind", &[("a", 1)]);
        let _ = (fields.text_map("map"), fields.number("number", 1, 2));
        fields.finish();
        let list = faults.into_list();
        assert_eq!(list.len(), 4);
        assert!(list.iter().all(|fault| fault.pointer.len() + fault.detail.len() < 1_000), "{list:?}");
    }

    #[test]
    fn a_near_word_shares_something_with_the_one_that_was_written() {
        assert_eq!(nearest("replcas", ["replicas", "labels"]), Some("replicas"));
        assert_eq!(nearest("x", ["a", "b"]), None);
        assert_eq!(nearest("ab", ["a"]), None);
        assert_eq!(nearest(&"x".repeat(1 << 27), ["instances", "inputs"]), None, "and in a moment");
        assert_eq!(nearest("churn2", ["churn2"]), None);
        assert_eq!(nearest("churn2", ["churn2", "churn"]), Some("churn"));
    }
}
