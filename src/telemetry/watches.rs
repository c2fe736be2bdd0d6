//! Metrics of watches: failures, and objects that cannot be read.
//!
//! In: errors of watches. Out: counters and log lines. Both counters are global to the process, as its logs are.
//! Every module watches something, and a counter that has to be passed to each of them would be forgotten in one.

use std::sync::LazyLock;
use std::time::Duration;

use prometheus::{IntCounterVec, Opts, Registry};
use tokio::time::Instant;

/// How often to repeat the warning while a watch keeps failing.
const WARN_INTERVAL: Duration = Duration::from_mins(5);

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

/// Registers both counters in `registry`.
pub(super) fn register(registry: &Registry) {
    for counter in [&FAILURES, &UNREADABLE] {
        let registered = registry.register(Box::new((*counter).clone()));
        registered.expect("metric names are unique");
    }
}

/// Counts and logs an object that cannot be read.
pub fn record_unreadable(kind: &str, name: &str, why: &str) {
    UNREADABLE.with_label_values(&[kind]).inc();
    tracing::warn!(kind, name, error = why, "cannot read an object");
}

/// The consecutive failures of one watch.
#[derive(Debug)]
pub struct FailureStreak {
    watch: &'static str,
    last_warned: Option<Instant>,
}

impl FailureStreak {
    /// No failures yet. `watch` is the name of the watch in the log and the metric.
    pub fn new(watch: &'static str) -> Self {
        Self {
            watch,
            last_warned: None,
        }
    }

    /// Records a failure. It logs a warning for the first of consecutive failures, and again every five minutes
    /// while they continue. Returns whether it logged a warning.
    pub fn record_failure(&mut self, error: &dyn std::error::Error) -> bool {
        FAILURES.with_label_values(&[self.watch]).inc();
        let should_warn = self
            .last_warned
            .is_none_or(|time| time.elapsed() >= WARN_INTERVAL);
        if should_warn {
            self.last_warned = Some(Instant::now());
            tracing::warn!(watch = self.watch, error = %error_chain(error), "a watch fails");
        } else {
            tracing::debug!(watch = self.watch, error = %error_chain(error), "a watch fails");
        }
        should_warn
    }

    /// Records that the watch has delivered something, which ends the consecutive failures.
    pub fn record_success(&mut self) {
        if self.last_warned.take().is_some() {
            tracing::info!(watch = self.watch, "the watch works again");
        }
    }
}

/// The error with its sources, separated by colons. A source whose text the error already contains is left out.
pub fn error_chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let cause_text = error.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
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
    async fn a_watch_that_keeps_failing_causes_a_warning_at_intervals() {
        let error = std::io::Error::other("refused");
        let mut streak = FailureStreak::new("tests");
        assert!(streak.record_failure(&error), "the first failure is logged");
        assert!(!streak.record_failure(&error));
        tokio::time::advance(WARN_INTERVAL).await;
        assert!(streak.record_failure(&error), "the warning is repeated");
        streak.record_success();
        assert!(
            streak.record_failure(&error),
            "the next failure starts a new streak"
        );
        let text = Metrics::new().encode();
        let line = "burstpool_watch_failures_total{watch=\"tests\"} 4";
        assert!(text.contains(line), "{text}");
    }
}
