//! Pages of lists, as they are answered.

use api::{
    Deployment, Event,
    registry::{ModelVersionView, RegisteredModel},
    revision::RevisionView,
};
use serde::Serialize;
use utoipa::ToSchema;

/// How many items a page has where the caller does not say.
pub(super) const DEFAULT_LIMIT: u32 = 100;

/// The most items that a page can have.
pub(super) const MAX_LIMIT: u32 = 1_000;

/// A page of deployments, in the order of their ids.
#[derive(Serialize, ToSchema)]
pub(crate) struct DeploymentList {
    pub(crate) items: Vec<Deployment>,
    /// Pass it as `after` to get the next page; null on the last.
    pub(crate) next: Option<i64>,
}

/// A page of events.
#[derive(Serialize, ToSchema)]
pub(crate) struct EventList {
    pub(crate) items: Vec<Event>,
    /// Pass it as `after` to get the next page; null on the last.
    pub(crate) next: Option<i64>,
}

/// A page of registered models, in the order of their names.
#[derive(Serialize, ToSchema)]
pub(crate) struct RegisteredModelList {
    pub(crate) items: Vec<RegisteredModel>,
    /// Pass it as `after` to get the next page; null on the last.
    pub(crate) next: Option<String>,
}

/// The versions of a model, oldest first.
#[derive(Serialize, ToSchema)]
pub(crate) struct ModelVersionList {
    pub(crate) items: Vec<ModelVersionView>,
    /// Always null: a model's versions are one page.
    pub(crate) next: Option<String>,
}

/// The revisions of a deployment, newest first.
#[derive(Serialize, ToSchema)]
pub(crate) struct RevisionList {
    pub(crate) items: Vec<RevisionView>,
    /// Always null: a deployment's revisions are one page.
    pub(crate) next: Option<i64>,
}
