//! HTTP clients.

use std::{sync::Once, time::Duration};

use reqwest::{
    Url,
    redirect::{Attempt, Policy},
};

/// Connect timeout.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Maximum number of redirects.
const MAX_REDIRECTS: usize = 5;

static CRYPTO: Once = Once::new();

/// Installs ring as the TLS provider of this process. Repeated calls are harmless.
pub fn install_crypto() {
    CRYPTO.call_once(|| {
        // It fails only if a provider is already installed, which works as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
}

/// A client builder with our TLS provider, a connect timeout and a user agent. It follows redirects, but not from https
/// to http, and sends no `Referer`, because the previous URL may be signed. It sets no timeout for the whole answer,
/// because some answers never end (watches, logs): give each request that should end a `timeout`.
pub fn builder() -> reqwest::ClientBuilder {
    install_crypto();
    reqwest::Client::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_keepalive(Duration::from_secs(30))
        .referer(false)
        .redirect(Policy::custom(|attempt| match bad_redirect(&attempt) {
            Some(why) => attempt.error(why),
            None => attempt.follow(),
        }))
        .user_agent(concat!("modelway/", env!("CARGO_PKG_VERSION")))
}

/// Why a redirect is not followed, as a part of a sentence.
#[must_use]
pub fn bad_redirect(attempt: &Attempt<'_>) -> Option<&'static str> {
    why_not(attempt.previous(), attempt.url())
}

fn why_not(previous: &[Url], next: &Url) -> Option<&'static str> {
    if next.scheme() == "http" && previous.last().is_some_and(|last| last.scheme() == "https") {
        return Some("it redirects from https to http, which is not encrypted");
    }
    (previous.len() > MAX_REDIRECTS).then_some("it redirects too often")
}

/// A [`builder`] for calls to `url` only. For a server on this machine it ignores the proxy of the environment.
pub fn builder_for(url: &str) -> reqwest::ClientBuilder {
    let host_onwards = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = host_onwards.split(['/', '?']).next().unwrap_or_default();
    if crate::net::is_loopback(authority) { builder().no_proxy() } else { builder() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redirect_keeps_its_encryption_and_ends() {
        let url = |text: &str| Url::parse(text).unwrap();
        let [plain, safe] = [url("http://a/"), url("https://a/")];
        assert_eq!(why_not(std::slice::from_ref(&plain), &safe), None);
        assert_eq!(why_not(std::slice::from_ref(&plain), &plain), None);
        assert_eq!(why_not(std::slice::from_ref(&safe), &safe), None);
        assert!(why_not(&[plain.clone(), safe.clone()], &plain).unwrap().contains("from https to http"));
        assert!(why_not(&vec![safe.clone(); 6], &safe).unwrap().contains("redirects too often"));
    }

    #[test]
    fn a_client_can_be_built() {
        assert!(super::builder().build().is_ok());
        assert!(super::builder().build().is_ok(), "a second time too");
    }
}
