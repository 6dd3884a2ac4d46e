//! What a released version left behind, and what it answered: the fixtures that a newer binary is tested on.
//!
//! `releases/VERSION` holds the database of a `modelway up` that was ended in good order (as SQL, from SQLite and from
//! PostgreSQL), the route table that its gateway saved, its OpenAPI document, and what was asked of its control plane
//! and answered. Places and ports are written as `@MODELS@` and the like. `commit` names the commit that it was built from.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use reqwest::Method;
use serde_json::{Map, Value, json};

use crate::{Answer, Modelway, python, until};

/// The versions that have fixtures.
pub const RELEASED: [&str; 1] = ["0.1.0"];

/// Headers of answers that clients read.
const HEADERS: [&str; 3] = ["etag", "location", "retry-after"];
const DUMP: &str = "import sqlite3, sys\nfor line in sqlite3.connect(sys.argv[1]).iterdump(): print(line)";
const RESTORE: &str = "import sqlite3, sys\nsqlite3.connect(sys.argv[1]).executescript(sys.stdin.read())";

/// The fixtures of one version.
#[derive(Debug)]
pub struct Release {
    folder: PathBuf,
}

impl Release {
    /// Those of `version`, which may not be there yet.
    #[must_use]
    pub fn of(version: &str) -> Self {
        Self { folder: Path::new(env!("CARGO_MANIFEST_DIR")).join("releases").join(version) }
    }

    /// Its binary, which the first test that asks builds: some minutes.
    #[must_use]
    pub fn binary(&self) -> PathBuf {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../scripts/release.sh");
        let built = Command::new(script).arg(self.folder.file_name().unwrap()).stderr(Stdio::inherit()).output();
        let built = built.unwrap();
        assert!(built.status.success(), "the binary of {} does not build", self.folder.display());
        PathBuf::from(String::from_utf8(built.stdout).unwrap().trim())
    }

    /// A file as it was recorded, with the places and ports of `modelway`.
    #[must_use]
    pub fn read(&self, file: &str, modelway: &Modelway) -> String {
        let path = self.folder.join(file);
        let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        places(modelway).iter().fold(text, |text, (word, place)| text.replace(word, place))
    }

    /// Records a file, without the places and ports of `modelway`.
    pub fn write(&self, file: &str, modelway: &Modelway, text: &str) {
        fs::create_dir_all(&self.folder).unwrap();
        let text = places(modelway).iter().fold(text.to_owned(), |text, (word, place)| text.replace(place, word));
        fs::write(self.folder.join(file), text).unwrap();
    }

    /// What was asked and answered, in order.
    #[must_use]
    pub fn exchanges(&self, modelway: &Modelway) -> Vec<Exchange> {
        let text = self.read("exchanges.jsonl", modelway);
        text.lines().map(|line| Exchange(serde_json::from_str(line).unwrap())).collect()
    }
}

/// Words in fixtures, and what they stand for. A longer place stands before one that it begins with.
fn places(modelway: &Modelway) -> [(&'static str, String); 4] {
    let folder = modelway.data_dir().parent().unwrap().to_str().unwrap().to_owned();
    let gateway = modelway.gateway("");
    let control = modelway.control("");
    [
        ("@GATEWAY@", gateway.trim_start_matches("http://").to_owned()),
        ("@CONTROL@", control.trim_start_matches("http://").to_owned()),
        ("@FOLDER@", folder),
        // The folder's name alone occurs in sockets' names and the like.
        ("@PLACE@", modelway.data_dir().parent().unwrap().file_name().unwrap().to_str().unwrap().to_owned()),
    ]
}

/// One request to the control plane and its answer: `method`, `path`, `headers`, `body`, and what is waited for before
/// it (`until`: fields of what a GET of the same path answers); then `answer` with `status`, `headers` and `body`.
#[derive(Clone, Debug)]
pub struct Exchange(pub Value);

impl Exchange {
    /// A request without an answer yet.
    #[must_use]
    pub fn new(method: &str, path: &str, body: Value) -> Self {
        Self(json!({"method": method, "path": path, "body": body}))
    }

    /// The same with a header. The value `@ETAG@` stands for the ETag that a GET of the path answers.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.0["headers"][name] = value.into();
        self
    }

    /// The same, once a GET of `path` answers these fields.
    #[must_use]
    pub fn once(mut self, path: &str, fields: Value) -> Self {
        self.0["until"] = json!({"path": path, "fields": fields});
        self
    }

    /// What was answered when it was recorded.
    #[must_use]
    pub fn recorded(&self) -> &Value {
        &self.0["answer"]
    }

    /// Sends the request; the answer as it is recorded.
    pub async fn send(&self, modelway: &Modelway) -> Value {
        let step = &self.0;
        if let Some(wanted) = step["until"]["fields"].as_object() {
            let url = modelway.control(step["until"]["path"].as_str().unwrap());
            until(&format!("{url} answers {wanted:?}"), || async {
                let now = modelway.ask(Method::GET, &url, Value::Null).await.body;
                wanted.iter().all(|(name, value)| now[name] == *value)
            })
            .await;
        }
        let url = modelway.control(step["path"].as_str().unwrap());
        let mut headers = Vec::new();
        for (name, value) in step["headers"].as_object().unwrap_or(&Map::new()) {
            let mut value = value.as_str().unwrap().to_owned();
            if value == "@ETAG@" {
                let answer = modelway.ask(Method::GET, &url, Value::Null).await;
                answer.headers["etag"].to_str().unwrap().clone_into(&mut value);
            }
            headers.push((name.clone(), value));
        }
        let headers: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let method = step["method"].as_str().unwrap().parse().unwrap();
        as_recorded(&modelway.ask_with(method, &url, step["body"].clone(), &headers).await)
    }
}

fn as_recorded(answer: &Answer) -> Value {
    let headers: Map<_, _> = HEADERS
        .iter()
        .filter_map(|name| Some(((*name).to_owned(), answer.headers.get(*name)?.to_str().unwrap().into())))
        .collect();
    json!({"status": answer.status.as_u16(), "headers": headers, "body": answer.body})
}

/// A SQLite database as SQL.
#[must_use]
pub fn dump_sqlite(file: &Path) -> String {
    let output = Command::new(python()).args(["-c", DUMP]).arg(file).output().unwrap();
    assert!(output.status.success(), "{output:#?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Makes a SQLite database from SQL.
pub fn restore_sqlite(file: &Path, sql: &str) {
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    feed(Command::new(python()).args(["-c", RESTORE]).arg(file), sql);
}

/// Runs a command that reads `text` and must succeed.
pub(crate) fn feed(command: &mut Command, text: &str) {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            // A command that ends early says why itself.
            let _ = input.write_all(text.as_bytes());
        });
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{command:?}: {output:#?}");
    });
}
