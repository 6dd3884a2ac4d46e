//! One request, from its head to its answer: identify it, name its endpoint, take its body, admit it, split, forward.
//!
//! HTTP and gRPC differ in where the model's name stands and in how a refusal is written.

use std::{
    convert::Infallible,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use api::deployment::LogPayloads;
use futures::future::BoxFuture;
use http::{HeaderValue, Method, Request, Response, StatusCode, header::CONTENT_TYPE, request::Parts};
use http_body::Body as _;
use hyper::body::Incoming;
use tokio::time::Instant;

use super::{
    app::App,
    connection::Conn,
    merged::Merged,
    own,
    served::{Answer, Served},
};
use crate::{
    admit::limits::{Admission, Full},
    choose,
    forward::{
        attempts::{Call, forward},
        head::Protocol,
        lane::Lane,
        receive::{self, Received},
        reply::OutBody,
    },
    observe::{
        counters::Reason,
        records::{Draft, Payloads},
    },
    table::endpoint::{Endpoint, Revision},
    upstream::split::{Model, Split},
    wire::{
        alarm::Alarm,
        grpc,
        headers::REQUEST_ID,
        path::{self, Action, Target},
        refusal::Refusal,
    },
};

/// For as long as this a stream of requests may rest: its client or its model decides, and HTTP/2's pings notice who is
/// gone.
const RESTING: Duration = Duration::from_secs(86_400);

/// What is known of a request from its head.
#[derive(Debug)]
struct Asked {
    started: Instant,
    id: HeaderValue,
    protocol: Protocol,
}

/// What a request is for.
#[derive(Debug)]
struct Named {
    endpoint: Arc<Endpoint>,
    version: Option<String>,
    /// What the record calls it; `None` if it predicts nothing.
    kind: Option<&'static str>,
    /// Requests come one after the other, for as long as the client likes.
    streams: bool,
}

/// Answers one request.
pub(crate) async fn handle(conn: Arc<Conn>, request: Request<Incoming>) -> Result<Response<Served>, Infallible> {
    let busy = conn.begin(request.version());
    let protocol = if grpc::is_grpc(&request) { Protocol::Grpc } else { Protocol::Http };
    let asked = Asked { started: Instant::now(), id: conn.lane.gateway.ids.of(request.headers()), protocol };
    let id = asked.id.clone();
    let answered = match (check_host(&conn, &request), protocol) {
        (Ok(()), Protocol::Http) => answer(&conn, asked, request).await.map(|it| it.map(Answer::One)),
        (Ok(()), Protocol::Grpc) => Box::pin(answer_grpc(&conn, asked, request)).await,
        (Err(refusal), _) => Err(refusal),
    };
    let mut response = answered.unwrap_or_else(|refusal| refuse(&conn, protocol, refusal).map(Answer::One));
    response.headers_mut().insert(REQUEST_ID.clone(), id);
    Ok(response.map(|body| Served::new(body, busy)))
}

fn check_host(conn: &Conn, request: &Request<Incoming>) -> Result<(), Refusal> {
    let gateway = &conn.lane.gateway;
    let authority = request.uri().authority().map(http::uri::Authority::as_str);
    base::guard::check(request.headers(), authority, &gateway.config.allowed_hosts).map_err(|refusal| {
        gateway.counters.refused(Reason::Host);
        Refusal::new(refusal.status(), refusal.to_string()).closing()
    })
}

fn refuse(conn: &Conn, protocol: Protocol, refusal: Refusal) -> Response<OutBody> {
    match protocol {
        Protocol::Http => {
            if refusal.close {
                conn.linger.store(true, Ordering::Relaxed);
            }
            refusal.into_response().map(OutBody::own)
        }
        Protocol::Grpc => {
            let mut response = Response::new(OutBody::Own(None));
            *response.headers_mut() = grpc::refuse(&refusal);
            response
        }
    }
}

/// A body that nobody reads makes an HTTP/1 connection useless for the next request.
fn leave(unread: &Incoming, refusal: Refusal) -> Refusal {
    if unread.is_end_stream() { refusal } else { refusal.closing() }
}

async fn answer(conn: &Conn, asked: Asked, request: Request<Incoming>) -> Result<Response<OutBody>, Refusal> {
    let (parts, body) = request.into_parts();
    let named = match name(conn, &parts).await {
        Ok(Ok(named)) => named,
        Ok(Err(page)) => return own::answer(&conn.app, page, &parts.method).await.map_err(|it| leave(&body, it)),
        Err(refusal) => return Err(leave(&body, refusal)),
    };
    let length = body.size_hint().exact();
    let mut admission = Admission::new(&conn.lane.limits);
    let mut alarm = conn.alarm(asked.started);
    let body = receive::body(&conn.lane, body, length, &mut admission, &mut alarm).await;
    let body = body.inspect_err(|refusal| count(&named.endpoint, refusal))?;
    let timeout = Duration::from_millis(named.endpoint.route.request_timeout_ms);
    let head = asked.protocol.outgoing(parts, asked.id.clone(), length.filter(|_| body.streams()));
    let revision = admit(&conn.lane, &named, &body, &mut admission)?;
    let call = Call {
        lane: Arc::clone(&conn.lane),
        admission,
        revision,
        versioned: named.version.is_some(),
        protocol: asked.protocol,
        started: asked.started,
        alarm,
        timeout,
        gap: timeout,
        draft: draft(&conn.lane, &named, &asked.id, &body),
        endpoint: named.endpoint,
    };
    forward(call, head, body).await
}

async fn answer_grpc(conn: &Conn, asked: Asked, request: Request<Incoming>) -> Result<Response<Answer>, Refusal> {
    let (parts, body) = request.into_parts();
    let Some(method) = own::model_method(parts.uri.path()) else {
        return own::answer_grpc(&conn.app.gateway, &parts, body).await.map(|it| it.map(Answer::One));
    };
    let streams = method == "ModelStreamInfer";
    let mut admission = Admission::new(&conn.lane.limits);
    let mut alarm = conn.alarm(asked.started);
    let encoding = parts.headers.get(&grpc::ENCODING).cloned();
    let encoding = encoding.as_ref().map(HeaderValue::as_bytes);
    let first = receive::call(&conn.lane, body, encoding, streams, &mut admission, &mut alarm).await?;
    let call = GrpcCall {
        app: Arc::clone(&conn.app),
        lane: Arc::clone(&conn.lane),
        kind: matches!(method, "ModelInfer" | "ModelStreamInfer").then_some("grpc_infer"),
        streams,
        asks_readiness: method == "ModelReady",
        wanted: parts.headers.get(&grpc::TIMEOUT).and_then(|value| grpc::read_timeout(value.as_bytes())),
        head: asked.protocol.outgoing(parts, asked.id.clone(), None),
        started: asked.started,
        id: asked.id,
    };
    let model = Model { name: first.model, version: first.version };
    let (head, rest) = match first.body {
        Received::Long { head, rest, .. } if streams => (head, rest),
        body @ (Received::Held(_) | Received::Long { .. } | Received::Part(_)) => {
            return call.of(model, body, admission, alarm).await.map(|it| it.map(Answer::One));
        }
    };
    let split = Split::new(head, rest, encoding, conn.lane.gateway.config.buffer_body_bytes);
    let own =
        Response::builder().header(CONTENT_TYPE, grpc::KIND).header(&grpc::ENCODING, encoding.unwrap_or(b"identity"));
    let open = move |model, part| -> BoxFuture<'static, _> {
        let admission = Admission::new(&call.lane.limits);
        Box::pin(call.clone().of(model, Received::Part(part), admission, Alarm::new(Instant::now())))
    };
    let mut merged = Box::new(Merged::new(split, Box::new(open), model));
    let head = match merged.head().await {
        Some(head) => head,
        None => own.body(()).map(|own| own.into_parts().0).unwrap_or_else(|_| Response::new(()).into_parts().0),
    };
    Ok(Response::from_parts(head, Answer::Merged(merged)))
}

/// A gRPC call, and what is known of it before its model is.
#[derive(Clone, Debug)]
struct GrpcCall {
    app: Arc<App>,
    lane: Arc<Lane>,
    kind: Option<&'static str>,
    streams: bool,
    /// It asks no more than whether a model is ready.
    asks_readiness: bool,
    /// The caller's own timeout.
    wanted: Option<Duration>,
    head: Request<()>,
    started: Instant,
    id: HeaderValue,
}

impl GrpcCall {
    /// Has a replica of a model answer.
    async fn of(
        self,
        model: Model,
        body: Received,
        mut admission: Admission,
        alarm: Alarm,
    ) -> Result<Response<OutBody>, Refusal> {
        let endpoint = match endpoint(&self.app, &model.name).await {
            Err(_) if self.asks_readiness => return Ok(own::model_not_ready()),
            Ok(found) if self.asks_readiness && !found.serves(model.version.as_deref()) => {
                return Ok(own::model_not_ready());
            }
            found => found?,
        };
        let named = Named { endpoint, version: model.version, kind: self.kind, streams: self.streams };
        let route = Duration::from_millis(named.endpoint.route.request_timeout_ms);
        let timeout = self.wanted.map_or(route, |wanted| wanted.min(route));
        let revision = admit(&self.lane, &named, &body, &mut admission)?;
        let call = Call {
            admission,
            revision,
            versioned: named.version.is_some(),
            protocol: Protocol::Grpc,
            started: self.started,
            alarm,
            timeout,
            gap: if self.streams { RESTING } else { timeout },
            draft: draft(&self.lane, &named, &self.id, &body),
            endpoint: named.endpoint,
            lane: self.lane,
        };
        forward(call, self.head, body).await
    }
}

/// What a path names: something of an endpoint, or a page of the gateway's own.
async fn name(conn: &Conn, parts: &Parts) -> Result<Result<Named, path::Own>, Refusal> {
    let model = match path::read(parts.uri.path()) {
        Target::Model(model) => model,
        Target::Own(page) => return Ok(Err(page)),
        Target::Unreadable => {
            let words = "the path is not UTF-8 after its percent signs are resolved";
            return Err(Refusal::new(StatusCode::BAD_REQUEST, words));
        }
        Target::Unknown => {
            conn.lane.gateway.counters.refused(Reason::Path);
            let words = "there is nothing at this path; models are at /v2/models/{name}/infer and \
                         /v1/models/{name}:predict";
            return Err(Refusal::new(StatusCode::NOT_FOUND, words));
        }
    };
    let (kind, allow) = match model.action {
        Action::Predict(kind) => (Some(kind), (parts.method != Method::POST).then_some("POST")),
        Action::Look => (None, (!matches!(parts.method, Method::GET | Method::HEAD)).then_some("GET, HEAD")),
        Action::Other => (None, None),
    };
    if let Some(allow) = allow {
        let words = format!("this path answers {allow}, not {}", parts.method);
        return Err(Refusal { allow: Some(allow), ..Refusal::new(StatusCode::METHOD_NOT_ALLOWED, words) });
    }
    let endpoint = endpoint(&conn.app, &model.name).await?;
    let version = model.version.map(std::borrow::Cow::into_owned);
    Ok(Ok(Named { endpoint, version, kind, streams: false }))
}

/// The endpoint of a name.
async fn endpoint(app: &Arc<App>, name: &str) -> Result<Arc<Endpoint>, Refusal> {
    if let Some(endpoint) = app.gateway.table.find(name) {
        if let (Some(former), Some(new)) = (&endpoint.route.former, &endpoint.route.name)
            && **new == *name
        {
            let words = format!("its replicas do not answer to `{new}` yet; until they do, it is `{former}`");
            let refusal = Refusal::unavailable(words);
            count(&endpoint, &refusal);
            return Err(refusal);
        }
        return Ok(endpoint);
    }
    if let Some(words) = app.gateway.not_ready() {
        return Err(Refusal::unavailable(words));
    }
    app.gateway.counters.refused(Reason::Model);
    let shown: String = name.chars().take(100).collect();
    let near: Vec<_> = own::near(app, name).await.iter().map(|name| format!("`{name}`")).collect();
    let hint = if near.is_empty() {
        "GET /v1/models lists those that there are".to_owned()
    } else {
        format!("did you mean {}?", near.join(" or "))
    };
    // Programs written against Triton and KServe look for its words, which these begin with.
    Err(Refusal::new(StatusCode::NOT_FOUND, format!("Request for unknown model `{shown}`: {hint}")))
}

/// Takes a place among the requests in flight, and chooses the revision.
fn admit(lane: &Lane, named: &Named, body: &Received, admission: &mut Admission) -> Result<Arc<Revision>, Refusal> {
    let refusal = match admission.enter(&named.endpoint, body.streams() && !named.streams) {
        Ok(()) => match choose::split::revision(&named.endpoint, named.version.as_deref()) {
            Some(revision) => return Ok(Arc::clone(revision)),
            None => no_revision(named),
        },
        Err(full) => {
            lane.gateway.counters.refused(Reason::Full);
            too_many(&named.endpoint, full)
        }
    };
    count(&named.endpoint, &refusal);
    Err(if body.streams() { refusal.closing() } else { refusal })
}

fn count(endpoint: &Endpoint, refusal: &Refusal) {
    endpoint.live.own.get().count(refusal.status.as_u16());
}

fn too_many(endpoint: &Endpoint, full: Full) -> Refusal {
    let name = endpoint.name();
    let (status, words) = match full {
        Full::Gateway(most) => (
            StatusCode::SERVICE_UNAVAILABLE,
            format!("{most} requests are in flight at this gateway (gateway.max_in_flight); try again in a moment"),
        ),
        Full::Deployment(most) => (
            StatusCode::TOO_MANY_REQUESTS,
            format!(
                "{most} requests are in flight for {name} (gateway.max_in_flight_per_deployment); try again in a moment"
            ),
        ),
        Full::Streaming(most) => (
            StatusCode::TOO_MANY_REQUESTS,
            format!(
                "{most} requests with bodies longer than gateway.buffer_body_bytes are in flight for {name} (half of \
                 gateway.max_in_flight_per_deployment); try again in a moment"
            ),
        ),
    };
    Refusal { retry_after: Some(1), ..Refusal::new(status, words) }
}

fn no_revision(named: &Named) -> Refusal {
    let endpoint = &named.endpoint;
    let name = endpoint.name();
    match &named.version {
        Some(version) if endpoint.versions().all(|known| known != version) => {
            let known: Vec<_> = endpoint.versions().take(5).collect();
            let words = match &*known {
                [] => format!("{name} has no version `{version}`, and none that serves"),
                _ => format!("{name} has no version `{version}`; it serves {}", known.join(", ")),
            };
            Refusal::new(StatusCode::NOT_FOUND, words)
        }
        Some(_) | None => Refusal::unavailable(endpoint.why_not(&name)),
    }
}

/// What is recorded of a prediction.
fn draft(lane: &Lane, named: &Named, id: &HeaderValue, body: &Received) -> Option<Draft> {
    let kind = named.kind.filter(|_| lane.records.wanted())?;
    let logged = match named.endpoint.route.log_payloads {
        // Tensors of protobuf are no text; the log holds who, when and how fast.
        _ if kind == "grpc_infer" => false,
        LogPayloads::None => false,
        LogPayloads::Sample => rand::random_range(0..100) == 0,
        LogPayloads::All => true,
    };
    let payloads = logged.then(|| {
        let mut payloads = Box::<Payloads>::default();
        payloads.input.add(body.bytes(), lane.gateway.config.record_payload_bytes);
        payloads
    });
    Some(Draft { kind, id: id.clone(), payloads })
}
