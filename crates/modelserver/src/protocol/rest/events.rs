//! Streams answers as server-sent events.
//!
//! An error before the first answer is returned as usual, with its status. After that the status has been sent, and an
//! event with `error` ends the stream. The next answer is taken from the model only when the client has read the
//! previous one. If the client disconnects, the stream is dropped, which ends the run. Each event counts against the
//! memory for bodies until it is read.

use bytes::Bytes;
use futures::stream;
use http::{
    HeaderValue, Response,
    header::{CACHE_CONTROL, CONTENT_TYPE},
};

use inference::Tensor;

use super::answer::{Answered, Body, Refusal};
use crate::{
    error::InferError,
    protocol::budget::{Budget, Hold},
    run::model::Answers,
};

/// Sends an event for each answer; `write` creates its JSON. `hold` is the memory of the request body, which the run
/// may still use.
pub(super) async fn events<W>(mut answers: Answers, budget: &Budget, hold: Hold, mut write: W) -> Answered
where
    W: FnMut(Vec<Tensor>) -> Result<Bytes, InferError> + Send + 'static,
{
    let first = match answers.next().await {
        Some(first) => Some(budget.keep(event(&write(first?)?)).map_err(Refusal::no_memory_for_answer)?),
        None => None,
    };
    let rest = first.is_some().then(|| (answers, write, budget.clone(), hold));
    let rest = stream::unfold(rest, |state| async move {
        let (mut answers, mut write, budget, hold) = state?;
        let json = answers.next().await?.and_then(&mut write).map_err(|error| error.to_string());
        match json.and_then(|json| budget.keep(event(&json)).map_err(|spent| spent.to_string())) {
            Ok(event) => Some((event, Some((answers, write, budget, hold)))),
            Err(error) => {
                answers.end();
                let json = serde_json::json!({ "error": error }).to_string();
                Some((event(json.as_bytes()), None))
            }
        }
    });
    let mut answer = Response::new(Body::Pieces(Box::pin(stream::StreamExt::chain(stream::iter(first), rest))));
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    Ok(answer)
}

/// One event. The JSON here contains no line breaks.
fn event(json: &[u8]) -> Bytes {
    [b"data: ", json, b"\n\n"].concat().into()
}
