//! Requests the report of a replica over its socket.

use std::{path::Path, pin::pin, time::Duration};

use api::replica::{SELF_REPORT_PATH, SelfReport};
use bytes::Bytes;
use futures::future::{Either, select};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::{Request, StatusCode, client::conn::http1, header::HOST};
use hyper_util::rt::TokioIo;
use tokio::{net::UnixStream, time::timeout};

/// Maximum size of a report; a real one has a few hundred bytes.
const REPORT_MAX_BYTES: usize = 64 * 1024;

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub(super) enum ProbeError {
    /// Nobody listens on the socket.
    #[error("nobody listens on the socket")]
    Absent(#[source] std::io::Error),
    /// No answer in time.
    #[error("no answer within {0:?}")]
    Silent(Duration),
    /// An invalid answer.
    #[error("the answer is no report: {0}")]
    Garbled(String),
}

/// Requests one report. With `after`, the replica answers when its `seq` is greater, or after at most 30 s.
pub(super) async fn report(socket: &Path, after: Option<u64>, patience: Duration) -> Result<SelfReport, ProbeError> {
    timeout(patience, ask(socket, after)).await.unwrap_or(Err(ProbeError::Silent(patience)))
}

async fn ask(socket: &Path, after: Option<u64>) -> Result<SelfReport, ProbeError> {
    let garbled = |error: &dyn std::fmt::Display| ProbeError::Garbled(error.to_string());
    let stream = UnixStream::connect(socket).await.map_err(ProbeError::Absent)?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|error| garbled(&error))?;
    let path = match after {
        None => SELF_REPORT_PATH.to_owned(),
        Some(seq) => format!("{SELF_REPORT_PATH}?after={seq}"),
    };
    let request =
        Request::get(path).header(HOST, "replica").body(Empty::<Bytes>::new()).map_err(|error| garbled(&error))?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(|error| garbled(&error))?;
        if response.status() != StatusCode::OK {
            return Err(ProbeError::Garbled(format!("status {}", response.status())));
        }
        let body = Limited::new(response.into_body(), REPORT_MAX_BYTES).collect().await.map_err(|e| garbled(&e))?;
        serde_json::from_slice(&body.to_bytes()).map_err(|error| garbled(&error))
    };
    match select(pin!(exchange), pin!(connection)).await {
        Either::Left((report, _)) => report,
        // The connection has ended; its data is in the exchange.
        Either::Right((_, exchange)) => exchange.await,
    }
}
