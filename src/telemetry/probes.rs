//! The metric of the probes that nodes run.
//!
//! In: how late each probe was sent. Out: a histogram, global to the process: all nodes share its threads.

use std::sync::LazyLock;
use std::time::Duration;

use prometheus::{Histogram, HistogramOpts, Registry};

/// The buckets in seconds. A probe is on time up to 0.2 s; the longest is several default periods.
const BUCKETS: [f64; 8] = [0.01, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0, 30.0];

static LATENESS: LazyLock<Histogram> = LazyLock::new(|| {
    let opts = HistogramOpts::new(
        "burstpool_probe_lateness_seconds",
        "How long after its due time a probe of a pod was sent.",
    );
    Histogram::with_opts(opts.buckets(BUCKETS.to_vec())).expect("a well-formed metric")
});

/// Registers the histogram in `registry`.
pub(super) fn register(registry: &Registry) {
    let registered = registry.register(Box::new(LATENESS.clone()));
    registered.expect("metric names are unique");
}

/// Records a probe that was sent this long after its due time.
pub fn record_lateness(late: Duration) {
    LATENESS.observe(late.as_secs_f64());
}
