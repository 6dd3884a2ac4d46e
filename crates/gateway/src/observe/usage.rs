//! What replicas use of their machines, asked of themselves when somebody scrapes.

use std::{
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use api::replica::SelfReport;
use futures::{StreamExt as _, stream};
use tokio::time::Instant;

use crate::{
    table::{replica::Replica, routes::Table},
    upstream::probe,
};

/// The most replicas that are asked in one scrape.
const MOST: usize = 1_000;
const AT_ONCE: usize = 32;
const PATIENCE: Duration = Duration::from_millis(500);
/// For all of them.
const PATIENCE_IN_ALL: Duration = Duration::from_secs(3);
/// Answers are used again for this long.
const FRESH: Duration = Duration::from_secs(5);

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
pub(crate) async fn collect(usages: &Usages, table: &Table) -> Vec<(String, String, Usage)> {
    let known = usages.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let answers = match known {
        Some((at, answers)) if at.elapsed() < FRESH => answers,
        Some(_) | None => {
            let replicas: Vec<_> = table
                .all()
                .flat_map(|endpoint| {
                    let label = endpoint.id.to_string();
                    let replicas: Vec<_> =
                        endpoint.revisions.iter().flat_map(|revision| revision.replicas.iter().cloned()).collect();
                    replicas.into_iter().map(move |replica| (label.clone(), replica))
                })
                .take(MOST)
                .collect();
            let asking = stream::iter(replicas).map(|(label, replica)| async move {
                let usage = ask(&replica).await;
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
            let mut kept = usages.0.lock().unwrap_or_else(PoisonError::into_inner);
            *kept = Some((Instant::now(), answers.clone()));
            answers
        }
    };
    let living = answers.into_iter().filter_map(|(label, replica, usage)| Some((label, replica.upgrade()?, usage)));
    living.map(|(label, replica, usage)| (label, replica.id.clone(), usage)).collect()
}

async fn ask(replica: &Replica) -> Option<Usage> {
    let report = probe::report(replica, PATIENCE).await?;
    let report: SelfReport = serde_json::from_slice(&report).ok()?;
    #[allow(clippy::cast_precision_loss, reason = "microseconds of CPU stay below 2^53 for 285 years")]
    let cpu_seconds = report.cpu_micros as f64 / 1e6;
    Some(Usage { cpu_seconds, memory_bytes: report.memory_bytes })
}
