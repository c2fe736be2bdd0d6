//! Builds and writes a pool's status: its conditions, placements, workloads and triggers.
//!
//! In: the result of the reconciliation, the nodes, what is left of a drain, the last plan's summary and the
//! triggers. Out: a server-side apply of the status, if it has changed. Writes that the API server rejects are
//! repeated at growing intervals.

pub(super) mod writer;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::grants::PlanSummary;
use super::placements::registry::PlacementReport;
use super::placements::validation::InvalidSpec;
use super::triggers::{self, ConditionUpdate};
use super::unreadable_pools;
use crate::api::condition::{
    self, CAPACITY_LIMITED, ConditionStatus, NODES_READY, READY, SPILLING, STALLED,
};
use crate::api::{BurstPool, BurstPoolStatus, PlacementStatus};
use crate::burst::plan::PeakState;

/// The reason of conditions for an invalid spec.
const MISCONFIGURED: &str = "Misconfigured";

/// What a pool's status is built from, beside the pool itself.
pub(super) struct StatusInputs<'a> {
    /// Whether the spec is valid.
    pub outcome: &'a Result<(), InvalidSpec>,
    /// The state of the pool's placements.
    pub nodes: &'a PlacementReport,
    /// What is left of a drain, as text.
    pub left: &'a [String],
    /// The summary of the pool's last plan; `None` before the first plan, and while the pool is deleted.
    pub summary: Option<&'a PlanSummary>,
    /// The state of the pool's triggers.
    pub trigger_status: &'a triggers::TriggerStatusView,
}

/// Builds the status of a pool. Pure, except that it reads the clock for the conditions' times.
pub(super) fn pool_status(pool: &BurstPool, inputs: &StatusInputs<'_>) -> BurstPoolStatus {
    let previous = pool.status.clone().unwrap_or_default();
    let mut conditions = ConditionWriter {
        conditions: previous.conditions,
        generation: pool.metadata.generation,
        now: Timestamp::now(),
    };
    conditions.set(READY, ready_condition(inputs));
    conditions.set(NODES_READY, nodes_ready_condition(inputs.nodes));
    // Without a summary of a plan, the conditions about pods stay as they were.
    if let Some(summary) = inputs.summary {
        conditions.set(SPILLING, spilling_condition(summary));
        conditions.set(CAPACITY_LIMITED, capacity_condition(summary));
    }
    for (kind, update) in triggers::conditions(pool, inputs.trigger_status) {
        conditions.apply(kind, update);
    }
    if let Err(InvalidSpec(mistake)) = inputs.outcome {
        conditions.set(STALLED, (true, MISCONFIGURED, mistake.clone()));
    }
    let summary = inputs.summary;
    let mut workloads = summary.map_or(previous.workloads, |summary| summary.workloads.clone());
    inputs.trigger_status.add_scale_status(&mut workloads, pool);
    BurstPoolStatus {
        observed_generation: pool.metadata.generation,
        conditions: conditions.conditions,
        placements: inputs.nodes.placements.clone(),
        pods: summary.map_or(previous.pods, |summary| Some(summary.counts)),
        workloads,
        triggers: inputs.trigger_status.triggers(),
        // The leader writes these two, and uses the pool's resource version as a fence.
        reservations: Vec::new(),
        leader: None,
    }
}

/// Whether a condition is true, its reason and its message.
type PoolConditionValue = (bool, &'static str, String);

/// The conditions of a pool's status, while they are changed.
struct ConditionWriter {
    conditions: Vec<Condition>,
    generation: Option<i64>,
    now: Timestamp,
}

impl ConditionWriter {
    fn set(
        &mut self,
        kind: &str,
        (status, reason, message): (impl Into<ConditionStatus>, &str, String),
    ) {
        let new = condition::build(kind, status, reason, message, self.generation, self.now);
        condition::set(&mut self.conditions, new);
    }

    /// Applies what the triggers say about a condition.
    fn apply(&mut self, kind: &str, update: ConditionUpdate) {
        match update {
            ConditionUpdate::Set(status, reason, message) => {
                self.set(kind, (status, reason, message));
            }
            ConditionUpdate::Remove => self.conditions.retain(|other| other.type_ != kind),
            // An error of the whole spec is set again later, if it still exists.
            ConditionUpdate::Keep => {
                let spec_reasons = [MISCONFIGURED, unreadable_pools::REASON];
                self.conditions.retain(|other| {
                    other.type_ != kind || !spec_reasons.contains(&other.reason.as_str())
                });
            }
        }
    }
}

/// The condition that reports whether the spec is valid and its nodes are registered.
fn ready_condition(inputs: &StatusInputs<'_>) -> PoolConditionValue {
    let StatusInputs { nodes, left, .. } = inputs;
    match inputs.outcome {
        Err(InvalidSpec(mistake)) => (false, MISCONFIGURED, mistake.clone()),
        Ok(()) if !left.is_empty() => {
            let message = format!("waiting for {}", left.join(", "));
            (false, "Draining", message)
        }
        Ok(()) if !nodes.unregistered_nodes.is_empty() => {
            let missing = nodes.unregistered_nodes.join(", ");
            let message = format!("waiting for the API server to have the nodes {missing}");
            (false, "NotRegistered", message)
        }
        Ok(()) => (true, "Registered", registered_message(&nodes.placements)),
    }
}

/// The condition that reports whether every placement takes pods. A closed placement does not make the pool
/// unready: Azure may be down, and the user cannot correct that.
fn nodes_ready_condition(nodes: &PlacementReport) -> PoolConditionValue {
    let closed = nodes.placements.iter().filter(|placement| !placement.ready);
    let closed: Vec<String> = closed
        .map(|placement| format!("{}: {}", placement.name, placement.message))
        .collect();
    if closed.is_empty() {
        (true, "Open", "every placement takes pods".to_owned())
    } else if nodes.is_only_cordoned {
        (false, "Cordoned", closed.join("; "))
    } else {
        (false, "Closed", closed.join("; "))
    }
}

/// The condition that reports whether a limit keeps pods from being granted.
fn capacity_condition(summary: &PlanSummary) -> PoolConditionValue {
    match &summary.limit_message {
        Some(why) if summary.is_dry_run => {
            let message = format!("mode is DryRun, nothing is written to pods: {why}");
            (true, "LimitReached", message)
        }
        Some(why) => (true, "LimitReached", why.clone()),
        None => (false, "WithinLimits", "no pod waits for a limit".to_owned()),
    }
}

/// The condition that reports whether pods are on ACI. It is separate from readiness: a pool that bursts is
/// ready.
fn spilling_condition(summary: &PlanSummary) -> PoolConditionValue {
    let counts = summary.counts;
    let message = format!(
        "{} on ACI, {} granted, {} holding, {} cannot spill",
        counts.spilled, counts.granted, counts.holding, counts.refused
    );
    let is_peak = summary.peak != PeakState::None;
    if summary.is_dry_run {
        let would_be_granted = summary.would_be_granted;
        let message = format!(
            "mode is DryRun, nothing is written to pods: {would_be_granted} would be granted; {message}"
        );
        return (is_peak, "DryRun", message);
    }
    let reason = match summary.peak {
        PeakState::Active => "Peak",
        PeakState::Cooldown => "Fading",
        PeakState::None => "Quiet",
    };
    (is_peak, reason, message)
}

/// One line about registered nodes, for a column of `kubectl get -o wide`.
fn registered_message(placements: &[PlacementStatus]) -> String {
    let closed: Vec<&str> = placements
        .iter()
        .filter(|placement| !placement.ready)
        .map(|placement| placement.name.as_str())
        .collect();
    if closed.is_empty() {
        return "every node is registered and takes pods".to_owned();
    }
    let (closed, total) = (closed.join(", "), placements.len());
    format!("every node is registered; of {total}, these take no pods: {closed} (see NodesReady)")
}

#[cfg(test)]
mod tests;
