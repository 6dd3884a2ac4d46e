//! Where hyper's own tasks run.

use std::future::Future;

use base::Tasks;

/// Starts hyper's own tasks among ours, on the thread that asks.
#[derive(Clone, Debug)]
pub(crate) struct Executor(pub(crate) Tasks);

impl<F: Future<Output: Send> + Send + 'static> hyper::rt::Executor<F> for Executor {
    fn execute(&self, task: F) {
        self.0.spawn(task);
    }
}
