//! The metrics of triggers and of the alert receiver.
//!
//! In: trigger states, and results of queries. Out: time series, labeled with pool and trigger.

use std::time::Duration;

use prometheus::{GaugeVec, HistogramVec, IntCounterVec, IntGaugeVec};

use super::Metrics;
use super::metrics::NewMetrics;

/// The buckets for the latency of a trigger's source, in seconds: the timeout of a trigger is at most a minute.
const LATENCY_BUCKETS: [f64; 9] = [0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0];

/// The metrics of triggers.
pub(super) struct TriggerMetrics {
    value: GaugeVec,
    active: IntGaugeVec,
    errors: IntCounterVec,
    latency: HistogramVec,
    refused_alerts: IntCounterVec,
}

impl TriggerMetrics {
    /// Creates and registers the metrics.
    pub(super) fn new(new: &NewMetrics) -> Self {
        let trigger = &["pool", "trigger"];
        Self {
            value: new.float_gauges(
                "burstpool_trigger_value",
                "The last value of a trigger's query.",
                trigger,
            ),
            active: new.gauges(
                "burstpool_trigger_active",
                "Whether a trigger is active.",
                trigger,
            ),
            errors: new.counters(
                "burstpool_trigger_errors_total",
                "How often a trigger's source returned no value.",
                trigger,
            ),
            latency: new.histograms(
                "burstpool_trigger_latency_seconds",
                "How long a trigger's source took to answer.",
                &LATENCY_BUCKETS,
                trigger,
            ),
            refused_alerts: new.counters(
                "burstpool_alerts_refused_total",
                "Requests that the alert receiver refused.",
                &["reason"],
            ),
        }
    }
}

impl Metrics {
    /// Sets the state and the value of a trigger.
    pub fn set_trigger(&self, pool: &str, trigger: &str, active: bool, value: Option<f64>) {
        let labels = &[pool, trigger];
        self.triggers
            .active
            .with_label_values(labels)
            .set(i64::from(active));
        match value {
            Some(value) => self.triggers.value.with_label_values(labels).set(value),
            // The series may not exist, or may hold an earlier value.
            None => drop(self.triggers.value.remove_label_values(labels)),
        }
    }

    /// Records how long a trigger's source took to answer. An answer without a value counts as an error.
    pub fn record_query(&self, pool: &str, trigger: &str, took: Duration, has_value: bool) {
        let labels = &[pool, trigger];
        let latency = self.triggers.latency.with_label_values(labels);
        latency.observe(took.as_secs_f64());
        let errors = self.triggers.errors.with_label_values(labels);
        errors.inc_by(u64::from(!has_value));
    }

    /// Removes the series of a trigger that no longer exists.
    pub fn forget_trigger(&self, pool: &str, trigger: &str) {
        let labels = &[pool, trigger];
        // Each of these series may not exist.
        let _ = self.triggers.value.remove_label_values(labels);
        let _ = self.triggers.active.remove_label_values(labels);
        let _ = self.triggers.errors.remove_label_values(labels);
        let _ = self.triggers.latency.remove_label_values(labels);
    }

    /// Counts a request that the alert receiver refused.
    pub fn count_refused_alert(&self, reason: &'static str) {
        self.triggers
            .refused_alerts
            .with_label_values(&[reason])
            .inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trigger_has_series_until_it_is_removed() {
        let metrics = Metrics::default();
        metrics.set_trigger("shop", "requests", true, Some(1520.0));
        metrics.record_query("shop", "requests", Duration::from_millis(20), true);
        metrics.record_query("shop", "requests", Duration::from_secs(5), false);
        metrics.count_refused_alert("unauthenticated");
        let text = metrics.encode();
        let labels = r#"{pool="shop",trigger="requests"}"#;
        for line in [
            format!("burstpool_trigger_value{labels} 1520"),
            format!("burstpool_trigger_active{labels} 1"),
            format!("burstpool_trigger_errors_total{labels} 1"),
            format!("burstpool_trigger_latency_seconds_count{labels} 2"),
            r#"burstpool_alerts_refused_total{reason="unauthenticated"} 1"#.to_owned(),
        ] {
            assert!(text.contains(&line), "{line}: {text}");
        }
        metrics.forget_trigger("shop", "requests");
        assert!(!metrics.encode().contains("shop"));
    }
}
