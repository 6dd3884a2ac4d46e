//! Calling over HTTP.

use std::{sync::Once, time::Duration};

/// How long a connection may take to be made.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

static CRYPTO: Once = Once::new();

/// Makes ring the TLS provider of this process. Calling it again is harmless.
pub fn install_crypto() {
    CRYPTO.call_once(|| {
        // It fails only where a provider is installed already, which serves as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
}

/// A client builder with our TLS provider, a bounded time to connect and a name. It sets no bound on the whole
/// answer, because some never end (watches, logs): give requests that should end a `timeout` each.
pub fn builder() -> reqwest::ClientBuilder {
    install_crypto();
    reqwest::Client::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_keepalive(Duration::from_secs(30))
        .user_agent(concat!("modelway/", env!("CARGO_PKG_VERSION")))
}

/// [`builder`], for calling `url` only: on this machine itself a proxy of the environment would lead astray.
pub fn builder_for(url: &str) -> reqwest::ClientBuilder {
    let host_onwards = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = host_onwards.split(['/', '?']).next().unwrap_or_default();
    if crate::net::is_loopback(authority) { builder().no_proxy() } else { builder() }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_client_can_be_built() {
        assert!(super::builder().build().is_ok());
        assert!(super::builder().build().is_ok(), "a second time too");
    }
}
