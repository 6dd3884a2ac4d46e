//! Calling over HTTP.

use std::{sync::Once, time::Duration};

use reqwest::{
    Url,
    redirect::{Attempt, Policy},
};

/// How long a connection may take to be made.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How many times a server may send us elsewhere.
const MAX_REDIRECTS: usize = 5;

static CRYPTO: Once = Once::new();

/// Makes ring the TLS provider of this process. Calling it again is harmless.
pub fn install_crypto() {
    CRYPTO.call_once(|| {
        // It fails only where a provider is installed already, which serves as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
}

/// A client builder with our TLS provider, a bounded time to connect and a name. A server may send us elsewhere, but not
/// from https to http; nobody is told the address that we came from, which may be signed. It sets no bound on the whole
/// answer, because some never end (watches, logs): give requests that should end a `timeout` each.
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

/// Why a redirect is not followed, as half a sentence.
#[must_use]
pub fn bad_redirect(attempt: &Attempt<'_>) -> Option<&'static str> {
    why_not(attempt.previous(), attempt.url())
}

fn why_not(previous: &[Url], next: &Url) -> Option<&'static str> {
    if next.scheme() == "http" && previous.last().is_some_and(|last| last.scheme() == "https") {
        return Some("it sends us from https to http, where anybody on the way can read and change what is sent");
    }
    (previous.len() > MAX_REDIRECTS).then_some("it sends us around in circles")
}

/// [`builder`], for calling `url` only: on this machine itself a proxy of the environment would lead astray.
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
        assert!(why_not(&vec![safe.clone(); 6], &safe).unwrap().contains("circles"));
    }

    #[test]
    fn a_client_can_be_built() {
        assert!(super::builder().build().is_ok());
        assert!(super::builder().build().is_ok(), "a second time too");
    }
}
