//! Requests a page of a replica on a separate connection.

use std::{io, time::Duration};

use api::replica::SELF_REPORT_PATH;
use http::{
    HeaderMap, HeaderValue, Request, StatusCode,
    header::{ACCEPT, HOST},
};
use tokio::time::{Instant, timeout};

use super::{body::SendBody, http1::Link, socket::Socket};
use crate::{table::replica::Replica, wire::alarm::Alarm};

const LONGEST_REPORT: usize = 64 << 10;

/// The answer of a replica to a GET.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

/// The report of a replica: its body if the replica knows that path, otherwise empty. `None` if it does not answer in
/// time.
pub(crate) async fn report(replica: &Replica, patience: Duration) -> Option<Vec<u8>> {
    let page = get(replica, SELF_REPORT_PATH, "*/*", patience, |_, length| length <= LONGEST_REPORT).await?;
    // A container that does not know this path is alive nevertheless.
    Some(if page.status.is_success() { page.body } else { Vec::new() })
}

/// Whether a replica lets a question of its own connection wait. One at which nobody listens does not hang: it has ended,
/// or finishes what it has begun.
pub(crate) async fn is_silent(replica: &Replica, patience: Duration) -> bool {
    let asked = async {
        match Socket::connect(&replica.address, patience).await {
            Ok(socket) => {
                ask(socket, SELF_REPORT_PATH, "*/*", patience, |_, length| length <= LONGEST_REPORT).await.is_none()
            }
            Err(error) => !matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound),
        }
    };
    timeout(patience, asked).await.unwrap_or(true)
}

/// The page at `path`. `None` if it did not come whole within `patience`. `may_grow` gets the length of each piece and of
/// all so far with it, and says whether to read on.
pub(crate) async fn get(
    replica: &Replica,
    path: &'static str,
    accept: &'static str,
    patience: Duration,
    may_grow: impl FnMut(usize, usize) -> bool,
) -> Option<Page> {
    let asked = async {
        let socket = Socket::connect(&replica.address, patience).await.ok()?;
        ask(socket, path, accept, patience, may_grow).await
    };
    timeout(patience, asked).await.ok().flatten()
}

async fn ask(
    socket: Socket,
    path: &'static str,
    accept: &'static str,
    patience: Duration,
    mut may_grow: impl FnMut(usize, usize) -> bool,
) -> Option<Page> {
    let mut link = Link::new(socket);
    let mut request = Request::new(SendBody::Held(None));
    *request.uri_mut() = http::Uri::from_static(path);
    request.headers_mut().insert(HOST, HeaderValue::from_static("localhost"));
    request.headers_mut().insert(ACCEPT, HeaderValue::from_static(accept));
    let mut alarm = Alarm::new(Instant::now() + patience);
    let (head, ()) = link.send(&mut request, &mut alarm, |_| false).await.ok()?.into_parts();
    let mut page = Page { status: head.status, headers: head.headers, body: Vec::new() };
    while let Some(frame) = std::future::poll_fn(|cx| link.poll_frame(cx)).await {
        let data = frame.ok()?.into_data().unwrap_or_default();
        if !may_grow(data.len(), page.body.len() + data.len()) {
            return None;
        }
        page.body.extend_from_slice(&data);
    }
    Some(page)
}

#[cfg(test)]
mod tests {
    use api::{ReplicaId, replica::Address, route::RouteReplica};
    use tokio::net::TcpListener;

    use super::*;

    fn replica(address: Address) -> Replica {
        Replica::new(RouteReplica { id: ReplicaId("a".to_owned()), address })
    }

    #[tokio::test]
    async fn a_replica_that_says_nothing_is_silent_and_one_at_which_nobody_listens_is_not() {
        let patience = Duration::from_millis(200);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let listens = replica(Address::Tcp(listener.local_addr().expect("an address").to_string()));
        assert!(is_silent(&listens, patience).await);
        drop(listener);
        assert!(!is_silent(&listens, patience).await);
        assert!(!is_silent(&replica(Address::Unix("/nobody/listens.sock".into())), patience).await);
    }
}
