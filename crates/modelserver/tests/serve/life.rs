use std::time::Duration;

use modelserver::Listener;
use rustix::fs::{Mode, OFlags};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
};

use crate::support::{PATIENCE, Server, UnderWay, client, config, copy, models, refused};

#[tokio::test]
async fn the_report_waits_for_a_change_of_state() {
    let mut settings = config(&models().join("pick"));
    settings.replica_id = Some("md-7-r1-0".into());
    settings.drain_ms = 500;
    let server = Server::ready(settings).await;
    let (_, report) = server.get("/modelway/replica").await;
    assert_eq!(
        (&report["replica"], &report["state"], &report["seq"]),
        (&json!("md-7-r1-0"), &json!("ready"), &json!(3))
    );
    assert_eq!(report["pid"], std::process::id());
    assert!(report["memory_bytes"].as_u64().unwrap() > 0);
    assert!(report["artifact"].as_str().unwrap().ends_with("/pick"));
    let url = format!("{}/modelway/replica?after=3", server.url);
    let next = UnderWay::send(&base::Tasks::new(), client().get(url).send());
    server.tasks.stop();
    let next: Value = next.answer().await.json().await.unwrap();
    assert_eq!((&next["state"], &next["seq"]), (&json!("stopping"), &json!(4)));
}

#[tokio::test]
async fn whoever_waits_for_a_change_that_will_not_come_does_not_hold_up_the_end() {
    let mut settings = config(&models().join("pick"));
    settings.drain_ms = 500;
    let mut server = Server::ready(settings).await;
    let start = std::time::Instant::now();
    server.tasks.stop();
    let url = format!("{}/modelway/replica?after=1000", server.url);
    let waiting = UnderWay::send(&base::Tasks::new(), client().get(url).send());
    assert!(server.end().await.is_ok());
    assert_eq!(waiting.answer().await.status(), 200);
    assert!(start.elapsed() < PATIENCE / 3, "{:?}", start.elapsed());
}

#[tokio::test]
async fn a_server_told_to_end_is_not_ready_but_answers_and_finishes_what_it_began() {
    let mut settings = config(&models().join("slow"));
    settings.drain_ms = 1_500;
    let mut server = Server::ready(settings).await;
    let client = client();
    let slow = |rounds: u64| {
        let body = json!({"inputs": [{"name": "rounds", "shape": [1], "datatype": "INT64", "data": [rounds]}]});
        client.post(format!("{}/v2/models/slow/infer", server.url)).body(body.to_string()).send()
    };
    let began = UnderWay::send(&base::Tasks::new(), slow(30_000));
    server.tasks.stop();
    let ready = format!("{}/v2/health/ready", server.url);
    let not_ready = async { while client.get(&ready).send().await.unwrap().status() != 503 {} };
    tokio::time::timeout(PATIENCE, not_ready).await.expect("readiness goes off");
    assert_eq!(slow(1).await.unwrap().status(), 200);
    assert_eq!(began.answer().await.status(), 200);
    assert!(server.end().await.is_ok());
    assert!(client.get(&ready).send().await.is_err());
}

#[tokio::test]
async fn it_answers_while_the_model_is_not_there_yet() {
    // A FIFO in the place of the model: loading waits until somebody writes into it.
    let folder = copy("pick");
    let model = folder.path().join("model.onnx");
    let bytes = std::fs::read(&model).unwrap();
    std::fs::remove_file(&model).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(&model).status().unwrap().success());
    std::fs::write(folder.path().join("golden.json"), r#"{"examples":[]}"#).unwrap();
    let mut settings = config(folder.path());
    settings.model_name = Some("late".into());
    let server = Server::start(settings).await;
    assert_eq!(server.get("/health/live").await.0, 200);
    let said = refused(server.get("/ready").await, 503);
    assert_eq!(said, "the server is still loading its models");
    refused(server.post("/v2/models/late/infer", &json!({"inputs": []})).await, 503);
    assert_eq!(server.get("/modelway/replica").await.1["state"], "starting");
    assert!(server.text("/metrics").await.contains(r#"model_loaded{model_name="late",model_version="1"} 0"#));
    server.tasks.stop();
    // The load may open the file more than once, and each time it waits for a writer. The runtime waits for the load.
    std::thread::spawn(move || {
        let mut idle = 0;
        while idle < 300 {
            let fifo = rustix::fs::open(&model, OFlags::WRONLY | OFlags::NONBLOCK, Mode::empty());
            idle = match fifo.and_then(|fifo| rustix::io::write(&fifo, &bytes[..1])) {
                Ok(_) => 0,
                Err(_) => idle + 1,
            };
            std::thread::sleep(Duration::from_millis(10));
        }
        drop(folder);
    });
}

#[tokio::test]
async fn a_model_that_cannot_be_served_ends_the_server_with_words_and_a_code() {
    let check = async |folder: &std::path::Path, code: &str, words: &str| {
        let error = Server::start(config(folder)).await.end().await.unwrap_err();
        assert_eq!((error.code(), error.exit_code()), (code, 78), "{error}");
        assert!(error.to_string().contains(words), "{error}");
    };
    check(&models().join("broken"), "model_invalid", "model.onnx cannot be loaded").await;
    check(&models().join("identity"), "model_not_found", "holds no model").await;
    check(&models().join("nowhere"), "artifact_missing", "nowhere").await;
    let mut settings = config(&models().join("pick"));
    settings.digest = Some(format!("sha256:{}", "0".repeat(64)));
    let error = Server::start(settings).await.end().await.unwrap_err();
    assert_eq!(error.code(), "checksum_mismatch", "{error}");
    let mut settings = config(&models().join("pick"));
    settings.source = None;
    let error = Server::start(settings).await.end().await.unwrap_err();
    assert!(error.to_string().contains("modelway serve ./model.onnx"), "{error}");
}

#[tokio::test]
async fn the_first_place_that_exists_is_served() {
    let mut settings = config(&models().join("nowhere"));
    settings.model_uri = vec![format!("file://{}", models().join("pick").display())];
    let server = Server::ready(settings).await;
    assert_eq!(server.get("/v2/models/pick").await.0, 200);
}

#[tokio::test]
async fn it_listens_on_a_unix_socket_and_takes_over_a_dead_servers() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("replica.sock");
    // What a server that was killed leaves behind.
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    let mut settings = config(&models().join("pick"));
    settings.socket = Some(socket.clone());
    let listener = Listener::bind(&settings).await.unwrap();
    assert!(Listener::bind(&settings).await.is_err(), "a living server's socket is not taken");
    // Longer than anybody would wait, and nobody must.
    settings.drain_ms = 3_600_000;
    let (tasks, hurry) = (base::Tasks::new(), base::Tasks::new());
    let running = tasks.spawn(modelserver::run(settings, listener, tasks.clone(), hurry.clone(), |_| {}));
    let asked = async {
        loop {
            let mut stream = UnixStream::connect(&socket).await.unwrap();
            let request = b"GET /v2/health/ready HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
            stream.write_all(request).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            if answer.starts_with("HTTP/1.1 200") {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, asked).await.expect("ready in time");
    tasks.stop();
    hurry.stop();
    tokio::time::timeout(PATIENCE, running).await.expect("it does not drain").unwrap().unwrap();
    assert!(!socket.exists(), "it leaves no file behind");
}

#[tokio::test]
async fn a_name_for_a_folder_of_many_models_is_refused_and_for_a_folder_of_one_is_taken() {
    let mut settings = config(&models().join("many"));
    settings.model_name = Some("md-7".into());
    let error = Server::start(settings).await.end().await.unwrap_err();
    assert!(error.to_string().contains("a folder of 2 models (adder, picker)"), "{error}");
    let folder = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(models().join("versions"), folder.path().join("adder")).unwrap();
    let mut settings = config(folder.path());
    settings.model_name = Some("md-7".into());
    settings.model_version = Some("9".into());
    let server = Server::ready(settings).await;
    assert_eq!(server.get("/v2/models/md-7").await.1["versions"], json!(["9"]));
}
