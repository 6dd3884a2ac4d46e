//! What replicas use of their machines, asked of themselves when somebody scrapes.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use api::replica::{SELF_REPORT_PATH, SelfReport};
use futures::{StreamExt as _, stream};
use http::{HeaderValue, Request, header::HOST};
use http_body::Body as _;
use tokio::time::Instant;

use crate::{
    alarm::Alarm,
    app::App,
    body::SendBody,
    replica::Replica,
    upstream::{Link, Socket},
};

/// The most replicas that are asked in one scrape.
const MOST: usize = 1_000;
const AT_ONCE: usize = 32;
const PATIENCE: Duration = Duration::from_millis(500);
/// For all of them.
const PATIENCE_IN_ALL: Duration = Duration::from_secs(3);
/// Answers are used again for this long.
const FRESH: Duration = Duration::from_secs(5);
const LONGEST_REPORT: usize = 64 << 10;

/// What one replica has used.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Usage {
    pub(crate) cpu_seconds: f64,
    pub(crate) memory_bytes: u64,
}

type Answers = Vec<(String, Weak<Replica>, Usage)>;

/// The last answers.
#[derive(Debug, Default)]
pub(crate) struct Usages(Mutex<Option<(Instant, Answers)>>);

/// Deployment, replica and usage of those that answer. At most [`MOST`] are asked, in the time that there is.
pub(crate) async fn collect(app: &Arc<App>) -> Vec<(String, String, Usage)> {
    let known = app.usages.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let answers = match known {
        Some((at, answers)) if at.elapsed() < FRESH => answers,
        Some(_) | None => {
            let replicas: Vec<_> = app
                .table
                .all()
                .flat_map(|endpoint| {
                    let label = endpoint.label.to_str().unwrap_or_default().to_owned();
                    let replicas: Vec<_> =
                        endpoint.revisions.iter().flat_map(|revision| revision.replicas.iter().cloned()).collect();
                    replicas.into_iter().map(move |replica| (label.clone(), replica))
                })
                .take(MOST)
                .collect();
            let asking = stream::iter(replicas).map(|(label, replica)| async move {
                let usage = tokio::time::timeout(PATIENCE, ask(&replica)).await.ok().flatten();
                usage.map(|usage| (label, Arc::downgrade(&replica), usage))
            });
            let mut asking = std::pin::pin!(asking.buffer_unordered(AT_ONCE));
            let mut answers = Answers::new();
            // What has not come by then is left out of this scrape.
            let _late = tokio::time::timeout(PATIENCE_IN_ALL, async {
                while let Some(answer) = asking.next().await {
                    answers.extend(answer);
                }
            })
            .await;
            answers.sort_by(|one, other| one.0.cmp(&other.0));
            let mut kept = app.usages.0.lock().unwrap_or_else(PoisonError::into_inner);
            *kept = Some((Instant::now(), answers.clone()));
            answers
        }
    };
    let living = answers.into_iter().filter_map(|(label, replica, usage)| Some((label, replica.upgrade()?, usage)));
    living.map(|(label, replica, usage)| (label, replica.id.clone(), usage)).collect()
}

async fn ask(replica: &Replica) -> Option<Usage> {
    let mut link = Link::open(Socket::connect(&replica.address, PATIENCE).await.ok()?).await.ok()?;
    let mut request = Request::new(SendBody::Held(None));
    *request.uri_mut() = SELF_REPORT_PATH.parse().ok()?;
    request.headers_mut().insert(HOST, HeaderValue::from_static("localhost"));
    let mut alarm = Alarm::new(Instant::now() + PATIENCE);
    let response = link.send(request, &mut alarm, |_| false).await.ok()?;
    if !response.status().is_success() {
        // A container that knows nothing of this path.
        return None;
    }
    let mut body = response.into_body();
    let mut text = Vec::new();
    loop {
        let frame = std::future::poll_fn(|cx| {
            link.drive(cx);
            Pin::new(&mut body).poll_frame(cx)
        });
        let Some(frame) = frame.await else { break };
        text.extend_from_slice(&frame.ok()?.into_data().unwrap_or_default());
        if text.len() > LONGEST_REPORT {
            return None;
        }
    }
    let report: SelfReport = serde_json::from_slice(&text).ok()?;
    #[allow(clippy::cast_precision_loss, reason = "microseconds of CPU stay below 2^53 for 285 years")]
    let cpu_seconds = report.cpu_micros as f64 / 1e6;
    Some(Usage { cpu_seconds, memory_bytes: report.memory_bytes })
}
