//! A partial change of a specification: a JSON merge patch.

use serde_json::{Map, Value};

use super::{DeploymentSpec, read::Purpose};
use crate::problem::Fault;

impl DeploymentSpec {
    /// The specification after the merge patch `patch` (RFC 7396): fields in it are replaced, objects are merged,
    /// `null` resets a field to its default.
    ///
    /// # Errors
    /// All faults of the result, and fields of `patch` that are unknown and null.
    pub fn patched(&self, patch: &Value) -> Result<Self, Vec<Fault>> {
        let fault = |detail: String| vec![Fault { pointer: String::new(), code: "wrong_type".to_owned(), detail }];
        let Some(fields) = patch.as_object() else {
            return Err(fault("a merge patch is an object of the fields to change".to_owned()));
        };
        let now = serde_json::to_value(self).map_err(|e| fault(format!("a specification is not JSON: {e}")))?;
        let mut merged = merge(now, patch.clone());
        // Adds back each null that removed nothing, so that an unknown field is reported.
        for field in fields.iter().filter(|(_, value)| value.is_null()).map(|(field, _)| field) {
            merged[field] = Value::Null;
        }
        Self::read(merged, Purpose::Patched(self)).map_err(|faults| explained(faults, patch))
    }
}

/// A merge patch keeps the fields that it does not contain. This matters to a user who switches the form of `model`.
fn explained(mut faults: Vec<Fault>, patch: &Value) -> Vec<Fault> {
    if patch.pointer("/model").is_some_and(Value::is_object) {
        for fault in faults.iter_mut().filter(|fault| {
            fault.pointer.starts_with("/model/") && patch.pointer(&fault.pointer).is_none() && fault.code != "required"
        }) {
            fault.detail.push_str(" (it is in the current specification; set it to null to remove it)");
        }
    }
    faults
}

/// Applies `patch` to `target`: fields replace, objects merge, `null` removes.
///
/// The recursion is as deep as the nesting of `patch`, which the JSON reader limits.
///
/// Source: RFC 7396, section 2.
fn merge(target: Value, patch: Value) -> Value {
    let Value::Object(patch) = patch else { return patch };
    let mut merged = match target {
        Value::Object(fields) => fields,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => Map::new(),
    };
    for (field, change) in patch {
        if change.is_null() {
            merged.shift_remove(&field);
        } else {
            let old = merged.get_mut(&field).map_or(Value::Null, Value::take);
            merged.insert(field, merge(old, change));
        }
    }
    Value::Object(merged)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn spec(value: Value) -> DeploymentSpec {
        DeploymentSpec::from_json(value).expect("it is valid")
    }

    #[test]
    fn a_patch_changes_what_it_names_and_null_gives_the_default() {
        let old = spec(json!({
            "name": "iris", "model": {"version": "v1", "bucket": "/m"}, "replicas": 3, "env": {"A": "1", "B": "2"}
        }));
        let new = old.patched(&json!({"env": {"A": null}, "request_timeout_ms": 7})).expect("it is valid");
        assert_eq!((new.replicas, new.request_timeout_ms, new.env.len()), (3, 7, 1));
        assert_eq!(old.patched(&json!({"replicas": null})).expect("it is valid").replicas, 1);
        for (wrong, pointer) in [
            (json!({"replica": 1}), "/replica"),
            (json!({"replica": null}), "/replica"),
            (json!({"status": null}), "/status"),
            (json!({"model": null}), "/model"),
            (json!(3), ""),
        ] {
            assert_eq!(old.patched(&wrong).expect_err("it is wrong")[0].pointer, pointer, "{wrong}");
        }
    }

    #[test]
    fn a_patch_that_changes_the_form_of_the_model_is_told_how() {
        let old = spec(json!({"model": {"version": "v1", "bucket": "/m"}}));
        let faults = old.patched(&json!({"model": {"name": "iris", "version": "v1"}})).expect_err("both forms");
        assert!(faults.iter().all(|fault| fault.detail.contains("null")), "{faults:?}");
        let patch = json!({"model": {"name": "iris", "type": null, "bucket": null, "prefix": null}});
        assert!(old.patched(&patch).is_ok());
    }

    #[test]
    fn the_examples_of_the_rfc_hold() {
        for (target, patch, result) in [
            (r#"{"a":"b"}"#, r#"{"a":"c"}"#, r#"{"a":"c"}"#),
            (r#"{"a":"b"}"#, r#"{"b":"c"}"#, r#"{"a":"b","b":"c"}"#),
            (r#"{"a":"b"}"#, r#"{"a":null}"#, r"{}"),
            (r#"{"a":"b","b":"c"}"#, r#"{"a":null}"#, r#"{"b":"c"}"#),
            (r#"{"a":["b"]}"#, r#"{"a":"c"}"#, r#"{"a":"c"}"#),
            (r#"{"a":"c"}"#, r#"{"a":["b"]}"#, r#"{"a":["b"]}"#),
            (r#"{"a":{"b":"c"}}"#, r#"{"a":{"b":"d","c":null}}"#, r#"{"a":{"b":"d"}}"#),
            (r#"{"a":[{"b":"c"}]}"#, r#"{"a":[1]}"#, r#"{"a":[1]}"#),
            (r#"["a","b"]"#, r#"["c","d"]"#, r#"["c","d"]"#),
            (r#"{"a":"b"}"#, r#"["c"]"#, r#"["c"]"#),
            (r#"{"a":"foo"}"#, r"null", r"null"),
            (r#"{"a":"foo"}"#, r#""bar""#, r#""bar""#),
            (r#"{"e":null}"#, r#"{"a":1}"#, r#"{"e":null,"a":1}"#),
            (r"[1,2]", r#"{"a":"b","c":null}"#, r#"{"a":"b"}"#),
            (r"{}", r#"{"a":{"bb":{"ccc":null}}}"#, r#"{"a":{"bb":{}}}"#),
        ] {
            let read = |text: &str| serde_json::from_str::<Value>(text).expect(text);
            assert_eq!(merge(read(target), read(patch)), read(result), "{target} + {patch}");
        }
    }
}
