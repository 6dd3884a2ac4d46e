//! The queue of tasks, in SQL.
//!
//! A task says: "look at this deployment". Losing, repeating or reordering any of them costs latency only, because workers
//! also scan. A task that was taken and not acknowledged comes back.
//!
//! There is one row per deployment. `due_at` says when a worker may take it; taking it sets `due_at` to the end of the
//! lease, and sets a unique token. A wake-up of a held task is stored in `again_at`, which becomes `due_at` when the
//! holder is done. So no cleanup is needed when a holder dies: its task is simply due again.

#[cfg(test)]
mod tests;

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use api::{DeploymentId, Timestamp};
use base::Clock;
use rand::{Rng as _, seq::SliceRandom as _};
use tokio::{
    sync::{self, watch},
    time::{Instant, timeout, timeout_at},
};

use crate::{
    Sql, Store, StoreError,
    row::{Columns as _, clean},
    transaction::Care,
};

/// How long [`TaskQueue::next`] waits.
const WAIT: Duration = Duration::from_secs(1);
/// Interval of checking for wake-ups from other processes, in milliseconds; with jitter, so that many workers do not
/// check at the same moment.
const LOOK_EVERY_MS: std::ops::Range<u64> = 75..125;
/// How many due tasks are tried before reading again.
const CANDIDATES: i64 = 16;

/// The first tasks of a placement's deployments, and of those that are gone. Each half reads a few rows of one index: a
/// worker asks ten times a second, and thousands of tasks of another placement may wait for a worker.
const DUE: &str = "SELECT deployment, due_at FROM \
    (SELECT deployment, due_at FROM task WHERE placement = $2 ORDER BY due_at LIMIT $1) AS own \
    UNION ALL SELECT deployment, due_at FROM \
    (SELECT deployment, due_at FROM task WHERE placement IS NULL AND NOT EXISTS \
    (SELECT 1 FROM deployment WHERE id = task.deployment AND placement <> $2) ORDER BY due_at LIMIT $1) AS unplaced \
    ORDER BY due_at LIMIT $1";

/// A task that a worker has taken: it is nobody else's until its lease has passed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task {
    /// Which deployment to look at.
    pub deployment: DeploymentId,
    /// Proof of the taking. Acknowledging or renewing with one that was taken over does nothing.
    pub receipt: Receipt,
}

/// A fencing token of one taking of one task. Opaque to workers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt(pub String);

/// The queue of tasks in the database's `task` table: one row a deployment, so queueing is an upsert and can be part of the
/// change's own transaction. Deliveries are at least once; one deployment is one task however often it is woken.
/// Clones are the same one.
#[derive(Clone, Debug)]
pub struct TaskQueue {
    store: Store,
    clock: Clock,
    /// Of the waiting callers of one process, only one polls.
    looking: Arc<sync::Mutex<()>>,
    /// Tasks that were taken for a caller who left before getting them: nobody works on them.
    left: Arc<Mutex<Vec<Taking>>>,
    /// Counts the hints that a task is due.
    hints: Arc<watch::Sender<u64>>,
}

impl TaskQueue {
    /// The queue of this database.
    #[must_use]
    pub fn new(store: Store, clock: Clock) -> Self {
        Self { store, clock, looking: Arc::default(), left: Arc::default(), hints: Arc::new(watch::Sender::new(0)) }
    }

    /// Has whoever waits for a task look at once.
    pub fn hint(&self) {
        self.hints.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Asks for a look at a deployment after `delay`. Waking one that waits already keeps the earlier time; waking one that
    /// a worker holds makes it come again after that worker is done.
    pub async fn wake(&self, deployment: DeploymentId, delay: Duration) -> Result<(), StoreError> {
        let due = self.now().after(delay);
        self.store.write_one(waking(deployment, due)).await?;
        if delay.is_zero() {
            self.hint();
        }
        Ok(())
    }

    /// The next task that is due, held for `lease`. Waits for one, at most about a second; then `None`.
    /// A caller may drop the future at any moment: what it was about to get is due again at the latest when
    /// this handle is asked again.
    pub async fn next(&self, lease: Duration) -> Result<Option<Task>, StoreError> {
        self.wait_and_take(lease).await
    }

    /// Holds a task for `lease` from now on. `false` if it was ended or taken over: stop working on it.
    pub async fn renew(&self, receipt: &Receipt, lease: Duration) -> Result<bool, StoreError> {
        let Some((deployment, token)) = parts(receipt) else { return Ok(false) };
        let renewal =
            sqlx::query("UPDATE task SET due_at = $1 WHERE deployment = $2 AND token = $3 RETURNING deployment");
        let renewal = renewal.bind(self.now().after(lease).0).bind(deployment).bind(token);
        Ok(self.store.write_one(renewal).await?.is_some())
    }

    /// Ends a task. One that was woken meanwhile stays in the queue and is due when that asked for it: at
    /// once, or after its delay.
    pub async fn ack(&self, receipt: &Receipt) -> Result<(), StoreError> {
        let Some((deployment, token)) = parts(receipt) else { return Ok(()) };
        // In this order: while a task is held, wake-ups are only added to it, so one that is not there to be
        // deleted is there to come again, or is no longer ours.
        let end = sqlx::query(
            "DELETE FROM task WHERE deployment = $1 AND token = $2 AND again_at IS NULL RETURNING deployment",
        );
        let ended = self.store.write_one(end.bind(deployment).bind(token.clone())).await?;
        if ended.is_none() {
            let again = sqlx::query(
                "UPDATE task SET token = NULL, due_at = again_at, again_at = NULL \
                 WHERE deployment = $1 AND token = $2 AND again_at IS NOT NULL RETURNING deployment",
            );
            if self.store.write_one(again.bind(deployment).bind(token)).await?.is_some() {
                self.hint();
            }
        }
        Ok(())
    }

    fn now(&self) -> Timestamp {
        self.clock.now().into()
    }

    /// Takes a due task, or returns when the next one is due.
    async fn take(&self, lease: Duration) -> Result<Result<Task, Option<Timestamp>>, StoreError> {
        let now = self.now();
        // Reads first, so that a caller without a due task takes no lock.
        let rows = sqlx::query(DUE)
            .bind(CANDIDATES)
            .bind(clean(self.store.placement()))
            .fetch_all(&mut *self.store.read().await?)
            .await?;
        let mut due = Vec::new();
        for row in &rows {
            let at = Timestamp(row.int("due_at")?);
            if at > now {
                if due.is_empty() {
                    return Ok(Err(Some(at)));
                }
                break;
            }
            due.push(DeploymentId(row.int("deployment")?));
        }
        // Oldest first; if another worker was faster, tries the next one.
        if let Some((_, others)) = due.split_first_mut() {
            others.shuffle(&mut rand::rng());
        }
        for deployment in due {
            if let Some(task) = self.claim(deployment, lease, now).await? {
                return Ok(Ok(task));
            }
        }
        Ok(Err(None))
    }

    async fn claim(
        &self,
        deployment: DeploymentId,
        lease: Duration,
        now: Timestamp,
    ) -> Result<Option<Task>, StoreError> {
        let token = uuid::Uuid::new_v4().to_string();
        let mut guard = Guard { left: &self.left, taking: Some(Taking { deployment, token: token.clone() }) };
        // A pending delayed wake-up survives the end of the holder's task.
        let claim = sqlx::query(
            "UPDATE task SET token = $1, due_at = $2, again_at = CASE WHEN again_at > $3 THEN again_at ELSE NULL END \
             WHERE deployment = $4 AND due_at <= $3 RETURNING deployment",
        );
        let claim = claim.bind(token.clone()).bind(now.after(lease).0).bind(now.0).bind(deployment.0);
        // A transaction also where one statement would do: what is not committed when its caller leaves is undone, or is
        // being committed at that moment.
        let mut sql = self.store.write(Care::Recoverable).await?;
        let claimed = claim.fetch_optional(&mut *sql).await?;
        sql.commit().await?;
        guard.taking = None;
        Ok(claimed.map(|_| Task { deployment, receipt: Receipt(format!("{}:{token}", deployment.0)) }))
    }

    /// Returns the tasks that were taken for callers who left.
    async fn give_back(&self) -> Result<(), StoreError> {
        loop {
            let last = self.left.lock().unwrap_or_else(PoisonError::into_inner).last().cloned();
            let Some(Taking { deployment, token }) = last else { return Ok(()) };
            // The taking may still be committing. The statement names the row only by what both versions of it have, so
            // PostgreSQL waits for that commit, and the CASE sees what it wrote.
            let back = sqlx::query(
                "UPDATE task SET due_at = CASE WHEN token = $1 THEN $2 ELSE due_at END, \
                 token = CASE WHEN token = $1 THEN NULL ELSE token END WHERE deployment = $3 RETURNING deployment",
            );
            self.store.write_one(back.bind(token.clone()).bind(self.now().0).bind(deployment.0)).await?;
            self.left.lock().unwrap_or_else(PoisonError::into_inner).retain(|taking| taking.token != token);
        }
    }

    async fn wait_and_take(&self, lease: Duration) -> Result<Option<Task>, StoreError> {
        let deadline = Instant::now() + WAIT;
        let Ok(_looking) = timeout_at(deadline, self.looking.lock()).await else { return Ok(None) };
        self.give_back().await?;
        let mut hints = self.hints.subscribe();
        loop {
            hints.mark_unchanged();
            let look_again = Duration::from_millis(rand::rng().random_range(LOOK_EVERY_MS));
            let wait = match self.take(lease).await? {
                Ok(task) => return Ok(Some(task)),
                Err(Some(due)) => due.since(self.now()).max(Duration::from_millis(1)).min(look_again),
                Err(None) => look_again,
            };
            if Instant::now() >= deadline {
                return Ok(None);
            }
            // This queue holds the sender; what ends the wait does not matter.
            let _ = timeout(wait, hints.changed()).await;
        }
    }
}

/// One taking of one task.
#[derive(Clone, Debug)]
struct Taking {
    deployment: DeploymentId,
    token: String,
}

/// Records a taking whose caller left halfway. There is at most one for each cancelled call, and the next call first
/// returns them.
struct Guard<'q> {
    left: &'q Mutex<Vec<Taking>>,
    taking: Option<Taking>,
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        self.left.lock().unwrap_or_else(PoisonError::into_inner).extend(self.taking.take());
    }
}

/// Wakes the task of a deployment as part of a transaction.
pub(crate) async fn wake(sql: &mut Sql, deployment: DeploymentId, due: Timestamp) -> Result<(), StoreError> {
    waking(deployment, due).execute(sql).await?;
    Ok(())
}

fn waking<'q>(deployment: DeploymentId, due: Timestamp) -> sqlx::query::Query<'q, sqlx::Any, sqlx::any::AnyArguments> {
    sqlx::query(
        "INSERT INTO task (deployment, due_at, placement) \
         VALUES ($1, $2, (SELECT placement FROM deployment WHERE id = $1)) ON CONFLICT (deployment) DO UPDATE SET \
         placement = COALESCE(task.placement, excluded.placement), \
         due_at = CASE WHEN task.token IS NULL AND excluded.due_at < task.due_at \
         THEN excluded.due_at ELSE task.due_at END, \
         again_at = CASE WHEN task.token IS NULL THEN NULL \
         WHEN task.again_at IS NULL OR excluded.due_at < task.again_at \
         THEN excluded.due_at ELSE task.again_at END RETURNING deployment",
    )
    .bind(deployment.0)
    .bind(due.0)
}

/// What a receipt proves; `None` for one that this queue never gave.
fn parts(receipt: &Receipt) -> Option<(i64, String)> {
    let (deployment, token) = receipt.0.split_once(':')?;
    // Only tokens reach the database.
    let token = uuid::Uuid::try_parse(token).ok()?;
    Some((deployment.parse().ok()?, token.to_string()))
}
