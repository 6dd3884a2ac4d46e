//! Takes the places in the runtime's own source out of its messages: `/path/file.cc:12 type function(arguments) `.

/// How the names of source files end.
const ENDINGS: [&str; 6] = [".cc:", ".h:", ".cpp:", ".hpp:", ".cu:", ".inc:"];

/// A message without them.
pub(super) fn without_source(message: &str) -> String {
    let mut text = message.trim().to_owned();
    while let Some((from, to)) = place(&text) {
        text.replace_range(from..to, "");
    }
    // One line, whatever the runtime made of it, and names without the library's own.
    let text = text.replace("onnxruntime::", "");
    text.split_whitespace().map(without_symbol).collect::<Vec<_>>().join(" ")
}

/// A word up to the compiler's name of a type, as in `N11onnxruntime3FooE`.
fn without_symbol(word: &str) -> &str {
    let own = word.find("11onnxruntime").and_then(|place| word[..place].rfind('N'));
    own.map_or(word, |place| &word[..place])
}

/// The first place: where it begins and where its sentence does.
fn place(text: &str) -> Option<(usize, usize)> {
    let number = |ending: &&str| {
        let after = |place: &usize| text[place + ending.len()..].starts_with(|c: char| c.is_ascii_digit());
        text.match_indices(*ending).map(|(place, _)| place).find(after).map(|place| (place, place + ending.len()))
    };
    let (ending, digits) = ENDINGS.iter().filter_map(number).min()?;
    let from = text[..ending].rfind([' ', '\t', '\n', '"', '\'', '(', '[', '{', ',']).map_or(0, |place| place + 1);
    let line = digits + text[digits..].find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len() - digits);
    Some((from, line + function(&text[line..])))
}

/// How many bytes of the text are a function's declaration; 0 if it does not begin with one.
fn function(text: &str) -> usize {
    if !text.starts_with(' ') {
        return 0;
    }
    let (mut depth, mut end) = (0usize, 0);
    let mut bytes = text.bytes().enumerate().peekable();
    while let Some((place, byte)) = bytes.next() {
        match byte {
            b'(' => depth += 1,
            b')' => {
                depth = depth.saturating_sub(1);
                // `operator()(int)` and `<lambda(int)>::f(int)` go on.
                if depth == 0 && bytes.peek().is_none_or(|(_, next)| *next == b' ') {
                    end = place + 1;
                    break;
                }
            }
            // A sentence, not a declaration.
            b'.' if depth == 0 && bytes.peek().is_none_or(|(_, next)| *next == b' ') => return 0,
            _ => {}
        }
    }
    for word in [" const", " noexcept"] {
        if text[end..].starts_with(word) {
            end += word.len();
        }
    }
    if end > 0
        && text[end..].starts_with(" [with ")
        && let Some(close) = text[end..].find(']')
    {
        end += close + 1;
    }
    end
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(said: &str, expected: &str) {
        assert_eq!(without_source(said), expected);
    }

    #[test]
    fn places_in_the_source_are_taken_out_wherever_they_stand() {
        check("bad axis", "bad axis");
        check("/onnxruntime_src/core/a.cc:12 void f(int) bad axis", "bad axis");
        check(
            "/src/a.h:1 T onnxruntime::G<T>::h(const T&, int) const [with T = float] x != 0 was false. No",
            "x != 0 was false. No",
        );
        check("failed: /src/a.cc:1 f(): /src/b.cc:22 g(int) why\nnot", "failed: why not");
        check("/src/a.cc:1 m::<lambda(int)>::operator()(int) const it is", "it is");
        check("x == onnxruntime::narrow<int>(y) was false", "x == narrow<int>(y) was false");
        check("not for this.N11onnxruntime3FooE", "not for this.");
        check("see (/src/a.cc:7) for more", "see () for more");
        check("/src/a.cc:7 It is wrong. Really (yes)", "It is wrong. Really (yes)");
    }
}
