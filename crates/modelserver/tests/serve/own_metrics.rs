//! Metrics that a Python model declares itself.

use std::time::Duration;

use serde_json::json;

use crate::{
    python::settings,
    support::{PATIENCE, Server, config, python, refused},
};

const MODEL: &str = "/v2/models/counts/infer";
const LABELS: &str = r#"model_name="counts",model_version="1""#;

async fn ask(server: &Server, text: &str) -> (u16, serde_json::Value) {
    let input = json!({"name": "text", "datatype": "BYTES", "shape": [1], "data": [text]});
    server.post(MODEL, &json!({"inputs": [input], "parameters": {"language": "a\"b\\c\nd"}})).await
}

/// The value of a line of the metrics.
async fn value(server: &Server, series: &str) -> Option<f64> {
    let text = server.text("/metrics").await;
    let mut lines = text.lines().filter_map(|line| line.strip_prefix(series)?.trim().parse().ok());
    let found = lines.next();
    assert_eq!(lines.next(), None, "{series} occurs twice:\n{text}");
    found
}

#[tokio::test]
async fn a_model_s_own_metrics_are_shown_with_its_labels_and_outlive_its_workers() {
    let mut settings = settings("counts");
    settings.instances = 2;
    let server = Server::ready(settings).await;
    let language = format!(r#"{{{LABELS},language="a\"b\\c\nd"}}"#);
    let words = format!("words_total{language}");
    assert_eq!(value(&server, &words).await, None, "what was tried is not counted");
    assert_eq!(value(&server, &format!("level{{{LABELS}}}")).await, Some(0.0), "nor set");
    assert_eq!(value(&server, &format!("loads_total{{{LABELS}}}")).await, Some(2.0), "both instances");
    for (count, text) in ["one", "one two", "one two three"].into_iter().enumerate() {
        let (status, answer) = ask(&server, text).await;
        assert_eq!(status, 200, "{answer}");
        let sum = [1.0, 3.0, 6.0][count];
        assert_eq!(value(&server, &words).await, Some(sum), "as soon as it is answered");
    }
    let text = server.text("/metrics").await;
    for line in [
        "# HELP words Words read".to_owned(),
        "# TYPE words counter".to_owned(),
        "# TYPE level gauge".to_owned(),
        "# TYPE length histogram".to_owned(),
        format!(r#"length_bucket{{{LABELS},le="1.0"}} 1"#),
        format!(r#"length_bucket{{{LABELS},le="2.5"}} 2"#),
        format!(r#"length_bucket{{{LABELS},le="+Inf"}} 3"#),
        format!("length_sum{{{LABELS}}} 6"),
        format!("length_count{{{LABELS}}} 3"),
    ] {
        assert_eq!(text.lines().filter(|known| **known == line).count(), 1, "{line}:\n{text}");
    }
    assert!(text.ends_with("\n# EOF\n") && text.matches("# EOF").count() == 1, "{text}");

    refused(ask(&server, "die").await, 500);
    for more in 1..=4 {
        assert_eq!(ask(&server, "one").await.0, 200);
        assert_eq!(value(&server, &words).await, Some(6.0 + f64::from(more)), "nothing goes back");
    }
    let replaced = async {
        while value(&server, &format!("loads_total{{{LABELS}}}")).await != Some(3.0) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, replaced).await.expect("the next worker counts on");
}

/// A model whose trial counts as much as it can: in the run, in a thread that the run waits for, and in a stream.
const TRIED: &str = "
import os, threading
from modelway import *

class M(AbstractModel):
    def load(self):
        self.calls = self.metrics.counter('calls')
        self.labelled = self.metrics.counter('labelled', labels=['text'])
        self.level = self.metrics.gauge('level')
        self.length = self.metrics.histogram('length')

    def count(self, text):
        self.calls.inc()
        self.labelled.inc(text=text)
        self.level.set(5)
        self.level.inc()
        self.length.observe(1)

    def predict(self, text: list[str]) -> list[str]:
        self.count(text[0])
        thread = threading.Thread(target=self.count, args=(text[0],))
        thread.start()
        thread.join()
        self.metrics.counter('late').inc()
        DIES
        return text
";

#[tokio::test]
async fn runs_that_no_caller_asked_for_never_count_whenever_they_are_made() {
    let golden = json!({"examples": [{
        "request": {"inputs": [{"name": "text", "datatype": "BYTES", "shape": [1], "data": ["golden"]}]},
        "response": {"model_name": "m", "outputs": [{"name": "output", "datatype": "BYTES", "shape": [1], "data": ["golden"]}]},
    }]});
    let warm = "model_warmup [ { name: \"w\" count: 2 batch_size: 1 inputs { key: \"text\" \
                value: { data_type: TYPE_STRING dims: [ ] zero_data: true } } } ] max_batch_size: 8";
    for (file, text, dies) in [
        ("1/none", String::new(), "pass"),
        ("1/golden.json", golden.to_string(), "pass"),
        ("config.pbtxt", warm.to_owned(), "pass"),
        // The first worker ends when it is tried.
        (
            "1/none",
            String::new(),
            "if not os.path.exists(self.folder / 'died'): (self.folder / 'died').touch(); os.kill(os.getpid(), 9)",
        ),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let version = folder.path().join("m/1");
        std::fs::create_dir_all(&version).unwrap();
        std::fs::write(version.join("model.py"), TRIED.replace("DIES", dies)).unwrap();
        std::fs::write(folder.path().join("m").join(file), text).unwrap();
        let mut settings = config(folder.path());
        settings.python = Some(python().display().to_string());
        let server = Server::ready(settings).await;
        let labels = r#"{model_name="m",model_version="1"}"#;
        let counts = async |times: f64| {
            for (series, wanted) in [
                (format!("calls_total{labels}"), Some(2.0 * times)),
                (format!("length_count{labels}"), Some(2.0 * times)),
                (format!("level{labels}"), Some(if times > 0.0 { 6.0 } else { 0.0 })),
                (format!("late_total{labels}"), Some(times).filter(|times| *times > 0.0)),
                (r#"labelled_total{model_name="m",model_version="1",text="golden"}"#.to_owned(), None),
                (r#"labelled_total{model_name="m",model_version="1",text=""}"#.to_owned(), None),
            ] {
                let seen = value(&server, &series).await;
                assert_eq!(seen, wanted, "{file} {dies}: {series} after {times} requests");
            }
        };
        counts(0.0).await;
        for times in 1..=2 {
            let (status, answer) = server.post("/v1/models/m:predict", &json!({"instances": ["x"]})).await;
            assert_eq!(status, 200, "{answer}");
            counts(f64::from(times)).await;
        }
    }
}

/// A repository of Python models: their names, the statements of `load`, what `predict` does first, `config.pbtxt`.
fn repository(models: &[(&str, &str, &str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    models.iter().for_each(|model| place(&folder, model));
    folder
}

fn place(folder: &tempfile::TempDir, (name, load, predict, settings): &(&str, &str, &str, &str)) {
    let text = format!(
        "from modelway import *\nclass M(AbstractModel):\n    def load(self): self.own = self.metrics.{load}\n    \
         def predict(self, x: Tensor['FP32', -1, 2]) -> Tensor['FP32', -1, 2]:\n        self.own.{predict}\n        return x\n"
    );
    std::fs::create_dir_all(folder.path().join(name).join("1")).unwrap();
    std::fs::write(folder.path().join(name).join("1/model.py"), text).unwrap();
    std::fs::write(folder.path().join(name).join("config.pbtxt"), settings).unwrap();
}

async fn serve(folder: &tempfile::TempDir) -> Server {
    let mut settings = config(folder.path());
    settings.python = Some(python().display().to_string());
    Server::ready(settings).await
}

#[tokio::test]
async fn the_metrics_of_a_reshaped_model_are_shown() {
    let reshape = "max_batch_size: 8 input [{ name: \"x\" dims: [ 1, 2 ] reshape { shape: [ 2 ] } }]";
    let server = serve(&repository(&[("m", "counter('calls')", "inc()", reshape)])).await;
    let input = json!({"name": "x", "datatype": "FP32", "shape": [1, 1, 2], "data": [1, 2]});
    let calls = r#"calls_total{model_name="m",model_version="1"}"#;
    for times in [1.0, 2.0] {
        let (status, answer) = server.post("/v2/models/m/infer", &json!({"inputs": [input]})).await;
        assert_eq!(status, 200, "{answer}");
        assert_eq!(value(&server, calls).await, Some(times));
    }
}

#[tokio::test]
async fn a_metric_that_another_model_s_would_be_mixed_with_is_left_out() {
    let gauge = ("a", "gauge('time_count')", "set(7)", "");
    let server = serve(&repository(&[gauge, ("b", "histogram('time')", "observe(1)", "")])).await;
    for model in ["a", "b"] {
        let (status, _) = server.post(&format!("/v1/models/{model}:predict"), &json!({"instances": [[1, 2]]})).await;
        assert_eq!(status, 200);
    }
    assert_eq!(value(&server, r#"time_count{model_name="a",model_version="1"}"#).await, Some(7.0));
    let text = server.text("/metrics").await;
    assert!(!text.contains("time_bucket") && !text.contains("# TYPE time "), "{text}");
}

#[tokio::test]
async fn a_model_that_is_loaded_anew_says_what_its_metric_is() {
    let folder = repository(&[("m", "counter('seen')", "inc()", "")]);
    let server = serve(&folder).await;
    let asked = json!({"instances": [[1, 2]]});
    assert_eq!(server.post("/v1/models/m:predict", &asked).await.0, 200);
    assert_eq!(value(&server, r#"seen_total{model_name="m",model_version="1"}"#).await, Some(1.0));
    place(&folder, &("m", "gauge('seen')", "set(5)", ""));
    let (status, said) = server.post("/v2/repository/models/m/load", &json!({})).await;
    assert_eq!(status, 200, "{said}");
    assert_eq!(server.post("/v1/models/m:predict", &asked).await.0, 200);
    let shown = async {
        while value(&server, r#"seen{model_name="m",model_version="1"}"#).await != Some(5.0) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, shown).await.expect("the gauge is shown");
}
