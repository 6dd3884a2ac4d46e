//! What surrounds a request: its path, its id, its event, and the names that models may have.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use reqwest::header::HeaderMap;
use serde_json::{Value, json};

use crate::support::{Server, client, config, models, refused};

fn pick() -> Value {
    json!({"inputs": [{"name": "index", "shape": [1], "datatype": "INT64", "data": [3]}]})
}

#[tokio::test]
async fn a_path_means_the_same_however_it_is_written() {
    let mut settings = config(&models().join("pick"));
    (settings.model_name, settings.alias) = (Some("a/b c".into()), vec!["pick".into(), "x:y".into()]);
    let server = Server::ready(settings).await;
    let v1 = json!({"instances": [3]});
    for (path, body) in [
        ("/v1/models/pick:predict", &v1),
        ("/v1/models/pick%3Apredict", &v1),
        ("/v1/models/pick%3apredict/", &v1),
        ("/v1/models/%70ick/versions/1%3Apredict", &v1),
        ("/v1/models/x%3Ay:predict", &v1),
        ("/v1/models/a%2Fb%20c:predict", &v1),
        ("/v2/models/a%2Fb%20c/infer", &pick()),
        ("/v2/models/a%2fb%20c/versions/1/infer/", &pick()),
        ("/v2/models/x:y/infer", &pick()),
        ("/%76%32/models/pick/%69nfer", &pick()),
    ] {
        let (status, answer) = server.post(path, body).await;
        assert_eq!(status, 200, "{path} {answer}");
    }
    for path in ["/v2/", "/v2/health/ready/", "/v2/health/live/", "/v1/models/", "/v2/models/pick/", "/v1/models/pick/"]
    {
        assert_eq!(server.get(path).await.0, 200, "{path}");
    }
    for path in ["/v2/models/a/b%20c", "/v2/models//pick", "/v2/models/pick/versions//infer", "/v2%2Fmodels/pick"] {
        refused(server.get(path).await, 404);
    }
    refused(server.get("/v2/models/%FF").await, 400);
}

#[tokio::test]
async fn a_name_that_no_path_can_hold_is_refused_at_the_start() {
    for name in ["", ".", "..", "a\nb"] {
        let mut settings = config(&models().join("pick"));
        settings.model_name = Some(name.into());
        let mut alias = config(&models().join("pick"));
        alias.alias = vec![name.into()];
        let mut version = config(&models().join("pick"));
        version.model_version = Some(name.into());
        for (settings, what) in [(settings, "model"), (alias, "alias"), (version, "version")] {
            let error = Server::start(settings).await.end().await.unwrap_err();
            assert!(error.to_string().contains(&format!("cannot be the name of a {what}")), "{name:?} {error}");
            assert_eq!(error.exit_code(), 78);
        }
    }
}

#[tokio::test]
async fn ids_of_requests_and_cloud_events_are_answered() {
    let server = Server::of("pick").await;
    let send = async |path: &str, headers: &[(&'static str, &str)], body: &Value| -> (u16, HeaderMap) {
        let mut post = client().post(format!("{}{path}", server.url)).body(body.to_string());
        for (name, value) in headers {
            post = post.header(*name, *value);
        }
        let answer = post.send().await.unwrap();
        (answer.status().as_u16(), answer.headers().clone())
    };
    let wrong = json!({"inputs": []});
    for (path, body, status) in
        [("/v2/models/pick/infer", &pick(), 200), ("/v2/models/pick/infer", &wrong, 400), ("/nowhere", &wrong, 404)]
    {
        let (told, headers) = send(path, &[("x-request-id", "a.b/7")], body).await;
        assert_eq!((told, headers["x-request-id"].to_str().unwrap()), (status, "a.b/7"));
        assert!(!headers.contains_key("ce-id"));
    }
    for not_plain in ["a b", "a\"b", &"a".repeat(129)] {
        let (_, headers) = send("/v2/models/pick/infer", &[("x-request-id", not_plain)], &pick()).await;
        assert!(!headers.contains_key("x-request-id"), "{not_plain}");
    }
    let event = [
        ("ce-specversion", "1.0"),
        ("ce-id", "36077800-0c23-4f38-a0b4-01f4369f670a"),
        ("ce-source", "knative"),
        ("ce-type", "knative.kafka.event"),
    ];
    let mut ids = std::collections::HashSet::new();
    for _ in 0..3 {
        let (status, headers) = send("/v1/models/pick:predict", &event, &json!({"instances": [3]})).await;
        assert_eq!(status, 200);
        let said = |name: &str| headers[name].to_str().unwrap().to_owned();
        assert_eq!((said("ce-specversion"), said("ce-type")), ("1.0".into(), "io.kserve.inference.response".into()));
        assert_eq!(said("ce-source"), "io.kserve.inference.pick");
        ids.insert(said("ce-id"));
    }
    assert_eq!(ids.len(), 3, "no two events have one id");
}

#[tokio::test]
async fn a_structured_cloud_event_is_opened_and_answered_as_one() {
    let server = Server::of("pick").await;
    let send = async |path: &str, kind: &str, body: String| -> (u16, HeaderMap, Value) {
        let post = client().post(format!("{}{path}", server.url)).header("content-type", kind).body(body);
        let answer = post.send().await.unwrap();
        (answer.status().as_u16(), answer.headers().clone(), answer.json().await.unwrap())
    };
    let structured = "application/cloudevents+json";
    let event = |more: Value| {
        let mut event =
            json!({"specversion": "1.0", "id": "7", "source": "knative", "type": "knative.kafka.event", "sequence": 3});
        event.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        event
    };
    let v1 = json!({"instances": [3]});
    let text = v1.to_string();
    let (_, _, plain) = send("/v1/models/pick:predict", "application/json", text.clone()).await;
    let forms = [
        event(json!({"data": v1})),
        event(json!({"data": v1, "datacontenttype": "application/json; charset=utf-8"})),
        event(json!({"data": text, "datacontenttype": "text/plain"})),
        event(json!({"data_base64": STANDARD.encode(&text), "datacontenttype": "application/json"})),
    ];
    let mut ids = std::collections::HashSet::new();
    for form in &forms {
        for kind in [structured, "Application/CloudEvents+JSON; charset=UTF-8"] {
            let (status, headers, body) = send("/v1/models/pick:predict", kind, form.to_string()).await;
            assert_eq!((status, &headers["content-type"]), (200, &structured.parse().unwrap()), "{form}: {body}");
            assert_eq!(body["data"], plain);
            assert_eq!((&body["specversion"], &body["datacontenttype"]), (&json!("1.0"), &json!("application/json")));
            assert_eq!(body["type"], "io.kserve.inference.response");
            assert_eq!(body["source"], "io.kserve.inference.pick");
            assert!(!headers.contains_key("ce-id"));
            ids.insert(body["id"].as_str().unwrap().to_owned());
        }
    }
    assert_eq!(ids.len(), 8, "no two events have one id");
    let (status, _, body) = send("/v2/models/pick/infer", structured, event(json!({"data": pick()})).to_string()).await;
    assert_eq!((status, &body["data"]["model_name"]), (200, &json!("pick")), "{body}");

    let without = |name: &str| {
        let mut event = event(json!({"data": v1}));
        event.as_object_mut().unwrap().remove(name);
        event.to_string()
    };
    for (kind, body, status, words) in [
        (structured, text.clone(), 400, "no `specversion`, `id`, `source`, `type`"),
        (structured, without("id"), 400, "no `id`"),
        (structured, without("data"), 400, "no `data`"),
        (structured, event(json!({"data": v1, "data_base64": "e30="})).to_string(), 400, "both"),
        (structured, event(json!({"data_base64": "§"})).to_string(), 400, "not base64"),
        (structured, event(json!({"data_base64": 3})).to_string(), 400, "not base64"),
        (structured, event(json!({"data": v1, "specversion": "0.3"})).to_string(), 400, "`0.3`"),
        (structured, event(json!({"data": v1, "datacontenttype": "text/plain"})).to_string(), 400, "not a string"),
        (structured, event(json!({"data": {"instances": ["x"]}})).to_string(), 400, "instances"),
        (structured, "[1".to_owned(), 400, "not a CloudEvent"),
        ("application/cloudevents-batch+json", format!("[{}]", without("x")), 415, "one event in each request"),
        ("application/cloudevents+avro", text.clone(), 415, structured),
    ] {
        let (told, headers, answer) = send("/v1/models/pick:predict", kind, body.clone()).await;
        let said = answer["error"].as_str().unwrap_or_default();
        assert!(told == status && said.contains(words), "{body}: {told} {answer}");
        assert_eq!(headers["content-type"], "application/json");
    }
}
