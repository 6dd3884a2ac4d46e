//! Manifests: one deployment per YAML document, parsed before any request or change.

use std::{collections::BTreeMap, io::Read as _, path::Path};

use api::{Fault, deployment::READ_ONLY};
use serde::Deserialize as _;
use serde_json::Value;

use crate::{client::source, exit::Failure};

/// Maximum size of standard input or a file, in bytes.
const MANIFEST_BYTES: u64 = 16 << 20;

/// One document.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Document {
    /// Its position in the file, from 1.
    pub(super) number: usize,
    /// The name of its deployment, unless the name has a fault.
    pub(super) name: Option<String>,
    /// Its content.
    pub(super) fields: Value,
    /// Its fields that only the server sets: it may be the output of `get -o yaml`.
    pub(super) read_only: Vec<&'static str>,
}

/// A fault and the number of its document.
pub(super) type Misplaced = (usize, Fault);

/// The text, and the base folder of its relative paths.
pub(super) fn read(file: &Path) -> Result<(String, std::path::PathBuf), Failure> {
    let unreadable = |error: std::io::Error| Failure::failed(format!("{} cannot be read: {error}", file.display()));
    let mut text = String::new();
    if file == Path::new("-") {
        std::io::stdin().lock().take(MANIFEST_BYTES).read_to_string(&mut text).map_err(unreadable)?;
        return Ok((text, source::here()?));
    }
    let input = std::fs::File::open(file).map_err(unreadable)?;
    input.take(MANIFEST_BYTES).read_to_string(&mut text).map_err(unreadable)?;
    let folder = std::fs::canonicalize(file).map_err(unreadable)?.parent().map(Path::to_owned);
    Ok((text, folder.unwrap_or_else(|| "/".into())))
}

/// The documents of a text, and the faults that are found before their fields are checked.
pub(super) fn documents(text: &str, folder: &Path) -> (Vec<Document>, Vec<Misplaced>) {
    let mut documents = Vec::new();
    let mut faults: Vec<Misplaced> = Vec::new();
    let mut names: BTreeMap<String, usize> = BTreeMap::new();
    for (index, document) in serde_yaml_ng::Deserializer::from_str(text).enumerate() {
        let number = index + 1;
        let mut fields = match Value::deserialize(document) {
            Ok(Value::Null) => continue,
            Ok(value) => value,
            Err(error) => {
                faults.push((number, fault("", "malformed_yaml", format!("this is not YAML: {error}"))));
                // After a syntax error, documents cannot be separated.
                break;
            }
        };
        let name = fields.get("name").and_then(Value::as_str).map(str::to_owned);
        match &name {
            None if fields.is_object() && fields.get("name").is_none_or(Value::is_null) => {
                let detail = "`name` is required: it finds the deployment to change";
                faults.push((number, fault("/name", "required", detail.to_owned())));
            }
            None => {}
            Some(name) => {
                if let Some(first) = names.insert(name.clone(), number) {
                    let detail = format!("`{name}` is the name of document {first} already");
                    faults.push((number, fault("/name", "name_taken", detail)));
                }
            }
        }
        if let Some(Value::String(bucket)) = fields.pointer_mut("/model/bucket")
            && !bucket.is_empty()
        {
            *bucket = source::absolute(bucket, folder);
        }
        if let Some(Value::String(python)) = fields.get_mut("python") {
            *python = source::program(python, folder);
        }
        let mut read_only = READ_ONLY.to_vec();
        read_only.retain(|field| fields.as_object_mut().is_some_and(|fields| fields.shift_remove(*field).is_some()));
        documents.push(Document { number, name, fields, read_only });
    }
    if documents.is_empty() && faults.is_empty() {
        faults.push((1, fault("", "empty", "there is no document".to_owned())));
    }
    (documents, faults)
}

fn fault(pointer: &str, code: &str, detail: String) -> Fault {
    Fault { pointer: pointer.to_owned(), code: code.to_owned(), detail }
}
