//! What a model or a server says is shown on a terminal and never obeyed by it.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, also in its helpers")]

use std::{fs, io::Write as _, net::TcpListener, thread};

use modelway_e2e::{Modelway, Role, python};
use serde_json::{Value, json};

/// Clears the screen, writes to the clipboard, goes back to the start of the line, turns the text around, and says so
/// in the eight-bit form of ESC.
const EVIL: &str =
    "a\x1b[2J\x1b]52;c;cm0gLXJm\x07b\rc\u{202e}d\u{9b}31m\u{2066}e\nmd-9   forged   active\u{7f}\u{feff}";

/// Whether a terminal would obey anything in `text`.
fn obeyed(text: &str) -> Vec<char> {
    let odd = |c: &char| {
        (c.is_control() && !['\n', '\t'].contains(c))
            || matches!(*c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
    };
    text.chars().filter(odd).collect()
}

/// Runs a command and gives all that it printed, which no terminal obeys and which has no row that a model made up.
fn plain(modelway: &Modelway, line: &[&str]) -> String {
    let output = modelway.run(line);
    let mut said = String::from_utf8(output.stdout).unwrap();
    said.push_str(&String::from_utf8(output.stderr).unwrap());
    assert_eq!(obeyed(&said), Vec::<char>::new(), "{line:?}: {said:?}");
    if line[0] != "logs" {
        assert!(!said.lines().any(|line| line.starts_with("md-9")), "{line:?}: {said}");
    }
    said
}

#[tokio::test]
async fn no_terminal_obeys_what_a_model_prints_says_or_answers() {
    let mut modelway = Modelway::new();
    modelway.set("MODELWAY__SERVE__PYTHON", python().to_str().unwrap());
    modelway.start(Role::Up).await;
    let model = |name: &str, body: &str| {
        let folder = modelway.data_dir().join("models").join(name);
        fs::create_dir_all(&folder).unwrap();
        let evil = Value::from(EVIL);
        let text = format!("from modelway import AbstractModel\nEVIL = {evil}\nclass M(AbstractModel):\n{body}");
        fs::write(folder.join("model.py"), text).unwrap();
        folder.to_str().unwrap().to_owned()
    };
    let predict = "    def predict(self, text: str) -> str:\n";
    let broken = model(
        "broken",
        &format!("    def load(self):\n        raise ValueError(EVIL)\n{predict}        return text\n"),
    );
    let answers = model("answers", &format!("{predict}        print(EVIL, flush=True)\n        return EVIL\n"));
    let fails =
        model("fails", &format!("{predict}        raise ValueError(EVIL) if text else None\n        return text\n"));

    let said = plain(&modelway, &["deploy", &broken, "--name", "broken"]);
    assert!(said.contains(r"\u{1b}[2J") && said.contains("52;c;cm0gLXJm"), "it is shown: {said}");
    for line in [&["get", "broken"][..], &["describe", "broken"], &["list"], &["events", "broken"], &["logs", "broken"]]
    {
        plain(&modelway, line);
    }
    let evil = |text: &str| text.contains("52;c;cm0gLXJm");
    plain(&modelway, &["get", "broken", "-o", "yaml"]);
    let read: Value = serde_json::from_str(&plain(&modelway, &["get", "broken", "-o", "json"])).unwrap();
    let message = read["error"]["message"].as_str().unwrap();
    assert!(message.contains('\x1b') && message.contains('\u{202e}'), "a program reads what was said: {message:?}");

    plain(&modelway, &["deploy", &answers, "--name", "answers"]);
    assert!(evil(&plain(&modelway, &["predict", "answers", "--data", r#"["a"]"#])));
    let json = plain(&modelway, &["predict", "answers", "--data", r#"["a"]"#, "-o", "json"]);
    assert_eq!(serde_json::from_str::<Value>(&json).unwrap()["outputs"][0]["data"], json!([EVIL]));
    let logs = plain(&modelway, &["logs", "answers"]);
    assert!(evil(&logs) && logs.lines().count() > 3, "a log keeps its lines: {logs}");
    plain(&modelway, &["deploy", &fails, "--name", "fails"]);
    assert!(evil(&plain(&modelway, &["predict", "fails", "--data", r#"["a"]"#])));
    assert_eq!(obeyed(&modelway.log_of(Role::Up)), Vec::<char>::new(), "nor does the terminal of `modelway up`");
}

#[test]
fn no_terminal_obeys_what_a_server_answers() {
    let modelway = Modelway::new();
    let problem = json!({"status": 422, "title": EVIL, "code": "invalid_payload", "detail": EVIL,
        "faults": [{"pointer": EVIL, "code": EVIL, "detail": EVIL}]});
    for body in [EVIL.to_owned(), problem.to_string()] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let answer = format!("HTTP/1.1 422 No\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        let server = thread::spawn(move || {
            let mut buffer = [0; 4096];
            let (mut stream, _) = listener.accept().unwrap();
            let _ = std::io::Read::read(&mut stream, &mut buffer).unwrap();
            stream.write_all(answer.as_bytes()).unwrap();
        });
        let said = plain(&modelway, &["get", "iris", "--control-url", &url]);
        assert!(said.contains("52;c;cm0gLXJm"), "{said}");
        server.join().unwrap();
    }
}
