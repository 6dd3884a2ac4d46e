//! A web server that behaves as it is told: cuts connections, answers ranges, counts.

use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::State,
    http::{HeaderMap, Response, StatusCode, Uri, header},
};
use futures::{StreamExt as _, stream};

/// One file of the server.
#[derive(Clone, Debug)]
pub(crate) struct Page {
    pub(crate) body: Bytes,
    pub(crate) etag: Option<String>,
    pub(crate) content_type: &'static str,
    pub(crate) ranges: bool,
    /// Without a length, the end of the connection is the end of the file.
    pub(crate) length: bool,
}

/// What happens to the next request instead of, or during, its answer.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Mishap {
    /// The connection ends after so many bytes of the body.
    CutAfter(usize),
    /// Nothing comes after so many bytes of the body, and the connection stays.
    StallAfter(usize),
    /// This status and nothing else.
    Status(u16),
    /// It is elsewhere on this server.
    MovedTo(&'static str),
}

#[derive(Debug, Default)]
struct Shared {
    pages: BTreeMap<String, Page>,
    mishaps: VecDeque<Mishap>,
    /// The status and `Range` of each answer, in order.
    answers: Vec<(u16, Option<String>)>,
    bytes_sent: usize,
    /// What requests said of where they came from.
    referers: Vec<String>,
}

/// The server. It ends with the test.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    addr: SocketAddr,
    shared: Arc<Mutex<Shared>>,
}

impl Server {
    pub(crate) async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let addr = listener.local_addr().expect("it is bound");
        let shared = Arc::new(Mutex::new(Shared::default()));
        let app = Router::new().fallback(answer).with_state(Arc::clone(&shared));
        base::Tasks::new().spawn(async move { axum::serve(listener, app).await });
        Self { addr, shared }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.addr)
    }

    /// Puts a file there, with an ETag made from `version`.
    pub(crate) fn put(&self, path: &str, body: impl Into<Bytes>, version: &str) {
        let etag = Some(format!("\"{version}\""));
        self.put_page(
            path,
            Page { body: body.into(), etag, content_type: "application/octet-stream", ranges: true, length: true },
        );
    }

    pub(crate) fn put_page(&self, path: &str, page: Page) {
        self.shared().pages.insert(path.to_owned(), page);
    }

    pub(crate) fn mishap(&self, mishap: Mishap) {
        self.shared().mishaps.push_back(mishap);
    }

    /// The status and `Range` of each answer so far, which are forgotten.
    pub(crate) fn answers(&self) -> Vec<(u16, Option<String>)> {
        std::mem::take(&mut self.shared().answers)
    }

    pub(crate) fn bytes_sent(&self) -> usize {
        self.shared().bytes_sent
    }

    pub(crate) fn referers(&self) -> Vec<String> {
        self.shared().referers.clone()
    }

    fn shared(&self) -> std::sync::MutexGuard<'_, Shared> {
        self.shared.lock().expect("nobody panicked")
    }
}

async fn answer(State(shared): State<Arc<Mutex<Shared>>>, uri: Uri, headers: HeaderMap) -> Response<Body> {
    let mut shared = shared.lock().expect("nobody panicked");
    let asked =
        |name: header::HeaderName| headers.get(name).map(|value| value.to_str().expect("it is text").to_owned());
    let range = asked(header::RANGE);
    shared.referers.extend(asked(header::REFERER));
    let mishap = shared.mishaps.pop_front();
    let page = shared.pages.get(uri.path()).cloned();
    let plain = |status: u16| Response::builder().status(status).body(Body::empty()).expect("it is an answer");
    let response = match (mishap, page) {
        (Some(Mishap::Status(status)), _) => plain(status),
        (Some(Mishap::MovedTo(place)), _) => Response::builder()
            .status(302)
            .header(header::LOCATION, place)
            .body(Body::empty())
            .expect("it is an answer"),
        (_, None) => plain(404),
        (_, Some(page)) if page.etag.is_some() && asked(header::IF_NONE_MATCH) == page.etag => plain(304),
        (mishap, Some(page)) => {
            let from = range.as_deref().filter(|_| page.ranges && asked(header::IF_RANGE) == page.etag).map(|range| {
                range
                    .strip_prefix("bytes=")
                    .and_then(|range| range.strip_suffix('-'))
                    .expect("an open range")
                    .parse()
                    .expect("a number")
            });
            let body = page.body.slice(from.unwrap_or(0)..);
            let mut response = Response::builder().header(header::CONTENT_TYPE, page.content_type);
            if let Some(etag) = &page.etag {
                response = response.header(header::ETAG, etag);
            }
            if let Some(from) = from {
                let range = format!("bytes {from}-{}/{}", page.body.len() - 1, page.body.len());
                response = response.status(StatusCode::PARTIAL_CONTENT).header(header::CONTENT_RANGE, range);
            }
            if page.length {
                response = response.header(header::CONTENT_LENGTH, body.len());
            }
            let whole = body.len();
            let (bytes, end) = match mishap {
                Some(Mishap::CutAfter(bytes)) => (bytes, stream::iter([Err(std::io::Error::other("cut"))]).boxed()),
                Some(Mishap::StallAfter(bytes)) => (bytes, stream::pending().boxed()),
                Some(Mishap::Status(_) | Mishap::MovedTo(_)) | None => (whole, stream::empty().boxed()),
            };
            let sent = body.slice(..bytes.min(whole));
            shared.bytes_sent += sent.len();
            response.body(Body::from_stream(stream::iter([Ok(sent)]).chain(end))).expect("it is an answer")
        }
    };
    shared.answers.push((response.status().as_u16(), range));
    response
}
