//! Updates the metrics of pools from their statuses.

use kube::ResourceExt as _;

use super::placements::PlacementId;
use crate::api::{BurstPool, BurstPoolStatus};
use crate::telemetry::Metrics;

/// Updates the metrics of a pool, and drops those of placements that its last status has and the new one does
/// not.
pub(super) fn record_pool(pool: &BurstPool, status: &BurstPoolStatus, metrics: &Metrics) {
    let name = pool.name_any();
    let before = pool.status.iter().flat_map(|status| &status.placements);
    let is_left = |name: &str| {
        status
            .placements
            .iter()
            .any(|placement| placement.name == name)
    };
    for removed in before.filter(|placement| !is_left(&placement.name)) {
        metrics.forget_placement(&name, &removed.name);
    }
    for placement in &status.placements {
        metrics.set_placement(&name, &placement.name, placement.ready, placement.groups);
    }
    let Some(counts) = status.pods else { return };
    let workloads = status.workloads.iter();
    let desired: i64 = workloads.filter_map(|workload| workload.desired).sum();
    let desired = u64::try_from(desired).unwrap_or_default();
    let max = pool.spec.spill.max_replicas.resolve(desired);
    // In the order of `STATES`, the values of the metric's label.
    let counts = [
        counts.holding,
        counts.granted,
        counts.spilled,
        counts.running,
        counts.refused,
        counts.user_placed,
    ];
    metrics.set_pods(&name, counts, i64::try_from(max).unwrap_or(i64::MAX));
}

/// Drops the metrics of a deleted pool.
pub(super) fn forget_pool(pool: &BurstPool, metrics: &Metrics) {
    let name = pool.name_any();
    let reported = pool.status.iter().flat_map(|status| &status.placements);
    let reported = reported.map(|placement| &placement.name);
    let listed = pool.spec.placements.iter().map(|placement| &placement.name);
    for placement in reported.chain(listed) {
        metrics.forget_placement(&name, placement);
    }
    metrics.forget_pool(&name);
}

/// Drops the metrics of a removed pool that had these placements.
pub(super) fn forget_removed_pool(pool: &str, placements: &[PlacementId], metrics: &Metrics) {
    for id in placements {
        metrics.forget_placement(pool, &id.placement);
    }
    metrics.forget_pool(pool);
}
