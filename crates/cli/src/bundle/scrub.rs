//! Removes secrets from text for other people.

use std::{borrow::Cow, collections::BTreeSet, fs::File, io::Read as _, os::unix::fs::OpenOptionsExt as _};

use base::config::Loaded;
use serde_json::Value;

use crate::{
    client::secret::{REDACTED, password, shown},
    settings::Settings,
};

/// Shorter values are not searched in text, because they would match everywhere. They are still removed from documents.
const SHORTEST: usize = 4;
/// Maximum size of a value in a file of `env_from_file`.
const LONGEST: u64 = 64 << 10;

/// The known secrets.
#[derive(Debug)]
pub(super) struct Scrub {
    values: BTreeSet<String>,
}

impl Scrub {
    /// Starts with the secrets in the environment of this process, which replicas inherit, and in the settings.
    pub(super) fn new(loaded: &Loaded<Settings>) -> Self {
        let mut scrub = Self { values: BTreeSet::new() };
        for (name, value) in base::config::variables() {
            scrub.add(&name, &value.to_string_lossy());
        }
        if let Ok(settings) = serde_json::to_value(&loaded.settings) {
            scrub.learn_settings("", &settings);
        }
        scrub
    }

    fn learn_settings(&mut self, name: &str, value: &Value) {
        match value {
            Value::Object(fields) => fields.iter().for_each(|(name, value)| self.learn_settings(name, value)),
            Value::Array(items) => items.iter().for_each(|item| self.learn_settings(name, item)),
            Value::String(text) => self.add(name, text),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    /// Adds the secrets of a document: variables, the contents of the files for other variables, and passwords in URLs.
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
                        for text in paths.filter_map(content) {
                            self.remember(text.trim_end_matches(['\r', '\n']));
                        }
                    } else {
                        self.learn(value);
                    }
                }
            }
            Value::Array(items) => items.iter().for_each(|item| self.learn(item)),
            Value::String(text) => self.add("", text),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
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

    /// The dump of the settings, one per line, without the values of secret ones.
    pub(super) fn settings(&self, dump: &str) -> String {
        let line = |line: &str| match line.split_once(" = ") {
            Some((name, _)) if shown(name.trim_matches('"'), "") == REDACTED => format!("{name} = \"{REDACTED}\"\n"),
            _ => format!("{line}\n"),
        };
        dump.lines().map(line).collect()
    }

    /// Text without any known secret, and without passwords in URLs.
    pub(super) fn text(&self, text: &str) -> String {
        // Longer ones first, because one may be a part of another.
        let mut values: Vec<_> = self.values.iter().collect();
        values.sort_by_key(|value| std::cmp::Reverse(value.len()));
        let whole = values.iter().fold(Cow::Borrowed(text), |text, value| replaced(text, value));
        // In its JSON form.
        let escaped = |value: &str| serde_json::to_string(value).unwrap_or_default().trim_matches('"').to_owned();
        let text = values.iter().fold(whole, |text, value| replaced(text, &escaped(value)));
        let ends_url = |c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '`');
        text.split_inclusive(ends_url).map(|word| shown("", word)).collect()
    }
}

/// The content of a file, if a worker could use it as a value. The user chose the file: it may be a pipe, or endless.
fn content(path: &str) -> Option<String> {
    let nonblocking = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).ok()?;
    let file = File::options().read(true).custom_flags(nonblocking).open(path).ok()?;
    if !file.metadata().ok()?.is_file() {
        return None;
    }
    let mut text = String::new();
    file.take(LONGEST).read_to_string(&mut text).ok()?;
    Some(text)
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
        let line = "cannot read https://me:pw@h/x, nor `https://you:opensaysme@h/y`";
        assert_eq!(
            scrub.text(line),
            "cannot read https://me:<redacted>@h/x, nor `https://you:<redacted>@h/y`",
            "no document names these"
        );
        let settings = scrub.settings("[process.serve_env]\nHF_TOKEN = \"abc\" # file x\nN = \"4\" # file x\n");
        assert!(!settings.contains("abc") && settings.contains("N = \"4\""), "{settings}");
    }

    #[test]
    fn a_password_in_the_url_of_a_model_is_out_of_logs_too() {
        let mut scrub = Scrub { values: BTreeSet::new() };
        scrub.learn(&json!({"items": [{"model": {"bucket": "https://me:sesame@host/m.onnx"}}]}));
        scrub.learn_settings("", &json!({"serve": {"cache": {"mlflow_tracking_uri": "http://me:opensaysme@mlflow"}}}));
        let shown = scrub.text("401: wrong password sesame; https://me:sesame@host and opensaysme");
        assert_eq!(shown, "401: wrong password <redacted>; https://me:<redacted>@host and <redacted>");
    }

    #[test]
    fn only_so_much_of_a_file_is_read_and_only_of_a_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
        let (file, large, pipe) = (path("file"), path("large"), path("pipe"));
        std::fs::write(&file, "opensesame\r\n").expect("it is written");
        std::fs::write(&large, "a".repeat(100_000)).expect("it is written");
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).expect("a pipe");
        assert_eq!(content(&large).map(|text| text.len() as u64), Some(LONGEST));
        assert_eq!((content(&pipe), content("/dev/zero"), content("/nowhere")), (None, None, None));
        let mut scrub = Scrub { values: BTreeSet::new() };
        scrub.learn(&json!({"env_from_file": {"KEY": file, "PIPE": pipe}}));
        assert_eq!(scrub.text("it is opensesame."), "it is <redacted>.");
    }
}
