//! The read queue: pod workers that wait to read from Azure.
//!
//! In: workers that wait for the rate limiter, or that need a LIST to confirm what a GET says. Out: whether any
//! worker waits. The garbage collection then lists the groups, which answers all workers with one request.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::future::BoxFuture;
use tokio::sync::Notify;

use super::PodsContext;

/// Counts the pod workers that wait.
#[derive(Debug, Default)]
pub(super) struct ReadQueue {
    length: AtomicUsize,
    /// Notified when a worker has to wait.
    grown: Notify,
    /// Notified when a worker needs a LIST that begins from now on.
    wanted: Notify,
}

/// A ticket in the queue; dropping it leaves the queue.
struct ReadTicket(Arc<PodsContext>);

impl Drop for ReadTicket {
    fn drop(&mut self) {
        self.0.line.length.fetch_sub(1, Ordering::Relaxed);
    }
}

impl ReadQueue {
    /// Whether no worker waits.
    pub fn is_empty(&self) -> bool {
        self.length.load(Ordering::Relaxed) == 0
    }

    /// Requests a LIST that begins from now on: a GET denied a group.
    pub fn want_list(&self) {
        self.wanted.notify_one();
    }

    /// Waits until a worker needs a LIST.
    pub async fn list_wanted(&self) {
        self.wanted.notified().await;
    }

    /// Waits until a worker is in the queue.
    pub async fn grown(&self) {
        while self.is_empty() {
            self.grown.notified().await;
        }
    }
}

/// Waits for the rate limiter, in the order of arrival. Dropping the future leaves the queue.
pub(super) fn turn(context: Arc<PodsContext>) -> BoxFuture<'static, ()> {
    Box::pin(async move {
        context.line.length.fetch_add(1, Ordering::Relaxed);
        let place = ReadTicket(context);
        let mut turn = std::pin::pin!(place.0.pace.turn());
        if futures::poll!(turn.as_mut()).is_pending() {
            place.0.line.grown.notify_one();
            turn.await;
        }
    })
}
