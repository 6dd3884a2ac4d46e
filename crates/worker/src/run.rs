//! The loops of a worker, and their start and shutdown.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError, atomic::AtomicBool},
    time::{Duration, Instant},
};

use api::DeploymentId;
use backend::Backend;
use base::{Clock, Tasks};
use futures::{StreamExt as _, stream::BoxStream};
use store::{Receipt, Store, StoreError, Task, TaskQueue};
use tokio::{
    net::TcpListener,
    sync::{Semaphore, mpsc},
};
use wake::WakeUps;

use crate::{
    Config,
    heartbeat::Heartbeat,
    http::{self, Front},
    jobs,
    metrics::{Metrics, Outcome},
    plan::Rules,
    prune::Prune,
    reconcile::{Pass, PassError, Reconciler},
    scan::Scan,
    shelf::Shelf,
};

/// The minimum delay before the next observation.
const GLANCE: Duration = Duration::from_millis(50);
/// How often to retry a necessary write while the database is unavailable.
const AWAY_GLANCE: Duration = Duration::from_secs(1);
/// When to return to a deployment whose lease another worker holds.
const BUSY_GLANCE: Duration = Duration::from_millis(250);
/// The delay after the first failure; it doubles with each further one.
const FIRST_RETRY: Duration = Duration::from_millis(200);
/// The maximum delay before the queue or the database is asked again.
const OUTAGE_CAP: Duration = Duration::from_secs(5);
/// How many deployments found by a scan may wait for processing; the scan waits to add more.
const FINDINGS: usize = 256;
/// How long the current passes may take at shutdown.
const PATIENCE: Duration = Duration::from_secs(3);

/// Why a worker ended unexpectedly.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// This worker cannot reach the replicas of another worker.
    #[error("this worker cannot join the others on this database: {0}")]
    OtherScope(String),
    /// The worker could not be registered.
    #[error("the worker could not be registered in the database")]
    Store(#[source] StoreError),
    /// The listener has no address.
    #[error("the worker's own address is not known")]
    Listener(#[source] std::io::Error),
}

/// Works until `tasks` are told to end. Then finishes its current passes and leaves every replica running.
///
/// It works on the deployments of `config.placement`. `wake_ups` brings hints that tasks are due. `listener` is for the
/// worker's own HTTP server: logs, health and metrics.
///
/// # Errors
/// [`WorkerError::OtherScope`] at the start if a worker of another scope is alive on this database.
pub async fn run(
    config: Config,
    store: Store,
    wake_ups: Arc<dyn WakeUps>,
    backend: Arc<dyn Backend>,
    listener: TcpListener,
    tasks: Tasks,
    clock: Clock,
) -> Result<(), WorkerError> {
    let own = tasks.child();
    let mut registry = base::metrics::registry();
    let metrics = Metrics::new(&mut registry);
    let address = match &config.advertise_addr {
        Some(address) => address.clone(),
        None => listener.local_addr().map_err(WorkerError::Listener)?.to_string(),
    };
    let owner: Arc<str> = format!("worker-{:016x}", rand::random::<u64>()).into();
    let reconciler = Reconciler {
        queue: TaskQueue::new(store.placed(&config.placement), clock.clone()),
        store: store.placed(&config.placement),
        backend,
        shelf: Arc::new(Shelf::new(metrics.remembered.clone())),
        owner: Arc::clone(&owner),
        rules: Rules {
            route_settle: Duration::from_millis(config.route_settle_ms),
            start_deadline: Duration::from_millis(config.start_deadline_ms),
        },
        hold: Duration::from_millis(config.lease_ms),
        clock,
        tasks: own.clone(),
        metrics: metrics.clone(),
        lineage: Arc::default(),
    };
    let heartbeat = Heartbeat {
        store: reconciler.store.clone(),
        clock: reconciler.clock.clone(),
        owner: owner.to_string(),
        scope: reconciler.backend.scope(),
        address,
        every: Duration::from_millis(config.heartbeat_ms),
        forget_after: Duration::from_millis(config.forget_after_ms),
    };
    let worker = Worker { config: Arc::new(config), reconciler, metrics, reviving: Arc::default() };
    if !worker.register(&heartbeat).await? {
        return Ok(());
    }
    tracing::info!(worker = %owner, placement = worker.config.placement, scope = heartbeat.scope, address = heartbeat.address, "working");
    let scanned = Arc::<AtomicBool>::default();

    let front = Front::new(
        Arc::clone(&worker.reconciler.backend),
        worker.reconciler.store.clone(),
        Arc::new(registry),
        Arc::clone(&scanned),
        own.clone(),
        worker.config.advertise_addr.iter().cloned().collect(),
    );
    own.spawn(http::serve(listener, front, own.clone()));
    own.spawn(worker.clone().listen());
    own.spawn(worker.clone().heed(wake_ups.listen(&owner)));
    let (findings, found) = mpsc::channel(FINDINGS);
    own.spawn(worker.clone().pull(found));
    let (reconciler, interval_ms) = (worker.reconciler.clone(), worker.config.scan_interval_ms);
    let scan = Scan { reconciler, metrics: worker.metrics.clone(), findings, scanned, interval_ms };
    let (store, clock) = (worker.reconciler.store.clone(), worker.reconciler.clock.clone());
    let prune = Prune { store, clock, interval_ms: worker.config.prune_interval_ms };
    jobs::start(&own, vec![Box::new(heartbeat), Box::new(scan), Box::new(prune)]);

    tasks.stopping().await;
    if !own.stop_and_wait(PATIENCE).await {
        tracing::warn!("work in hand did not end within {} s; its leases will lapse", PATIENCE.as_secs());
    }
    if let Err(error) = worker.reconciler.store.worker_gone(&owner).await {
        tracing::warn!(error = &error as &dyn std::error::Error, "cannot unregister the worker");
    }
    Ok(())
}

#[derive(Clone)]
struct Worker {
    config: Arc<Config>,
    reconciler: Reconciler,
    metrics: Metrics,
    /// The deployments whose replicas are restarted without the database.
    reviving: Arc<Mutex<HashSet<DeploymentId>>>,
}

impl Worker {
    fn tasks(&self) -> &Tasks {
        &self.reconciler.tasks
    }

    /// Registers the worker, however long the database takes. `false` if told to stop during that time.
    async fn register(&self, heartbeat: &Heartbeat) -> Result<bool, WorkerError> {
        let mut failures = 0;
        loop {
            match heartbeat.beat().await {
                Ok(()) => return Ok(true),
                Err(StoreError::Conflict { reason, .. }) => return Err(WorkerError::OtherScope(reason)),
                Err(error @ StoreError::Unavailable(_)) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "cannot register the worker yet");
                }
                Err(error) => return Err(WorkerError::Store(error)),
            }
            failures += 1;
            if !self.pause(backoff(failures, OUTAGE_CAP)).await {
                return Ok(false);
            }
        }
    }

    /// Sleeps; `false` if told to stop.
    async fn pause(&self, time: Duration) -> bool {
        tokio::select! {
            () = tokio::time::sleep(time) => true,
            () = self.tasks().stopping() => false,
        }
    }

    /// Forwards the changes that the backend reports.
    async fn listen(self) {
        let mut changes = self.reconciler.backend.changes();
        loop {
            let changed = tokio::select! {
                changed = changes.next() => changed,
                () = self.tasks().stopping() => return,
            };
            let Some(id) = changed else {
                tracing::error!("the backend reports no more changes; only scans will find them");
                return;
            };
            if !self.wake(id, Duration::ZERO).await {
                self.revive(id);
            }
        }
    }

    /// Looks for tasks as soon as it gets a hint of one.
    async fn heed(self, mut hints: BoxStream<'static, DeploymentId>) {
        loop {
            tokio::select! {
                Some(_) = hints.next() => self.reconciler.queue.hint(),
                () = self.tasks().stopping() => return,
            }
        }
    }

    /// Asks for another look. If that fails (`false`), the scan will find the deployment.
    async fn wake(&self, id: DeploymentId, delay: Duration) -> bool {
        let woken = self.reconciler.queue.wake(id, delay).await;
        if let Err(error) = &woken {
            self.metrics.queue_errors.inc();
            tracing::warn!(deployment = %id, error = error as &dyn std::error::Error, "cannot wake a deployment");
        }
        woken.is_ok()
    }

    /// Restarts replicas that ended, although the database cannot be asked: it is unavailable, or its disk is full.
    /// These replicas were wanted when the database last answered. Stops once it answers again, because a scan would
    /// not report a replica that ended and already runs again.
    fn revive(&self, id: DeploymentId) {
        let Some(epoch) = self.reconciler.known_epoch() else { return };
        if !self.reviving.lock().unwrap_or_else(PoisonError::into_inner).insert(id) {
            return;
        }
        let worker = self.clone();
        self.tasks().spawn(async move {
            loop {
                let due = match worker.reconciler.backend.revive(id, &epoch).await {
                    Ok(due) => due.map(|due| due.since(worker.reconciler.now()).max(GLANCE)),
                    Err(error) => {
                        let error = &error as &dyn std::error::Error;
                        tracing::warn!(deployment = %id, error, "cannot restart replicas");
                        None
                    }
                };
                if !worker.pause(due.map_or(AWAY_GLANCE, |due| due.min(AWAY_GLANCE))).await {
                    return;
                }
                if worker.wake(id, Duration::ZERO).await {
                    break;
                }
            }
            worker.reviving.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
        });
    }

    /// Takes tasks from the queue and from scans, at most as many at a time as the settings allow.
    async fn pull(self, mut found: mpsc::Receiver<DeploymentId>) {
        let free = Arc::new(Semaphore::new(usize::try_from(self.config.concurrency).unwrap_or(1)));
        let mut failures = 0;
        loop {
            let permit = tokio::select! {
                permit = Arc::clone(&free).acquire_owned() => permit,
                () = self.tasks().stopping() => return,
            };
            let work = tokio::select! {
                next = self.reconciler.queue.next(self.reconciler.hold) => next.map(|task| task.map(Work::Task)),
                Some(id) = found.recv() => Ok(Some(Work::Finding(id))),
                () = self.tasks().stopping() => return,
            };
            match work {
                Ok(None) => failures = 0,
                Ok(Some(work)) => {
                    failures = 0;
                    let worker = self.clone();
                    self.tasks().spawn(async move {
                        worker.handle(work).await;
                        drop(permit);
                    });
                }
                Err(error) => {
                    failures += 1;
                    self.metrics.queue_errors.inc();
                    tracing::warn!(error = &error as &dyn std::error::Error, "cannot get a task from the queue");
                    // Do not wait here: the results of scans need no queue.
                    let wait = backoff(failures, OUTAGE_CAP);
                    let found = tokio::select! {
                        found = found.recv() => found,
                        more = self.pause(wait) => if more { None } else { return },
                    };
                    if let Some(id) = found {
                        self.handle(Work::Finding(id)).await;
                    }
                }
            }
        }
    }

    /// Runs a pass over one deployment and schedules the next one.
    async fn handle(&self, work: Work) {
        let (id, receipt) = match &work {
            Work::Task(task) => (task.deployment, Some(&task.receipt)),
            Work::Finding(id) => (*id, None),
        };
        let mut again = None;
        if self.reconciler.shelf.take_in_hand(id) {
            self.metrics.in_hand.inc();
            loop {
                again = self.work(id, receipt).await;
                if self.reconciler.shelf.put_down(id) {
                    break;
                }
            }
            self.metrics.in_hand.dec();
        }
        // Acknowledge before the next wake-up: a task that is woken while it is held is due at once.
        if let Some(receipt) = receipt
            && let Err(error) = self.reconciler.queue.ack(receipt).await
        {
            self.metrics.queue_errors.inc();
            tracing::warn!(deployment = %id, error = &error as &dyn std::error::Error, "cannot acknowledge a task");
        }
        // A pass that is due later than the next scan is left to the scan.
        if let Some(again) = again.filter(|again| *again < Duration::from_millis(self.config.scan_interval_ms)) {
            self.wake(id, again).await;
        }
    }

    /// One pass over one deployment; returns when to check again.
    async fn work(&self, id: DeploymentId, receipt: Option<&Receipt>) -> Option<Duration> {
        let start = Instant::now();
        let result = Box::pin(self.reconciler.reconcile(id, receipt)).await;
        let shelf = &self.reconciler.shelf;
        let (outcome, again) = match result {
            Ok(Pass::Settled) => (Outcome::Settled, None),
            Ok(Pass::Gone) => (Outcome::Gone, None),
            Ok(Pass::Elsewhere) => (Outcome::Elsewhere, None),
            Ok(Pass::Underway(again)) => (Outcome::Underway, again.map(|again| again.max(GLANCE))),
            Ok(Pass::Busy) => (Outcome::Busy, Some(BUSY_GLANCE)),
            Err(PassError::Fenced) => {
                tracing::warn!(deployment = %id, "another worker has taken this deployment over");
                (Outcome::Fenced, Some(BUSY_GLANCE))
            }
            Err(PassError::Restored) => (Outcome::Fenced, Some(GLANCE)),
            Err(error) => {
                let failures = shelf.failed(id);
                let wait = backoff(failures, Duration::from_millis(self.config.retry_cap_ms));
                shelf.rest(id, self.reconciler.now().after(wait));
                tracing::warn!(
                    deployment = %id, failures, error = &error as &dyn std::error::Error,
                    "cannot reconcile a deployment; trying again in {wait:?}"
                );
                if matches!(error, PassError::Store(StoreError::Unavailable(_))) {
                    self.revive(id);
                }
                (Outcome::Failed, Some(wait))
            }
        };
        if outcome != Outcome::Failed {
            shelf.succeeded(id);
        }
        self.metrics.reconciled(outcome, start.elapsed());
        again
    }
}

/// The source of a pass.
#[derive(Debug)]
enum Work {
    /// The queue.
    Task(Task),
    /// A scan.
    Finding(DeploymentId),
}

/// Doubles with each failure, up to `cap`; a random value between half of that and all of it.
fn backoff(failures: u32, cap: Duration) -> Duration {
    let longest = FIRST_RETRY.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(cap);
    longest.mul_f64(rand::random_range(0.5..=1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_failure_doubles_the_wait_up_to_the_cap() {
        let cap = Duration::from_secs(60);
        for (failures, longest) in [(1, 200), (2, 400), (3, 800), (9, 51_200), (10, 60_000), (4_000_000, 60_000)] {
            let wait = backoff(failures, cap);
            let longest = Duration::from_millis(longest);
            assert!(wait <= longest && wait >= longest / 2, "{failures}: {wait:?}");
        }
    }
}
