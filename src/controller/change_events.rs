//! When the statuses of pools are written after changes: soon, but not after every single change.
//!
//! In: watched values. Out: a stream that yields once for the changes of a short time.

use std::time::Duration;

use futures::{FutureExt as _, Stream, StreamExt as _};
use tokio::sync::watch;
use tokio::time::Instant;

/// Debounce of status updates after new plans: how long changes are collected, and the shortest interval
/// between two rounds.
pub(super) const STATUS_DEBOUNCE: (Duration, Duration) =
    (Duration::from_millis(200), Duration::from_secs(1));

/// Yields `()` every time the watched value changes.
pub(super) fn change_events<T: Send + Sync + 'static>(
    receiver: watch::Receiver<T>,
) -> impl Stream<Item = ()> + Send + 'static {
    futures::stream::unfold(receiver, |mut receiver| async move {
        receiver.changed().await.ok()?;
        Some(((), receiver))
    })
}

/// Debounced: collects changes for 200 ms and yields at most one item per second. Changes in between are merged
/// into the next item.
pub(super) fn debounced(
    changes: impl Stream<Item = ()> + Send + 'static,
) -> impl Stream<Item = ()> + Send {
    let initial = (Box::pin(changes), Instant::now());
    futures::stream::unfold(initial, |(mut changes, not_before)| async move {
        changes.next().await?;
        let (collect_time, min_interval) = STATUS_DEBOUNCE;
        tokio::time::sleep_until(not_before.max(Instant::now() + collect_time)).await;
        while let Some(Some(())) = changes.next().now_or_never() {}
        Some(((), (changes, Instant::now() + min_interval)))
    })
}
