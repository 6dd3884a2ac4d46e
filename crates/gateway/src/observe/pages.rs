//! Merges the metrics pages of all replicas for Prometheus. Replicas are scraped on request.

use std::{
    fmt,
    future::Future,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use base::Tasks;
use bytes::Bytes;
use futures::{
    FutureExt as _,
    future::{BoxFuture, Shared, WeakShared},
};
use http::header::CONTENT_TYPE;

use super::{
    exposition::{Exposition, Source},
    survey::{self, Survey},
};
use crate::{
    table::routes::Table,
    upstream::probe::{self, Page},
};

const PATH: &str = "/metrics";
const ACCEPT: &str = "text/plain;version=0.0.4, application/openmetrics-text;version=1.0.0;q=0.5";
/// Maximum size of the page of one replica.
const LONGEST: usize = 4 << 20;
/// Maximum size of all pages of one scrape, as sent by the replicas.
const LONGEST_IN_ALL: usize = 32 << 20;

type Scrape = BoxFuture<'static, Bytes>;

/// The current scrape: concurrent requests share it.
#[derive(Default)]
pub(crate) struct Pages(Mutex<Option<WeakShared<Scrape>>>);

impl fmt::Debug for Pages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pages").finish_non_exhaustive()
    }
}

impl Pages {
    /// The current scrape, or the one that `begin` starts.
    pub(crate) fn join<F>(&self, begin: impl FnOnce() -> F) -> Shared<Scrape>
    where
        F: Future<Output = Bytes> + Send + 'static,
    {
        let mut under_way = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(scrape) = under_way.as_ref().and_then(WeakShared::upgrade).filter(|it| it.peek().is_none()) {
            return scrape;
        }
        let scrape = begin().boxed().shared();
        *under_way = scrape.downgrade();
        scrape
    }
}

/// Scrapes all replicas and merges their pages.
pub(crate) async fn collect(table: Arc<Table>, tasks: Tasks) -> Bytes {
    let room = AtomicUsize::new(LONGEST_IN_ALL);
    let asking = survey::of_all(&table, |replica| {
        let room = &room;
        async move {
            let may_grow = |piece, length| length <= LONGEST && take(room, piece);
            probe::get(&replica, PATH, ACCEPT, survey::PATIENCE, may_grow).await
        }
    });
    let survey = tokio::select! {
        survey = asking => survey,
        () = tasks.stopping() => return Bytes::from_static(b"# the gateway ends\n"),
    };
    let merging = tasks.spawn_blocking(move || merge(survey));
    merging.await.unwrap_or_else(|error| format!("# not merged: {error}\n")).into()
}

fn take(room: &AtomicUsize, bytes: usize) -> bool {
    let left = |left: usize| left.checked_sub(bytes);
    room.fetch_update(Ordering::Relaxed, Ordering::Relaxed, left).is_ok()
}

fn merge(survey: Survey<Page>) -> String {
    let mut all = Exposition::new(2 * LONGEST_IN_ALL);
    for (of, page) in survey.answers {
        let revision = of.revision.to_string();
        let source = Source { deployment: &of.deployment, revision: &revision, replica: &of.replica.id };
        match page.filter(|page| page.status.is_success()) {
            Some(page) => {
                let kind = page.headers.get(CONTENT_TYPE).map_or(&b""[..], |kind| kind.as_bytes());
                all.add(&page.body, kind.starts_with(b"application/openmetrics-text"), &source);
            }
            None => all.add_missing(&source),
        }
    }
    all.write(survey.not_asked)
}
