//! Bare `NaN`, `Infinity` and `-Infinity`: they are not valid JSON, but Python's `json` module writes them.
//!
//! Readers that use `serde_json` cannot parse them. So a refused text is rewritten with an object in place of each
//! word, and read again: `{"\u0000":0}` is NaN; with 1 and -1 it is an infinity. No reader accepts such an object for
//! anything else, so a bare word is always a float and never a string.

/// The key of the placeholder object for a bare word.
pub(super) const KEY: &str = "\0";

/// The words and their placeholder objects.
const WORDS: [(&[u8], &[u8], f64); 3] = [
    (b"NaN", b"{\"\\u0000\":0}", f64::NAN),
    (b"Infinity", b"{\"\\u0000\":1}", f64::INFINITY),
    (b"-Infinity", b"{\"\\u0000\":-1}", f64::NEG_INFINITY),
];

/// The float of a placeholder object with [`KEY`] and this value.
pub(super) fn float_of(value: i64) -> f64 {
    match value {
        0 => f64::NAN,
        1.. => f64::INFINITY,
        ..0 => f64::NEG_INFINITY,
    }
}

/// The float that a text begins with as a word (bare, as a string, or as a placeholder), and its length.
#[cold]
pub(super) fn leading_float(text: &[u8]) -> Option<(f64, usize)> {
    WORDS.iter().find_map(|(word, object, float)| {
        let quoted = || text.strip_prefix(b"\"")?.strip_prefix(*word)?.starts_with(b"\"").then_some(word.len() + 2);
        let bare = || text.starts_with(word).then_some(word.len());
        let replaced = || text.starts_with(object).then_some(object.len());
        Some((*float, bare().or_else(quoted).or_else(replaced)?))
    })
}

/// The text with placeholders for bare `NaN`, `Infinity` and `-Infinity`; `None` if it has none of them. The reader
/// checks whether the rest is JSON.
#[must_use]
pub fn replace_bare_floats(json: &[u8]) -> Option<Vec<u8>> {
    let (mut out, mut copied, mut at) = (Vec::new(), 0, 0);
    while let Some(step) = memchr::memchr3(b'"', b'N', b'I', &json[at..]) {
        at += step;
        if json[at] == b'"' {
            at = end_of_string(json, at + 1);
            continue;
        }
        let is_negative = json[at] == b'I' && at > copied && json[at - 1] == b'-';
        let start = at - usize::from(is_negative);
        match WORDS.iter().find(|(word, ..)| stands_alone(json, start, word)) {
            Some((word, object, _)) => {
                out.extend_from_slice(&json[copied..start]);
                out.extend_from_slice(object);
                at = start + word.len();
                copied = at;
            }
            None => at += 1,
        }
    }
    if copied == 0 {
        return None;
    }
    out.extend_from_slice(&json[copied..]);
    Some(out)
}

/// The text with the placeholders replaced by the bare words.
#[must_use]
pub fn restore_bare_floats(json: &str) -> std::borrow::Cow<'_, str> {
    const START: &str = "{\"\\u0000\":";
    if !json.contains(START) {
        return json.into();
    }
    let of = |text: String, (word, object, _): &(&[u8], &[u8], f64)| {
        text.replace(&*String::from_utf8_lossy(object), &String::from_utf8_lossy(word))
    };
    WORDS.iter().fold(json.to_owned(), of).into()
}

/// Whether a text begins with a placeholder.
#[must_use]
pub fn begins_with_bare_float(json: &str) -> bool {
    WORDS.iter().any(|(_, object, _)| json.as_bytes().starts_with(object))
}

/// The position after the quotation mark that ends a string.
fn end_of_string(json: &[u8], mut at: usize) -> usize {
    while let Some(step) = json.get(at..).and_then(|rest| memchr::memchr2(b'"', b'\\', rest)) {
        at += step;
        if json[at] == b'"' {
            return at + 1;
        }
        at += 2;
    }
    json.len()
}

fn stands_alone(json: &[u8], start: usize, word: &[u8]) -> bool {
    let blank = |byte: &u8| byte.is_ascii_whitespace();
    let before = json[..start].last().is_none_or(|byte| blank(byte) || b"[,:".contains(byte));
    let rest = json[start..].strip_prefix(word);
    before && rest.is_some_and(|rest| rest.first().is_none_or(|byte| blank(byte) || b"],}".contains(byte)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replaced(text: &str) -> Option<String> {
        replace_bare_floats(text.as_bytes()).map(|text| String::from_utf8(text).unwrap())
    }

    #[test]
    fn bare_words_are_replaced_and_nothing_else() {
        assert_eq!(
            replaced(r#"{"a": [NaN,-Infinity, Infinity ], "NaN": NaN}"#).unwrap(),
            r#"{"a": [{"\u0000":0},{"\u0000":-1}, {"\u0000":1} ], "NaN": {"\u0000":0}}"#
        );
        for text in [
            r#"["NaN", "a, NaN,", "\", NaN, \\", "Infinity"]"#,
            "[NaNs, xNaN, 1NaN, Infinity8, --Infinity]",
            r#"{"Index": ["I", "N"]}"#,
            "[nan, inf, +Infinity]",
            r#"["open, NaN, "#,
            r#"["\"#,
            "",
        ] {
            assert_eq!(replaced(text), None, "{text}");
        }
        assert_eq!(replaced(r#"["\\",NaN]"#).unwrap(), r#"["\\",{"\u0000":0}]"#);
        for text in [r#"[NaN, {"a": -Infinity}]"#, r#"["NaN", Infinity]"#] {
            assert_eq!(restore_bare_floats(&replaced(text).unwrap()), text);
        }
        assert_eq!(restore_bare_floats("[1]"), "[1]");
        assert_eq!(replaced("NaN").unwrap(), r#"{"\u0000":0}"#);
        assert_eq!(replaced("[-Infinity,-Infinity]").unwrap(), r#"[{"\u0000":-1},{"\u0000":-1}]"#);
    }
}
