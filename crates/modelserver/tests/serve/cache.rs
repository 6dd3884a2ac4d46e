use std::time::Instant;

use serde_json::{Value, json};

use crate::support::{Server, config, models};

fn rounds(rounds: u64) -> Value {
    json!({"inputs": [{"name": "rounds", "shape": [1], "datatype": "INT64", "data": [rounds]}]})
}

async fn counters(server: &Server) -> (u64, u64) {
    let text = server.text("/metrics").await;
    let count = |name: &str| -> u64 {
        let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("no {name} in {text}"));
        line.rsplit(' ').next().unwrap().parse().unwrap()
    };
    (count("model_cache_hits_total"), count("model_cache_misses_total"))
}

#[tokio::test]
async fn equal_requests_are_run_once_whether_they_come_together_or_later() {
    let mut settings = config(&models().join("slow"));
    settings.response_cache_bytes = 1 << 20;
    let server = Server::ready(settings).await;
    let began = Instant::now();
    let body = rounds(20_000);
    let (a, b, c) = tokio::join!(
        server.post("/v2/models/slow/infer", &body),
        server.post("/v2/models/slow/infer", &body),
        server.post("/v2/models/slow/infer", &body),
    );
    let once = began.elapsed();
    assert_eq!((a.0, &a, &a), (200, &b, &c));
    assert_eq!(counters(&server).await, (2, 1));
    let began = Instant::now();
    assert_eq!(server.post("/v2/models/slow/infer", &body).await, a);
    assert!(began.elapsed() < once, "{:?} {once:?}", began.elapsed());
    assert_eq!(server.post("/v2/models/slow/infer", &rounds(2)).await.0, 200);
    assert_eq!(counters(&server).await, (3, 2));
}

#[tokio::test]
async fn a_caller_that_leaves_does_not_take_the_answer_of_others_with_it() {
    let mut settings = config(&models().join("slow"));
    settings.response_cache_bytes = 1 << 20;
    let server = Server::ready(settings).await;
    let body = rounds(20_000);
    let mut hasty = body.clone();
    hasty["parameters"] = json!({"timeout": 20_000});
    let (hasty, patient) =
        tokio::join!(server.post("/v2/models/slow/infer", &hasty), server.post("/v2/models/slow/infer", &body));
    assert_eq!(patient.0, 200, "{patient:?}");
    assert!(hasty.1["error"].as_str().unwrap().contains("20 ms"), "{hasty:?}");
}

#[tokio::test]
async fn without_the_setting_nothing_is_kept() {
    let server = Server::of("slow").await;
    for _ in 0..2 {
        assert_eq!(server.post("/v2/models/slow/infer", &rounds(2)).await.0, 200);
    }
    assert_eq!(counters(&server).await, (0, 0));
}
