//! What a request may hold, as strictly as the server reads it.
//!
//! Types are described once, and answers may gain fields with every version. So each schema that the body of a request
//! leads to gets a copy for requests, which names the fields that are refused and the words that are taken.

use api::deployment::READ_ONLY;
use serde_json::{Value, json};

/// What the name of a copy ends in.
const COPY: &str = "Request";
/// Where the schemas are.
const SCHEMAS: &str = "#/components/schemas/";

const VERSION: &str = r"^(?!\.+$)[A-Za-z0-9._+-]{1,128}$";
const DIGEST: &str = "^sha256:[0-9a-f]{64}$";
const PLACE: &str =
    "^(/|[fF][iI][lL][eE]:///|([sS]3|[gG][sS]|[hH][tT][tT][pP][sS]?)://[^/])[^\\u0000-\\u001f\\u007f-\\u009f]*$";
const QUANTITY: &str = r"^([0-9]+\.?[0-9]*|\.[0-9]+)([mkMGTPE]|[KMGTPE]i|[eE]\+?[0-9]+)?$";
const VARIABLE: &str = "^(?!MODELWAY__)(?!MODELWAY_CONFIG$)(?!MODELWAY_REPLICA_(SOCKET|EPOCH)$)[A-Za-z_][A-Za-z0-9_]*$";

/// Patterns of strings, by schema and field.
const PATTERNS: [(&str, &str, &str); 12] = [
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

/// Lets every body of a request be described by copies for requests.
pub(super) fn tighten(document: &mut Value) {
    let mut names = Vec::new();
    for operation in document["paths"].as_object_mut().into_iter().flat_map(|paths| paths.values_mut()) {
        for (method, operation) in operation.as_object_mut().into_iter().flatten() {
            refer_to_copies(&mut operation["requestBody"], &mut names);
            if operation["requestBody"].is_null() {
                operation.as_object_mut().map(|operation| operation.shift_remove("requestBody"));
            } else if method == "put" && operation["operationId"] == "replaceDeployment" {
                operation["requestBody"]["content"]["application/json"]["schema"] =
                    json!({"$ref": format!("{SCHEMAS}Edited{COPY}")});
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
        edited["properties"][field] = json!({"readOnly": true, "description": "Set by the server, ignored here."});
    }
    edited["properties"]["id"]["description"] = "That of the path.".into();
    document["components"]["schemas"][format!("Edited{COPY}")] = edited;
}

/// Lets the references in `part` lead to copies; `names` gets the schemas to copy, each once.
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
    match name {
        "DeploymentSpec" => {
            for field in ["env", "env_from_file"] {
                schema["properties"][field]["propertyNames"]["pattern"] = VARIABLE.into();
            }
            schema["properties"]["env_from_file"]["additionalProperties"]["pattern"] = "^/".into();
        }
        "BucketModel" => schema["properties"]["type"]["enum"] = json!(["single"]),
        "Resources" => {
            for field in ["cpu", "memory"] {
                schema["properties"][field]["type"] = json!(["string", "number", "null"]);
            }
        }
        "ModelVersionSpec" => {
            let only = |field: &str, other: &str| json!({"required": [field], "properties": {field: {"type": "string"}, other: {"type": "null"}}});
            schema["oneOf"] = json!([only("uri", "image"), only("image", "uri")]);
        }
        _ => {}
    }
}
