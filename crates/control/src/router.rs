//! All routes of the control plane: the documented paths, their documentation, and the fallback.

use std::sync::Arc;

use axum::{Router, middleware, routing::get};

use crate::{
    fallback,
    http::{Shared, documented, layers},
    openapi,
};

/// The complete router.
pub(crate) fn router(app: Shared) -> Router {
    let (documented, _) = documented().split_for_parts();
    documented
        .route("/openapi.json", get(openapi::document))
        .merge(openapi::page())
        .fallback(fallback::unknown_path)
        .method_not_allowed_fallback(fallback::wrong_method)
        .layer(middleware::from_fn_with_state(Arc::clone(&app), layers::limit_time))
        .layer(middleware::from_fn_with_state(Arc::clone(&app), layers::guard))
        .layer(middleware::from_fn_with_state(Arc::clone(&app), layers::observe))
        .with_state(app)
}
