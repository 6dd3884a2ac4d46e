//! Ten thousand deployments: how long a scan of a settled world takes, and what it costs in memory.
//! Run it by hand: `cargo test --release -p modelway-worker --test scale -- --ignored --nocapture`.

mod support;

use std::time::{Duration, Instant};

use api::State;
use backend::fake;
use base::metrics::Usage;
use modelway_worker::Config;
use support::{Site, quick, spec};

const DEPLOYMENTS: u64 = 10_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes a minute; the figures mean something only on a machine at rest"]
async fn ten_thousand_settled_deployments_cost_little() {
    let site = Site::new(fake::Config::default()).await;
    let start = Instant::now();
    for n in 0..DEPLOYMENTS {
        site.create(&spec(&format!("m{n}"), 1)).await;
    }
    println!("created {DEPLOYMENTS} in {:?}", start.elapsed());

    let start = Instant::now();
    let first = site.start(Config { scan_interval_ms: 3_600_000, ..quick() }).await;
    let all_active = async {
        loop {
            let counts = site.store.deployment_count().await.expect("counts");
            if counts.iter().any(|(state, count)| *state == State::Active && *count == DEPLOYMENTS) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_mins(5), all_active).await.expect("all to become active");
    println!("all active after {:?}", start.elapsed());
    first.stop().await;

    let start = Instant::now();
    let second = site.start(Config { scan_interval_ms: 3_600_000, ..quick() }).await;
    let scanned = || async { get(&second.addr, "modelway_worker_scans_total 1").await.then_some(()) };
    support::eventually("the first scan", scanned).await;
    let took = start.elapsed();
    let memory = Usage::of_self().memory_bytes >> 20;
    println!("first scan of a settled world complete after {took:?}, {memory} MiB resident");
    assert_eq!(site.machine.starts(), DEPLOYMENTS);
    assert!(get(&second.addr, "modelway_worker_scan_found_total 0").await, "a settled deployment was worked on");
    assert!(took < Duration::from_secs(5) && memory < 300, "{took:?}, {memory} MiB");
    second.stop().await;
}

/// Whether the metrics hold this line.
async fn get(addr: &str, line: &str) -> bool {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let Ok(mut stream) = tokio::net::TcpStream::connect(addr).await else { return false };
    let request = format!("GET /metrics HTTP/1.1\r\nhost: {addr}\r\nconnection: close\r\n\r\n");
    let mut answer = String::new();
    let sent = stream.write_all(request.as_bytes()).await;
    let read = stream.read_to_string(&mut answer).await;
    sent.is_ok() && read.is_ok() && answer.lines().any(|found| found == line)
}
