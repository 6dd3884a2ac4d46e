//! One prediction: from its message to the message of its answer.

use http::HeaderValue;
use inference::{Ignored, Request as Asked, Response as Inferred};

use super::{
    convert,
    messages::proto::{ModelInferRequest, ModelInferResponse},
};
use crate::{
    error::InferError,
    protocol::app::App,
    run::{caller::Caller, extras, model::Model},
};

/// One request with one answer, and what was ignored of it.
pub(super) async fn infer(
    app: &App,
    caller: Caller,
    mut request: ModelInferRequest,
) -> Result<(ModelInferResponse, Ignored), InferError> {
    let name = std::mem::take(&mut request.model_name);
    let (model, _) = app.models.find(&name, Some(&request.model_version))?;
    let raw = !request.raw_input_contents.is_empty();
    let mut request = read(&model, request)?;
    let ignored = std::mem::take(&mut request.ignored);
    let response: Inferred = app.infer(&name, &model, request, caller).await?;
    Ok((convert::response(response, raw), ignored))
}

/// Reads a message for a model, and counts what is wrong with it and what is ignored of it.
pub(super) fn read(model: &Model, message: ModelInferRequest) -> Result<Asked, InferError> {
    let read = convert::request(message).and_then(|mut request| {
        extras::settle(&model.signature, &mut request)?;
        Ok(request)
    });
    let request = read.inspect_err(|error| model.metrics.refused(error))?;
    if request.ignored.count() > 0 {
        model.metrics.ignored(request.ignored.count());
    }
    Ok(request)
}

/// What names the ignored parts of a request in the headers of its answer.
pub(super) fn ignored_header(ignored: &Ignored) -> Option<HeaderValue> {
    ignored.header().and_then(|names| HeaderValue::try_from(names).ok())
}
