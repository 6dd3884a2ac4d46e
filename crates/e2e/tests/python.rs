//! The Python package against the real binary: `modelway.serve`, its end, and the client.

use std::{fs, path::Path, process::Command};

use modelway_e2e::{Modelway, python};
use reqwest::Method;
use serde_json::Value;

#[test]
fn a_model_of_a_running_python_process_is_served_and_asked() {
    passes(&python(), "served");
}

#[test]
fn the_client_takes_what_a_data_scientist_has_in_hand() {
    passes(&python(), "asked");
}

#[test]
fn the_client_takes_tables_and_columns_of_pandas() {
    passes(&modelway_e2e::Mlflow::python(), "asked.AskedWithPandas");
}

const MODELS: [(&str, &str); 3] = [
    ("image", "def predict(self, image: bytes) -> int:\n        return len(image)"),
    (
        "person",
        "def predict(self, name: str, age: float, *, times: int = 1) -> str:\n        return f'{name} {age}' * times",
    ),
    ("writer", "def predict(self, text: str, *, words: int = 2) -> str:\n        yield from [text] * words"),
];

#[tokio::test]
async fn predict_takes_every_body_that_curl_can_send_and_gives_the_same_answer() {
    let mut modelway = Modelway::new();
    modelway.set("MODELWAY__SERVE__PYTHON", python().to_str().unwrap());
    modelway.start(modelway_e2e::Role::Up).await;
    let mut ids = Vec::new();
    for (name, predict) in MODELS {
        let folder = modelway.data_dir().join("models").join(name);
        fs::create_dir_all(&folder).unwrap();
        let text = format!("from modelway import AbstractModel\nclass M(AbstractModel):\n    {predict}\n");
        fs::write(folder.join("model.py"), text).unwrap();
        ids.push(modelway.deploy(name, &folder, 1).await);
    }
    for id in ids {
        modelway.until_active(id).await;
    }
    let predict = |model: &str, body: &str, more: &[&str]| {
        let output = modelway.run(&[&["predict", model, "--data", body], more].concat());
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.success(), String::from_utf8(output.stdout).unwrap(), said)
    };
    for (model, path, body) in [
        ("image", "/v1/models/image:predict", r#"{"instances": [{"b64": "/9j/AA=="}, {"b64": ""}]}"#),
        ("image", "/v1/models/image:predict", r#"{"instances": [{"image": {"b64": "AP8="}}]}"#),
        ("image", "/v1/models/image:predict", r#"{"instances": ["text"], "signature_name": "any"}"#),
        ("image", "/v1/models/image:predict", r#"{"inputs": [{"b64": "AP8="}]}"#),
        ("image", "/v1/models/image:predict", r#"{"inputs": {"image": [{"b64": "AP8="}]}}"#),
        (
            "image",
            "/v2/models/image/infer",
            r#"{"inputs": [{"name": "image", "shape": [1], "datatype": "BYTES", "data": ["a"]}]}"#,
        ),
        ("person", "/v1/models/person:predict", r#"{"instances": [["Ada", 36]], "parameters": {"times": 2}}"#),
        ("person", "/v1/models/person:predict", r#"{"instances": [{"age": "NaN", "name": "Ada"}]}"#),
        ("person", "/v2/models/person/generate", r#"{"name": "Ada", "age": 36.5, "times": 2}"#),
    ] {
        let wanted = modelway.ask(Method::POST, &modelway.gateway(path), serde_json::from_str(body).unwrap()).await;
        assert_eq!(wanted.status, 200, "{body}: {wanted:?}");
        let (success, json, said) = predict(model, body, &["-o", "json"]);
        assert!(success, "{body}: {said}");
        assert_eq!(serde_json::from_str::<Value>(&json).unwrap(), wanted.body, "{body}");
        assert!(predict(model, body, &[]).0);
    }
    for (model, body, table) in [
        ("image", r#"[{"b64": "/9j/AA=="}, "ab"]"#, "output\n4\n2\n"),
        ("image", r#""abc""#, "output\n3\n"),
        ("person", r#"[["Ada", 36], ["Bob", NaN]]"#, "output\nAda 36.0\nBob nan\n"),
        (
            "person",
            r#"{"dataframe_split": {"columns": ["age", "name"], "data": [[7, "Bob"]]}, "params": {"times": 2}}"#,
            "predictions\nBob 7.0Bob 7.0\n",
        ),
        ("writer", r#"{"text": "Once", "words": 3}"#, "output\nOnce\nOnce\nOnce\n"),
    ] {
        assert_eq!(predict(model, body, &[]).1, table, "{body}");
    }
    // What curl is refused is refused here, with the server's words.
    for (model, body, words) in [
        ("image", r#"{"instances": [{"b65": "AP8="}]}"#, "b65"),
        ("image", r#"{"instances": []}"#, "nothing to predict"),
        ("image", r#"{"imag": [1]}"#, "imag"),
        ("image", "[1", "not JSON"),
    ] {
        let (success, _, said) = predict(model, body, &[]);
        assert!(!success && said.contains(words), "{body}: {said}");
    }
}

/// Runs a module of the package's tests that needs the binary.
#[track_caller]
fn passes(python: &Path, module: &str) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../python");
    let told = Command::new(python)
        .args(["-W", "error", "-m", "unittest", module])
        .current_dir(folder.join("tests"))
        .env("PYTHONPATH", folder.join("src"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("MODELWAY_BINARY", modelway_e2e::binary())
        .output();
    let told = told.unwrap_or_else(|e| panic!("{}: {e}; `make setup` installs it", python.display()));
    assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
}
