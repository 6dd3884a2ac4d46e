//! Checks values that have the right type but are invalid.

use reqwest::Url;

use super::fault::Fault;
use crate::net::is_address;

/// One year: a longer time is assumed to be a mistake.
const LONGEST_MS: u64 = 366 * 24 * 3_600_000;

/// A section of the settings that can check its own values.
pub trait Section {
    /// Reports which values are invalid, and why. It corrects nothing.
    fn check(&self, faults: &mut Faults);
}

/// The invalid values of all sections.
#[derive(Debug, Default)]
pub struct Faults {
    section: Vec<String>,
    found: Vec<Wrong>,
}

#[derive(Debug)]
struct Wrong {
    path: Vec<String>,
    reason: String,
    /// The same fault at the other one of two conflicting values.
    or: Option<Box<Wrong>>,
}

impl Faults {
    /// Checks the section `name` within this one.
    pub fn section(&mut self, name: &str, section: &impl Section) {
        self.below(name, |faults| section.check(faults));
    }

    /// Checks the part under `name` with `check`.
    pub fn below(&mut self, name: &str, check: impl FnOnce(&mut Self)) {
        self.section.push(name.to_owned());
        check(self);
        self.section.pop();
    }

    /// Reports the value of `key`. `reason` continues the sentence after "is": `0, which would refuse everything`.
    pub fn add(&mut self, key: &str, reason: impl Into<String>) {
        let wrong = self.wrong(key, reason.into());
        self.found.push(wrong);
    }

    fn wrong(&self, key: &str, reason: String) -> Wrong {
        Wrong { path: self.section.iter().cloned().chain([key.to_owned()]).collect(), reason, or: None }
    }

    /// Counts and sizes that must be at least one.
    pub fn positive(&mut self, values: &[(&str, u64)]) {
        for (key, value) in values {
            if *value == 0 {
                self.add(key, "0, and must be at least 1");
            }
        }
    }

    /// Milliseconds that must be at least one.
    pub fn times(&mut self, values: &[(&str, u64)]) {
        self.positive(values);
        self.pauses(values);
    }

    /// Milliseconds that may be zero.
    pub fn pauses(&mut self, values: &[(&str, u64)]) {
        for (key, value) in values {
            if *value > LONGEST_MS {
                self.add(key, format!("{value} ms, which is more than a year; the unit is milliseconds"));
            }
        }
    }

    /// The first value must not be above the second one.
    pub fn at_most(&mut self, (key, value): (&str, u64), (other, most): (&str, u64)) {
        if value > most {
            let less = self.wrong(other, format!("{most}, which is less than {value}, the value of `{key}`"));
            let more = self.wrong(key, format!("{value}, which is more than {most}, the value of `{other}`"));
            self.found.push(Wrong { or: Some(Box::new(less)), ..more });
        }
    }

    /// `HOST:PORT`.
    pub fn address(&mut self, key: &str, value: &str) {
        if !is_address(value) {
            self.add(key, format!("`{value}`, which is not an address; write HOST:PORT, as in 127.0.0.1:8080"));
        }
    }

    /// The URL of a Modelway server.
    pub fn url(&mut self, key: &str, value: &str) {
        let is_one = |url: &Url| matches!(url.scheme(), "http" | "https") && url.has_host() && url.query().is_none();
        if !Url::parse(value).is_ok_and(|url| is_one(&url)) {
            self.add(
                key,
                format!("`{value}`, which is not the URL of a server; write one as in http://127.0.0.1:8080"),
            );
        }
    }

    /// Host names in the format of [`crate::guard`].
    pub fn hosts(&mut self, key: &str, values: &[String]) {
        for value in values {
            let name = value.strip_prefix("*.").unwrap_or(value);
            let plain = |c: char| c.is_ascii_alphanumeric() || "-_.:[]".contains(c);
            if value != "*" && (name.is_empty() || !name.chars().all(plain)) {
                let reason = format!(
                    "a list with `{value}`, which is not a host name; write models.example.org, *.example.org or *"
                );
                self.add(key, reason);
            }
        }
    }

    pub(super) fn into_faults(self, source: impl Fn(&[String]) -> Option<String>) -> Vec<Fault> {
        let fault = |wrong: Wrong| {
            // Of two conflicting values, reports the one that is not a default.
            let set = wrong.or.as_ref().filter(|or| source(&wrong.path).is_none() && source(&or.path).is_some());
            let Wrong { path, reason, .. } = set.map_or(&wrong, |or| &**or);
            let detail = format!("`{}` is {reason}", path.join("."));
            Fault { source: source(path).unwrap_or_else(|| "default".to_owned()), detail }
        };
        self.found.into_iter().map(fault).collect()
    }
}
