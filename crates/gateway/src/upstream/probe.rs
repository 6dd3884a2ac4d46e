//! Asks a replica whether it lives, on a connection of its own.

use std::time::Duration;

use api::replica::SELF_REPORT_PATH;
use http::{HeaderValue, Request, header::HOST};
use tokio::time::{Instant, timeout};

use super::{body::SendBody, http1::Link, socket::Socket};
use crate::{table::replica::Replica, wire::alarm::Alarm};

const LONGEST_REPORT: usize = 64 << 10;

/// What a replica says of itself: the body of its report if it knows that path, else nothing. `None` if it does not
/// answer in time.
pub(crate) async fn report(replica: &Replica, patience: Duration) -> Option<Vec<u8>> {
    timeout(patience, ask(replica, patience)).await.ok().flatten()
}

async fn ask(replica: &Replica, patience: Duration) -> Option<Vec<u8>> {
    let mut link = Link::new(Socket::connect(&replica.address, patience).await.ok()?);
    let mut request = Request::new(SendBody::Held(None));
    *request.uri_mut() = SELF_REPORT_PATH.parse().ok()?;
    request.headers_mut().insert(HOST, HeaderValue::from_static("localhost"));
    let mut alarm = Alarm::new(Instant::now() + patience);
    let response = link.send(&mut request, &mut alarm, |_| false).await.ok()?;
    let mut text = Vec::new();
    if !response.status().is_success() {
        // A container that knows nothing of this path lives all the same.
        return Some(text);
    }
    loop {
        let Some(frame) = std::future::poll_fn(|cx| link.poll_frame(cx)).await else { return Some(text) };
        text.extend_from_slice(&frame.ok()?.into_data().unwrap_or_default());
        if text.len() > LONGEST_REPORT {
            return None;
        }
    }
}
