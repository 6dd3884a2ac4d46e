use std::{path::Path, time::Duration};

use serde_json::{Value, json};

use crate::support::{PATIENCE, Server, UnderWay, client, config, python, refused};

fn folder() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models/python")
}

pub(crate) fn settings(model: &str) -> modelserver::Config {
    let mut settings = config(&folder().join(format!("{model}.py")));
    settings.python = Some(python().display().to_string());
    settings
}

/// A request with one input of FP32.
fn one(shape: &[usize], data: Value) -> Value {
    json!({"inputs": [{"name": "x", "datatype": "FP32", "shape": shape, "data": data}]})
}

/// A request to the faulty model.
fn please(action: &str) -> Value {
    let mut body = one(&[1, 1], json!([1]));
    body["parameters"] = json!({"do": action});
    body
}

const FAULTY: &str = "/v2/models/faulty/infer";

async fn faulty() -> Server {
    Server::ready(settings("faulty")).await
}

/// The process that answers.
async fn pid(server: &Server) -> i64 {
    let (status, answer) = server.post(FAULTY, &please("good")).await;
    assert_eq!(status, 200, "{answer}");
    answer["outputs"][0]["data"][0].as_i64().unwrap()
}

#[tokio::test]
async fn a_model_of_arrays_predicts() {
    let server = Server::ready(settings("double")).await;
    let (status, answer) = server.post("/v2/models/double/infer", &one(&[2, 2], json!([1, 2, 3, 4.5]))).await;
    assert_eq!((status, &answer["outputs"][0]["data"]), (200, &json!([2.0, 4.0, 6.0, 9.0])), "{answer}");
}

#[tokio::test]
async fn what_a_model_raises_is_told_and_costs_only_its_request() {
    let server = faulty().await;
    let before = pid(&server).await;
    let told = async |action: &str, status: u16, words: &[&str]| {
        let said = refused(server.post(FAULTY, &please(action)).await, status);
        words.iter().for_each(|word| assert!(said.contains(word), "{action}: {said}"));
        assert!(!said.contains("faulty.py") && !said.contains("Traceback"), "{action}: {said}");
    };
    told("value_error", 500, &["the model failed: ValueError: not this"]).await;
    told("invalid", 400, &["x must be kind"]).await;
    told("unshowable", 500, &["Unshowable"]).await;
    told("keyboard", 500, &["KeyboardInterrupt"]).await;
    told("sys_exit", 500, &["SystemExit: bye"]).await;
    told("rows", 500, &["2 rows", "1"]).await;
    told("nothing", 500, &["output"]).await;
    told("ragged", 500, &["output"]).await;
    assert_eq!(pid(&server).await, before, "the worker lives");
}

#[tokio::test]
async fn callers_are_told_tracebacks_where_a_setting_says_so() {
    let mut settings = settings("faulty");
    settings.send_tracebacks = true;
    let server = Server::ready(settings).await;
    let told = async |action: &str, words: &[&str]| {
        let said = refused(server.post(FAULTY, &please(action)).await, 500);
        words.iter().for_each(|word| assert!(said.contains(word), "{action}: {said}"));
    };
    told("value_error", &["ValueError: not this", "faulty.py", "in value_error", "raise ValueError"]).await;
    told("keyboard", &["KeyboardInterrupt", "in keyboard"]).await;
    told("segfault", &["SIGSEGV", "segmentation fault", "in segfault"]).await;
}

#[tokio::test]
async fn a_worker_that_dies_says_how_and_the_next_request_has_another() {
    let server = faulty().await;
    for (action, words) in [
        ("segfault", &["SIGSEGV", "segmentation fault"][..]),
        ("exit", &["status 7"]),
        ("closed", &["the model's worker"]),
    ] {
        let before = pid(&server).await;
        let said = refused(server.post(FAULTY, &please(action)).await, 500);
        words.iter().for_each(|word| assert!(said.contains(word), "{action}: {said}"));
        assert_ne!(pid(&server).await, before, "{action}");
    }
}

#[tokio::test]
async fn a_run_that_nobody_waits_for_is_interrupted_or_its_worker_replaced() {
    let server = faulty().await;
    let before = pid(&server).await;
    let hang = async |action| {
        let mut body = please(action);
        body["parameters"]["timeout"] = json!(200_000);
        refused(server.post(FAULTY, &body).await, 503)
    };
    assert!(hang("loop").await.contains("within 200 ms"));
    assert_eq!(pid(&server).await, before, "what Python can interrupt is interrupted");
    assert!(hang("native_loop").await.contains("within 200 ms"));
    assert_ne!(pid(&server).await, before, "what it cannot is replaced");
}

#[tokio::test]
async fn garbage_on_standard_output_disturbs_nobody() {
    let server = faulty().await;
    let before = pid(&server).await;
    assert_eq!(server.post(FAULTY, &please("garbage")).await.0, 200);
    assert_eq!(pid(&server).await, before);
}

#[tokio::test]
async fn a_process_that_a_model_forks_does_not_answer_in_its_place() {
    let server = faulty().await;
    let before = pid(&server).await;
    for _ in 0..5 {
        let (status, answer) = server.post(FAULTY, &please("fork")).await;
        assert_eq!((status, answer["outputs"][0]["data"][0].as_i64()), (200, Some(before)), "{answer}");
        assert_eq!(pid(&server).await, before);
    }
}

#[tokio::test]
async fn memory_without_end_meets_a_bound_in_the_worker() {
    let mut settings = settings("faulty");
    settings.python_memory_limit_bytes = 1 << 30;
    let server = Server::ready(settings).await;
    let before = pid(&server).await;
    let said = refused(server.post(FAULTY, &please("allocate")).await, 500);
    assert!(said.contains("MemoryError"), "{said}");
    assert_ne!(pid(&server).await, before, "what it still holds may be a leak");
}

#[tokio::test]
async fn a_worker_that_is_killed_is_replaced_whether_it_works_or_not() {
    let server = faulty().await;
    let kill = |pid: i64| {
        let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    };
    let idle = pid(&server).await;
    kill(idle);
    let busy = pid(&server).await;
    assert_ne!(busy, idle);
    let url = format!("{}{FAULTY}", server.url);
    let others = base::Tasks::new();
    let under_way = UnderWay::send(&others, client().post(url).body(please("loop").to_string()).send());
    let spins = async {
        loop {
            let stat = std::fs::read_to_string(format!("/proc/{busy}/stat")).unwrap();
            if stat.rsplit_once(") ").unwrap().1.starts_with('R') {
                break;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, spins).await.expect("it works");
    kill(busy);
    let answer = under_way.answer().await;
    assert_eq!(answer.status(), 500);
    assert!(answer.text().await.unwrap().contains("SIGKILL"));
    assert_ne!(pid(&server).await, busy);
}

#[tokio::test]
async fn instances_are_processes_of_their_own() {
    let mut settings = settings("faulty");
    settings.instances = 2;
    let server = Server::ready(settings).await;
    let others = base::Tasks::new();
    let (client, url) = (client(), format!("{}{FAULTY}", server.url));
    let seen = async {
        let mut seen = std::collections::BTreeSet::new();
        while seen.len() < 2 {
            let two: Vec<_> = (0..2)
                .map(|_| UnderWay::send(&others, client.post(&url).body(please("slow").to_string()).send()))
                .collect();
            for answer in two {
                let answer: Value = answer.answer().await.json().await.unwrap();
                seen.insert(answer["outputs"][0]["data"][0].as_i64().unwrap());
            }
        }
    };
    tokio::time::timeout(PATIENCE, seen).await.expect("both work");
}

#[tokio::test]
async fn an_instance_that_is_down_or_hangs_takes_nothing_from_its_healthy_sibling() {
    let flag = tempfile::NamedTempFile::new().unwrap();
    let source = tempfile::tempdir().unwrap();
    let text = std::fs::read_to_string(folder().join("faulty.py")).unwrap();
    // The second process on cannot be loaded any more while the file is there.
    let slow = format!(
        "import os, time\nwhile os.path.exists({:?}) and os.path.getsize({0:?}): time.sleep(0.05)\n{text}",
        flag.path()
    );
    std::fs::write(source.path().join("model.py"), slow).unwrap();
    let mut settings = config(source.path());
    settings.python = Some(python().display().to_string());
    settings.model_name = Some("faulty".to_owned());
    settings.instances = 2;
    let server = Server::ready(settings).await;
    std::fs::write(flag.path(), "wait").unwrap();
    assert_eq!(server.post(FAULTY, &please("exit")).await.0, 500, "its own request");
    for _ in 0..10 {
        let answer = tokio::time::timeout(PATIENCE, server.post(FAULTY, &please("slow"))).await.expect("in time");
        assert_eq!(answer.0, 200, "{answer:?}");
    }
    assert_eq!(server.get("/v2/health/ready").await.0, 200);
    // Now there is none.
    assert_eq!(server.post(FAULTY, &please("exit")).await.0, 500);
    let said = refused(server.get("/v2/models/faulty/ready").await, 503);
    assert!(said.contains("`faulty`") && said.contains("restarted"), "{said}");
    assert_eq!(server.get("/v2/health/ready").await.0, 503);
    assert_eq!(server.post(FAULTY, &please("good")).await.0, 503);
    std::fs::write(flag.path(), "").unwrap();
    let back = async { while server.get("/v2/health/ready").await.0 != 200 {} };
    tokio::time::timeout(PATIENCE, back).await.expect("it comes back");
    pid(&server).await;
    let others = base::Tasks::new();
    let url = format!("{}{FAULTY}", server.url);
    let _hangs = UnderWay::send(&others, client().post(url).body(please("loop").to_string()).send());
    for _ in 0..10 {
        pid(&server).await;
    }
}

#[tokio::test]
async fn other_models_are_undisturbed_by_one_that_dies() {
    let models = tempfile::tempdir().unwrap();
    for model in ["faulty", "double"] {
        let version = models.path().join(model).join("1");
        std::fs::create_dir_all(&version).unwrap();
        std::fs::copy(folder().join(format!("{model}.py")), version.join("model.py")).unwrap();
    }
    let mut settings = config(models.path());
    settings.python = Some(python().display().to_string());
    let server = Server::ready(settings).await;
    let others = base::Tasks::new();
    let (client, url) = (client(), server.url.clone());
    let faults = others.spawn(async move {
        for action in ["segfault", "garbage", "exit", "value_error", "segfault"] {
            let post = client.post(format!("{url}{FAULTY}")).body(please(action).to_string());
            let _ = post.send().await;
        }
    });
    let mut answered = 0;
    while !faults.is_finished() || answered < 20 {
        let body = one(&[1, 2], json!([1, 2]));
        let answer = server.post("/v2/models/double/infer", &body);
        let answer = tokio::time::timeout(Duration::from_secs(10), answer).await.expect("in time");
        assert_eq!((answer.0, &answer.1["outputs"][0]["data"]), (200, &json!([2.0, 4.0])), "{}", answer.1);
        answered += 1;
    }
}

#[tokio::test]
async fn wrong_hints_are_told_before_the_environment_is_built() {
    let cache = tempfile::tempdir().unwrap();
    let fails = async |class: &str| {
        let source = tempfile::tempdir().unwrap();
        std::fs::write(source.path().join("requirements.txt"), "torch\n").unwrap();
        let head = "import torch\nfrom modelway import AbstractModel\n\n";
        std::fs::write(source.path().join("model.py"), format!("{head}{class}")).unwrap();
        let mut settings = config(source.path());
        settings.python_dir = cache.path().to_owned();
        // Whoever comes as far as to build an environment finds nothing to build it with.
        settings.uv = Some("/nowhere/uv".into());
        Server::start(settings).await.end().await.unwrap_err()
    };
    let wrong = "class M(AbstractModel):\n    def predict(self, x: torch.Tensor) -> float: ...\n";
    let error = fails(wrong).await;
    let said = error.to_string();
    assert!(error.is_permanent() && said.contains("`x: Tensor`") && said.contains("torch.from_numpy"), "{said}");
    let right = "class M(AbstractModel):\n    def predict(self, x: list[list[float]]) -> list[float]: ...\n";
    assert!(fails(right).await.to_string().contains("/nowhere/uv"));
    // What only the worker can know does not stop the build.
    let unknown = "from helper import X\nclass M(AbstractModel):\n    def predict(self, x: X) -> float: ...\n";
    assert!(fails(unknown).await.to_string().contains("/nowhere/uv"));
}

#[tokio::test]
async fn a_list_for_each_row_is_an_input() {
    let source = tempfile::tempdir().unwrap();
    let class = "from modelway import AbstractModel\n\nclass M(AbstractModel):\n    \
        def predict(self, x: list[list[float]], names: list[list[str]]) -> list[str]:\n        \
        return [','.join(n) + str(sum(row)) for row, n in zip(x, names)]\n";
    std::fs::write(source.path().join("model.py"), class).unwrap();
    let mut settings = config(source.path());
    settings.python = Some(python().display().to_string());
    settings.model_name = Some("lists".to_owned());
    let server = Server::ready(settings).await;
    let (_, described) = server.get("/v2/models/lists").await;
    assert_eq!(described["inputs"][0], json!({"name": "x", "datatype": "FP64", "shape": [-1, -1]}));
    let body = json!({"instances": [{"x": [1, 2.5], "names": ["a", "b"]}, {"x": [3, 4], "names": ["c", "d"]}]});
    let (status, answer) = server.post("/v1/models/lists:predict", &body).await;
    assert_eq!((status, &answer["predictions"]), (200, &json!(["a,b3.5", "c,d7.0"])), "{answer}");
    let ragged = json!({"instances": [{"x": [1], "names": ["a"]}, {"x": [3, 4], "names": ["c"]}]});
    assert!(refused(server.post("/v1/models/lists:predict", &ragged).await, 400).contains("not alike"));
}
