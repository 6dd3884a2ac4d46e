//! The life of tasks in the queue, as one suite.
//!
//! The suite moves the clock that it is given and asks again until something happens, so it runs with a
//! clock that stands still between two moves as well as with the machine's, where it merely takes longer.

use std::{collections::BTreeMap, future::poll_fn, task::Poll, time::Duration};

use api::DeploymentId;
use base::Clock;
use store::{Receipt, Task, TaskQueue};
use tokio::{task::JoinSet, time::Instant};

use crate::support::Database;

/// Longer than any step of the suite takes, so that no lease runs out by itself.
const LONG: Duration = Duration::from_secs(600);
/// How long the suite waits for what must happen.
const PATIENCE: Duration = Duration::from_secs(30);

/// An empty queue under test.
pub(crate) struct Subject {
    /// Two workers' processes on this one queue.
    workers: [TaskQueue; 2],
    clock: Clock,
    /// The file lives on until the suite is over.
    _database: Database,
}

impl Subject {
    pub(crate) async fn new(database: Database, clock: Clock) -> Self {
        // Two stores: what one process knows by its own hints must reach the other one, too.
        let workers = [database.open().await, database.open().await].map(|store| TaskQueue::new(store, clock.clone()));
        Self { workers, clock, _database: database }
    }

    /// The next task of a worker, asked for until there is one, while time passes in steps of `step`.
    async fn take(&self, worker: usize, lease: Duration, step: Duration) -> Task {
        let started = Instant::now();
        loop {
            if let Some(task) = self.workers[worker].next(lease).await.expect("the queue answers") {
                return task;
            }
            assert!(started.elapsed() < PATIENCE, "no task came within {PATIENCE:?}");
            self.clock.advance(step);
        }
    }

    async fn wake(&self, id: i64, delay: Duration) {
        self.workers[0].wake(DeploymentId(id), delay).await.expect("the queue answers");
    }

    async fn ack(&self, worker: usize, receipt: &Receipt) {
        self.workers[worker].ack(receipt).await.expect("the queue answers");
    }

    async fn nothing_is_due(&self) {
        let (one, other) = tokio::join!(self.workers[0].next(LONG), self.workers[1].next(LONG));
        for task in [one, other] {
            assert_eq!(task.expect("the queue answers"), None, "nothing should be due");
        }
    }
}

/// Runs the whole suite; `fresh` makes an empty queue for each part of it.
pub(crate) async fn suite(fresh: impl AsyncFn() -> Subject) {
    // Each part has a queue of its own and mostly waits: they run at once.
    tokio::join!(
        Box::pin(async { a_woken_deployment_is_one_task_until_it_is_acknowledged(fresh().await).await }),
        Box::pin(async { a_dead_holder_loses_nothing(fresh().await).await }),
        Box::pin(async { a_late_holder_changes_nothing(fresh().await).await }),
        Box::pin(async { renewing_keeps_a_task_from_others(fresh().await).await }),
        Box::pin(async { waking_a_held_task_makes_it_come_again(fresh().await).await }),
        Box::pin(async { a_delayed_wake_up_of_a_held_task_comes_at_its_time(fresh().await).await }),
        Box::pin(async { of_two_delays_the_earlier_holds(fresh().await).await }),
        Box::pin(async { takers_at_once_share_the_tasks_out(fresh().await).await }),
        Box::pin(async { a_waiting_taker_gets_what_is_woken_meanwhile(fresh().await).await }),
        Box::pin(async { a_strange_receipt_does_nothing(fresh().await).await }),
        Box::pin(async { a_taker_that_leaves_takes_nothing_along(fresh().await).await }),
    );
}

async fn a_woken_deployment_is_one_task_until_it_is_acknowledged(queue: Subject) {
    for _ in 0..3 {
        queue.wake(7, Duration::ZERO).await;
    }
    let task = queue.take(0, LONG, Duration::ZERO).await;
    assert_eq!(task.deployment, DeploymentId(7));
    queue.nothing_is_due().await;
    queue.ack(0, &task.receipt).await;
    queue.nothing_is_due().await;
    queue.wake(7, Duration::ZERO).await;
    assert_eq!(queue.take(1, LONG, Duration::ZERO).await.deployment, DeploymentId(7), "it can be woken again");
}

async fn a_dead_holder_loses_nothing(queue: Subject) {
    let lease = Duration::from_secs(3);
    queue.wake(1, Duration::ZERO).await;
    let first = queue.take(0, lease, Duration::ZERO).await;
    let second = queue.take(1, LONG, Duration::from_secs(1)).await;
    assert_eq!(second.deployment, first.deployment);
    assert_ne!(second.receipt, first.receipt, "each taking has a receipt of its own");
    queue.ack(1, &second.receipt).await;
    queue.nothing_is_due().await;
}

async fn a_late_holder_changes_nothing(queue: Subject) {
    queue.wake(1, Duration::ZERO).await;
    let late = queue.take(0, Duration::from_secs(2), Duration::ZERO).await;
    let present = queue.take(1, LONG, Duration::from_secs(1)).await;
    queue.ack(0, &late.receipt).await;
    let renewed = queue.workers[0].renew(&late.receipt, LONG).await.expect("the queue answers");
    assert!(!renewed, "a task that was taken over cannot be renewed");
    let held = queue.workers[1].renew(&present.receipt, LONG).await.expect("the queue answers");
    assert!(held, "the late acknowledgement must not have ended the present holding");

    // Nor after the task was ended and began anew: the old receipt is not the new one's.
    queue.ack(1, &present.receipt).await;
    queue.wake(1, Duration::ZERO).await;
    let anew = queue.take(1, LONG, Duration::ZERO).await;
    for old in [&late.receipt, &present.receipt] {
        queue.ack(0, old).await;
    }
    assert!(queue.workers[1].renew(&anew.receipt, LONG).await.expect("the queue answers"));
}

async fn renewing_keeps_a_task_from_others(queue: Subject) {
    queue.wake(1, Duration::ZERO).await;
    let task = queue.take(0, Duration::from_secs(5), Duration::ZERO).await;
    assert!(queue.workers[0].renew(&task.receipt, LONG).await.expect("the queue answers"));
    queue.clock.advance(Duration::from_secs(60));
    queue.nothing_is_due().await;
    queue.ack(0, &task.receipt).await;
}

async fn waking_a_held_task_makes_it_come_again(queue: Subject) {
    queue.wake(1, Duration::ZERO).await;
    let first = queue.take(0, LONG, Duration::ZERO).await;
    queue.wake(1, Duration::ZERO).await;
    queue.nothing_is_due().await;
    queue.ack(0, &first.receipt).await;
    let again = queue.take(1, LONG, Duration::ZERO).await;
    assert_eq!(again.deployment, first.deployment);
    queue.ack(1, &again.receipt).await;
    queue.nothing_is_due().await;
}

async fn a_delayed_wake_up_of_a_held_task_comes_at_its_time(queue: Subject) {
    queue.wake(1, Duration::ZERO).await;
    let first = queue.take(0, LONG, Duration::ZERO).await;
    // As a worker does that wants to look again in a while.
    queue.wake(1, Duration::from_secs(5)).await;
    queue.ack(0, &first.receipt).await;
    queue.nothing_is_due().await;
    assert_eq!(queue.take(1, LONG, Duration::from_secs(2)).await.deployment, first.deployment);
}

async fn of_two_delays_the_earlier_holds(queue: Subject) {
    queue.wake(1, LONG).await;
    queue.wake(1, Duration::from_secs(5)).await;
    queue.wake(1, LONG * 2).await;
    queue.nothing_is_due().await;
    let task = queue.take(0, LONG, Duration::from_secs(2)).await;
    queue.ack(0, &task.receipt).await;
    queue.nothing_is_due().await;
}

async fn takers_at_once_share_the_tasks_out(queue: Subject) {
    const TASKS: i64 = 40;
    for id in 1..=TASKS {
        queue.wake(id, Duration::ZERO).await;
    }
    let mut takers = JoinSet::new();
    for taker in 0..8 {
        let worker = queue.workers[taker % 2].clone();
        takers.spawn(async move {
            let mut taken = Vec::new();
            while let Some(task) = worker.next(LONG).await.expect("the queue answers") {
                taken.push(task.deployment);
            }
            taken
        });
    }
    let mut times = BTreeMap::new();
    for deployment in takers.join_all().await.into_iter().flatten() {
        *times.entry(deployment).or_insert(0) += 1;
    }
    let expected: BTreeMap<_, _> = (1..=TASKS).map(|id| (DeploymentId(id), 1)).collect();
    assert_eq!(times, expected, "each task is taken, and by one taker");
}

async fn a_waiting_taker_gets_what_is_woken_meanwhile(queue: Subject) {
    let worker = queue.workers[1].clone();
    let mut taker = JoinSet::new();
    taker.spawn(async move {
        loop {
            if let Some(task) = worker.next(LONG).await.expect("the queue answers") {
                return task;
            }
        }
    });
    queue.nothing_is_due().await;
    queue.wake(9, Duration::ZERO).await;
    let task = tokio::time::timeout(PATIENCE, taker.join_next()).await.expect("it comes").expect("one taker");
    assert_eq!(task.expect("the taker ends well").deployment, DeploymentId(9));
}

async fn a_strange_receipt_does_nothing(queue: Subject) {
    queue.wake(1, Duration::ZERO).await;
    let task = queue.take(0, LONG, Duration::ZERO).await;
    for strange in ["", "1", "1:", "1:x", "x:y", "'; DROP TABLE task; --"] {
        let strange = Receipt(strange.to_owned());
        queue.ack(1, &strange).await;
        assert!(!queue.workers[1].renew(&strange, LONG).await.expect("the queue answers"));
    }
    assert!(queue.workers[0].renew(&task.receipt, LONG).await.expect("the queue answers"));
}

async fn a_taker_that_leaves_takes_nothing_along(queue: Subject) {
    // It leaves at the first moment at which it would have to wait, at the second, and so on.
    for moment in 1..40 {
        queue.wake(1, Duration::ZERO).await;
        let mut next = Box::pin(queue.workers[0].next(LONG));
        let mut waits = 0;
        let task = poll_fn(|context| match next.as_mut().poll(context) {
            Poll::Ready(task) => Poll::Ready(task.expect("the queue answers")),
            Poll::Pending => {
                waits += 1;
                if waits < moment { Poll::Pending } else { Poll::Ready(None) }
            }
        })
        .await;
        drop(next);
        let task = match task {
            Some(task) => task,
            None => queue.take(0, LONG, Duration::ZERO).await,
        };
        queue.ack(0, &task.receipt).await;
    }
    queue.nothing_is_due().await;
}
