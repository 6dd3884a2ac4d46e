//! Request schemas, as strict as the server.
//!
//! Types are described once, and responses may gain fields in every version. So each schema that a request body uses is
//! copied for requests. The copy forbids unknown fields and lists the allowed words.

use api::deployment::READ_ONLY;
use serde_json::{Value, json};

/// The suffix of the name of a copy.
const COPY: &str = "Request";
/// The location of the schemas.
const SCHEMAS: &str = "#/components/schemas/";

const VERSION: &str = r"^(?!\.+$)[A-Za-z0-9._+-]{1,128}$";
const DIGEST: &str = "^sha256:[0-9a-f]{64}$";
const PLACE: &str =
    "^(/|[fF][iI][lL][eE]:///|([sS]3|[gG][sS]|[hH][tT][tT][pP][sS]?)://[^/])[^\\u0000-\\u001f\\u007f-\\u009f]*$";
const QUANTITY: &str = r"^(?!(\.?[0-9]){19})([0-9]+\.?[0-9]*|\.[0-9]+)([mkMGTPE]|[KMGTPE]i|[eE]\+?[0-9]+)?$";
const IF_MATCH: &str = r#"^(\*|"[!#-+.-~]*")$"#;
const KEY: &str = r#"^(?!""$)[!-~]([ -~]{0,253}[!-~])?$"#;
const LABEL: &str = "^[^=,\\u0000-\\u001f\\u007f-\\u009f]{1,128}$";
const LABEL_VALUE: &str = "^[^\\u0000-\\u001f\\u007f-\\u009f]{0,256}$";
const FILE: &str = "^/[^\\u0000-\\u001f\\u007f-\\u009f]*$";
const VARIABLE: &str = "^(?!MODELWAY__)(?!MODELWAY_CONFIG$)(?!MODELWAY_REPLICA_(SOCKET|EPOCH)$)[A-Za-z_][A-Za-z0-9_]*$";

/// Patterns of strings, by schema and field.
const PATTERNS: [(&str, &str, &str); 14] = [
    ("DeploymentSpec", "placement", "^[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?$"),
    ("DeploymentSpec", "python", "^(/[^\\u0000-\\u001f\\u007f-\\u009f]*|[^/\\u0000-\\u001f\\u007f-\\u009f]+)$"),
    ("DeploymentSpec", "name", "^(?!md-)(?![0-9]+$)[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?$"),
    ("RegisteredModelSpec", "name", "^(?!md-)[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?$"),
    ("BucketModel", "version", VERSION),
    ("BucketModel", "bucket", PLACE),
    ("BucketModel", "prefix", "^(?!(.*/)?\\.\\.(/|$))[^\\u0000-\\u001f\\u007f-\\u009f]*$"),
    ("BucketModel", "digest", DIGEST),
    ("RegisteredRef", "version", VERSION),
    ("Resources", "cpu", QUANTITY),
    ("Resources", "memory", QUANTITY),
    ("ModelVersionSpec", "version", VERSION),
    ("ModelVersionSpec", "uri", PLACE),
    ("ModelVersionSpec", "digest", DIGEST),
];

/// Schemas that a person writes: null means the same as leaving the field out.
const WRITTEN: [&str; 6] =
    ["DeploymentSpec", "BucketModel", "RegisteredRef", "Resources", "RegisteredModelSpec", "ModelVersionSpec"];

/// Schemas that only optional fields refer to.
const OPTIONAL: [&str; 3] = ["MachineType", "LogPayloads", "Resources"];

/// Makes every request use the copies for requests.
pub(super) fn tighten(document: &mut Value) {
    let mut names = Vec::new();
    for operation in document["paths"].as_object_mut().into_iter().flat_map(|paths| paths.values_mut()) {
        for operation in operation.as_object_mut().into_iter().flat_map(|operations| operations.values_mut()) {
            operation["parameters"].as_array_mut().into_iter().flatten().for_each(restrict_parameter);
            refer_to_copies(&mut operation["requestBody"], &mut names);
            let body = match operation["operationId"].as_str() {
                Some("replaceDeployment") => "Edited",
                Some("changeDeployment") => "Patch",
                _ => {
                    let empty: Vec<_> =
                        ["parameters", "requestBody"].into_iter().filter(|part| operation[*part].is_null()).collect();
                    for part in empty {
                        operation.as_object_mut().map(|operation| operation.shift_remove(part));
                    }
                    continue;
                }
            };
            for content in operation["requestBody"]["content"].as_object_mut().into_iter().flat_map(|c| c.values_mut())
            {
                content["schema"] = json!({"$ref": format!("{SCHEMAS}{body}{COPY}")});
            }
        }
    }
    let mut done = 0;
    while let Some(name) = names.get(done).cloned() {
        done += 1;
        let mut copy = document["components"]["schemas"][&name].clone();
        refer_to_copies(&mut copy, &mut names);
        restrict(&name, &mut copy);
        document["components"]["schemas"][format!("{name}{COPY}")] = copy;
    }
    let mut edited = document["components"]["schemas"][format!("DeploymentSpec{COPY}")].clone();
    for field in READ_ONLY {
        edited["properties"][field] = json!({"readOnly": true, "description": "Set by the server; ignored here."});
    }
    edited["properties"]["id"]["description"] = "Must match the path.".into();
    document["components"]["schemas"][format!("Edited{COPY}")] = edited;
    let patch = patch(&document["components"]["schemas"]);
    document["components"]["schemas"][format!("Patch{COPY}")] = patch;
}

/// A merge patch of a specification: any of its fields, with null for the default.
fn patch(schemas: &Value) -> Value {
    let mut patch = schemas[format!("DeploymentSpec{COPY}")].clone();
    patch["description"] = "The fields to change (RFC 7396); null resets a field to its default.".into();
    patch.as_object_mut().map(|patch| patch.shift_remove("required"));
    for field in ["labels", "env", "env_from_file"] {
        allow_null(&mut patch["properties"][field]["additionalProperties"]);
    }
    let mut model = json!({"type": "object", "additionalProperties": false, "properties": {}});
    for form in ["BucketModel", "RegisteredRef"] {
        for (field, schema) in schemas[format!("{form}{COPY}")]["properties"].as_object().into_iter().flatten() {
            model["properties"][field] = schema.clone();
            allow_null(&mut model["properties"][field]);
        }
    }
    patch["properties"]["model"] = model;
    patch
}

/// Restricts the values of query and header parameters. None of them can be null.
fn restrict_parameter(parameter: &mut Value) {
    let name = parameter["name"].as_str().unwrap_or_default().to_owned();
    let schema = &mut parameter["schema"];
    if let Some(types) = schema["type"].as_array() {
        schema["type"] = types.iter().find(|of| *of != "null").cloned().unwrap_or_default();
    }
    match name.as_str() {
        "If-Match" => {
            schema["pattern"] = IF_MATCH.into();
            parameter["example"] = "\"g3\"".into();
        }
        "Idempotency-Key" => schema["pattern"] = KEY.into(),
        "deployment" => schema["pattern"] = "^(md-)?[1-9][0-9]{0,17}$".into(),
        "label" => schema["items"]["pattern"] = "^[^=]+=".into(),
        "order" => schema["enum"] = json!(["asc", "desc"]),
        _ => {}
    }
}

/// Does nothing for a reference: the schemas in [`OPTIONAL`] allow null themselves.
fn allow_null(schema: &mut Value) {
    if schema.get("$ref").is_some() {
        return;
    }
    if let Value::String(only) = &schema["type"] {
        schema["type"] = json!([only, "null"]);
    } else if let Value::Array(types) = &mut schema["type"]
        && !types.iter().any(|of| of == "null")
    {
        types.push("null".into());
    }
    if let Value::Array(words) = &mut schema["enum"]
        && !words.contains(&Value::Null)
    {
        words.push(Value::Null);
    } else if schema["enum"].is_null() {
        schema.as_object_mut().map(|schema| schema.shift_remove("enum"));
    }
}

/// Makes the references in `part` point to copies; `names` collects the schemas to copy, each once.
fn refer_to_copies(part: &mut Value, names: &mut Vec<String>) {
    match part {
        Value::Object(fields) => {
            for (field, value) in fields {
                if let (Value::String(target), "$ref") = (&mut *value, field.as_str()) {
                    let name = target.trim_start_matches(SCHEMAS).to_owned();
                    target.push_str(COPY);
                    if !names.contains(&name) {
                        names.push(name);
                    }
                } else {
                    refer_to_copies(value, names);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| refer_to_copies(item, names)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn restrict(name: &str, schema: &mut Value) {
    if schema["properties"].is_object() {
        schema["additionalProperties"] = false.into();
    } else if schema.get("properties").is_some_and(Value::is_null) {
        schema.as_object_mut().map(|schema| schema.shift_remove("properties"));
    }
    for (_, field, pattern) in PATTERNS.iter().filter(|(of, _, _)| *of == name) {
        schema["properties"][*field]["pattern"] = (*pattern).into();
    }
    if OPTIONAL.contains(&name) {
        allow_null(schema);
    }
    if WRITTEN.contains(&name) {
        let required = schema["required"].as_array().cloned().unwrap_or_default();
        for (_, property) in schema["properties"]
            .as_object_mut()
            .into_iter()
            .flatten()
            .filter(|(field, _)| !required.contains(&Value::String((*field).clone())))
        {
            allow_null(property);
        }
    }
    if schema["properties"]["labels"].is_object() {
        schema["properties"]["labels"]["propertyNames"]["pattern"] = LABEL.into();
        schema["properties"]["labels"]["additionalProperties"]["pattern"] = LABEL_VALUE.into();
    }
    match name {
        "DeploymentSpec" => {
            for field in ["env", "env_from_file"] {
                schema["properties"][field]["propertyNames"]["pattern"] = VARIABLE.into();
            }
            schema["properties"]["env"]["additionalProperties"]["pattern"] = "^[^\\u0000]*$".into();
            schema["properties"]["env_from_file"]["additionalProperties"]["pattern"] = FILE.into();
        }
        "BucketModel" => schema["properties"]["type"]["enum"] = json!(["single", null]),
        "Resources" => {
            for field in ["cpu", "memory"] {
                schema["properties"][field]["type"] = json!(["string", "number", "null"]);
            }
        }
        "ModelVersionSpec" => {
            let nothing = json!({"type": "null"});
            let text = json!({"type": "string"});
            schema["oneOf"] = json!([
                {"required": ["uri"], "properties": {"uri": text, "image": nothing}},
                // The digest of an image is in its reference.
                {"required": ["image"], "properties": {"image": text, "uri": nothing, "digest": nothing}},
            ]);
        }
        // Neither number fits the format, which is signed.
        "RevisionNumber" => {
            schema.as_object_mut().map(|number| number.shift_remove("format"));
            schema["maximum"] = u32::MAX.into();
        }
        "LostRequests" => {
            schema["properties"]["count"].as_object_mut().map(|count| count.shift_remove("format"));
            schema["properties"]["count"]["maximum"] = u64::MAX.into();
        }
        "Ejected" => {
            for field in ["count", "pause_ms"] {
                schema["properties"][field].as_object_mut().map(|number| number.shift_remove("format"));
                schema["properties"][field]["maximum"] = u64::MAX.into();
            }
        }
        _ => {}
    }
}
