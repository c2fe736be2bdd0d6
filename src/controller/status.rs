//! Builds and writes a pool's status: its conditions, placements, workloads and triggers.
//!
//! In: the result of the reconciliation, the nodes, what is left of a drain, the last plan's summary and the
//! triggers. Out: a server-side apply of the status, if it has changed. Writes that the API server refuses are
//! repeated at growing intervals.

use std::collections::HashMap;
use std::time::Duration;

use jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt as _};
use parking_lot::Mutex;
use serde_json::json;
use tokio::time::Instant;

use super::grants::PlanSummary;
use super::placements::registry::PlacementReport;
use super::placements::validation::InvalidSpec;
use super::triggers::{self, ConditionUpdate};
use super::{ControllerContext, Error, unreadable_pools};
use crate::api::condition::{self, CAPACITY_LIMITED, NODES_READY, READY, SPILLING, STALLED};
use crate::api::{BurstPool, BurstPoolStatus, Placement, PlacementStatus};
use crate::burst::plan::PeakState;
use crate::k8s::call;
use crate::k8s::refused::WriteBackoff;

/// The field manager of pools' statuses.
pub(super) const FIELD_MANAGER: &str = "burstpool-status";

/// The reason of conditions for an invalid spec.
const MISCONFIGURED: &str = "Misconfigured";

/// Builds the status of a pool. Pure, except that it reads the clock for the conditions' times.
pub(super) fn pool_status(
    pool: &BurstPool,
    outcome: &Result<(), InvalidSpec>,
    nodes: &PlacementReport,
    left: &[String],
    summary: Option<&PlanSummary>,
    trigger_status: &triggers::TriggerStatusView,
) -> BurstPoolStatus {
    let (now, generation) = (Timestamp::now(), pool.metadata.generation);
    let placements = &nodes.placements;
    let mut conditions = pool.status.clone().unwrap_or_default().conditions;
    let mut set = |kind: &str, status: bool, reason: &str, message: String| {
        condition::set(
            &mut conditions,
            condition::build(kind, status, reason, message, generation, now),
        );
    };
    match outcome {
        Err(InvalidSpec(mistake)) => set(READY, false, MISCONFIGURED, mistake.clone()),
        Ok(()) if !left.is_empty() => {
            set(
                READY,
                false,
                "Draining",
                format!("waiting for {}", left.join(", ")),
            );
        }
        Ok(()) if !nodes.unregistered_nodes.is_empty() => {
            let missing = nodes.unregistered_nodes.join(", ");
            let message = format!("waiting for the API server to have the nodes {missing}");
            set(READY, false, "NotRegistered", message);
        }
        Ok(()) => set(READY, true, "Registered", registered_message(placements)),
    }
    // A closed placement does not make the pool unready: Azure may be down, and the user cannot correct that.
    let closed: Vec<String> = placements
        .iter()
        .filter(|placement| !placement.ready)
        .map(|placement| format!("{}: {}", placement.name, placement.message))
        .collect();
    if closed.is_empty() {
        set(
            NODES_READY,
            true,
            "Open",
            "every placement takes pods".to_owned(),
        );
    } else {
        let reason = if nodes.is_only_cordoned {
            "Cordoned"
        } else {
            "Closed"
        };
        set(NODES_READY, false, reason, closed.join("; "));
    }
    // Without a summary of a plan, the conditions about pods stay as they were.
    if let Some(summary) = summary {
        let (status, reason, message) = spilling_condition(summary);
        set(SPILLING, status, reason, message);
        match &summary.limit_message {
            Some(why) if summary.is_dry_run => {
                let message = format!("mode is DryRun, nothing is written to pods: {why}");
                set(CAPACITY_LIMITED, true, "LimitReached", message);
            }
            Some(why) => set(CAPACITY_LIMITED, true, "LimitReached", why.clone()),
            None => set(
                CAPACITY_LIMITED,
                false,
                "WithinLimits",
                "no pod waits for a limit".to_owned(),
            ),
        }
    }
    for (kind, update) in triggers::conditions(pool, trigger_status) {
        match update {
            ConditionUpdate::Set(is_true, reason, message) => condition::set(
                &mut conditions,
                condition::build(kind, is_true, reason, message, generation, now),
            ),
            ConditionUpdate::Remove => conditions.retain(|condition| condition.type_ != kind),
            // An error of the whole spec is set again below, if it still exists.
            ConditionUpdate::Keep => {
                let spec_reasons = [MISCONFIGURED, unreadable_pools::REASON];
                conditions.retain(|condition| {
                    condition.type_ != kind || !spec_reasons.contains(&condition.reason.as_str())
                });
            }
        }
    }
    if let Err(InvalidSpec(mistake)) = outcome {
        let (kind, reason) = (STALLED, MISCONFIGURED);
        let stalled = condition::build(kind, true, reason, mistake, generation, now);
        condition::set(&mut conditions, stalled);
    }
    let previous = pool.status.clone().unwrap_or_default();
    let mut workloads = summary.map_or(previous.workloads, |summary| summary.workloads.clone());
    trigger_status.add_scale_status(&mut workloads, pool);
    BurstPoolStatus {
        observed_generation: generation,
        conditions,
        placements: placements.clone(),
        pods: summary.map_or(previous.pods, |summary| Some(summary.counts)),
        workloads,
        triggers: trigger_status.triggers(),
        // The leader writes these two, and uses the pool's resource version as a fence.
        reservations: Vec::new(),
        leader: None,
    }
}

/// The condition that reports whether pods are on ACI. It is separate from readiness: a pool that bursts is
/// ready.
fn spilling_condition(summary: &PlanSummary) -> (bool, &'static str, String) {
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

/// A notice for users of an open placement about DNS and public addresses, which no error reports (decision
/// D17). It appears once for each placement, in the output of `kubectl describe`.
pub(super) fn placement_notice(placement: &Placement) -> &'static str {
    match (&placement.network.dns, &placement.subnet_id) {
        (Some(_), _) => "",
        (None, Some(_)) => {
            "dnsPolicy ClusterFirst means Azure's resolver here, which does not know the cluster's names: set network.dns to name servers that the subnet reaches"
        }
        (None, None) => {
            "without a subnetId, pods with containerPorts get public addresses where those are open to the internet; dnsPolicy ClusterFirst means Azure's resolver here, which does not know the cluster's names: only a placement with a subnetId can have network.dns"
        }
    }
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

/// The longest pause after refused writes of a status. It is short because the user who fixes the cause looks
/// at the status.
const LONGEST_REFUSAL: Duration = Duration::from_secs(60);

/// By pool, the refused writes of its status. Without a pause they would be repeated several times a second in
/// a peak, because every change reconciles the pool.
#[derive(Default)]
pub struct StatusRefusals(Mutex<HashMap<String, WriteBackoff>>);

impl StatusRefusals {
    /// Whether the pool's status may be written now.
    pub(super) fn may_write(&self, pool: &str) -> bool {
        let by_pool = self.0.lock();
        let refusals = by_pool.get(pool);
        refusals.is_none_or(|refusals| refusals.may_write(Instant::now()))
    }

    /// Records the answer to a write of the pool's status.
    pub(super) fn answered<T>(&self, pool: &str, answer: &kube::Result<T>) {
        let mut by_pool = self.0.lock();
        let new_backoff = || WriteBackoff::up_to(LONGEST_REFUSAL);
        let refusals = by_pool.entry(pool.to_owned()).or_insert_with(new_backoff);
        refusals.answered(answer, Instant::now());
    }

    /// Forgets a pool that does not exist now.
    pub(super) fn forget(&self, pool: &str) {
        self.0.lock().remove(pool);
    }
}

/// Writes the status, if it has changed and no recent write was refused.
pub(super) async fn write(
    pool: &BurstPool,
    status: &BurstPoolStatus,
    context: &ControllerContext,
) -> Result<(), Error> {
    let live = pool.status.clone().map(|live| BurstPoolStatus {
        reservations: Vec::new(),
        leader: None,
        ..live
    });
    let name = pool.name_any();
    if live.as_ref() == Some(status) || !context.refused_statuses.may_write(&name) {
        return Ok(());
    }
    let pools: Api<BurstPool> = Api::all(context.client.clone());
    let patch = json!({
        "apiVersion": "burstpool.io/v1alpha1",
        "kind": "BurstPool",
        "status": status,
    });
    let apply = PatchParams::apply(FIELD_MANAGER).force();
    let patch = Patch::Apply(&patch);
    let written = pools.patch_status(&name, &apply, &patch).await;
    context.refused_statuses.answered(&name, &written);
    match written {
        // The grant loop needs the pool's current version for its own writes, and gets it here before the watch
        // delivers it.
        Ok(pool) => {
            context.cache.update_pool(pool);
            Ok(())
        }
        Err(kube::Error::Api(status)) if call::is_object_not_found(&status) => Ok(()),
        Err(source) => Err(Error::Kubernetes {
            what: "writing a pool's status",
            source,
        }),
    }
}

#[cfg(test)]
mod tests;
