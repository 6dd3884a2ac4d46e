//! A connection to a replica, for any protocol.

use std::{sync::Arc, time::Duration};

use base::error::chain;
use http::{Request, Response};
use hyper::body::Incoming;

use super::{head::Protocol, lane::Lane};
use crate::{
    table::replica::Replica,
    upstream::{
        body::{SendBody, SendError},
        executor::Executor,
        http1::Link,
        http2::Grpc,
        socket::Socket,
    },
    wire::alarm::Alarm,
};

/// A connection to a replica.
#[derive(Debug)]
pub(crate) enum Line {
    /// For this request alone.
    Http1(Link),
    /// For the calls of many clients.
    Shared(Grpc),
    /// For this stream only.
    Own(Grpc),
}

impl Line {
    /// An existing connection or a new one, and which of both. A stream gets its own: if the model does not read its
    /// messages, they must not block the calls of others.
    pub(crate) async fn to(
        lane: &Lane,
        replica: &Arc<Replica>,
        protocol: Protocol,
        streams: bool,
    ) -> Result<(Self, bool), String> {
        match protocol {
            Protocol::Http => match lane.pool.take(replica) {
                Some(link) => Ok((Self::Http1(link), true)),
                None => Ok((Self::Http1(Link::new(connect(lane, replica).await?)), false)),
            },
            Protocol::Grpc if streams => match lane.pool.stream(replica) {
                Some(grpc) => Ok((Self::Own(grpc), true)),
                None => Ok((Self::Own(open(lane, replica).await?), false)),
            },
            Protocol::Grpc => match lane.pool.grpc(replica) {
                Some(grpc) => Ok((Self::Shared(grpc), true)),
                None => {
                    let grpc = open(lane, replica).await?;
                    lane.pool.keep_grpc(replica, grpc.clone());
                    Ok((Self::Shared(grpc), false))
                }
            },
        }
    }

    /// Sends a request and waits for the header of the answer: see [`Link::send`] and [`Grpc::send`]. The body of an
    /// answer over HTTP/1 is read from the connection itself.
    pub(crate) async fn send(
        &mut self,
        request: &mut Request<SendBody>,
        alarm: &mut Alarm,
        extend: impl FnMut(&mut Alarm) -> bool,
    ) -> Result<Response<Option<Incoming>>, SendError> {
        match self {
            Self::Http1(link) => link.send(request, alarm, extend).await.map(|it| it.map(|()| None)),
            Self::Shared(grpc) | Self::Own(grpc) => grpc.send(request, alarm, extend).await.map(|it| it.map(Some)),
        }
    }

    /// It can no longer be used.
    pub(crate) fn forget(self, lane: &Lane, replica: &Arc<Replica>) {
        match self {
            Self::Http1(_) | Self::Own(_) => {}
            Self::Shared(grpc) => lane.pool.forget_grpc(replica, &grpc),
        }
    }
}

async fn open(lane: &Lane, replica: &Replica) -> Result<Grpc, String> {
    let executor = Executor(lane.gateway.tasks.clone());
    Grpc::open(connect(lane, replica).await?, executor).await.map_err(|error| chain(&error))
}

async fn connect(lane: &Lane, replica: &Replica) -> Result<Socket, String> {
    let patience = Duration::from_millis(lane.gateway.config.connect_timeout_ms);
    Socket::connect(&replica.address, patience).await.map_err(|error| error.to_string())
}
