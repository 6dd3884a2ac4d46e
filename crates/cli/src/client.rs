//! The commands that send requests to the control plane and the gateway.
//!
//! They use the same REST API as any client: nothing here reads the database or the data folder.

mod apply;
mod changed;
mod config;
mod delete;
mod deploy;
mod http;
mod look;
mod models;
mod predict;
mod rollback;
mod scale;
pub(crate) mod secret;
mod source;
mod stray;
mod stream;
mod view;
mod wait;

pub use apply::apply;
pub use config::Config;
pub use delete::delete;
pub use deploy::deploy;
pub use http::Control;
pub use look::{describe, get, list};
pub use models::models;
pub use predict::predict;
pub use rollback::rollback;
pub use scale::scale;
pub use stray::strays;
pub use stream::{events, logs};
