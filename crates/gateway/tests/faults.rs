//! Replicas that fail: who notices, and what a client is told.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod harness;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use api::{ejected::Cause, route::form1::Route};
use base::Tasks;
use harness::{Control, Gateway, Manner, Replica, eventually, revision, route};

async fn pair(one: Manner, other: Manner, idempotent: bool) -> (Replica, Replica, Control, Gateway) {
    let (one, other) = (Replica::start("a", one).await, Replica::start("b", other).await);
    let control = Control::start().await;
    control.set(1, Some(Route { idempotent, ..route("iris", &[&one, &other]) }));
    let gateway = Gateway::start(&control).await;
    gateway.until_known("md-1").await;
    (one, other, control, gateway)
}

#[tokio::test]
async fn a_replica_that_refuses_connections_costs_no_request_and_is_avoided() {
    let (dead, living, _control, gateway) = pair(Manner::Well, Manner::Well, false).await;
    dead.kill().await;
    for _ in 0..50 {
        let (code, headers, _) = gateway.infer("iris").await;
        assert_eq!((code, headers["x-modelway-replica"].to_str().unwrap()), (200, "b"));
    }
    assert_eq!(living.requests(), 50);
    let (_, _, metrics) = gateway.get("/metrics").await;
    let retries: u32 = value(&metrics, "modelway_gateway_retries_total ").parse().unwrap();
    assert!((1..=10).contains(&retries), "{retries} tries went to a replica that was known to be dead");
    assert!(metrics.contains(r#"modelway_gateway_ejections_total{deployment="md-1",replica="a"}"#), "{metrics}");
    gateway.stop().await;
}

#[tokio::test]
async fn a_replica_killed_under_load_costs_no_request() {
    let (one, two, _control, gateway) = pair(Manner::Late(2), Manner::Late(2), true).await;
    let load = Load::begin(&gateway, 8);
    load.until(200).await;
    one.kill().await;
    load.until(600).await;
    load.end_without_failures().await;
    assert!(two.requests() > 300);
    gateway.stop().await;
}

#[tokio::test]
async fn a_rolling_change_under_load_costs_no_request() {
    let (one, two, control, gateway) = pair(Manner::Late(1), Manner::Late(1), true).await;
    let load = Load::begin(&gateway, 8);
    let (three, four) = (Replica::start("c", Manner::Late(1)).await, Replica::start("d", Manner::Late(1)).await);
    for (number, replicas) in [(1, vec![&one, &two]), (2, vec![&three]), (2, vec![&three, &four])] {
        let revisions = vec![revision(number, "v1", 100, &replicas)];
        control.set(1, Some(Route { revisions, ..route("iris", &[]) }));
        let so_far = load.done();
        load.until(so_far + 150).await;
    }
    one.kill().await;
    two.kill().await;
    let so_far = load.done();
    load.until(so_far + 150).await;
    load.end_without_failures().await;
    assert!(four.requests() > 0);
    gateway.stop().await;
}

#[tokio::test]
async fn a_request_that_may_have_begun_goes_elsewhere_only_if_that_is_harmless() {
    let (one, other, control, gateway) = pair(Manner::HangUp, Manner::HangUp, true).await;
    other.behave(Manner::Well);
    for _ in 0..4 {
        assert_eq!(gateway.infer("iris").await.0, 200);
    }
    assert!(one.requests() >= 1, "it was tried");
    let three = Replica::start("c", Manner::HangUp).await;
    control.set(2, Some(Route { idempotent: false, ..route("once", &[&three]) }));
    gateway.until_known("once").await;
    let (code, _, text) = gateway.infer("once").await;
    assert_eq!((code, three.requests()), (502, 1));
    assert!(text.contains("the connection to c broke") && text.contains("not sent again"), "{text}");
    gateway.stop().await;
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_seen_to_be_broken() {
    static BREAK_OFF: tokio::sync::Notify = tokio::sync::Notify::const_new();
    let (replica, _control, gateway) = Gateway::simple(Manner::HalfAnswer(&BREAK_OFF)).await;
    let response = gateway.client.post(gateway.url("/v2/models/iris/infer")).body("{}").send().await.unwrap();
    assert_eq!(response.status(), 200);
    BREAK_OFF.notify_one();
    assert!(response.text().await.is_err(), "the client must not take half an answer for all of it");
    replica.behave(Manner::Well);
    let (code, _, text) = gateway.infer("iris").await;
    assert_eq!(code, 200, "the last replica is never given up: {text}");
    gateway.stop().await;
}

#[tokio::test]
async fn a_replica_that_fails_fast_does_not_draw_the_load() {
    let (bad, good, _control, gateway) = pair(Manner::Status(500), Manner::Late(5), true).await;
    let load = Load::begin(&gateway, 8);
    load.until(200).await;
    let (done, failed) = load.end().await;
    assert!(failed * 5 < done, "{failed} of {done} went to the replica that only fails");
    assert!(good.requests() > bad.requests() * 3);
    gateway.stop().await;
}

#[tokio::test]
async fn a_503_is_repeated_elsewhere_only_if_nothing_was_begun() {
    for idempotent in [true, false] {
        let (one, two, _control, gateway) = pair(Manner::NotBegun, Manner::Well, idempotent).await;
        for _ in 0..10 {
            let (code, headers, _) = gateway.infer("iris").await;
            assert_eq!(code, 200);
            assert!(!headers.contains_key(api::replica::NOT_BEGUN_HEADER));
        }
        assert!(one.requests() >= 1);
        // Begun and given up: it may have done something.
        one.behave(Manner::Status(503));
        two.behave(Manner::Status(503));
        let before = one.requests() + two.requests();
        assert_eq!(gateway.infer("iris").await.0, 503);
        assert_eq!(one.requests() + two.requests(), before + 1, "idempotent: {idempotent}");
        // With everybody full the client is told what the last one said.
        one.behave(Manner::NotBegun);
        two.behave(Manner::NotBegun);
        let (code, headers, _) = gateway.infer("iris").await;
        assert_eq!((code, headers.contains_key(api::replica::NOT_BEGUN_HEADER)), (503, false));
        gateway.stop().await;
    }
}

#[tokio::test]
async fn a_fatal_request_ends_two_replicas_at_most_and_nobody_beside_it_fails() {
    let mut replicas = Vec::new();
    for name in ["a", "b", "c", "d"] {
        replicas.push(Replica::start(name, Manner::Fatal).await);
    }
    let control = Control::start().await;
    control.set(1, Some(route("iris", &replicas.iter().collect::<Vec<_>>())));
    let gateway = Gateway::start(&control).await;
    gateway.until_known("md-1").await;
    let dead = || replicas.iter().filter(|replica| replica.is_dead()).count();
    let load = Load::begin(&gateway, 16);
    load.until(100).await;
    let (code, headers, text) = gateway.post("/v2/models/iris/infer", "poison").await;
    assert_eq!((code, dead()), (502, 2), "{text}");
    let said = ["broke before it answered", "not sent again", "had broken with it before"];
    assert!(said.iter().all(|words| text.contains(words)), "{text}");
    assert!(headers.contains_key("x-request-id"));
    // The same request again costs no second replica.
    let (code, _, text) = gateway.post("/v2/models/iris/infer", "poison").await;
    assert_eq!((code, dead()), (502, 3), "{text}");
    assert!(text.contains("crashed two replicas a short time ago"), "{text}");
    let so_far = load.done();
    load.until(so_far + 100).await;
    load.end_without_failures().await;
    gateway.stop().await;
}

#[tokio::test]
async fn a_fatal_request_ends_one_replica_where_requests_are_not_idempotent() {
    let (one, two, _control, gateway) = pair(Manner::Fatal, Manner::Fatal, false).await;
    let (code, _, text) = gateway.post("/v2/models/iris/infer", "poison").await;
    assert_eq!((code, u8::from(one.is_dead()) + u8::from(two.is_dead())), (502, 1), "{text}");
    assert!(text.contains("not idempotent"), "{text}");
    assert_eq!(gateway.infer("iris").await.0, 200);
    gateway.stop().await;
}

#[tokio::test]
async fn a_frozen_replica_gets_nothing_until_it_answers_a_probe() {
    let (one, two, control, gateway) = pair(Manner::Well, Manner::Well, true).await;
    one.behave(Manner::Frozen);
    let load = Load::begin(&gateway, 2);
    let told = r#"modelway_gateway_ejections_total{deployment="md-1",replica="a"} 1"#;
    let begun = Instant::now();
    gateway.until("it to be noticed", "/metrics", |text| text.contains(told)).await;
    assert!(begun.elapsed() < Duration::from_secs(8), "seconds, not {:?}", begun.elapsed());
    let before = one.requests();
    for _ in 0..100 {
        assert_eq!(gateway.infer("iris").await.0, 200);
    }
    assert_eq!(one.requests(), before, "what hangs gets nothing");
    let reported = eventually("a report of the ejection", || async {
        control.told.ejected.lock().unwrap().first().cloned().ok_or(())
    })
    .await;
    assert_eq!((reported.replica.0.as_str(), reported.cause, reported.pause_ms), ("a", Cause::Hung, None));
    one.behave(Manner::Well);
    let begun = Instant::now();
    while one.requests() == before {
        assert!(begun.elapsed() < Duration::from_secs(10), "it answers again and gets nothing");
        assert_eq!(gateway.infer("iris").await.0, 200);
    }
    assert!(two.requests() > 100);
    drop(load);
    gateway.stop().await;
}

#[tokio::test]
async fn a_replica_that_is_only_slow_is_not_taken_for_frozen() {
    let (one, _control, gateway) = Gateway::simple(Manner::Late(5_000)).await;
    let (code, _, metrics) = (gateway.infer("iris").await.0, (), gateway.get("/metrics").await.2);
    assert_eq!((code, one.requests()), (200, 1));
    assert!(!metrics.contains("ejections_total{"), "{metrics}");
    gateway.stop().await;
}

#[tokio::test]
async fn a_replica_that_is_too_slow_is_504_after_the_routes_timeout() {
    let (replica, control, gateway) = Gateway::simple(Manner::Never).await;
    control.set(1, Some(Route { request_timeout_ms: 200, ..route("iris", &[&replica]) }));
    control.set(2, Some(route("marker", &[])));
    gateway.until_known("marker").await;
    let begun = Instant::now();
    let (code, _, text) = gateway.infer("iris").await;
    assert_eq!(code, 504);
    assert!(text.contains("200 ms"), "{text}");
    assert!(begun.elapsed() < Duration::from_secs(5));
    assert_eq!(replica.requests(), 1, "a slow request is not repeated");
    gateway.stop().await;
}

#[tokio::test]
async fn a_replica_that_hangs_is_avoided() {
    let (hung, good, control, gateway) = pair(Manner::Never, Manner::Well, true).await;
    control.set(1, Some(Route { request_timeout_ms: 100, ..route("iris", &[&hung, &good]) }));
    control.set(2, Some(route("marker", &[])));
    gateway.until_known("marker").await;
    let mut failed = 0;
    for _ in 0..40 {
        failed += u32::from(gateway.infer("iris").await.0 != 200);
    }
    assert!((1..=10).contains(&failed), "{failed} of 40 were given to the replica that hangs");
    gateway.stop().await;
}

#[tokio::test]
async fn with_every_replica_gone_a_client_is_told_and_a_new_one_is_found_at_once() {
    let (replica, control, gateway) = Gateway::simple(Manner::Well).await;
    replica.kill().await;
    let (code, headers, text) = gateway.infer("iris").await;
    assert_eq!(code, 503);
    assert!(headers.contains_key("retry-after") && text.contains("no replica of md-1"), "{text}");
    let next = Replica::start("a2", Manner::Well).await;
    control.set(1, Some(route("iris", &[&next])));
    control.set(2, Some(route("marker", &[])));
    gateway.until_known("marker").await;
    assert_eq!(gateway.infer("iris").await.0, 200);
    gateway.stop().await;
}

#[tokio::test]
async fn a_kept_connection_that_ended_meanwhile_costs_no_request() {
    // Each answer of this replica is followed by the end of its connection, without a word.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let tasks = Tasks::new();
    tasks.spawn(async move {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"{}") {
                let Ok(byte) = stream.read_u8().await else { break };
                head.push(byte);
            }
            let _gone = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
        }
    });
    let control = Control::start().await;
    let replica = Replica::start("unused", Manner::Well).await;
    let mut route = Route { idempotent: false, ..route("iris", &[&replica]) };
    route.revisions[0].replicas[0].address = addr.to_string().parse().unwrap();
    control.set(1, Some(route));
    let gateway = Gateway::start(&control).await;
    gateway.until_known("md-1").await;
    for _ in 0..20 {
        let (code, _, text) = gateway.infer("iris").await;
        assert_eq!((code, text.as_str()), (200, "ok"));
    }
    gateway.stop().await;
}

fn value<'t>(metrics: &'t str, series: &str) -> &'t str {
    let line = metrics.lines().find(|line| line.starts_with(series));
    line.map_or_else(|| panic!("no {series} in {metrics}"), |line| &line[series.len()..])
}

/// Clients that ask again and again.
struct Load {
    tasks: Tasks,
    stop: Arc<AtomicBool>,
    done: Arc<AtomicUsize>,
    failed: Arc<std::sync::Mutex<Vec<String>>>,
}

impl Load {
    fn begin(gateway: &Gateway, clients: usize) -> Self {
        let load = Self { tasks: Tasks::new(), stop: Arc::default(), done: Arc::default(), failed: Arc::default() };
        for _ in 0..clients {
            let (client, url) = (gateway.client.clone(), gateway.url("/v2/models/iris/infer"));
            let (stop, done, failed) = (load.stop.clone(), load.done.clone(), load.failed.clone());
            load.tasks.spawn(async move {
                while !stop.load(Ordering::SeqCst) {
                    let failure = match client.post(&url).body("{}").send().await {
                        Ok(response) if response.status() == 200 => response.text().await.err().map(|e| e.to_string()),
                        Ok(response) => Some(format!("{} {}", response.status(), response.text().await.unwrap())),
                        Err(error) => Some(format!("{error:?}")),
                    };
                    failed.lock().unwrap().extend(failure);
                    done.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        load
    }

    fn done(&self) -> usize {
        self.done.load(Ordering::SeqCst)
    }

    async fn until(&self, count: usize) {
        let begun = Instant::now();
        while self.done() < count {
            assert!(begun.elapsed() < Duration::from_secs(30), "{} of {count} requests", self.done());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn end(self) -> (usize, usize) {
        self.stop.store(true, Ordering::SeqCst);
        assert!(self.tasks.stop_and_wait(Duration::from_secs(30)).await);
        (self.done(), self.failed.lock().unwrap().len())
    }

    async fn end_without_failures(self) {
        let failed = self.failed.clone();
        let (done, _) = self.end().await;
        let failed = failed.lock().unwrap();
        assert!(failed.is_empty(), "{} of {done} failed, first: {}", failed.len(), failed[0]);
    }
}
