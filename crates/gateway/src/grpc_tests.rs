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

fn model(name: &str, version: &str, whole: bool) -> Scan {
    Scan::Model { name: name.to_owned(), version: version.to_owned(), whole }
}

#[test]
fn the_model_is_read_from_a_whole_message_in_any_order() {
    let ordered = [field(1, b"iris"), field(2, b"v1"), field(5, &[0; 300])].concat();
    assert_eq!(scan(&framed(&ordered)).expect("readable"), model("iris", "v1", true));
    let reversed = [field(5, &[0; 300]), field(2, b"v1"), field(1, b"iris")].concat();
    assert_eq!(scan(&framed(&reversed)).expect("readable"), model("iris", "v1", true));
    assert_eq!(scan(&framed(&[])).expect("readable"), model("", "", true));
}

#[test]
fn the_model_is_read_from_the_beginning_of_a_long_message() {
    let message = [field(1, b"iris"), field(2, b"v1"), field(7, &[0; 5000])].concat();
    let body = framed(&message);
    assert_eq!(scan(&body[..100]).expect("readable"), model("iris", "v1", false));
    for short in [0, 4, 8, 11, 14] {
        assert_eq!(scan(&body[..short]).expect("readable"), Scan::More, "{short} bytes");
    }
}

#[test]
fn what_cannot_be_read_is_refused() {
    let mut compressed = framed(&field(1, b"iris"));
    compressed[0] = 1;
    assert_eq!(scan(&compressed).expect_err("it is compressed").status, StatusCode::NOT_IMPLEMENTED);
    assert_eq!(scan(&framed(&[0x0f, 1, 2])).expect_err("no protobuf").status, StatusCode::BAD_REQUEST);
    assert_eq!(scan(&framed(&[0x0a, 200, 1])).expect_err("cut short").status, StatusCode::BAD_REQUEST);
}

#[test]
fn timeouts_are_read_in_all_units_and_nothing_else_is() {
    assert_eq!(read_timeout(b"5S"), Some(Duration::from_secs(5)));
    assert_eq!(read_timeout(b"100m"), Some(Duration::from_millis(100)));
    assert_eq!(read_timeout(b"99999999H"), Some(Duration::from_secs(99_999_999 * 3600)));
    for wrong in [&b""[..], b"S", b"5", b"123456789S", b"-1S"] {
        assert_eq!(read_timeout(wrong), None);
    }
}

#[test]
fn words_that_no_header_can_hold_are_encoded() {
    let response = refuse(&Refusal::new(StatusCode::NOT_FOUND, "100 % größer\n"));
    assert_eq!(response.headers()["grpc-status"], "5");
    assert_eq!(response.headers()["grpc-message"], "100 %25 gr%C3%B6%C3%9Fer%0A");
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(body in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _read = scan(&body);
        let _read = scan(&framed(&body));
    }
}
