//! Right requests of all kinds, and what can be wrong with them.

use std::io::Write as _;

use flate2::{Compression, write};
use inference::{Data, Datatype, Request, Tensor, element_count};
use serde_json::{Map, Value, json};

use crate::dice::Dice;

/// How the body's length is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    Length,
    Chunked,
    /// A length beyond what comes, and then the end.
    CutOff,
}

/// A request as it goes over the wire.
#[derive(Debug)]
pub(crate) struct Sent {
    pub(crate) method: &'static str,
    path: String,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
    pub(crate) framing: Framing,
}

impl Sent {
    pub(crate) fn post(path: impl Into<String>, body: impl Into<Vec<u8>>) -> Self {
        let (path, body) = (path.into(), body.into());
        Self { method: "POST", path, headers: Vec::new(), body, framing: Framing::Length }
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut out = format!("{} {} HTTP/1.1\r\nhost: 127.0.0.1\r\n", self.method, self.path).into_bytes();
        for (name, value) in &self.headers {
            out.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        }
        match self.framing {
            Framing::Length => {
                out.extend_from_slice(format!("content-length: {}\r\n\r\n", self.body.len()).as_bytes());
                out.extend_from_slice(&self.body);
            }
            Framing::CutOff => {
                out.extend_from_slice(format!("content-length: {}\r\n\r\n", self.body.len() + 10).as_bytes());
                out.extend_from_slice(&self.body);
            }
            Framing::Chunked => {
                out.extend_from_slice(b"transfer-encoding: chunked\r\n\r\n");
                for chunk in self.body.chunks(100) {
                    out.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                    out.extend_from_slice(chunk);
                    out.extend_from_slice(b"\r\n");
                }
                out.extend_from_slice(b"0\r\n\r\n");
            }
        }
        out
    }

    /// For a person.
    pub(crate) fn shown(&self) -> String {
        let bytes = self.bytes();
        let end = bytes.len().min(4_000);
        format!("{} ({} bytes)", bytes[..end].escape_ascii(), bytes.len())
    }
}

/// A tensor's name, type and shape.
type Input = (&'static str, Datatype, &'static [i64]);

/// The models, and their inputs.
const MODELS: [(&str, &[Input]); 13] = [
    ("adder", &[("a", Datatype::Fp32, &[2]), ("b", Datatype::Fp32, &[2])]),
    ("spare", &[("a", Datatype::Fp32, &[2]), ("b", Datatype::Fp32, &[2])]),
    ("picker", &[("index", Datatype::Int64, &[3])]),
    ("mixed", &[("color", Datatype::Bytes, &[2, 1]), ("size", Datatype::Fp32, &[2, 1])]),
    ("iris", &[("X", Datatype::Fp32, &[2, 4])]),
    ("BOOL", &[("x", Datatype::Bool, &[2, 2])]),
    ("INT8", &[("x", Datatype::Int8, &[2, 2])]),
    ("UINT64", &[("x", Datatype::Uint64, &[2, 2])]),
    ("FP16", &[("x", Datatype::Fp16, &[2, 2])]),
    ("BF16", &[("x", Datatype::Bf16, &[2, 2])]),
    ("FP32", &[("x", Datatype::Fp32, &[2, 2])]),
    ("FP64", &[("x", Datatype::Fp64, &[2, 2])]),
    ("BYTES", &[("x", Datatype::Bytes, &[2, 2])]),
];

/// Any request, mostly wrong in some way.
pub(crate) fn any(dice: &mut Dice) -> Sent {
    let (model, inputs) = *dice.of(&MODELS);
    let zeros = |shape: &[i64], datatype| Data::zeros(datatype, element_count(shape).unwrap());
    let inputs: Vec<Tensor> = inputs
        .iter()
        .map(|(name, datatype, shape)| Tensor {
            name: (*name).to_owned(),
            shape: shape.to_vec(),
            data: zeros(shape, *datatype),
        })
        .collect();
    let request = Request { inputs, ..Request::default() };
    let plain = || serde_json::from_slice::<Value>(&request.encode(false).unwrap().body).unwrap();
    let field = |tensor: &Value| (tensor["name"].as_str().unwrap().to_owned(), tensor["data"].clone());
    let fields = || -> Map<String, Value> { plain()["inputs"].as_array().unwrap().iter().map(field).collect() };
    let mut sent = match dice.below(12) {
        0..4 => {
            let mut body = plain();
            let what = *dice.of(&["infer", "infer", "infer", "infer_stream", "versions/1/infer"]);
            if dice.once_in(4) {
                body["parameters"] = json!({"binary_data_output": true, "timeout": 5_000_000, "priority": 1});
            }
            if dice.once_in(4) {
                body["outputs"] = json!([{"name": "y", "parameters": {"binary_data": true}}]);
            }
            text(dice, format!("/v2/models/{model}/{what}"), body)
        }
        4 | 5 => {
            let encoded = request.encode(true).unwrap();
            let mut sent = Sent::post(format!("/v2/models/{model}/infer"), encoded.body.to_vec());
            let length = encoded.header_length.unwrap();
            // The JSON before the tensors is mutated too, with the length as it was or as it is then.
            if dice.once_in(2) {
                let mut json: Value = serde_json::from_slice(&sent.body[..length]).unwrap();
                mutate(dice, &mut json);
                let json = json.to_string().into_bytes();
                let told = if dice.once_in(8) { length } else { json.len() };
                sent.body = [&json[..], &sent.body[length..]].concat();
                sent.headers.push(("inference-header-content-length", told.to_string()));
            } else {
                sent.headers.push(("inference-header-content-length", length.to_string()));
            }
            sent
        }
        6 | 7 => {
            let body = match dice.below(4) {
                0 => json!({"instances": [fields()]}),
                1 => json!({"inputs": fields()}),
                2 => json!({"instances": [[0, "a", {"b64": "aGk="}], [[1], ["b"]]]}),
                _ => json!({"instances": fields().into_iter().next().unwrap().1}),
            };
            text(dice, format!("/v1/models/{model}:predict"), body)
        }
        8 | 9 => {
            let mut body = fields();
            body.insert("id".to_owned(), json!("7"));
            body.insert("parameters".to_owned(), json!({"temperature": 0.5}));
            let what = *dice.of(&["generate", "generate_stream"]);
            text(dice, format!("/v2/models/{model}/{what}"), Value::Object(body))
        }
        10 => {
            let (what, body) = match dice.below(4) {
                0 => ("index", json!({"ready": true})),
                1 => ("models/spare/load", json!({"parameters": {}})),
                2 => ("models/nobody/load", json!({"parameters": {"config": "{}", "file:1/model.onnx": "AAAA"}})),
                _ => ("models/spare/unload", json!({"parameters": {"unload_dependents": false}})),
            };
            text(dice, format!("/v2/repository/{what}"), body)
        }
        _ => {
            let what =
                *dice.of(&["", "/ready", "/stats", "/config", "/health/live", "/versions/1", "/versions//infer"]);
            let mut sent = Sent::post(format!("/v2/models/{model}{what}"), "");
            sent.method = *dice.of(&["GET", "GET", "GET", "HEAD", "PUT", "DELETE"]);
            sent
        }
    };
    spoil(dice, &mut sent);
    sent
}

/// A request of JSON, of which something may be wrong.
fn text(dice: &mut Dice, path: String, mut body: Value) -> Sent {
    for _ in 0..dice.below(3) {
        mutate(dice, &mut body);
    }
    let long = "9".repeat(400);
    let mut text = body.to_string();
    // What no value can hold: numbers beyond all types, words that JSON lacks, one name twice.
    match dice.below(12) {
        0 => {
            text = text.replacen(
                '0',
                dice.of::<&str>(&["1e999", "-1e999", long.as_str(), "NaN", "00", "0x1", "1e-999", "-"]),
                1,
            )
        }
        1 => {
            let doubled = *dice.of(&["\"inputs\":[],", "\"id\":\"1\",", "\"x\":1,", "\"instances\":[],"]);
            text.insert_str(1, &doubled.repeat(2));
        }
        2 => {
            let deep = *dice.of(&[10, 63, 65, 130, 5_000, 100_000]);
            let nest = format!("{}{}", "[".repeat(deep), "]".repeat(deep));
            text = text.replacen('0', &nest, 1);
        }
        3 => text = text.replacen('"', "\\", 1),
        _ => {}
    }
    Sent::post(path, text)
}

/// Changes something somewhere in a value.
fn mutate(dice: &mut Dice, value: &mut Value) {
    let inside = match value {
        Value::Array(list) => list.len(),
        Value::Object(fields) => fields.len(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
    };
    if inside > 0 && !dice.once_in(4) {
        let place = dice.below(inside);
        match value {
            Value::Array(list) => mutate(dice, &mut list[place]),
            Value::Object(fields) => mutate(dice, fields.values_mut().nth(place).unwrap()),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
        return;
    }
    match (dice.below(4), &mut *value) {
        (0, Value::Array(list)) => list.extend(list.clone()),
        (0, Value::Object(fields)) => {
            let name = fields.keys().nth(dice.below(fields.len().max(1))).cloned();
            name.map(|name| fields.remove(&name));
        }
        (1, Value::Object(fields)) => {
            let name = (*dice.of(&["data", "shape", "namee", "", "é", "parameters", "b64", "sequence_id"])).to_owned();
            fields.insert(name, json!([1]));
        }
        (1, Value::Array(list)) => {
            list.pop();
        }
        _ => {
            *value = dice
                .of(&[
                    json!(null),
                    json!(true),
                    json!(-1),
                    json!(0),
                    json!(1.5),
                    json!(i64::MAX),
                    json!(u64::MAX),
                    json!(1e300),
                    json!(""),
                    json!("FP32"),
                    json!("BYTES"),
                    json!("x"),
                    json!("é\u{0}\u{1f600}"),
                    json!("long ".repeat(5_000)),
                    json!([]),
                    json!({}),
                    json!([[], [1]]),
                    json!([i64::MAX, i64::MAX]),
                    json!([-1, 2]),
                    json!([0, 2]),
                    json!([1_000_000_000, 2]),
                    json!(vec![1; 70]),
                    json!({"b64": "%"}),
                    json!({"b64": "AP8=", "more": 1}),
                ])
                .clone();
        }
    }
}

/// Spoils the body, the headers or the path.
fn spoil(dice: &mut Dice, sent: &mut Sent) {
    if dice.once_in(6) && !sent.body.is_empty() {
        let at = dice.below(sent.body.len());
        match dice.below(5) {
            0 => sent.body.truncate(at),
            1 => sent.body[at] = dice.byte(),
            2 => drop(sent.body.splice(at..at, [0xff, 0xfe, 0xc0])),
            3 => sent.body.extend_from_within(at..),
            _ => drop(sent.body.drain(at..(at + 1 + dice.below(16)).min(sent.body.len()))),
        }
    }
    if dice.once_in(12) {
        let length = *dice.of(&["0", "1", "-1", "7", "99999999999999999999", "abc", "", "4294967296"]);
        sent.headers.retain(|(name, _)| *name != "inference-header-content-length");
        sent.headers.push(("inference-header-content-length", length.to_owned()));
    }
    if dice.once_in(8) {
        let (encoding, body) = packed(dice, &sent.body);
        sent.headers.push(("content-encoding", encoding.to_owned()));
        sent.body = body;
    }
    if dice.once_in(6) {
        sent.headers.push(("accept-encoding", (*dice.of(&["gzip", "deflate;q=0.5", "br", ";;,q=", "*"])).to_owned()));
    }
    if dice.once_in(20) {
        sent.path = sent
            .path
            .replace("/models/", dice.of::<&str>(&["/models/%ff", "/models//", "/models/nobody", "/models/a%2fb/"]));
    }
    if dice.once_in(30) {
        sent.framing = *dice.of(&[Framing::Chunked, Framing::CutOff]);
    }
}

/// A compressed body: as it should be, or damaged, or much larger than it looks.
fn packed(dice: &mut Dice, body: &[u8]) -> (&'static str, Vec<u8>) {
    let bomb;
    let body = if dice.once_in(8) {
        bomb = vec![*dice.of(b" [0"); 8 << 20];
        &bomb
    } else {
        body
    };
    let mut gzip = write::GzEncoder::new(Vec::new(), Compression::fast());
    let mut zlib = write::ZlibEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(body).unwrap();
    zlib.write_all(body).unwrap();
    let (encoding, mut packed) = match dice.below(4) {
        0 | 1 => ("gzip", gzip.finish().unwrap()),
        2 => ("deflate", zlib.finish().unwrap()),
        _ => (*dice.of(&["gzip", "deflate", "br", "gzip, gzip", ""]), body[..body.len().min(10_000)].to_vec()),
    };
    if dice.once_in(3) && !packed.is_empty() {
        let at = dice.below(packed.len());
        match dice.below(2) {
            0 => packed.truncate(at),
            _ => packed[at] = dice.byte(),
        }
    }
    (encoding, packed)
}
