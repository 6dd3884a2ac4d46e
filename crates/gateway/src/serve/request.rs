//! Handles one request from its header to its answer: identifies and authorises it, finds its endpoint, reads its body,
//! admits it with a revision ([`super::asked`]), and forwards it. The end of the answer is observed.
//!
//! HTTP and gRPC differ in where the name of the model is ([`super::call`] for gRPC) and in the format of errors.

use std::{
    convert::Infallible,
    sync::{Arc, atomic::Ordering},
};

use base::grpc::{is_call, timeout};
use http::{
    HeaderValue, Method, Request, Response, StatusCode, Version,
    header::{CONNECTION, CONTENT_LENGTH},
};
use http_body::Body as _;
use hyper::body::Incoming;
use tokio::time::Instant;

use super::{
    asked::{Asked, Ready},
    call,
    connection::Conn,
    name, own,
    served::{Answer, Served},
};
use crate::{
    admit::{authorise::authorise, limits::Admission},
    forward::{attempts::forward, head::Protocol, receive, reply::OutBody},
    observe::counters::Reason,
    wire::{grpc, headers::REQUEST_ID, refusal::Refusal},
};

/// The error for an HTTP/2 call above the limit.
const TOO_MANY_CALLS: &str = "this gateway has reached its limit of HTTP/2 calls: try again";

/// Answers one request.
pub(crate) async fn handle(conn: Arc<Conn>, request: Request<Incoming>) -> Result<Response<Served>, Infallible> {
    let busy = conn.begin(request.version());
    let mut asked = identify(&conn, &request);
    let Asked { id, protocol, .. } = asked.clone();
    // hyper omits the body itself over HTTP/1, but not over HTTP/2.
    let over_http2 = request.version() == Version::HTTP_2;
    let bare = request.method() == Method::HEAD && over_http2;
    let gateway = &conn.lane.gateway;
    let allowed = if busy.is_one_too_many {
        gateway.counters.refused(Reason::Full);
        Err(Refusal::unavailable(TOO_MANY_CALLS))
    } else {
        authorise(&request, &gateway.config, &gateway.counters).and_then(|()| until(&asked, &request))
    };
    asked.until = allowed.as_ref().ok().copied().flatten();
    let until = asked.until;
    let answered = match (allowed, protocol) {
        (Ok(_), Protocol::Http) => answer(&conn, asked, request).await.map(|it| it.map(Answer::One)),
        (Ok(_), Protocol::Grpc) => Box::pin(call::answer(&conn, asked, request)).await,
        (Err(refusal), _) => Err(refusal),
    };
    let mut response = answered.unwrap_or_else(|refusal| refuse(&conn, protocol, refusal).map(Answer::One));
    if bare {
        leave_out_own(&mut response);
    }
    response.headers_mut().insert(REQUEST_ID.clone(), id);
    if conn.is_closing() && !over_http2 {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    Ok(response.map(|body| Served::new(body, busy, until)))
}

fn identify(conn: &Conn, request: &Request<Incoming>) -> Asked {
    let protocol = if is_call(request) { Protocol::Grpc } else { Protocol::Http };
    Asked { started: Instant::now(), id: conn.lane.gateway.ids.of(request.headers()), protocol, until: None }
}

/// When the time is up that the caller of gRPC gives its call.
fn until(asked: &Asked, request: &Request<Incoming>) -> Result<Option<Instant>, Refusal> {
    match asked.protocol {
        Protocol::Http => Ok(None),
        Protocol::Grpc => match timeout(request.headers()) {
            Ok(timeout) => Ok(timeout.map(|timeout| asked.started + timeout)),
            Err(words) => Err(Refusal::new(StatusCode::BAD_REQUEST, words)),
        },
    }
}

async fn answer(conn: &Conn, asked: Asked, request: Request<Incoming>) -> Result<Response<OutBody>, Refusal> {
    let (parts, body) = request.into_parts();
    let named = match name::of_path(&conn.app, &parts).await {
        Ok(Ok(named)) => named,
        Ok(Err(page)) => return own::answer(&conn.app, page, &parts).await.map_err(|it| leave(&body, it)),
        Err(refusal) => return Err(leave(&body, refusal)),
    };
    let length = body.size_hint().exact();
    let mut admission = Admission::new(&conn.lane.limits);
    let mut alarm = conn.alarm(asked.started);
    let body = receive::body(&conn.lane, body, length, &mut admission, &mut alarm).await;
    let body = body.inspect_err(|refusal| named.endpoint.count_refusal(refusal.status))?;
    let head = asked.protocol.outgoing(parts, asked.id.clone(), length.filter(|_| body.streams()));
    let ready = Ready { lane: Arc::clone(&conn.lane), asked, named, head, body, admission, alarm };
    let (call, head, body) = ready.admit()?;
    forward(call, head, body).await
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

/// After an unread body, an HTTP/1 connection cannot be used for another request.
fn leave(unread: &Incoming, refusal: Refusal) -> Refusal {
    if unread.is_end_stream() { refusal } else { refusal.closing() }
}

/// Keeps only the length of the gateway's text.
fn leave_out_own(response: &mut Response<Answer>) {
    if let Answer::One(OutBody::Own(words)) = response.body_mut()
        && let Some(words) = words.take()
    {
        response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(words.len()));
    }
}
