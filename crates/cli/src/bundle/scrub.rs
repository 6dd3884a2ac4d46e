//! Takes secrets out of what others will read.

use std::{borrow::Cow, collections::BTreeSet};

use base::config::Loaded;
use serde_json::Value;

use crate::{
    client::secret::{REDACTED, password, shown},
    settings::Settings,
};

/// A shorter value is not searched for: it would be found in everything. It is left out of documents all the same.
const SHORTEST: usize = 4;

/// The secrets that are known.
#[derive(Debug)]
pub(super) struct Scrub {
    values: BTreeSet<String>,
}

impl Scrub {
    /// Knows those of this process's environment, which replicas inherit, and of the settings.
    pub(super) fn new(loaded: &Loaded<Settings>) -> Self {
        let mut scrub = Self { values: BTreeSet::new() };
        for (name, value) in base::config::variables() {
            scrub.add(&name, &value.to_string_lossy());
        }
        for (name, value) in &loaded.settings.process.serve_env {
            scrub.add(name, value);
        }
        scrub.add("store.url", &loaded.settings.store.url);
        scrub
    }

    /// Learns the secrets of deployments: their variables, and what stands in the files that others are read from.
    pub(super) fn learn(&mut self, document: &Value) {
        match document {
            Value::Object(fields) => {
                for (name, value) in fields {
                    if let ("env", Value::Object(variables)) = (name.as_str(), value) {
                        for (name, value) in variables {
                            self.add(name, value.as_str().unwrap_or_default());
                        }
                    } else if let ("env_from_file", Value::Object(files)) = (name.as_str(), value) {
                        let paths = files.values().filter_map(Value::as_str);
                        let texts: Vec<_> = paths.filter_map(|path| std::fs::read_to_string(path).ok()).collect();
                        for text in texts {
                            self.remember(text.trim_end_matches('\n'));
                        }
                    } else {
                        self.learn(value);
                    }
                }
            }
            Value::Array(items) => items.iter().for_each(|item| self.learn(item)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }

    fn add(&mut self, name: &str, value: &str) {
        if let Some(password) = password(value) {
            self.remember(password);
        }
        if shown(name, value) == REDACTED {
            self.remember(value);
        }
    }

    fn remember(&mut self, value: &str) {
        if value.len() >= SHORTEST {
            self.values.insert(value.to_owned());
        }
    }

    /// A document without the values of secret variables.
    pub(super) fn document(&self, mut document: Value) -> Value {
        redact(&mut document);
        document
    }

    /// The settings as they are dumped, a line each, without the values of secret ones.
    pub(super) fn settings(&self, dump: &str) -> String {
        let line = |line: &str| match line.split_once(" = ") {
            Some((name, _)) if shown(name.trim_matches('"'), "") == REDACTED => format!("{name} = \"{REDACTED}\"\n"),
            _ => format!("{line}\n"),
        };
        dump.lines().map(line).collect()
    }

    /// Text without any secret that is known.
    pub(super) fn text(&self, text: &str) -> String {
        // Longer ones first: one may be a part of another.
        let mut values: Vec<_> = self.values.iter().collect();
        values.sort_by_key(|value| std::cmp::Reverse(value.len()));
        let whole = values.iter().fold(Cow::Borrowed(text), |text, value| replaced(text, value));
        // As it stands in JSON.
        let escaped = |value: &str| serde_json::to_string(value).unwrap_or_default().trim_matches('"').to_owned();
        values.iter().fold(whole, |text, value| replaced(text, &escaped(value))).into_owned()
    }
}

fn replaced<'t>(text: Cow<'t, str>, value: &str) -> Cow<'t, str> {
    if text.contains(value) { text.replace(value, REDACTED).into() } else { text }
}

fn redact(document: &mut Value) {
    match document {
        Value::Object(fields) => {
            for (name, value) in fields {
                if let ("env", Value::Object(variables)) = (name.as_str(), &mut *value) {
                    for (name, value) in variables {
                        let visible = shown(name, value.as_str().unwrap_or_default()).into_owned();
                        *value = Value::String(visible);
                    }
                } else {
                    redact(value);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(redact),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_secret_is_out_of_documents_settings_and_all_text() {
        let document =
            json!({"items": [{"env": {"API_KEY": "hunter2-\"x\"", "DB": "postgres://me:sesame@db/x", "N": "4"}}]});
        let mut scrub = Scrub { values: BTreeSet::new() };
        scrub.learn(&document);
        let shown =
            scrub.text(&format!("{}\nlog: hunter2-\"x\" and sesame\n{document}", scrub.document(document.clone())));
        assert!(!shown.contains("hunter2") && !shown.contains("sesame"), "{shown}");
        assert!(shown.contains(r#""N":"4""#), "{shown}");
        let settings = scrub.settings("[process.serve_env]\nHF_TOKEN = \"abc\" # file x\nN = \"4\" # file x\n");
        assert!(!settings.contains("abc") && settings.contains("N = \"4\""), "{settings}");
    }
}
