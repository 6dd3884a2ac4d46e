//! The variable segments of a path.

use api::DeploymentId;
use axum::extract::{FromRequestParts, Path};
use http::{StatusCode, request::Parts};
use serde::de::DeserializeOwned;

use crate::error::Error;

/// A deployment's id: `26` or `md-26`.
pub(crate) struct Id(pub(crate) DeploymentId);

/// The segments, decoded.
pub(crate) struct Segments<T>(pub(crate) T);

impl<S: Send + Sync> FromRequestParts<S> for Id {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Error> {
        let Segments(text) = Segments::<String>::from_request_parts(parts, state).await?;
        text.parse().map(Self).map_err(|error| {
            Error::not_found(format!("{error}; find the id by a name with GET /v1/modelDeployment?name=…"))
        })
    }
}

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Segments<T> {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Error> {
        let Path(segments) = Path::<T>::from_request_parts(parts, state)
            .await
            .map_err(|rejection| Error::request(StatusCode::BAD_REQUEST, "malformed_path", rejection.body_text()))?;
        Ok(Self(segments))
    }
}
