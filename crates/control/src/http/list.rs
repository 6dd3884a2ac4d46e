//! Pages of lists in API responses.

use api::{
    Deployment, Event,
    registry::{ModelVersionView, RegisteredModel},
    revision::RevisionView,
};
use serde::Serialize;
use utoipa::ToSchema;

/// Default number of items per page.
pub(super) const DEFAULT_LIMIT: u32 = 100;

/// Maximum number of items per page.
pub(super) const MAX_LIMIT: u32 = 1_000;

/// A page of deployments, sorted by id.
#[derive(Serialize, ToSchema)]
pub(crate) struct DeploymentList {
    pub(crate) items: Vec<Deployment>,
    /// Pass it as `after` to get the next page; null on the last page.
    pub(crate) next: Option<i64>,
}

/// A page of events.
#[derive(Serialize, ToSchema)]
pub(crate) struct EventList {
    pub(crate) items: Vec<Event>,
    /// Pass it as `after` to get the next page; null on the last page.
    pub(crate) next: Option<i64>,
}

/// A page of registered models, sorted by name.
#[derive(Serialize, ToSchema)]
pub(crate) struct RegisteredModelList {
    pub(crate) items: Vec<RegisteredModel>,
    /// Pass it as `after` to get the next page; null on the last page.
    pub(crate) next: Option<String>,
}

/// The versions of a model, oldest first.
#[derive(Serialize, ToSchema)]
pub(crate) struct ModelVersionList {
    pub(crate) items: Vec<ModelVersionView>,
    /// Always null: all versions of a model are on one page.
    pub(crate) next: Option<String>,
}

/// The revisions of a deployment, newest first.
#[derive(Serialize, ToSchema)]
pub(crate) struct RevisionList {
    pub(crate) items: Vec<RevisionView>,
    /// Always null: all revisions of a deployment are on one page.
    pub(crate) next: Option<i64>,
}
