//! Makes untrusted text safe to show on a terminal.
//!
//! A model's error, its log and a server's answer can contain control characters for a terminal: they clear the screen,
//! write to the clipboard, forge a line, or reverse text. Here each of them is replaced by a visible escape.

use std::{borrow::Cow, fmt::Write as _};

/// Whether `c` controls a terminal, or changes how other characters are shown. Joiners are allowed, because they are
/// part of words.
fn is_obeyed(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{61c}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
                | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
        )
}

fn escaped<'t>(text: &'t str, keep: &[char], escape: impl Fn(char, &mut String)) -> Cow<'t, str> {
    let changes = |c: char| is_obeyed(c) && !keep.contains(&c);
    if !text.contains(changes) {
        return text.into();
    }
    let mut visible = String::with_capacity(text.len() * 2);
    for c in text.chars() {
        if changes(c) { escape(c, &mut visible) } else { visible.push(c) }
    }
    visible.into()
}

fn as_text(c: char, into: &mut String) {
    into.extend(c.escape_default());
}

/// `text` on one line: line breaks and tabs are escaped too.
#[must_use]
pub fn line(text: &str) -> Cow<'_, str> {
    escaped(text, &[], as_text)
}

/// `text` with its line breaks and tabs.
#[must_use]
pub fn lines(text: &str) -> Cow<'_, str> {
    escaped(text, &['\n', '\t'], as_text)
}

/// `text` as a part of other text: its further lines are indented, so that they do not look like lines of that text.
#[must_use]
pub fn part(text: &str) -> String {
    lines(text.trim_end()).replace('\n', "\n    ")
}

/// A log line that has colours of its own.
#[must_use]
pub fn coloured_line(text: &str) -> Cow<'_, str> {
    escaped(text, &['\x1b'], as_text)
}

/// A JSON document with the same meaning. Such characters occur only in its strings.
#[must_use]
pub fn json(document: &str) -> Cow<'_, str> {
    escaped(document, &['\n', '\t'], |c, into| {
        for unit in c.encode_utf16(&mut [0; 2]) {
            // Writing to a String cannot fail.
            let _ = write!(into, "\\u{unit:04x}");
        }
    })
}

/// Whether [`json`] would change a document.
#[must_use]
pub fn is_plain(document: &str) -> bool {
    matches!(json(document), Cow::Borrowed(_))
}

/// Bytes that arrive in pieces, such as a log. Invalid UTF-8 becomes escapes, as `\xff`.
#[derive(Debug, Default)]
pub struct Pieces {
    /// The beginning of a character.
    begun: Vec<u8>,
}

impl Pieces {
    /// The text of the next piece.
    pub fn next(&mut self, piece: &[u8]) -> String {
        let bytes = [std::mem::take(&mut self.begun).as_slice(), piece].concat();
        let mut text = String::with_capacity(bytes.len());
        let mut at = 0;
        for chunk in bytes.utf8_chunks() {
            text.push_str(&lines(chunk.valid()));
            at += chunk.valid().len() + chunk.invalid().len();
            let unfinished = std::str::from_utf8(chunk.invalid()).is_err_and(|error| error.error_len().is_none());
            if at == bytes.len() && unfinished {
                self.begun = chunk.invalid().to_vec();
            } else {
                text.push_str(&hexadecimal(chunk.invalid()));
            }
        }
        text
    }

    /// The rest: an incomplete character.
    #[must_use]
    pub fn end(self) -> String {
        hexadecimal(&self.begun)
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("\\x{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_obeys_is_shown_as_an_escape_and_words_of_all_languages_stay() {
        for c in ['\x1b', '\r', '\x08', '\u{9b}', '\u{7f}', '\u{0}', '\u{202e}', '\u{2066}', '\u{2028}', '\u{feff}'] {
            assert!(!lines(&c.to_string()).contains(c), "{c:?}");
            assert!(!line(&c.to_string()).contains(c), "{c:?}");
            let document = format!("[\"{c}\"]");
            assert!(!json(&document).contains(c), "{c:?}");
        }
        for word in ["Äpfel", "日本語", "👩\u{200d}🔬", "می\u{200c}خواهم", "עברית", "a\\nb"] {
            assert_eq!(line(word), word);
        }
        assert_eq!(line("a\n\tb\x1b[0m"), r"a\n\tb\u{1b}[0m");
        assert_eq!(lines("a\n\tb\r\n"), "a\n\tb\\r\n");
        assert_eq!(part("a\nb\n"), "a\n    b");
    }

    #[test]
    fn a_json_document_keeps_its_meaning() {
        let value = serde_json::json!({"a\u{202e}": ["\x1b\u{9b}\u{7f}\u{feff}\n"]});
        let text = serde_json::to_string_pretty(&value).expect("JSON");
        assert!(!is_plain(&text));
        let read: serde_json::Value = serde_json::from_str(&json(&text)).expect("it is JSON still");
        assert_eq!(read, value);
        assert!(is_plain("{\n\t\"a\": 1\n}"));
    }

    #[test]
    fn a_character_that_comes_in_two_pieces_is_one() {
        let text = "é\u{9b}日\x1b\u{202e}👩\n".as_bytes();
        let whole = lines(std::str::from_utf8(text).expect("text")).into_owned();
        for cut in 0..text.len() {
            let (first, second) = text.split_at(cut);
            let mut pieces = Pieces::default();
            let shown = pieces.next(first) + &pieces.next(second);
            assert_eq!(shown + &pieces.end(), whole, "{cut}");
        }
        let mut pieces = Pieces::default();
        assert_eq!(pieces.next(b"a\x9bb\xff\xe6\x97"), r"a\x9bb\xff");
        assert_eq!(pieces.end(), r"\xe6\x97");
    }
}
