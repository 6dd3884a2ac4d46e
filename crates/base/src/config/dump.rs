//! Settings as TOML, each with its source.

use std::{collections::BTreeMap, fmt::Write as _};

use serde_json::{Map, Value};

type Sources = BTreeMap<Vec<String>, String>;

pub(super) fn render(tree: &Value, sources: &Sources) -> String {
    let mut text = String::new();
    if let Value::Object(fields) = tree {
        section(&mut text, &mut Vec::new(), fields, sources);
    }
    text
}

fn section(text: &mut String, path: &mut Vec<String>, fields: &Map<String, Value>, sources: &Sources) {
    let (sections, values): (Vec<_>, Vec<_>) = fields.iter().partition(|(_, value)| value.is_object());
    if !path.is_empty() && (!values.is_empty() || fields.is_empty()) {
        let name = path.iter().map(|key| bare(key)).collect::<Vec<_>>().join(".");
        let gap = if text.is_empty() { "" } else { "\n" };
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{gap}[{name}]");
    }
    for (key, value) in values {
        path.push(key.clone());
        let source = sources.get(path).map_or("default", String::as_str);
        let _ = if value.is_null() {
            writeln!(text, "# {} is not set", bare(key))
        } else {
            writeln!(text, "{} = {} # {source}", bare(key), toml_value(value))
        };
        path.pop();
    }
    for (key, value) in sections {
        path.push(key.clone());
        if let Value::Object(fields) = value {
            section(text, path, fields, sources);
        }
        path.pop();
    }
}

fn bare(key: &str) -> String {
    let plain = !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    if plain { key.to_owned() } else { toml::Value::from(key).to_string() }
}

fn toml_value(value: &Value) -> String {
    let hidden = value.as_str().map(without_password);
    let shown = hidden.as_ref().unwrap_or(value);
    toml::Value::try_from(shown).map_or_else(|_| shown.to_string(), |value| value.to_string())
}

/// `scheme://user:secret@host` without the password.
fn without_password(text: &str) -> Value {
    let masked = || {
        let (scheme, rest) = text.split_once("://")?;
        let authority_end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (user, host) = rest[..authority_end].rsplit_once('@')?;
        let (user, _) = user.split_once(':')?;
        Some(format!("{scheme}://{user}:***@{host}{}", &rest[authority_end..]))
    };
    Value::String(masked().unwrap_or_else(|| text.to_owned()))
}
