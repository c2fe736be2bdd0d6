//! What is measured of watches: how often they fail, and objects that cannot be read.
//!
//! Both are the process's, as its logs are: every room watches something, and a metric that each had to be
//! given would be forgotten in one of them.

use std::sync::LazyLock;
use std::time::Duration;

use prometheus::{IntCounterVec, Opts, Registry};
use tokio::time::Instant;

/// How often a watch that goes on failing is warned of.
const REMIND: Duration = Duration::from_mins(5);

static FAILURES: LazyLock<IntCounterVec> = LazyLock::new(|| {
    counter(
        "burstpool_watch_failures_total",
        "How often a list or a watch of the API server failed.",
        "watch",
    )
});
static UNREADABLE: LazyLock<IntCounterVec> = LazyLock::new(|| {
    counter(
        "burstpool_unreadable_objects_total",
        "How often an object was seen that this version cannot read.",
        "kind",
    )
});

fn counter(name: &str, help: &str, label: &str) -> IntCounterVec {
    IntCounterVec::new(Opts::new(name, help), &[label]).expect("a well-formed metric")
}

/// Shows both in that registry.
pub(super) fn register(registry: &Registry) {
    for one in [&FAILURES, &UNREADABLE] {
        let registered = registry.register(Box::new((*one).clone()));
        registered.expect("no two metrics have a name");
    }
}

/// Counts and logs an object that cannot be read.
pub fn unreadable(kind: &str, name: &str, why: &str) {
    UNREADABLE.with_label_values(&[kind]).inc();
    tracing::warn!(kind, name, error = why, "an object that cannot be read");
}

/// The failures of one watch in a row.
#[derive(Debug)]
pub struct Streak {
    watch: &'static str,
    warned: Option<Instant>,
}

impl Streak {
    /// None yet. `watch` says what is watched, for the log and the metric.
    pub fn new(watch: &'static str) -> Self {
        Self {
            watch,
            warned: None,
        }
    }

    /// The watch failed: warns of the first failure in a row, and now and then while it goes on. Whether it
    /// warned.
    pub fn failed(&mut self, error: &dyn std::error::Error) -> bool {
        FAILURES.with_label_values(&[self.watch]).inc();
        let warns = self.warned.is_none_or(|at| at.elapsed() >= REMIND);
        if warns {
            self.warned = Some(Instant::now());
            tracing::warn!(watch = self.watch, error = %whole(error), "a watch fails");
        } else {
            tracing::debug!(watch = self.watch, error = %whole(error), "a watch fails");
        }
        warns
    }

    /// The watch has shown something.
    pub fn worked(&mut self) {
        if self.warned.take().is_some() {
            tracing::info!(watch = self.watch, "the watch works again");
        }
    }
}

/// An error with what caused it, as far as it does not say that itself.
pub fn whole(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Metrics;

    #[tokio::test(start_paused = true)]
    async fn a_watch_that_goes_on_failing_is_warned_of_once_and_then_now_and_then() {
        let error = std::io::Error::other("refused");
        let mut streak = Streak::new("tests");
        assert!(streak.failed(&error), "the first one is seen");
        assert!(!streak.failed(&error));
        tokio::time::advance(REMIND).await;
        assert!(streak.failed(&error), "it is not forgotten");
        streak.worked();
        assert!(streak.failed(&error), "the next one is another");
        let text = Metrics::new().text();
        let line = "burstpool_watch_failures_total{watch=\"tests\"} 4";
        assert!(text.contains(line), "{text}");
    }
}
