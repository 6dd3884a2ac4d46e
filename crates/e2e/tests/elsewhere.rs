//! Revisions whose files are elsewhere, and change there: in a real S3, and on a web server with ETags.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, also in its helpers")]
#![allow(clippy::disallowed_methods, reason = "the web server ends with its test")]

use std::{
    fs,
    sync::{Arc, Mutex},
};

use axum::{Router, extract::State, http::header::ETAG, routing::get};
use modelway_e2e::{Modelway, Role, S3, kill, until};
use reqwest::Method;
use rustix::process::Signal;
use serde_json::{Value, json};

async fn read(modelway: &Modelway, path: &str) -> Value {
    modelway.ask(Method::GET, &modelway.control(&format!("/v1/modelDeployment/1{path}")), Value::Null).await.body
}

/// Whether the deployment takes rows of so many numbers.
async fn takes(modelway: &Modelway, width: u32) -> bool {
    let answer = modelway.ask(Method::GET, &modelway.gateway("/v2/models/model"), Value::Null).await;
    answer.status == 200 && answer.body["inputs"][0]["shape"] == json!([-1, width])
}

/// Deploys `address`, where iris is, and goes on after `change` has put digits there.
async fn follow(modelway: &Modelway, address: &str, change: impl FnOnce()) {
    let deploy = || modelway.succeed(&["deploy", address, "--name", "model"]);
    deploy();
    until("iris is served", || takes(modelway, 4)).await;
    let pin = read(modelway, "/revisions").await["items"][0]["pin"].clone();
    assert_eq!(pin["uri"], address, "{pin}");
    let digest = pin["digest"].as_str().unwrap().to_owned();
    let told = deploy();
    assert!(told.contains("revision 1") && told.contains("Nothing that runs has changed"), "{told}");

    change();
    let [first] = modelway.replica_pids()[..] else { panic!("one replica") };
    kill(first, Signal::KILL);
    modelway
        .until_deployment(1, "it is started again", |d| {
            d.status.state == api::State::Active && d.status.replica_status[0].restarts == 1
        })
        .await;
    until("the old files come from the cache", || takes(modelway, 4)).await;
    assert_eq!(read(modelway, "").await["digest"], digest);

    let [second] = modelway.replica_pids()[..] else { panic!("one replica") };
    fs::remove_dir_all(modelway.data_dir().with_file_name("cache").join("sha256")).unwrap();
    kill(second, Signal::KILL);
    let refused = modelway
        .until_deployment(1, "the changed files are refused", |d| {
            d.status.error.as_ref().is_some_and(|error| error.code == "artifact_changed")
        })
        .await;
    let said = refused.status.error.unwrap().message;
    for part in [address, "has changed", &digest] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let deployed = read(modelway, "").await;
    assert_eq!((&deployed["digest"], &deployed["revision"]), (&json!(digest), &json!(1)), "nothing else is served");

    let told = deploy();
    assert!(told.contains("is active: revision 2"), "{told}");
    until("digits is served", || takes(modelway, 64)).await;
    let revisions = read(modelway, "/revisions").await["items"].clone();
    assert_eq!((&revisions[0]["number"], &revisions[1]["pin"]["digest"]), (&json!(2), &json!(digest)));
    assert_ne!(revisions[0]["pin"]["digest"], digest);
    assert!(deploy().contains("Nothing that runs has changed"), "it is looked at again, and is the same");
}

#[tokio::test]
async fn an_object_that_changes_in_a_bucket_is_not_served_until_it_is_deployed_again() {
    let s3 = S3::start().await;
    let mut modelway = Modelway::new();
    s3.open_to(&mut modelway);
    modelway.start(Role::Up).await;
    let models = modelway.models();
    s3.put("model/v1", &models.iris("iris"));
    follow(&modelway, "s3://models/model/v1", || s3.put("model/v1", &models.digits("digits"))).await;
}

/// What the server holds: a file and its ETag.
type Page = Arc<Mutex<(Vec<u8>, &'static str)>>;

// The commands block one thread, and the web server answers on another.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_changes_on_a_web_server_is_not_served_until_it_is_deployed_again() {
    let modelway = Modelway::up().await;
    let models = modelway.models();
    let [iris, digits] =
        [models.iris("iris"), models.digits("digits")].map(|it| fs::read(it.join("model.onnx")).unwrap());
    let page: Page = Arc::new(Mutex::new((iris, "\"1\"")));
    let answer = |State(page): State<Page>| async move {
        let (file, tag) = page.lock().unwrap().clone();
        ([(ETAG, tag)], file)
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}/v1/model.onnx", listener.local_addr().unwrap());
    let router = Router::new().route("/v1/model.onnx", get(answer)).with_state(Arc::clone(&page));
    tokio::spawn(async move { axum::serve(listener, router).await });
    follow(&modelway, &address, || *page.lock().unwrap() = (digits, "\"2\"")).await;
}
