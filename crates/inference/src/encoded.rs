//! Base64.

use base64::{DecodeError, Engine as _, engine::general_purpose::STANDARD};

/// Decodes base64. Line breaks are skipped: `base64` and Python's `encodebytes` write one after 76 characters.
///
/// # Errors
/// Text that is not base64.
pub fn decode_base64(text: impl AsRef<[u8]>) -> Result<Vec<u8>, DecodeError> {
    let text = text.as_ref();
    STANDARD.decode(text).or_else(|error| {
        let is_line_end = |byte: &u8| matches!(byte, b'\r' | b'\n');
        if !text.iter().any(is_line_end) {
            return Err(error);
        }
        STANDARD.decode(text.iter().copied().filter(|byte| !is_line_end(byte)).collect::<Vec<_>>())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_may_be_written_on_several_lines() {
        let bytes = [7; 100];
        let text = STANDARD.encode(bytes);
        for lines in [text.clone(), format!("{text}\n"), format!("{}\r\n{}\r\n", &text[..76], &text[76..])] {
            assert_eq!(decode_base64(lines).unwrap(), bytes);
        }
        for wrong in ["AAA", "A\nAA", "AA AA", "AA-_", "\n?"] {
            assert!(decode_base64(wrong).is_err(), "{wrong:?}");
        }
    }
}
