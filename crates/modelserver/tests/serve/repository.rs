use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use modelserver::{Config, Overrides};
use serde_json::{Value, json};

use crate::support::{PATIENCE, Server, client, config, models, refused};

/// Puts a model of the tests into a version's folder of a repository.
fn put(root: &Path, place: &str, model: &str) {
    let folder = root.join(place);
    std::fs::create_dir_all(&folder).unwrap();
    // A file that is written over is another one: what is loaded may be mapped into memory.
    let file = folder.join("model.onnx");
    let _ = std::fs::remove_file(&file);
    std::fs::copy(models().join(model).join("model.onnx"), file).unwrap();
}

fn write(root: &Path, place: &str, text: &str) {
    let file = root.join(place);
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::fs::write(file, text).unwrap();
}

/// A repository of the models `adder`, which adds 9, and `picker`.
fn repository() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    put(root.path(), "adder/1", "versions/9");
    put(root.path(), "picker/3", "pick");
    root
}

fn sum_of_1_and_2() -> Value {
    let input = |name: &str, number: f32| json!({"name": name, "shape": [1], "datatype": "FP32", "data": [number]});
    json!({"inputs": [input("a", 1.0), input("b", 2.0)], "outputs": [{"name": "sum"}]})
}

/// What a model adds to 1 + 2, and the version that says so.
async fn added(server: &Server, path: &str) -> (f64, String) {
    let (status, body) = server.post(path, &sum_of_1_and_2()).await;
    assert_eq!(status, 200, "{body}");
    (body["outputs"][0]["data"][0].as_f64().unwrap() - 3.0, body["model_version"].as_str().unwrap().to_owned())
}

async fn load(server: &Server, name: &str) -> (u16, Value) {
    server.post_bytes(&format!("/v2/repository/models/{name}/load"), "").await
}

async fn unload(server: &Server, name: &str) -> (u16, Value) {
    server.post_bytes(&format!("/v2/repository/models/{name}/unload"), "").await
}

/// The lines of the index as `name:version STATE reason`.
async fn index(server: &Server) -> Vec<String> {
    let (status, body) = server.post_bytes("/v2/repository/index", "").await;
    assert_eq!(status, 200, "{body}");
    let text = |entry: &Value, key: &str| entry[key].as_str().unwrap_or_default().to_owned();
    let line = |entry: &Value| {
        let (name, version) = (text(entry, "name"), text(entry, "version"));
        format!("{name}:{version} {} {}", text(entry, "state"), text(entry, "reason")).trim().to_owned()
    };
    body.as_array().unwrap().iter().map(line).collect()
}

/// Waits until the index has this line.
async fn indexed(server: &Server, line: &str) {
    let there = async {
        while !index(server).await.iter().any(|known| known == line) {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, there).await.unwrap_or_else(|_| panic!("the index never says {line}"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_version_takes_over_under_load_without_one_failed_answer() {
    let root = repository();
    let server = Server::ready(config(root.path())).await;
    let (stop, newest) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let tasks = base::Tasks::new();
    let hammer = |url: String| {
        let (stop, newest, client) = (Arc::clone(&stop), Arc::clone(&newest), client());
        tasks.spawn(async move {
            let mut answers = 0;
            while !stop.load(SeqCst) {
                let body = sum_of_1_and_2().to_string();
                let answer = client.post(&url).body(body).send().await.unwrap();
                let status = answer.status();
                let body: Value = answer.json().await.unwrap();
                assert_eq!(status, 200, "{body}");
                let sum = body["outputs"][0]["data"][0].as_f64().unwrap();
                let version: usize = body["model_version"].as_str().unwrap().parse().unwrap();
                assert!([9.0, 10.0].contains(&(sum - 3.0)), "{body}");
                newest.fetch_max(version, SeqCst);
                answers += 1;
            }
            answers
        })
    };
    let url = |name: &str| format!("{}/v2/models/{name}/infer", server.url);
    let clients: Vec<_> = (0..8).map(|_| hammer(url("adder"))).collect();
    for version in 2..12 {
        put(root.path(), &format!("adder/{version}"), if version % 2 == 0 { "versions/10" } else { "versions/9" });
        assert_eq!(load(&server, "adder").await, (200, json!({})));
        std::fs::remove_dir_all(root.path().join(format!("adder/{}", version - 1))).unwrap();
    }
    assert_eq!(load(&server, "adder").await, (200, json!({})));
    stop.store(true, SeqCst);
    for client in clients {
        assert!(client.await.expect("every answer is right") > 0);
    }
    assert!(newest.load(SeqCst) > 1, "the clients saw new versions");
    assert_eq!(added(&server, "/v2/models/adder/infer").await, (9.0, "11".to_owned()));
    assert_eq!(index(&server).await, ["adder:11 READY", "picker:3 READY"]);
    let metrics = server.text("/metrics").await;
    assert!(metrics.contains(r#"model_loaded{model_name="adder",model_version="11"} 1"#), "{metrics}");
    assert!(metrics.contains(r#"model_loaded{model_name="adder",model_version="1"} 0"#), "{metrics}");
}

#[tokio::test]
async fn an_unloaded_model_is_not_ready_and_can_be_loaded_again() {
    let root = repository();
    let server = Server::ready(config(root.path())).await;
    assert_eq!(unload(&server, "adder").await, (200, json!({})));
    indexed(&server, "adder:1 UNAVAILABLE unloaded").await;
    let said = refused(server.post("/v2/models/adder/infer", &sum_of_1_and_2()).await, 503);
    assert!(said.contains("model `adder` is not loaded: unloaded"), "{said}");
    assert_eq!(server.get("/v2/models/adder/ready").await.0, 503);
    for path in ["/v2/models/adder", "/v2/models/adder/versions/1", "/v2/models/adder/config", "/v1/models/adder"] {
        let said = refused(server.get(path).await, 404);
        assert_eq!(said, "Request for unknown model `adder`: it was unloaded", "{path}");
    }
    assert_eq!(server.get("/v2/models/picker/ready").await.0, 200);
    assert_eq!(server.get("/v2/health/ready").await.0, 200, "a model that is not wanted does not make it unready");
    let ready = server.post("/v2/repository/index", &json!({"ready": true})).await.1;
    assert_eq!((ready.as_array().unwrap().len(), &ready[0]["name"]), (1, &json!("picker")));
    assert_eq!(unload(&server, "picker").await.0, 200);
    assert_eq!(refused(server.get("/v2/health/ready").await, 503), "no model is loaded");
    assert_eq!(load(&server, "picker").await.0, 200);
    assert_eq!(server.get("/v2/health/ready").await.0, 200);
    assert_eq!(load(&server, "adder").await, (200, json!({})));
    assert_eq!(added(&server, "/v2/models/adder/infer").await.0, 9.0);
    let said = refused(unload(&server, "addr").await, 404);
    assert!(said.contains("did you mean `adder`?"), "{said}");
}

#[tokio::test]
async fn a_model_that_comes_into_the_repository_later_can_be_loaded_and_one_that_is_not_there_cannot() {
    let root = repository();
    let server = Server::ready(config(root.path())).await;
    for name in ["late", "adder%2F..", "adder%2F1", "%2Ftmp"] {
        let said = refused(load(&server, name).await, 404);
        assert!(said.contains("failed to load") && said.contains("there is `adder`, `picker`"), "{said}");
    }
    put(root.path(), "late/1", "versions/10");
    assert_eq!(load(&server, "late").await, (200, json!({})));
    assert_eq!(added(&server, "/v2/models/late/versions/1/infer").await.0, 10.0);
    assert_eq!(server.get("/v1/models").await.1, json!({"models": ["adder", "late", "picker"]}));
}

#[tokio::test]
async fn what_cannot_be_loaded_leaves_the_old_one_serving_and_says_so() {
    let root = repository();
    let server = Server::ready(config(root.path())).await;
    write(root.path(), "adder/2/model.onnx", "this is not a model");
    let said = refused(load(&server, "adder").await, 400);
    assert!(said.contains("failed to load 'adder'") && said.contains("keeps serving"), "{said}");
    assert!(said.contains("2/model.onnx cannot be loaded"), "{said}");
    assert_eq!(added(&server, "/v2/models/adder/infer").await, (9.0, "1".to_owned()));
    assert!(refused(server.get("/v2/models/adder/versions/2/ready").await, 503).contains("cannot be loaded"));
    let lines = index(&server).await;
    assert_eq!(lines[0], "adder:1 READY");
    assert!(lines[1].starts_with("adder:2 UNAVAILABLE ") && lines[1].contains("cannot be loaded"), "{lines:?}");
    assert_eq!(server.get("/v2/health/ready").await.0, 200);
    // Its files deleted, it is still what it was loaded as.
    std::fs::remove_dir_all(root.path().join("adder")).unwrap();
    assert_eq!(added(&server, "/v2/models/adder/infer").await, (9.0, "1".to_owned()));
    assert!(refused(load(&server, "adder").await, 404).contains("failed to load"));
    assert_eq!(added(&server, "/v2/models/adder/infer").await, (9.0, "1".to_owned()));
    assert_eq!(index(&server).await[0], "adder:1 READY");
}

#[tokio::test]
async fn one_bad_model_of_a_folder_costs_itself_only_and_the_server_says_which() {
    let root = repository();
    write(root.path(), "bad/1/model.onnx", "this is not a model");
    write(root.path(), "both/1/a.onnx", "");
    write(root.path(), "both/1/b.onnx", "");
    write(root.path(), "junk/1/model.pt", "");
    write(root.path(), "notes/readme.txt", "");
    let server = Server::ready(config(root.path())).await;
    assert_eq!(added(&server, "/v2/models/adder/infer").await.0, 9.0);
    let said = refused(server.get("/v2/health/ready").await, 503);
    assert!(said.contains("model `bad` cannot be served") && said.contains("(and 2 more)"), "{said}");
    assert!(refused(server.get("/v2/models/bad/ready").await, 503).contains("cannot be loaded"));
    let lines = index(&server).await;
    assert!(lines.len() == 5 && lines[3].contains("has no version of a model"), "{lines:?}");
    assert!(lines[1].starts_with("bad:1 UNAVAILABLE ") && lines[2].contains("a.onnx and b.onnx"), "{lines:?}");
    put(root.path(), "bad/1", "pick");
    std::fs::remove_file(root.path().join("both/1/a.onnx")).unwrap();
    assert_eq!(load(&server, "bad").await.0, 200);
    assert_eq!(server.get("/v2/health/ready").await.0, 503);
    assert_eq!(unload(&server, "both").await.0, 200);
    assert_eq!(server.get("/v2/health/ready").await.0, 503);
    assert_eq!(unload(&server, "junk").await.0, 200);
    assert_eq!(server.get("/v2/health/ready").await.0, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn loads_and_unloads_of_one_model_at_a_time_end_in_what_was_said_last() {
    let root = repository();
    let server = Server::ready(config(root.path())).await;
    let mut orders = Vec::new();
    let tasks = base::Tasks::new();
    for order in ["load", "unload", "load", "load", "unload", "load", "load"] {
        let (url, client) = (format!("{}/v2/repository/models/adder/{order}", server.url), client());
        orders.push(tasks.spawn(async move { client.post(url).send().await.unwrap().status() }));
    }
    for order in orders {
        assert_eq!(order.await.unwrap(), 200);
    }
    assert_eq!(load(&server, "adder").await.0, 200);
    assert_eq!(index(&server).await, ["adder:1 READY", "picker:3 READY"]);
    assert_eq!(unload(&server, "adder").await.0, 200);
    indexed(&server, "adder:1 UNAVAILABLE unloaded").await;
}

#[tokio::test]
async fn a_model_can_be_loaded_from_the_files_of_the_request() {
    let root = repository();
    let mut configured = config(root.path());
    // What the request says is stronger.
    let one = Overrides { max_batch_size: Some(2), ..Overrides::default() };
    configured.models.insert("adder".to_owned(), one);
    let server = Server::ready(configured).await;
    let bytes = std::fs::read(models().join("versions/10/model.onnx")).unwrap();
    let described = json!({"backend": "onnxruntime", "max_batch_size": 4, "parameters": {"x": {"string_value": "y"}}});
    let with = |file: &str| json!({"parameters": {file: STANDARD.encode(&bytes), "config": described.to_string()}});
    let path = "/v2/repository/models/adder/load";
    assert_eq!(server.post(path, &with("file:7/model.onnx")).await, (200, json!({})));
    assert_eq!(added(&server, "/v2/models/adder/infer").await, (10.0, "7".to_owned()));
    assert_eq!(index(&server).await, ["adder:7 READY", "picker:3 READY"]);
    let holds = server.get("/v2/models/adder/config").await.1;
    assert_eq!((&holds["max_batch_size"], &holds["parameters"]["x"]["string_value"]), (&json!(4), &json!("y")));
    // A name that the repository does not have.
    assert_eq!(server.post("/v2/repository/models/fresh/load", &with("file:1/model.onnx")).await, (200, json!({})));
    assert_eq!(added(&server, "/v2/models/fresh/infer").await.0, 10.0);
    for wrong in ["file:../x", "file:/etc/x", "fil:1/model.onnx"] {
        refused(server.post(path, &with(wrong)).await, 400);
    }
    let said = refused(server.post(path, &with("file:model.onnx")).await, 400);
    assert!(said.contains("the request has no version of a model: expected <version>/model.onnx"), "{said}");
    let said = refused(server.post(path, &json!({"parameters": {"config": "{\"max_batchsize\": 1}"}})).await, 400);
    assert!(said.contains("`max_batchsize` is no field; did you mean `max_batch_size`?"), "{said}");
    // Without files it is the repository's own again.
    assert_eq!(load(&server, "adder").await.0, 200);
    assert_eq!(added(&server, "/v2/models/adder/infer").await, (9.0, "1".to_owned()));
    assert_eq!(server.get("/v2/models/adder/config").await.1["max_batch_size"], 2);
}

#[tokio::test]
async fn models_come_and_go_by_request_only_where_that_is_allowed() {
    let root = repository();
    let replica = Config { replica_id: Some("md-1-r1-0".into()), ..config(root.path()) };
    let server = Server::ready(replica).await;
    for answer in [load(&server, "adder").await, unload(&server, "adder").await] {
        assert!(refused(answer, 501).contains("serve.model_control"));
    }
    assert_eq!(added(&server, "/v2/models/adder/infer").await.0, 9.0);
    let server = Server::ready(config(root.path())).await;
    let page = client().post(format!("{}/v2/repository/models/adder/unload", server.url));
    let answer = page.header("origin", "https://page.example").send().await.unwrap();
    assert_eq!(answer.status(), 403, "a web page cannot order anything");
    assert_eq!(added(&server, "/v2/models/adder/infer").await.0, 9.0);
}

#[tokio::test]
async fn a_config_pbtxt_says_how_a_model_is_run() {
    let root = repository();
    put(root.path(), "adder/2", "versions/10");
    put(root.path(), "adder/10", "versions/9");
    let text = r#"
name: "adder"
platform: "onnxruntime_onnx"
max_batch_size: 16
input [ { name: "a" data_type: TYPE_FP32 dims: [ 1 ] }, { name: "b", data_type: TYPE_FP32, dims: 1 } ]
output { name: "sum" data_type: TYPE_FP32 dims: [ 1 ] }
version_policy: { latest { num_versions: 2 } }
dynamic_batching { preferred_batch_size: [ 4, 8 ] max_queue_delay_microseconds: 100 priority_levels: 2 }
instance_group [ { count: 2 kind: KIND_CPU } ]
response_cache { enable: true }
model_warmup { name: "w" batch_size: 2 inputs { key: "a" value { data_type: TYPE_FP32 random_data: true } }
               inputs { key: "b" value { data_type: TYPE_FP32 input_data_file: "b.bin" } } }
"#;
    write(root.path(), "adder/config.pbtxt", text);
    std::fs::create_dir_all(root.path().join("adder/warmup")).unwrap();
    std::fs::write(root.path().join("adder/warmup/b.bin"), [0u8; 8]).unwrap();
    let server = Server::ready(config(root.path())).await;
    assert_eq!(index(&server).await, ["adder:2 READY", "adder:10 READY", "picker:3 READY"]);
    let holds = server.get("/v2/models/adder/config").await.1;
    assert_eq!(holds["max_batch_size"], 16, "{holds}");
    assert_eq!(holds["version_policy"], json!({"latest": {"num_versions": 2}}));
    assert_eq!(holds["dynamic_batching"]["preferred_batch_size"], json!([4, 8]));
    assert_eq!(holds["dynamic_batching"]["max_queue_delay_microseconds"], 100);
    assert_eq!((&holds["instance_group"][0]["count"], &holds["response_cache"]["enable"]), (&json!(2), &json!(true)));
    assert_eq!((&holds["backend"], &holds["input"][0]["data_type"]), (&json!("onnxruntime"), &json!("TYPE_FP32")));
    assert_eq!(added(&server, "/v2/models/adder/infer").await, (9.0, "10".to_owned()));

    // A warm-up that fails is an error, and so is whatever is not so.
    let refuses = async |from: &str, to: &str, words: &str| {
        write(root.path(), "adder/config.pbtxt", &text.replace(from, to));
        let said = refused(load(&server, "adder").await, 400);
        assert!(said.contains(words), "{said}");
    };
    refuses("b.bin", "c.bin", "input `b`: ").await;
    refuses("\"adder\"", "\"other\"", "`name` is \"other\" and the model's folder is \"adder\"").await;
    refuses("\"onnxruntime_onnx\"", "\"tensorrt_plan\"", "line 3: `platform` is \"tensorrt_plan\", which is not").await;
    refuses("max_queue_delay_micro", "max_queue_delay_mikro", "line 8: `dynamic_batching.max_queue_delay_mik").await;
    refuses("\"sum\"", "\"summ\"", "the model has no output `summ`; did you mean `sum`?").await;
    refuses("\"a\" data_type: TYPE_FP32", "\"a\" data_type: TYPE_INT64", "is said to be INT64, and the model has")
        .await;
    refuses("dims: 1 }", "dims: [ 3, 4 ] }", "input `b` is said to be [3, 4] after the rows").await;
    refuses("latest { num_versions: 2 }", "specific { versions: [ 5 ] }", "names version 5, which is not there").await;
    assert_eq!(added(&server, "/v2/models/adder/infer").await, (9.0, "10".to_owned()));
}
