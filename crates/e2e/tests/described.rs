//! The API's document takes what the server takes, and refuses what it refuses.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, also in its helpers")]

use std::process::Command;

use modelway_e2e::{Modelway, Role, python};
use reqwest::Method;
use serde_json::{Value, json};

/// Judges instances by schemas, as far as the document uses JSON Schema.
const JUDGE: &str = r##"
import json, re, sys
document, cases = json.load(sys.stdin)
TYPES = {"object": dict, "string": str, "array": list, "null": type(None), "boolean": bool, "integer": int, "number": (int, float)}
def fits(schema, it):
    if "$ref" in schema:
        return fits(document["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]], it)
    types = schema.get("type", list(TYPES))
    types = types if isinstance(types, list) else [types]
    if not any(isinstance(it, TYPES[kind]) and not (isinstance(it, bool) and kind in ("integer", "number")) for kind in types):
        return False
    if "enum" in schema and it not in schema["enum"]:
        return False
    if isinstance(it, str) and "pattern" in schema and not re.search(schema["pattern"].replace("$", r"\Z"), it):
        return False
    if isinstance(it, int) and not schema.get("minimum", it) <= it <= schema.get("maximum", it):
        return False
    if isinstance(it, dict):
        known, more = schema.get("properties", {}), schema.get("additionalProperties", True)
        names = schema.get("propertyNames", {})
        if any(name not in it for name in schema.get("required", [])) or not all(fits(names, name) for name in it):
            return False
        for name, value in it.items():
            if name in known and not fits(known[name], value):
                return False
            if name not in known and (more is False or isinstance(more, dict) and not fits(more, value)):
                return False
    return ("oneOf" not in schema or sum(fits(one, it) for one in schema["oneOf"]) == 1) and ("anyOf" not in schema or any(fits(one, it) for one in schema["anyOf"])) and all(fits(one, it) for one in schema.get("allOf", []))
for path, method, body in cases:
    content = document["paths"][path][method]["requestBody"]["content"]["application/json"]
    print(json.dumps(fits(content["schema"], body)))
"##;

#[tokio::test]
async fn the_document_and_the_server_take_and_refuse_the_same_bodies() {
    let mut modelway = Modelway::new();
    modelway.start(Role::Control).await;
    let document = modelway.ask(Method::GET, &modelway.control("/openapi.json"), Value::Null).await.body;
    let model = json!({"bucket": "s3://models", "version": "v1"});
    let mut cases = Vec::new();
    let mut deployment = |field: &str, value: Value| {
        let mut body = json!({"model": model});
        match field.split_once('/') {
            Some((outer, inner)) => body[outer][inner] = value,
            None => body[field] = value,
        }
        cases.push(("/v1/modelDeployment", body));
    };
    deployment("replicas", json!(0));
    for name in ["iris", "a", "3a", "3", "md-3", "-a", "a-", "A", "a b", "", "a\n", &"a".repeat(63), &"a".repeat(64)] {
        deployment("name", json!(name));
    }
    for (field, values) in [
        ("model/version", vec!["v1", "..", "a/b", "1.0+cpu", "", "v1\n"]),
        (
            "model/bucket",
            vec!["s3://b", "/m", "file:///m", "HTTPS://h/x", "m", "s3://", "file://m", "ftp://x/y", "/a\u{1}"],
        ),
        ("model/prefix", vec!["", "a/b", "../a", "a/..", "a..b", "a/../b"]),
        ("model/type", vec!["single", "many"]),
        ("model/digest", vec!["sha256:0", DIGEST]),
        ("type", vec!["cpu", "gpu", "tpu"]),
        ("log_payloads", vec!["all", "some"]),
        ("request_res/cpu", vec!["500m", "1", ".5", "1.5", "1e3", "", ".", "1x", "-1", "1Gi", "1mi"]),
        ("env/A", vec!["", "x"]),
        ("env/1A", vec!["x"]),
        ("env/MODELWAY__X", vec!["x"]),
        ("env/MODELWAY_CONFIG", vec!["x"]),
        ("env/MODELWAY_CONFIGS", vec!["x"]),
        ("env_from_file/A", vec!["/x", "x"]),
        ("model/name", vec!["iris"]),
        ("colour", vec!["red"]),
        ("request_res/gpu", vec!["1"]),
        ("id", vec!["3"]),
        ("notes", vec!["x"]),
    ] {
        values.into_iter().for_each(|value| deployment(field, json!(value)));
    }
    deployment("replicas", json!(1001));
    deployment("request_res/cpu", json!(2));
    deployment("env/A", json!(2));
    for body in [
        json!({"name": "a"}),
        json!({"name": "a", "colour": 1}),
        json!({"name": "Not one"}),
        json!({"name": "b", "labels": {"a": 1}}),
    ] {
        cases.push(("/v1/registeredModels", body));
    }
    for body in [
        json!({"version": "1", "uri": "/m"}),
        json!({"version": "2", "image": "a:b"}),
        json!({"version": "3", "uri": "/m", "image": null}),
        json!({"version": "4", "uri": "/m", "image": "a:b"}),
        json!({"version": "5"}),
        json!({"version": "6", "uri": "m"}),
        json!({"version": "7", "uri": "/m", "size": 1}),
    ] {
        cases.push(("/v1/registeredModels/{name}/versions", body));
    }

    let asked: Vec<_> = cases.iter().map(|(path, body)| json!([path, "post", body])).collect();
    let mut judge = Command::new(python());
    judge.args(["-c", JUDGE]).stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
    let mut judge = judge.spawn().unwrap();
    serde_json::to_writer(judge.stdin.take().unwrap(), &json!([document, asked])).unwrap();
    let judged = judge.wait_with_output().unwrap();
    assert!(judged.status.success());
    let judged: Vec<bool> =
        String::from_utf8(judged.stdout).unwrap().lines().map(|line| line.parse().unwrap()).collect();
    let (mut wrong, mut taken) = (Vec::new(), 0);
    for ((path, body), fits) in cases.iter().zip(&judged) {
        let url = modelway.control(&path.replace("{name}", "a"));
        let status = modelway.ask(Method::POST, &url, body.clone()).await.status.as_u16();
        assert!([201, 422].contains(&status), "{path} {body}: {status}");
        taken += usize::from(status == 201);
        if (status == 201) != *fits {
            wrong.push(format!("{path} {body}: {status}, the document says {fits}"));
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
    assert!(judged.len() == cases.len() && taken > 10 && taken < cases.len() - 10);

    let put = &document["paths"]["/v1/modelDeployment/{id}"]["put"]["requestBody"]["content"]["application/json"];
    assert_eq!(put["schema"]["$ref"], "#/components/schemas/EditedRequest", "an answer can be sent back");
    assert_eq!(document["components"]["schemas"]["EditedRequest"]["properties"]["notes"]["readOnly"], true);
}

const DIGEST: &str = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
