//! What goes on after an answer's head: tracked, and ended with the listener.

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Tasks of the listener; cheap to clone.
#[derive(Clone)]
pub struct Tasks {
    /// Knows them all.
    pub tracker: TaskTracker,
    /// Ends them.
    pub cancel: CancellationToken,
}

impl Tasks {
    /// Starts one.
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
