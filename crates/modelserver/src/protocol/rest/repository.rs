//! The model repository extension: listing, loading and unloading models.

use std::collections::BTreeMap;

use api::path::ModelPath;
use inference::Parameter;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::json;

use super::{
    answer::{self, Answered},
    asked::{Asked, POST, unknown_path},
    body,
};
use crate::{error::InferError, repository::LoadRequest};

/// The body of an index request.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Wanted {
    ready: bool,
}

/// The body of a load or unload request.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Change {
    parameters: BTreeMap<String, Parameter>,
}

/// `POST /v2/repository/index`: an array of all versions of all models.
pub(super) async fn index(asked: Asked<'_>) -> Answered {
    asked.only(POST)?;
    let app = asked.app;
    let wanted: Wanted = read(asked).await?;
    answer::json(&app.index(wanted.ready))
}

/// `load` and `unload` of one model.
pub(super) async fn model(asked: Asked<'_>, path: &ModelPath<'_>) -> Answered {
    let (app, head) = (asked.app, asked.head);
    app.admit(&head.headers, &head.uri, true)
        .map_err(|refusal| answer::Refusal::new(refusal.status(), refusal.to_string()).closing())?;
    let name = path.name.as_ref();
    match path.action.as_ref() {
        "load" => {
            asked.only(POST)?;
            let change: Change = read(asked).await?;
            let mut request = LoadRequest::default();
            for (name, value) in &change.parameters {
                let Parameter::Text(text) = value else {
                    return Err(InferError::Invalid(format!("parameter `{name}` of a load is not a string")).into());
                };
                request.text(name, text)?;
            }
            app.load(name, request).await?;
        }
        "unload" => {
            asked.only(POST)?;
            let change: Change = read(asked).await?;
            let mut dependents = false;
            for (name, value) in &change.parameters {
                match (name.as_str(), value.as_bool()) {
                    ("unload_dependents", Some(value)) => dependents = value,
                    _ => {
                        let said =
                            format!("an unload has no parameter `{name}`; it has `unload_dependents`, a boolean");
                        return Err(InferError::Invalid(said).into());
                    }
                }
            }
            app.unload(name, dependents).await?;
        }
        _ => return Err(unknown_path(asked.head.uri.path())),
    }
    answer::json(&json!({}))
}

/// The body; an empty one has no parameters.
async fn read<T: DeserializeOwned + Default>(asked: Asked<'_>) -> Result<T, answer::Refusal> {
    let (body, _hold) = body::read(asked.app, &asked.head.headers, asked.body).await?;
    if body.trim_ascii().is_empty() {
        return Ok(T::default());
    }
    serde_json::from_slice(&body).map_err(|e| answer::Refusal::bad(format!("the body: {e}")))
}
