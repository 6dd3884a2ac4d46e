//! The metrics of all replicas under `modelway up`, read as Prometheus reads them.

use std::{
    collections::BTreeSet,
    fs,
    io::Write as _,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use modelway_e2e::{Modelway, Role, kill, processes_naming, python, python_with_clients, until};
use reqwest::Method;
use rustix::process::Signal;
use serde_json::{Value, json};

/// Counts words under labels, one of which is called as one of the gateway's.
const COUNTED: &str = "\
from modelway import AbstractModel
class Counted(AbstractModel):
    def load(self):
        self.words = self.metrics.counter('words', 'Words \\\\ read', labels=['replica'])
        self.lengths = self.metrics.histogram('text_length', 'Words of a text', buckets=[1, 10])
    def predict(self, text: str) -> int:
        count = len(text.split())
        self.words.inc(count, replica='a \"b\"')
        self.lengths.observe(count)
        return count
";

/// Writes what Prometheus's own parser reads: `[[family, type, [[sample, labels, value], …]], …]`.
const PARSER: &str = "\
import json, sys
from prometheus_client.parser import text_string_to_metric_families as parse
json.dump([[f.name, f.type, [[s.name, s.labels, s.value] for s in f.samples]] for f in parse(sys.stdin.read())], sys.stdout)
";

type Families = Vec<(String, String, Vec<(String, Value, f64)>)>;

fn parse(page: &str) -> Families {
    let mut parser = Command::new(python_with_clients());
    let parser = parser.args(["-c", PARSER]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut parser = parser.spawn().expect("`make setup` installs it");
    parser.stdin.take().expect("a pipe").write_all(page.as_bytes()).expect("written");
    let output = parser.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{page}");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

#[tokio::test]
async fn prometheus_reads_the_metrics_of_every_replica_although_one_is_frozen() {
    let mut modelway = Modelway::new();
    modelway.set("MODELWAY__SERVE__PYTHON", python().to_str().unwrap());
    modelway.start(Role::Up).await;
    let folder = modelway.data_dir().join("models/counted");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("model.py"), COUNTED).unwrap();
    let counted = modelway.deploy("counted", &folder, 2).await;
    let iris = modelway.deploy("iris", &modelway.models().iris("iris"), 2).await;
    for id in [counted, iris] {
        modelway.until_active(id).await;
    }
    modelway.until_predicts("iris").await;
    let url = modelway.gateway("/v1/models/counted:predict");
    for _ in 0..10 {
        let answer = modelway.ask(Method::POST, &url, json!({"instances": ["one two three"]})).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }

    let page = async || {
        let answer = modelway.ask(Method::GET, &modelway.gateway("/metrics/replicas"), Value::Null).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.body.as_str().expect("text").to_owned()
    };
    let values = |families: &Families, name: &str| -> Vec<(Value, f64)> {
        let samples = families.iter().flat_map(|(_, _, samples)| samples).filter(|(sample, _, _)| sample == name);
        samples.map(|(_, labels, value)| (labels.clone(), *value)).collect()
    };
    let all = parse(&page().await);
    let ups: BTreeSet<_> = values(&all, "modelway_replica_up")
        .into_iter()
        .map(|(labels, up)| format!("{}={up}", labels["replica"].as_str().unwrap()))
        .collect();
    let expected = [counted, iris].into_iter().flat_map(|id| (0..2).map(move |index| format!("md-{id}-r1-{index}=1")));
    assert_eq!(ups, expected.collect());
    let names: BTreeSet<_> = all.iter().map(|(name, _, _)| name).collect();
    assert_eq!(names.len(), all.len(), "each family stands once");
    let words = values(&all, "words_total");
    assert!(words.iter().all(|(labels, _)| labels["exported_replica"] == "a \"b\""), "{words:?}");
    assert!((words.iter().map(|(_, count)| count).sum::<f64>() - 30.0).abs() < 0.1, "{words:?}");
    for (family, kind) in [("words", "counter"), ("text_length", "histogram"), ("model_loaded", "gauge")] {
        assert!(all.iter().any(|(name, found, _)| (&**name, &**found) == (family, kind)), "{family}: {all:?}");
    }
    assert_eq!(values(&all, "model_loaded").len(), 4);
    assert!(values(&all, "modelway_replica_scrape_dropped_lines").iter().all(|(_, lines)| *lines < 0.1));

    let frozen = format!("md-{iris}-r1-0");
    let pids = processes_naming(&[" serve ", modelway.data_dir().to_str().unwrap(), &frozen]);
    assert_eq!(pids.len(), 1, "the process of {frozen}");
    kill(pids[0], Signal::STOP);
    let begun = Instant::now();
    let all = parse(&page().await);
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    for (labels, up) in values(&all, "modelway_replica_up") {
        assert!((up > 0.5) == (labels["replica"] != *frozen), "{labels} {up}");
    }
    assert_eq!(values(&all, "model_loaded").len(), 3);
    kill(pids[0], Signal::CONT);
    until("it is read again", || async { values(&parse(&page().await), "model_loaded").len() == 4 }).await;
}
