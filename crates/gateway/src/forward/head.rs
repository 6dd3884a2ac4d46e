//! The headers of a request to a replica, and of an answer to a client.

use http::{
    HeaderMap, HeaderValue, Request, StatusCode, Uri, Version,
    header::{CONTENT_LENGTH, HOST, TE},
    request::Parts,
};

use super::flight::Flight;
use crate::wire::{
    grpc,
    headers::{DEPLOYMENT, NOT_BEGUN, REPLICA, REQUEST_ID, REVISION, remove_hop_by_hop},
};

/// The protocol of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Http,
    Grpc,
}

impl Protocol {
    /// The HTTP status that corresponds to the header of an answer.
    pub(crate) fn code(self, status: StatusCode, headers: &HeaderMap) -> StatusCode {
        match self {
            Self::Http => status,
            Self::Grpc => grpc::http_code(headers).unwrap_or(status),
        }
    }

    /// The header of a request to a replica. `length` is that of a body which is forwarded while it arrives.
    pub(crate) fn outgoing(self, mut parts: Parts, id: HeaderValue, length: Option<u64>) -> Request<()> {
        remove_hop_by_hop(&mut parts.headers);
        parts.headers.insert(REQUEST_ID.clone(), id);
        match self {
            Self::Http => {
                if let Some(authority) = parts.uri.authority() {
                    if let Ok(host) = HeaderValue::from_str(authority.as_str()) {
                        parts.headers.insert(HOST, host);
                    }
                    let path = parts.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
                    parts.uri = Uri::try_from(path).unwrap_or_default();
                }
                if let Some(length) = length {
                    parts.headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
                }
                parts.version = Version::HTTP_11;
            }
            Self::Grpc => {
                // A replica may get only a part of it. hyper writes the length of a held body.
                parts.headers.remove(CONTENT_LENGTH);
                parts.headers.insert(TE, HeaderValue::from_static("trailers"));
                let path = parts.uri.path();
                parts.uri = Uri::try_from(format!("http://localhost{path}")).unwrap_or_default();
                parts.version = Version::HTTP_2;
            }
        }
        Request::from_parts(parts, ())
    }
}

/// Changes an answer's headers for the client: removes those for one connection, and adds who answered.
pub(crate) fn stamp(headers: &mut HeaderMap, flight: &Flight) {
    remove_hop_by_hop(headers);
    headers.remove(&NOT_BEGUN);
    headers.insert(DEPLOYMENT.clone(), flight.endpoint.label().clone());
    headers.insert(REVISION.clone(), flight.revision.label().clone());
    headers.insert(REPLICA.clone(), flight.claim.0.label().clone());
}
