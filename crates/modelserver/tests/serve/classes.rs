//! Python classes whose values are more than numbers and texts: JSON, values that are missing, inputs that a request
//! leaves out, and parameters of inputs.

use std::{collections::HashMap, path::Path};

use bytes::Bytes;
use modelserver::proto::{
    InferParameter, InferTensorContents, ModelInferRequest, grpc_inference_service_client::GrpcInferenceServiceClient,
    infer_parameter::ParameterChoice, model_infer_request::InferInputTensor,
};
use serde_json::{Value, json};

use crate::support::{Server, UnderWay, client, config, python, refused};

/// A server of one class: the lines of its body. `files` stand beside it.
async fn served(body: &str, files: &[(&str, &str)]) -> (Server, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let version = folder.path().join("m/1");
    write(&version.join("model.py"), &source(body));
    files.iter().for_each(|(name, text)| write(&folder.path().join("m").join(name), text));
    let mut settings = config(folder.path());
    settings.python = Some(python().display().to_string());
    (Server::ready(settings).await, folder)
}

fn write(file: &Path, text: &str) {
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::fs::write(file, text).unwrap();
}

fn source(body: &str) -> String {
    let head = "import datetime, time\nfrom typing import *\nimport numpy as np\nfrom modelway import *\n";
    let lines: Vec<_> = body.trim_matches('\n').lines().map(|line| format!("    {line}")).collect();
    format!("{head}\nclass M(AbstractModel):\n{}\n", lines.join("\n"))
}

const V1: &str = "/v1/models/m:predict";
const V2: &str = "/v2/models/m/infer";
const GENERATE: &str = "/v2/models/m/generate";

fn texts(name: &str, data: &[&str]) -> Value {
    json!({"name": name, "datatype": "BYTES", "shape": [data.len()], "data": data})
}

/// The predictions of V1 and of MLflow's path, which are the same.
async fn predicted(server: &Server, instances: Value) -> Value {
    let (status, answer) = server.post(V1, &json!({"instances": instances})).await;
    assert_eq!(status, 200, "{answer}");
    let (_, invoked) = server.post("/invocations", &json!({"inputs": instances})).await;
    assert_eq!(invoked["predictions"], answer["predictions"], "{invoked}");
    answer["predictions"].clone()
}

/// The outputs of V2 for inputs of BYTES.
async fn inferred(server: &Server, inputs: Value) -> Value {
    let (status, answer) = server.post(V2, &json!({"inputs": inputs})).await;
    assert_eq!(status, 200, "{answer}");
    answer["outputs"].clone()
}

/// The outputs of gRPC for one input of BYTES: the datatype and the typed texts of each.
async fn over_grpc(server: &Server, name: &str, data: &[&str]) -> Vec<(String, Vec<Vec<u8>>)> {
    let contents = data.iter().map(|text| Bytes::copy_from_slice(text.as_bytes())).collect();
    let input = InferInputTensor {
        name: name.into(),
        datatype: "BYTES".into(),
        shape: vec![i64::try_from(data.len()).unwrap()],
        contents: Some(InferTensorContents { bytes_contents: contents, ..Default::default() }),
        ..Default::default()
    };
    let request = ModelInferRequest { model_name: "m".into(), inputs: vec![input], ..Default::default() };
    let mut client = GrpcInferenceServiceClient::connect(server.url.clone()).await.unwrap();
    let answer = client.model_infer(request).await.unwrap().into_inner();
    let texts = |contents: InferTensorContents| contents.bytes_contents.iter().map(|text| text.to_vec()).collect();
    answer.outputs.into_iter().map(|o| (o.datatype, texts(o.contents.unwrap_or_default()))).collect()
}

const ECHO: &str = r#"
def predict(self, x: dict) -> dict:
    return {"got": x, "n": np.int64(len(x)), "f": np.float32(0.5), "nan": float("nan"), "a": np.array([[1, 2]]), "none": None}
"#;

#[tokio::test]
async fn objects_are_json_at_every_door() {
    let (server, _folder) = served(ECHO, &[]).await;
    let (_, described) = server.get("/v2/models/m").await;
    assert_eq!(described["inputs"][0], json!({"name": "x", "datatype": "BYTES", "shape": [-1]}));
    let said = |got: Value, n: usize| json!({"got": got, "n": n, "f": 0.5, "nan": null, "a": [[1, 2]], "none": null});
    let value = json!({"k": ["ü", {"deep": null}], "l": 1.5});
    let both = json!([said(value.clone(), 2), said(json!({}), 0)]);
    assert_eq!(predicted(&server, json!([value, {}])).await, both);
    assert_eq!(predicted(&server, json!([{"x": value}, {"x": {}}])).await, both, "by the input's name");
    let (_, columns) = server.post(V1, &json!({"inputs": {"x": [value, {}]}})).await;
    assert_eq!(columns["predictions"], both);
    let (_, records) = server.post("/invocations", &json!({"dataframe_records": [{"x": value}, {"x": {}}]})).await;
    assert_eq!(records["predictions"], both);
    for columns in [
        json!({"columns": ["x"], "data": [[value], [{}]]}),
        json!({"columns": ["k", "l"], "data": [[["ü", {"deep": null}], 1.5]]}),
    ] {
        let (_, split) = server.post("/invocations", &json!({"dataframe_split": columns})).await;
        assert_eq!(split["predictions"][0], both[0], "{split}");
    }
    // In V2 and gRPC they are texts that hold JSON.
    let outputs = inferred(&server, json!([texts("x", &[&value.to_string(), "{}"])])).await;
    assert_eq!((&outputs[0]["datatype"], &outputs[0]["shape"]), (&json!("BYTES"), &json!([2])));
    let held = |text: &[u8]| serde_json::from_slice::<Value>(text).unwrap();
    let got: Vec<_> =
        outputs[0]["data"].as_array().unwrap().iter().map(|t| held(t.as_str().unwrap().as_bytes())).collect();
    assert_eq!(json!(got), both);
    let told = over_grpc(&server, "x", &[&value.to_string(), "{}"]).await;
    assert_eq!(told[0].0, "BYTES");
    assert_eq!(json!(told[0].1.iter().map(|text| held(text)).collect::<Vec<_>>()), both);
    // generate, and a bare NaN, which Python's clients write.
    let (status, generated) = server.post(GENERATE, &json!({"x": value})).await;
    assert_eq!((status, &generated["output"]), (200, &both[0]));
    let (_, generated) = server.post_bytes(GENERATE, r#"{"x": {"a": NaN}}"#).await;
    assert_eq!(generated["output"]["got"], json!({"a": null}));
    let (_, answer) = server.post_bytes(V1, r#"{"instances": [{"a": NaN, "b": "NaN, "}]}"#).await;
    assert_eq!(answer["predictions"][0]["got"], json!({"a": null, "b": "NaN, "}));
    // What is none is refused with its place.
    for (path, body) in [
        (V1, json!({"instances": [{}, 5]})),
        (V2, json!({"inputs": [texts("x", &["{}", "5"])]})),
        (GENERATE, json!({"x": [{}, 5]})),
    ] {
        let said = refused(server.post(path, &body).await, 400);
        assert_eq!(said, "input `x`, row 1, is int in JSON, and the model wants an object", "{path}");
    }
    let said = refused(server.post(V2, &json!({"inputs": [texts("x", &["{"])]})).await, 400);
    assert!(said.contains("input `x`, row 0, is not JSON"), "{said}");
}

#[tokio::test]
async fn lists_of_objects_come_row_by_row_and_may_differ_in_length() {
    let (server, _folder) = served(
        "def predict(self, chats: list[list[dict]], any: list[Any]) -> list[list[dict]]:\n    \
         return [chat + [{'role': 'bot', 'said': [any, np.float64(2)]}] for chat, any in zip(chats, any)]",
        &[],
    )
    .await;
    let turn = json!({"role": "user"});
    let rows = json!([{"chats": [turn, turn], "any": [1]}, {"chats": [], "any": null}]);
    let said = |any: Value| json!({"role": "bot", "said": [any, 2.0]});
    let wanted = json!([[turn, turn, said(json!([1]))], [said(Value::Null)]]);
    assert_eq!(predicted(&server, rows).await, wanted);
    let split = json!({"dataframe_split": {"columns": ["chats", "any"], "data": [[[turn, turn], [1]], [[], null]]}});
    let (_, answer) = server.post("/invocations", &split).await;
    assert_eq!(answer["predictions"], wanted);
    let said = refused(server.post(V1, &json!({"instances": [{"chats": {}, "any": 1}]})).await, 400);
    assert!(said.contains("`chats`, row 0, is dict in JSON, and the model wants a list"), "{said}");
}

#[tokio::test]
async fn a_stream_takes_and_makes_objects() {
    let (server, _folder) = served(
        "def predict(self, messages: list[dict], *, words: int = 2) -> Iterator[dict]:\n    \
         for n in range(words):\n        yield {'n': n, 'of': len(messages), 'last': messages[-1]}",
        &[],
    )
    .await;
    let body = json!({"messages": [{"a": 1}, {"b": null}], "words": 2});
    let events = client().post(format!("{}/v2/models/m/generate_stream", server.url)).body(body.to_string());
    let events = events.send().await.unwrap().text().await.unwrap();
    let pieces: Vec<Value> =
        events.lines().filter_map(|l| serde_json::from_str(l.strip_prefix("data: ")?).ok()).collect();
    let said = |n: u8| json!({"n": n, "of": 2, "last": {"b": null}});
    assert_eq!(pieces.iter().map(|piece| piece["output"].clone()).collect::<Vec<_>>(), [said(0), said(1)], "{events}");
}

/// The row of the table of answers in `docs/nulls.md` for values of a kind.
fn row_of_the_table(among: &str) -> Vec<&'static str> {
    let page = include_str!("../../../../docs/nulls.md").split("## Answers").nth(1).unwrap();
    let cells = |line: &'static str| line.trim_matches('|').split('|').map(str::trim).collect::<Vec<_>>();
    page.lines().filter(|line| line.starts_with('|')).map(cells).find(|cells| cells[0] == among).unwrap()
}

const MISSING: &str = r#"
def predict(self, text: str) -> Answer:
    is_there = text != "none"
    time.sleep(float(text) if text[0] == "0" else 0)
    return Answer(*[value if is_there else None for value in ("a", 7, True, 0.5, {"k": np.int8(1)})])
"#;

fn missing() -> String {
    let named = "class Answer(NamedTuple):\n    s: Optional[str]\n    i: Optional[int]\n    b: bool\n    f: float\n    o: Optional[dict]\n";
    source(MISSING).replacen("class M(", &format!("{named}\nclass M("), 1)
}

async fn served_missing() -> (Server, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    write(&folder.path().join("m/1/model.py"), &missing());
    let mut settings = config(folder.path());
    settings.python = Some(python().display().to_string());
    (Server::ready(settings).await, folder)
}

#[tokio::test]
async fn a_missing_value_is_null_among_values_of_every_datatype() {
    let (server, _folder) = served_missing().await;
    let row = |s: Value, i: Value, b: Value, f: Value, o: Value| json!({"s": s, "i": i, "b": b, "f": f, "o": o});
    let there = row(json!("a"), json!(7), json!(true), json!(0.5), json!({"k": 1}));
    let none = row(Value::Null, Value::Null, Value::Null, Value::Null, Value::Null);
    assert_eq!(predicted(&server, json!(["x", "none"])).await, json!([there, none]));
    let input = texts("text", &["x", "none"]);
    let outputs = inferred(&server, json!([input])).await;
    let seen: Vec<_> = outputs.as_array().unwrap().iter().map(|o| (o["datatype"].clone(), o["data"].clone())).collect();
    let wanted = [
        ("BYTES", json!(["a", null])),
        ("INT64", json!([7, null])),
        ("BOOL", json!([true, null])),
        ("FP64", json!([0.5, null])),
        ("BYTES", json!(["{\"k\":1}", "null"])),
    ];
    assert_eq!(seen, wanted.map(|(datatype, data)| (json!(datatype), data)));
    let kinds = ["texts", "whole numbers", "booleans", "floats", "objects"];
    for (among, (datatype, data)) in kinds.into_iter().zip(&seen) {
        let last = data[1].as_str().unwrap_or("null");
        let form = if among == "objects" && last == "null" { "JSON" } else { "null" };
        let row = row_of_the_table(among);
        assert_eq!((row[1], row[2]), ("null", format!("{} {form}", datatype.as_str().unwrap()).as_str()), "{data}");
    }
    // Binary tensors have no null: BYTES hold JSON.
    let body = json!({"inputs": [input], "parameters": {"binary_data_output": true}});
    let answer = client().post(format!("{}{V2}", server.url)).body(body.to_string()).send().await.unwrap();
    let length: usize = answer.headers()["inference-header-content-length"].to_str().unwrap().parse().unwrap();
    let head: Value = serde_json::from_slice(&answer.bytes().await.unwrap()[..length]).unwrap();
    let datatypes: Vec<_> =
        head["outputs"].as_array().unwrap().iter().map(|o| o["datatype"].as_str().unwrap()).collect();
    assert_eq!(datatypes, ["BYTES", "BYTES", "BYTES", "FP64", "BYTES"]);
    for (among, datatype) in kinds.into_iter().zip(datatypes) {
        let form = if datatype == "FP64" { "NaN" } else { "JSON" };
        assert_eq!(row_of_the_table(among)[3], format!("{datatype} {form}"));
    }
    let told = over_grpc(&server, "text", &["x", "none"]).await;
    let told: Vec<_> = told.iter().map(|(datatype, held)| (datatype.as_str(), held.join(&b' '))).collect();
    let wanted = [
        ("BYTES", "\"a\" null"),
        ("BYTES", "7 null"),
        ("BYTES", "true null"),
        ("FP64", ""),
        ("BYTES", "{\"k\":1} null"),
    ];
    assert_eq!(told, wanted.map(|(datatype, held)| (datatype, held.as_bytes().to_vec())));
    let (_, generated) = server.post(GENERATE, &json!({"text": "none"})).await;
    assert_eq!((&generated["s"], &generated["i"], &generated["f"]), (&Value::Null, &Value::Null, &Value::Null));
    // None is missing: the answer is plain.
    let told = over_grpc(&server, "text", &["x"]).await;
    assert_eq!((told[0].1[0].as_slice(), told[1].0.as_str()), (&b"a"[..], "INT64"));
}

#[tokio::test]
async fn a_request_is_answered_the_same_whoever_it_is_joined_with() {
    let (server, _folder) = served_missing().await;
    let url = format!("{}{V2}", server.url);
    let tasks = base::Tasks::new();
    let ask = |text: &str| {
        let body = json!({"inputs": [texts("text", &[text])], "parameters": {"binary_data_output": true}}).to_string();
        UnderWay::send(&tasks, client().post(&url).body(body).send())
    };
    let said = async |asked: UnderWay| asked.answer().await.bytes().await.unwrap();
    let alone = [said(ask("x")).await, said(ask("none")).await];
    let mut joined = 0.0;
    for _ in 0..20 {
        let _busy = ask("0.05");
        let asked: Vec<_> = (0..8).map(|place| ask(["x", "none"][place % 2])).collect();
        for (place, asked) in asked.into_iter().enumerate() {
            assert_eq!(said(asked).await, alone[place % 2]);
        }
        joined = largest_batch(&server).await;
        if joined > 1.0 {
            break;
        }
    }
    assert!(joined > 1.0, "some were joined");
}

/// How many rows a run had on average, by Triton's statistics.
async fn largest_batch(server: &Server) -> f64 {
    let (_, stats) = server.get("/v2/models/m/stats").await;
    let sizes = stats["model_stats"][0]["batch_stats"].as_array().unwrap();
    sizes.iter().map(|size| size["batch_size"].as_f64().unwrap()).fold(0.0, f64::max)
}

const OPTIONAL: &str = "
def predict(self, text: str, lang: str, mark: str = '!', x: Tensor['FP32', -1, 2] = None) -> str:
    return f'{text} {lang} {mark}'
";

#[tokio::test]
async fn an_optional_input_that_is_left_out_is_none_or_what_predict_says() {
    let body = OPTIONAL.replace(", x: Tensor['FP32', -1, 2] = None", "");
    let declared = "input [ { name: \"lang\" data_type: TYPE_STRING dims: [ -1 ] optional: true },\n\
                    { name: \"mark\" data_type: TYPE_STRING dims: [ -1 ] optional: true } ]";
    let (server, _folder) = served(&body, &[("config.pbtxt", declared)]).await;
    assert_eq!(predicted(&server, json!([{"text": "a"}, {"text": "b"}])).await, json!(["a None !", "b None !"]));
    assert_eq!(predicted(&server, json!([{"text": "a", "lang": "de"}])).await, json!(["a de !"]));
    let outputs = inferred(&server, json!([texts("text", &["a"]), texts("mark", &["?"])])).await;
    assert_eq!(outputs[0]["data"], json!(["a None ?"]));
    let (_, generated) = server.post(GENERATE, &json!({"text": "a"})).await;
    assert_eq!(generated["output"], "a None !");
    assert_eq!(over_grpc(&server, "text", &["a"]).await[0].1, [b"a None !"]);
    let said = refused(server.post(V2, &json!({"inputs": [texts("lang", &["a"])]})).await, 400);
    assert!(said.contains("input `text` is missing"), "{said}");
    // Requests that leave out different inputs are not run as one.
    let tasks = base::Tasks::new();
    let ask = |rest: Value| {
        let mut row = json!({"text": "t"});
        row.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        UnderWay::send(
            &tasks,
            client().post(format!("{}{V1}", server.url)).body(json!({"instances": [row]}).to_string()).send(),
        )
    };
    let kinds = [(json!({}), "t None !"), (json!({"lang": "x"}), "t x !"), (json!({"mark": "m"}), "t None m")];
    let asked: Vec<_> = (0..60).map(|place| (ask(kinds[place % 3].0.clone()), kinds[place % 3].1)).collect();
    for (asked, wanted) in asked {
        let answer: Value = asked.answer().await.json().await.unwrap();
        assert_eq!(answer["predictions"], json!([wanted]), "{answer}");
    }
}

#[tokio::test]
async fn an_input_with_an_optional_hint_may_be_left_out_or_null() {
    let body = "def predict(self, text: str, lang: Optional[str], more: Optional[dict] = None) -> str:\n    \
                return f'{text} {lang} {more}'";
    let (server, _folder) = served(body, &[]).await;
    assert_eq!(predicted(&server, json!([{"text": "a"}])).await, json!(["a None None"]));
    assert_eq!(predicted(&server, json!([{"text": "a", "lang": null, "more": {}}])).await, json!(["a None {}"]));
    let (_, generated) = server.post(GENERATE, &json!({"text": "a", "lang": null})).await;
    assert_eq!(generated["output"], "a None None");
    let mixed = json!({"instances": [{"text": "a", "lang": "de"}, {"text": "b", "lang": null}]});
    assert!(refused(server.post(V1, &mixed).await, 400).contains("`lang`: element 1 is null, not a string"));
}

#[tokio::test]
async fn optional_lists_and_arrays_are_left_out_too() {
    let body = "def predict(self, a: list[float], x: Tensor['FP32', -1, 2], y: Tensor['INT64', 3] = 'own') -> list[str]:\n    \
                return [f'{n} {None if x is None else x.tolist()} {y}' for n in a]";
    let declared = "input [ { name: \"x\" data_type: TYPE_FP32 dims: [ -1, 2 ] optional: true },\n\
                    { name: \"y\" data_type: TYPE_INT64 dims: [ 3 ] optional: true } ]";
    let (server, _folder) = served(body, &[("config.pbtxt", declared)]).await;
    let a = json!({"name": "a", "datatype": "FP64", "shape": [1], "data": [1]});
    let x = json!({"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]});
    assert_eq!(inferred(&server, json!([a])).await[0]["data"], json!(["1.0 None own"]));
    assert_eq!(inferred(&server, json!([a, x])).await[0]["data"], json!(["1.0 [[1.0, 2.0]] own"]));
}

const PARAMETERS: &str = "
def predict(self, x: list[str], y: list[str], parameters: dict, *, input_parameters: dict) -> list[str]:
    return [str([sorted(parameters.items()), sorted(input_parameters['x'].items()), input_parameters['y']])] * len(x)
";

fn with(mut input: Value, parameters: Value) -> Value {
    input["parameters"] = parameters;
    input
}

#[tokio::test]
async fn parameters_of_inputs_reach_a_class_that_asks_for_them() {
    let (server, _folder) = served(PARAMETERS, &[]).await;
    let x = with(texts("x", &["a"]), json!({"unit": "cm", "content_type": "str", "n": 2}));
    let body = json!({"inputs": [x, texts("y", &["b"])], "parameters": {"top": 1}});
    let (_, answer) = server.post(V2, &body).await;
    let said = "[[('top', 1)], [('content_type', 'str'), ('n', 2), ('unit', 'cm')], {}]";
    assert_eq!(answer["outputs"][0]["data"], json!([said]), "{answer}");
    // Behind the JSON, where their length is a parameter too.
    let head = |parameters: Value| {
        let input =
            |name: &str, parameters| json!({"name": name, "datatype": "BYTES", "shape": [1], "parameters": parameters});
        let inputs = [input("x", parameters), input("y", json!({"binary_data_size": 5}))];
        json!({"inputs": inputs}).to_string()
    };
    let head = head(json!({"binary_data_size": 5, "unit": "m"}));
    let body = [head.as_bytes(), b"\x01\0\0\0a\x01\0\0\0b"].concat();
    let post = client().post(format!("{}{V2}", server.url)).header("Inference-Header-Content-Length", head.len());
    let answer: Value = post.body(body).send().await.unwrap().json().await.unwrap();
    assert_eq!(answer["outputs"][0]["data"], json!(["[[], [('unit', 'm')], {}]"]), "{answer}");
    // gRPC.
    let answer = grpc_with(&server, &[("unit", "km")]).await;
    let held = answer.get_ref().outputs[0].contents.as_ref().unwrap().bytes_contents[0].clone();
    assert_eq!(held, "[[], [('unit', 'km')], {}]");
    assert!(answer.metadata().get("x-modelway-ignored-fields").is_none());
}

async fn grpc_with(
    server: &Server,
    parameters: &[(&str, &str)],
) -> tonic::Response<modelserver::proto::ModelInferResponse> {
    let of = |(name, value): &(&str, &str)| {
        let choice = ParameterChoice::StringParam((*value).to_owned());
        ((*name).to_owned(), InferParameter { parameter_choice: Some(choice) })
    };
    let input = |name: &str, parameters: HashMap<String, InferParameter>| InferInputTensor {
        name: name.into(),
        datatype: "BYTES".into(),
        shape: vec![1],
        parameters,
        contents: Some(InferTensorContents { bytes_contents: vec!["a".into()], ..Default::default() }),
    };
    let inputs = vec![input("x", parameters.iter().map(of).collect()), input("y", HashMap::new())];
    let mut client = GrpcInferenceServiceClient::connect(server.url.clone()).await.unwrap();
    client.model_infer(ModelInferRequest { model_name: "m".into(), inputs, ..Default::default() }).await.unwrap()
}

#[tokio::test]
async fn requests_with_other_parameters_of_inputs_are_never_mixed_up() {
    let body = "def predict(self, x: list[str], *, input_parameters: dict) -> list[str]:\n    \
                time.sleep(0.005)\n    return [f\"{text}{input_parameters['x'].get('unit')}\" for text in x]";
    let (server, _folder) = served(body, &[]).await;
    let tasks = base::Tasks::new();
    let url = format!("{}{V2}", server.url);
    let ask = |place: usize| {
        let unit = json!({"unit": format!("u{}", place % 3)});
        let body = json!({"inputs": [with(texts("x", &[&place.to_string()]), unit)]}).to_string();
        UnderWay::send(&tasks, client().post(&url).body(body).send())
    };
    for (place, asked) in (0..90).map(ask).collect::<Vec<_>>().into_iter().enumerate() {
        let answer: Value = asked.answer().await.json().await.unwrap();
        assert_eq!(answer["outputs"][0]["data"], json!([format!("{place}u{}", place % 3)]), "{answer}");
    }
    assert!(largest_batch(&server).await > 1.0, "those with the same were joined");
}

#[tokio::test]
async fn parameters_that_nobody_reads_are_named_and_those_of_clients_are_not() {
    let (server, _folder) = served("def predict(self, x: bytes, y: bytes) -> str:\n    return repr(x + y)", &[]).await;
    let ask = async |parameters: Value, element: &str| {
        let body = json!({"inputs": [with(texts("x", &[element]), parameters), texts("y", &["c"])]}).to_string();
        let answer = client().post(format!("{}{V2}", server.url)).body(body).send().await.unwrap();
        let names = answer.headers().get("x-modelway-ignored-fields").map(|names| names.to_str().unwrap().to_owned());
        (names, answer.json::<Value>().await.unwrap())
    };
    let (names, answer) = ask(json!({"unit": "cm", "content_type": "str"}), "ab").await;
    assert_eq!(
        (names.as_deref(), &answer["outputs"][0]["data"]),
        (Some("inputs[0].parameters.unit"), &json!(["b'abc'"]))
    );
    for kind in ["str", "np", "pd"] {
        assert_eq!(ask(json!({"content_type": kind}), "ab").await.0, None);
    }
    let (names, answer) = ask(json!({"content_type": "base64"}), "AP8=").await;
    assert_eq!((names, &answer["outputs"][0]["data"]), (None, &json!(["b'\\x00\\xffc'"])), "{answer}");
    let (_, answer) = ask(json!({"content_type": "base64"}), "no!").await;
    assert!(
        answer["error"].as_str().unwrap().contains("input `x`: its `content_type` is base64, and element 0"),
        "{answer}"
    );
    let metrics = server.text("/metrics").await;
    assert!(metrics.contains("model_ignored_fields_total{model_name=\"m\",model_version=\"1\"} 1"), "{metrics}");
    let answer = grpc_with(&server, &[("unit", "km"), ("content_type", "np")]).await;
    let named = answer.metadata().get("x-modelway-ignored-fields").unwrap();
    assert_eq!(named.to_str().unwrap(), "inputs[0].parameters.unit");
}
