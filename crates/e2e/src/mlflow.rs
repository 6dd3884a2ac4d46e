//! A real MLflow: `scripts/mlflow.sh` installs it once and runs it while this process lives.

use std::{
    path::PathBuf,
    process::{Child, ChildStdin, Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{client, free_port};

/// How long the server may take to start on a busy machine.
const STARTING: Duration = Duration::from_secs(300);

/// A tracking server without models. It needs most of a minute to start: share one.
#[derive(Debug)]
pub struct Mlflow {
    script: Child,
    /// The server ends when this does, also when the process that holds it dies.
    input: Option<ChildStdin>,
    /// Where it answers.
    pub url: String,
}

impl Mlflow {
    /// Starts one.
    pub async fn start() -> Self {
        let port = free_port();
        let mut script =
            Command::new(script()).args(["serve", &port.to_string()]).stdin(Stdio::piped()).spawn().unwrap();
        let input = script.stdin.take();
        let mlflow = Self { script, input, url: format!("http://127.0.0.1:{port}") };
        let (client, health) = (client(), format!("{}/health", mlflow.url));
        let began = Instant::now();
        while !client.get(&health).send().await.is_ok_and(|answer| answer.status().is_success()) {
            assert!(began.elapsed() < STARTING, "MLflow does not listen");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        mlflow
    }

    /// A Python with MLflow and the libraries that it logs models of.
    #[must_use]
    pub fn python() -> PathBuf {
        let output = Command::new(script()).stderr(Stdio::inherit()).output().unwrap();
        assert!(output.status.success(), "MLflow cannot be installed");
        PathBuf::from(String::from_utf8(output.stdout).unwrap().trim())
    }

    /// Trains and logs the models of `tests/models/mlflow_models.py`; what it says of them.
    #[must_use]
    pub fn log_models(&self) -> Value {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/models/mlflow_models.py");
        let output = Command::new(Self::python())
            .args([script, &self.url])
            .env("MLFLOW_DISABLE_TELEMETRY", "true")
            .stderr(Stdio::piped())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "the models cannot be logged: {said}");
        let text = String::from_utf8(output.stdout).unwrap();
        serde_json::from_str(text.lines().last().unwrap()).unwrap()
    }
}

impl Drop for Mlflow {
    fn drop(&mut self) {
        self.input = None;
        let _ = self.script.wait();
    }
}

fn script() -> &'static str {
    concat!(env!("CARGO_MANIFEST_DIR"), "/../../scripts/mlflow.sh")
}
