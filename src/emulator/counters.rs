//! How many requests the emulator has seen, by operation and status.

use prometheus::{IntCounterVec, Opts, Registry, TextEncoder};

/// Requests, counted.
pub struct Counters {
    registry: Registry,
    requests: IntCounterVec,
}

impl Counters {
    /// Counters at zero.
    pub fn new() -> Self {
        let options = Opts::new(
            "aci_emulator_requests_total",
            "Requests by operation and status.",
        );
        let requests = IntCounterVec::new(options, &["operation", "status"])
            .expect("the name and the labels are valid");
        let registry = Registry::new();
        registry
            .register(Box::new(requests.clone()))
            .expect("nothing else has this name");
        Self { registry, requests }
    }

    /// Counts a request. A dropped one has the status `dropped`.
    pub fn count(&self, operation: &str, status: &str) {
        self.requests.with_label_values(&[operation, status]).inc();
    }

    /// All counters in Prometheus' text format.
    pub fn text(&self) -> String {
        TextEncoder::new()
            .encode_to_string(&self.registry.gather())
            .unwrap_or_default()
    }

    /// Sets all counters to zero.
    pub fn reset(&self) {
        self.requests.reset();
    }
}

impl Default for Counters {
    fn default() -> Self {
        Self::new()
    }
}
