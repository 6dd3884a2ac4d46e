//! gRPC: the same balancing and retries, with the model's name inside the first message.
//!
//! The gateway reads that name (and the version) and hands on the bytes as they came, trailers too. What it
//! refuses is a gRPC status.

use std::{pin::Pin, sync::Arc, task::Poll, time::Duration};

use bytes::{BufMut as _, Bytes, BytesMut};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, Version,
    header::{CONTENT_TYPE, TE},
};
use http_body::Body as _;
use hyper::body::Incoming;
use tokio::time::Instant;

use crate::{
    alarm::Alarm,
    answer::{REQUEST_ID, Refusal, remove_hop_by_hop},
    body::{OutBody, ReplicaBody, SendBody, StreamBody, StreamProgress},
    conn::{Busy, Conn},
    flight::{Claim, Flight, Held},
    proxy::{Attempts, blame_client, find_model, judge, stamp},
    record::Draft,
    replica::Replica,
    service::not_ready,
    shard::Executor,
    upstream::{Grpc, SendError, Socket, words},
};

const SERVICE: &str = "/inference.GRPCInferenceService/";
const HEALTH: &str = "/grpc.health.v1.Health/Check";
const KIND: HeaderValue = HeaderValue::from_static("application/grpc");
static STATUS: HeaderName = HeaderName::from_static("grpc-status");
static MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
static TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// Whether a request is gRPC.
pub(crate) fn is_grpc(request: &Request<Incoming>) -> bool {
    request.version() == Version::HTTP_2
        && request.method() == Method::POST
        && request.headers().get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

/// Answers a call.
pub(crate) async fn answer(
    busy: Busy,
    request: Request<Incoming>,
    started: Instant,
    id: HeaderValue,
) -> Response<OutBody> {
    let path = request.uri().path();
    if path == HEALTH {
        let serving = if not_ready(&busy.shard.app).is_none() { 1 } else { 2 };
        return message(&[0x08, serving]);
    }
    let Some(method) = path.strip_prefix(SERVICE) else {
        return refuse(&Refusal::new(StatusCode::NOT_IMPLEMENTED, format!("this gateway serves {SERVICE}* only")));
    };
    match method {
        "ServerLive" => message(&[0x08, 1]),
        "ServerReady" if not_ready(&busy.shard.app).is_none() => message(&[0x08, 1]),
        "ServerReady" => message(&[]),
        "ServerMetadata" => message(&server_metadata()),
        "ModelInfer" | "ModelStreamInfer" | "ModelReady" | "ModelMetadata" | "ModelConfig" | "ModelStatistics" => {
            let streams = method == "ModelStreamInfer";
            let kind = matches!(method, "ModelInfer" | "ModelStreamInfer").then_some("grpc_infer");
            let call = Call { started, id, streams, kind };
            call.proxy(busy, request).await.unwrap_or_else(|refusal| refuse(&refusal))
        }
        _ => refuse(&Refusal::new(
            StatusCode::NOT_IMPLEMENTED,
            format!("`{method}` concerns one server; the gateway stands before many"),
        )),
    }
}

struct Call {
    started: Instant,
    id: HeaderValue,
    streams: bool,
    kind: Option<&'static str>,
}

impl Call {
    async fn proxy(self, busy: Busy, request: Request<Incoming>) -> Result<Response<OutBody>, Refusal> {
        let shard = Arc::clone(&busy.shard);
        let (mut parts, body) = request.into_parts();
        let mut held = Held::new(&shard);
        let first = self.read(&busy, body, &mut held).await?;
        let version = Some(first.version.as_str()).filter(|version| !version.is_empty());
        let (place, revision) = find_model(&shard, &first.name, version)?;
        let endpoint = Arc::clone(&place.endpoint);
        let route = Duration::from_millis(endpoint.route.request_timeout_ms);
        let asked = parts.headers.get(&TIMEOUT).and_then(|value| read_timeout(value.as_bytes()));
        let timeout = asked.map_or(route, |asked| asked.min(route));

        remove_hop_by_hop(&mut parts.headers);
        parts.headers.insert(TE, HeaderValue::from_static("trailers"));
        parts.headers.insert(REQUEST_ID.clone(), self.id.clone());
        let path = parts.uri.path();
        parts.uri = Uri::try_from(format!("http://localhost{path}")).unwrap_or_default();

        let mut spare = None;
        let mut progress = None;
        let mut body = Some(match first.rest {
            None => {
                spare = Some(first.bytes.clone()).filter(|_| endpoint.route.idempotent);
                SendBody::held(first.bytes)
            }
            Some(rest) => {
                let shared = Arc::<StreamProgress>::default();
                progress = Some(Arc::clone(&shared));
                let most = if self.streams { u64::MAX } else { shard.app.config.max_body_bytes };
                let allowed = most.saturating_sub(first.bytes.len() as u64);
                let idle = Duration::from_millis(shard.app.config.body_idle_timeout_ms);
                // A stream may rest between two requests for as long as its client likes; HTTP/2's pings notice who
                // is gone.
                let idle = if self.streams { Duration::from_secs(86_400) } else { idle };
                let alarm = Alarm::new(Instant::now() + idle);
                let head = Some(first.bytes);
                SendBody::Stream(Box::new(StreamBody { head, rest, allowed, idle, alarm, progress: shared }))
            }
        });
        let mut alarm = Alarm::new(Instant::now() + timeout);
        let mut attempts =
            Attempts { shard: &shard, place: &place, revision, tried: Vec::new(), versioned: version.is_some() };
        loop {
            let replica = attempts.next()?;
            let mut grpc = match connection(&replica, &busy).await {
                Ok(grpc) => grpc,
                Err(error) => {
                    replica.eject(shard.app.now_ms());
                    attempts.failed(&replica, &error);
                    continue;
                }
            };
            let again = spare.clone().filter(|_| attempts.left());
            let Some(sending) = body.take().or_else(|| spare.clone().map(SendBody::held)) else {
                return Err(Refusal::unavailable("the call cannot be sent again"));
            };
            let mut outgoing = Request::new(sending);
            *outgoing.method_mut() = Method::POST;
            *outgoing.uri_mut() = parts.uri.clone();
            *outgoing.version_mut() = Version::HTTP_2;
            *outgoing.headers_mut() = parts.headers.clone();
            let claim = Claim::new(&replica);
            let sent = Instant::now();
            match grpc.send(outgoing, &mut alarm).await {
                Ok(response) => {
                    let code = http_code(response.headers()).unwrap_or(response.status());
                    if code == StatusCode::SERVICE_UNAVAILABLE && again.is_some() && attempts.has_other(&replica) {
                        replica.answered_badly(shard.app.now_ms());
                        attempts.failed(&replica, "it answered UNAVAILABLE");
                        continue;
                    }
                    judge(&replica, code, || shard.app.now_ms());
                    let draft = self.kind.filter(|_| shard.records.wanted());
                    let flight = Box::new(Flight {
                        revision: attempts.revision,
                        place,
                        busy,
                        _held: held,
                        claim,
                        started: self.started,
                        sent,
                        code: code.as_u16(),
                        // Tensors of protobuf are no text; the log holds who, when and how fast.
                        draft: draft.map(|kind| Draft { kind, id: self.id.clone(), payloads: None }),
                        whole: false,
                    });
                    let (mut parts, incoming) = response.into_parts();
                    remove_hop_by_hop(&mut parts.headers);
                    stamp(&mut parts.headers, &flight, self.id);
                    let idle = if self.streams { Duration::from_secs(86_400) } else { timeout };
                    let body = ReplicaBody::new(incoming, None, flight, alarm, idle);
                    return Ok(Response::from_parts(parts, OutBody::Replica(body)));
                }
                Err(SendError::Unsent(request)) => {
                    replica.set_grpc(shard.index, None);
                    body = Some(request.into_body());
                    attempts.failed(&replica, "its connection had ended");
                }
                Err(SendError::TimedOut) => {
                    // A client in a hurry says nothing about the replica.
                    if timeout >= Duration::from_millis(endpoint.route.request_timeout_ms) {
                        replica.answered_badly(shard.app.now_ms());
                    }
                    endpoint.live.own.get().count(504);
                    let words = format!("{} did not answer within {} ms", replica.id, timeout.as_millis());
                    return Err(Refusal::new(StatusCode::GATEWAY_TIMEOUT, words));
                }
                Err(SendError::Broken(error)) => {
                    if let Some(refusal) = progress.as_ref().and_then(|progress| blame_client(progress, &shard)) {
                        return Err(refusal);
                    }
                    if grpc.is_closed() {
                        replica.set_grpc(shard.index, None);
                        replica.eject(shard.app.now_ms());
                    }
                    if again.is_none() {
                        endpoint.live.own.get().count(502);
                        let words = format!("{} broke off before it answered: {error}", replica.id);
                        return Err(Refusal::new(StatusCode::BAD_GATEWAY, words));
                    }
                    attempts.failed(&replica, &error);
                }
            }
        }
    }

    /// Reads until the model is known and, where the call is short, all of it.
    async fn read(&self, conn: &Conn, mut body: Incoming, held: &mut Held) -> Result<First, Refusal> {
        let config = &conn.shard.app.config;
        let idle = Duration::from_millis(config.body_idle_timeout_ms);
        let mut alarm = Alarm::new(Instant::now() + idle);
        let mut bytes = BytesMut::new();
        let mut room = true;
        loop {
            let frame = std::future::poll_fn(|cx| match Pin::new(&mut body).poll_frame(cx) {
                Poll::Ready(frame) => Poll::Ready(Ok(frame)),
                Poll::Pending => alarm.poll(cx).map(|()| Err(())),
            });
            let Ok(frame) = frame.await else {
                let words = "nothing of the call came for too long (gateway.body_idle_timeout_ms)";
                return Err(Refusal::new(StatusCode::REQUEST_TIMEOUT, words));
            };
            let ended = match frame {
                None => true,
                Some(Ok(frame)) => {
                    let data = frame.into_data().unwrap_or_default();
                    room &= held.grow(data.len());
                    bytes.extend_from_slice(&data);
                    body.is_end_stream()
                }
                Some(Err(error)) => return Err(Refusal::new(StatusCode::BAD_REQUEST, error.to_string())),
            };
            alarm.set_after(idle);
            let full = !room || bytes.len() > config.buffer_body_bytes;
            match scan(&bytes)? {
                Scan::Model { name, version, .. } if ended => {
                    return Ok(First { name, version, bytes: bytes.freeze(), rest: None });
                }
                Scan::Model { name, version, whole } if full || (self.streams && whole) => {
                    return Ok(First { name, version, bytes: bytes.freeze(), rest: Some(body) });
                }
                Scan::More if ended => {
                    let words = "the call ended within its first message";
                    return Err(Refusal::new(StatusCode::BAD_REQUEST, words));
                }
                Scan::More if full => {
                    let words = "the model's name is too far behind in the message; write its fields in order";
                    return Err(Refusal::new(StatusCode::BAD_REQUEST, words));
                }
                Scan::Model { .. } | Scan::More => {}
            }
        }
    }
}

struct First {
    name: String,
    version: String,
    bytes: Bytes,
    rest: Option<Incoming>,
}

async fn connection(replica: &Replica, conn: &Conn) -> Result<Grpc, String> {
    let shard = &conn.shard;
    if let Some(grpc) = replica.grpc(shard.index) {
        return Ok(grpc);
    }
    let patience = Duration::from_millis(shard.app.config.connect_timeout_ms);
    let socket = Socket::connect(&replica.address, patience).await.map_err(|error| error.to_string())?;
    let grpc = Grpc::open(socket, Executor(shard.app.tasks.clone())).await.map_err(|error| words(&error))?;
    replica.set_grpc(shard.index, Some(grpc.clone()));
    Ok(grpc)
}

#[derive(Debug, PartialEq, Eq)]
enum Scan {
    /// The model is known; `whole` says whether all of the first message is there.
    Model { name: String, version: String, whole: bool },
    /// More bytes are needed.
    More,
}

/// Looks for fields 1 (name) and 2 (version) in the first message of a gRPC body.
fn scan(body: &[u8]) -> Result<Scan, Refusal> {
    let Some((prefix, message)) = body.split_at_checked(5) else { return Ok(Scan::More) };
    if prefix[0] != 0 {
        let words = "the message is compressed, and its model cannot be read; send it with grpc-encoding identity";
        return Err(Refusal::new(StatusCode::NOT_IMPLEMENTED, words));
    }
    let length = u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]) as usize;
    let whole = message.len() >= length;
    let mut rest = &message[..message.len().min(length)];
    let (mut name, mut version) = (None, None);
    let malformed = || Refusal::new(StatusCode::BAD_REQUEST, "the message is no protobuf");
    while !rest.is_empty() {
        let Some((key, after)) = varint(rest) else { break };
        // Fields are written in order by everybody, though nobody must: a complete message is read to its end.
        if key >> 3 > 2 && name.is_some() && !whole {
            break;
        }
        let value = match key & 7 {
            0 => varint(after).map(|(_, after)| (&[][..], after)),
            1 => after.split_at_checked(8),
            2 => match varint(after) {
                Some((length, after)) => after.split_at_checked(usize::try_from(length).unwrap_or(usize::MAX)),
                None => None,
            },
            5 => after.split_at_checked(4),
            _ => return Err(malformed()),
        };
        let Some((value, after)) = value else {
            if whole {
                return Err(malformed());
            }
            return Ok(match name {
                Some(name) if key >> 3 > 2 => Scan::Model { name, version: version.unwrap_or_default(), whole },
                Some(_) | None => Scan::More,
            });
        };
        match key >> 3 {
            1 => name = Some(String::from_utf8_lossy(value).into_owned()),
            2 => version = Some(String::from_utf8_lossy(value).into_owned()),
            _ => {}
        }
        rest = after;
    }
    let past_names = !rest.is_empty();
    match name {
        Some(name) if whole || past_names => Ok(Scan::Model { name, version: version.unwrap_or_default(), whole }),
        None if whole => Ok(Scan::Model { name: String::new(), version: version.unwrap_or_default(), whole }),
        Some(_) | None => Ok(Scan::More),
    }
}

fn varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0_u64;
    for (index, byte) in bytes.iter().enumerate().take(10) {
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Some((value, &bytes[index + 1..]));
        }
    }
    None
}

/// `grpc-timeout`: up to eight digits and a unit.
fn read_timeout(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.split_last()?;
    let count: u64 = std::str::from_utf8(digits).ok().filter(|digits| digits.len() <= 8)?.parse().ok()?;
    Some(match unit {
        b'H' => Duration::from_secs(count * 3600),
        b'M' => Duration::from_secs(count * 60),
        b'S' => Duration::from_secs(count),
        b'm' => Duration::from_millis(count),
        b'u' => Duration::from_micros(count),
        b'n' => Duration::from_nanos(count),
        _ => return None,
    })
}

fn server_metadata() -> Vec<u8> {
    let mut out = Vec::new();
    for (field, text) in [(1_u8, "modelway"), (2, env!("CARGO_PKG_VERSION")), (3, "binary_tensor_data")] {
        out.push(field << 3 | 2);
        out.push(u8::try_from(text.len()).unwrap_or(0));
        out.extend_from_slice(text.as_bytes());
    }
    out
}

/// The status of HTTP that says the same as a gRPC status in headers or trailers, where there is one.
pub(crate) fn http_code(headers: &HeaderMap) -> Option<StatusCode> {
    Some(match headers.get(&STATUS)?.as_bytes() {
        b"0" => StatusCode::OK,
        b"1" | b"4" => StatusCode::GATEWAY_TIMEOUT,
        b"3" | b"9" | b"11" => StatusCode::BAD_REQUEST,
        b"5" => StatusCode::NOT_FOUND,
        b"7" => StatusCode::FORBIDDEN,
        b"8" => StatusCode::TOO_MANY_REQUESTS,
        b"12" => StatusCode::NOT_IMPLEMENTED,
        b"14" => StatusCode::SERVICE_UNAVAILABLE,
        b"16" => StatusCode::UNAUTHORIZED,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    })
}

fn grpc_status(status: StatusCode) -> &'static str {
    match status.as_u16() {
        400 => "3",
        403 | 421 => "7",
        404 => "5",
        408 | 504 => "4",
        413 | 429 => "8",
        501 => "12",
        502 | 503 => "14",
        _ => "13",
    }
}

/// A refusal as a gRPC status.
pub(crate) fn refuse(refusal: &Refusal) -> Response<OutBody> {
    let mut response = Response::new(OutBody::Own(None));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, KIND);
    headers.insert(STATUS.clone(), HeaderValue::from_static(grpc_status(refusal.status)));
    let mut words = String::with_capacity(refusal.words.len());
    for byte in refusal.words.bytes() {
        // What is not printable, and `%` itself, is percent-encoded.
        match byte {
            b' '..=b'~' if byte != b'%' => words.push(char::from(byte)),
            _ => words.push_str(&format!("%{byte:02X}")),
        }
    }
    if let Ok(words) = HeaderValue::from_str(&words) {
        headers.insert(MESSAGE.clone(), words);
    }
    response
}

fn message(bytes: &[u8]) -> Response<OutBody> {
    let mut framed = BytesMut::with_capacity(bytes.len() + 5);
    framed.put_u8(0);
    framed.put_u32(u32::try_from(bytes.len()).unwrap_or(0));
    framed.put_slice(bytes);
    let mut trailers = HeaderMap::new();
    trailers.insert(STATUS.clone(), HeaderValue::from_static("0"));
    let mut response = Response::new(OutBody::Message(Some(framed.freeze()), Some(Box::new(trailers))));
    response.headers_mut().insert(CONTENT_TYPE, KIND);
    response
}

#[cfg(test)]
#[path = "grpc_tests.rs"]
mod tests;
