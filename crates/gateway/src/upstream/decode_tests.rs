use super::*;

/// A body's data and trailers, and the bytes behind it.
type Whole = (Vec<u8>, Option<HeaderMap>, Vec<u8>);

/// All of a body that comes in pieces of `size` bytes.
fn read(mut decoder: Decoder, bytes: &[u8], size: usize) -> Result<Whole, String> {
    let (mut input, mut data, mut trailers) = (BytesMut::new(), Vec::new(), None);
    let mut pieces = bytes.chunks(size);
    loop {
        match decoder.take(&mut input)? {
            Decoded::End => break,
            Decoded::More => input.extend_from_slice(pieces.next().ok_or("it ended early")?),
            Decoded::Frame(frame) => match frame.into_data() {
                Ok(piece) => data.extend_from_slice(&piece),
                Err(frame) => trailers = frame.into_trailers().ok(),
            },
        }
    }
    Ok((data, trailers, [input.to_vec(), pieces.flatten().copied().collect()].concat()))
}

#[test]
fn a_body_of_a_known_length_ends_there() {
    for size in [1, 3, 100] {
        let (data, trailers, behind) = read(Decoder::Length(5), b"hellomore", size).expect("read");
        assert_eq!((&*data, trailers, &*behind), (&b"hello"[..], None, &b"more"[..]));
        assert_eq!(read(Decoder::Length(10), b"hello", size).expect_err("cut"), "it ended early");
    }
}

#[test]
fn chunks_are_joined_however_they_arrive() {
    let body = b"5\r\nhello\r\n1;a=b;c\r\n \r\n00A  ;x\r\n0123456789\r\n0\r\n\r\nHTTP";
    for size in 1..body.len() {
        let (data, trailers, behind) = read(Decoder::chunked(), body, size).expect("read");
        assert_eq!((&*data, trailers, &*behind), (&b"hello 0123456789"[..], None, &b"HTTP"[..]), "pieces of {size}");
    }
}

#[test]
fn trailers_come_last() {
    for size in [1, 2, 7, 100] {
        let body = b"1\r\na\r\n0\r\nX-Sum: 5\r\nx-sum:6 \r\n\r\n";
        let (data, trailers, behind) = read(Decoder::chunked(), body, size).expect("read");
        let trailers = trailers.expect("there are some");
        assert_eq!(trailers.get_all("x-sum").iter().collect::<Vec<_>>(), ["5", "6"]);
        assert_eq!((&*data, behind.len()), (&b"a"[..], 0));
    }
}

#[test]
fn what_could_be_read_in_two_ways_is_not_read() {
    for wrong in [
        &b"5\nhello\r\n0\r\n\r\n"[..],
        b"5\r\nhello0\r\n\r\n",
        b"5\r\nhelloxx0\r\n\r\n",
        b"5\r\nhello\n\n0\r\n\r\n",
        b"-5\r\nhello\r\n",
        b"+5\r\nhello\r\n",
        b"0x5\r\nhello\r\n",
        b" 5\r\nhello\r\n",
        b"5 5\r\nhello\r\n",
        b"\r\nhello\r\n",
        b";a\r\nhello\r\n",
        b"5\r;a\r\nhello\r\n",
        b"10000000000000000\r\nhello",
        b"fffffffffffffffff\r\nhello",
        b"0\r\nx y: 1\r\n\r\n",
        b"0\r\n: 1\r\n\r\n",
    ] {
        for size in [1, 100] {
            let found = read(Decoder::chunked(), wrong, size).expect_err("unreadable");
            assert_ne!(found, "it ended early", "{}", String::from_utf8_lossy(wrong));
        }
    }
}

#[test]
fn lines_and_trailers_without_an_end_are_bounded() {
    let mut line = b"5;".to_vec();
    line.resize(1 << 20, b'a');
    assert_ne!(read(Decoder::chunked(), &line, 4096).expect_err("too long"), "it ended early");
    let mut trailers = b"0\r\n".to_vec();
    trailers.extend(b"x: y\r\n".repeat(1 << 16));
    assert_ne!(read(Decoder::chunked(), &trailers, 4096).expect_err("too long"), "it ended early");
}

proptest::proptest! {
    #[test]
    fn no_bytes_make_it_panic(body in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..100), size in 1_usize..9) {
        let _read = read(Decoder::chunked(), &body, size);
    }
}
