//! Runs hyper's own tasks.

use std::future::Future;

use base::Tasks;

/// Runs hyper's own tasks as tasks of ours, on the calling thread.
#[derive(Clone, Debug)]
pub(crate) struct Executor(pub(crate) Tasks);

impl<F: Future<Output: Send> + Send + 'static> hyper::rt::Executor<F> for Executor {
    fn execute(&self, task: F) {
        self.0.spawn(task);
    }
}
