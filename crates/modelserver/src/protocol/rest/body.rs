//! Reads request bodies with limits of size and time.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, StatusCode, header::TRANSFER_ENCODING};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;

use super::{answer::Refusal, cloud_event, compression};
use crate::{
    metrics::ModelMetrics,
    protocol::{
        app::App,
        budget::{Arriving, Budget, Hold, Refused},
        inflate::Encoding,
    },
};

/// Memory that is reserved for a body before any of it has arrived.
const FIRST: u64 = 256 << 10;

/// Counts a disconnected client if reading its body was dropped.
struct Reading<'m>(Option<&'m ModelMetrics>);

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        if let Some(metrics) = self.0 {
            metrics.refused_as("client_left");
        }
    }
}

/// Reads a body for a model, and counts an unreadable body.
pub(super) async fn read_for(
    app: &App,
    metrics: &ModelMetrics,
    headers: &HeaderMap,
    body: Incoming,
) -> Result<(Bytes, Hold), Refusal> {
    let mut reading = Reading(Some(metrics));
    let read = read(app, headers, body).await;
    reading.0 = None;
    read.inspect_err(|refusal| metrics.refused_as(refusal.error_type()))
}

/// The request in a body, with its memory: decompressed if it was compressed, and extracted from a CloudEvent.
pub(super) async fn read(app: &App, headers: &HeaderMap, body: Incoming) -> Result<(Bytes, Hold), Refusal> {
    let enclosed = cloud_event::is_structured(headers)?;
    let (body, mut hold) = plain(app, headers, body).await?;
    if !enclosed {
        return Ok((body, hold));
    }
    // The decoded content is no longer a part of the body.
    cover(app, &mut hold, 2 * body.len())?;
    Ok((cloud_event::content(&body)?, hold))
}

async fn plain(app: &App, headers: &HeaderMap, body: Incoming) -> Result<(Bytes, Hold), Refusal> {
    let encoding = compression::of_body(headers)?;
    // Only a body without a length can have a transfer encoding.
    if body.size_hint().exact().is_none() {
        only_chunked(headers)?;
    }
    let longest = Duration::from_millis(app.config.request_timeout_ms);
    tokio::time::timeout(longest, decoded(app, encoding, body)).await.map_err(|_| {
        let reason = format!("the body took longer than {} ms (serve.request_timeout_ms)", longest.as_millis());
        Refusal::new(StatusCode::REQUEST_TIMEOUT, reason).closing()
    })?
}

async fn decoded(app: &App, encoding: Option<Encoding>, body: Incoming) -> Result<(Bytes, Hold), Refusal> {
    let mut arriving = app.budget.arriving();
    let sent = collect(app, body, &mut arriving).await?;
    let mut hold = arriving.complete().map_err(refused)?;
    let Some(encoding) = encoding else { return Ok((sent, hold)) };
    let limit = app.config.body_limit_bytes;
    let admit = |size: usize| {
        if size > limit {
            return Err(too_large("", limit));
        }
        cover(app, &mut hold, sent.len() + size)
    };
    let inflated = compression::inflate(&sent, encoding, admit).await?;
    Ok((inflated, hold))
}

/// A body in one piece, as small ones are, is not copied.
async fn collect(app: &App, mut body: Incoming, arriving: &mut Arriving<&Budget>) -> Result<Bytes, Refusal> {
    let limit = app.config.body_limit_bytes;
    let hint = body.size_hint().lower();
    if usize::try_from(hint).map_or(true, |size| size > limit) {
        return Err(too_large(&format!("of {hint} bytes"), limit));
    }
    let pause = Duration::from_millis(app.config.body_timeout_ms);
    let Some(first) = frame(&mut body, pause).await? else { return Ok(Bytes::new()) };
    if body.is_end_stream() && first.len() <= limit {
        arriving.cover(first.len()).map_err(refused)?;
        return Ok(first);
    }
    let mut all = BytesMut::with_capacity(usize::try_from(hint.min(FIRST)).unwrap_or(0));
    let mut next = Some(first);
    while let Some(piece) = next {
        if all.len() + piece.len() > limit {
            return Err(too_large("", limit));
        }
        arriving.cover(all.len() + piece.len()).map_err(refused)?;
        all.extend_from_slice(&piece);
        next = tokio::select! {
            biased;
            next = frame(&mut body, pause) => next?,
            why = arriving.refused() => return Err(refused(why)),
        };
    }
    Ok(all.freeze())
}

fn cover(app: &App, hold: &mut Hold, size: usize) -> Result<(), Refusal> {
    app.budget.cover(hold, size).map_err(|spent| Refusal::no_memory(spent).closing())
}

fn refused(why: Refused) -> Refusal {
    match why {
        Refused::Spent(spent) => Refusal::no_memory(spent).closing(),
        Refused::Slow(_) => Refusal::new(StatusCode::REQUEST_TIMEOUT, why.to_string()).closing(),
    }
}

/// The next piece of data, if there is one.
async fn frame(body: &mut Incoming, pause: Duration) -> Result<Option<Bytes>, Refusal> {
    loop {
        let frame = tokio::time::timeout(pause, body.frame()).await.map_err(|_| {
            let reason = format!("the body stopped for {} ms (serve.body_timeout_ms)", pause.as_millis());
            Refusal::new(StatusCode::REQUEST_TIMEOUT, reason).closing()
        })?;
        match frame {
            None => return Ok(None),
            Some(Err(error)) => {
                let refusal = Refusal::bad(base::serve::broken::words(&error)).closing();
                return Err(if base::serve::broken::by_client(&error) {
                    refusal.of_client_that_left()
                } else {
                    refusal
                });
            }
            // Trailers say nothing here.
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data()
                    && !data.is_empty()
                {
                    return Ok(Some(data));
                }
            }
        }
    }
}

/// Refuses a body that is compressed for its transfer: hyper only decodes chunks.
fn only_chunked(headers: &HeaderMap) -> Result<(), Refusal> {
    let values =
        headers.get_all(TRANSFER_ENCODING).iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    if values.map(<[u8]>::trim_ascii).all(|coding| coding.eq_ignore_ascii_case(b"chunked")) {
        return Ok(());
    }
    let reason = "the one Transfer-Encoding that is understood is chunked: name gzip or deflate in Content-Encoding";
    Err(Refusal::new(StatusCode::NOT_IMPLEMENTED, reason).closing())
}

fn too_large(size: &str, limit: usize) -> Refusal {
    let reason = format!("the body {size} is larger than {limit} bytes (serve.body_limit_bytes)").replace("  ", " ");
    Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, reason).closing()
}
