//! Checks the header of a request: its size, and that no web page of another site sent it.

use base::{guard, serve};
use http::{Request, StatusCode, uri::Authority};

use crate::{
    config::Config,
    observe::counters::{Counters, Reason},
    wire::refusal::Refusal,
};

/// Returns an error if the request must be refused.
pub(crate) fn authorise<B>(request: &Request<B>, config: &Config, counters: &Counters) -> Result<(), Refusal> {
    if let Some(words) = serve::head_too_large(request) {
        return Err(Refusal::new(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, words));
    }
    let authority = request.uri().authority().map(Authority::as_str);
    guard::check(request.headers(), authority, &config.allowed_hosts).map_err(|refusal| {
        counters.refused(Reason::Host);
        Refusal::new(refusal.status(), refusal.to_string()).closing()
    })
}
