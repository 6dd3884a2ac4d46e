//! The id of a request, and which ids the gateway and the model server accept from clients.

/// The header for the id.
pub const HEADER: &str = "x-request-id";

/// Maximum length of an accepted id, in bytes.
pub const LONGEST: usize = 128;

/// Whether an id from a client is accepted: 1 to [`LONGEST`] ASCII letters, digits and `-_.:/+=`. Other characters
/// could forge a log line.
#[must_use]
pub fn is_plain(id: &[u8]) -> bool {
    !id.is_empty()
        && id.len() <= LONGEST
        && id.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b':' | b'/' | b'+' | b'='))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_that_could_forge_a_log_line_is_not_taken_over() {
        assert!(is_plain(b"7f3c-a_b.c:1/2+3="));
        assert!(is_plain(&[b'a'; LONGEST]));
        for wrong in [&b""[..], b"a b", b"a\"b", b"{}", b"a\xff", &[b'a'; LONGEST + 1]] {
            assert!(!is_plain(wrong), "{wrong:?}");
        }
    }
}
