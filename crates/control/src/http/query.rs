//! Query parameters, read like the fields of a payload: an unknown parameter is a fault, and all faults are reported at
//! once.

use std::{convert::Infallible, fmt::Display, str::FromStr};

use api::decode::{Faults, nearest, short};
use axum::extract::FromRequestParts;
use http::request::Parts;

use crate::error::Error;

/// The parameters of one request. Each `take` removes one; faults point to `?name`.
#[derive(Debug)]
pub(crate) struct Query {
    left: Vec<(String, String)>,
    known: Vec<&'static str>,
    faults: Faults,
}

impl<S: Sync> FromRequestParts<S> for Query {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Infallible> {
        Ok(Self::read(parts.uri.query().unwrap_or_default()))
    }
}

impl Query {
    fn read(query: &str) -> Self {
        let left = url::form_urlencoded::parse(query.as_bytes()).into_owned().collect();
        Self { left, known: Vec::new(), faults: Faults::default() }
    }

    /// Adds a fault at a parameter.
    pub(crate) fn fault(&mut self, name: &str, code: &str, detail: impl Into<String>) {
        self.faults.add(format!("?{name}"), code, detail);
    }

    /// Takes a parameter that may be repeated.
    pub(crate) fn all(&mut self, name: &'static str) -> Vec<String> {
        self.known.push(name);
        self.left.extract_if(.., |(given, _)| given == name).map(|(_, value)| value).collect()
    }

    /// Takes a parameter as text.
    pub(crate) fn text(&mut self, name: &'static str) -> Option<String> {
        let mut values = self.all(name);
        if values.len() > 1 {
            self.fault(name, "repeated", format!("`{name}` is given {} times; give it once", values.len()));
        }
        values.pop()
    }

    /// Takes a parameter that parses as a `T`.
    pub(crate) fn parsed<T: FromStr<Err: Display>>(&mut self, name: &'static str) -> Option<T> {
        let text = self.text(name)?;
        text.parse().map_err(|error: T::Err| self.fault(name, "invalid", error.to_string())).ok()
    }

    /// Takes a whole number between `low` and `high`.
    pub(crate) fn number(&mut self, name: &'static str, low: i64, high: i64) -> Option<i64> {
        let text = self.text(name)?;
        let number = text.parse().ok().filter(|number| (low..=high).contains(number));
        if number.is_none() {
            let detail = match high {
                i64::MAX => format!("`{}` is not a whole number from {low}", short(&text)),
                _ => format!("`{}` is not a whole number from {low} to {high}", short(&text)),
            };
            self.fault(name, "out_of_range", detail);
        }
        number
    }

    /// Takes the number of items per page, from 1 to `most`; `default` if it is absent.
    pub(crate) fn limit(&mut self, default: u32, most: u32) -> u32 {
        self.number("limit", 1, i64::from(most)).and_then(|limit| u32::try_from(limit).ok()).unwrap_or(default)
    }

    /// Takes a boolean; false if it is absent.
    pub(crate) fn flag(&mut self, name: &'static str) -> bool {
        match self.text(name).as_deref() {
            Some("true") => true,
            None | Some("false") => false,
            Some(other) => {
                let detail = format!("`{}` is neither `true` nor `false`", short(other));
                self.fault(name, "invalid", detail);
                false
            }
        }
    }

    /// Takes one of the given words.
    pub(crate) fn choice<T: Copy>(&mut self, name: &'static str, choices: &[(&'static str, T)]) -> Option<T> {
        let text = self.text(name)?;
        let found = choices.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
        if found.is_none() {
            let words: Vec<_> = choices.iter().map(|(word, _)| format!("`{word}`")).collect();
            self.fault(name, "invalid", format!("`{}` is not one of {}", short(&text), words.join(", ")));
        }
        found
    }

    /// Ends the reading: every parameter that was not taken is a fault.
    pub(crate) fn finish(mut self) -> Result<(), Error> {
        for (name, _) in std::mem::take(&mut self.left) {
            let detail = || {
                let hint = match (nearest(&name, self.known.iter().copied()), self.known.as_slice()) {
                    (Some(near), _) => format!("did you mean `{near}`?"),
                    (None, []) => "this path has no parameters".to_owned(),
                    (None, known) => format!("the known ones are {}", known.join(", ")),
                };
                format!("`{}` is not a parameter of this path; {hint}", short(&name))
            };
            self.faults.add_with(format!("?{name}"), "unknown_parameter", detail);
        }
        self.faults.into_result(Some(())).map_err(Error::Query)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_of_a_query_is_reported_at_once() {
        let mut query = Query::read("limit=0&follow=yes&name=a&name=b&labl=x%3Dy&state=on");
        query.limit(100, 500);
        query.flag("follow");
        query.text("name");
        query.all("label");
        query.choice("state", &[("active", 1)]);
        let Err(Error::Query(faults)) = query.finish() else { panic!("it is full of faults") };
        let mut found: Vec<_> = faults.iter().map(|f| (f.pointer.as_str(), f.code.as_str())).collect();
        found.sort_unstable();
        assert_eq!(
            found,
            [
                ("?follow", "invalid"),
                ("?labl", "unknown_parameter"),
                ("?limit", "out_of_range"),
                ("?name", "repeated"),
                ("?state", "invalid")
            ]
        );
        assert!(faults.iter().any(|fault| fault.detail.contains("did you mean `label`?")));
    }

    #[test]
    fn a_query_is_decoded_before_it_is_read() {
        let mut query = Query::read("label=team%3Dred%20one&label=b=c&limit=7");
        assert_eq!(query.all("label"), ["team=red one", "b=c"]);
        assert_eq!(query.limit(100, 500), 7);
        assert!(query.finish().is_ok());
        assert!(Query::read("").finish().is_ok());
    }
}
