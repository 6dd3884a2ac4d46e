//! The metrics of all replicas on one page, whatever the replicas do.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod harness;

use std::time::{Duration, Instant};

use base::Tasks;
use harness::{Control, Gateway, Manner, Replica, route};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

const PAGE: &str = "/metrics/replicas";

/// What a replica sends to whoever asks it for anything, and then.
#[derive(Clone, Copy)]
enum Then {
    Close,
    Hang,
}

/// A replica that sends `bytes`; its route is that of `name`.
async fn raw(name: &'static str, bytes: Vec<u8>, then: Then) -> (Replica, api::route::RouteReplica) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let replica = Replica::start(name, Manner::Well).await;
    let mut of_raw = replica.route();
    of_raw.address = listener.local_addr().unwrap().to_string().parse().unwrap();
    let (tasks, spawner) = (Tasks::new(), Tasks::new());
    tasks.spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let bytes = bytes.clone();
            spawner.spawn(async move {
                let _asked = stream.read(&mut [0; 4096]).await;
                let _gone = stream.write_all(&bytes).await;
                if matches!(then, Then::Hang) {
                    std::future::pending::<()>().await;
                }
            });
        }
    });
    (replica, of_raw)
}

fn ok(head: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\n{head}content-length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

async fn with_replicas(replicas: Vec<api::route::RouteReplica>) -> (Control, Gateway) {
    let control = Control::start().await;
    let mut route = route("iris", &[]);
    route.revisions[0].replicas = replicas;
    control.set(1, Some(route));
    let gateway = Gateway::start(&control).await;
    gateway.until_known("md-1").await;
    (control, gateway)
}

fn line(name: &str, replica: &str, more: &str, value: &str) -> String {
    format!("{name}{{deployment=\"md-1\",revision=\"1\",replica=\"{replica}\"{more}}} {value}\n")
}

#[tokio::test]
async fn replicas_that_are_dead_frozen_or_talk_rubbish_do_not_spoil_the_page_of_others() {
    let good = "# HELP n Counts\n# TYPE n counter\nn_total{replica=\"own\"} 3\n# EOF\n";
    let open = "content-type: application/openmetrics-text; version=1.0.0\r\n";
    let (_a, a) = raw("a", ok(open, good), Then::Hang).await;
    let (_b, b) = raw("b", ok("", "# TYPE n_total counter\nn_total 4\n"), Then::Close).await;
    let frozen = Replica::start("frozen", Manner::Frozen).await;
    let dead = Replica::start("dead", Manner::Well).await;
    dead.kill().await;
    let (_c, rubbish) = raw("rubbish", b"\0\xff\xfe\r\n\r\n".to_vec(), Then::Close).await;
    let (_d, html) = raw("html", ok("", "<html>\n\u{0}</html>\n"), Then::Close).await;
    let (_e, half) =
        raw("half", b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nn_total 5\n".to_vec(), Then::Hang).await;
    let (_f, refusing) =
        raw("refusing", b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".to_vec(), Then::Close).await;
    let (_g, long) = raw("long", ok("", &"a 1\n".repeat(2 << 20)), Then::Close).await;
    let all = vec![a, b, frozen.route(), dead.route(), rubbish, html, half, refusing, long];
    let names = all.iter().map(|replica| replica.id.0.clone()).collect::<Vec<_>>();
    let (_control, gateway) = with_replicas(all).await;
    let begun = Instant::now();
    let (status, headers, text) = gateway.get(PAGE).await;
    let took = begun.elapsed();
    assert_eq!((status, headers["content-type"].to_str().unwrap()), (200, "text/plain; version=0.0.4; charset=utf-8"));
    assert!(took < Duration::from_secs(3), "{took:?}");
    for name in names {
        let up = if matches!(&*name, "a" | "b") { "1" } else { "0" };
        assert!(text.contains(&line("modelway_replica_up", &name, "", up)), "{name} in\n{text}");
    }
    let family = format!(
        "# HELP n_total Counts\n# TYPE n_total counter\n{}{}",
        line("n_total", "a", ",exported_replica=\"own\"", "3"),
        line("n_total", "b", "", "4")
    );
    assert!(text.ends_with(&family), "{text}");
    assert_eq!(frozen.requests(), 1, "it was asked");
    gateway.stop().await;
}

#[tokio::test]
async fn those_who_ask_at_once_share_one_question_to_each_replica() {
    let slow = Replica::start("slow", Manner::Late(200)).await;
    let (_control, gateway) = with_replicas(vec![slow.route()]).await;
    let pages = futures::future::join_all((0..50).map(|_| gateway.get(PAGE))).await;
    assert!(pages.iter().all(|page| page.0 == 200));
    assert!((1..=2).contains(&slow.requests()), "{} requests", slow.requests());
    gateway.stop().await;
}

#[tokio::test]
async fn many_replicas_that_hang_cost_a_bounded_time_and_no_request_of_others() {
    let frozen = Replica::start("frozen", Manner::Frozen).await;
    let well = Replica::start("well", Manner::Well).await;
    let routes = (0..1_500).map(|number| {
        let mut route = frozen.route();
        route.id = api::ReplicaId(format!("r{number}"));
        route
    });
    let (control, gateway) = with_replicas(routes.collect()).await;
    control.set(2, Some(route("well", &[&well])));
    gateway.until_known("well").await;
    let begun = Instant::now();
    let asking = gateway.get(PAGE);
    let predicting = async {
        let mut slowest = Duration::ZERO;
        while begun.elapsed() < Duration::from_secs(2) {
            let sent = Instant::now();
            assert_eq!(gateway.infer("well").await.0, 200);
            slowest = slowest.max(sent.elapsed());
        }
        slowest
    };
    let ((status, _, text), slowest) = tokio::join!(asking, predicting);
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    assert!(slowest < Duration::from_millis(500), "{slowest:?}");
    let up = text.lines().filter(|line| line.starts_with("modelway_replica_up{")).count();
    assert_eq!((status, up), (200, 1_000));
    assert!(text.contains("\nmodelway_replicas_not_asked 501\n"), "{text:.300}");
    gateway.stop().await;
}

#[tokio::test]
async fn many_who_ask_for_the_gateways_metrics_at_once_cost_one_scrape() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let replica = Replica::start("a", Manner::Well).await;
    let mut silent = replica.route();
    silent.address = listener.local_addr().unwrap().to_string().parse().unwrap();
    let (asked, tasks) = (std::sync::Arc::new(std::sync::Mutex::new(Vec::new())), Tasks::new());
    let asking = asked.clone();
    tasks.spawn(async move {
        loop {
            let stream = listener.accept().await.unwrap();
            asking.lock().unwrap().push(stream);
        }
    });
    let (_control, gateway) = with_replicas(vec![silent]).await;
    let pages = futures::future::join_all((0..40).map(|_| gateway.get("/metrics"))).await;
    assert!(pages.iter().all(|(code, _, page)| *code == 200 && page.ends_with("# EOF\n")));
    assert_eq!(asked.lock().unwrap().len(), 1);
    gateway.stop().await;
}
