//! One line of a metrics page, in Prometheus text format or OpenMetrics.

use std::borrow::Cow;

/// Maximum number of labels of a series.
const MOST_LABELS: usize = 64;

/// Names and values of labels.
type Labels<'l> = Vec<(Cow<'l, str>, String)>;

/// One value of a series.
#[derive(Debug, PartialEq)]
pub(super) struct Sample<'l> {
    pub(super) name: &'l str,
    /// No name occurs twice.
    pub(super) labels: Labels<'l>,
    /// A number as Prometheus writes it.
    pub(super) value: Cow<'l, str>,
}

impl Sample<'_> {
    /// Puts `exported_` before labels with a name in `others`, until it is unique.
    pub(super) fn export(&mut self, is_taken: impl Fn(&str) -> bool) {
        for index in 0..self.labels.len() {
            if is_taken(&self.labels[index].0) {
                let mut name = format!("exported_{}", self.labels[index].0);
                while is_taken(&name) || self.labels.iter().any(|(other, _)| *other == *name) {
                    name.insert_str(0, "exported_");
                }
                self.labels[index].0 = name.into();
            }
        }
    }

    /// The key of its series on the page.
    pub(super) fn series(&self) -> String {
        let mut labels: Vec<_> = self.labels.iter().filter(|(_, value)| !value.is_empty()).collect();
        labels.sort_unstable();
        format!("{}{labels:?}", self.name)
    }
}

/// Parses a line: `name{label="value"} 1.5`, with or without a timestamp and an exemplar, which are dropped.
pub(super) fn read(line: &str) -> Option<Sample<'_>> {
    let (name, rest) = line.split_at(line.find(|letter: char| !is_letter(letter, true)).unwrap_or(line.len()));
    if !is_name(name) {
        return None;
    }
    let (labels, rest) = match rest.trim_start().strip_prefix('{') {
        Some(rest) => labels(rest)?,
        None => (Vec::new(), rest),
    };
    let rest = rest.split_once(" # ").map_or(rest, |(before, _)| before);
    let mut words = rest.split_ascii_whitespace();
    let value = number(words.next()?)?;
    if words.next().is_some_and(|timestamp| number(timestamp).is_none()) || words.next().is_some() {
        return None;
    }
    Some(Sample { name, labels, value })
}

/// The labels up to the closing brace, and the rest.
fn labels(mut rest: &str) -> Option<(Labels<'_>, &str)> {
    let mut labels = Labels::new();
    loop {
        rest = rest.trim_start();
        if let Some(rest) = rest.strip_prefix('}') {
            return Some((labels, rest));
        }
        let (name, after) = rest.split_once('=')?;
        let name = name.trim_end();
        let is_sound = is_name(name) && !name.contains(':') && name != "__name__";
        if !is_sound || labels.len() == MOST_LABELS || labels.iter().any(|(known, _)| *known == name) {
            return None;
        }
        let after = after.trim_start().strip_prefix('"')?;
        let mut escaped = false;
        let end = after.bytes().position(|byte| {
            let is_end = byte == b'"' && !escaped;
            escaped = byte == b'\\' && !escaped;
            is_end
        })?;
        labels.push((name.into(), unescape(&after[..end])));
        rest = after[end + 1..].trim_start();
        match rest.strip_prefix(',') {
            Some(after) => rest = after,
            None if rest.starts_with('}') => {}
            None => return None,
        }
    }
}

/// Whether it is a valid metric name.
pub(super) fn is_name(name: &str) -> bool {
    let mut letters = name.chars();
    letters.next().is_some_and(|letter| is_letter(letter, false)) && letters.all(|letter| is_letter(letter, true))
}

fn is_letter(letter: char, or_digit: bool) -> bool {
    letter.is_ascii_alphabetic() || matches!(letter, '_' | ':') || or_digit && letter.is_ascii_digit()
}

/// A text with `\\`, `
/// ` and `\"` unescaped; any other backslash is kept.
pub(super) fn unescape(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        let rest = letters.as_str();
        let (resolved, is_pair) = match (letter, rest.chars().next()) {
            ('\\', Some('n')) => ('\n', true),
            ('\\', Some(next @ ('\\' | '"'))) => (next, true),
            _ => (letter, false),
        };
        plain.push(resolved);
        if is_pair {
            letters.next();
        }
    }
    plain
}

/// A number in Prometheus format, if it is valid.
pub(super) fn number(word: &str) -> Option<Cow<'_, str>> {
    let value: f64 = word.parse().ok()?;
    Some(match value {
        value if value.is_nan() => "NaN".into(),
        f64::INFINITY if word.contains(['i', 'I']) => "+Inf".into(),
        f64::NEG_INFINITY if word.contains(['i', 'I']) => "-Inf".into(),
        // `1e999`: Prometheus would reject the page.
        value if value.is_infinite() => return None,
        _ => word.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_with_labels_escapes_timestamps_and_exemplars() {
        for (line, name, labels, value) in [
            ("up 1", "up", vec![], "1"),
            ("up{} 1 1700000000000", "up", vec![], "1"),
            ("a:b {x = \"1\" , y=\"2\",} inf", "a:b", vec![("x", "1"), ("y", "2")], "+Inf"),
            (r#"a{x="q\"\\\n}, \z"} -1.5e3"#, "a", vec![("x", "q\"\\\n}, \\z")], "-1.5e3"),
            (r##"a{x=" # "} 2 3.5 # {id="7"} 1 2"##, "a", vec![("x", " # ")], "2"),
            ("a\tnan", "a", vec![], "NaN"),
        ] {
            let labels =
                labels.into_iter().map(|(name, value): (&'static str, &str)| (name.into(), value.to_owned())).collect();
            assert_eq!(read(line), Some(Sample { name, labels, value: value.into() }), "{line}");
        }
    }

    #[test]
    fn a_line_that_is_none_is_refused() {
        for line in [
            "",
            "a",
            "1a 1",
            "a b",
            "a 1 b",
            "a 1 2 3",
            "a{ 1",
            "a{x} 1",
            "a{x=1} 1",
            r#"a{x="1} 1"#,
            "a{,} 1",
            r#"a{x="1",x="2"} 1"#,
            r#"a{x="1"y="2"} 1"#,
            r#"a{__name__="b"} 1"#,
            r#"a{x:y="b"} 1"#,
            "a-b 1",
            "a 1e999",
            r#"{"a.b", x="1"} 1"#,
            "<html>",
            "ä 1",
        ] {
            assert_eq!(read(line), None, "{line}");
        }
    }
}
