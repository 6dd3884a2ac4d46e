//! HTTP: translates requests into calls of `app`, and results into responses. One file per noun; handlers contain no
//! decisions.

mod body;
mod deployment;
mod event;
mod headers;
mod health;
pub(crate) mod layers;
mod list;
mod log;
mod query;
mod registry;
mod route;
mod segments;
mod stray;
mod strict_json;

use utoipa_axum::{router::OpenApiRouter, routes};

pub(crate) use crate::app::Shared;

/// All documented paths, with their documentation.
pub(crate) fn documented() -> OpenApiRouter<Shared> {
    OpenApiRouter::new()
        .routes(routes!(deployment::list, deployment::create))
        .routes(routes!(deployment::read, deployment::put, deployment::patch, deployment::delete))
        .routes(routes!(deployment::scale))
        .routes(routes!(deployment::rollback))
        .routes(routes!(deployment::redeploy))
        .routes(routes!(deployment::revisions))
        .routes(routes!(event::of_deployment))
        .routes(routes!(log::read))
        .routes(routes!(event::list))
        .routes(routes!(registry::list, registry::create))
        .routes(routes!(registry::read, registry::delete))
        .routes(routes!(registry::list_versions, registry::create_version))
        .routes(routes!(registry::read_version, registry::delete_version))
        .routes(routes!(stray::list))
        .routes(routes!(stray::end))
        .routes(routes!(route::watch))
        .routes(routes!(route::lost))
        .routes(routes!(route::ejected))
        .routes(routes!(health::live))
        .routes(routes!(health::ready))
        .routes(routes!(health::metrics))
}
