//! Requests that meet at one model: joined or not, each gets its own answer, in its turn and its time.

use base::Tasks;
use serde_json::{Value, json};

use crate::support::{PATIENCE, Server, UnderWay, client, config, models, refused};

/// More rounds than any test waits for.
const ENDLESS: i64 = 1_000_000_000;

/// A request to the model that doubles its numbers after as many rounds of work.
fn patient(rounds: &[i64]) -> Value {
    json!({"inputs": [{"name": "rounds", "shape": [rounds.len()], "datatype": "INT64", "data": rounds}]})
}

/// A server of that model, busy with a run that does not end by itself.
struct Busy {
    server: Server,
    tasks: Tasks,
    run: UnderWay,
}

impl Busy {
    async fn start(change: impl FnOnce(&mut modelserver::Config)) -> Self {
        let mut settings = config(&models().join("patient"));
        change(&mut settings);
        let server = Server::ready(settings).await;
        let tasks = Tasks::new();
        let run = send(&client(), &server, &tasks, &patient(&[ENDLESS]));
        taken(&server).await;
        Self { server, tasks, run }
    }

    fn send(&self, body: &Value) -> UnderWay {
        send(&client(), &self.server, &self.tasks, body)
    }

    /// Waits until so many requests wait.
    async fn waits(&self, count: usize) {
        waits(&self.server, count).await;
    }
}

fn send(client: &reqwest::Client, server: &Server, tasks: &Tasks, body: &Value) -> UnderWay {
    let url = format!("{}/v2/models/patient/infer", server.url);
    UnderWay::send(tasks, client.post(url).body(body.to_string()).send())
}

/// Waits until the model runs an endless request: then another one has to wait.
async fn taken(server: &Server) {
    let mut body = patient(&[1]);
    body["parameters"] = json!({"timeout": 20_000});
    let busy = async { while server.post("/v2/models/patient/infer", &body).await.0 != 503 {} };
    tokio::time::timeout(PATIENCE, busy).await.expect("the model is busy");
    waits(server, 0).await;
}

async fn metric(server: &Server, line: &str) -> String {
    let text = server.text("/metrics").await;
    let value = text.lines().find_map(|found| found.strip_prefix(line));
    value.unwrap_or_else(|| panic!("no {line} in {text}")).trim().to_owned()
}

async fn waits(server: &Server, count: usize) {
    let line = r#"model_queue_depth{model_name="patient",model_version="1"}"#;
    let there = async { while metric(server, line).await != count.to_string() {} };
    tokio::time::timeout(PATIENCE, there).await.unwrap_or_else(|_| panic!("{count} requests should wait"));
}

async fn doubled(under_way: UnderWay, rounds: &[i64]) {
    let answer = tokio::time::timeout(PATIENCE, under_way.answer()).await.expect("an answer in time");
    let answer: Value = answer.json().await.unwrap();
    let expected: Vec<_> = rounds.iter().map(|rounds| rounds * 2).collect();
    assert_eq!(answer["outputs"][0]["data"], json!(expected), "{answer}");
}

#[tokio::test]
async fn each_of_many_clients_gets_its_own_rows_back() {
    let server = Server::of("add").await;
    let tasks = Tasks::new();
    let clients: Vec<_> = (0..64u32)
        .map(|number| {
            let (client, url) = (client(), format!("{}/v2/models/add/infer", server.url));
            tasks.spawn(async move {
                let mut rows = 0;
                for round in 0..12 {
                    let count = [1, 1, 2, 1, 7, 1, 40, 1, 3, 1, 1, 90][(round + number as usize) % 12];
                    let mine = f64::from(number * 1000);
                    let a: Vec<f64> = (0..count).map(|row| mine + f64::from(row)).collect();
                    let tensor =
                        |name: &str, data: &[f64]| json!({"name": name, "shape": [count], "datatype": "FP32", "data": data});
                    let mut body = json!({"inputs": [tensor("a", &a), tensor("b", &vec![0.5; a.len()])]});
                    let one_output = number % 3 == 0;
                    if one_output {
                        body["outputs"] = json!([{"name": "product"}]);
                    }
                    let answer = client.post(&url).body(body.to_string()).send().await.unwrap();
                    let answer: Value = answer.json().await.unwrap();
                    let outputs = answer["outputs"].as_array().unwrap_or_else(|| panic!("{answer}"));
                    assert_eq!(outputs.len(), if one_output { 1 } else { 2 });
                    for output in outputs {
                        let of_row = |a: &f64| if output["name"] == "sum" { a + 0.5 } else { a * 0.5 };
                        let expected: Vec<f64> = a.iter().map(of_row).collect();
                        assert_eq!(output["shape"], json!([count]));
                        let got: Vec<f64> = serde_json::from_value(output["data"].clone()).unwrap();
                        assert_eq!(got, expected);
                    }
                    rows += count;
                }
                rows
            })
        })
        .collect();
    let mut rows = 0;
    for client in clients {
        rows += client.await.unwrap();
    }
    let labels = r#"{model_name="add",model_version="1"}"#;
    let sum: f64 = metric(&server, &format!("model_batch_size_sum{labels}")).await.parse().unwrap();
    assert_eq!(sum, f64::from(rows), "every row was run once");
}

#[tokio::test]
async fn what_came_while_the_model_ran_goes_next_as_one_run() {
    let busy = Busy::start(|_| ()).await;
    let line = r#"model_batch_size_count{model_name="patient",model_version="1"}"#;
    let before: u64 = metric(&busy.server, line).await.parse().unwrap();
    let waiting: Vec<_> = (1..=8).map(|number| (number, busy.send(&patient(&[number, 10 * number])))).collect();
    busy.waits(8).await;
    drop(busy.run);
    for (number, under_way) in waiting {
        doubled(under_way, &[number, 10 * number]).await;
    }
    let after: u64 = metric(&busy.server, line).await.parse().unwrap();
    // The one that was ended, and the eight; how many of them at first is for the batcher to find out.
    assert!(after - before < 8, "{after} runs after {before}");
}

#[tokio::test]
async fn a_request_that_the_model_refuses_does_not_spoil_those_beside_it() {
    let server = Server::of("pick").await;
    let tasks = Tasks::new();
    let url = format!("{}/v2/models/pick/infer", server.url);
    let send = |index: u64| {
        let body = json!({"inputs": [{"name": "index", "shape": [1], "datatype": "INT64", "data": [index]}]});
        UnderWay::send(&tasks, client().post(&url).body(body.to_string()).send())
    };
    let sent: Vec<_> = (0..60).map(|number| (number % 12, send(number % 12))).collect();
    for (index, under_way) in sent {
        let answer = under_way.answer().await;
        assert_eq!(answer.status().is_success(), index < 10, "{index}");
        let answer: Value = answer.json().await.unwrap();
        if index < 10 {
            assert_eq!(answer["outputs"][0]["data"][0].as_f64(), Some(f64::from(u32::try_from(index).unwrap())));
        }
    }
}

#[tokio::test]
async fn a_higher_priority_goes_first_and_one_that_there_is_not_is_the_default() {
    let busy = Busy::start(|config| {
        config.max_batch_size = 1;
        let overrides = modelserver::Overrides { priority_levels: Some(3), ..modelserver::Overrides::default() };
        config.models.insert("patient".to_owned(), overrides);
    })
    .await;
    let with = |rounds: i64, priority: u64| {
        let mut body = patient(&[rounds]);
        body["parameters"] = json!({"priority": priority});
        body
    };
    let _low = [3, 9, 0].map(|priority| busy.send(&with(ENDLESS, priority)));
    busy.waits(3).await;
    let middle = busy.send(&with(2, 2));
    let high = busy.send(&with(1, 1));
    busy.waits(5).await;
    drop(busy.run);
    doubled(high, &[1]).await;
    doubled(middle, &[2]).await;
}

#[tokio::test]
async fn a_caller_with_many_requests_lets_another_have_its_turn() {
    let busy = Busy::start(|config| config.max_batch_size = 1).await;
    let one_connection = base::client::builder().http2_prior_knowledge().build().unwrap();
    let many: Vec<_> = [1, ENDLESS, ENDLESS]
        .into_iter()
        .map(|rounds| send(&one_connection, &busy.server, &busy.tasks, &patient(&[rounds])))
        .collect();
    busy.waits(3).await;
    let other = busy.send(&patient(&[7]));
    busy.waits(4).await;
    drop(busy.run);
    doubled(other, &[7]).await;
    drop(many);
}

#[tokio::test]
async fn a_request_whose_time_is_over_before_its_turn_is_never_run() {
    let busy = Busy::start(|_| ()).await;
    let mut body = patient(&[ENDLESS]);
    body["parameters"] = json!({"timeout": 20_000});
    let said = refused(busy.server.post("/v2/models/patient/infer", &body).await, 503);
    assert!(said.contains("no answer within 20 ms"), "{said}");
    drop(busy.run);
    let next = send(&client(), &busy.server, &busy.tasks, &patient(&[3]));
    doubled(next, &[3]).await;
}

#[tokio::test]
async fn a_joined_run_goes_on_for_those_that_stay_and_ends_with_the_last_of_them() {
    let Busy { server, tasks, run } = Busy::start(|_| ()).await;
    // Long enough that one can leave meanwhile, short enough to end.
    let stays = send(&client(), &server, &tasks, &patient(&[50_000]));
    let leaves = send(&client(), &server, &tasks, &patient(&[50_000]));
    waits(&server, 2).await;
    drop(run);
    waits(&server, 0).await;
    drop(leaves);
    doubled(stays, &[50_000]).await;
    // Once all have left, the model is free at once.
    let run = send(&client(), &server, &tasks, &patient(&[ENDLESS]));
    taken(&server).await;
    let both = [(); 2].map(|()| send(&client(), &server, &tasks, &patient(&[ENDLESS])));
    waits(&server, 2).await;
    drop(run);
    waits(&server, 0).await;
    drop(both);
    let last = send(&client(), &server, &tasks, &patient(&[5]));
    doubled(last, &[5]).await;
}
