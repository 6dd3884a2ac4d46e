use std::task::Waker;

use super::*;

/// A socket that takes `step` bytes at a time.
struct Slow {
    taken: Vec<u8>,
    step: usize,
}

impl AsyncWrite for Slow {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let count = data.len().min(self.step);
        self.taken.extend_from_slice(&data[..count]);
        Poll::Ready(Ok(count))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let all: Vec<u8> = parts.iter().flat_map(|part| part.iter().copied()).collect();
        let count = all.len().min(self.step);
        self.taken.extend_from_slice(&all[..count]);
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

fn sent(request: http::request::Builder, body: &[u8], step: usize) -> String {
    let mut request = request.body(SendBody::held(Bytes::copy_from_slice(body))).expect("a request");
    let (mut outgoing, mut socket) = (Outgoing::new(), Slow { taken: Vec::new(), step });
    outgoing.begin(&mut request);
    let done = outgoing.poll(&mut socket, &mut Context::from_waker(Waker::noop()));
    assert!(matches!(done, Poll::Ready(Ok(()))) && outgoing.is_done() && outgoing.begun);
    String::from_utf8(socket.taken).expect("text")
}

#[test]
fn a_request_is_written_with_the_length_of_its_body() {
    let request = || Request::post("/v2/models/a/infer?x=1").header("x-a", "1").header("X-A", "2");
    for step in [1, 7, 1 << 20] {
        let expected = "POST /v2/models/a/infer?x=1 HTTP/1.1\r\nx-a: 1\r\nx-a: 2\r\ncontent-length: 2\r\n\r\nhi";
        assert_eq!(sent(request(), b"hi", step), expected);
        let long = "x".repeat(JOINED + 1);
        let expected = format!("x-a: 2\r\ncontent-length: {}\r\n\r\n{long}", long.len());
        assert!(sent(request(), long.as_bytes(), step).ends_with(&expected));
    }
}

#[test]
fn what_a_client_said_of_the_framing_is_not_sent_on() {
    let request = Request::post("/").header("content-length", "99").header("transfer-encoding", "chunked");
    assert_eq!(sent(request, b"hi", 100), "POST / HTTP/1.1\r\ncontent-length: 2\r\n\r\nhi");
    assert_eq!(sent(Request::get("/").header("content-length", "99"), b"", 100), "GET / HTTP/1.1\r\n\r\n");
    assert_eq!(sent(Request::put("/"), b"", 100), "PUT / HTTP/1.1\r\ncontent-length: 0\r\n\r\n");
}
