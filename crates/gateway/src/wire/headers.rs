//! The headers that the gateway reads, writes and removes.

use std::sync::{
    OnceLock,
    atomic::{AtomicU64, Ordering},
};

use api::request_id;
use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{CONNECTION, EXPECT, TE, TRAILER, TRANSFER_ENCODING, UPGRADE},
};

pub(crate) static REQUEST_ID: HeaderName = HeaderName::from_static(request_id::HEADER);
pub(crate) static DEPLOYMENT: HeaderName = HeaderName::from_static("x-modelway-deployment");
pub(crate) static REVISION: HeaderName = HeaderName::from_static("x-modelway-revision");
pub(crate) static REPLICA: HeaderName = HeaderName::from_static("x-modelway-replica");
/// The header with which a replica says that it has not begun a request that it refuses.
pub(crate) static NOT_BEGUN: HeaderName = HeaderName::from_static(api::replica::NOT_BEGUN_HEADER);

/// Replaces a value that no header can contain.
const UNWRITABLE: HeaderValue = HeaderValue::from_static("?");

/// A header value that is created when it is first needed: most endpoints of a large table get few requests.
#[derive(Debug, Default)]
pub(crate) struct LazyValue(OnceLock<Box<HeaderValue>>);

impl LazyValue {
    /// The value; if no header can contain it, `?`.
    pub(crate) fn get(&self, text: impl FnOnce() -> String) -> &HeaderValue {
        self.0.get_or_init(|| Box::new(HeaderValue::try_from(text()).unwrap_or(UNWRITABLE)))
    }
}

/// Assigns ids to requests without one.
#[derive(Debug)]
pub(crate) struct Ids {
    /// A different one in each process.
    prefix: [u8; 16],
    count: AtomicU64,
}

impl Ids {
    pub(crate) fn new() -> Self {
        Self { prefix: hex(rand::random()), count: AtomicU64::new(0) }
    }

    /// The id of a request: that of the client, if it is valid (see [`request_id::is_plain`]), otherwise a new one.
    pub(crate) fn of(&self, headers: &HeaderMap) -> HeaderValue {
        match headers.get(&REQUEST_ID) {
            Some(given) if request_id::is_plain(given.as_bytes()) => given.clone(),
            Some(_) | None => {
                let mut id = [0; 32];
                id[..16].copy_from_slice(&self.prefix);
                id[16..].copy_from_slice(&hex(self.count.fetch_add(1, Ordering::Relaxed)));
                HeaderValue::from_bytes(&id).unwrap_or(UNWRITABLE)
            }
        }
    }
}

/// A number as 16 hexadecimal digits.
fn hex(mut number: u64) -> [u8; 16] {
    let mut digits = [0; 16];
    for digit in digits.iter_mut().rev() {
        *digit = b"0123456789abcdef"[usize::try_from(number & 15).unwrap_or(0)];
        number >>= 4;
    }
    digits
}

/// Removes the headers that concern only one connection (RFC 9110, 7.6.1).
pub(crate) fn remove_hop_by_hop(headers: &mut HeaderMap) {
    // Usually there is none, and checking each name once is cheaper than looking up each of these.
    if !headers.keys().any(is_hop_by_hop) {
        return;
    }
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    let fixed: Vec<HeaderName> = headers.keys().filter(|name| is_hop_by_hop(name)).cloned().collect();
    for name in named.into_iter().chain(fixed) {
        headers.remove(name);
    }
}

fn is_hop_by_hop(name: &HeaderName) -> bool {
    match name.as_str().len() {
        2 => *name == TE,
        // The gateway has already answered it.
        6 => *name == EXPECT,
        7 => *name == TRAILER || *name == UPGRADE,
        10 => *name == CONNECTION || name.as_str() == "keep-alive",
        16 => name.as_str() == "proxy-connection",
        17 => *name == TRANSFER_ENCODING,
        18 => name.as_str() == "proxy-authenticate",
        19 => name.as_str() == "proxy-authorization",
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_of_one_connection_stay_on_it() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "close, x-secret"),
            ("x-secret", "1"),
            ("keep-alive", "timeout=5"),
            ("transfer-encoding", "chunked"),
            ("te", "trailers"),
            ("content-type", "a/b"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        remove_hop_by_hop(&mut headers);
        assert_eq!(headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["content-type"]);
    }
}
