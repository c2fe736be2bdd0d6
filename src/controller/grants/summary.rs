//! The summary of a pool's last plan, for its status.
//!
//! In: plans. Out: a [`PlanSummary`] per pool; the writer of statuses is notified of changes.

use std::collections::BTreeMap;

use crate::api::{PodCounts, WorkloadStatus};
use crate::burst::BurstPlan;
use crate::burst::plan::PeakState;

/// What a pool's status reports of its last plan.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PlanSummary {
    /// The number of pods in each state.
    pub counts: PodCounts,
    /// The pods of each workload.
    pub workloads: Vec<WorkloadStatus>,
    /// Whether there is a peak.
    pub peak: PeakState,
    /// Whether the pool is in dry-run mode, in which the operator writes nothing to pods.
    pub is_dry_run: bool,
    /// The limit that keeps pods from being granted, as text; `None` if no limit does.
    pub limit_message: Option<String>,
    /// In dry-run mode, the number of pods that would be granted now; otherwise 0.
    pub would_be_granted: usize,
}

impl PlanSummary {
    /// The summary of this plan.
    pub(super) fn from_plan(plan: &BurstPlan) -> Self {
        Self {
            counts: plan.counts,
            workloads: plan.workloads.clone(),
            peak: plan.peak,
            is_dry_run: plan.is_dry_run,
            limit_message: plan.limit_message.clone(),
            would_be_granted: if plan.is_dry_run {
                plan.grants().count()
            } else {
                0
            },
        }
    }
}

/// By pool name, the summary of its last plan.
pub type PlanSummaries = BTreeMap<String, PlanSummary>;
