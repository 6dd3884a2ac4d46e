//! The change that a document causes for its deployment.

use api::{Deployment, DeploymentSpec, Fault, deployment::ModelSource};
use serde_json::{Map, Value, json};

use super::manifest::Document;
use crate::{
    client::{
        changed::{Change, since_deployed},
        http::{Control, Found},
        secret, view,
    },
    exit::Failure,
    output::{tell, yaml},
};

/// The change for a document.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) number: usize,
    /// The current deployment.
    pub(super) present: Option<Found>,
    /// The fields to change of an existing deployment: a merge patch.
    pub(super) patch: Value,
    /// The resulting specification.
    pub(super) wanted: DeploymentSpec,
    /// The fields that the document does not contain and that are not at their defaults.
    left: Vec<String>,
    /// Why it gets a new revision although its specification does not change.
    pub(super) again: Option<String>,
}

impl Step {
    /// # Errors
    /// All faults of the result.
    pub(super) fn new(document: Document, present: Option<Found>) -> Result<Self, Vec<Fault>> {
        let Document { number, fields, .. } = document;
        let Some(present) = present else {
            let wanted = DeploymentSpec::from_json(fields)?;
            return Ok(Self { number, present: None, patch: Value::Null, wanted, left: Vec::new(), again: None });
        };
        let now = &present.deployment.spec;
        let mut patch = fields;
        if let Some(Value::Object(model)) = patch.get_mut("model") {
            complete(model, &now.model);
        }
        let wanted = now.patched(&patch)?;
        let left = left(&wanted, &patch);
        Ok(Self { number, present: Some(present), patch, wanted, left, again: None })
    }

    /// Checks whether the files of the model in the document have changed.
    ///
    /// # Errors
    /// An error of the control plane.
    pub(super) async fn look(&mut self, control: &Control, sources: &artifact::Config) -> Result<(), Failure> {
        if self.is_change() || self.patch.get("model").is_none() {
            return Ok(());
        }
        let Some(present) = &self.present else { return Ok(()) };
        match since_deployed(control, sources, present).await? {
            Change::No => {}
            Change::Yes(reason) => self.again = Some(reason),
            Change::Unknown(reason) => {
                tell(format!("document {}: {reason}; `modelway deploy` makes a new revision", self.number));
            }
        }
        Ok(())
    }

    pub(super) fn is_change(&self) -> bool {
        self.present.as_ref().is_none_or(|present| present.deployment.spec != self.wanted)
    }

    /// A clause that lists the other fields; empty if there are none.
    pub(super) fn left(&self) -> String {
        match self.left.as_slice() {
            [] => String::new(),
            left => format!("not in the file and left as they are: {}", left.join(", ")),
        }
    }

    /// The output of `--dry-run`: a unified diff from the current to the new specification, and the fields that the
    /// file does not contain.
    pub(super) fn dry_run(&self, file: &str) -> Result<String, Failure> {
        let present = self.present.as_ref().map(|found| &found.deployment);
        let mut text = match present {
            Some(present) if !self.is_change() => match &self.again {
                None => format!("{} would not change\n", view::who(present)),
                Some(reason) => format!("{} would get a new revision: {reason}\n", view::who(present)),
            },
            present => diff(present, &self.wanted, &format!("{file} (document {})", self.number))?,
        };
        if !self.left.is_empty() {
            text.push_str(&format!("# {}\n", self.left()));
        }
        Ok(text)
    }
}

/// Adds nulls to the `model` of a document, so that nothing of another model remains: the fields of the other form, and
/// the digest and the folder that belong to another location or version.
fn complete(model: &mut Map<String, Value>, now: &ModelSource) {
    let named = |field: &str| model.get(field).is_some_and(|value| !value.is_null());
    let gone: &[&str] = match now {
        ModelSource::Registered(_) if named("bucket") => &["name"],
        ModelSource::Bucket(_) if named("name") => &["type", "bucket", "prefix", "digest"],
        ModelSource::Bucket(now) => {
            let differs = |field: &str, now: &str| model.get(field).is_some_and(|value| value != now);
            if differs("bucket", &now.bucket) {
                &["prefix", "digest"]
            } else if differs("prefix", &now.prefix) || differs("version", &now.version) {
                &["digest"]
            } else {
                &[]
            }
        }
        ModelSource::Registered(_) => &[],
    };
    for field in gone {
        model.entry(*field).or_insert(Value::Null);
    }
}

/// The fields of `wanted` that are not at their defaults and not in `patch`; those of a map as `env.A`.
fn left(wanted: &DeploymentSpec, patch: &Value) -> Vec<String> {
    let plain = DeploymentSpec::from_json(json!({"name": wanted.name, "model": wanted.model}));
    let (Ok(plain), Ok(Value::Object(wanted))) = (plain.map(|it| json!(it)), serde_json::to_value(wanted)) else {
        return Vec::new();
    };
    let mut left = Vec::new();
    // A placement cannot be changed, so a file need not name it.
    for (field, value) in wanted.iter().filter(|(field, _)| *field != "placement") {
        let (default, named) = (&plain[field], patch.get(field));
        match (value, named) {
            (Value::Object(entries), Some(Value::Object(named))) if field != "model" => {
                left.extend(entries.keys().filter(|key| !named.contains_key(*key)).map(|key| format!("{field}.{key}")));
            }
            (Value::Object(entries), None) if field != "model" => {
                left.extend(entries.keys().map(|key| format!("{field}.{key}")));
            }
            (_, None) if value != default => left.push(field.clone()),
            _ => {}
        }
    }
    left
}

fn diff(present: Option<&Deployment>, wanted: &DeploymentSpec, place: &str) -> Result<String, Failure> {
    let before = present.map(|present| &present.spec.env);
    let (old, from) = match present {
        Some(present) => (
            yaml(&secret::without(&present.spec, None))?,
            format!("{}, revision {}", view::who(present), present.revision),
        ),
        None => (String::new(), "/dev/null".to_owned()),
    };
    let new = yaml(&secret::without(wanted, before))?;
    let diff = similar::TextDiff::from_lines(&old, &new);
    Ok(diff.unified_diff().header(&from, place).to_string())
}
