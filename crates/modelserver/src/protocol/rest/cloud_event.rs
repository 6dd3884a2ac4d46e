//! CloudEvents over HTTP: a request that is an event gets an event as its answer, in the same mode.
//!
//! In binary mode the headers `ce-…` contain the attributes of the event, and the body is the usual one. In structured
//! mode the body is one JSON object with the attributes, and the request in `data` or `data_base64`. Types and sources
//! of answers are those of KServe, because other systems filter by them.

use std::{
    borrow::Cow,
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use api::path::{self, Target};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header::CONTENT_TYPE, request::Parts};
use inference::{decode_base64, replace_bare_floats};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::answer::{self, Answer, Refusal};

const FAMILY: &str = "application/cloudevents";
const STRUCTURED: &str = "application/cloudevents+json";
const VERSION: HeaderName = HeaderName::from_static("ce-specversion");

/// Whether the body is an event in structured mode. Batches are refused.
pub(super) fn is_structured(headers: &HeaderMap) -> Result<bool, Refusal> {
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim_ascii();
    // The most frequent values need one comparison.
    if !kind.get(..FAMILY.len()).is_some_and(|family| family.eq_ignore_ascii_case(FAMILY)) {
        return Ok(false);
    }
    if kind.eq_ignore_ascii_case(STRUCTURED) {
        return Ok(true);
    }
    let reason = format!("a body of {kind} is not read here: send one event in each request, as {STRUCTURED}");
    Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, reason).closing())
}

/// An event in structured mode. Other attributes are ignored.
#[derive(Deserialize)]
struct Envelope<'j> {
    specversion: Option<String>,
    id: Option<String>,
    source: Option<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
    datacontenttype: Option<String>,
    #[serde(borrow)]
    data: Option<&'j RawValue>,
    #[serde(borrow)]
    data_base64: Option<&'j RawValue>,
}

/// The request in an event in structured mode.
pub(super) fn content(body: &Bytes) -> Result<Bytes, Refusal> {
    let not_one = |error: serde_json::Error| Refusal::bad(format!("the body is not a CloudEvent: {error}"));
    match serde_json::from_slice(body) {
        Ok(envelope) => opened(body, envelope),
        Err(error) => {
            // Bare `NaN` and `Infinity` are allowed in an event as in any body.
            let body = Bytes::from(replace_bare_floats(body).ok_or_else(|| not_one(error))?);
            opened(&body, serde_json::from_slice(&body).map_err(not_one)?)
        }
    }
}

fn opened(body: &Bytes, envelope: Envelope<'_>) -> Result<Bytes, Refusal> {
    let attributes = [
        ("specversion", &envelope.specversion),
        ("id", &envelope.id),
        ("source", &envelope.source),
        ("type", &envelope.kind),
    ];
    let missing = attributes.iter().filter(|(_, value)| value.as_ref().is_none_or(|value| value.is_empty()));
    let missing: Vec<_> = missing.map(|(name, _)| format!("`{name}`")).collect();
    if !missing.is_empty() {
        return Err(Refusal::bad(format!("the CloudEvent has no {}", missing.join(", "))));
    }
    if let Some(version) = envelope.specversion.filter(|version| version != "1.0") {
        let shown: String = version.chars().take(32).collect();
        return Err(Refusal::bad(format!("the CloudEvent is of version `{shown}`: send version `1.0`")));
    }
    match (envelope.data, envelope.data_base64) {
        (Some(_), Some(_)) => Err(Refusal::bad("the CloudEvent has both `data` and `data_base64`: send one of them")),
        (None, None) => Err(Refusal::bad("the CloudEvent has no `data`: it holds the body of the request")),
        (None, Some(data)) => decoded(data.get())
            .map(Bytes::from)
            .map_err(|error| Refusal::bad(format!("`data_base64` of the CloudEvent is not base64: {error}"))),
        (Some(data), None) if envelope.datacontenttype.as_deref().is_none_or(is_json) => {
            Ok(body.slice_ref(data.get().as_bytes()))
        }
        // For any other type, the text is the content.
        (Some(data), None) => serde_json::from_str::<String>(data.get()).map(Bytes::from).map_err(|_| {
            Refusal::bad("`data` of the CloudEvent is not a string, and `datacontenttype` says that it is not JSON")
        }),
    }
}

fn decoded(json: &str) -> Result<Vec<u8>, String> {
    let inner = json.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).filter(|text| !text.contains('\\'));
    let decoded = match inner {
        Some(text) => decode_base64(text),
        None => decode_base64(serde_json::from_str::<String>(json).map_err(|error| error.to_string())?),
    };
    decoded.map_err(|error| error.to_string())
}

fn is_json(kind: &str) -> bool {
    let kind = kind.split(';').next().unwrap_or_default().trim_ascii().to_ascii_lowercase();
    kind.ends_with("/json") || kind.ends_with("+json")
}

/// The event for the answer.
#[derive(Debug)]
pub(super) struct Event {
    structured: bool,
    source: String,
}

#[derive(Serialize)]
struct Answering<'e> {
    specversion: &'static str,
    id: String,
    source: &'e str,
    #[serde(rename = "type")]
    kind: &'static str,
    datacontenttype: Cow<'e, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'e RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data_base64: Option<String>,
}

const KIND: &str = "io.kserve.inference.response";

impl Event {
    /// None, unless the request is an event for a model.
    pub(super) fn of(head: &Parts) -> Option<Self> {
        let structured = is_structured(&head.headers).unwrap_or(false);
        if head.method != Method::POST || !(structured || head.headers.contains_key(&VERSION)) {
            return None;
        }
        let source = match path::read(head.uri.path()) {
            Ok(Target::Model(model)) if model.name.is_ascii() => format!("io.kserve.inference.{}", model.name),
            Ok(Target::Model(model)) => {
                let name = percent_encoding::utf8_percent_encode(&model.name, percent_encoding::NON_ALPHANUMERIC);
                format!("io.kserve.inference.{name}")
            }
            Ok(Target::Other(path)) if path == "/invocations" => "io.kserve.inference".to_owned(),
            Ok(Target::Other(_)) | Err(_) => return None,
        };
        Some(Self { structured, source })
    }

    /// The same answer as an event. An error in structured mode and a stream do not change: clients check the status of
    /// an error, and a stream is never complete.
    pub(super) fn onto(self, answer: Answer) -> Answer {
        if self.structured {
            if answer.status().is_success() {
                answer::rewritten(answer, |kind, body| self.enclose(kind, body))
            } else {
                answer
            }
        } else {
            self.name_in_headers(answer)
        }
    }

    fn name_in_headers(self, mut answer: Answer) -> Answer {
        for (name, value) in [
            (VERSION, "1.0".to_owned()),
            (HeaderName::from_static("ce-id"), new_id()),
            (HeaderName::from_static("ce-type"), KIND.to_owned()),
            (HeaderName::from_static("ce-source"), self.source),
        ] {
            if let Ok(value) = HeaderValue::try_from(value) {
                answer.headers_mut().insert(name, value);
            }
        }
        answer
    }

    fn enclose(&self, kind: &str, body: &Bytes) -> Option<(&'static str, Bytes)> {
        let data = is_json(kind).then(|| serde_json::from_slice::<&RawValue>(body).ok()).flatten();
        let event = Answering {
            specversion: "1.0",
            id: new_id(),
            source: &self.source,
            kind: KIND,
            datacontenttype: kind.into(),
            data,
            data_base64: data.is_none().then(|| STANDARD.encode(body)),
        };
        serde_json::to_vec(&event).ok().map(|event| (STRUCTURED, event.into()))
    }
}

/// Event ids are unique within one source.
fn new_id() -> String {
    static STARTED: OnceLock<u128> = OnceLock::new();
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let started = STARTED.get_or_init(|| std::time::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_nanos()));
    format!("{:x}-{started:x}-{:x}", std::process::id(), NEXT.fetch_add(1, Relaxed))
}
