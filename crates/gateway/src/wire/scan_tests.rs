use proptest::prelude::*;

use super::*;

fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![number << 3 | 2];
    let mut length = bytes.len();
    while length > 0x7f {
        out.push(u8::try_from(length & 0x7f).expect("seven bits") | 0x80);
        length >>= 7;
    }
    out.push(u8::try_from(length).expect("seven bits"));
    out.extend_from_slice(bytes);
    out
}

fn framed(message: &[u8]) -> Vec<u8> {
    let mut out = vec![0];
    out.extend_from_slice(&u32::try_from(message.len()).expect("short").to_be_bytes());
    out.extend_from_slice(message);
    out
}

fn scanner(pieces: &[&[u8]], encoding: Option<&[u8]>) -> Result<Scanner, Refusal> {
    let mut scanner = Scanner::new(encoding);
    for piece in pieces {
        scanner.read(piece)?;
    }
    Ok(scanner)
}

#[track_caller]
fn finds(body: &[u8], name: &str, version: Option<&str>, whole: bool) {
    let in_bytes: Vec<&[u8]> = body.chunks(1).collect();
    for pieces in [vec![body], in_bytes] {
        let scanner = scanner(&pieces, None).expect("readable");
        assert_eq!(scanner.found(), Found::Model);
        assert_eq!((&*scanner.name(), scanner.version().as_deref(), scanner.whole()), (name, version, whole));
    }
}

#[test]
fn the_model_is_read_from_a_whole_message_in_any_order() {
    let (name, version, data) = (field(1, b"iris"), field(2, b"v1"), field(5, &[0; 300]));
    for order in [[&name, &version, &data], [&data, &version, &name], [&name, &data, &version]] {
        finds(&framed(&order.map(Vec::as_slice).concat()), "iris", Some("v1"), true);
    }
    finds(&framed(&[]), "", None, true);
    finds(&framed(&[field(1, b"old"), field(1, b"new")].concat()), "new", None, true);
}

#[test]
fn the_model_is_read_from_the_beginning_of_a_long_message() {
    let message = [field(1, b"iris"), field(2, b"v1"), field(7, &[0; 5000])].concat();
    let body = framed(&message);
    finds(&body[..100], "iris", Some("v1"), false);
    for short in [0, 4, 8, 11, 14] {
        assert_eq!(scanner(&[&body[..short]], None).expect("readable").found(), Found::More, "{short} bytes");
    }
}

#[test]
fn a_second_message_is_left_alone() {
    let one = framed(&field(1, b"iris"));
    let two = [one.clone(), framed(&field(1, b"digits"))].concat();
    let mut scanner = Scanner::new(None);
    assert_eq!(scanner.read(&two).expect("readable"), one.len());
    assert_eq!(scanner.name(), "iris");
}

#[test]
fn what_cannot_be_read_is_refused() {
    let refused = |body: &[u8], encoding| scanner(&[body], encoding).expect_err("it is refused").status;
    let mut compressed = framed(&field(1, b"iris"));
    compressed[0] = 1;
    // As gRPC has it: the call says that nothing is compressed.
    assert_eq!(refused(&compressed, None), StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(refused(&compressed, Some(b"identity")), StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(refused(&compressed, Some(b"snappy")), StatusCode::NOT_IMPLEMENTED);
    assert_eq!(refused(&compressed, Some(b"gzip")), StatusCode::BAD_REQUEST);
    assert_eq!(refused(&framed(&[0x0f, 1, 2]), None), StatusCode::BAD_REQUEST);
    assert_eq!(refused(&framed(&[0x0a, 200, 1]), None), StatusCode::BAD_REQUEST, "cut short");
    assert_eq!(refused(&framed(&[0x80; 12]), None), StatusCode::BAD_REQUEST, "a number without an end");
}

#[test]
fn names_are_bounded_before_they_are_read() {
    for number in [1, 2] {
        let body = framed(&field(number, &[b'x'; LONGEST_NAME + 1]));
        assert_eq!(scanner(&[&body[..20]], None).expect_err("too long").status, StatusCode::BAD_REQUEST);
    }
    finds(&framed(&field(1, &[b'x'; LONGEST_NAME])), &"x".repeat(LONGEST_NAME), None, true);
}

fn packed(message: &[u8], how: &str) -> Vec<u8> {
    let bytes = if how == "gzip" {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(message).expect("packed");
        encoder.finish().expect("packed")
    } else {
        let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(message).expect("packed");
        encoder.finish().expect("packed")
    };
    let mut body = framed(&bytes);
    body[0] = 1;
    body
}

#[test]
fn a_compressed_message_says_its_model_too() {
    let message = [field(1, b"iris"), field(2, b"v1"), field(7, &[7; 500_000])].concat();
    for how in ["gzip", "deflate"] {
        let body = packed(&message, how);
        for size in [1, 100, body.len()] {
            let pieces: Vec<_> = body.chunks(size).collect();
            let scanner = scanner(&pieces, Some(how.as_bytes())).expect("readable");
            assert_eq!((&*scanner.name(), scanner.version().as_deref()), ("iris", Some("v1")), "{how} in {size}s");
        }
        let short = packed(&field(1, b"iris"), how);
        assert_eq!(scanner(&[&short], Some(how.as_bytes())).expect("readable").name(), "iris");
    }
}

#[test]
fn a_compressed_message_is_unpacked_only_so_far() {
    let bomb = packed(&[field(7, &vec![0; 100 << 20]), field(1, b"iris")].concat(), "gzip");
    let refusal = scanner(&[&bomb], Some(b"gzip")).expect_err("too far behind");
    assert!(refusal.words.contains("fields in order"), "{}", refusal.words);
}

#[test]
fn fields_in_pieces_of_a_byte_are_read_once() {
    // Rereading everything for each byte would look at two billion bytes here, and take seconds.
    let mut message = Vec::new();
    while message.len() < 64 << 10 {
        message.extend_from_slice(&[0x98, 0x06, 0x01]);
    }
    message.extend_from_slice(&field(1, b"iris"));
    let body = framed(&message);
    let mut scanner = Scanner::new(None);
    for byte in body.chunks(1) {
        scanner.read(byte).expect("readable");
    }
    assert_eq!(scanner.name(), "iris");
    assert_eq!(scanner.fields.seen, message.len(), "each byte once");
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(body in proptest::collection::vec(any::<u8>(), 0..200), packed in any::<bool>()) {
        let _read = scanner(&[&body], Some(b"gzip"));
        let mut framed = framed(&body);
        framed[0] = u8::from(packed);
        let _read = scanner(&[&framed], Some(b"deflate"));
    }

    #[test]
    fn pieces_make_no_difference(body in proptest::collection::vec(any::<u8>(), 0..80), size in 1_usize..9) {
        let body = framed(&body);
        let pieces: Vec<_> = body.chunks(size).collect();
        let (one, many) = (scanner(&[&body], None), scanner(&pieces, None));
        prop_assert_eq!(one.is_ok(), many.is_ok());
        if let (Ok(one), Ok(many)) = (one, many) {
            prop_assert_eq!((one.name(), one.version(), one.found()), (many.name(), many.version(), many.found()));
        }
    }
}
