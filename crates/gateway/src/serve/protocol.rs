//! One client connection from its first byte to its last.

use std::{
    future::poll_fn,
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    task::Poll,
    time::Duration,
};

use base::{Tasks, serve::taking::while_taken};
use hyper::{
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::{
    connection::{ClientSocket, Conn, End},
    request,
};

/// How long the gateway reads from a client that still sends after its answer, so that the client can read the answer.
const LINGER: Duration = Duration::from_secs(2);
const LAST_WORDS: Duration = Duration::from_millis(250);
const HTTP2_KEEP_ALIVE: Duration = Duration::from_secs(20);
/// How much hyper may read ahead of a request.
const READ_AHEAD: usize = 256 << 10;

const SLOW_HEADERS: &[u8] = b"HTTP/1.1 408 Request Timeout\r\ncontent-type: application/json\r\nconnection: close\r\n\
content-length: 99\r\n\r\n\
{\"error\":\"the request's headers took too long (gateway.header_timeout_ms); send them in one piece\"}";

/// Serves a connection until it closes, by itself or because of [`Conn::end`].
pub(crate) async fn serve(stream: TcpStream, conn: Arc<Conn>) {
    let Some(speaks_http2) = speaks_http2(&stream, &conn).await else { return };
    let socket = ClientSocket::new(stream, Arc::clone(&conn));
    if speaks_http2 { Box::pin(serve_http2(socket, conn)).await } else { serve_http1(socket, conn).await }
}

async fn serve_http1(socket: ClientSocket, conn: Arc<Conn>) {
    let handler = Arc::clone(&conn);
    let mut http = http1::Builder::new()
        .header_read_timeout(None)
        .half_close(true)
        .max_buf_size(READ_AHEAD)
        .serve_connection(TokioIo::new(socket), service_fn(move |asked| request::handle(Arc::clone(&handler), asked)));
    let mut told = false;
    let ended = poll_fn(|cx| {
        match conn.poll_end(cx) {
            None => {}
            Some(End::Gracefully) if told => {}
            Some(End::Gracefully) => {
                told = true;
                Pin::new(&mut http).graceful_shutdown();
            }
            Some(why @ (End::Stalled | End::SlowHeaders)) => return Poll::Ready(Err(why)),
        }
        Pin::new(&mut http).poll(cx).map(Ok)
    })
    .await;
    match ended {
        Ok(ended) => log_end(ended),
        Err(End::SlowHeaders) => {
            let mut stream = http.into_parts().io.into_inner().into_stream();
            // The text fits into the empty send buffer; a client that is gone does not need it.
            let _told = tokio::time::timeout(LAST_WORDS, stream.write_all(SLOW_HEADERS)).await;
            let _told = tokio::time::timeout(LAST_WORDS, stream.shutdown()).await;
            return;
        }
        Err(End::Stalled | End::Gracefully) => return,
    }
    if conn.linger.load(Ordering::Relaxed) {
        let mut stream = http.into_parts().io.into_inner().into_stream();
        let mut scrap = vec![0; 64 << 10];
        // Closing with unread bytes resets the connection, and the client may lose the answer.
        let drain = async { while matches!(stream.read(&mut scrap).await, Ok(1..)) {} };
        let _gone = tokio::time::timeout(LINGER, drain).await;
    }
}

async fn serve_http2(socket: ClientSocket, conn: Arc<Conn>) {
    conn.http2.store(true, Ordering::Relaxed);
    let handler = Arc::clone(&conn);
    let gateway = &conn.lane.gateway;
    let most = Duration::from_millis(gateway.config.write_timeout_ms);
    let mut http = http2::Builder::new(Calls { tasks: gateway.tasks.clone(), most })
        .timer(TokioTimer::new())
        .keep_alive_interval(HTTP2_KEEP_ALIVE)
        .keep_alive_timeout(HTTP2_KEEP_ALIVE)
        .max_concurrent_streams(1_024)
        .max_header_list_size(base::serve::MOST_HEAD_READ)
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(4 << 20)
        .serve_connection(TokioIo::new(socket), service_fn(move |asked| request::handle(Arc::clone(&handler), asked)));
    let mut told = false;
    let ended = poll_fn(|cx| {
        match conn.poll_end(cx) {
            None => {}
            Some(End::Stalled | End::SlowHeaders) => return Poll::Ready(Ok(())),
            Some(End::Gracefully) if told => {}
            Some(End::Gracefully) => {
                told = true;
                Pin::new(&mut http).graceful_shutdown();
            }
        }
        Pin::new(&mut http).poll(cx)
    });
    log_end(ended.await);
}

/// Runs hyper's tasks, one per call.
#[derive(Clone)]
struct Calls {
    tasks: Tasks,
    /// How long a client may read nothing of an answer.
    most: Duration,
}

impl<F: Future<Output: Send> + Send + 'static> hyper::rt::Executor<F> for Calls {
    fn execute(&self, call: F) {
        self.tasks.spawn(while_taken(call, self.most));
    }
}

fn log_end(ended: Result<(), hyper::Error>) {
    if let Err(error) = ended {
        // The client disconnected or does not speak HTTP; that is no error of the gateway.
        tracing::debug!("a connection ended: {error}");
    }
}

/// Waits for the first bytes and returns whether they are HTTP/2. `None` if the connection closes before.
async fn speaks_http2(stream: &TcpStream, conn: &Conn) -> Option<bool> {
    let mut first = [0; 3];
    let peeked = poll_fn(|cx| {
        if conn.poll_end(cx).is_some() {
            return Poll::Ready(None);
        }
        stream.poll_peek(cx, &mut tokio::io::ReadBuf::new(&mut first)).map(Result::ok)
    });
    // "PRI * HTTP/2.0": no other method begins like this, and clients send it in one piece.
    match peeked.await? {
        0 => None,
        length => Some(length == first.len() && &first == b"PRI"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_to_slow_headers_is_well_formed() {
        let text = std::str::from_utf8(SLOW_HEADERS).expect("text");
        let (head, body) = text.split_once("\r\n\r\n").expect("a head and a body");
        assert!(head.contains(&format!("content-length: {}", body.len())), "{} bytes", body.len());
        serde_json::from_str::<serde_json::Value>(body).expect("JSON");
    }
}
