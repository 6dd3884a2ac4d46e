//! What is not in the protocols' words and is understood all the same: fields that nobody knows, bare `NaN`.

use serde_json::{Value, json};

use crate::support::{Server, client, refused};

const IGNORED: &str = "x-modelway-ignored-fields";

/// The status, the fields that were ignored and the body.
async fn sent(server: &Server, path: &str, body: impl Into<reqwest::Body>) -> (u16, Option<String>, String) {
    let answer = client().post(format!("{}{path}", server.url)).body(body).send().await.unwrap();
    let ignored = answer.headers().get(IGNORED).map(|names| names.to_str().unwrap().to_owned());
    (answer.status().as_u16(), ignored, answer.text().await.unwrap())
}

#[tokio::test]
async fn fields_that_nobody_knows_are_ignored_named_in_a_header_and_counted() {
    let server = Server::of("pick").await;
    let input = json!({"name": "index", "shape": [1], "datatype": "INT64", "data": [3], "layout": {"a": [1]}});
    let v2 = json!({"inputs": [input], "outputs": [{"name": "picked", "classification": 0}], "user é": "me"});
    let v1 = json!({"instances": [3], "user": "me", "stream": [true]});
    let named = "inputs[0].layout, outputs[0].classification, user%20%C3%A9";
    for (path, body, wanted, part) in [
        ("/v2/models/pick/infer", &v2, named, r#""data":[3.0]"#),
        ("/v2/models/pick/infer_stream", &v2, named, r#""data":[3.0]"#),
        ("/v1/models/pick:predict", &v1, "user, stream", r#""predictions":[3.0]"#),
        ("/invocations", &v1, "user, stream", "3.0"),
    ] {
        let (status, ignored, answer) = sent(&server, path, body.to_string()).await;
        assert_eq!((status, ignored.as_deref()), (200, Some(wanted)), "{path} {answer}");
        assert!(answer.contains(part), "{path} {answer}");
    }
    let metrics = server.text("/metrics").await;
    let count = r#"model_ignored_fields_total{model_name="pick",model_version="1"} 10"#;
    assert!(metrics.contains(count), "{metrics}");
    // A request that fails names them too: one of them may have been meant for something.
    let wrong = json!({"inputs": [{"name": "index", "shape": [1], "datatype": "INT64", "data": [44]}], "x": 1});
    let (status, ignored, _) = sent(&server, "/v2/models/pick/infer", wrong.to_string()).await;
    assert_eq!((status, ignored.as_deref()), (400, Some("x")));
    let plain = json!({"inputs": [{"name": "index", "shape": [1], "datatype": "INT64", "data": [4]}]});
    assert_eq!(sent(&server, "/v2/models/pick/infer", plain.to_string()).await.1, None);
}

#[tokio::test]
async fn a_flood_of_unknown_fields_is_named_in_short() {
    let server = Server::of("pick").await;
    let mut body = json!({"inputs": [{"name": "index", "shape": [1], "datatype": "INT64", "data": [3]}]});
    for field in 0..20_000 {
        body[format!("{}{field}", "é".repeat(200))] = Value::Null;
    }
    let (status, ignored, _) = sent(&server, "/v2/models/pick/infer", body.to_string()).await;
    let ignored = ignored.unwrap();
    assert_eq!((status, ignored.len()), (200, 1_024), "{ignored}");
    let metrics = server.text("/metrics").await;
    assert!(metrics.contains(r#"model_ignored_fields_total{model_name="pick",model_version="1"} 20000"#), "{metrics}");
}

#[tokio::test]
async fn a_field_that_is_missing_is_told_with_the_one_that_was_meant() {
    let server = Server::of("pick").await;
    let said = async |path: &str, body: Value| refused(server.post(path, &body).await, 400);
    let v2 = "/v2/models/pick/infer";
    assert!(said(v2, json!({"input": []})).await.contains("`input` is not a field: did you mean `inputs`?"));
    let shap = json!({"inputs": [{"name": "index", "shap": [1], "datatype": "INT64", "data": [1]}]});
    assert!(said(v2, shap).await.contains("did you mean `shape`?"));
    let said = said("/v1/models/pick:predict", json!({"instance": [1]})).await;
    assert!(said.contains("`instance` is not a field: did you mean `instances`?"), "{said}");
}

#[tokio::test]
async fn bare_nan_and_infinity_are_floats_in_every_protocol_of_json() {
    let server = Server::of("identity/FP32").await;
    let of = |data: &str| format!(r#"{{"inputs":[{{"name":"x","shape":[2,2],"datatype":"FP32","data":{data}}}]}}"#);
    let answer = r#"["NaN",1.0,"-Infinity","Infinity"]"#;
    for (path, body, wanted) in [
        ("/v2/models/FP32/infer", of("[NaN, 1, -Infinity, Infinity]"), answer),
        ("/v2/models/FP32/infer", of("[[NaN, 1], [-Infinity, Infinity]]"), answer),
        ("/v1/models/FP32:predict", r#"{"instances":[[NaN,1],[-Infinity,Infinity]]}"#.into(), r#"[["NaN",1.0],["#),
        ("/v1/models/FP32:predict", r#"{"inputs":{"x":[[1,NaN]]}}"#.into(), r#"[[1.0,"NaN"]]"#),
        ("/v1/models/FP32:predict", r#"{"instances":[{"x":[NaN,1]}]}"#.into(), r#"[["NaN",1.0]]"#),
        ("/v2/models/FP32/generate", r#"{"x":[NaN,Infinity]}"#.into(), r#"["NaN","Infinity"]"#),
        ("/invocations", r#"{"instances":[[NaN,2]]}"#.into(), r#"[["NaN",2.0]]"#),
    ] {
        let (status, _, answer) = sent(&server, path, body.clone()).await;
        assert_eq!(status, 200, "{path} {body} {answer}");
        assert!(answer.contains(wanted), "{path} {body} {answer}");
    }
    let server = Server::of("pick").await;
    for (path, body) in [
        ("/v2/models/pick/infer", r#"{"inputs":[{"name":"index","shape":[1],"datatype":"INT64","data":[NaN]}]}"#),
        ("/v1/models/pick:predict", r#"{"instances":[NaN]}"#),
    ] {
        let (status, _, answer) = sent(&server, path, body).await;
        assert!(status == 400 && answer.contains("element 0 is NaN, not a whole number"), "{path} {answer}");
    }
    let server = Server::of("identity/BYTES").await;
    let (status, _, answer) = sent(&server, "/v1/models/BYTES:predict", r#"{"instances":[["a",NaN]]}"#).await;
    assert!(status == 400 && answer.contains("element 1 is NaN, not a string"), "{answer}");
    let said = sent(&server, "/v1/models/BYTES:predict", r#"{"instances":[["NaN","Infinity"]]}"#).await;
    assert!(said.2.contains(r#"["NaN","Infinity"]"#), "{said:?}");
}
