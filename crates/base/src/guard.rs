//! Protects a server without authentication from web pages.
//!
//! The network cannot reach a server on loopback, but the browser on the same machine can. A web page has two ways to
//! use it: *DNS rebinding* (the page's host name resolves to 127.0.0.1, so the browser sends the page's requests to
//! this server) and *cross-site requests* (a form or a script that posts without reading the answer). The first shows
//! in `Host`, which contains the host name of the page; the second shows in `Origin`, which browsers always add to such
//! requests.
//!
//! So `Host` must be a name that no attacker can own: `localhost`, an IP address (it is not resolved, so it cannot be
//! rebound) or a name in the settings. `Origin`, if present, must be a loopback name, equal to `Host`, or in the
//! settings. Programs send no `Origin` and are not affected.
//!
//! **Invariant:** pure, and without allocation if the request passes, because it is on the request path of the gateway.

use std::net::{IpAddr, Ipv6Addr};

use http::{
    HeaderMap, StatusCode,
    header::{HOST, ORIGIN},
};

/// Why a request was refused. `Display` says which setting to change.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There are several `Host` headers, or an invalid one: two readers could interpret them differently.
    #[error("the request has no valid Host; send exactly one, as in `Host: localhost:8081`")]
    HostUnreadable,
    /// An attacker may own the name in `Host`.
    #[error(
        "this server has no authentication, so it accepts only loopback names and IP addresses as Host, not `{0}`; if that is a name of this server, add it to `allowed_hosts`"
    )]
    HostNotAllowed(String),
    /// A web page of another site sent the request.
    #[error(
        "this server has no authentication, so it refuses requests of the web page at `{0}`; if you trust the page, add its host to `allowed_hosts`"
    )]
    OriginNotAllowed(String),
}

impl Refusal {
    /// The status to answer with: 400, 421 (Misdirected Request) or 403.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        match self {
            Self::HostUnreadable => StatusCode::BAD_REQUEST,
            Self::HostNotAllowed(_) => StatusCode::MISDIRECTED_REQUEST,
            Self::OriginNotAllowed(_) => StatusCode::FORBIDDEN,
        }
    }

    /// A stable code for programs.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::HostUnreadable => "host_unreadable",
            Self::HostNotAllowed(_) => "host_not_allowed",
            Self::OriginNotAllowed(_) => "origin_not_allowed",
        }
    }
}

/// Returns an error if the request must be refused.
///
/// `authority` is from the request target (`:authority` in HTTP/2); it takes precedence over `Host`. `allowed` lists
/// further host names, with or without a port: `models.example.org`, `*.example.org` for all subdomains, `*` for any
/// name (which disables the check).
///
/// A request without a host passes, because browsers always send one.
///
/// # Errors
/// [`Refusal`], with a text for the caller.
pub fn check(headers: &HeaderMap, authority: Option<&str>, allowed: &[String]) -> Result<(), Refusal> {
    if allowed.iter().any(|name| name == "*") {
        return Ok(());
    }
    let host = match authority {
        Some(authority) => Some(authority),
        None => host_header(headers)?,
    };
    if let Some(host) = host {
        let name = name_of(host).ok_or(Refusal::HostUnreadable)?;
        if !is_loopback(name) && !is_address(name) && !is_allowed(host, name, allowed) {
            return Err(Refusal::HostNotAllowed(shown(host)));
        }
    }
    match headers.get(ORIGIN) {
        None => Ok(()),
        Some(origin) => {
            let text = origin.to_str().unwrap_or("?");
            if origin_passes(text, host, allowed) { Ok(()) } else { Err(Refusal::OriginNotAllowed(shown(text))) }
        }
    }
}

/// Whether `name` (without a port) always means this machine.
#[must_use]
pub fn is_loopback(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.eq_ignore_ascii_case("localhost") || ends_with_ignore_case(name, ".localhost") {
        return true;
    }
    parse_address(name).is_some_and(|address| address.to_canonical().is_loopback())
}

fn host_header(headers: &HeaderMap) -> Result<Option<&str>, Refusal> {
    let mut hosts = headers.get_all(HOST).iter();
    let Some(host) = hosts.next() else { return Ok(None) };
    if hosts.next().is_some() {
        return Err(Refusal::HostUnreadable);
    }
    host.to_str().map(Some).map_err(|_| Refusal::HostUnreadable)
}

fn origin_passes(origin: &str, host: Option<&str>, allowed: &[String]) -> bool {
    let Some(host_of_origin) = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://")) else {
        // `null` (a sandboxed page, a file) and the schemes of browser extensions.
        return false;
    };
    let Some(name) = name_of(host_of_origin) else { return false };
    is_loopback(name)
        || host.is_some_and(|host| host.eq_ignore_ascii_case(host_of_origin))
        || is_allowed(host_of_origin, name, allowed)
}

/// The host without its port; `None` if it is neither a name nor an address.
fn name_of(host: &str) -> Option<&str> {
    let (name, port) = match host.strip_prefix('[') {
        Some(rest) => {
            let end = rest.find(']')? + 2;
            (&host[..end], host[end..].strip_prefix(':').or_else(|| host[end..].is_empty().then_some("")))
        }
        None => host.split_once(':').map_or((host, Some("")), |(name, port)| (name, Some(port))),
    };
    let readable = !name.is_empty()
        && port?.bytes().all(|b| b.is_ascii_digit())
        && name.bytes().all(|b| b.is_ascii_graphic() && !b"/\\@?#%,".contains(&b));
    readable.then_some(name)
}

fn is_address(name: &str) -> bool {
    parse_address(name).is_some()
}

fn parse_address(name: &str) -> Option<IpAddr> {
    match name.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']')?.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        None => name.parse().ok(),
    }
}

fn is_allowed(host: &str, name: &str, allowed: &[String]) -> bool {
    let bare = name.strip_suffix('.').unwrap_or(name);
    allowed.iter().any(|allowed| match allowed.strip_prefix('*') {
        Some(suffix) => suffix.starts_with('.') && ends_with_ignore_case(bare, suffix),
        None => allowed.eq_ignore_ascii_case(bare) || allowed.eq_ignore_ascii_case(host),
    })
}

/// Whether `name` ends with `suffix` and has something before it.
fn ends_with_ignore_case(name: &str, suffix: &str) -> bool {
    let (name, suffix) = (name.as_bytes(), suffix.as_bytes());
    name.len() > suffix.len() && name[name.len() - suffix.len()..].eq_ignore_ascii_case(suffix)
}

/// The part of an untrusted text that an answer repeats.
fn shown(text: &str) -> String {
    text.chars().take(100).filter(|c| !c.is_control()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().expect("a header value"));
        }
        headers
    }

    fn passes(pairs: &[(&'static str, &str)], allowed: &[&str]) -> bool {
        let allowed: Vec<String> = allowed.iter().map(|name| (*name).to_owned()).collect();
        check(&headers(pairs), None, &allowed).is_ok()
    }

    #[test]
    fn loopback_names_and_addresses_pass() {
        for host in
            ["localhost", "LOCALHOST:8081", "a.localhost:1", "127.0.0.1:80", "127.9.9.9", "[::1]:80", "10.0.0.7:80"]
        {
            assert!(passes(&[("host", host)], &[]), "{host}");
        }
        assert!(passes(&[], &[]), "a request without a host is no browser's");
    }

    #[test]
    fn a_name_that_an_attacker_can_own_is_refused() {
        for host in
            ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example:8081", "notlocalhost", ".localhost"]
        {
            let refusal = check(&headers(&[("host", host)]), None, &[]).expect_err(host);
            assert_eq!(refusal.status(), StatusCode::MISDIRECTED_REQUEST, "{host}");
            assert!(refusal.to_string().contains("allowed_hosts"), "{refusal}");
        }
    }

    #[test]
    fn the_authority_of_http2_comes_before_the_host() {
        let good = headers(&[("host", "localhost")]);
        assert!(check(&good, Some("evil.example"), &[]).is_err());
        assert!(check(&HeaderMap::new(), Some("localhost:8081"), &[]).is_ok());
    }

    #[test]
    fn what_can_be_read_in_two_ways_is_refused() {
        for pairs in [
            &[("host", "localhost"), ("host", "evil.example")][..],
            &[("host", "localhost@evil.example")],
            &[("host", "")],
            &[("host", "localhost:80:90")],
            &[("host", "[::1]evil.example")],
        ] {
            assert!(!passes(pairs, &[]), "{pairs:?}");
        }
    }

    #[test]
    fn a_page_of_another_site_is_refused_and_our_own_is_not() {
        let from = |origin: &str, host: &str, allowed: &[&str]| passes(&[("host", host), ("origin", origin)], allowed);
        assert!(from("http://localhost:3000", "localhost:8081", &[]));
        assert!(from("http://10.0.0.7:8081", "10.0.0.7:8081", &[]), "the same origin");
        assert!(!from("http://10.0.0.9:8081", "10.0.0.7:8081", &[]));
        assert!(!from("https://evil.example", "localhost:8081", &[]));
        assert!(!from("null", "localhost:8081", &[]));
        assert!(!from("chrome-extension://abc", "localhost:8081", &[]));
        assert!(from("https://ui.example.org", "localhost:8081", &["ui.example.org"]));
    }

    #[test]
    fn further_hosts_are_allowed_by_name_by_suffix_or_altogether() {
        assert!(passes(&[("host", "models.example.org:8081")], &["models.example.org"]));
        assert!(passes(&[("host", "models.example.org:8081")], &["models.example.org:8081"]));
        assert!(!passes(&[("host", "models.example.org:9")], &["models.example.org:8081"]));
        assert!(passes(&[("host", "a.example.org.")], &["*.example.org"]));
        assert!(!passes(&[("host", "example.org")], &["*.example.org"]));
        assert!(!passes(&[("host", "evilexample.org")], &["*.example.org"]));
        assert!(passes(&[("host", "anything"), ("origin", "null")], &["*"]));
    }
}
