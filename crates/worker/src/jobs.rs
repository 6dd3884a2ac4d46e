//! What a worker does again and again. Each job is in a file of its own; [`start`] starts them.

use std::time::Duration;

use async_trait::async_trait;
use base::Tasks;

/// Something that is done again and again.
#[async_trait]
pub(crate) trait Job: Send + 'static {
    /// How long to wait before the first turn.
    fn first(&self) -> Duration {
        Duration::ZERO
    }

    /// How long to wait after a turn.
    fn pause(&self) -> Duration;

    /// One turn. It tells of its own failures; the next turn tries again.
    async fn turn(&self);
}

/// Starts jobs. Each ends after the turn that it has in hand when the tasks are told to end.
pub(crate) fn start(tasks: &Tasks, jobs: Vec<Box<dyn Job>>) {
    for job in jobs {
        let stop = tasks.clone();
        tasks.spawn(async move {
            let mut pause = job.first();
            loop {
                tokio::select! {
                    biased;
                    () = stop.stopping() => return,
                    () = tokio::time::sleep(pause) => {}
                }
                job.turn().await;
                pause = job.pause();
            }
        });
    }
}

/// An interval, a little changed: several workers that were started together shall not do the same together.
pub(crate) fn jittered(interval_ms: u64) -> Duration {
    Duration::from_millis(interval_ms).mul_f64(rand::random_range(0.9..1.1))
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    };

    use super::*;

    struct Count(Arc<AtomicU32>, Tasks);

    #[async_trait]
    impl Job for Count {
        fn pause(&self) -> Duration {
            Duration::from_millis(1)
        }

        async fn turn(&self) {
            if self.0.fetch_add(1, Ordering::Relaxed) == 2 {
                self.1.stop();
            }
        }
    }

    #[tokio::test]
    async fn a_job_takes_turns_until_the_tasks_are_told_to_end() {
        let (tasks, turns) = (Tasks::new(), Arc::<AtomicU32>::default());
        start(&tasks, vec![Box::new(Count(turns.clone(), tasks.clone()))]);
        assert!(tasks.stop_and_wait(Duration::from_secs(20)).await);
        // It was stopped before its first turn, or by its third.
        assert!(turns.load(Ordering::Relaxed) <= 3);
    }
}
