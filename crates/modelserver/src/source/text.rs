//! Parses protobuf's text format, in which `config.pbtxt` is written, without interpreting the fields.
//!
//! Every field keeps its line number. Size and depth are limited.

use std::fmt;

/// Maximum size of a file.
pub(super) const MOST_BYTES: usize = 1 << 20;
/// Maximum depth of nested messages.
const MOST_DEEP: usize = 32;

/// A message: its fields in order. A repeated field occurs several times.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Message {
    pub(super) fields: Vec<Field>,
}

/// One field.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Field {
    pub(super) name: String,
    /// Its line number, from 1; 0 if it came from JSON.
    pub(super) line: usize,
    pub(super) value: Value,
}

/// A field's value.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    /// A number, `true` or an enum's word.
    Word(String),
    /// A quoted string.
    Text(String),
    Message(Message),
}

impl Value {
    /// Its description in errors.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Word(_) => "a word",
            Self::Text(_) => "a text",
            Self::Message(_) => "a message",
        }
    }
}

/// What is wrong, and in which line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    pub(super) line: usize,
    pub(super) reason: String,
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line > 0 {
            write!(f, "line {}: ", self.line)?;
        }
        f.write_str(&self.reason)
    }
}

/// Reads a whole text.
pub(super) fn parse(text: &str) -> Result<Message, Wrong> {
    if text.len() > MOST_BYTES {
        return Err(Wrong { line: 0, reason: format!("it is longer than {MOST_BYTES} bytes") });
    }
    let mut reader = Reader { rest: text, line: 1 };
    let message = reader.fields(None, 0)?;
    Ok(message)
}

struct Reader<'t> {
    rest: &'t str,
    line: usize,
}

impl Reader<'_> {
    /// The fields up to `close`, or up to the end.
    fn fields(&mut self, close: Option<char>, deep: usize) -> Result<Message, Wrong> {
        if deep > MOST_DEEP {
            return Err(self.wrong(format!("messages are nested deeper than {MOST_DEEP}")));
        }
        let mut fields = Vec::new();
        loop {
            self.space();
            match (self.peek(), close) {
                (None, None) => return Ok(Message { fields }),
                (None, Some(close)) => return Err(self.wrong(format!("it ends where a `{close}` is missing"))),
                (Some(next), Some(close)) if next == close => {
                    self.skip();
                    return Ok(Message { fields });
                }
                (Some(_), _) => self.field(&mut fields, deep)?,
            }
            self.space();
            if matches!(self.peek(), Some(',' | ';')) {
                self.skip();
            }
        }
    }

    fn field(&mut self, fields: &mut Vec<Field>, deep: usize) -> Result<(), Wrong> {
        let line = self.line;
        let name = self.word();
        if name.is_empty() {
            return Err(self.unexpected("a field's name"));
        }
        self.space();
        let colon = self.peek() == Some(':');
        if colon {
            self.skip();
            self.space();
        }
        if self.peek() != Some('[') {
            let value = self.value(colon, deep)?;
            fields.push(Field { name, line, value });
            return Ok(());
        }
        self.skip();
        loop {
            self.space();
            if self.peek() == Some(']') {
                self.skip();
                return Ok(());
            }
            let line = self.line;
            let value = self.value(true, deep)?;
            fields.push(Field { name: name.clone(), line, value });
            self.space();
            match self.peek() {
                Some(',') => self.skip(),
                Some(']') => {}
                _ => return Err(self.unexpected("`,` or `]`")),
            }
        }
    }

    fn value(&mut self, colon: bool, deep: usize) -> Result<Value, Wrong> {
        match self.peek() {
            Some('{') => {
                self.skip();
                Ok(Value::Message(self.fields(Some('}'), deep + 1)?))
            }
            Some('<') => {
                self.skip();
                Ok(Value::Message(self.fields(Some('>'), deep + 1)?))
            }
            _ if !colon => Err(self.unexpected("`:` or `{`")),
            Some('"' | '\'') => self.text().map(Value::Text),
            _ => {
                let word = self.word();
                if word.is_empty() { Err(self.unexpected("a value")) } else { Ok(Value::Word(word)) }
            }
        }
    }

    /// One or more quoted strings, which are concatenated.
    fn text(&mut self) -> Result<String, Wrong> {
        let mut bytes = Vec::new();
        while let Some(quote @ ('"' | '\'')) = self.peek() {
            let line = self.line;
            self.skip();
            loop {
                match self.next() {
                    None | Some('\n') => {
                        return Err(Wrong { line, reason: format!("a text that begins with {quote} does not end") });
                    }
                    Some(end) if end == quote => break,
                    Some('\\') => self.escape(&mut bytes)?,
                    Some(other) => bytes.extend_from_slice(other.encode_utf8(&mut [0; 4]).as_bytes()),
                }
            }
            self.space();
        }
        String::from_utf8(bytes).map_err(|_| self.wrong("a text is not UTF-8".to_owned()))
    }

    fn escape(&mut self, bytes: &mut Vec<u8>) -> Result<(), Wrong> {
        let escaped = match self.next() {
            Some('n') => b'\n',
            Some('t') => b'\t',
            Some('r') => b'\r',
            Some('a') => 7,
            Some('b') => 8,
            Some('f') => 12,
            Some('v') => 11,
            Some('x' | 'X') => {
                let digits = self.digits(16, 2);
                u8::from_str_radix(&digits, 16).map_err(|_| self.wrong("`\\x` wants one or two hex digits".into()))?
            }
            Some(digit @ '0'..='7') => {
                let digits = format!("{digit}{}", self.digits(8, 2));
                u8::from_str_radix(&digits, 8).map_err(|_| self.wrong(format!("`\\{digits}` is no byte")))?
            }
            Some(same @ ('\\' | '\'' | '"' | '?')) => u8::try_from(same).unwrap_or(b'?'),
            other => {
                let shown = other.map(String::from).unwrap_or_default();
                return Err(self.wrong(format!("`\\{shown}` is no escape")));
            }
        };
        bytes.push(escaped);
        Ok(())
    }

    fn digits(&mut self, radix: u32, most: usize) -> String {
        let digits: String = self.rest.chars().take(most).take_while(|digit| digit.is_digit(radix)).collect();
        self.rest = &self.rest[digits.len()..];
        digits
    }

    /// The characters of names, numbers and enums.
    fn word(&mut self) -> String {
        let inside = |c: char| c.is_ascii_alphanumeric() || "_.+-".contains(c);
        let end = self.rest.find(|c| !inside(c)).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        word.to_owned()
    }

    /// Skips blanks and comments.
    fn space(&mut self) {
        while let Some(next) = self.peek() {
            if next == '#' {
                let end = self.rest.find('\n').unwrap_or(self.rest.len());
                self.rest = &self.rest[end..];
            } else if next.is_whitespace() {
                self.skip();
            } else {
                break;
            }
        }
    }

    fn peek(&self) -> Option<char> {
        self.rest.chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let next = self.peek()?;
        self.rest = &self.rest[next.len_utf8()..];
        if next == '\n' {
            self.line += 1;
        }
        Some(next)
    }

    fn skip(&mut self) {
        self.next();
    }

    fn wrong(&self, reason: String) -> Wrong {
        Wrong { line: self.line, reason }
    }

    fn unexpected(&self, wanted: &str) -> Wrong {
        let found = self.peek().map_or_else(|| "it ends".to_owned(), |c| format!("`{}` is found", c.escape_debug()));
        self.wrong(format!("{found} where {wanted} belongs"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn word(name: &str, line: usize, word: &str) -> Field {
        Field { name: name.into(), line, value: Value::Word(word.into()) }
    }

    #[test]
    fn fields_lists_messages_texts_and_comments_are_read() {
        let text = "\
# a comment
name: \"a\\x41\\101\" 'b\\n'  # concatenated
max: -1; dims: [ 1, 2 ],
group [ { count: 1 }, { count: 2 } ]
policy: { latest { n: 3 } } old < n: 4 >
";
        let group = |line, n: &str| Field {
            name: "group".into(),
            line,
            value: Value::Message(Message { fields: vec![word("count", line, n)] }),
        };
        let message = parse(text).unwrap();
        let name = Field { name: "name".into(), line: 2, value: Value::Text("aAAb\n".into()) };
        assert_eq!(message.fields[0], name);
        assert_eq!(message.fields[1..4], [word("max", 3, "-1"), word("dims", 3, "1"), word("dims", 3, "2")]);
        assert_eq!(message.fields[4..6], [group(4, "1"), group(4, "2")]);
        assert_eq!((message.fields[6].name.as_str(), message.fields[7].name.as_str()), ("policy", "old"));
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        let said = |text: &str| parse(text).unwrap_err().to_string();
        assert_eq!(said("a: 1\nb 2"), "line 2: `2` is found where `:` or `{` belongs");
        assert_eq!(said("a {\n b: 1\n"), "line 3: it ends where a `}` is missing");
        assert_eq!(said("a: [1 2]"), "line 1: `2` is found where `,` or `]` belongs");
        assert_eq!(said("\na: \"x\n"), "line 2: a text that begins with \" does not end");
        assert_eq!(said("a: \"\\q\""), "line 1: `\\q` is no escape");
        assert_eq!(said("}"), "line 1: `}` is found where a field's name belongs");
        assert!(said(&"a{".repeat(1000)).contains("nested deeper than 32"));
        assert!(said(&" ".repeat(MOST_BYTES + 1)).contains("longer than"));
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "\\PC{0,200}", noisy in "[a:{}\\[\\]<>\"'\\\\x0-9,;# \n]{0,200}") {
            let _ = parse(&text);
            let _ = parse(&noisy);
        }
    }
}
