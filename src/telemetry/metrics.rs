//! All metrics of the operator, in one struct.
//!
//! In: counts and measurements of the other modules. Out: the text for `/metrics`. Names and units follow the
//! conventions of Prometheus. Labels are bounded: existing pools and placements, and fixed words. The series of a
//! pool are removed when the pool is deleted.

use std::time::Duration;

use prometheus::core::Collector;
use prometheus::process_collector::ProcessCollector;
use prometheus::{
    Gauge, GaugeVec, HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, TextEncoder,
};

use super::triggers::TriggerMetrics;

/// The pod states that are counted for each pool.
pub const POD_STATES: [&str; 6] = [
    "holding",
    "granted",
    "spilled",
    "running",
    "refused",
    "user_placed",
];
/// The possible outcomes of a grant.
const GRANT_OUTCOMES: [&str; 7] = [
    "granted", "conflict", "gone", "denied", "lost", "unsent", "unmarked",
];
/// What granted pods may lose on ACI: the values of `spill.accept`.
const GRANT_LOSSES: [&str; 8] = [
    "emptyDirMemory",
    "fileModes",
    "fsGroup",
    "readOnlyRootFilesystem",
    "seccomp",
    "shareProcessNamespace",
    "sidecarOrder",
    "subPathHidesDirectory",
];
/// The buckets for durations of requests to Azure, in seconds: at least one round trip, at most the timeout of a
/// minute.
const AZURE_LATENCY_BUCKETS: [f64; 10] = [0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0];

/// The outcome of a request to Azure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallOutcome {
    /// It succeeded.
    Done,
    /// Azure refused it with this HTTP status.
    Refused(u16),
    /// There was no answer, or it could not be parsed.
    NoAnswer,
    /// No token could be obtained.
    NoToken,
    /// It was not sent, because Azure has asked to wait.
    Held,
}

/// All metrics, with the registry that they are registered in.
pub struct Metrics {
    registry: Registry,
    leader: IntGauge,
    skew: Gauge,
    pods: IntGaugeVec,
    pods_max: IntGaugeVec,
    unreadable: IntGaugeVec,
    open: IntGaugeVec,
    groups: IntGaugeVec,
    grants: GrantMetrics,
    azure_requests: AzureRequestMetrics,
    pub(super) triggers: TriggerMetrics,
}

struct GrantMetrics {
    total: IntCounterVec,
    losses: IntCounterVec,
}

impl GrantMetrics {
    fn new(new: &NewMetrics) -> Self {
        Self {
            total: new.counters(
                "burstpool_grants_total",
                "Pods that were to be granted, by outcome.",
                &["pool", "outcome"],
            ),
            losses: new.counters(
                "burstpool_grants_not_kept_total",
                "Pods that were granted although ACI does not keep something of them, by what is lost.",
                &["pool", "loss"],
            ),
        }
    }
}

struct AzureRequestMetrics {
    total: IntCounterVec,
    seconds: HistogramVec,
}

impl AzureRequestMetrics {
    fn new(new: &NewMetrics) -> Self {
        Self {
            total: new.counters(
                "burstpool_azure_requests_total",
                "Requests to Azure, by the class of its rate limits and by outcome.",
                &["class", "outcome"],
            ),
            seconds: new.histograms(
                "burstpool_azure_request_duration_seconds",
                "How long Azure took to answer.",
                &AZURE_LATENCY_BUCKETS,
                &["class"],
            ),
        }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Creates and registers all metrics, at zero.
    pub fn new() -> Self {
        let new = NewMetrics(Registry::new());
        new.register_process();
        super::watches::register(&new.0);
        super::probes::register(&new.0);
        let placement = &["pool", "placement"];
        Self {
            triggers: TriggerMetrics::new(&new),
            leader: new.register(IntGauge::new(
                "burstpool_leader",
                "Whether this process leads.",
            )),
            skew: new.register(Gauge::new(
                "burstpool_clock_skew_seconds",
                "How far the machine's clock is ahead of the API server's.",
            )),
            pods: new.gauges(
                "burstpool_pods",
                "Pods of a pool's workloads by state.",
                &["pool", "state"],
            ),
            pods_max: new.gauges(
                "burstpool_pods_max",
                "The most pods that a pool may have on ACI at once.",
                &["pool"],
            ),
            unreadable: new.gauges(
                "burstpool_pool_unreadable",
                "Whether a stored pool has a value that this version cannot read.",
                &["pool"],
            ),
            open: new.gauges(
                "burstpool_placement_open",
                "Whether a placement takes pods.",
                placement,
            ),
            groups: new.gauges(
                "burstpool_container_groups",
                "Container groups that a placement has in Azure.",
                placement,
            ),
            grants: GrantMetrics::new(&new),
            azure_requests: AzureRequestMetrics::new(&new),
            registry: new.0,
        }
    }

    /// All metrics in the text format of Prometheus.
    pub fn encode(&self) -> String {
        let families = self.registry.gather();
        let text = TextEncoder::new().encode_to_string(&families);
        text.expect("names and labels were checked when they were made")
    }

    /// Sets whether this process is the leader.
    pub fn set_leader(&self, leads: bool) {
        self.leader.set(leads.into());
    }

    /// Sets how far the machine's clock is ahead of the API server's, in seconds.
    pub fn clock_skew(&self, seconds: f64) {
        self.skew.set(seconds);
    }

    /// Sets the number of a pool's pods in each of [`POD_STATES`], and the most pods that the pool may have on ACI.
    pub fn set_pods(&self, pool: &str, counts: [i64; POD_STATES.len()], max: i64) {
        for (state, count) in POD_STATES.iter().zip(counts) {
            self.pods.with_label_values(&[pool, state]).set(count);
        }
        self.pods_max.with_label_values(&[pool]).set(max);
    }

    /// Records that a stored pool cannot be read. Returns whether that is new.
    pub fn set_unreadable(&self, pool: &str) -> bool {
        let gauge = self.unreadable.with_label_values(&[pool]);
        let is_new = gauge.get() == 0;
        gauge.set(1);
        is_new
    }

    /// Records that a stored pool can be read.
    pub fn clear_unreadable(&self, pool: &str) {
        // The series may not exist.
        let _ = self.unreadable.remove_label_values(&[pool]);
    }

    /// Sets whether a placement is open for pods, and how many container groups it has.
    pub fn set_placement(&self, pool: &str, placement: &str, open: bool, groups: i64) {
        let labels = [pool, placement];
        self.open.with_label_values(&labels).set(open.into());
        self.groups.with_label_values(&labels).set(groups);
    }

    /// Removes the series of a placement.
    pub fn forget_placement(&self, pool: &str, placement: &str) {
        // The series may not exist.
        let _ = self.open.remove_label_values(&[pool, placement]);
        let _ = self.groups.remove_label_values(&[pool, placement]);
    }

    /// Removes the series of a pool, except those of its placements and triggers.
    pub fn forget_pool(&self, pool: &str) {
        for state in POD_STATES {
            let _ = self.pods.remove_label_values(&[pool, state]);
        }
        for outcome in GRANT_OUTCOMES {
            let _ = self.grants.total.remove_label_values(&[pool, outcome]);
        }
        for loss in GRANT_LOSSES {
            let _ = self.grants.losses.remove_label_values(&[pool, loss]);
        }
        let _ = self.pods_max.remove_label_values(&[pool]);
        self.clear_unreadable(pool);
    }

    /// Counts a pod that was to be granted, by outcome: `granted`, `conflict`, `gone`, `denied`, `lost`, `unsent`
    /// or `unmarked`.
    pub fn count_grant(&self, pool: &str, outcome: &str) {
        debug_assert!(GRANT_OUTCOMES.contains(&outcome), "{outcome}");
        self.grants.total.with_label_values(&[pool, outcome]).inc();
    }

    /// Counts a granted pod that loses `loss`, a value of `spill.accept`.
    pub fn count_loss(&self, pool: &str, loss: &str) {
        debug_assert!(GRANT_LOSSES.contains(&loss), "{loss}");
        self.grants.losses.with_label_values(&[pool, loss]).inc();
    }

    /// Counts a request to Azure. `took` is recorded only if Azure answered.
    pub fn count_azure_request(&self, class: &str, call: CallOutcome, took: Duration) {
        let status;
        let outcome = match call {
            CallOutcome::Done => "done",
            CallOutcome::Refused(code) => {
                status = code.to_string();
                &status
            }
            CallOutcome::NoAnswer => "no_answer",
            CallOutcome::NoToken => "no_token",
            CallOutcome::Held => "held",
        };
        let requests = &self.azure_requests;
        requests.total.with_label_values(&[class, outcome]).inc();
        if matches!(call, CallOutcome::Done | CallOutcome::Refused(_)) {
            let seconds = requests.seconds.with_label_values(&[class]);
            seconds.observe(took.as_secs_f64());
        }
    }
}

/// Creates metrics, and registers each. Names are written in full, so that a search finds them.
pub(super) struct NewMetrics(Registry);

impl NewMetrics {
    pub(super) fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
        self.register(IntGaugeVec::new(Opts::new(name, help), labels))
    }

    pub(super) fn float_gauges(&self, name: &str, help: &str, labels: &[&str]) -> GaugeVec {
        self.register(GaugeVec::new(Opts::new(name, help), labels))
    }

    pub(super) fn counters(&self, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
        self.register(IntCounterVec::new(Opts::new(name, help), labels))
    }

    pub(super) fn histograms(
        &self,
        name: &str,
        help: &str,
        buckets: &[f64],
        labels: &[&str],
    ) -> HistogramVec {
        let opts = HistogramOpts::from(Opts::new(name, help)).buckets(buckets.to_vec());
        self.register(HistogramVec::new(opts, labels))
    }

    /// Registers the version and the metrics of the process.
    fn register_process(&self) {
        let build = Opts::new("burstpool_build_info", "The version that runs.")
            .const_label("version", env!("CARGO_PKG_VERSION"));
        self.register(IntGauge::with_opts(build)).set(1);
        let process = self.0.register(Box::new(ProcessCollector::for_self()));
        process.expect("metric names are unique");
    }

    fn register<C: Collector + Clone + 'static>(&self, metric: prometheus::Result<C>) -> C {
        let metric = metric.expect("a well-formed metric");
        let registered = self.0.register(Box::new(metric.clone()));
        registered.expect("metric names are unique");
        metric
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_series_of_a_pool_are_shown_and_then_removed() {
        let metrics = Metrics::new();
        metrics.set_pods("shop", [1, 2, 3, 4, 5, 6], 100);
        metrics.set_placement("shop", "weu", true, 3);
        metrics.count_grant("shop", "granted");
        for loss in GRANT_LOSSES {
            metrics.count_loss("shop", loss);
        }
        assert!(metrics.set_unreadable("shop") && !metrics.set_unreadable("shop"));
        metrics.count_azure_request(
            "creates",
            CallOutcome::Refused(429),
            Duration::from_millis(30),
        );
        metrics.count_azure_request("creates", CallOutcome::Held, Duration::ZERO);
        let text = metrics.encode();
        for line in [
            "burstpool_pods{pool=\"shop\",state=\"spilled\"} 3",
            "burstpool_pods_max{pool=\"shop\"} 100",
            "burstpool_pool_unreadable{pool=\"shop\"} 1",
            "burstpool_placement_open{placement=\"weu\",pool=\"shop\"} 1",
            "burstpool_container_groups{placement=\"weu\",pool=\"shop\"} 3",
            "burstpool_grants_total{outcome=\"granted\",pool=\"shop\"} 1",
            "burstpool_grants_not_kept_total{loss=\"fsGroup\",pool=\"shop\"} 1",
            "burstpool_azure_requests_total{class=\"creates\",outcome=\"429\"} 1",
            "burstpool_azure_request_duration_seconds_count{class=\"creates\"} 1",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
        metrics.forget_placement("shop", "weu");
        metrics.forget_pool("shop");
        assert!(!metrics.encode().contains("shop"), "{}", metrics.encode());
    }
}
