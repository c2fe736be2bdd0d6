//! Tasks that continue after an answer's head: tracked, and cancelled with the listener.
//!
//! In: futures. Out: nothing; the listener waits for their end.

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The tasks of the listener; cheap to clone.
#[derive(Clone)]
pub struct ListenerTasks {
    /// Tracks all tasks.
    pub tracker: TaskTracker,
    /// Cancels all tasks.
    pub cancel: CancellationToken,
}

impl ListenerTasks {
    /// Starts a task.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let cancel = self.cancel.clone();
        self.tracker.spawn(async move {
            tokio::select! {
                () = task => {}
                () = cancel.cancelled() => {}
            }
        });
    }
}
