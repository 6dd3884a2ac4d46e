//! Metrics that a Python model declares itself.

use std::time::Duration;

use serde_json::json;

use crate::{
    python::settings,
    support::{PATIENCE, Server, refused},
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
    assert_eq!(lines.next(), None, "{series} is there twice:\n{text}");
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
