//! What replicas may send beside plain answers, byte by byte.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod harness;

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use harness::{Control, Gateway, Manner, Replica, route};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

/// How a connection ends after the answer.
#[derive(Clone, Copy)]
enum Then {
    /// It waits for the next request.
    Waits,
    Ends,
    Resets,
}

/// A replica that gives this answer to every request with the body `{}`.
struct Scripted {
    route: api::route::Route,
    requests: Arc<AtomicUsize>,
    _tasks: Ending,
}

struct Ending(base::Tasks);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.stop();
    }
}

async fn scripted(answer: Vec<u8>, then: Then) -> Scripted {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    // Its address is another's.
    let other = Replica::start("odd", Manner::Well).await;
    let mut route = route("iris", &[&other]);
    route.revisions[0].replicas[0].address = listener.local_addr().unwrap().to_string().parse().unwrap();
    let (requests, tasks) = (Arc::new(AtomicUsize::new(0)), base::Tasks::new());
    let (counted, serving) = (Arc::clone(&requests), tasks.clone());
    tasks.spawn(async move {
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted.unwrap().0,
                () = serving.stopping() => return,
            };
            let (answer, counted) = (answer.clone(), Arc::clone(&counted));
            serving.spawn(async move {
                // A client that leaves ends it.
                let _left = serve(accepted, &answer, then, &counted).await;
            });
        }
    });
    Scripted { route, requests, _tasks: Ending(tasks) }
}

async fn serve(mut stream: TcpStream, answer: &[u8], then: Then, counted: &AtomicUsize) -> std::io::Result<()> {
    loop {
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n{}") {
            request.push(stream.read_u8().await?);
        }
        counted.fetch_add(1, Ordering::SeqCst);
        stream.write_all(answer).await?;
        match then {
            Then::Waits => {}
            Then::Ends => return Ok(()),
            Then::Resets => {
                // What was sent must be there before the reset is.
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                return reset(&stream);
            }
        }
    }
}

fn reset(stream: &TcpStream) -> std::io::Result<()> {
    #[allow(deprecated, reason = "with no time to linger it does not block, and resets")]
    stream.set_linger(Some(std::time::Duration::ZERO))
}

async fn gateway_before(replica: &Scripted) -> (Control, Gateway) {
    let control = Control::start().await;
    control.set(1, Some(replica.route.clone()));
    let gateway = Gateway::start(&control).await;
    gateway.until_known("md-1").await;
    (control, gateway)
}

const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

#[tokio::test]
async fn answers_of_unusual_form_come_whole() {
    let cases: [(&str, Vec<u8>, Then); 6] = [
        ("an interim answer", [b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n", OK].concat(), Then::Waits),
        (
            "interim answers",
            [&b"HTTP/1.1 100 Continue\r\n\r\n"[..]; 3].concat().into_iter().chain(OK.to_vec()).collect(),
            Then::Waits,
        ),
        (
            "trailers",
            b"HTTP/1.1 200 OK\r\ntrailer: x\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nx: y\r\n\r\n".to_vec(),
            Then::Waits,
        ),
        (
            "a value that is no UTF-8",
            b"HTTP/1.1 200 OK\r\nx-odd: \xff\xfe\r\ncontent-length: 2\r\n\r\nok".to_vec(),
            Then::Waits,
        ),
        ("no length", b"HTTP/1.1 200 OK\r\n\r\nok".to_vec(), Then::Ends),
        ("HTTP/1.0", b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok".to_vec(), Then::Ends),
    ];
    for (what, answer, then) in cases {
        let replica = scripted(answer, then).await;
        let (_control, gateway) = gateway_before(&replica).await;
        for _ in 0..3 {
            let (status, headers, body) = gateway.infer("iris").await;
            assert_eq!((status, body.as_str()), (200, "ok"), "{what}");
            assert_eq!(headers["x-modelway-replica"], "odd");
            if what.starts_with("a value") {
                assert_eq!(headers["x-odd"].as_bytes(), b"\xff\xfe");
            }
        }
        assert_eq!(replica.requests.load(Ordering::SeqCst), 3, "{what}");
        gateway.stop().await;
    }
}

#[tokio::test]
async fn an_answer_that_cannot_be_read_is_502_after_one_more_try_at_most() {
    let long = format!("HTTP/1.1 200 OK\r\nx: {}\r\ncontent-length: 2\r\n\r\nok", "y".repeat(1 << 20));
    let many: String = (0..200).map(|number| format!("x-{number}: 1\r\n")).collect();
    let many = format!("HTTP/1.1 200 OK\r\n{many}content-length: 2\r\n\r\nok");
    for (answer, then) in [
        (b"rubbish\r\n\r\n".to_vec(), Then::Ends),
        (long.into_bytes(), Then::Ends),
        (many.into_bytes(), Then::Ends),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2, 3\r\n\r\nok".to_vec(), Then::Ends),
        (b"HTTP/1.1 200 O".to_vec(), Then::Ends),
        (b"HTTP/1.1 200 O".to_vec(), Then::Resets),
        (Vec::new(), Then::Resets),
    ] {
        let shown = String::from_utf8_lossy(&answer[..answer.len().min(60)]).into_owned();
        let replica = scripted(answer, then).await;
        let (_control, gateway) = gateway_before(&replica).await;
        let (status, _, body) = gateway.infer("iris").await;
        assert_eq!(status, 502, "{shown}: {body}");
        assert!(body.contains("odd broke off before it answered"), "{shown}: {body}");
        let requests = replica.requests.load(Ordering::SeqCst);
        assert!(requests <= 2, "{shown}: it was sent {requests} times");
        gateway.stop().await;
    }
}

#[tokio::test]
async fn an_answer_that_breaks_off_after_its_head_breaks_off_at_the_client() {
    for (answer, then) in [
        (&b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n"[..], Then::Ends),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf", Then::Resets),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n", Then::Resets),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n", Then::Waits),
    ] {
        let replica = scripted(answer.to_vec(), then).await;
        let (_control, gateway) = gateway_before(&replica).await;
        // The head may be lost together with the connection.
        if let Ok(answer) = gateway.client.post(gateway.url("/v2/models/iris/infer")).body("{}").send().await {
            assert_eq!(answer.status(), 200);
            assert!(answer.bytes().await.is_err(), "what is cut off must not look whole");
        }
        assert_eq!(replica.requests.load(Ordering::SeqCst), 1, "it is not sent again");
        gateway.stop().await;
    }
}

#[tokio::test]
async fn what_comes_behind_an_answer_is_nobodys_answer() {
    let evil = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil";
    let replica = scripted([OK, evil].concat(), Then::Waits).await;
    let (_control, gateway) = gateway_before(&replica).await;
    for _ in 0..5 {
        let (status, _, body) = gateway.infer("iris").await;
        assert_eq!((status, body.as_str()), (200, "ok"));
    }
    gateway.stop().await;
}
