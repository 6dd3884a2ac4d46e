//! The conformance suite for listeners: how they treat clients that are silent, slow, half closed or too many. The
//! tests of each listener call it.

use std::{fmt::Write as _, io, net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{sleep, timeout},
};

/// How long the suite waits for an expected event.
const PATIENCE: Duration = Duration::from_secs(30);
/// The interval of a client that sends single bytes, and of repeated checks.
const PAUSE: Duration = Duration::from_millis(20);

/// Beginnings of requests that never become complete.
const BEGINNINGS: [&str; 7] = [
    "",
    "P",
    "PRI * HTTP/2.0",
    "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
    "GET",
    "GET / HTTP/1.1\r\nhost: localhost\r\nx: ",
];

/// A listener under test. Its header timeouts should be one or two seconds at most.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'s> {
    /// Its address.
    pub address: SocketAddr,
    /// Its maximum number of connections.
    pub connections: usize,
    /// A path that answers 200.
    pub path: &'s str,
}

/// Runs the whole suite.
///
/// # Panics
/// If the listener violates its contract.
pub async fn suite(subject: Subject<'_>) {
    a_half_closing_client_gets_its_answer(subject).await;
    heads_that_never_end_give_their_places_back(subject).await;
    one_too_many_is_told_so(subject).await;
}

impl Subject<'_> {
    async fn connect(self) -> TcpStream {
        TcpStream::connect(self.address).await.expect("the listener accepts")
    }

    fn get(self) -> String {
        format!("GET {} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n", self.path)
    }

    /// The answer to a client that closes its sending half right after its request.
    async fn answer(self) -> io::Result<String> {
        let mut stream = self.connect().await;
        stream.write_all(self.get().as_bytes()).await?;
        stream.shutdown().await?;
        rest(&mut stream).await
    }

    /// Waits until a request is answered.
    async fn serves_again(self) {
        let served = async {
            while !self.answer().await.is_ok_and(|answer| answer.starts_with("HTTP/1.1 200")) {
                sleep(PAUSE).await;
            }
        };
        timeout(PATIENCE, served).await.expect("places are free again");
    }
}

async fn rest(stream: &mut TcpStream) -> io::Result<String> {
    let mut answer = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("it is closed in time")?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

async fn a_half_closing_client_gets_its_answer(subject: Subject<'_>) {
    let answer = subject.answer().await.expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

async fn heads_that_never_end_give_their_places_back(subject: Subject<'_>) {
    let mut held = Vec::new();
    for number in 0..subject.connections {
        let mut stream = subject.connect().await;
        // There may still be one too many, because earlier connections close with a delay.
        let _ = stream.write_all(BEGINNINGS[number % BEGINNINGS.len()].as_bytes()).await;
        held.push(stream);
    }
    // A header that never becomes complete.
    let dripping = async {
        let mut stream = subject.connect().await;
        let mut head = String::from("GET / HTTP/1.1\r\n");
        for number in 0.. {
            let _ = write!(head, "x-{number}: y\r\n");
            if stream.write_all(head.as_bytes()).await.is_err() {
                break;
            }
            head.clear();
            sleep(PAUSE).await;
        }
    };
    let closed = async {
        for stream in &mut held {
            let _ = stream.read_to_end(&mut Vec::new()).await;
        }
    };
    let all = async { tokio::join!(dripping, closed) };
    timeout(PATIENCE, all).await.expect("connections without a whole head are closed");
    subject.serves_again().await;
}

async fn one_too_many_is_told_so(subject: Subject<'_>) {
    let request = subject.get();
    let refused = async {
        loop {
            let mut held = Vec::new();
            for _ in 0..subject.connections {
                held.push(subject.connect().await);
            }
            let mut stream = subject.connect().await;
            let sent = stream.write_all(request.as_bytes()).await;
            // A place may have become free in the meantime.
            let answer = rest(&mut stream).await.expect("a client that sent its request is not reset");
            if answer.starts_with("HTTP/1.1 503") {
                sent.expect("the refusal waits for the request");
                break answer;
            }
        }
    };
    let answer = timeout(PATIENCE, refused).await.expect("the limit of connections holds");
    assert!(answer.to_lowercase().contains("connection: close"), "{answer}");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    assert!(head.contains(&format!("content-length: {}", body.len())), "{answer}");
    subject.serves_again().await;
}
