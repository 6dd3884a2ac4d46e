//! ONNX models that try a server: one that crashes in native code, and one that asks for more memory than there is.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, also in its helpers")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use futures::future::join_all;
use modelway_e2e::{Answer, Modelway, Role, free_port, python, until, until_some};
use reqwest::Method;
use serde_json::{Value, json};

/// Makes the models of `models/native.py`.
fn make(folder: &Path) {
    make_those(folder, &[]);
}

fn make_those(folder: &Path, which: &[&str]) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models/native.py");
    let made = Command::new(python()).arg(script).arg(folder).args(which).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}

/// The library of the Python that makes the models.
fn library() -> PathBuf {
    let lib = python().parent().unwrap().with_file_name("lib");
    let mut versions = fs::read_dir(lib).unwrap().map(|entry| entry.unwrap().path());
    let packages = versions.find_map(|version| {
        let packages = version.join("site-packages/onnxruntime/capi");
        packages.is_dir().then_some(packages)
    });
    packages.expect("the Python has the package onnxruntime")
}

/// A Modelway whose servers keep what they learn in a folder of its own.
fn modelway(root: &Path) -> Modelway {
    let mut modelway = Modelway::new();
    modelway.set("MODELWAY__SERVE__ONNXRUNTIME", library().to_str().unwrap());
    modelway.set("MODELWAY__SERVE__PYTHON_DIR", root.join("kept").to_str().unwrap());
    modelway
}

/// So many steps for `trimmed`, of which more than three crash the runtime, and for `shortened`, of which less do.
fn trimmed(steps: usize) -> Value {
    json!({"inputs": [{"name": "x", "shape": [steps, 1, 3], "datatype": "FP32", "data": vec![0.5; 3 * steps]}]})
}

/// Three steps for `sliced`, of which those before `start` are left out: with 3 the runtime crashes.
fn steps(start: i64) -> Value {
    json!({"inputs": [
        {"name": "x", "shape": [3, 1, 3], "datatype": "FP32", "data": vec![0.5; 9]},
        {"name": "start", "shape": [1], "datatype": "INT64", "data": [start]},
    ]})
}

fn size(size: i64) -> Value {
    json!({"inputs": [{"name": "size", "shape": [1], "datatype": "INT64", "data": [size]}]})
}

/// Why a model runs in a process of its own: it has crashed, or its graph says that it may.
const CRASHED: &str = "it ended its process with SIG";
const MAY_CRASH: &str = "the values or sizes of its inputs decide a size in its GRU";

/// `modelway serve` with a repository, and its log.
struct Serve {
    url: String,
    child: Child,
    log: PathBuf,
}

impl Serve {
    /// Starts it, with an `ulimit -S -d` of so many KiB if there is one, and waits until it is ready.
    async fn ready(modelway: &Modelway, repository: &Path, limit: Option<u64>) -> Self {
        let (port, log) = (free_port(), repository.with_file_name("serve.log"));
        let serve = modelway.command(&["serve", repository.to_str().unwrap(), "--port", &port.to_string()]);
        let limit = limit.map_or_else(String::new, |limit| format!("ulimit -S -d {limit}; "));
        let mut command = Command::new("sh");
        command.arg("-c").arg(limit + "exec \"$@\"").arg("sh").arg(serve.get_program()).args(serve.get_args());
        for (name, value) in serve.get_envs() {
            command.env(name, value.unwrap());
        }
        let file = fs::File::create(&log).unwrap();
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(file).spawn().unwrap();
        let serve = Self { url: format!("http://127.0.0.1:{port}"), child, log };
        serve.until_ready().await;
        serve
    }

    async fn until_ready(&self) {
        let ready = format!("{}/v2/health/ready", self.url);
        let client = modelway_e2e::client();
        until("it is ready", || async { client.get(&ready).send().await.is_ok_and(|answer| answer.status() == 200) })
            .await;
    }

    /// Which models run in a process of their own for a reason that begins so, as the index says.
    async fn apart(&self, modelway: &Modelway, why: &str) -> Vec<String> {
        let index = modelway.ask(Method::POST, &format!("{}/v2/repository/index", self.url), json!({})).await.body;
        let apart = |entry: &&Value| {
            assert_eq!(entry["state"], "READY", "{index}");
            entry["reason"].as_str().unwrap().contains(&format!("in a process of its own: {why}"))
        };
        let entries = index.as_array().unwrap().iter().filter(apart);
        entries.map(|entry| entry["name"].as_str().unwrap().to_owned()).collect()
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    async fn infer(&self, modelway: &Modelway, model: &str, body: Value) -> Answer {
        modelway.ask(Method::POST, &format!("{}/v2/models/{model}/infer", self.url), body).await
    }
}

impl Drop for Serve {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn the_first_request_whose_values_end_the_runtime_inside_the_model_ends_no_server() {
    let root = tempfile::tempdir().unwrap();
    let repository = root.path().join("models");
    make(&repository);
    let modelway = modelway(root.path());
    let mut serve = Serve::ready(&modelway, &repository, None).await;
    let said = format!("sliced/1/model.onnx: served in a process of its own: {MAY_CRASH}");
    assert!(serve.log().contains(&said), "{}", serve.log());
    assert_eq!(serve.apart(&modelway, "").await, ["sliced"]);
    assert_eq!(serve.apart(&modelway, MAY_CRASH).await, ["sliced"]);
    let others = async {
        for _ in 0..20 {
            assert_eq!(serve.infer(&modelway, "trimmed", trimmed(1)).await.status, 200);
            assert_eq!(serve.infer(&modelway, "sized", size(3)).await.status, 200);
        }
    };
    let fatal = async {
        for _ in 0..2 {
            let crashed = serve.infer(&modelway, "sliced", steps(3)).await;
            assert_eq!(crashed.status, 400, "{crashed:#?}");
            let said = crashed.body["error"].as_str().unwrap();
            assert!(said.contains("ONNX Runtime itself was ended by SIG"), "{said}");
            assert!(said.contains("(`x` [3, 1, 3], `start` [1])"), "{said}");
            assert_eq!(serve.infer(&modelway, "sliced", steps(2)).await.status, 200);
        }
    };
    tokio::join!(others, fatal);
    assert!(serve.child.try_wait().unwrap().is_none(), "it is the same process");
    assert!(!root.path().join("kept/onnx/crashes").exists(), "no model has ended the server");
    // A load request puts it there again.
    let url = format!("{}/v2/repository/models/sliced/load", serve.url);
    let loaded = modelway.ask(Method::POST, &url, json!({})).await;
    assert_eq!(loaded.status, 200, "{loaded:#?}");
    assert_eq!(serve.apart(&modelway, MAY_CRASH).await, ["sliced"]);
}

#[tokio::test]
async fn inputs_too_small_for_the_inside_of_a_model_are_refused_and_end_no_server() {
    let root = tempfile::tempdir().unwrap();
    let repository = root.path().join("models");
    make(&repository);
    let modelway = modelway(root.path());
    for _ in 0..2 {
        let mut serve = Serve::ready(&modelway, &repository, None).await;
        for steps in [9, 2, 3, 1, 5, 2, 4] {
            let answer = serve.infer(&modelway, "shortened", trimmed(steps)).await;
            assert_eq!(answer.status, if steps > 2 { 200 } else { 400 }, "{steps}: {answer:#?}");
            if steps <= 2 {
                let said = answer.body["error"].as_str().unwrap();
                assert!(said.contains("cannot be run with `x` ["), "{said}");
                assert!(said.contains("ONNX Runtime itself was ended by SIG"), "{said}");
            }
        }
        assert!(serve.child.try_wait().unwrap().is_none(), "it is the same process");
        assert!(!root.path().join("kept/onnx/crashes").exists(), "no model has ended the server");
        assert!(!serve.apart(&modelway, "").await.contains(&"shortened".to_owned()));
    }
}

#[tokio::test]
async fn a_server_that_a_model_ends_starts_again_and_the_model_runs_apart_and_costs_nobody_else_anything() {
    let root = tempfile::tempdir().unwrap();
    let repository = root.path().join("models");
    make(&repository);
    let modelway = modelway(root.path());
    let mut serve = Serve::ready(&modelway, &repository, None).await;
    assert_eq!(serve.infer(&modelway, "trimmed", trimmed(1)).await.status, 200);
    assert!(serve.apart(&modelway, CRASHED).await.is_empty(), "{}", serve.log());

    let url = format!("{}/v2/models/trimmed/infer", serve.url);
    let sent = modelway_e2e::client().post(url).json(&trimmed(4)).send().await;
    assert!(sent.is_err(), "the server ended: {sent:?}");
    serve.until_ready().await;
    assert!(serve.child.try_wait().unwrap().is_none(), "it is the same process");
    assert!(serve.log().contains("served in a process of its own: it ended its process with SIG"), "{}", serve.log());
    assert_eq!(serve.apart(&modelway, CRASHED).await, ["trimmed"]);
    for _ in 0..2 {
        let crashed = serve.infer(&modelway, "trimmed", trimmed(4)).await;
        assert_eq!(crashed.status, 400, "{crashed:#?}");
        assert!(
            crashed.body["error"].as_str().unwrap().contains("ONNX Runtime itself was ended by SIG"),
            "{crashed:#?}"
        );
        assert_eq!(serve.infer(&modelway, "sized", size(3)).await.status, 200);
        assert_eq!(serve.infer(&modelway, "trimmed", trimmed(1)).await.status, 200);
    }
}

#[tokio::test]
async fn a_model_that_crashes_as_it_is_loaded_ends_no_server() {
    let root = tempfile::tempdir().unwrap();
    let repository = root.path().join("models");
    make(&repository);
    let modelway = modelway(root.path());
    let serve = Serve::ready(&modelway, &repository, None).await;
    make_those(&repository, &["warmed"]);
    let done = std::cell::Cell::new(false);
    let load = async {
        let url = format!("{}/v2/repository/models/warmed/load", serve.url);
        let loaded = modelway.ask(Method::POST, &url, json!({})).await;
        done.set(true);
        loaded
    };
    let meanwhile = async {
        while !done.get() {
            assert_eq!(serve.infer(&modelway, "sized", size(3)).await.status, 200);
        }
    };
    let (loaded, ()) = tokio::join!(load, meanwhile);
    assert_eq!(loaded.status, 200, "{loaded:#?}");
    assert_eq!(serve.apart(&modelway, CRASHED).await, ["warmed"]);
    assert_eq!(serve.infer(&modelway, "sized", size(3)).await.status, 200);
    drop(serve);

    for noted in [true, false] {
        if !noted {
            fs::remove_file(root.path().join("kept/onnx/crashes")).unwrap();
        }
        let serve = Serve::ready(&modelway, &repository, None).await;
        until_some("all are served", || async { (serve.apart(&modelway, CRASHED).await == ["warmed"]).then_some(()) })
            .await;
        assert_eq!(serve.log().matches("loading; the status is").count(), if noted { 1 } else { 2 }, "{}", serve.log());
    }
}

/// The processes of which `parent` is the parent and nobody has waited for.
fn zombies(parent: u32) -> Vec<String> {
    let stats =
        fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| fs::read_to_string(entry.path().join("stat")).ok());
    stats.filter(|stat| stat.rsplit(')').next().unwrap().trim_start().starts_with(&format!("Z {parent} "))).collect()
}

#[tokio::test]
async fn a_server_that_starts_again_leaves_no_zombie_and_may_allocate_as_much_as_before() {
    let root = tempfile::tempdir().unwrap();
    let repository = root.path().join("models");
    make(&repository);
    let mut modelway = modelway(root.path());
    modelway.set("MODELWAY__SERVE__PYTHON", python().to_str().unwrap());
    fs::rename(modelway.models().doubling("doubling"), repository.join("doubling")).unwrap();
    let serve = Serve::ready(&modelway, &repository, None).await;
    let limit = || {
        let limits = fs::read_to_string(format!("/proc/{}/limits", serve.child.id())).unwrap();
        kib(&limits, "Max data size")
    };
    let before = limit();
    let url = format!("{}/v2/models/trimmed/infer", serve.url);
    assert!(modelway_e2e::client().post(url).json(&trimmed(4)).send().await.is_err(), "the server ended");
    serve.until_ready().await;
    assert_eq!(serve.apart(&modelway, CRASHED).await, ["trimmed"]);
    assert!(limit() >= before / 100 * 98, "{} after {before}", limit());
    until("its former processes are gone", || async { zombies(serve.child.id()).is_empty() }).await;
    assert!(zombies(serve.child.id()).is_empty());
}

#[tokio::test]
async fn memory_that_one_model_has_used_is_there_for_the_next() {
    let root = tempfile::tempdir().unwrap();
    let repository = root.path().join("models");
    make(&repository);
    let of_size = |name: &str| repository.join(name).join("1");
    fs::create_dir_all(of_size("another")).unwrap();
    fs::copy(of_size("sized").join("model.onnx"), of_size("another").join("model.onnx")).unwrap();
    let modelway = modelway(root.path());
    let serve = Serve::ready(&modelway, &repository, Some(1 << 20)).await;
    for model in ["sized", "another", "sized"] {
        // More than half of what there is.
        let answer = serve.infer(&modelway, model, size(150 << 20)).await;
        assert_eq!(answer.status, 200, "{model}: {answer:#?}");
    }
}

#[tokio::test]
async fn a_deployed_model_that_ends_its_replica_comes_back_and_stays() {
    let root = tempfile::tempdir().unwrap();
    make(root.path());
    let mut modelway = modelway(root.path());
    modelway.start(Role::Up).await;
    let id = modelway.deploy("trimmed", &root.path().join("trimmed"), 1).await;
    let other = modelway.deploy("sized", &root.path().join("sized"), 1).await;
    modelway.until_active(id).await;
    modelway.until_active(other).await;
    let (url, other) = (modelway.infer_url("trimmed"), modelway.infer_url("sized"));
    until("both predict", || async {
        modelway.ask(Method::POST, &url, trimmed(1)).await.status == 200
            && modelway.ask(Method::POST, &other, size(3)).await.status == 200
    })
    .await;
    let before = modelway.replica_pids();

    let crashed = modelway.ask(Method::POST, &url, trimmed(4)).await;
    assert!(crashed.status.is_server_error(), "{crashed:#?}");
    until_some("another replica predicts", || async {
        let pids = modelway.replica_pids();
        let answered = modelway.ask(Method::POST, &url, trimmed(1)).await.status == 200;
        (answered && pids.len() == 2 && pids != before).then_some(())
    })
    .await;

    let after = modelway.replica_pids();
    let crashed = modelway.ask(Method::POST, &url, trimmed(4)).await;
    assert!(crashed.body.to_string().contains("in a process of its own"), "{crashed:#?}");
    assert_eq!(modelway.ask(Method::POST, &url, trimmed(1)).await.status, 200);
    assert_eq!(modelway.ask(Method::POST, &other, size(3)).await.status, 200);
    assert_eq!(modelway.replica_pids(), after, "no replica has ended again");
}

/// The value in KiB of a line of a file in /proc.
fn kib(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_server_of_onnx_models_may_not_allocate_all_memory() {
    let root = tempfile::tempdir().unwrap();
    let repository = root.path().join("models");
    make(&repository);
    let modelway = modelway(root.path());
    let serve = Serve::ready(&modelway, &repository, None).await;
    let of_process = |file: &str| fs::read_to_string(format!("/proc/{}/{file}", serve.child.id())).unwrap();
    let limit = kib(&of_process("limits"), "Max data size") / 1024;
    let total = kib(&fs::read_to_string("/proc/meminfo").unwrap(), "MemTotal:");
    // What is only reserved is on top of the nine tenths.
    let reserved = kib(&of_process("status"), "VmData:");
    assert!(limit <= total / 10 * 9 + reserved, "{limit} KiB of {total} KiB");
    assert!(limit > total / 2 || Path::new("/sys/fs/cgroup/memory.max").exists(), "{limit} KiB of {total} KiB");
}

#[tokio::test]
async fn runs_that_want_more_memory_than_there_is_fail_by_themselves() {
    let root = tempfile::tempdir().unwrap();
    let repository = root.path().join("models");
    make(&repository);
    let modelway = modelway(root.path());
    let serve = Serve::ready(&modelway, &repository, Some(2 << 20)).await;
    for round in 0..3 {
        let greedy = (0..8).map(|place| serve.infer(&modelway, "sized", size((1 << 26) << ((place + round) % 8))));
        let modest = (0..8).map(|_| serve.infer(&modelway, "trimmed", trimmed(1)));
        let (greedy, modest) = tokio::join!(join_all(greedy), join_all(modest));
        for answer in &modest {
            assert_eq!(answer.status, 200, "{answer:#?}");
        }
        let refused: Vec<_> = greedy.iter().filter(|answer| answer.status != 200).collect();
        assert!(refused.len() >= 5, "{greedy:#?}");
        for answer in refused {
            assert_eq!(answer.status, 400, "{answer:#?}");
            let said = answer.body["error"].as_str().unwrap();
            assert!(said.contains("more memory in its Expand than there is"), "{said}");
        }
    }
}
