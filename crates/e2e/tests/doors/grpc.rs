//! What is asked over gRPC. The messages are written by hand, field by field.

use std::io::Write as _;

use bytes::Bytes;
use flate2::{Compression, write::GzEncoder, write::ZlibEncoder};
use http::Request;

use super::{Ask, wire::Asked};

const SERVICE: &str = "inference.GRPCInferenceService";
const HEALTH: &str = "grpc.health.v1.Health";
const REFLECTION: [&str; 2] = ["grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection"];

/// A field of bytes, text or a message.
fn field(number: u8, bytes: impl AsRef<[u8]>) -> Vec<u8> {
    let bytes = bytes.as_ref();
    let mut out = vec![number << 3 | 2];
    let mut length = bytes.len();
    while length > 127 {
        out.push(u8::try_from(length & 127).unwrap() | 128);
        length >>= 7;
    }
    out.push(u8::try_from(length).unwrap());
    out.extend_from_slice(bytes);
    out
}

/// A message with gRPC's five bytes before it.
fn frame(message: &[u8], compressed: bool) -> Vec<u8> {
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    [&[u8::from(compressed)], &length[..], message].concat()
}

/// `ModelReadyRequest` and its like.
fn named(name: &str, version: &str) -> Vec<u8> {
    [field(1, name), if version.is_empty() { Vec::new() } else { field(2, version) }].concat()
}

/// What a request to `simple` is made of, which its wrong forms change.
struct Infer<'a> {
    model: &'a str,
    version: &'a str,
    id: &'a str,
    input: &'a str,
    columns: u8,
    raw: bool,
}

const GOOD: Infer<'_> = Infer { model: "simple", version: "", id: "seven", input: "INPUT0", columns: 16, raw: true };

impl Infer<'_> {
    fn message(&self) -> Vec<u8> {
        let numbers = [3_u8].repeat(16);
        let input = |name: &str| {
            let shape = [vec![0x1a, 2, 1], vec![self.columns]].concat();
            let contents = if self.raw { Vec::new() } else { field(5, field(2, &numbers)) };
            field(5, [field(1, name), field(2, "INT32"), shape, contents].concat())
        };
        let raw = if self.raw { field(7, [3_u8, 0, 0, 0].repeat(16)).repeat(2) } else { Vec::new() };
        let version = if self.version.is_empty() { Vec::new() } else { field(2, self.version) };
        [field(1, self.model), version, field(3, self.id), input(self.input), input("INPUT1"), raw].concat()
    }
}

/// A request to `writer`: so many words, each an answer of its own on a stream.
fn words(count: u8) -> Vec<u8> {
    let text = [field(1, "text"), field(2, "BYTES"), vec![0x1a, 1, 1]].concat();
    let parameter = field(4, [field(1, "words"), field(2, [0x10, count])].concat());
    [field(1, "writer"), field(3, "w"), parameter, field(5, text), field(7, b"\x04\0\0\0once")].concat()
}

fn call(name: &str, status: u16, path: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Ask {
    let (request, body) = (request(path, headers), body.into());
    Ask { name: format!("gRPC: {name}"), status, asked: Asked::Http2 { request, body } }
}

fn request(path: &str, headers: &[(&str, &str)]) -> Request<()> {
    let mut request = Request::builder().method("POST").uri(format!("http://127.0.0.1/{path}"));
    request = request.header("te", "trailers").header("x-request-id", "asked");
    if !headers.iter().any(|(name, _)| *name == "content-type") {
        request = request.header("content-type", "application/grpc");
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap()
}

fn unary(status: u16, method: &str, what: &str, message: &[u8]) -> Ask {
    call(&format!("{method}, {what}"), status, &format!("{SERVICE}/{method}"), &[], frame(message, false))
}

fn stream(name: &str, status: u16, headers: &[(&str, &str)], messages: &[Vec<u8>]) -> Ask {
    let body: Vec<u8> = messages.concat();
    call(&format!("a stream, {name}"), status, &format!("{SERVICE}/ModelStreamInfer"), headers, body)
}

pub(crate) fn asks() -> Vec<Ask> {
    [methods(), inference(), streams(), others()].into_iter().flatten().collect()
}

fn methods() -> Vec<Ask> {
    let mut asks =
        vec![unary(0, "ServerLive", "", &[]), unary(0, "ServerReady", "", &[]), unary(0, "ServerMetadata", "", &[])];
    for method in ["ModelReady", "ModelMetadata", "ModelConfig", "ModelStatistics"] {
        let unknown = if method == "ModelReady" { 0 } else { 5 };
        asks.push(unary(0, method, "simple", &named("simple", "")));
        asks.push(unary(0, method, "simple by its version", &named("simple", "1")));
        asks.push(unary(0, method, "writer", &named("writer", "")));
        asks.push(unary(unknown, method, "a version that is not there", &named("simple", "9")));
        asks.push(unary(unknown, method, "a model that is not there", &named("none", "")));
        asks.push(unary(unknown, method, "a name that is near", &named("simpel", "")));
    }
    for (method, status) in [("ModelReady", 0), ("ModelMetadata", 5), ("ModelConfig", 5), ("ModelStatistics", 0)] {
        asks.push(unary(status, method, "no name", &[]));
    }
    asks.extend([
        unary(0, "RepositoryIndex", "", &[]),
        unary(5, "RepositoryModelLoad", "a model that is not there", &field(2, "none")),
        unary(5, "RepositoryModelUnload", "a model that is not there", &field(2, "none")),
    ]);
    for method in ["SystemSharedMemoryStatus", "CudaSharedMemoryRegister", "TraceSetting", "LogSettings", "Fly", ""] {
        asks.push(unary(12, method, "not served", &[]));
    }
    asks
}

fn inference() -> Vec<Ask> {
    const INFER: &str = "inference.GRPCInferenceService/ModelInfer";
    let good = GOOD.message();
    let framed = frame(&good, false);
    let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
    gzip.write_all(&good).unwrap();
    let gzip = gzip.finish().unwrap();
    let mut zlib = ZlibEncoder::new(Vec::new(), Compression::default());
    zlib.write_all(&good).unwrap();
    // A field that nobody knows, before the name.
    let mut behind = GzEncoder::new(Vec::new(), Compression::default());
    behind.write_all(&[field(15, vec![0; 2 << 20]), good.clone()].concat()).unwrap();
    let behind = frame(&behind.finish().unwrap(), true);
    let (packed, zlib) = (frame(&gzip, true), frame(&zlib.finish().unwrap(), true));
    let mut asks = Vec::new();
    for (what, status, infer) in [
        ("raw tensors", 0, GOOD),
        ("typed tensors", 0, Infer { raw: false, ..GOOD }),
        ("a version", 0, Infer { version: "1", ..GOOD }),
        ("a version that is not there", 5, Infer { version: "9", ..GOOD }),
        ("a model that is not there", 5, Infer { model: "none", ..GOOD }),
        ("a name that is near", 5, Infer { model: "simpel", ..GOOD }),
        ("no name", 5, Infer { model: "", ..GOOD }),
        ("a name of another alphabet", 5, Infer { model: "blåbær", ..GOOD }),
        ("an input that is not there", 3, Infer { input: "INPUT7", ..GOOD }),
        ("a shape that is wrong", 3, Infer { columns: 15, ..GOOD }),
    ] {
        asks.push(unary(status, "ModelInfer", what, &infer.message()));
    }
    let cut = framed[..framed.len() - 7].to_vec();
    let encoding = |name| [("grpc-encoding", name)];
    asks.extend([
        unary(5, "ModelInfer", "an empty message", &[]),
        unary(3, "ModelInfer", "what is no protobuf", b"\xff\xff\xff"),
        unary(3, "ModelInfer", "several answers in one", &words(2)),
        call("no message", 3, INFER, &[], Bytes::new()),
        call("a message that breaks off", 3, INFER, &[], cut),
        call("two messages", 3, INFER, &[], framed.repeat(2)),
        call("a time", 0, INFER, &[("grpc-timeout", "20S")], framed.clone()),
        call("a time that is up", 4, INFER, &[("grpc-timeout", "0n")], framed.clone()),
        call("a time for a watch", 4, &format!("{HEALTH}/Watch"), &[("grpc-timeout", "300m")], frame(&[], false)),
        call("gzip", 0, INFER, &encoding("gzip"), packed.clone()),
        call(
            "gzip that may be answered so",
            0,
            INFER,
            &[("grpc-encoding", "gzip"), ("grpc-accept-encoding", "gzip")],
            packed.clone(),
        ),
        call("deflate", 0, INFER, &encoding("deflate"), zlib),
        call("a name behind 2 MiB of gzip", 0, INFER, &encoding("gzip"), behind),
        call("gzip that is not used", 0, INFER, &encoding("gzip"), framed.clone()),
        call("gzip of a coding not named", 13, INFER, &[], packed.clone()),
        call("gzip that is said to be none", 13, INFER, &encoding("identity"), packed),
        call("gzip that is none", 3, INFER, &encoding("gzip"), frame(&good, true)),
        call("a coding that nobody has", 12, INFER, &encoding("zstd"), frame(&gzip, true)),
        call("identity", 0, INFER, &encoding("identity"), framed.clone()),
        call(
            "answers of gzip are read",
            0,
            INFER,
            &[("grpc-accept-encoding", "identity,deflate,gzip")],
            framed.clone(),
        ),
        call("a time limit", 0, INFER, &[("grpc-timeout", "9S")], framed.clone()),
        call("a time limit that is none", 3, INFER, &[("grpc-timeout", "x")], framed.clone()),
        call("metadata", 0, INFER, &[("x-test", "1"), ("x-test-bin", "AAE")], framed.clone()),
        call("+proto", 0, INFER, &[("content-type", "application/grpc+proto")], framed.clone()),
        call("+json", 0, INFER, &[("content-type", "application/grpc+json")], framed.clone()),
        call("a slash at the end", 12, &format!("{INFER}/"), &[], framed.clone()),
        call("a foreign page", 7, INFER, &[("origin", "http://example.org")], framed.clone()),
        call("a service that is not there", 12, "a.Service/Call", &[], framed.clone()),
        call("no path", 12, "", &[], framed.clone()),
        call("20 KB of metadata", 8, INFER, &[("x", &"y".repeat(20_000))], framed.clone()),
    ]);
    asks
}

fn streams() -> Vec<Ask> {
    let good = |id: &str| frame(&Infer { id, ..GOOD }.message(), false);
    let wrong = frame(&Infer { columns: 15, id: "wrong", ..GOOD }.message(), false);
    let unknown = frame(&Infer { model: "none", id: "none", ..GOOD }.message(), false);
    let version = frame(&Infer { version: "9", id: "nine", ..GOOD }.message(), false);
    let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
    gzip.write_all(&GOOD.message()).unwrap();
    let packed = frame(&gzip.finish().unwrap(), true);
    let writer = frame(&words(3), false);
    vec![
        stream("nothing on it", 0, &[], &[]),
        stream("one message", 0, &[], &[good("a")]),
        stream("three messages", 0, &[], &[good("a"), good("b"), good("c")]),
        stream("a wrong one", 0, &[], &[good("a"), wrong, good("c")]),
        stream("an unknown model", 0, &[], std::slice::from_ref(&unknown)),
        stream("an unknown version", 0, &[], &[version, good("b")]),
        stream("an unknown model between", 0, &[], &[good("a"), unknown, good("c")]),
        stream("several answers", 0, &[], std::slice::from_ref(&writer)),
        stream("two models", 0, &[], &[good("a"), writer.clone(), good("c"), writer]),
        stream("gzip", 0, &[("grpc-encoding", "gzip")], &[packed.clone(), packed.clone()]),
        stream(
            "gzip that may be answered so",
            0,
            &[("grpc-encoding", "gzip"), ("grpc-accept-encoding", "identity,gzip")],
            std::slice::from_ref(&packed),
        ),
        stream("plain that may be answered by gzip", 0, &[("grpc-accept-encoding", "gzip")], &[good("a")]),
        stream("gzip of a coding not named", 13, &[], &[packed]),
        stream("a message that breaks off", 13, &[], &[good("a"), good("b")[..40].to_vec()]),
    ]
}

fn others() -> Vec<Ask> {
    let mut asks = Vec::new();
    for (status, service) in
        [(0, ""), (0, SERVICE), (0, HEALTH), (0, REFLECTION[0]), (0, REFLECTION[1]), (0, "simple"), (5, "none")]
    {
        let message = if service.is_empty() { Vec::new() } else { field(1, service) };
        let body: Bytes = frame(&message, false).into();
        asks.push(call(&format!("health of `{service}`"), status, &format!("{HEALTH}/Check"), &[], body.clone()));
        let request = request(&format!("{HEALTH}/Watch"), &[]);
        let asked = Asked::Begun { request, body };
        asks.push(Ask { name: format!("gRPC: watching the health of `{service}`"), status: 200, asked });
    }
    asks.push(call("health, a method that is not there", 12, &format!("{HEALTH}/Fly"), &[], frame(&[], false)));
    for service in REFLECTION {
        let path = format!("{service}/ServerReflectionInfo");
        let symbol = field(4, "inference.ModelInferRequest");
        for (status, what, message) in [
            (0, "services", field(7, "")),
            (0, "a message", symbol),
            (0, "a file", field(3, "health.proto")),
            (5, "a message that is not there", field(4, "a.B")),
        ] {
            asks.push(call(&format!("{service}, {what}"), status, &path, &[], frame(&message, false)));
        }
    }
    asks.push(call(
        "reflection, a method that is not there",
        12,
        &format!("{}/Fly", REFLECTION[0]),
        &[],
        frame(&[], false),
    ));
    asks
}
