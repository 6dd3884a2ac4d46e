//! Sends the same request to every replica, within limits.

use std::{future::Future, sync::Arc, time::Duration};

use futures::{StreamExt as _, stream};

use crate::table::{replica::Replica, routes::Table};

/// Maximum number of replicas in one survey.
const MOST: usize = 1_000;
const AT_ONCE: usize = 32;
/// Timeout for one replica.
pub(super) const PATIENCE: Duration = Duration::from_millis(500);
/// Timeout for all replicas.
const PATIENCE_IN_ALL: Duration = Duration::from_secs(3);

/// A replica, and its deployment.
#[derive(Debug)]
pub(super) struct Of {
    /// `md-26`.
    pub(super) deployment: String,
    pub(super) revision: u32,
    pub(super) replica: Arc<Replica>,
}

/// The answers of the replicas.
#[derive(Debug)]
pub(super) struct Survey<T> {
    /// By deployment and replica; `None` if a replica gave no answer in time.
    pub(super) answers: Vec<(Of, Option<T>)>,
    /// The number of replicas that were not asked.
    pub(super) not_asked: usize,
}

/// Asks all replicas, at most [`MOST`], within the timeouts. A hung replica counts as having given no answer.
pub(super) async fn of_all<T, F>(table: &Table, ask: impl Fn(Arc<Replica>) -> F) -> Survey<T>
where
    F: Future<Output = Option<T>>,
{
    let mut all = Vec::new();
    let mut not_asked = 0;
    for endpoint in table.all() {
        for revision in &endpoint.revisions {
            for replica in &revision.replicas {
                if all.len() < MOST {
                    let (deployment, replica) = (endpoint.id.to_string(), Arc::clone(replica));
                    all.push(Of { deployment, revision: revision.number, replica });
                } else {
                    not_asked += 1;
                }
            }
        }
    }
    let mut asked: Vec<_> = all.iter().map(|of| Arc::clone(&of.replica)).enumerate().collect();
    asked.retain(|(_, replica)| !replica.is_hung());
    let asking = stream::iter(asked).map(|(index, replica)| {
        let answer = ask(replica);
        async move { (index, answer.await) }
    });
    let mut asking = std::pin::pin!(asking.buffer_unordered(AT_ONCE));
    let mut answers: Vec<Option<T>> = all.iter().map(|_| None).collect();
    // Later answers are left out.
    let _late = tokio::time::timeout(PATIENCE_IN_ALL, async {
        while let Some((index, answer)) = asking.next().await {
            answers[index] = answer;
        }
    })
    .await;
    let mut answers: Vec<_> = all.into_iter().zip(answers).collect();
    answers.sort_by(|(one, _), (other, _)| {
        (&one.deployment, &one.replica.id).cmp(&(&other.deployment, &other.replica.id))
    });
    Survey { answers, not_asked }
}
