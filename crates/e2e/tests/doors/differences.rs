//! What may differ, as the table of `docs/gateway.md` has it; and how answers are compared.

use std::{collections::BTreeSet, fmt::Write as _};

use serde_json::Value;

use super::wire::Said;

const DOCUMENT: &str = include_str!("../../../../docs/gateway.md");

/// A row of the table, and the requests that show it: each of them must be answered differently, and no other. `*`
/// stands for anything.
pub(crate) struct Difference {
    pub(crate) row: &'static str,
    pub(crate) asks: &'static [&'static str],
}

const fn row(row: &'static str, asks: &'static [&'static str]) -> Difference {
    Difference { row, asks }
}

pub(crate) const DIFFERENCES: [Difference; 13] = [
    row("`grpc-encoding` of a stream", &["gRPC: a stream, gzip that may be answered so"]),
    row(
        "load, unload, repository index",
        &["POST /v2/repository/*", "gRPC: RepositoryIndex*", "gRPC: RepositoryModel*"],
    ),
    row(
        "extensions in `/v2` and `ServerMetadata`",
        &[
            "GET /v2",
            "HEAD /v2",
            "* /v2/",
            "* /v2?a=1",
            "* /%76%32",
            "a page of gzip",
            "HTTP/1.0 and a page",
            "two at once",
            "the whole target",
            "an upgrade*",
            "20 KB of headers",
            "HTTP/2: a page",
            "HTTP/2: the head of a page",
            "HTTP/2: a foreign host",
            "HTTP/2: gRPC by GET",
            "HTTP/2: 10 KB of headers",
            "gRPC: ServerMetadata,*",
        ],
    ),
    row("`/invocations`", &["POST /invocations*"]),
    row(
        "statistics of all models: `/v2/models/stats`, `ModelStatistics` without a name",
        &["* /v2/models/stats", "gRPC: ModelStatistics, no name"],
    ),
    row("`GET /metrics`", &["GET /metrics", "HEAD /metrics"]),
    row("`GET /v1/models`", &["GET /v1/models", "HEAD /v1/models", "* /v1/models/"]),
    row("a request without an id, or with an invalid one", &["no id", "an id that is *", "an empty id"]),
    row(
        "the error for an unknown name",
        &[
            "* /v1/models/none",
            "* /v2/models/none",
            "* /v2/models/none/ready",
            "* /v2/models/none/stats",
            "POST /v1/models/none:predict*",
            "POST /v1/models/none%3Apredict*",
            "POST /v2/models/none/*",
            "an unknown model of gzip",
            "a large body for an unknown model",
            "no id and an unknown model",
            "HTTP/2: an unknown model",
            "gRPC: ModelMetadata, a model that is not there",
            "gRPC: ModelConfig, a model that is not there",
            "gRPC: ModelStatistics, a model that is not there",
            "gRPC: ModelInfer, a model that is not there",
            "gRPC: ModelMetadata, no name",
            "gRPC: ModelConfig, no name",
            "gRPC: ModelInfer, no name",
            "gRPC: ModelInfer, a name of another alphabet",
            "gRPC: ModelInfer, an empty message",
            "gRPC: a stream, an unknown model*",
        ],
    ),
    row(
        "compressed answers, CloudEvents",
        &["an event for an unknown model", "a structured event for an unknown model"],
    ),
    row("the setting that bounds a body", &["a body that is too large"]),
    row(
        "the error for a malformed gRPC message",
        &[
            "gRPC: ModelInfer, what is no protobuf",
            "gRPC: gzip that is none",
            "gRPC: a coding that nobody has",
            "gRPC: a stream, gzip of a coding not named",
        ],
    ),
    row(
        "a compressed gRPC message with more than 1 MiB before its model's name",
        &["gRPC: a name behind 2 MiB of gzip"],
    ),
];

/// Rows that `what_is_asked_is_answered_alike_at_both_doors` checks by itself.
const LOOKED_AT: [&str; 1] = ["headers of an answer"];

/// Rows that another test holds: its file, and its name there.
const ELSEWHERE: [(&str, &str, &str); 7] = [
    ("statistics of one model", ROUTING, "what_a_replica_counts_is_told_by_the_one_that_answers"),
    ("`/v2/models/stats` with a model named `stats`", ROUTING, "a_model_may_be_called_stats"),
    ("ready: `/ready`, `ServerReady`", ROUTING, "a_gateway_without_a_table_lives_but_is_not_ready"),
    (
        "ready: `/v2/models/iris/ready`, `ModelReady` right after the replica died",
        GRPC,
        "a_model_whose_replica_died_just_now_is_unavailable",
    ),
    ("models on one stream", GRPC, "models_that_cannot_be_reached_take_no_place_among_those_of_a_stream"),
    (
        "too many calls over HTTP/2",
        SHARING,
        "calls_over_http2_of_all_connections_are_bounded_and_the_first_of_each_is_answered",
    ),
    ("a run that times out", FAULTS, "a_replica_that_is_too_slow_is_504_after_the_routes_timeout"),
];
const ROUTING: &str = include_str!("../../../gateway/tests/routing.rs");
const GRPC: &str = include_str!("../../../gateway/tests/grpc.rs");
const FAULTS: &str = include_str!("../../../gateway/tests/faults.rs");
const SHARING: &str = include_str!("../../../gateway/tests/sharing.rs");

/// The first cells of the document's table.
fn rows_of_the_document() -> BTreeSet<&'static str> {
    let (_, table) = DOCUMENT.split_once("## What differs from one server").unwrap();
    let rows = table.lines().filter(|line| line.starts_with('|')).skip(2);
    rows.map(|line| {
        let cells: Vec<_> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        assert!(cells.len() == 4 && !cells[3].is_empty(), "a row without a reason: {line}");
        cells[0]
    })
    .collect()
}

pub(crate) fn the_document_has_the_same_rows() {
    for (row, file, test) in ELSEWHERE {
        assert!(file.contains(&format!("#[tokio::test]\nasync fn {test}()")), "no test {test} holds the row {row}");
    }
    let elsewhere = ELSEWHERE.iter().map(|(row, ..)| *row);
    let rows: BTreeSet<_> = DIFFERENCES.iter().map(|it| it.row).chain(LOOKED_AT).chain(elsewhere).collect();
    assert_eq!(rows, rows_of_the_document());
}

/// Whether a name is as a pattern with `*` has it.
pub(crate) fn fits(name: &str, pattern: &str) -> bool {
    match pattern.split_once('*') {
        None => name == pattern,
        Some((before, after)) => name.strip_prefix(before).is_some_and(|rest| {
            rest.char_indices().map(|(at, _)| at).chain([rest.len()]).any(|at| fits(&rest[at..], after))
        }),
    }
}

/// What is compared of an answer.
pub(crate) fn shown(ask: &str, said: &Said) -> String {
    let mut out = format!("{}\n", said.status);
    for (name, value) in &said.headers {
        match name.as_str() {
            // With a body it is the body's.
            "content-length" if !said.body.is_empty() => {}
            "date" | "x-modelway-deployment" | "x-modelway-revision" | "x-modelway-replica" => {}
            "ce-id" => out += "ce-id: some\n",
            "grpc-message" => writeln!(out, "{name}: {}", percent_decoded(value)).unwrap(),
            _ => writeln!(out, "{name}: {value}").unwrap(),
        }
    }
    out + &body(ask, said)
}

fn body(ask: &str, said: &Said) -> String {
    if ask.starts_with("gRPC: ModelStatistics") {
        // All but the names are counts and times.
        let names = String::from_utf8_lossy(&said.body).into_owned();
        return names.split(|letter: char| !letter.is_ascii_alphabetic()).filter(|it| it.len() > 4).collect();
    }
    if ask.contains("/stats") && said.status == 200 {
        return without_numbers(serde_json::from_slice(&said.body).unwrap_or_default()).to_string();
    }
    if ask.starts_with("gRPC: a stream") {
        let mut messages = messages(&said.body);
        messages.sort_unstable();
        return format!("{:?}", messages.iter().map(|it| String::from_utf8_lossy(it)).collect::<Vec<_>>());
    }
    if said.headers.get("content-type").is_some_and(|kind| kind.starts_with("application/cloudevents"))
        && let Ok(mut event) = serde_json::from_slice::<Value>(&said.body)
    {
        event["id"] = "some".into();
        return event.to_string();
    }
    format!("{:?}", String::from_utf8_lossy(&said.body))
}

fn without_numbers(value: Value) -> Value {
    match value {
        Value::Number(_) => 0.into(),
        Value::Array(_) if value.to_string().contains("batch_size") && !value.to_string().contains("name") => {
            Value::Null
        }
        Value::Array(all) => all.into_iter().map(without_numbers).collect(),
        Value::Object(all) => all.into_iter().map(|(name, value)| (name, without_numbers(value))).collect(),
        other @ (Value::Null | Value::Bool(_) | Value::String(_)) => other,
    }
}

/// Whether the answers of each model on a stream stand in the order of its requests.
pub(crate) fn in_order(said: &Said) -> bool {
    let messages = messages(&said.body);
    let place = |part: &[u8]| messages.iter().position(|it| it.windows(part.len()).any(|window| window == part));
    // The ids, as fields of the answers: `a` and `c` are of one model.
    let [first, last] = [b"\x1a\x01a", b"\x1a\x01c"].map(|id| place(id).unwrap());
    first < last
}

fn messages(mut body: &[u8]) -> Vec<&[u8]> {
    let mut messages = Vec::new();
    while let Some((prefix, rest)) = body.split_first_chunk::<5>() {
        let length = u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]);
        let Some((message, rest)) = rest.split_at_checked(usize::try_from(length).unwrap()) else { break };
        messages.push(message);
        body = rest;
    }
    messages
}

fn percent_decoded(text: &str) -> String {
    let mut out = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let code = after.get(..2).filter(|_| *first == b'%').and_then(|digits| std::str::from_utf8(digits).ok());
        match code.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                out.push(byte);
                rest = &after[2..];
            }
            None => {
                out.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}
