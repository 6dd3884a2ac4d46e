//! The limit for the header of an HTTP/2 request. It is checked here because the error response of h2 itself has no
//! body.

use http::{Request, Version};

/// The error for a header that is too large, over HTTP/1 and HTTP/2.
pub(super) const TOO_LARGE: &str = "the request's headers are too long or too many: at most 100 headers are read, and 256 \
                                    KiB in all (16 KiB over HTTP/2)";

/// The header size that h2 reads. It answers a longer header without a body, and closes the connection at four times
/// the size.
pub const MOST_READ: u32 = 1 << 20;

/// Maximum number of headers of a request.
const MOST_HEADERS: usize = 100;

/// Maximum size of a request's path and headers, without HTTP/2's 32 bytes per header. It is smaller than over HTTP/1,
/// because a client may have a thousand requests in progress on one connection.
const LONGEST: usize = 16 << 10;

/// The 431 response for a request whose header is too large. Over HTTP/1, hyper refuses it.
pub fn too_large<B>(request: &Request<B>) -> Option<&'static str> {
    if request.version() != Version::HTTP_2 {
        return None;
    }
    let path = request.uri().path_and_query().map_or(0, |path| path.as_str().len());
    let headers = request.headers();
    let length: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    (headers.len() > MOST_HEADERS || path + length > LONGEST).then_some(TOO_LARGE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_of_http2_is_bounded_in_length_and_in_headers() {
        let is = |version: Version, headers: usize, length: usize| {
            let mut request = Request::get("http://localhost/v2").version(version);
            for n in 0..headers {
                request = request.header(format!("x-{n}"), "y".repeat(length));
            }
            too_large(&request.body(()).expect("a request")).is_some()
        };
        for (headers, length, wanted) in
            [(0, 0, false), (100, 1, false), (101, 1, true), (1, 16_000, false), (2, 8_200, true)]
        {
            assert_eq!(is(Version::HTTP_2, headers, length), wanted, "{headers} headers of {length} bytes");
            assert!(!is(Version::HTTP_11, headers, length), "hyper refuses these");
        }
    }
}
