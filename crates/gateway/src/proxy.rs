//! Sends a request to a replica, to another one where the first failed it, and the answer back.
//!
//! A request is sent again only where that is safe: when nothing of it was sent; or when the route says that
//! inference is idempotent, all of the body is still held and nothing of an answer has reached the client. The
//! same holds for an answer of 503, by which a replica says that it is stopping or full: another one may be neither.

use std::{
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use api::deployment::LogPayloads;
use bytes::{Bytes, BytesMut};
use http::{
    HeaderValue, Method, Request, Response, StatusCode, Uri, Version,
    header::{CONTENT_LENGTH, HOST},
};
use http_body::Body as _;
use hyper::body::Incoming;
use tokio::time::Instant;

use crate::{
    alarm::Alarm,
    answer::{DEPLOYMENT, REPLICA, REQUEST_ID, REVISION, Refusal, remove_hop_by_hop},
    balance,
    body::{OutBody, ReplicaBody, SendBody, StreamBody, StreamProgress, StreamState},
    conn::{Busy, Conn},
    flight::{Claim, Flight, Full, Held, Place},
    metrics::Reason,
    path::{Action, ModelPath},
    record::{Draft, Payloads},
    replica::Replica,
    shard::Shard,
    table::Revision,
    upstream::{Link, SendError, Socket, words},
};

/// What is known of a request from its head.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) started: Instant,
    pub(crate) id: HeaderValue,
    pub(crate) action: Action,
}

/// The endpoint and revision of a path, and a place among the requests in flight.
pub(crate) fn find(conn: &Conn, path: &ModelPath<'_>, method: &Method) -> Result<(Place, Arc<Revision>), Refusal> {
    let allow = match path.action {
        Action::Predict(_) if method != Method::POST => Some("POST"),
        Action::Look if !matches!(*method, Method::GET | Method::HEAD) => Some("GET, HEAD"),
        Action::Predict(_) | Action::Look | Action::Other => None,
    };
    if let Some(allow) = allow {
        let words = format!("this path answers {allow}, not {method}");
        return Err(Refusal { allow: Some(allow), ..Refusal::new(StatusCode::METHOD_NOT_ALLOWED, words) });
    }
    find_model(&conn.shard, path.name, path.version)
}

/// The endpoint and revision of a name and version, and a place among the requests in flight.
pub(crate) fn find_model(
    shard: &Arc<Shard>,
    name: &str,
    version: Option<&str>,
) -> Result<(Place, Arc<Revision>), Refusal> {
    let app = &shard.app;
    let Some(endpoint) = app.table.find(name) else {
        if let Some(words) = crate::service::not_ready(app) {
            return Err(Refusal::unavailable(words));
        }
        app.counters.refused(Reason::Model);
        return Err(unknown_model(shard, name));
    };
    let place = Place::take(shard, &endpoint).map_err(|full| {
        app.counters.refused(Reason::Full);
        let (status, words) = match full {
            Full::Gateway(most) => (
                StatusCode::SERVICE_UNAVAILABLE,
                format!("{most} requests are in flight at this gateway (gateway.max_in_flight); try again in a moment"),
            ),
            Full::Deployment(most) => (
                StatusCode::TOO_MANY_REQUESTS,
                format!(
                    "{most} requests are in flight for {name} (gateway.max_in_flight_per_deployment); \
                     try again in a moment"
                ),
            ),
        };
        endpoint.live.own.get().count(status.as_u16());
        Refusal { retry_after: Some(1), ..Refusal::new(status, words) }
    })?;
    if let Some(revision) = balance::revision(&endpoint, version) {
        let revision = Arc::clone(revision);
        return Ok((place, revision));
    }
    if let Some(version) = version
        && endpoint.versions().all(|known| known != version)
    {
        app.counters.refused(Reason::Model);
        let known: Vec<_> = endpoint.versions().take(5).collect();
        let words = match &*known {
            [] => format!("{name} has no version `{version}`, and none that serves"),
            _ => format!("{name} has no version `{version}`; it serves {}", known.join(", ")),
        };
        return Err(Refusal::new(StatusCode::NOT_FOUND, words));
    }
    endpoint.live.own.get().count(503);
    Err(Refusal::unavailable(endpoint.why_not(name)))
}

fn unknown_model(shard: &Shard, name: &str) -> Refusal {
    let shown: String = name.chars().take(100).collect();
    let near = shard.app.table.near(name);
    let words = if near.is_empty() {
        format!("there is no model `{shown}` here; GET /v1/models lists those that there are")
    } else {
        let near: Vec<_> = near.iter().map(|name| format!("`{name}`")).collect();
        format!("there is no model `{shown}` here; did you mean {}?", near.join(" or "))
    };
    Refusal::new(StatusCode::NOT_FOUND, words)
}

/// A request's body as far as it is needed to choose what to do with it.
enum Read {
    /// All of it.
    Held(Bytes),
    /// Longer than is held, or than there is room to hold.
    Long { head: Option<Bytes>, rest: Incoming, allowed: u64 },
}

async fn read_body(
    shard: &Shard,
    mut body: Incoming,
    announced: Option<u64>,
    held: &mut Held,
    alarm: &mut Alarm,
) -> Result<Read, Refusal> {
    let config = &shard.app.config;
    let most = config.max_body_bytes;
    if announced.is_some_and(|length| length > most) {
        return Err(too_long(most));
    }
    if body.is_end_stream() {
        return Ok(Read::Held(Bytes::new()));
    }
    let holdable = config.buffer_body_bytes as u64;
    if announced.is_some_and(|length| length > holdable) {
        return Ok(Read::Long { head: None, rest: body, allowed: most });
    }
    let mut first: Option<Bytes> = None;
    let mut all = BytesMut::new();
    let mut length = 0_u64;
    let idle = Duration::from_millis(config.body_idle_timeout_ms);
    loop {
        let frame = std::future::poll_fn(|cx| match Pin::new(&mut body).poll_frame(cx) {
            std::task::Poll::Ready(frame) => std::task::Poll::Ready(Ok(frame)),
            std::task::Poll::Pending => {
                if length == 0 && all.is_empty() {
                    alarm.set_after(idle);
                }
                alarm.poll(cx).map(|()| Err(stalled(config.body_idle_timeout_ms)))
            }
        })
        .await?;
        let data = match frame {
            None => break,
            Some(Ok(frame)) => frame.into_data().unwrap_or_default(),
            Some(Err(error)) => {
                let words = format!("the request's body cannot be read: {error}");
                return Err(Refusal::new(StatusCode::BAD_REQUEST, words).closing());
            }
        };
        let room = held.grow(data.len());
        length += data.len() as u64;
        if length > most {
            return Err(too_long(most));
        }
        // The first piece is mostly all of it; only a second one makes copying worth while.
        if first.is_none() && all.is_empty() {
            first = Some(data);
        } else {
            if let Some(first) = first.take() {
                let expected = announced.unwrap_or(0).min(holdable);
                all.reserve(usize::try_from(expected).unwrap_or(0).max(first.len() + data.len()));
                all.extend_from_slice(&first);
            }
            all.extend_from_slice(&data);
        }
        if body.is_end_stream() {
            break;
        }
        if !room || length > holdable {
            let head = first.unwrap_or_else(|| all.freeze());
            return Ok(Read::Long { head: Some(head), rest: body, allowed: most - length });
        }
        alarm.set_after(idle);
    }
    Ok(Read::Held(first.unwrap_or_else(|| all.freeze())))
}

fn too_long(most: u64) -> Refusal {
    let words = format!("the body is longer than {most} bytes (gateway.max_body_bytes)");
    Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, words).closing()
}

fn stalled(ms: u64) -> Refusal {
    let words = format!("nothing of the body came for {ms} ms (gateway.body_idle_timeout_ms)");
    Refusal::new(StatusCode::REQUEST_TIMEOUT, words).closing()
}

/// Answers a request through a replica.
pub(crate) async fn proxy(
    busy: Busy,
    place: Place,
    revision: Arc<Revision>,
    versioned: bool,
    asked: Asked,
    request: Request<Incoming>,
) -> Result<Response<OutBody>, Refusal> {
    let shard = Arc::clone(&place.shard);
    let endpoint = Arc::clone(&place.endpoint);
    let timeout = Duration::from_millis(endpoint.route.request_timeout_ms);
    let mut alarm = busy.alarm(asked.started + timeout);
    let (mut parts, body) = request.into_parts();
    let announced = body.size_hint().exact();
    let mut held = Held::new(&shard);
    let read = read_body(&shard, body, announced, &mut held, &mut alarm).await;
    let read = read.inspect_err(|refusal| endpoint.live.own.get().count(refusal.status.as_u16()))?;
    let draft = draft(&asked, &shard, endpoint.route.log_payloads, &read);

    remove_hop_by_hop(&mut parts.headers);
    parts.headers.insert(REQUEST_ID.clone(), asked.id.clone());
    if let Some(authority) = parts.uri.authority() {
        if let Ok(host) = HeaderValue::from_str(authority.as_str()) {
            parts.headers.insert(HOST, host);
        }
        let path = parts.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
        parts.uri = Uri::try_from(path).unwrap_or_default();
    }
    let mut outgoing = Request::new(SendBody::Held(None));
    *outgoing.method_mut() = parts.method;
    *outgoing.uri_mut() = parts.uri;
    *outgoing.version_mut() = Version::HTTP_11;
    *outgoing.headers_mut() = parts.headers;

    let mut attempts = Attempts { shard: &shard, revision, tried: Vec::new(), versioned, place: &place };
    // What it takes to send the request once more; `None` where that is not allowed.
    let mut spare: Option<Bytes> = None;
    let mut progress: Option<Arc<StreamProgress>> = None;
    match read {
        Read::Held(bytes) => {
            if endpoint.route.idempotent {
                spare = Some(bytes.clone());
            }
            *outgoing.body_mut() = SendBody::held(bytes);
        }
        Read::Long { head, rest, allowed } => {
            let shared = Arc::<StreamProgress>::default();
            progress = Some(Arc::clone(&shared));
            let idle = Duration::from_millis(shard.app.config.body_idle_timeout_ms);
            let alarm = Alarm::new(Instant::now() + idle);
            if let Some(length) = announced {
                outgoing.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
            }
            *outgoing.body_mut() =
                SendBody::Stream(Box::new(StreamBody { head, rest, allowed, idle, alarm, progress: shared }));
        }
    }
    // What the client took to send its body is not the replica's.
    let begun = Instant::now();
    alarm.set(begun + timeout);
    let mut sent = begun;

    loop {
        let (replica, mut link) = attempts.connect().await?;
        let claim = Claim::new(&replica);
        let copy = spare.as_ref().filter(|_| attempts.left()).map(|bytes| copy_of(&outgoing, bytes));
        if !attempts.tried.is_empty() {
            sent = Instant::now();
        }
        let mut seen = 0;
        let extend = |alarm: &mut Alarm| {
            let Some(progress) = &progress else { return false };
            let bytes = progress.bytes.load(Ordering::Relaxed);
            let moving = progress.state() == StreamState::Open && bytes != std::mem::replace(&mut seen, bytes);
            alarm.set_after(timeout);
            moving
        };
        match link.send(outgoing, &mut alarm, extend).await {
            Ok(response) => {
                let code = response.status();
                if code == StatusCode::SERVICE_UNAVAILABLE
                    && let Some(again) = copy
                    && attempts.has_other(&replica)
                {
                    replica.answered_badly(shard.app.now_ms());
                    attempts.failed(&replica, "it answered 503");
                    outgoing = again;
                    continue;
                }
                judge(&replica, code, || shard.app.now_ms());
                let flight = Box::new(Flight {
                    busy,
                    revision: attempts.revision,
                    place,
                    _held: held,
                    claim,
                    started: asked.started,
                    sent,
                    code: code.as_u16(),
                    draft,
                    whole: false,
                });
                let (mut parts, incoming) = response.into_parts();
                remove_hop_by_hop(&mut parts.headers);
                parts.version = Version::HTTP_11;
                stamp(&mut parts.headers, &flight, asked.id);
                let body = ReplicaBody::new(incoming, Some(link), flight, alarm, timeout);
                return Ok(Response::from_parts(parts, OutBody::Replica(body)));
            }
            Err(SendError::Unsent(request)) => {
                // A kept connection that had ended meanwhile says nothing about its replica.
                outgoing = *request;
                attempts.stale();
            }
            Err(SendError::TimedOut) => {
                // One slow request proves nothing; one that hangs must not have every second request hang with it.
                if progress.as_ref().is_none_or(|progress| progress.state() == StreamState::Done) {
                    replica.answered_badly(shard.app.now_ms());
                }
                endpoint.live.own.get().count(504);
                let words = format!(
                    "{} did not answer within {} ms (the deployment's request timeout); the request may have been too much for it",
                    replica.id, endpoint.route.request_timeout_ms
                );
                let refusal = Refusal::new(StatusCode::GATEWAY_TIMEOUT, words);
                return Err(if progress.is_some() { refusal.closing() } else { refusal });
            }
            Err(SendError::Broken(error)) => {
                if let Some(refusal) = progress.as_ref().and_then(|progress| blame_client(progress, &shard)) {
                    endpoint.live.own.get().count(refusal.status.as_u16());
                    return Err(refusal);
                }
                replica.eject(shard.app.now_ms());
                match copy {
                    Some(again) => {
                        attempts.failed(&replica, &error);
                        outgoing = again;
                    }
                    None => {
                        endpoint.live.own.get().count(502);
                        let words = format!(
                            "{} broke off before it answered ({error}); the request may have been begun and is not sent again",
                            replica.id
                        );
                        let refusal = Refusal::new(StatusCode::BAD_GATEWAY, words);
                        return Err(if progress.is_some() { refusal.closing() } else { refusal });
                    }
                }
            }
        }
    }
}

/// The headers that say who answered.
pub(crate) fn stamp(headers: &mut http::HeaderMap, flight: &Flight, id: HeaderValue) {
    headers.insert(REQUEST_ID.clone(), id);
    headers.insert(DEPLOYMENT.clone(), flight.place.endpoint.label.clone());
    headers.insert(REVISION.clone(), flight.revision.label.clone());
    headers.insert(REPLICA.clone(), flight.claim.0.label.clone());
}

/// What an answer says about its replica.
pub(crate) fn judge(replica: &Replica, code: StatusCode, now_ms: impl FnOnce() -> u64) {
    if code.is_server_error() && code != StatusCode::NOT_IMPLEMENTED && code != StatusCode::GATEWAY_TIMEOUT {
        replica.answered_badly(now_ms());
    } else {
        replica.answered_well();
    }
}

/// Whether the client, not the replica, ended a streamed request.
pub(crate) fn blame_client(progress: &StreamProgress, shard: &Shard) -> Option<Refusal> {
    let config = &shard.app.config;
    match progress.state() {
        StreamState::TooLong => Some(too_long(config.max_body_bytes)),
        StreamState::Stalled => Some(stalled(config.body_idle_timeout_ms)),
        StreamState::Broken => {
            Some(Refusal::new(StatusCode::BAD_REQUEST, "the request's body broke off before its end").closing())
        }
        StreamState::Open | StreamState::Done => None,
    }
}

fn draft(asked: &Asked, shard: &Shard, policy: LogPayloads, read: &Read) -> Option<Draft> {
    let Action::Predict(kind) = asked.action else { return None };
    if !shard.records.wanted() {
        return None;
    }
    let most = shard.app.config.record_payload_bytes;
    let logged = match policy {
        LogPayloads::None => false,
        LogPayloads::Sample => rand::random_range(0..100) == 0,
        LogPayloads::All => true,
    };
    let payloads = logged.then(|| {
        let mut payloads = Box::<Payloads>::default();
        match read {
            Read::Held(bytes) => payloads.input.add(bytes, most),
            Read::Long { head, .. } => payloads.input.add(head.as_deref().unwrap_or_default(), most),
        }
        payloads
    });
    Some(Draft { kind, id: asked.id.clone(), payloads })
}

fn copy_of(request: &Request<SendBody>, body: &Bytes) -> Request<SendBody> {
    let mut copy = Request::new(SendBody::held(body.clone()));
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.headers_mut() = request.headers().clone();
    copy
}

/// Which replicas had their try.
pub(crate) struct Attempts<'a> {
    pub(crate) shard: &'a Arc<Shard>,
    pub(crate) place: &'a Place,
    pub(crate) revision: Arc<Revision>,
    pub(crate) tried: Vec<(Arc<Replica>, String)>,
    pub(crate) versioned: bool,
}

impl Attempts<'_> {
    /// Whether one more try is allowed after the one under way.
    pub(crate) fn left(&self) -> bool {
        self.tried.len() < self.shard.app.config.retries as usize
    }

    /// Whether there is a replica that has not had its try.
    pub(crate) fn has_other(&self, replica: &Arc<Replica>) -> bool {
        let had = |other: &Arc<Replica>| {
            Arc::ptr_eq(other, replica) || self.tried.iter().any(|(tried, _)| Arc::ptr_eq(tried, other))
        };
        self.revision.replicas.iter().any(|other| !had(other))
    }

    /// Notes that a replica failed.
    pub(crate) fn failed(&mut self, replica: &Arc<Replica>, how: &str) {
        self.shard.app.counters.retries.inc();
        self.tried.push((Arc::clone(replica), how.to_owned()));
        self.refresh();
    }

    /// A kept connection had ended.
    fn stale(&self) {
        self.shard.app.counters.stale.inc();
    }

    /// The table may have moved on: what failed is perhaps no longer a replica, and a new one is there.
    fn refresh(&mut self) {
        let Some(newer) = self.shard.app.table.find(&self.place.endpoint.id.to_string()) else { return };
        let version = self.versioned.then_some(self.revision.model_version.as_str());
        let same = newer.revisions.iter().find(|revision| revision.number == self.revision.number);
        if let Some(same) = same.filter(|same| !same.replicas.is_empty()) {
            self.revision = Arc::clone(same);
        } else if let Some(other) = balance::revision(&newer, version) {
            self.revision = Arc::clone(other);
        }
    }

    /// The next replica.
    pub(crate) fn next(&self) -> Result<Arc<Replica>, Refusal> {
        let now = || self.shard.app.now_ms();
        let tried: Vec<_> = self.tried.iter().map(|(replica, _)| Arc::clone(replica)).collect();
        let fits = self.tried.len() <= self.shard.app.config.retries as usize;
        // With every replica tried, the first may have been unlucky: a crash is often over in a moment.
        let next = balance::choose(&self.revision, &tried, now).or_else(|| balance::choose(&self.revision, &[], now));
        next.filter(|_| fits).map(Arc::clone).ok_or_else(|| {
            self.place.endpoint.live.own.get().count(503);
            let name = self.place.endpoint.id;
            match self.tried.last() {
                Some((replica, how)) => Refusal::unavailable(format!(
                    "no replica of {name} could be reached: {} tries, the last to {}: {how}",
                    self.tried.len(),
                    replica.id
                )),
                None => Refusal::unavailable(self.place.endpoint.why_not(&name.to_string())),
            }
        })
    }

    /// A connection to the next replica that can be reached.
    async fn connect(&mut self) -> Result<(Arc<Replica>, Link), Refusal> {
        loop {
            let replica = self.next()?;
            if let Some(link) = replica.take_idle(self.shard.index) {
                return Ok((replica, link));
            }
            let patience = Duration::from_millis(self.shard.app.config.connect_timeout_ms);
            let opened = match Socket::connect(&replica.address, patience).await {
                Ok(socket) => Link::open(socket).await.map_err(|error| words(&error)),
                Err(error) => Err(error.to_string()),
            };
            match opened {
                Ok(link) => return Ok((replica, link)),
                Err(error) => {
                    replica.eject(self.shard.app.now_ms());
                    self.failed(&replica, &error);
                }
            }
        }
    }
}
