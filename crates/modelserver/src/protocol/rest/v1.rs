//! The V1 protocol: `instances` (or columnar `inputs`) in, `predictions` out.
//!
//! It is translated to the tensors of V2 and back. The scores of a classifier, if the model has them, are returned as
//! `probabilities` next to the predicted labels.

mod read;
mod write;

pub(super) use read::json_rows;
pub(super) use write::Form;

use api::path::ModelPath;
use bytes::Bytes;
use http::StatusCode;
use inference::{Ignored, Nan};
use serde_json::json;

use super::{
    answer::{self, Answered, Refusal},
    asked::{Asked, POST, READ, unknown_path},
    body,
};
use crate::{
    error::InferError,
    mlflow::document::{self, Door},
    runtime::Signature,
};

/// A model, a prediction, and both for a version, as in TensorFlow Serving.
pub(super) async fn model(asked: Asked<'_>, path: &ModelPath<'_>) -> Answered {
    let (name, version) = (path.name.as_ref(), path.version.as_deref());
    match path.action.as_ref() {
        "predict" => predict(asked, name, version).await,
        "explain" => {
            asked.only(POST)?;
            asked.app.models.find(name, version)?;
            let reason = format!("model `{name}` explains nothing: this server predicts only");
            Err(Refusal::new(StatusCode::NOT_IMPLEMENTED, reason).closing())
        }
        // It is nearly always a mistyped verb.
        "" if name.contains(':') && !asked.app.models.knows(name) => Err(unknown_path(asked.head.uri.path())),
        "" => {
            asked.only(READ)?;
            let (model, _) = asked.app.models.described(name, version)?;
            let (platform, ready) = (model.signature.platform, asked.app.is_ready());
            answer::json(&json!({"name": name, "version": model.version, "platform": platform, "ready": ready}))
        }
        _ => Err(unknown_path(asked.head.uri.path())),
    }
}

async fn predict(asked: Asked<'_>, name: &str, version: Option<&str>) -> Answered {
    predict_as(asked, name, version, Door::V1, |_, body, _| Ok((body, Form::V1))).await
}

/// Predicts with a body that `rewrite` converts to V1, and answers in the form that it returns; records what it
/// ignores.
pub(super) async fn predict_as(
    asked: Asked<'_>,
    name: &str,
    version: Option<&str>,
    door: Door,
    rewrite: impl FnOnce(&Signature, Bytes, &mut Ignored) -> Result<(Bytes, Form), InferError>,
) -> Answered {
    asked.only(POST)?;
    let (app, caller) = (asked.app, asked.caller);
    let (model, _) = app.models.find(name, version)?;
    let (body, _hold) = body::read_for(app, &model.metrics, &asked.head.headers, asked.body).await?;
    let mut ignored = Ignored::default();
    let mut form = Form::V1;
    let tensors = rewrite(&model.signature, body.clone(), &mut ignored).and_then(|(body, wanted)| {
        form = wanted;
        read::request(&model.signature, &body)
    });
    let read = tensors.or_else(|error| {
        let document = document::takes(&model.signature).then(|| read::document(door, &body));
        document.flatten().ok_or(error).inspect(|_| ignored = Ignored::default())
    });
    let mut request = read.inspect_err(|error| model.metrics.refused(error))?;
    ignored.append(std::mem::take(&mut request.ignored));
    let predicted = model.predict(request, caller).await;
    let body = predicted.and_then(|(outputs, v1)| match v1 {
        Some(v1) => Ok(write::as_said(name, &model.version, v1)),
        None => {
            // MLflow's own server answers null.
            let nan = if form == Form::V1 { model.signature.nan() } else { Nan::Null };
            write::predictions(name, &model.version, &outputs, form, nan)
        }
    });
    let answered = body.map(|body| answer::bytes("application/json", body)).map_err(Refusal::from);
    answer::naming(&ignored, &model.metrics, answered)
}
