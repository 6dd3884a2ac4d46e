//! Python models with the real libraries, and each in the environment that it asks for.
//!
//! The environments are in the user's cache, as they are for a user, so that only the first run fetches packages.

use std::{
    f64::consts::FRAC_PI_2,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use modelserver::{Config, Overrides};
use serde_json::json;

use crate::support::{Server, config, python};

/// How long it may take to fetch the packages of an environment.
const FETCHING: Duration = Duration::from_secs(300);
/// Debian's, which has PyTorch without the libraries of a GPU.
const SYSTEM: &str = "/usr/bin/python3";

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// A copy of a sample model, trained by its own `train`.
fn trained(model: &str, interpreter: &Path) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join(model);
    fs::create_dir(&folder).unwrap();
    for file in fs::read_dir(repository().join("models").join(model)).unwrap().flatten() {
        if file.path().is_file() {
            fs::copy(file.path(), folder.join(file.file_name())).unwrap();
        }
    }
    let told = Command::new(interpreter)
        .args(["-m", "modelway", "train"])
        .arg(&folder)
        .env("PYTHONPATH", repository().join("python/src"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .output();
    let told = told.unwrap_or_else(|e| panic!("{}: {e}; `make setup` installs it", interpreter.display()));
    let words = String::from_utf8_lossy(&told.stderr);
    assert!(
        told.status.success(),
        "{model} cannot be trained with {}, see `make setup`: {words}",
        interpreter.display()
    );
    root
}

/// Settings whose environments are built by the `uv` that `make setup` installs.
fn settings(source: &Path) -> Config {
    Config { uv: Some(python().with_file_name("uv")), request_timeout_ms: 30_000, ..config(source) }
}

async fn ready(config: Config) -> Server {
    Server::ready_within(config, FETCHING).await
}

#[tokio::test]
async fn a_text_model_of_plain_python_answers_in_both_protocols() {
    let model = trained("sentiment", &python());
    let mut config = settings(&model.path().join("sentiment"));
    config.python = Some(python().display().to_string());
    let server = ready(config).await;
    let texts = json!({"instances": ["what a lovely day", "slow and awful"]});
    let (status, answer) = server.post("/v1/models/sentiment:predict", &texts).await;
    assert_eq!(status, 200, "{answer}");
    let labels: Vec<_> = answer["predictions"].as_array().unwrap().iter().map(|one| one["label"].clone()).collect();
    assert_eq!(labels, ["good", "bad"]);
    let asks = |parameters| {
        let inputs = json!([{"name": "text", "datatype": "BYTES", "shape": [1], "data": ["great help"]}]);
        json!({"inputs": inputs, "parameters": parameters})
    };
    let named = |answer: &serde_json::Value| -> Vec<String> {
        let outputs = answer["outputs"].as_array().unwrap().iter();
        outputs.map(|output| output["name"].as_str().unwrap().to_owned()).collect()
    };
    let (status, answer) = server.post("/v2/models/sentiment/infer", &asks(json!({}))).await;
    assert_eq!((status, named(&answer)), (200, vec!["label".to_owned(), "confidence".to_owned()]), "{answer}");
    let (_, answer) = server.post("/v2/models/sentiment/infer", &asks(json!({"features": true}))).await;
    assert_eq!(named(&answer), ["label", "confidence", "features.score"]);
    let empty = json!({"inputs": [{"name": "text", "datatype": "BYTES", "shape": [1], "data": [" "]}]});
    let (status, answer) = server.post("/v2/models/sentiment/infer", &empty).await;
    assert_eq!((status, &answer["error"]), (400, &json!("there is no text to have an opinion of")));
}

#[tokio::test]
async fn a_scikit_learn_model_is_served_in_the_environment_that_it_asks_for() {
    let model = trained("forest", &python());
    let server = ready(settings(&model.path().join("forest"))).await;
    // The first wine of the data, of the first cultivar, and the last, of the third.
    let wines = json!([
        [14.23, 1.71, 2.43, 15.6, 127.0, 2.8, 3.06, 0.28, 2.29, 5.64, 1.04, 3.92, 1065.0],
        [14.13, 4.1, 2.74, 24.5, 96.0, 2.05, 0.76, 0.56, 1.35, 9.2, 0.61, 1.6, 560.0]
    ]);
    let inputs = json!({"inputs": [{"name": "measurements", "datatype": "FP32", "shape": [2, 13], "data": wines}]});
    let (status, answer) = server.post("/v2/models/forest/infer", &inputs).await;
    assert_eq!((status, &answer["outputs"][0]["data"]), (200, &json!([0, 2])), "{answer}");
    let (status, answer) = server.post("/v1/models/forest:predict", &json!({"instances": [[1.0]]})).await;
    assert_eq!(status, 400, "{answer}");
}

#[tokio::test]
async fn an_xgboost_model_is_served_in_the_environment_that_it_asks_for() {
    let model = trained("boosted", &python());
    let server = ready(settings(&model.path().join("boosted"))).await;
    let tumours =
        json!({"inputs": [{"name": "measurements", "datatype": "FP32", "shape": [2, 30], "data": vec![0.0; 60]}]});
    let (status, answer) = server.post("/v2/models/boosted/infer", &tumours).await;
    let benign = answer["outputs"][0]["data"].as_array().cloned().unwrap_or_default();
    assert_eq!((status, benign.len()), (200, 2), "{answer}");
    assert!(benign.iter().all(|chance| (0.5..=1.0).contains(&chance.as_f64().unwrap())), "{benign:?}");
}

#[tokio::test]
async fn a_pytorch_model_is_served_by_the_interpreter_that_is_named_for_it() {
    let model = trained("curve", Path::new(SYSTEM));
    let mut config = settings(&model.path().join("curve"));
    let own = Overrides { python: Some(SYSTEM.to_owned()), ..Overrides::default() };
    config.models.insert("curve".to_owned(), own);
    let server = ready(config).await;
    let x =
        json!({"inputs": [{"name": "x", "datatype": "FP32", "shape": [3, 1], "data": [0.0, FRAC_PI_2, -FRAC_PI_2]}]});
    let (status, answer) = server.post("/v2/models/curve/infer", &x).await;
    assert_eq!(status, 200, "{answer}");
    let sines = answer["outputs"][0]["data"].as_array().unwrap().iter().map(|sine| sine.as_f64().unwrap());
    for (sine, wanted) in sines.zip([0.0, 1.0, -1.0]) {
        assert!((sine - wanted).abs() < 0.05, "{answer}");
    }
}

#[tokio::test]
async fn models_with_different_versions_of_a_library_run_side_by_side() {
    let root = tempfile::tempdir().unwrap();
    let source = "import numpy\nfrom modelway import AbstractModel\n\nclass Version(AbstractModel):\n    \
                  def predict(self, text: str) -> str:\n        return text + numpy.__version__\n";
    for (name, version) in [("old", "1.26.4"), ("new", "2.4.6")] {
        let folder = root.path().join(name).join("1");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("model.py"), source).unwrap();
        fs::write(folder.join("requirements.txt"), format!("numpy=={version}\n")).unwrap();
    }
    let server = ready(settings(root.path())).await;
    for (name, version) in [("old", "1.26.4"), ("new", "2.4.6")] {
        let (status, answer) = server.post(&format!("/v1/models/{name}:predict"), &json!({"instances": [""]})).await;
        assert_eq!((status, &answer["predictions"]), (200, &json!([version])), "{answer}");
    }
}

#[tokio::test]
async fn a_model_whose_environment_cannot_be_built_says_which_line() {
    let root = tempfile::tempdir().unwrap();
    let source =
        "from modelway import AbstractModel\nclass M(AbstractModel):\n    def predict(self, x: str) -> str: ...\n";
    fs::write(root.path().join("model.py"), source).unwrap();
    fs::write(root.path().join("requirements.txt"), "# ours\npackaging==999.0\n").unwrap();
    let config = Config { python_dir: root.path().join("cache"), ..settings(root.path()) };
    let mut server = Server::start(config).await;
    let ended = tokio::time::timeout(FETCHING, &mut server.running).await.unwrap().unwrap();
    let said = ended.unwrap_err().to_string();
    assert!(said.contains("line 2 of") && said.contains("`packaging==999.0`"), "{said}");
}
