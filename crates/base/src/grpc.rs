//! What a server reads of the head of a gRPC call, whatever the call is for.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Version, header::CONTENT_TYPE};

/// The time that the caller gives a call, from its head to the end of its answer.
pub static TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// The most digits of a timeout, and the largest number of so many.
const DIGITS: usize = 8;
const MOST: u128 = 99_999_999;

/// Whether a request is a gRPC call.
#[must_use]
pub fn is_call<B>(request: &Request<B>) -> bool {
    request.version() == Version::HTTP_2
        && request.method() == Method::POST
        && request.headers().get(CONTENT_TYPE).is_some_and(|kind| {
            let rest = kind.as_bytes().strip_prefix(b"application/grpc");
            // `application/grpc-web` is another protocol.
            rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';' | b' ')))
        })
}

/// The timeout of a call, if it has one.
///
/// # Errors
///
/// In words for the caller, if the header is not one to eight digits and a unit, or is there more than once.
pub fn timeout(headers: &HeaderMap) -> Result<Option<Duration>, String> {
    let mut values = headers.get_all(&TIMEOUT).iter();
    let Some(value) = values.next() else { return Ok(None) };
    match read(value.as_bytes()).filter(|_| values.next().is_none()) {
        Some(timeout) => Ok(Some(timeout)),
        None => Err(format!(
            "`grpc-timeout: {}` cannot be read: send one to eight digits and one of the units H, M, S, m, u, n, once",
            String::from_utf8_lossy(value.as_bytes())
        )),
    }
}

fn read(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.split_last()?;
    if digits.is_empty() || digits.len() > DIGITS || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let count: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    Some(match unit {
        b'H' => Duration::from_secs(count * 3600),
        b'M' => Duration::from_secs(count * 60),
        b'S' => Duration::from_secs(count),
        b'm' => Duration::from_millis(count),
        b'u' => Duration::from_micros(count),
        b'n' => Duration::from_nanos(count),
        _ => return None,
    })
}

/// A timeout as a header's value, to the microsecond where eight digits can tell it.
#[must_use]
pub fn timeout_value(timeout: Duration) -> HeaderValue {
    let units = [(timeout.as_micros(), 'u'), (timeout.as_millis(), 'm'), (u128::from(timeout.as_secs()), 'S')];
    let fitting = units.into_iter().find(|(count, _)| *count <= MOST);
    let (count, unit) = fitting.unwrap_or((u128::from(timeout.as_secs() / 3600).min(MOST), 'H'));
    // Digits and a letter are a value.
    HeaderValue::try_from(format!("{count}{unit}")).unwrap_or_else(|_| HeaderValue::from_static("0u"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: &[&'static str]) -> Result<Option<Duration>, String> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(&TIMEOUT, HeaderValue::from_static(value));
        }
        timeout(&headers)
    }

    #[test]
    fn timeouts_are_read_in_all_units_and_nothing_else_is() {
        let hours = Duration::from_secs(99_999_999 * 3600);
        for (value, wanted) in [
            ("5S", Duration::from_secs(5)),
            ("100m", Duration::from_millis(100)),
            ("0n", Duration::ZERO),
            ("99999999H", hours),
        ] {
            assert_eq!(of(&[value]), Ok(Some(wanted)), "{value}");
        }
        assert_eq!(of(&[]), Ok(None));
        for wrong in ["", "S", "5", "123456789S", "-1S", "+1S", "1 S", "1s", "1.5S"] {
            assert!(of(&[wrong]).unwrap_err().contains("grpc-timeout"), "{wrong}");
        }
        assert!(of(&["1S", "2S"]).is_err());
    }

    #[test]
    fn a_timeout_is_written_so_that_it_is_read_again_and_never_longer() {
        for (timeout, wanted) in [
            (Duration::ZERO, "0u"),
            (Duration::from_nanos(1_999), "1u"),
            (Duration::from_millis(99_999), "99999000u"),
            (Duration::from_secs(100), "100000m"),
            (Duration::from_secs(99_999_999), "99999999S"),
            (Duration::from_secs(100_000_000), "27777H"),
            (Duration::MAX, "99999999H"),
        ] {
            let value = timeout_value(timeout);
            assert_eq!(value, wanted);
            assert!(read(value.as_bytes()).unwrap() <= timeout);
        }
    }

    #[test]
    fn grpc_web_is_another_protocol() {
        for (kind, wanted) in [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("application/grpc;charset=utf-8", true),
            ("application/grpc-web", false),
            ("application/grpc-web+proto", false),
            ("application/json", false),
        ] {
            let request = Request::post("/").version(Version::HTTP_2).header(CONTENT_TYPE, kind).body(()).unwrap();
            assert_eq!(is_call(&request), wanted, "{kind}");
        }
    }
}
