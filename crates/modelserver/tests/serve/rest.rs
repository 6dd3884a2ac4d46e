use std::io::{Read as _, Write as _};

use flate2::{Compression, read, write};
use serde_json::{Value, json};

use crate::support::{Server, client, config, models, refused};

fn pick(index: &[i64]) -> Value {
    json!({"inputs": [{"name": "index", "shape": [index.len()], "datatype": "INT64", "data": index}]})
}

/// The JSON of the events of a stream.
fn events(text: &str) -> Vec<Value> {
    let event = |line: &str| serde_json::from_str(line.strip_prefix("data: ").expect("an event")).unwrap();
    text.split_terminator("\n\n").map(event).collect()
}

async fn stream(server: &Server, path: &str, body: &Value) -> (String, Vec<Value>) {
    let answer = client().post(format!("{}{path}", server.url)).body(body.to_string()).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    let kind = answer.headers()["content-type"].to_str().unwrap().to_owned();
    (kind, events(&answer.text().await.unwrap()))
}

#[tokio::test]
async fn a_model_that_does_not_stream_is_asked_for_a_stream_and_sends_one_event() {
    let server = Server::of("pick").await;
    let mut body = pick(&[3, 4]);
    body["id"] = json!("a7");
    let (kind, told) = stream(&server, "/v2/models/pick/infer_stream", &body).await;
    assert_eq!(kind, "text/event-stream");
    assert_eq!(told.len(), 1);
    assert_eq!((&told[0]["id"], &told[0]["outputs"][0]["data"]), (&json!("a7"), &json!([3.0, 4.0])));
    let (kind, told) = stream(&server, "/v2/models/pick/generate_stream", &json!({"index": [3, 4]})).await;
    assert_eq!(kind, "text/event-stream");
    assert_eq!(told, [json!({"model_name": "pick", "model_version": "1", "picked": [3.0, 4.0]})]);
    // What is wrong before the first answer has its status.
    let wrong = server.post("/v2/models/pick/generate_stream", &json!({"index": [3, 44]})).await;
    assert!(refused(wrong, 400).contains("44"));
    let mut binary = pick(&[1]);
    binary["parameters"] = json!({"binary_data_output": true});
    assert!(refused(server.post("/v2/models/pick/infer_stream", &binary).await, 400).contains("events is text"));
}

#[tokio::test]
async fn generate_takes_fields_as_inputs_and_answers_outputs_as_fields() {
    let server = Server::of("identity/BYTES").await;
    let body = json!({"id": "7", "x": ["two words", "é"], "parameters": {"temperature": 0.5}, "stream": false});
    let (status, answer) = server.post("/v2/models/BYTES/generate", &body).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(answer, json!({"model_name": "BYTES", "model_version": "1", "id": "7", "y": ["two words", "é"]}));
    let server = Server::of("pick").await;
    let (_, answer) = server.post("/v2/models/pick/versions/1/generate", &json!({"index": 7})).await;
    assert_eq!(answer["picked"], json!(7.0), "a value alone is one element");
    let said = refused(server.post("/v2/models/pick/generate", &json!({"index": 7, "also": [1]})).await, 400);
    assert_eq!(
        said,
        "`also` is none of the model's inputs (`index`), and a parameter is a string, a number or a boolean"
    );
    let said = refused(server.post("/v2/models/pick/generate", &json!({"indx": 7})).await, 400);
    assert!(said.contains("input `index` is missing"), "{said}");
    let said = refused(server.post("/v2/models/pick/generate", &json!({"index": ["seven"]})).await, 400);
    assert!(said.contains("`index`: element 0 is the string"), "{said}");
    refused(server.post_bytes("/v2/models/pick/generate", "{\"index\":1,\"index\":2}").await, 400);
}

fn packed(format: &str, body: &[u8]) -> Vec<u8> {
    match format {
        "gzip" => {
            let mut encoder = write::GzEncoder::new(Vec::new(), Compression::fast());
            encoder.write_all(body).unwrap();
            encoder.finish().unwrap()
        }
        "deflate" => {
            let mut encoder = write::ZlibEncoder::new(Vec::new(), Compression::fast());
            encoder.write_all(body).unwrap();
            encoder.finish().unwrap()
        }
        _ => {
            let mut encoder = write::DeflateEncoder::new(Vec::new(), Compression::fast());
            encoder.write_all(body).unwrap();
            encoder.finish().unwrap()
        }
    }
}

async fn post_packed(server: &Server, path: &str, encoding: &str, body: Vec<u8>) -> reqwest::Response {
    let post = client().post(format!("{}{path}", server.url)).header("content-encoding", encoding);
    post.body(body).send().await.unwrap()
}

#[tokio::test]
async fn bodies_come_compressed_and_large_answers_leave_so_where_asked_for() {
    let server = Server::of("pick").await;
    let index: Vec<i64> = (0..1_000).map(|n| n % 10).collect();
    let plain = pick(&index).to_string();
    for (format, encoding) in [("gzip", "gzip"), ("deflate", "deflate"), ("bare", "deflate")] {
        let post = client().post(format!("{}/v2/models/pick/infer", server.url)).header("content-encoding", encoding);
        let post = post.header("accept-encoding", encoding).body(packed(format, plain.as_bytes()));
        let answer = post.send().await.unwrap();
        assert_eq!(answer.status(), 200, "{format}");
        assert_eq!(answer.headers()["content-encoding"], encoding);
        let body = answer.bytes().await.unwrap();
        let mut text = String::new();
        match encoding {
            "gzip" => read::GzDecoder::new(&body[..]).read_to_string(&mut text).unwrap(),
            _ => read::ZlibDecoder::new(&body[..]).read_to_string(&mut text).unwrap(),
        };
        assert!(body.len() * 2 < text.len());
        let answer: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(answer["outputs"][0]["data"].as_array().unwrap().len(), 1_000);
    }
    let small = client().post(format!("{}/v2/models/pick/infer", server.url)).header("accept-encoding", "gzip");
    let small = small.body(pick(&[1]).to_string()).send().await.unwrap();
    assert!(!small.headers().contains_key("content-encoding"), "a small answer is not worth it");
}

/// Triton's coroutine client asks for gzip in each request, and inflates nothing else.
#[tokio::test]
async fn only_predictions_and_metrics_are_compressed() {
    let name = "long".repeat(500);
    let mut settings = config(&models().join("pick"));
    settings.model_name = Some(name.clone());
    let server = Server::ready(settings).await;
    let encoded = async |request: reqwest::RequestBuilder| {
        let answer = request.header("accept-encoding", "gzip").send().await.unwrap();
        let encoded = answer.headers().contains_key("content-encoding");
        assert!(answer.bytes().await.unwrap().len() > if encoded { 0 } else { 1_024 }, "it is large enough");
        encoded
    };
    let model = format!("{}/v2/models/{name}", server.url);
    for path in ["", "/config", "/stats"] {
        assert!(!encoded(client().get(format!("{model}{path}"))).await, "{path}");
    }
    assert!(!encoded(client().get(format!("{}/v2/models/stats", server.url))).await);
    assert!(!encoded(client().post(format!("{}/v2/repository/index", server.url)).body("{}")).await);
    assert!(encoded(client().post(format!("{model}/infer")).body(pick(&[1]).to_string())).await);
    assert!(encoded(client().get(format!("{}/metrics", server.url))).await);
}

#[tokio::test]
async fn a_body_that_inflates_beyond_the_limit_is_refused_and_so_is_a_damaged_one() {
    let mut settings = config(&models().join("pick"));
    settings.body_limit_bytes = 100_000;
    let server = Server::ready(settings).await;
    let path = "/v2/models/pick/infer";
    for encoding in ["gzip", "deflate"] {
        let bomb = packed(encoding, &vec![b' '; 50 << 20]);
        assert!(bomb.len() < 1 << 20);
        let bomb = bomb[..bomb.len().min(90_000)].to_vec();
        let answer = post_packed(&server, path, encoding, bomb).await;
        assert_eq!(answer.status(), 413, "{encoding}");
        assert!(answer.text().await.unwrap().contains("serve.body_limit_bytes"));
        let whole = packed(encoding, pick(&[1]).to_string().as_bytes());
        for damaged in [whole[..whole.len() - 9].to_vec(), [&whole[..], b"rest"].concat(), b"{\"inputs\"".to_vec()] {
            let answer = post_packed(&server, path, encoding, damaged).await;
            let (status, text) = (answer.status(), answer.text().await.unwrap());
            assert!(status == 400 && text.contains(&format!("does not inflate as {encoding}")), "{status} {text}");
        }
        assert_eq!(post_packed(&server, path, encoding, whole).await.status(), 200);
    }
    assert_eq!(post_packed(&server, path, "zstd", vec![1]).await.status(), 415);
}

#[tokio::test]
async fn the_repository_tells_its_models_and_the_statistics_what_they_did() {
    let server = Server::of("versions").await;
    let (status, index) = server.post_bytes("/v2/repository/index", "").await;
    assert_eq!(status, 200);
    let lines: Vec<_> = index.as_array().unwrap().iter().map(|line| (&line["version"], &line["state"])).collect();
    assert!(lines.contains(&(&json!("9"), &json!("READY"))) && lines.contains(&(&json!("10"), &json!("READY"))));
    assert!(refused(server.post("/v2/repository/index", &json!({"redy": true})).await, 400).contains("redy"));
    refused(server.get("/v2/repository/index").await, 405);
    let load = json!({"parameters": {"confg": "{}"}});
    let said = refused(server.post("/v2/repository/models/versions/load", &load).await, 400);
    assert!(said.contains("no parameter `confg`"), "{said}");
    let unload = json!({"parameters": {"dependents": true}});
    let said = refused(server.post("/v2/repository/models/versions/unload", &unload).await, 400);
    assert!(said.contains("`unload_dependents`"), "{said}");
    let (_, statistics) = server.get("/v2/models/versions/versions/9/stats").await;
    let statistics = &statistics["model_stats"][0];
    assert_eq!((&statistics["name"], &statistics["version"]), (&json!("versions"), &json!("9")));
    assert_eq!(statistics["inference_stats"]["success"]["count"], 0);
    let input = |name: &str| json!({"name": name, "shape": [2], "datatype": "FP32", "data": [1, 2]});
    let body = json!({"inputs": [input("a"), input("b")]});
    assert_eq!(server.post("/v2/models/versions/versions/9/infer", &body).await.0, 200);
    let (_, statistics) = server.get("/v2/models/versions/versions/9/stats").await;
    let statistics = &statistics["model_stats"][0];
    assert_eq!(statistics["inference_stats"]["success"]["count"], 1);
    assert_eq!(statistics["execution_count"], 1);
    assert_eq!(statistics["batch_stats"][0]["batch_size"], 2, "{statistics}");
    assert_eq!(server.get("/v2/models/stats").await.1["model_stats"].as_array().unwrap().len(), 2);
    let (_, config) = server.get("/v2/models/versions/config").await;
    assert_eq!((&config["name"], &config["backend"]), (&json!("versions"), &json!("onnxruntime")));
    for path in ["/v2/trace/setting", "/v2/logging", "/v2/models/versions/trace/setting"] {
        assert!(refused(server.get(path).await, 404).contains("does not have that extension"), "{path}");
    }
}

#[tokio::test]
async fn invocations_say_which_forms_of_a_body_they_read() {
    let server = Server::of("pick").await;
    for (kind, status, words) in [
        ("text/csv", 400, "CSV is read for models of MLflow's only: send JSON with `dataframe_split`"),
        ("text/csv; charset=latin-1", 415, "the body is in latin-1, and only UTF-8 is read"),
        ("application/json; charset=UTF-16", 415, "the body is in UTF-16"),
        ("text/csv; header=present; charset=latin-1", 415, "the body is in latin-1, and only UTF-8 is read"),
        ("application/json; charset=utf-8; version=2", 400, "the body has none of"),
        ("application/vnd.apache.parquet", 415, "Parquet is not read here: send CSV, or JSON"),
        ("application/json; charset=\"utf-8\"", 400, "the body has none of"),
    ] {
        let call = client().post(format!("{}/invocations", server.url)).header("content-type", kind);
        let answer = call.body("{}").send().await.unwrap();
        let (got, said) = (answer.status(), answer.text().await.unwrap());
        assert!(got == status && said.contains(words), "{kind}: {got} {said}");
    }
}
