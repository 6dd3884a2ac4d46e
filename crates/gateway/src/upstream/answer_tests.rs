use super::*;

/// The head of an answer that comes in pieces of `size` bytes, and what is behind it.
fn read(method: &Method, text: &[u8], size: usize) -> Result<Option<(Head, Vec<u8>)>, String> {
    let (mut input, mut looked) = (BytesMut::new(), Looked::default());
    let mut pieces = text.chunks(size);
    while let Some(piece) = pieces.next() {
        input.extend_from_slice(piece);
        if let Some(head) = take(&mut input, &mut looked, method, &mut HeaderMap::new())? {
            return Ok(Some((head, [input.to_vec(), pieces.flatten().copied().collect()].concat())));
        }
    }
    Ok(None)
}

fn head(text: &str) -> Head {
    read(&Method::POST, text.as_bytes(), text.len()).expect("readable").expect("whole").0
}

fn wrong(text: &str) -> String {
    read(&Method::POST, text.as_bytes(), text.len()).expect_err("unreadable")
}

#[test]
fn a_head_is_read_however_it_arrives() {
    let text = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Two: a\r\nx-two:  b \r\n\r\nhi";
    for size in 1..text.len() {
        let (head, behind) = read(&Method::POST, text, size).expect("readable").expect("whole");
        assert_eq!((head.response.status(), head.body, head.stays), (StatusCode::OK, Decoder::Length(2), true));
        assert_eq!(head.response.headers().get_all("x-two").iter().collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(behind, b"hi");
    }
}

#[test]
fn interim_answers_are_passed_over() {
    let text = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\nHTTP/1.1 204 No\r\n\r\n";
    for size in [1, 5, text.len()] {
        let (head, _) = read(&Method::POST, text.as_bytes(), size).expect("readable").expect("whole");
        assert_eq!((head.response.status(), head.body), (StatusCode::NO_CONTENT, Decoder::Done));
        assert!(head.response.headers().is_empty());
    }
    assert!(wrong("HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\n").contains("protocol"));
}

#[test]
fn the_body_is_framed_as_the_head_says() {
    for (headers, body, stays) in [
        ("content-length: 0\r\n", Decoder::Done, true),
        ("content-length: 5\r\ncontent-length: 5\r\n", Decoder::Length(5), true),
        ("content-length: 5, 5\r\n", Decoder::Length(5), true),
        ("transfer-encoding: chunked\r\n", Decoder::Size, true),
        ("transfer-encoding:  Chunked \r\n", Decoder::Size, true),
        ("transfer-encoding: chunked\r\ncontent-length: 5\r\n", Decoder::Size, true),
        ("connection: x, Close\r\ncontent-length: 5\r\n", Decoder::Length(5), false),
        ("connection: close\r\nconnection: keep-alive\r\ncontent-length: 5\r\n", Decoder::Length(5), false),
        ("", Decoder::UntilClosed, false),
    ] {
        let head = head(&format!("HTTP/1.1 200 OK\r\n{headers}\r\n"));
        assert_eq!((head.body, head.stays), (body, stays), "{headers}");
        let lengths: Vec<_> = head.response.headers().get_all(CONTENT_LENGTH).iter().collect();
        assert!(
            lengths.len() <= 1 && lengths.iter().all(|length| ["0", "5"].contains(&length.to_str().expect("text"))),
            "{headers}"
        );
        assert!(body != Decoder::Size || lengths.is_empty(), "one of two framings is left: {headers}");
    }
    let old = head("HTTP/1.0 200 OK\r\ncontent-length: 5\r\n\r\n");
    assert!(!old.stays);
    assert!(head("HTTP/1.0 200 OK\r\nconnection: Keep-Alive\r\ncontent-length: 5\r\n\r\n").stays);
    let (headless, _) =
        read(&Method::HEAD, b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n", 100).expect("readable").expect("whole");
    assert_eq!(headless.body, Decoder::Done);
    assert_eq!(headless.response.headers()["content-length"], "5");
}

#[test]
fn what_could_be_read_in_two_ways_is_not_read() {
    for headers in [
        "content-length: 5\r\ncontent-length: 6\r\n",
        "content-length: 5, 6\r\n",
        "content-length: +5\r\n",
        "content-length: -5\r\n",
        "content-length: 0x5\r\n",
        "content-length: 5 5\r\n",
        "content-length:\r\n",
        "content-length: 18446744073709551616\r\n",
        "content-length : 5\r\n",
        "transfer-encoding: gzip\r\ntransfer-encoding: chunked\r\n",
        "transfer-encoding: gzip, chunked\r\n",
        "transfer-encoding: chunked, chunked\r\n",
        "transfer-encoding: gzip\r\n",
        "transfer-encoding:\r\n",
        "a: b\r\n c\r\n",
        " a: b\r\n",
        "a\r\n",
        "a: b\rc: d\r\n",
        "a: b\0\r\n",
    ] {
        wrong(&format!("HTTP/1.1 200 OK\r\n{headers}\r\n"));
    }
    wrong("HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
    for line in ["HTTP/2 200 OK", "HTTP/1.1 20 OK", "HTTP/1.1 2000 OK", "ICY 200 OK", "HTTP/1.1 000 OK", "200 OK"] {
        wrong(&format!("{line}\r\n\r\n"));
    }
}

#[test]
fn a_head_is_bounded() {
    let mut text = b"HTTP/1.1 200 OK\r\n".to_vec();
    text.extend(b"a: bbbbbbbbbbbbbb\r\n".repeat(101));
    text.extend(b"\r\n");
    read(&Method::GET, &text, text.len()).expect_err("too many headers");
    let mut text = b"HTTP/1.1 200 OK\r\na: ".to_vec();
    text.resize(1 << 20, b'b');
    read(&Method::GET, &text, 1000).expect_err("too long");
}

#[test]
fn what_comes_before_a_head_is_bounded_and_costs_little() {
    let answer = "HTTP/1.1 204 No\r\n\r\n";
    for before in ["\r\n", "\n\r\n\r\n", "HTTP/1.1 100 Continue\r\n\r\n\r\n"] {
        for size in [1, 3, 100] {
            let text = before.to_owned() + answer;
            read(&Method::POST, text.as_bytes(), size).expect("readable").expect("whole");
        }
    }
    for endless in ["\r\n", "HTTP/1.1 100 Continue\r\n\r\n", "\r\nHTTP/1.1 103 Hints\r\nlink: x\r\n\r\n"] {
        let begun = std::time::Instant::now();
        read(&Method::POST, endless.repeat(100_000).as_bytes(), 2).expect_err("without end");
        assert!(begun.elapsed().as_millis() < 500, "{:?}", begun.elapsed());
    }
}

proptest::proptest! {
    #[test]
    fn no_bytes_make_it_panic(text in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..100), size in 1_usize..9) {
        let text = [b"HTTP/1.1 200 OK\r\n".to_vec(), text, b"\r\n\r\n".to_vec()].concat();
        let _read = read(&Method::GET, &text, size);
    }
}
