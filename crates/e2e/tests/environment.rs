//! The environment of a deployed Python model: what its deployment says, and no more.

use std::fs;

use modelway_e2e::{Modelway, Role};
use reqwest::Method;
use serde_json::json;

const MODEL: &str = "\
import os, sys
from modelway import AbstractModel
class Model(AbstractModel):
    def predict(self, name: str) -> str:
        return str(sys.path) if name == 'path' else os.environ.get(name, '<unset>')
";

#[tokio::test]
async fn a_python_model_sees_the_environment_of_its_deployment_and_no_credentials_of_the_server() {
    let mut modelway = Modelway::new();
    for credential in ["HF_TOKEN", "MLFLOW_TRACKING_PASSWORD", "SOME_TOKEN"] {
        modelway.set(credential, "of the server");
    }
    modelway.set("MODELWAY__SERVE__PYTHON", modelway_e2e::python().to_str().unwrap());
    modelway.start(Role::Up).await;
    let folder = modelway.data_dir().with_file_name("teller");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("model.py"), MODEL).unwrap();
    let (secret, folder) = (folder.join("secret"), folder.to_str().unwrap());
    let from_file = format!("API_KEY={}", secret.display());
    let set = [
        ("DB_URL", "x"),
        ("OMP_NUM_THREADS", "3"),
        ("PYTHONPATH", "/srv/lib"),
        ("PYTHONUTF8", "0"),
        ("ORT_DISABLE_TELEMETRY", "0"),
        ("LD_LIBRARY_PATH", "/srv/so"),
        ("TMPDIR", "/var/tmp"),
        ("EMPTY", ""),
        ("AWS_SECRET_ACCESS_KEY", "the model's own"),
    ];
    let pairs: Vec<String> = set.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let mut line = vec!["deploy", folder, "--name", "teller", "--env-from-file", &from_file];
    line.extend(pairs.iter().flat_map(|pair| ["--env", pair]));

    let refused = modelway.run(&line);
    let words = String::from_utf8_lossy(&refused.stderr).into_owned();
    let missing = format!("the file of API_KEY, {}, is not there", secret.display());
    assert!(!refused.status.success() && words.contains(&missing), "{words}");
    fs::write(&secret, "hidden\n").unwrap();
    line.extend(["--env", "AGAIN=1"]);
    modelway.succeed(&line);

    let told = async |name: &str| {
        let body = json!({"instances": [name]});
        let url = modelway.gateway("/v1/models/teller:predict");
        modelway.ask(Method::POST, &url, body).await.body["predictions"][0].as_str().map(str::to_owned)
    };
    for (name, value) in set {
        assert_eq!(told(name).await.as_deref(), Some(value), "{name}");
    }
    assert_eq!(told("API_KEY").await.as_deref(), Some("hidden"));
    // Linear algebra follows what was set for all of it.
    for name in ["HF_TOKEN", "MLFLOW_TRACKING_PASSWORD", "SOME_TOKEN", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"] {
        assert_eq!(told(name).await.as_deref(), Some("<unset>"), "{name}");
    }
    let path = told("path").await.unwrap();
    assert!(path.contains("'/srv/lib'") && !path.contains("''"), "{path}");
    let described = modelway.succeed(&["describe", "teller"]);
    assert!(described.contains(&format!("API_KEY from the file {}", secret.display())), "{described}");
    let log = modelway.succeed(&["logs", "teller"]) + &modelway.log_of(Role::Up);
    assert!(!described.contains("hidden") && !log.contains("hidden"), "{described}{log}");
    assert!(modelway.stop(Role::Up).await.success());
}

#[tokio::test]
async fn a_deployment_chooses_the_interpreter_of_its_model() {
    let mut modelway = Modelway::new();
    // Without it there would be none.
    modelway.set("MODELWAY__SERVE__PYTHON", "/nowhere/python");
    modelway.start(Role::Up).await;
    let folder = modelway.data_dir().with_file_name("teller");
    fs::create_dir_all(&folder).unwrap();
    let says = MODEL.replace("os.environ.get(name, '<unset>')", "sys.executable");
    fs::write(folder.join("model.py"), says).unwrap();
    // The files beside it ask for another one.
    fs::write(folder.join("requirements.txt"), "there-is-no-such-package==0\n").unwrap();
    let (python, path) = (modelway_e2e::python(), folder.to_str().unwrap());
    let venv = python.ancestors().nth(2).unwrap().to_str().unwrap();
    modelway.succeed(&["deploy", path, "--name", "teller", "--python", venv]);
    let told = modelway.succeed(&["predict", "teller", "--data", "[\"which\"]"]);
    assert!(told.contains(python.to_str().unwrap()), "{told}");
    let described = modelway.succeed(&["describe", "teller"]);
    assert!(described.contains(&format!("Python:           {venv}")), "{described}");

    let manifest = modelway.data_dir().with_file_name("teller.yaml");
    fs::write(&manifest, "name: teller\npython: ./missing\n").unwrap();
    let refused = modelway.run(&["apply", "-f", manifest.to_str().unwrap(), "--wait"]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    let missing = format!("there is no program {}", manifest.with_file_name("missing").display());
    assert!(!refused.status.success() && said.contains(&missing), "{said}");
    let told = modelway.succeed(&["predict", "teller", "--data", "[\"which\"]"]);
    assert!(told.contains(python.to_str().unwrap()), "the old one serves: {told}");
}
