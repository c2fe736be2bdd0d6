//! The read queue: pod workers that wait to read from Azure.
//!
//! In: workers that wait for the rate limiter, or that need a LIST to confirm a GET. Out: whether any worker waits.
//! Garbage collection then lists the groups, which answers all workers with one request.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::future::BoxFuture;
use tokio::sync::Notify;

use super::PodsContext;

/// Counts the pod workers that wait.
#[derive(Debug, Default)]
pub(super) struct ReadQueue {
    waiting: AtomicUsize,
    /// Notified when a worker has to wait.
    not_empty: Notify,
    /// Notified when a worker needs a LIST that begins after the notification.
    list_requested: Notify,
}

/// A ticket in the queue; dropping it leaves the queue.
struct ReadTicket(Arc<PodsContext>);

impl Drop for ReadTicket {
    fn drop(&mut self) {
        self.0.read_queue.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

impl ReadQueue {
    /// Whether no worker waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) == 0
    }

    /// Requests a LIST that begins after this call: a GET found no group.
    pub fn request_list(&self) {
        self.list_requested.notify_one();
    }

    /// Waits until a worker needs a LIST.
    pub async fn wait_for_list_request(&self) {
        self.list_requested.notified().await;
    }

    /// Waits until a worker is in the queue.
    pub async fn wait_until_not_empty(&self) {
        while self.is_empty() {
            self.not_empty.notified().await;
        }
    }
}

/// Waits for the rate limiter, in the order of arrival. Dropping the future leaves the queue.
pub(super) fn wait_for_read_turn(context: Arc<PodsContext>) -> BoxFuture<'static, ()> {
    Box::pin(async move {
        context.read_queue.waiting.fetch_add(1, Ordering::Relaxed);
        let ticket = ReadTicket(context);
        let mut turn = std::pin::pin!(ticket.0.rate_limiter.acquire());
        if futures::poll!(turn.as_mut()).is_pending() {
            ticket.0.read_queue.not_empty.notify_one();
            turn.await;
        }
    })
}
