//! Takes the fields of a message one by one, and reports the remaining ones.

use std::collections::BTreeMap;

use api::decode::nearest;

use super::text::{Field, Message, Value, Wrong};

/// The fields of one message. Every field must be taken or marked as not applied; any other field is an error.
pub(super) struct Fields<'n> {
    /// The name of the message with a dot after it; empty at the top.
    place: String,
    left: Vec<Field>,
    known: Vec<&'static str>,
    notes: &'n mut Vec<String>,
}

impl<'n> Fields<'n> {
    pub(super) fn of(place: &str, message: Message, notes: &'n mut Vec<String>) -> Self {
        let place = if place.is_empty() { String::new() } else { format!("{place}.") };
        Self { place, left: message.fields, known: Vec::new(), notes }
    }

    /// Every value of a repeated field.
    pub(super) fn many(&mut self, name: &'static str) -> Vec<Field> {
        self.known.push(name);
        self.left.extract_if(.., |field| field.name == name).collect()
    }

    /// The value of a field that may occur once.
    pub(super) fn one(&mut self, name: &'static str) -> Result<Option<Field>, Wrong> {
        let mut all = self.many(name);
        let last = all.pop();
        match (all.first(), &last) {
            (Some(_), Some(last)) => Err(self.wrong(last, "is there more than once")),
            _ => Ok(last),
        }
    }

    pub(super) fn text(&mut self, name: &'static str) -> Result<Option<String>, Wrong> {
        let Some(field) = self.one(name)? else { return Ok(None) };
        match field.value {
            Value::Text(text) => Ok(Some(text)),
            Value::Word(_) | Value::Message(_) => Err(self.wrong(&field, "wants a text in quotes")),
        }
    }

    pub(super) fn word(&mut self, name: &'static str) -> Result<Option<(String, Field)>, Wrong> {
        let Some(field) = self.one(name)? else { return Ok(None) };
        match &field.value {
            // JSON has enums as text.
            Value::Text(word) | Value::Word(word) => Ok(Some((word.clone(), field))),
            Value::Message(_) => Err(self.wrong(&field, "wants one word")),
        }
    }

    /// A whole number, at least `low`.
    pub(super) fn number(&mut self, name: &'static str, low: i64) -> Result<Option<i64>, Wrong> {
        let field = self.one(name)?;
        field.map(|field| self.number_of(&field, low)).transpose()
    }

    pub(super) fn numbers(&mut self, name: &'static str, low: i64) -> Result<Vec<i64>, Wrong> {
        let fields = self.many(name);
        fields.iter().map(|field| self.number_of(field, low)).collect()
    }

    fn number_of(&self, field: &Field, low: i64) -> Result<i64, Wrong> {
        let number = match &field.value {
            // JSON has large numbers as text.
            Value::Word(word) | Value::Text(word) => word.parse::<i64>().ok(),
            Value::Message(_) => None,
        };
        match number {
            Some(number) if number >= low => Ok(number),
            _ => Err(self.wrong(field, &format!("wants a whole number from {low} on"))),
        }
    }

    pub(super) fn boolean(&mut self, name: &'static str) -> Result<Option<bool>, Wrong> {
        let Some((word, field)) = self.word(name)? else { return Ok(None) };
        match word.as_str() {
            "true" | "True" | "t" | "1" => Ok(Some(true)),
            "false" | "False" | "f" | "0" => Ok(Some(false)),
            _ => Err(self.wrong(&field, "wants true or false")),
        }
    }

    /// A message that may occur once.
    pub(super) fn message(&mut self, name: &'static str) -> Result<Option<Fields<'_>>, Wrong> {
        let Some(field) = self.one(name)? else { return Ok(None) };
        self.open(field).map(Some)
    }

    /// The fields of a message value.
    pub(super) fn open(&mut self, field: Field) -> Result<Fields<'_>, Wrong> {
        let place = format!("{}{}", self.place, field.name);
        match field.value {
            Value::Message(message) => Ok(Fields::of(&place, message, self.notes)),
            Value::Word(_) | Value::Text(_) => {
                let reason = format!("`{place}` wants a message in braces, not {}", field.value.kind());
                Err(Wrong { line: field.line, reason })
            }
        }
    }

    /// The entries of a map with message values.
    pub(super) fn map(&mut self, name: &'static str) -> Result<BTreeMap<String, Field>, Wrong> {
        let mut entries = BTreeMap::new();
        for field in self.many(name) {
            let line = field.line;
            let missing = |what: &str| Wrong { line, reason: format!("an entry of `{name}` has no `{what}`") };
            let mut entry = self.open(field)?;
            let key = entry.text("key")?.ok_or_else(|| missing("key"))?;
            let value = entry.one("value")?.ok_or_else(|| missing("value"))?;
            entry.finish()?;
            entries.insert(key, Field { name: name.to_owned(), ..value });
        }
        Ok(entries)
    }

    /// Records that a field, if present, has no effect, with the reason.
    pub(super) fn not_honoured(&mut self, name: &'static str, why: &str) {
        if let Some(field) = self.many(name).first() {
            self.notes.push(note(&format!("{}{}", self.place, field.name), why));
        }
    }

    /// The same for one value of a field.
    pub(super) fn note(&mut self, what: &str, why: &str) {
        self.notes.push(note(&format!("{}{what}", self.place), why));
    }

    pub(super) fn wrong(&self, field: &Field, what: &str) -> Wrong {
        Wrong { line: field.line, reason: format!("`{}{}` {what}", self.place, field.name) }
    }

    /// All fields that were not taken are unknown.
    pub(super) fn finish(self) -> Result<(), Wrong> {
        let Some(field) = self.left.first() else { return Ok(()) };
        let hint = match nearest(&field.name, self.known.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("known are {}", self.known.join(", ")),
        };
        Err(self.wrong(field, &format!("is no field; {hint}")))
    }
}

fn note(what: &str, why: &str) -> String {
    format!("`{what}` is not honoured: {why}")
}

/// The same fields from JSON, where maps are objects.
pub(super) fn from_json(value: &serde_json::Value) -> Result<Message, Wrong> {
    let no_object = || Wrong { line: 0, reason: "it is no object".to_owned() };
    object(value.as_object().ok_or_else(no_object)?)
}

/// Fields that are maps.
const MAPS: [&str; 4] = ["parameters", "inputs", "cc_model_filenames", "metric_tags"];

fn object(fields: &serde_json::Map<String, serde_json::Value>) -> Result<Message, Wrong> {
    let mut message = Message::default();
    for (name, value) in fields {
        if let Some(entries) = value.as_object().filter(|_| MAPS.contains(&name.as_str())) {
            for (key, value) in entries {
                let key = Field { name: "key".to_owned(), line: 0, value: Value::Text(key.clone()) };
                let mut entry = Message { fields: vec![key] };
                push(&mut entry, "value", value)?;
                message.fields.push(Field { name: name.clone(), line: 0, value: Value::Message(entry) });
            }
        } else if let Some(values) = value.as_array() {
            values.iter().try_for_each(|value| push(&mut message, name, value))?;
        } else {
            push(&mut message, name, value)?;
        }
    }
    Ok(message)
}

fn push(message: &mut Message, name: &str, value: &serde_json::Value) -> Result<(), Wrong> {
    let value = match value {
        serde_json::Value::Null => return Ok(()),
        serde_json::Value::Bool(value) => Value::Word(value.to_string()),
        serde_json::Value::Number(number) => Value::Word(number.to_string()),
        serde_json::Value::String(text) => Value::Text(text.clone()),
        // serde_json limits the depth.
        serde_json::Value::Object(fields) => Value::Message(object(fields)?),
        serde_json::Value::Array(_) => {
            return Err(Wrong { line: 0, reason: format!("`{name}` is a list within a list") });
        }
    };
    message.fields.push(Field { name: name.to_owned(), line: 0, value });
    Ok(())
}
