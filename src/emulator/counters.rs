//! Counts the requests that the emulator received, by operation and status, for `/_emulator/metrics`.

use prometheus::{IntCounterVec, Opts, Registry, TextEncoder};

/// Request counters in a Prometheus registry of their own.
pub struct Counters {
    registry: Registry,
    requests: IntCounterVec,
}

impl Counters {
    /// Creates counters at zero.
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

    /// Counts one request. If the emulator dropped its connection, the status is `dropped`.
    pub fn count(&self, operation: &str, status: &str) {
        self.requests.with_label_values(&[operation, status]).inc();
    }

    /// All counters in the Prometheus text format.
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
