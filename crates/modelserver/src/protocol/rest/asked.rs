//! A request on its way to the handler that its path names.

use api::words;
use http::{Method, request::Parts};
use hyper::body::Incoming;

use super::answer::{self};
use crate::{protocol::app::App, run::caller::Caller};

/// A request on its way to the handler that its path names.
pub(super) struct Asked<'r> {
    pub(super) app: &'r App,
    pub(super) caller: Caller,
    pub(super) head: &'r Parts,
    pub(super) body: Incoming,
}

impl Asked<'_> {
    /// Refuses all other methods.
    pub(super) fn only(&self, allowed: &'static [Method]) -> Result<(), answer::Refusal> {
        if allowed.contains(&self.head.method) {
            return Ok(());
        }
        Err(answer::Refusal::method(&self.head.method, self.head.uri.path(), allowed))
    }
}

pub(super) const READ: &[Method] = &[Method::GET, Method::HEAD];
pub(super) const POST: &[Method] = &[Method::POST];

pub(super) fn unknown_path(path: &str) -> answer::Refusal {
    answer::Refusal::not_found(words::nothing_at(path))
}
