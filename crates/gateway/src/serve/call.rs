//! One gRPC call until it is sent to a replica: its first message names its model; on a stream each message does.

use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{HeaderValue, Request, Response};
use hyper::body::Incoming;
use tokio::time::Instant;

use super::{
    app::App,
    asked::{Asked, Ready},
    connection::Conn,
    merged::Merged,
    name::{self, Named},
    own,
    served::Answer,
};
use crate::{
    admit::limits::Admission,
    forward::{
        attempts::forward,
        lane::Lane,
        receive::{self, Received},
        reply::OutBody,
    },
    upstream::split::{Model, Split},
    wire::{alarm::Alarm, grpc, refusal::Refusal},
};

/// Answers a call.
pub(crate) async fn answer(conn: &Conn, asked: Asked, request: Request<Incoming>) -> Result<Response<Answer>, Refusal> {
    let Some(method) = own::model_method(request.uri().path()) else {
        let answering = own::answer_grpc(conn, request);
        return match asked.until {
            None => answering.await,
            Some(until) if until <= Instant::now() => Err(Refusal::late()),
            Some(until) => tokio::time::timeout_at(until, answering).await.unwrap_or_else(|_| Err(Refusal::late())),
        };
    };
    let (parts, body) = request.into_parts();
    let streams = method == "ModelStreamInfer";
    let mut admission = Admission::new(&conn.lane.limits);
    let mut alarm = conn.alarm(asked.started);
    let encoding = parts.headers.get(&grpc::ENCODING).cloned();
    let encoding = encoding.as_ref().map(HeaderValue::as_bytes);
    let first = receive::call(&conn.lane, body, encoding, streams, asked.until, &mut admission, &mut alarm).await?;
    let Some(first) = first else { return Ok(OutBody::grpc(None).map(Answer::One)) };
    let answer_encoding = grpc::answer_encoding(&parts.headers);
    let call = Open {
        app: Arc::clone(&conn.app),
        lane: Arc::clone(&conn.lane),
        kind: matches!(method, "ModelInfer" | "ModelStreamInfer").then_some("grpc_infer"),
        streams,
        asks_readiness: method == "ModelReady",
        head: asked.protocol.outgoing(parts, asked.id.clone(), None),
        asked,
    };
    let model = Model { name: first.model, version: first.version };
    let (head, rest) = match first.body {
        Received::Long { head, rest, .. } if streams => (head, rest),
        body @ (Received::Held(_) | Received::Long { .. } | Received::Part(_)) => {
            return call.of(model, body, admission, alarm).await.map(|it| it.map(Answer::One));
        }
    };
    // It counts until the replica has taken the last of it.
    let head = Bytes::from_owner(Counted { bytes: head, _admission: admission });
    let split = Split::new(head, rest, encoding, conn.lane.gateway.config.buffer_body_bytes);
    let mut call = call;
    call.head.headers_mut().remove(&grpc::ACCEPT_ENCODING);
    if let Some(encoding) = &answer_encoding {
        call.head.headers_mut().insert(grpc::ACCEPT_ENCODING.clone(), encoding.clone());
    }
    let open = move |model, part| -> BoxFuture<'static, _> {
        let admission = Admission::new(&call.lane.limits);
        Box::pin(call.clone().of(model, Received::Part(part), admission, Alarm::new(Instant::now())))
    };
    let mut merged = Box::new(Merged::new(split, Box::new(open), model, answer_encoding));
    let head = merged.head().await;
    Ok(head.map(|()| Answer::Merged(merged)))
}

/// The beginning of a stream, counted among the bodies held in memory.
struct Counted {
    bytes: Bytes,
    _admission: Admission,
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// A call whose model is to be found.
#[derive(Clone, Debug)]
struct Open {
    app: Arc<App>,
    lane: Arc<Lane>,
    asked: Asked,
    kind: Option<&'static str>,
    streams: bool,
    /// It only asks whether a model is ready.
    asks_readiness: bool,
    head: Request<()>,
}

impl Open {
    /// Forwards the call to a replica of a model.
    async fn of(
        self,
        model: Model,
        body: Received,
        admission: Admission,
        alarm: Alarm,
    ) -> Result<Response<OutBody>, Refusal> {
        let Self { app, lane, asked, kind, streams, asks_readiness, head } = self;
        let endpoint = match name::endpoint(&app, &model.name).await {
            // As in Triton: no error.
            Err(_) if asks_readiness => return Ok(OutBody::grpc(Some(&[]))),
            Ok(found) if asks_readiness && !found.serves(model.version.as_deref()) => {
                return Ok(OutBody::grpc(Some(&[])));
            }
            found => found?,
        };
        let named = Named { endpoint, version: model.version, kind, streams };
        let (call, head, body) = Ready { lane, asked, named, head, body, admission, alarm }.admit()?;
        forward(call, head, body).await
    }
}
