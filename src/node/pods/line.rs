//! The line of keepers that wait to read.
//!
//! In: keepers that wait for their turn of the pace, or need a LIST to confirm a GET. Out: whether there are
//! any, to the sweep, which can answer for all of them at once with a LIST.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::future::BoxFuture;
use tokio::sync::Notify;

use super::Context;

/// Who waits.
#[derive(Debug, Default)]
pub(super) struct Line {
    length: AtomicUsize,
    /// Told when somebody has to wait.
    grown: Notify,
    /// Told when a keeper needs a LIST that begins now or later.
    wanted: Notify,
}

/// A place in the line; it is left by dropping it.
struct Place(Arc<Context>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.line.length.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Line {
    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.length.load(Ordering::Relaxed) == 0
    }

    /// Asks for a LIST that begins from now on: a GET denies a group.
    pub fn want_list(&self) {
        self.wanted.notify_one();
    }

    /// Waits until a keeper needs a LIST.
    pub async fn list_wanted(&self) {
        self.wanted.notified().await;
    }

    /// Waits until somebody waits.
    pub async fn grown(&self) {
        while self.is_empty() {
            self.grown.notified().await;
        }
    }
}

/// A turn to read, after all who asked before. Whoever drops it loses the place.
pub(super) fn turn(context: Arc<Context>) -> BoxFuture<'static, ()> {
    Box::pin(async move {
        context.line.length.fetch_add(1, Ordering::Relaxed);
        let place = Place(context);
        let mut turn = std::pin::pin!(place.0.pace.turn());
        if futures::poll!(turn.as_mut()).is_pending() {
            place.0.line.grown.notify_one();
            turn.await;
        }
    })
}
