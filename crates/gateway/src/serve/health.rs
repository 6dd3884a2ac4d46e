//! The gRPC health protocol: the health of the gateway and its services, and of each model by its name.

use std::{convert::Infallible, future::poll_fn, pin::Pin, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::stream;
use http::{HeaderValue, Request, Response, StatusCode};
use http_body::{Body as _, Frame};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Incoming;
use tokio::sync::watch;

use super::app::App;
use crate::{
    forward::reply::{BoxBody, OutBody},
    table::saved::Position,
    wire::{grpc, refusal::Refusal, scan::Scanner},
};

/// The service's name.
pub(crate) const SERVICE: &str = "grpc.health.v1.Health";

/// The maximum size of a check message, and its timeout.
const LONGEST: usize = 4 << 10;
const PATIENCE: Duration = Duration::from_secs(10);

/// The statuses of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Status {
    Serving = 1,
    NotServing = 2,
    Unknown = 3,
}

impl Status {
    fn message(self) -> [u8; 2] {
        [0x08, self as u8]
    }
}

/// `Health/Check`.
pub(crate) async fn check(app: &App, request: Request<Incoming>) -> Result<Response<OutBody>, Refusal> {
    let service = service(request).await?;
    match status(app, &service) {
        Status::Unknown => {
            let words = format!("there is neither a service nor a model `{service}`");
            Err(Refusal::new(StatusCode::NOT_FOUND, words))
        }
        status @ (Status::Serving | Status::NotServing) => Ok(OutBody::grpc(Some(&status.message()))),
    }
}

/// `Health/Watch`: sends the status, and each change, until the client disconnects or the gateway stops.
pub(crate) async fn watch(app: &Arc<App>, request: Request<Incoming>) -> Result<Response<BoxBody>, Refusal> {
    let watching =
        Watching { service: service(request).await?, moved: app.moved.subscribe(), told: None, app: Arc::clone(app) };
    let statuses = stream::unfold(watching, |mut watching| async {
        let status = watching.next().await?;
        Some((Ok::<_, Infallible>(Frame::data(grpc::frame(&status.message()))), watching))
    });
    Ok(grpc::response(StreamBody::new(statuses).map_err(|never| match never {}).boxed_unsync()))
}

/// One watching client.
struct Watching {
    app: Arc<App>,
    service: String,
    moved: watch::Receiver<Position>,
    told: Option<Status>,
}

impl Watching {
    /// The next status that differs from the last one.
    async fn next(&mut self) -> Option<Status> {
        loop {
            self.moved.mark_unchanged();
            let status = status(&self.app, &self.service);
            if self.told != Some(status) {
                self.told = Some(status);
                return Some(status);
            }
            self.moved.changed().await.ok()?;
        }
    }
}

fn status(app: &App, service: &str) -> Status {
    let serving = |holds: bool| if holds { Status::Serving } else { Status::NotServing };
    match service {
        "" | grpc::SERVICE | SERVICE | grpc::REFLECTION | grpc::REFLECTION_ALPHA => {
            serving(app.gateway.not_ready().is_none())
        }
        name => app
            .gateway
            .table
            .find(name)
            .map_or(Status::Unknown, |it| serving(it.former_of(name).is_none() && it.total_replicas() > 0)),
    }
}

/// The service name of a check: field 1 of its message, like the name of a model.
async fn service(request: Request<Incoming>) -> Result<String, Refusal> {
    let mut scanner = Scanner::new(request.headers().get(&grpc::ENCODING).map(HeaderValue::as_bytes));
    let mut body = request.into_body();
    let reading = async {
        while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
            let frame = frame.map_err(|error| Refusal::new(StatusCode::BAD_REQUEST, error.to_string()))?;
            let data: Bytes = frame.into_data().unwrap_or_default();
            if scanner.read(&data)? < data.len() || scanner.left() > LONGEST {
                return Err(Refusal::new(StatusCode::BAD_REQUEST, "this is not a HealthCheckRequest"));
            }
        }
        if scanner.whole() {
            Ok(scanner.name())
        } else {
            Err(Refusal::new(StatusCode::BAD_REQUEST, "the call ended early"))
        }
    };
    let late = |_| Refusal::new(StatusCode::REQUEST_TIMEOUT, "the message of the health check came too slowly");
    tokio::time::timeout(PATIENCE, reading).await.map_err(late)?
}
