//! The periodic jobs of a worker. Each job is in its own file; [`start`] starts them.

use std::time::Duration;

use async_trait::async_trait;
use base::Tasks;

/// A periodic job.
#[async_trait]
pub(crate) trait Job: Send + 'static {
    /// The delay before the first run.
    fn first(&self) -> Duration {
        Duration::ZERO
    }

    /// The delay after a run.
    fn pause(&self) -> Duration;

    /// One run. It logs its own failures; the next run tries again.
    async fn turn(&self);
}

/// Starts jobs. When the tasks are told to end, each job finishes its current run.
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

/// An interval with jitter, so that workers that were started together do not act at the same moments.
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
