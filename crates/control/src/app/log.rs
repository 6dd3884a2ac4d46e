//! Logs of replicas, which a worker provides.
//!
//! The control plane keeps no log. It asks the recently seen workers of the deployment's placement, newest first, and
//! streams the log of the first worker that has it, at the speed of the reader.

use std::time::Duration;

use api::{DeploymentId, ReplicaId};
use axum::body::Body;
use bytes::Bytes;
use futures::StreamExt;
use http::{Request, StatusCode, header::HOST};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use store::WorkerRecord;
use tokio::net::TcpStream;

use super::App;
use crate::error::Error;

/// Timeout for connecting to a worker, and then for the start of its response.
const PATIENCE: Duration = Duration::from_secs(5);

/// Maximum length of an error response of a worker that is read.
const REFUSAL_BYTES: usize = 4_096;

/// Selects a log and its lines.
#[derive(Clone, Debug)]
pub(crate) struct LogRequest {
    pub(crate) deployment: DeploymentId,
    /// One replica, or all replicas of the deployment.
    pub(crate) replica: Option<ReplicaId>,
    /// The number of last lines.
    pub(crate) tail: u16,
    /// Whether to stream new lines.
    pub(crate) follow: bool,
}

impl LogRequest {
    fn path(&self) -> String {
        let whose = match &self.replica {
            Some(replica) => format!("replicas/{replica}"),
            None => format!("deployments/{}", self.deployment.0),
        };
        format!("/v1/{whose}/logs?tail={}&follow={}", self.tail, self.follow)
    }
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

impl App {
    /// The lines as plain text. The stream ends with the log, with the reader, or at shutdown.
    pub(crate) async fn logs(&self, wanted: &LogRequest) -> Result<Body, Error> {
        let permit = self.log_stream_permit()?;
        let placement = self.check_replica(wanted).await?;
        let mut workers = self.live_workers().await?;
        workers.retain(|worker| worker.placement == placement);
        let mut failure: Option<BoxError> = None;
        let mut refused = None;
        for worker in workers {
            match self.ask(&worker, wanted).await {
                Ok(answer) if answer.status() == StatusCode::OK => {
                    let tasks = self.tasks.clone();
                    let stopping = async move { tasks.stopping().await };
                    let lines = answer.into_body().into_data_stream().take_until(Box::pin(stopping));
                    let lines = lines.map(move |chunk| {
                        let _held_until_the_end = &permit;
                        chunk
                    });
                    return Ok(Body::from_stream(lines));
                }
                // Another worker may have the log.
                Ok(answer) => refused = Some(refusal(&worker, wanted, answer).await),
                Err(error) => {
                    tracing::debug!(worker = worker.id, address = worker.address, "a worker did not answer: {error}");
                    failure = Some(error);
                }
            }
        }
        if let Some(refused) = refused {
            return Err(refused);
        }
        let detail = match failure {
            Some(_) => format!(
                "no worker of placement `{placement}` answers, and only workers have the logs; check that one runs, then \
                 repeat the request"
            ),
            None => format!(
                "no worker of placement `{placement}` runs, and only workers have the logs; start one with `modelway worker`"
            ),
        };
        Err(Error::Away { code: "worker_unavailable", detail, source: failure })
    }

    /// Refuses requests that can be refused without a worker. Returns the deployment's placement.
    async fn check_replica(&self, wanted: &LogRequest) -> Result<String, Error> {
        let record = self.store.deployment_get(wanted.deployment).await?;
        let placement = record.spec.placement().to_owned();
        let Some(replica) = &wanted.replica else { return Ok(placement) };
        let listed = record.status.replica_status.iter().any(|known| known.id == *replica);
        // Removed replicas are no longer listed, but their logs are kept for some time.
        let plain = replica.0.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
        if plain && (listed || replica.0.starts_with(&format!("{}-", record.id))) {
            return Ok(placement);
        }
        let names: Vec<_> = record.status.replica_status.iter().map(|known| format!("`{}`", known.id)).collect();
        let known =
            if names.is_empty() { "it has no replicas now".to_owned() } else { format!("it has {}", names.join(", ")) };
        Err(Error::not_found(format!("`{replica}` is not a replica of {}; {known}", record.id)))
    }

    async fn ask(&self, worker: &WorkerRecord, wanted: &LogRequest) -> Result<http::Response<Incoming>, BoxError> {
        let stream = tokio::time::timeout(PATIENCE, TcpStream::connect(&worker.address)).await??;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let tasks = self.tasks.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                // If the response fails, its body fails too, and the error is reported there.
                _ended = connection => {}
                () = tasks.stopping() => {}
            }
        });
        let request = Request::get(wanted.path()).header(HOST, worker.address.as_str()).body(Empty::<Bytes>::new())?;
        Ok(tokio::time::timeout(PATIENCE, sender.send_request(request)).await??)
    }
}

async fn refusal(worker: &WorkerRecord, wanted: &LogRequest, answer: http::Response<Incoming>) -> Error {
    let status = answer.status();
    if status == StatusCode::NOT_FOUND {
        return Error::not_found(match &wanted.replica {
            Some(replica) => format!("there is no log of replica `{replica}`; it may have been cleaned up"),
            None => format!("there is no log of {} yet; no replica of it has been started", wanted.deployment),
        });
    }
    let said = Limited::new(answer.into_body(), REFUSAL_BYTES).collect().await.map(|said| said.to_bytes());
    let said = said.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    Error::Away {
        code: "worker_unavailable",
        detail: format!("the worker answered {status} when asked for the log; repeat the request in a moment"),
        source: Some(format!("worker {} at {}: {said}", worker.id, worker.address).into()),
    }
}
