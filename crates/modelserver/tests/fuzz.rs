//! Sends requests that are almost right to a server: mutated JSON, binary tails, headers, paths and
//! compressed bodies, in all of the HTTP protocols. Whatever comes, the answer is a whole HTTP answer with the
//! status that such a request deserves, in time and in bounded memory, and a right request is answered as ever.
//!
//! `MODELWAY_FUZZ_SEED` repeats a run, `MODELWAY_FUZZ_SECONDS` sets its length.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

extern crate modelway_modelserver as modelserver;

#[path = "fuzz/dice.rs"]
mod dice;
#[path = "fuzz/requests.rs"]
mod requests;
#[allow(dead_code, reason = "the other tests need more of it")]
#[path = "serve/support.rs"]
mod support;
#[path = "fuzz/wire.rs"]
mod wire;

use std::{
    path::Path,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{
    dice::Dice,
    requests::{Sent, any},
    support::{Server, config, models},
    wire::{Answer, Wire},
};

/// The time of a run in `make test`.
const SHORT: Duration = Duration::from_secs(20);
/// The time of a run in `make test-long`.
const LONG: Duration = Duration::from_secs(600);
/// No request takes longer, on a machine that has much else to do.
const LONGEST: Duration = Duration::from_secs(20);
/// Callers at the same time.
const CALLERS: u64 = 4;
/// The most that the memory of the process may grow, with the bodies bounded as they are here.
const GROWTH: usize = 64 << 20;
/// The status codes that a wrong request may get.
const DESERVED: [u16; 10] = [200, 400, 404, 405, 408, 409, 413, 415, 501, 503];

#[allow(clippy::disallowed_methods, reason = "how a run is repeated")]
fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().unwrap())
}

/// A folder with a model of each kind.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let copy = |from: &str, name: &str| {
        let to = folder.path().join(name).join("1");
        std::fs::create_dir_all(&to).unwrap();
        std::fs::copy(models().join(from).join("model.onnx"), to.join("model.onnx")).unwrap();
    };
    for (from, name) in [("add", "adder"), ("add", "spare"), ("pick", "picker"), ("mixed", "mixed"), ("iris", "iris")] {
        copy(from, name);
    }
    for datatype in ["BOOL", "INT8", "UINT64", "FP16", "BF16", "FP32", "FP64", "BYTES"] {
        copy(&format!("identity/{datatype}"), datatype);
    }
    folder
}

/// The memory that this process has, in bytes; the server is a part of it.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: usize = statm.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
}

fn check(sent: &Sent, answer: &Answer) -> Result<(), String> {
    if !DESERVED.contains(&answer.status) {
        return Err(format!("the status {}", answer.status));
    }
    if sent.method == "HEAD" {
        return Ok(());
    }
    let body = answer.unpacked()?;
    let kind = answer.header("content-type").unwrap_or_default();
    if answer.status != 200 {
        let body: Value = serde_json::from_slice(&body).map_err(|e| format!("an error that is not JSON: {e}"))?;
        let said = body["error"].as_str().ok_or("no `error`")?;
        return if said.is_empty() { Err("an error without words".to_owned()) } else { Ok(()) };
    }
    let json = match (kind, answer.header("inference-header-content-length")) {
        ("application/json", None) => &body[..],
        ("application/octet-stream", Some(length)) => {
            let length: usize = length.parse().map_err(|_| "a wrong header length")?;
            body.get(..length).ok_or("a header length beyond the body")?
        }
        ("text/event-stream", None) => {
            let text = String::from_utf8(body).map_err(|_| "events that are not UTF-8")?;
            let whole = text.is_empty() || text.ends_with("\n\n");
            return if whole { Ok(()) } else { Err("half an event".to_owned()) };
        }
        (kind, length) => return Err(format!("content-type {kind:?} with a header length of {length:?}")),
    };
    serde_json::from_slice::<Value>(json).map(|_| ()).map_err(|e| format!("an answer that is not JSON: {e}"))
}

/// One caller: a right request after every few that are not.
async fn call(address: String, seed: u64, run: Duration) -> (u64, u64) {
    let mut dice = Dice::new(seed);
    let mut wire = Wire::new(address);
    let began = Instant::now();
    let (mut count, mut right) = (0, 0);
    while began.elapsed() < run {
        let sent = any(&mut dice);
        let failed = |why: &str| -> ! { panic!("seed {seed}, request {count}: {why}\n{}", sent.shown()) };
        match tokio::time::timeout(LONGEST, wire.send(&sent)).await {
            Err(_) => failed("no answer in time"),
            Ok(Err(why)) => failed(&why),
            Ok(Ok(answer)) => {
                if let Err(why) = check(&sent, &answer) {
                    failed(&format!("{why}: {}", String::from_utf8_lossy(&answer.body)));
                }
                right += u64::from(answer.status == 200);
            }
        }
        count += 1;
        if count % 16 == 0 {
            let sane = Sent::post(
                "/v2/models/picker/infer",
                json!({"inputs": [{"name": "index", "shape": [2], "datatype": "INT64", "data": [3, 7]}]}).to_string(),
            );
            let answer = tokio::time::timeout(LONGEST, wire.send(&sane)).await.expect("in time").unwrap();
            let body: Value = serde_json::from_slice(&answer.body).unwrap();
            assert_eq!(body["outputs"][0]["data"], json!([3.0, 7.0]), "seed {seed}, after request {count}: {body}");
        }
    }
    (count, right)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_are_almost_right_are_answered_in_words_and_disturb_nobody() {
    fuzz(SHORT).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "make test-long runs it"]
async fn long_requests_that_are_almost_right_are_answered_in_words_and_disturb_nobody() {
    fuzz(LONG).await;
}

#[allow(clippy::print_stdout, reason = "it says how to repeat the run")]
async fn fuzz(run: Duration) {
    let folder = folder();
    let mut settings = config(Path::new(folder.path()));
    settings.body_limit_bytes = 1 << 20;
    settings.bodies_limit_bytes = 16 << 20;
    settings.body_timeout_ms = 2_000;
    let server = Server::ready(settings).await;
    let seed = number("MODELWAY_FUZZ_SEED").unwrap_or_else(|| u64::from(std::process::id()));
    let run = number("MODELWAY_FUZZ_SECONDS").map_or(run, Duration::from_secs);
    println!("MODELWAY_FUZZ_SEED={seed}");
    let address = server.url.trim_start_matches("http://").to_owned();
    // What everything needs once does not count.
    call(address.clone(), seed, run / 20).await;
    let before = resident();
    let callers = base::Tasks::new();
    let running: Vec<_> =
        (1..=CALLERS).map(|n| callers.spawn(call(address.clone(), seed.wrapping_add(n), run))).collect();
    let (mut count, mut right) = (0, 0);
    for caller in running {
        let (sent, answered) = caller.await.unwrap();
        (count, right) = (count + sent, right + answered);
    }
    let grown = resident().saturating_sub(before);
    println!("{count} requests, {right} of them still right; the memory grew by {} KiB", grown >> 10);
    assert!(grown < GROWTH, "the memory grew by {grown} bytes");
    assert!(right > 0 && right < count, "{right} of {count} were right: the requests are too wrong, or not wrong");
}
