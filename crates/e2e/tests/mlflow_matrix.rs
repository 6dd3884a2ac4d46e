//! MLflow models answer as MLflow's own scoring function does: the same saved models, the same bodies.
//!
//! `models/mlflow_matrix.py` saves the models, generates the bodies and asks MLflow. The tables of `docs/nulls.md` are
//! tried cell by cell.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, also in its helpers")]

use std::{
    collections::BTreeMap,
    fs::File,
    path::Path,
    process::{Child, Command},
    time::Duration,
};

use modelway_e2e::{Mlflow, Modelway, client, free_port, kill};
use rustix::process::Signal;
use serde_json::{Value, json};

#[path = "mlflow_matrix/grpc.rs"]
mod grpc;
#[path = "mlflow_matrix/v2.rs"]
mod v2;

const TABLES: &str = include_str!("../../../docs/nulls.md");

/// `modelway serve` with one model.
struct Served {
    modelway: Modelway,
    child: Child,
    port: u16,
}

impl Served {
    async fn start(model: &Path) -> Self {
        let (modelway, port) = (Modelway::new(), free_port());
        let python = format!("serve.models.m.python={}", Mlflow::python().display());
        let (path, text) = (model.to_str().unwrap(), port.to_string());
        let child = modelway
            .command(&["serve", path, "--model-name", "m", "--port", &text, "--set", &python])
            .env("MODELWAY__SERVE__DRAIN_MS", "0")
            .stderr(File::create(modelway.data_dir().with_extension("log")).unwrap())
            .spawn()
            .unwrap();
        let mut served = Self { modelway, child, port };
        let ready = async {
            while !client().get(served.url("/ready")).send().await.is_ok_and(|answer| answer.status() == 200) {
                assert!(served.child.try_wait().unwrap().is_none(), "it ended: {}", served.log());
                tokio::time::sleep(Duration::from_millis(25)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(120), ready).await.unwrap();
        served
    }

    fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.modelway.data_dir().with_extension("log")).unwrap_or_default()
    }

    /// A body as it stands: Python's NaN may be in it.
    async fn post(&self, path: &str, body: impl Into<String>) -> (u16, Value) {
        self.post_as("application/json", path, body).await
    }

    async fn post_as(&self, kind: &str, path: &str, body: impl Into<String>) -> (u16, Value) {
        let call = client().post(self.url(path)).header("content-type", kind).body(body.into());
        let answer = call.send().await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap())
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        kill(self.child.id(), Signal::TERM);
        let _ = self.child.wait();
    }
}

/// One request, and what MLflow says to it.
struct Case {
    body: String,
    csv: bool,
    status: u64,
    answer: Value,
}

/// Saves the models in `folder`; the requests of each.
fn cases(folder: &Path, arguments: &[&str]) -> BTreeMap<String, Vec<Case>> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/models/mlflow_matrix.py");
    let output = Command::new(Mlflow::python())
        .arg(script)
        .arg(folder)
        .args(arguments)
        .env("MLFLOW_DISABLE_TELEMETRY", "true")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "the models cannot be saved: {said}");
    let mut cases: BTreeMap<String, Vec<Case>> = BTreeMap::new();
    for line in String::from_utf8(output.stdout).unwrap().lines() {
        let case: Value = serde_json::from_str(line).unwrap();
        cases.entry(case["model"].as_str().unwrap().to_owned()).or_default().push(Case {
            body: case["body"].as_str().unwrap().to_owned(),
            csv: case["csv"].as_bool().unwrap(),
            status: case["status"].as_u64().unwrap(),
            answer: case["answer"].clone(),
        });
    }
    cases
}

/// Whether two values are the same; a number is one however it is written.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(name, a)| b.get(name).is_some_and(|b| same(a, b)))
        }
        (Value::Number(a), Value::Number(b)) => a == b || a.as_f64() == b.as_f64(),
        _ => a == b,
    }
}

/// The same with the fewest digits that mean an FP32: MLflow writes them as those of an FP64.
fn of_singles(value: &Value) -> Value {
    match value {
        Value::Array(all) => all.iter().map(of_singles).collect(),
        Value::Object(all) => all.iter().map(|(name, value)| (name.clone(), of_singles(value))).collect(),
        Value::Number(number) if number.is_f64() => {
            let single: f32 = number.to_string().parse().unwrap();
            assert_eq!(Some(f64::from(single)), number.as_f64(), "the model answers FP32");
            serde_json::from_str(&format!("{single:?}")).unwrap()
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.clone(),
    }
}

/// What differs between an answer and MLflow's.
fn difference(case: &Case, (status, answer): &(u16, Value)) -> Option<String> {
    let (alike, wanted) = match case.answer.get("predictions") {
        Some(wanted) if case.status == 200 => (*status == 200 && same(&answer["predictions"], wanted), wanted),
        None if case.status == 200 => (*status == 200 && same(answer, &case.answer), &case.answer),
        _ => (*status == 400, &case.answer),
    };
    (!alike).then(|| format!("{}\n  MLflow: {} {wanted}\n  here:   {status} {answer}", case.body, case.status))
}

/// V1's body that says the same, if V1 has one.
fn as_v1(body: &str) -> Option<String> {
    let rest = body.strip_prefix("{\"instances\"").or_else(|| body.strip_prefix("{\"inputs\""))?;
    (!body.contains("AP8="))
        .then(|| format!("{}{}", &body[..body.len() - rest.len()], rest.replace("\"params\"", "\"parameters\"")))
}

async fn compare(arguments: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    let mut cases = cases(folder.path(), arguments);
    let mut differences = Vec::new();
    for (model, cases) in &mut cases {
        let served = Served::start(&folder.path().join(model)).await;
        let is_onnx = model.starts_with("onnx");
        let metadata = client().get(served.url("/v2/models/m")).send().await.unwrap();
        let metadata: Value = metadata.json().await.unwrap();
        let singles = is_onnx || model == "xgboost bare";
        cases.iter_mut().filter(|_| singles).for_each(|case| case.answer = of_singles(&case.answer));
        for case in cases.iter() {
            let kind = if case.csv { "text/csv; charset=utf-8" } else { "application/json" };
            let answer = served.post_as(kind, "/invocations", &case.body).await;
            differences.extend(difference(case, &answer).map(|what| format!("{model} /invocations: {what}")));
            // A model in ONNX answers V1 as every model in ONNX does.
            if let Some(body) = as_v1(&case.body).filter(|_| !is_onnx) {
                let answer = served.post("/v1/models/m:predict", body).await;
                differences.extend(difference(case, &answer).map(|what| format!("{model} V1: {what}")));
            }
        }
        let (asked, different) =
            if is_onnx { (0, Vec::new()) } else { v2_says_the_same(&served, cases, &metadata).await };
        assert!(asked > 20 || model != "optional", "V2 was asked {asked} times");
        differences.extend(different.into_iter().map(|what| format!("{model} V2: {what}")));
        differences.extend(generate_says_the_same(&served, model).await);
        if model == "optional" {
            differences.extend(requests_of_the_table(&served).await);
            differences.extend(grpc_requests_of_the_table(&served).await);
            columns_that_are_ignored_are_counted(&served).await;
            numbers_past_the_range_of_a_column_are_refused(&served).await;
        }
        if model == "answers" {
            differences.extend(answers_of_the_table(&served).await);
        }
        assert!(!served.log().contains("panicked"), "{}", served.log());
    }
    let count: usize = cases.values().map(Vec::len).sum();
    assert!(count > 300, "{count} cases were made");
    assert!(differences.is_empty(), "{} of {count} differ:\n{}", differences.len(), differences.join("\n"));
}

#[tokio::test]
async fn models_answer_as_mlflow_does() {
    compare(&[]).await;
}

#[tokio::test]
#[ignore = "make test-long runs it"]
async fn long_models_answer_as_mlflow_does() {
    compare(&["full"]).await;
}

/// The requests of V2 that say the same as those of MLflow's, and how many there are.
async fn v2_says_the_same(served: &Served, cases: &[Case], metadata: &Value) -> (usize, Vec<String>) {
    let (mut asked, mut different) = (0, Vec::new());
    for case in cases.iter().filter(|case| case.status == 200) {
        let Some(body) = v2::request(&case.body, metadata) else { continue };
        asked += 1;
        let (status, answer) = served.post("/v2/models/m/infer", body.to_string()).await;
        let said = json!({"predictions": v2::predictions(&answer)});
        let alike = status == 200 && same(&said["predictions"], &case.answer["predictions"]);
        if !alike {
            different.push(format!("{body}\n  MLflow: {}\n  here:   {status} {answer}", case.answer));
        }
    }
    (asked, different)
}

async fn columns_that_are_ignored_are_counted(served: &Served) {
    let metrics = client().get(served.url("/metrics")).send().await.unwrap().text().await.unwrap();
    let line = metrics.lines().find(|line| line.starts_with("model_ignored_columns_total{")).unwrap();
    assert!(!line.ends_with(" 0"), "{line}");
    let before: u64 = line.rsplit_once(' ').unwrap().1.parse().unwrap();
    let column = |name: &str| json!({"name": name, "datatype": "FP64", "shape": [1], "data": [1.5]});
    let body = json!({"inputs": [column("double"), column("extra"), column("another")]}).to_string();
    assert_eq!(served.post("/v2/models/m/infer", body).await.0, 200);
    let metrics = client().get(served.url("/metrics")).send().await.unwrap().text().await.unwrap();
    let after = format!("{} {}", line.rsplit_once(' ').unwrap().0, before + 2);
    assert!(metrics.lines().any(|line| line == after), "{metrics}");
    assert_eq!(served.log().matches("requests have columns that the model does not have").count(), 1);
}

/// MLflow wraps them round.
async fn numbers_past_the_range_of_a_column_are_refused(served: &Served) {
    for (column, value, datatype) in
        [("long", "1e300", "INT64"), ("integer", "2147483648", "INT32"), ("integer", "-1e10", "INT32")]
    {
        for form in ["instances", "inputs", "dataframe_records"] {
            let (status, said) =
                served.post("/invocations", format!("{{\"{form}\": [{{\"{column}\": {value}}}]}}")).await;
            let words = said["error"].as_str().unwrap_or_default();
            assert!(status == 400 && words.ends_with(&format!("in row 0, which {datatype} cannot hold")), "{said}");
        }
    }
}

/// `generate` reads null, objects and lists as the other doors do: bodies of it, and of `/invocations` that say the same.
async fn generate_says_the_same(served: &Served, model: &str) -> Vec<String> {
    let row = |row: Value| (row.clone(), json!({"dataframe_records": [row]}));
    let asked: Vec<(Value, Value)> = match model {
        "optional" => {
            let params = json!({"tag": null, "stops": ["a", "b"], "maybe": null});
            let mut with = json!({"double": 1.0, "id": "x", "parameters": {"maybe": null}});
            with["tag"] = Value::Null;
            with["stops"] = params["stops"].clone();
            vec![
                row(json!({"double": null, "string": "a"})),
                row(json!({"boolean": null, "double": 1.5, "datetime": null})),
                row(json!({"string": null, "float": null})),
                row(json!({"long": null, "double": 1.0})),
                (with, json!({"dataframe_records": [{"double": 1.0}], "params": params})),
                (json!({"double": [1.0, null]}), json!({"dataframe_records": [{"double": 1.0}, {"double": null}]})),
            ]
        }
        "nested" => vec![
            row(json!({"thing": {"x": 1.5, "y": "b"}, "any": {"k": [1, null]}, "text": null})),
            row(json!({"tags": ["a", "b"], "text": "t"})),
            row(json!({"any": "text", "counts": {"a": 1}})),
            row(json!({"tags": "a"})),
        ],
        "bare" => vec![
            row(json!({"a": 1, "b": null})),
            row(json!({"a": {"k": [1, null]}, "b": "x"})),
            (json!({"a": [1, 2]}), json!({"dataframe_records": [{"a": 1}, {"a": 2}]})),
        ],
        "words" => vec![
            (json!({"input": "a"}), json!({"inputs": ["a"]})),
            (json!({"input": ["a", "b"]}), json!({"inputs": ["a", "b"]})),
            (json!({"input": [["a"]]}), json!({"inputs": [["a"]]})),
            (json!({"input": null}), json!({"inputs": [null]})),
        ],
        "things" => vec![(json!({"input": {"a": [null]}}), json!({"inputs": [{"a": [null]}]}))],
        _ => Vec::new(),
    };
    let mut wrong = Vec::new();
    for (body, same_body) in asked {
        let (status, mut answer) = served.post("/v2/models/m/generate", body.to_string()).await;
        let (wanted_status, wanted) = served.post("/invocations", same_body.to_string()).await;
        ["model_name", "model_version", "id"]
            .iter()
            .for_each(|name| drop(answer.as_object_mut().unwrap().remove(*name)));
        let said = answer.as_object().unwrap().values().next().cloned().unwrap_or_default();
        // One value stands alone.
        let said =
            if wanted["predictions"].as_array().is_some_and(|all| all.len() == 1) { json!([said]) } else { said };
        if status != wanted_status || (status == 200 && !same(&said, &wanted["predictions"])) {
            wrong.push(format!("{model} generate: {body}\n  /invocations: {wanted}\n  generate: {status} {answer}"));
        }
    }
    wrong
}

/// The cells of the table below a heading of the page, without its head.
fn table(heading: &str) -> Vec<Vec<String>> {
    let page = TABLES.split(heading).nth(1).unwrap();
    let rows = page.lines().skip_while(|line| !line.starts_with('|')).take_while(|line| line.starts_with('|'));
    let cells = |line: &str| line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect();
    rows.skip(2).map(cells).collect()
}

/// Each column of the table of requests: the JSON of two rows of a column, of which the second has the value.
fn rows(kind: &str, column: usize, good: &str) -> String {
    let other = other(kind);
    let second = match column {
        1 => format!("{{\"{kind}\": null}}"),
        2 => format!("{{\"{kind}\": NaN}}"),
        3 => format!("{{\"{other}\": null}}"),
        _ => return format!("[{{\"{other}\": null}}, {{\"{other}\": null}}]"),
    };
    format!("[{{\"{kind}\": {good}, \"{other}\": null}}, {second}]")
}

/// A column that may be null, beside one of a kind.
fn other(kind: &str) -> &'static str {
    if kind == "double" { "string" } else { "double" }
}

/// What the model saw in the second row, in the table's word.
fn seen(kind: &str, (status, answer): &(u16, Value), predictions: &Value) -> String {
    if *status == 400 {
        return "refused".to_owned();
    }
    let row = &predictions[1]["row"];
    let Some(value) = row.get(kind).and_then(Value::as_str) else {
        return if row.is_object() { "left out".to_owned() } else { format!("{status} {answer}") };
    };
    match value.split_once(' ').unwrap().1 {
        "nan" | "None" | "NaT" | "np.float64(nan)" | "np.float32(nan)" => "missing",
        "np.False_" | "False" => "false",
        "np.True_" | "True" => "true",
        other => other,
    }
    .to_owned()
}

async fn requests_of_the_table(served: &Served) -> Vec<String> {
    let good = [
        ("double", "1.5", "FP64"),
        ("float", "1.5", "FP32"),
        ("long", "3", "INT64"),
        ("integer", "3", "INT32"),
        ("boolean", "true", "BOOL"),
        ("string", "\"a\"", "BYTES"),
        ("binary", "\"AP8=\"", "BYTES"),
        ("datetime", "\"2024-01-31T12:00:00\"", "BYTES"),
    ];
    let table = table("## Requests");
    assert_eq!(table.iter().map(|row| row[0].as_str()).collect::<Vec<_>>(), good.map(|(kind, ..)| kind));
    let mut wrong = Vec::new();
    for (row, (kind, good, datatype)) in table.iter().zip(good) {
        for (column, wanted) in row.iter().enumerate().skip(1) {
            let rows = rows(kind, column, good);
            let mut asked = vec![
                ("/invocations", format!("{{\"dataframe_records\": {rows}}}")),
                ("/invocations", format!("{{\"instances\": {rows}}}")),
                ("/invocations", format!("{{\"inputs\": {rows}}}")),
                ("/v1/models/m:predict", format!("{{\"instances\": {rows}}}")),
                ("/v1/models/m:predict", format!("{{\"inputs\": {rows}}}")),
            ];
            // A form without names in its rows has no absent cells, but absent columns.
            if column != 3 {
                let value = if column == 2 { "NaN" } else { "null" };
                let (columns, data) = if column == 4 {
                    (format!("\"{}\"", other(kind)), "[[null], [null]]".to_owned())
                } else {
                    (format!("\"{kind}\""), format!("[[{good}], [{value}]]"))
                };
                asked.push((
                    "/invocations",
                    format!("{{\"dataframe_split\": {{\"columns\": [{columns}], \"data\": {data}}}}}"),
                ));
            }
            if column == 1 {
                let tensor = format!(
                    "{{\"name\": \"{kind}\", \"datatype\": \"{datatype}\", \"shape\": [2], \"data\": [{good}, null]}}"
                );
                asked.push(("/v2/models/m/infer", format!("{{\"inputs\": [{tensor}]}}")));
            }
            for (path, body) in asked {
                let answer = served.post(path, body.clone()).await;
                let predictions = match path {
                    "/v2/models/m/infer" => held_in(&answer.1["outputs"][0]["data"]),
                    _ => answer.1["predictions"].clone(),
                };
                let seen = seen(kind, &answer, &predictions);
                if seen != *wanted {
                    wrong.push(format!("{path} {body}: the table says {wanted}, and it is {seen}: {}", answer.1));
                }
            }
        }
    }
    wrong
}

/// The JSON in the elements of a tensor of BYTES.
fn held_in(data: &Value) -> Value {
    let texts = data.as_array().map(Vec::as_slice).unwrap_or_default();
    texts
        .iter()
        .map(|text| serde_json::from_str::<Value>(text.as_str().unwrap_or_default()).unwrap_or_default())
        .collect()
}

async fn grpc_requests_of_the_table(served: &Served) -> Vec<String> {
    let good = [
        ("double", "FP64", grpc::contents(|c| c.fp64 = vec![1.5, f64::NAN])),
        ("float", "FP32", grpc::contents(|c| c.fp32 = vec![1.5, f32::NAN])),
        ("long", "INT64", grpc::contents(|c| c.int64 = vec![3, 4])),
        ("integer", "INT32", grpc::contents(|c| c.int32 = vec![3, 4])),
        ("boolean", "BOOL", grpc::contents(|c| c.bools = vec![true, false])),
        ("string", "BYTES", grpc::contents(|c| c.bytes = vec![b"a".to_vec(), b"b".to_vec()])),
        ("binary", "BYTES", grpc::contents(|c| c.bytes = vec![vec![0, 255], vec![]])),
        ("datetime", "BYTES", grpc::contents(|c| c.bytes = vec![b"2024-01-31T12:00:00".to_vec(); 2])),
    ];
    let table = table("## Requests over gRPC");
    assert_eq!(table.iter().map(|row| row[0].as_str()).collect::<Vec<_>>(), good.clone().map(|(kind, ..)| kind));
    let mut wrong = Vec::new();
    for (row, (kind, datatype, contents)) in table.iter().zip(good) {
        let other = if kind == "double" {
            ("string", "BYTES", grpc::contents(|c| c.bytes = vec![b"a".to_vec(), b"b".to_vec()]))
        } else {
            ("double", "FP64", grpc::contents(|c| c.fp64 = vec![1.5, 2.5]))
        };
        for raw in [false, true] {
            for (column, input) in [(1, (kind, datatype, contents.clone())), (2, other.clone())] {
                let answer = grpc::infer(served.port, vec![input], &[], raw).await.unwrap();
                let predictions: Value = answer[0].texts().iter().map(|text| json_of(text)).collect();
                let seen = seen(kind, &(200, Value::Null), &predictions);
                let right = match row[column].as_str() {
                    "cannot be said" => seen != "missing" && seen != "left out",
                    wanted => seen == wanted,
                };
                if !right {
                    wrong.push(format!(
                        "gRPC {kind}, raw {raw}: the table says {row:?}, and it is {seen}: {predictions}"
                    ));
                }
            }
        }
    }
    wrong
}

fn json_of(text: &[u8]) -> Value {
    serde_json::from_slice(text).unwrap()
}

async fn answers_of_the_table(served: &Served) -> Vec<String> {
    // The column of the data frame, and its three values as V2 writes them where they are JSON.
    let among = [
        ("floats", "f", [json!(0.5), Value::Null, json!(1.5)]),
        ("whole numbers", "i", [json!(1), Value::Null, json!(3)]),
        ("booleans", "b", [json!(true), Value::Null, json!(false)]),
        ("texts", "s", [json!("a"), Value::Null, json!("b")]),
        ("times", "t", [json!("2024-01-31T12:00:00"), Value::Null, json!("2024-02-01T00:00:00")]),
        ("objects", "o", [json!({"k": [1]}), Value::Null, json!(["x"])]),
    ];
    let table = table("## Answers");
    assert_eq!(table.iter().map(|row| row[0].as_str()).collect::<Vec<_>>(), among.clone().map(|(kind, ..)| kind));
    let kind = json!({"kind": "missing of each"});
    let rows = json!([{"x": 1}, {"x": 2}, {"x": 3}]);
    let (_, invoked) =
        served.post("/invocations", json!({"dataframe_records": rows, "params": kind}).to_string()).await;
    let (_, v1) = served.post("/v1/models/m:predict", json!({"instances": rows, "parameters": kind}).to_string()).await;
    let input = json!([{"name": "x", "datatype": "FP64", "shape": [3], "data": [1, 2, 3]}]);
    let v2 = |binary: bool| {
        let parameters = json!({"kind": "missing of each", "binary_data_output": binary});
        json!({"inputs": input, "parameters": parameters}).to_string()
    };
    let (_, tensors) = served.post("/v2/models/m/infer", v2(false)).await;
    let answer = client().post(served.url("/v2/models/m/infer")).body(v2(true)).send().await.unwrap();
    let length: usize = answer.headers()["inference-header-content-length"].to_str().unwrap().parse().unwrap();
    let body = answer.bytes().await.unwrap();
    let head: Value = serde_json::from_slice(&body[..length]).unwrap();
    let mut tail = &body[length..];
    let x = ("x", "FP64", grpc::contents(|c| c.fp64 = vec![1.0, 2.0, 3.0]));
    let kind = [("kind", "missing of each")];
    let typed = grpc::infer(served.port, vec![x.clone()], &kind, false).await.unwrap();
    let raw = grpc::infer(served.port, vec![x], &kind, true).await.unwrap();
    let mut wrong = Vec::new();
    for (place, (row, (among, column, values))) in table.iter().zip(among).enumerate() {
        let mut check = |form: &str, right: bool, said: &Value| {
            if !right {
                wrong.push(format!("{form} among {among}: the table says {row:?}, and the answer is {said}"));
            }
        };
        for (form, answer) in [("/invocations", &invoked), ("V1", &v1)] {
            let cells: Vec<Value> = (0..3).map(|row| answer["predictions"][row][column].clone()).collect();
            check(form, row[1] == "null" && same(&json!(cells), &json!(values)), answer);
        }
        let (datatype, form) = row[2].split_once(' ').unwrap();
        let output = &tensors["outputs"][place];
        let data = if form == "JSON" { held_in(&output["data"]) } else { output["data"].clone() };
        let right = output["name"] == column && output["datatype"] == datatype && same(&data, &json!(values));
        check("V2 in JSON", right, output);
        let (datatype, form) = row[3].split_once(' ').unwrap();
        let output = &head["outputs"][place];
        let size = usize::try_from(output["parameters"]["binary_data_size"].as_u64().unwrap()).unwrap();
        let (own, rest) = tail.split_at(size);
        tail = rest;
        let right = match form {
            "NaN" => own == [0.5, f64::NAN, 1.5].map(f64::to_le_bytes).concat(),
            _ => same(&json!(texts(own)), &json!(values)),
        };
        check("V2 in binary", right && output["datatype"] == datatype, output);
        let bytes = &raw[place].raw;
        check("gRPC, raw", bytes == own && raw[place].datatype == datatype, &json!(raw[place].datatype));
        let contents = &typed[place].contents;
        let right = match form {
            "NaN" => contents.fp64.iter().map(|f| f.to_bits()).eq([0.5, f64::NAN, 1.5].map(f64::to_bits)),
            _ => same(&contents.bytes.iter().map(|text| json_of(text)).collect(), &json!(values)),
        };
        check("gRPC, typed", right && typed[place].datatype == datatype, &json!(typed[place].datatype));
    }
    wrong
}

/// The JSON in binary BYTES.
fn texts(mut bytes: &[u8]) -> Vec<Value> {
    let mut texts = Vec::new();
    while let Some((length, rest)) = bytes.split_first_chunk::<4>() {
        let (text, rest) = rest.split_at(usize::try_from(u32::from_le_bytes(*length)).unwrap());
        texts.push(serde_json::from_slice(text).unwrap());
        bytes = rest;
    }
    texts
}
