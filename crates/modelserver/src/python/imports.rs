//! Finds the modules that a Python file imports, without running it.
//!
//! Comments and strings are skipped. Imported files next to the model are read too.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// Maximum number of the model's own files that are read.
const MAX_FILES: usize = 200;

/// Dotted names of the modules that the file imports, and of those that its own modules next to it import. `from a
/// import b` is `a.b`.
pub(super) fn of_file(file: &Path) -> BTreeSet<String> {
    let (mut found, mut waiting, mut read) = (BTreeSet::new(), vec![file.to_owned()], BTreeSet::new());
    while let Some(file) = waiting.pop() {
        if read.len() >= MAX_FILES || !read.insert(file.clone()) {
            continue;
        }
        let Ok(source) = fs::read(&file) else { continue };
        for module in of_source(&String::from_utf8_lossy(&source)) {
            waiting.extend(beside(&file, &module));
            found.insert(module);
        }
    }
    found
}

/// The files of a module, if it is next to the importing file.
fn beside(file: &Path, module: &str) -> Vec<PathBuf> {
    let (mut files, mut place) = (Vec::new(), file.parent().unwrap_or(Path::new("")).to_owned());
    for part in module.split('.') {
        place.push(part);
        files.extend([place.with_extension("py"), place.join("__init__.py")].into_iter().filter(|file| file.is_file()));
    }
    files
}

#[derive(Debug, PartialEq)]
enum Token {
    Name(String),
    Text(String),
    Other(char),
    /// The end of a statement: not within brackets, nor after a backslash.
    End,
}

fn of_source(source: &str) -> Vec<String> {
    let (tokens, mut found, mut begins) = (tokens(source), Vec::new(), true);
    for (place, token) in tokens.iter().enumerate() {
        let rest = &tokens[place + 1..];
        match token {
            Token::Name(name) if begins && name == "import" => found.extend(list(rest)),
            Token::Name(name) if begins && name == "from" => found.extend(of_from(rest)),
            Token::Name(name) if name == "import_module" || name == "__import__" => found.extend(called(rest)),
            Token::Name(_) | Token::Text(_) | Token::Other(_) | Token::End => {}
        }
        begins = matches!(token, Token::End | Token::Other(';' | ':'));
    }
    found.retain(|module| !module.is_empty());
    found
}

/// A dotted name without the dots before it, and what follows.
fn dotted(mut tokens: &[Token]) -> (String, &[Token]) {
    let mut name = String::new();
    while let [first, rest @ ..] = tokens {
        match first {
            Token::Other('.') => name.push('.'),
            Token::Name(part) if name.is_empty() || name.ends_with('.') => name.push_str(part),
            Token::Name(_) | Token::Text(_) | Token::Other(_) | Token::End => break,
        }
        tokens = rest;
        if matches!(tokens.first(), Some(Token::Name(word)) if word == "import" && name.ends_with('.')) {
            break;
        }
    }
    (name.trim_matches('.').to_owned(), tokens)
}

/// `a, b.c as d`, in brackets or not.
fn list(mut tokens: &[Token]) -> Vec<String> {
    let mut found = Vec::new();
    if let [Token::Other('('), rest @ ..] = tokens {
        tokens = rest;
    }
    loop {
        let (name, mut rest) = dotted(tokens);
        found.push(name);
        if let [Token::Name(word), Token::Name(_), after @ ..] = rest
            && word == "as"
        {
            rest = after;
        }
        match rest {
            [Token::Other(','), Token::Other(')'), ..] => return found,
            [Token::Other(','), after @ ..] => tokens = after,
            _ => return found,
        }
    }
}

/// The rest after `from`.
fn of_from(tokens: &[Token]) -> Vec<String> {
    let (module, rest) = dotted(tokens);
    let [Token::Name(word), names @ ..] = rest else { return Vec::new() };
    if word != "import" {
        return Vec::new();
    }
    let inner = list(names).into_iter();
    inner.map(|name| format!("{module}.{name}").trim_matches('.').to_owned()).collect()
}

/// The text in `("a.b")` and `(name="a.b")`.
fn called(tokens: &[Token]) -> Option<String> {
    match tokens {
        [Token::Other('('), Token::Text(module), ..]
        | [Token::Other('('), Token::Name(_), Token::Other('='), Token::Text(module), ..] => {
            Some(module.trim_matches('.').to_owned())
        }
        _ => None,
    }
}

fn tokens(source: &str) -> Vec<Token> {
    let mut rest = source.trim_start_matches('\u{feff}');
    let (mut found, mut depth) = (Vec::new(), 0_usize);
    while let Some(letter) = rest.chars().next() {
        let after = &rest[letter.len_utf8()..];
        rest = match letter {
            '#' => &rest[rest.find('\n').unwrap_or(rest.len())..],
            '\'' | '"' => {
                // The prefix consists of letters such as `f` and `rb`.
                let raw = matches!(found.last(), Some(Token::Name(name)) if is_prefix(name));
                if raw {
                    found.pop();
                }
                let (text, after) = text(rest);
                found.push(Token::Text(text.to_owned()));
                after
            }
            '\n' if depth == 0 => {
                found.push(Token::End);
                after
            }
            '\\' => after.strip_prefix("\r\n").or_else(|| after.strip_prefix('\n')).unwrap_or(after),
            letter if letter.is_whitespace() => after,
            letter if letter.is_alphanumeric() || letter == '_' => {
                let end = rest.find(|letter: char| !letter.is_alphanumeric() && letter != '_').unwrap_or(rest.len());
                found.push(Token::Name(rest[..end].to_owned()));
                &rest[end..]
            }
            _ => {
                match letter {
                    '(' | '[' | '{' => depth += 1,
                    ')' | ']' | '}' => depth = depth.saturating_sub(1),
                    _ => {}
                }
                found.push(Token::Other(letter));
                after
            }
        };
    }
    found
}

fn is_prefix(name: &str) -> bool {
    name.len() <= 2 && name.bytes().all(|letter| b"rRbBuUfFtT".contains(&letter))
}

/// The content of the string that begins here, and the rest after it.
fn text(rest: &str) -> (&str, &str) {
    let quote = &rest[..1];
    let long = [quote, quote, quote].concat();
    let end = if rest.starts_with(&long) { long.as_str() } else { quote };
    let inner = &rest[end.len()..];
    let mut escaped = false;
    for (place, letter) in inner.char_indices() {
        if escaped {
            escaped = false;
        } else if letter == '\\' {
            escaped = true;
        } else if inner[place..].starts_with(end) {
            return (&inner[..place], &inner[place + end.len()..]);
        } else if letter == '\n' && end.len() == 1 {
            return (&inner[..place], &inner[place..]);
        }
    }
    (inner, "")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking, also in its helpers")]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_an_import_is_read() {
        for (source, modules) in [
            ("import a", vec!["a"]),
            ("import a, b.c as d ,e", vec!["a", "b.c", "e"]),
            ("import a as b, c", vec!["a", "c"]),
            ("from a import b", vec!["a.b"]),
            ("from a.b import (c as d,\n    e,  # why\n)\nimport f", vec!["a.b.c", "a.b.e", "f"]),
            ("from a import *", vec!["a"]),
            ("from . import a\nfrom .b import c\nfrom .. d import e", vec!["a", "b.c", "d.e"]),
            ("import os; import a; x = 1", vec!["os", "a"]),
            ("try: import a\nexcept ImportError: a = None", vec!["a"]),
            ("class A:\n  def f(self):\n\tif x:\n\t\tfrom a import b", vec!["a.b"]),
            ("import a, \\\n  b", vec!["a", "b"]),
            ("import a, \\\r\n  b\r\nimport c\r\n", vec!["a", "b", "c"]),
            ("x = importlib.import_module('a.b')", vec!["a.b"]),
            ("importlib.import_module(name=\"a\"); __import__(u'b')", vec!["a", "b"]),
            ("\u{feff}import a", vec!["a"]),
            ("x = {\n'import': 1}\nimport a", vec!["a"]),
            ("import", vec![]),
            ("from", vec![]),
            ("from a", vec![]),
            ("import_module(", vec![]),
        ] {
            assert_eq!(of_source(source), modules, "{source}");
        }
    }

    #[test]
    fn comments_texts_and_names_are_no_imports() {
        for source in [
            "# import a",
            "\"\"\"How to:\n\nimport a\nfrom b import c\n\"\"\"",
            "x = 'it\\'s\\\nimport a'",
            "x = r'''\nimport a '''",
            "x = [\nimport_a, 'import a']",
            "important = 1\nfrom_a = 2\nx.import_ = 3",
            "raise E from error",
            "def f():\n    yield from rows",
            "\"\"\"without an end\nimport a",
            "x = 'without an end\n",
        ] {
            assert_eq!(of_source(source), Vec::<String>::new(), "{source}");
        }
    }

    #[test]
    fn modules_beside_the_file_are_read_too() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let file = folder.path().join(name);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        };
        write("model.py", "import helper\nfrom parts.inner import thing\n");
        write("helper.py", "import model, mlflow\n");
        write("parts/__init__.py", "import boto3\n");
        write("parts/inner.py", "from .other import x\n");
        write("parts/other.py", "import transformers");
        write("train.py", "import azure");
        let found = of_file(&folder.path().join("model.py"));
        assert!(["mlflow", "boto3", "transformers"].iter().all(|name| found.contains(*name)), "{found:?}");
        assert!(!found.contains("azure"));
    }
}
