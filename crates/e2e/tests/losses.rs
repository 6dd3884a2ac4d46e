//! Requests that a replica or an end costs are told where a user looks: in the deployment's events.

use std::{fs, path::PathBuf};

use modelway_e2e::{Load, Modelway, Role, kill, until, until_some};
use reqwest::Method;
use rustix::process::Signal;
use serde_json::{Value, json};

/// Notes its process when it is to sleep for long, and sleeps.
const SLEEPS: &str = "\
import os, time
from modelway import AbstractModel
class Model(AbstractModel):
    batch = False
    def predict(self, seconds: float) -> float:
        if seconds > 5:  # None of those that the server tries by itself.
            with open('NOTES', 'a') as notes:
                notes.write(f'{os.getpid()}\\n')
            time.sleep(seconds)
        return seconds
";

/// Says something twice a second, for as long as it is asked to.
const STREAMS: &str = "\
import time
from modelway import AbstractModel
class Model(AbstractModel):
    def predict(self, text: str, *, pieces: int = 3) -> str:
        for piece in range(pieces):
            time.sleep(0.5)
            yield f'{text} {piece}'
";

async fn up() -> Modelway {
    let mut modelway = Modelway::new();
    modelway.set("MODELWAY__SERVE__PYTHON", modelway_e2e::python().to_str().expect("UTF-8"));
    modelway.start(Role::Up).await;
    modelway
}

/// Deploys a class, and gives the file of its notes.
fn deploy(modelway: &Modelway, name: &str, class: &str, more: &[&str]) -> PathBuf {
    let folder = modelway.data_dir().with_file_name(name);
    fs::create_dir_all(&folder).expect("a folder");
    let notes = folder.with_extension("notes");
    fs::write(folder.join("model.py"), class.replace("NOTES", notes.to_str().expect("UTF-8"))).expect("written");
    modelway.succeed(&[&["deploy", folder.to_str().expect("UTF-8"), "--name", name], more].concat());
    notes
}

async fn events(modelway: &Modelway, kind: &str) -> Vec<Value> {
    let answer = modelway.ask(Method::GET, &modelway.control("/v1/events?limit=1000"), Value::Null).await;
    let items = answer.body["items"].as_array().expect("a list").clone();
    items.into_iter().filter(|event| event["kind"] == kind).collect()
}

/// The replica's process that a process of a model belongs to.
fn replica_of(modelway: &Modelway, mut pid: u32) -> Option<u32> {
    let replicas = modelway.replica_pids();
    while pid > 1 && !replicas.contains(&pid) {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        pid = status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse().ok()?;
    }
    Some(pid).filter(|pid| *pid > 1)
}

#[tokio::test]
async fn a_request_that_two_replicas_died_of_is_an_event_with_its_id_and_their_names() {
    let modelway = up().await;
    let notes = deploy(&modelway, "fatal", SLEEPS, &["--replicas", "2", "--timeout", "5m"]);
    let url = modelway.gateway("/v1/models/fatal:predict");
    let id = [("x-request-id", "the-guilty-one")];
    let asking = modelway.ask_with(Method::POST, &url, json!({"instances": [60]}), &id);
    let killing = async {
        for turn in 0..2 {
            let begun = until_some("the request is begun", || async {
                fs::read_to_string(&notes).ok()?.lines().nth(turn)?.parse().ok()
            });
            kill(replica_of(&modelway, begun.await).expect("it runs in a replica"), Signal::KILL);
        }
    };
    let (answer, ()) = tokio::join!(asking, killing);
    assert_eq!(answer.status, 502, "{answer:?}");
    until("both deaths are told", || async { events(&modelway, "requests_lost").await.len() == 2 }).await;
    let told = events(&modelway, "requests_lost").await;
    let replicas = |event: &Value| event["evidence"]["replica"].as_str().unwrap().to_owned();
    assert_ne!(replicas(&told[0]), replicas(&told[1]));
    for event in &told {
        assert_eq!(
            (&event["actor"], &event["evidence"]["request_ids"]),
            (&json!("gateway"), &json!(["the-guilty-one"]))
        );
    }
    let said = modelway.succeed(&["events", "fatal"]);
    for words in ["md-1-r1-0", "md-1-r1-1", "the-guilty-one", "may have crashed both"] {
        assert!(said.contains(words), "{words} is not in {said}");
    }
}

#[tokio::test]
async fn what_a_drain_cuts_off_is_an_event_and_a_short_end_waits_for_long_requests() {
    let mut modelway = up().await;
    deploy(&modelway, "talks", STREAMS, &["--timeout", "1s"]);
    let notes = deploy(&modelway, "sleeps", SLEEPS, &["--timeout", "1m"]);
    let url = modelway.gateway("/v2/models/talks/generate_stream");
    let body = json!({"text": "x", "pieces": 100});
    let begun = reqwest::Client::new().post(&url).json(&body).send().await.unwrap();
    assert_eq!(begun.status(), 200);
    let id = begun.headers()["x-request-id"].to_str().unwrap().to_owned();
    modelway.succeed(&["scale", "talks", "0"]);
    assert!(begun.bytes().await.is_err(), "it is cut off");
    until("that is told", || async { !events(&modelway, "drain_cut").await.is_empty() }).await;
    let told = events(&modelway, "drain_cut").await.remove(0);
    assert_eq!(told["evidence"]["requests"], 1);
    assert_eq!(told["evidence"]["request_ids"], json!([id]));
    assert_eq!(told["evidence"]["replica"], "md-1-r1-0");

    // Longer than the end of `up` may take without requests.
    let url = modelway.gateway("/v1/models/sleeps:predict");
    let asking = reqwest::Client::new().post(url).json(&json!({"instances": [7]})).send();
    let ending = async {
        until("it is begun", || async { notes.exists() }).await;
        modelway.stop(Role::Up).await
    };
    let (answer, ended) = tokio::join!(asking, ending);
    assert_eq!((answer.unwrap().status().as_u16(), ended.success()), (200, true));
    assert!(modelway.log_of(Role::Up).contains("requests are in flight"), "{}", modelway.log_of(Role::Up));
    assert_eq!(modelway.replica_pids(), [0; 0]);
}

#[tokio::test]
async fn a_gateway_that_ends_under_load_closes_no_connection_that_a_request_is_coming_on() {
    let mut first = Modelway::apart().await;
    let mut second = Modelway::new();
    second.ports.control = first.ports.control;
    second.start(Role::Gateway).await;
    let id = first.deploy("iris", &first.models().iris("iris"), 1).await;
    first.until_active(id).await;
    for it in [&first, &second] {
        it.until_predicts("iris").await;
    }
    let load = Load::balanced(&[&first, &second].map(|it| it.infer_url("iris")), &first.iris_body(), 8);
    for _ in 0..5 {
        load.answers(100).await;
        assert!(first.stop(Role::Gateway).await.success());
        load.answers(100).await;
        first.start(Role::Gateway).await;
        first.until_predicts("iris").await;
    }
    load.stop().await.assert_flawless();
}
