//! What is asked over HTTP.

use std::io::Write as _;

use flate2::{Compression, write::GzEncoder, write::ZlibEncoder};
use http::Request;
use serde_json::json;

use super::{Ask, wire::Asked};

const JSON: &str = "application/json";

/// A body for `simple`: sixteen numbers twice.
fn numbers() -> String {
    let input = |name| json!({"name": name, "shape": [1, 16], "datatype": "INT32", "data": vec![3; 16]});
    json!({"id": "seven", "inputs": [input("INPUT0"), input("INPUT1")]}).to_string()
}

fn rows() -> String {
    json!({"instances": [{"INPUT0": vec![1; 16], "INPUT1": vec![2; 16]}]}).to_string()
}

/// The tensors behind the JSON; the length of the JSON.
fn binary(words: &str) -> (Vec<u8>, usize) {
    let input = |name| {
        let parameters = json!({"binary_data_size": 64});
        json!({"name": name, "shape": [1, 16], "datatype": "INT32", "parameters": parameters})
    };
    let mut head = json!({"inputs": [input("INPUT0"), input("INPUT1")]});
    if !words.is_empty() {
        head["parameters"] = json!({ words: true });
    }
    let head = head.to_string();
    let tensors = [3_u8, 0, 0, 0].repeat(32);
    ([head.as_bytes(), &tensors].concat(), head.len())
}

fn gzip(body: &str) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(body.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

fn zlib(body: &str) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(body.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

/// One request of HTTP/1.1 with its own connection and an id.
fn one(line: &str, headers: &[(&str, &str)], body: &[u8]) -> Asked {
    let mut head = format!("{line} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n");
    if !headers.iter().any(|(name, _)| *name == "x-request-id") {
        head += "x-request-id: asked\r\n";
    }
    for (name, value) in headers {
        if *name != "-" {
            head += &format!("{name}: {value}\r\n");
        }
    }
    let sized = headers.iter().any(|(name, _)| matches!(*name, "content-length" | "transfer-encoding" | "-"));
    if !sized && (!body.is_empty() || line.starts_with("POST")) {
        head += &format!("content-length: {}\r\n", body.len());
    }
    Asked::Http1([head.as_bytes(), b"\r\n", body].concat())
}

/// A request whose line says what it is.
fn get(status: u16, line: &str) -> Ask {
    Ask { name: line.to_owned(), status, asked: one(line, &[], b"") }
}

fn post(status: u16, path: &str, body: &str) -> Ask {
    let shown = if body.len() > 60 { "" } else { body };
    Ask { name: format!("POST {path} {shown}"), status, asked: one(&format!("POST {path}"), &[], body.as_bytes()) }
}

fn with(name: &str, status: u16, line: &str, headers: &[(&str, &str)], body: &[u8]) -> Ask {
    Ask { name: name.to_owned(), status, asked: one(line, headers, body) }
}

fn raw(name: &str, status: u16, bytes: impl AsRef<[u8]>) -> Ask {
    Ask { name: name.to_owned(), status, asked: Asked::Http1(bytes.as_ref().to_vec()) }
}

fn http2(name: &str, status: u16, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Ask {
    let mut request = Request::builder().method(method).uri(format!("http://127.0.0.1{path}"));
    request = request.header("x-request-id", "asked");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let asked = Asked::Http2 { request: request.body(()).unwrap(), body: body.to_owned().into() };
    Ask { name: format!("HTTP/2: {name}"), status, asked }
}

pub(crate) fn asks() -> Vec<Ask> {
    [pages(), predictions(), bodies(), heads(), over_http2()].into_iter().flatten().collect()
}

/// What is no prediction.
fn pages() -> Vec<Ask> {
    let mut asks = Vec::new();
    for (status, path) in [
        (200, "/"),
        (200, "/health"),
        (200, "/health/live/"),
        (200, "/health/ready"),
        (200, "/ready"),
        (200, "/ping"),
        (200, "/version"),
        (200, "/metrics"),
        (200, "/v1/models"),
        (200, "/v1/models/"),
        (200, "/v1/models/simple"),
        (200, "/v1/models/simple/versions/1"),
        (404, "/v1/models/simple/versions/9"),
        (404, "/v1/models/none"),
        (200, "/v2"),
        (200, "/v2/"),
        (200, "/v2?a=1"),
        (200, "/%76%32"),
        (200, "/v2/health/live"),
        (200, "/v2/health/ready"),
        (200, "/v2/models/simple"),
        (200, "/v2/models/simple/"),
        (200, "/v2/models/s%69mple"),
        (200, "/v2/models/writer"),
        (200, "/v2/models/simple/ready"),
        (200, "/v2/models/simple/versions/1/ready"),
        (404, "/v2/models/simple/versions/9/ready"),
        (404, "/v2/models/none/ready"),
        (404, "/v2/models/none"),
        (404, "/v2/models/simpel"),
        (200, "/v2/models/simple/config"),
        (200, "/v2/models/simple/stats"),
        (200, "/v2/models/simple/versions/1/stats"),
        (404, "/v2/models/none/stats"),
        (200, "/v2/models/stats"),
        (404, "/v2/models/simple/versions"),
        (404, "/v2/models/simple/nothing"),
        (404, "/v2/models/simple/trace/setting"),
        (404, "/v2/trace/setting"),
        (404, "/v2/logging"),
        (404, "/v2/systemsharedmemory/status"),
        (404, "/v2/cudasharedmemory/status"),
        (404, "/v2/models"),
        (404, "/v2/models//infer"),
        (404, "/v2//models/simple"),
        (404, "/v2%2Fmodels/simple"),
        (400, "/v2/models/%FF"),
        (404, "/v3"),
        (404, "/nothing/here"),
    ] {
        asks.push(get(status, &format!("GET {path}")));
        asks.push(get(status, &format!("HEAD {path}")));
    }
    for path in ["/", "/ready", "/ping", "/version", "/metrics", "/v2", "/v2/health/ready", "/v1/models"] {
        asks.push(get(405, &format!("POST {path}")));
        asks.push(get(405, &format!("DELETE {path}")));
    }
    asks.push(get(404, "PUT /v3"));
    for path in ["/v2/models/simple", "/v2/models/simple/ready", "/v2/models/simple/config", "/v2/models/simple/stats"]
    {
        asks.push(get(405, &format!("POST {path}")));
    }
    asks.push(get(405, "POST /v1/models/simple"));
    for (status, path) in [
        (200, "/v2/repository/index"),
        (404, "/v2/repository/models/none/load"),
        (404, "/v2/repository/models/none/unload"),
    ] {
        asks.push(post(status, path, ""));
    }
    asks.push(post(404, "/invocations", r#"{"inputs": {"text": ["once"]}}"#));
    asks
}

fn predictions() -> Vec<Ask> {
    let mut asks = Vec::new();
    for (status, path) in [
        (200, "/v1/models/simple:predict"),
        (200, "/v1/models/simple:predict/"),
        (200, "/v1/models/simple%3Apredict"),
        (200, "/v1/models/%73imple/versions/1%3apredict"),
        (200, "/v1/models/simple:predict?a=1"),
        (404, "/v1/models/simple/versions/9:predict"),
        (404, "/v1/models/none:predict"),
        (404, "/v1/models/none%3Apredict"),
        (404, "/v1/models/:predict"),
        (501, "/v1/models/simple:explain"),
        (404, "/v1/models/simple:fly"),
    ] {
        asks.push(post(status, path, &rows()));
    }
    for (status, path) in [
        (200, "/v2/models/simple/infer"),
        (200, "/v2/models/simple/infer/"),
        (200, "/v2/models/%73imple/versions/%31/infer"),
        (404, "/v2/models/simple/versions/9/infer"),
        (404, "/v2/models/none/infer"),
        (404, "/v2/models/simpel/infer"),
        (404, "/v2/models/simple/versions//infer"),
        (404, "/v2/models/simple/infer/more"),
    ] {
        asks.push(post(status, path, &numbers()));
    }
    for line in ["GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"] {
        asks.push(get(405, &format!("{line} /v2/models/simple/infer")));
        asks.push(get(405, &format!("{line} /v1/models/simple:predict")));
    }
    for (status, path, body) in [
        (400, "generate", r#"{"text": "once"}"#),
        (200, "generate_stream", r#"{"text": "once", "words": 3}"#),
        (400, "generate", r#"{"text": 1}"#),
        (400, "generate", "{"),
        (400, "infer", ""),
        (400, "infer", "{"),
        (400, "infer", "[]"),
        (400, "infer", r#"{"inputs": []}"#),
        (400, "infer", r#"{"inputs": [{"name": "text", "shape": [1], "datatype": "BYTES", "data": ["a"]}]}"#),
        (
            400,
            "infer",
            r#"{"inputs": [{"name": "text", "shape": [1], "datatype": "BYTES", "data": ["a"]}], "parameters": {"words": 3}}"#,
        ),
        (400, "infer", r#"{"inputs": [{"name": "txt", "shape": [1], "datatype": "BYTES", "data": ["a"]}]}"#),
        (400, "infer", r#"{"inputs": [{"name": "text", "shape": [2], "datatype": "BYTES", "data": ["a"]}]}"#),
        (400, "infer", r#"{"inputs": [{"name": "text", "shape": [1], "datatype": "FP32", "data": [NaN]}]}"#),
        (400, "infer", r#"{"inputs": [{"name": "text", "shape": [1], "datatype": "BYTES", "data": [NaN]}]}"#),
        (
            400,
            "infer",
            r#"{"wrong": 1, "inputs": [{"name": "text", "shape": [1], "datatype": "BYTES", "data": ["a"]}]}"#,
        ),
    ] {
        asks.push(post(status, &format!("/v2/models/writer/{path}"), body));
    }
    let of_simple = json!({"INPUT0": [vec![1; 16]], "INPUT1": [vec![2; 16]]}).to_string();
    asks.push(post(200, "/v2/models/simple/generate", &of_simple));
    asks.push(post(200, "/v2/models/simple/generate_stream", &of_simple));
    asks.push(post(404, "/v2/models/none/generate", "{}"));
    asks.push(post(404, "/v2/models/none/generate_stream", "{}"));
    asks.push(get(405, "GET /v2/models/writer/generate_stream"));
    for body in [r#"{"instances": []}"#, r#"{"instances": [NaN]}"#, "{", "", "null"] {
        asks.push(post(400, "/v1/models/simple:predict", body));
    }
    asks
}

fn bodies() -> Vec<Ask> {
    const INFER: &str = "POST /v2/models/simple/infer";
    let (plain, json) = (numbers(), numbers());
    let body = plain.as_bytes();
    let (tensors, length) = binary("");
    let (both, both_length) = binary("binary_data_output");
    let (length, both_length) = (length.to_string(), both_length.to_string());
    let chunked = format!("{:x}\r\n{json}\r\n0\r\n\r\n", json.len());
    let event = json!({"specversion": "1.0", "id": "7", "source": "s", "type": "t",
        "data": serde_json::from_str::<serde_json::Value>(&json).unwrap()});
    let cloud = [("ce-specversion", "1.0"), ("ce-id", "7"), ("ce-source", "s"), ("ce-type", "t")];
    let structured = ("content-type", "application/cloudevents+json");
    let long = (64 << 20).to_string();
    let endless = (1_u64 << 40).to_string();
    vec![
        with("binary tensors", 200, INFER, &[("inference-header-content-length", &length)], &tensors),
        with("binary tensors both ways", 200, INFER, &[("inference-header-content-length", &both_length)], &both),
        with("a header length beyond the body", 400, INFER, &[("inference-header-content-length", "9999")], &tensors),
        with("a header length that is none", 400, INFER, &[("inference-header-content-length", "x")], &tensors),
        with("binary tensors without a header length", 400, INFER, &[], &tensors),
        with("octets", 200, INFER, &[("content-type", "application/octet-stream")], body),
        with("JSON with a charset", 200, INFER, &[("content-type", "application/json; charset=utf-8")], body),
        with("a form", 200, INFER, &[("content-type", "application/x-www-form-urlencoded")], body),
        with("no readable content type", 200, INFER, &[("content-type", "\"")], body),
        with("a body of gzip", 200, INFER, &[("content-encoding", "gzip")], &gzip(&json)),
        with("a body of deflate", 200, INFER, &[("content-encoding", "deflate")], &zlib(&json)),
        with("a body of identity", 200, INFER, &[("content-encoding", "identity")], body),
        with("a body that is no gzip", 400, INFER, &[("content-encoding", "gzip")], body),
        with("a body of gzip that breaks off", 400, INFER, &[("content-encoding", "gzip")], &gzip(&json)[..20]),
        with("a body of a coding that nobody has", 415, INFER, &[("content-encoding", "br")], body),
        with("an answer of gzip", 200, INFER, &[("accept-encoding", "gzip")], body),
        with("an answer of deflate", 200, INFER, &[("accept-encoding", "deflate")], body),
        with("an answer of br or gzip", 200, INFER, &[("accept-encoding", "br, gzip;q=0.5")], body),
        with("a refusal of gzip", 400, INFER, &[("accept-encoding", "gzip")], b"{"),
        with("a page of gzip", 200, "GET /v2", &[("accept-encoding", "gzip")], b""),
        with("an unknown model of gzip", 404, "GET /v2/models/none", &[("accept-encoding", "gzip")], b""),
        with("in chunks", 200, INFER, &[("transfer-encoding", "chunked")], chunked.as_bytes()),
        with(
            "in chunks with a trailer",
            200,
            INFER,
            &[("transfer-encoding", "chunked")],
            chunked.replace("0\r\n\r\n", "0\r\nx-sum: 1\r\n\r\n").as_bytes(),
        ),
        with("in chunks that are none", 400, INFER, &[("transfer-encoding", "chunked")], b"zz\r\n{}\r\n0\r\n\r\n"),
        with(
            "in chunks and with a length",
            200,
            INFER,
            &[("transfer-encoding", "chunked"), ("content-length", "5")],
            chunked.as_bytes(),
        ),
        with("a coding of transfer that nobody has", 400, INFER, &[("transfer-encoding", "gzip")], b""),
        with("a length that is none", 400, INFER, &[("content-length", "-1")], b""),
        with("two lengths", 400, INFER, &[("content-length", "2"), ("content-length", "3")], b"{} "),
        with("no length", 400, INFER, &[("-", "")], b""),
        with("a body that is too large", 413, INFER, &[("content-length", &endless)], b"{"),
        with(
            "a large body for an unknown model",
            404,
            "POST /v2/models/none/infer",
            &[("content-length", &long)],
            b"{",
        ),
        with("a large body for a page", 405, "POST /v2", &[("content-length", &long)], b"{"),
        with("a large body for nothing", 404, "POST /v3", &[("content-length", &long)], b"{"),
        with("expecting to be told to go on", 200, INFER, &[("expect", "100-continue")], body),
        with("an event", 200, INFER, &cloud, body),
        with("an event that is refused", 400, INFER, &cloud, b"{"),
        with("an event for an unknown model", 404, "POST /v2/models/none/infer", &cloud, body),
        with("a structured event", 200, INFER, &[structured], event.to_string().as_bytes()),
        with("a structured event that is none", 400, INFER, &[structured], body),
        with("a structured event for an unknown model", 404, "POST /v2/models/none/infer", &[structured], body),
        with("a batch of events", 415, INFER, &[("content-type", "application/cloudevents-batch+json")], b"[]"),
    ]
}

fn heads() -> Vec<Ask> {
    let body = numbers();
    let length = body.len();
    let infer = |version: &str, headers: &str| {
        format!(
            "POST /v2/models/simple/infer {version}\r\n{headers}x-request-id: asked\r\ncontent-length: {length}\r\n\r\n{body}"
        )
    };
    let closing = "host: 127.0.0.1\r\nconnection: close\r\n";
    let live = |headers: &str| format!("GET /v2 HTTP/1.1\r\n{closing}x-request-id: asked\r\n{headers}\r\n");
    let many: String = (0..120).map(|n| format!("x-{n}: 1\r\n")).collect();
    let long_id = "a".repeat(129);
    let longest = format!("GET /{} HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n", "y".repeat(70_000));
    let headers = [
        ("a foreign host", 421, "host", "models.example.org"),
        ("an address for a host", 200, "host", "10.1.2.3:80"),
        ("a host that is none", 400, "host", "a b"),
        ("a page of elsewhere", 403, "origin", "http://example.org"),
        ("a page of here", 200, "origin", "http://localhost:3000"),
        ("a page of nowhere", 403, "origin", "null"),
    ];
    let mut asks: Vec<_> = headers
        .into_iter()
        .map(|(name, status, header, value)| {
            let host = if header == "host" { "" } else { "host: 127.0.0.1\r\n" };
            let head = format!("{host}{header}: {value}\r\nconnection: close\r\n");
            raw(name, status, infer("HTTP/1.1", &head))
        })
        .collect();
    for (name, id) in [("an id that is none", "a b"), ("an id that is too long", &*long_id), ("an empty id", "")] {
        asks.push(with(name, 200, "GET /v2/models/simple", &[("x-request-id", id)], b""));
    }
    asks.extend([
        raw("no id", 200, format!("GET /v2/models/simple HTTP/1.1\r\n{closing}\r\n")),
        raw("no id and an unknown model", 404, format!("GET /v2/models/none HTTP/1.1\r\n{closing}\r\n")),
        raw("HTTP/1.0", 200, infer("HTTP/1.0", "")),
        raw("HTTP/1.0 that stays", 200, infer("HTTP/1.0", "connection: close, keep-alive\r\n")),
        raw("HTTP/1.0 and a page", 200, "GET /v2 HTTP/1.0\r\nx-request-id: asked\r\n\r\n"),
        raw("no host", 200, infer("HTTP/1.1", "connection: close\r\n")),
        raw("two hosts", 400, infer("HTTP/1.1", &format!("{closing}host: localhost\r\n"))),
        raw("HTTP/3.0", 400, infer("HTTP/3.0", closing)),
        raw(
            "two at once",
            200,
            format!("GET /v2 HTTP/1.1\r\nhost: 127.0.0.1\r\nx-request-id: asked\r\n\r\n{}", live("")),
        ),
        raw(
            "the whole target",
            200,
            format!("GET http://127.0.0.1/v2 HTTP/1.1\r\n{closing}x-request-id: asked\r\n\r\n"),
        ),
        raw(
            "the whole target of elsewhere",
            421,
            format!("GET http://example.org/v2 HTTP/1.1\r\n{closing}x-request-id: asked\r\n\r\n"),
        ),
        raw("a star", 204, format!("OPTIONS * HTTP/1.1\r\n{closing}x-request-id: asked\r\n\r\n")),
        raw("CONNECT", 405, format!("CONNECT 127.0.0.1:80 HTTP/1.1\r\n{closing}x-request-id: asked\r\n\r\n")),
        raw("a method in small letters", 405, format!("get /v2 HTTP/1.1\r\n{closing}x-request-id: asked\r\n\r\n")),
        raw("an upgrade to HTTP/2", 200, live("upgrade: h2c\r\nhttp2-settings: AAMAAABkAARAAAAAAAIAAAAA\r\n")),
        raw("an upgrade to a socket", 200, live("upgrade: websocket\r\nsec-websocket-version: 13\r\n")),
        raw("a folded header", 400, live("a: b\r\n c\r\n")),
        raw("a header without a colon", 400, live("nonsense\r\n")),
        raw("a space before a colon", 400, live("a : b\r\n")),
        raw("no HTTP", 400, "nonsense\r\n\r\n"),
        raw("TLS", 400, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
        raw("120 headers", 431, live(&many)),
        raw("600 KB of headers", 431, live(&format!("x: {}\r\n", "y".repeat(600_000)))),
        raw("20 KB of headers", 200, live(&format!("x: {}\r\n", "y".repeat(20_000)))),
        raw("a path of 70 KB", 414, longest),
        with("gRPC over HTTP/1.1", 405, "POST /v2", &[("content-type", "application/grpc")], b""),
        with("gRPC-Web", 405, "POST /v2", &[("content-type", "application/grpc-web")], b""),
    ]);
    asks
}

fn over_http2() -> Vec<Ask> {
    let many: Vec<_> = (0..120).map(|n| format!("x-{n}")).collect();
    let many: Vec<_> = many.iter().map(|name| (name.as_str(), "1")).collect();
    let long = |length: usize| "y".repeat(length);
    let path = format!("/{}", long(20_000));
    vec![
        http2("a page", 200, "GET", "/v2", &[], ""),
        http2("the head of a page", 200, "HEAD", "/v2", &[], ""),
        http2("an encoded path", 200, "GET", "/v2/models/s%69mple/", &[], ""),
        http2("a prediction", 200, "POST", "/v2/models/simple/infer", &[("content-type", JSON)], &numbers()),
        http2("rows", 200, "POST", "/v1/models/simple:predict", &[], &rows()),
        http2("a stream", 200, "POST", "/v2/models/writer/generate_stream", &[], r#"{"text": "once"}"#),
        http2("a wrong body", 400, "POST", "/v2/models/simple/infer", &[], "{"),
        http2("an unknown model", 404, "POST", "/v2/models/none/infer", &[], &numbers()),
        http2("a wrong method", 405, "GET", "/v2/models/simple/infer", &[], ""),
        http2("nothing", 404, "GET", "/v3", &[], ""),
        http2("a foreign host", 200, "GET", "/v2", &[("host", "127.0.0.1")], ""),
        http2("gRPC by GET", 200, "GET", "/v2", &[("content-type", "application/grpc")], ""),
        http2(
            "gRPC-Web",
            200,
            "POST",
            "/v2/models/simple/infer",
            &[("content-type", "application/grpc-web")],
            &numbers(),
        ),
        http2("10 KB of headers", 200, "GET", "/v2", &[("x", &long(10_000))], ""),
        http2("20 KB of headers", 431, "GET", "/v2", &[("x", &long(20_000))], ""),
        http2("300 KB of headers", 431, "GET", "/v2", &[("x", &long(300_000))], ""),
        http2(
            "300 KB of headers with a body",
            431,
            "POST",
            "/v2/models/simple/infer",
            &[("x", &long(300_000))],
            &numbers(),
        ),
        http2("120 headers", 431, "GET", "/v2", &many, ""),
        http2("a path of 20 KB", 431, "GET", &path, &[], ""),
    ]
}
