//! Computes the pool's counts and the status of each workload.
//!
//! In: the observed pods and the decisions. Out: `status.pods`, the workloads' counts and messages, and the
//! message about limits. Each pod counts once.

use std::collections::BTreeSet;

use crate::api::{PodCounts, WorkloadStatus};
use crate::burst::decision::PodDecision;
use crate::burst::facts::pod::PodFacts;
use crate::burst::observation::{ObservedPool, ObservedWorkload};
use crate::burst::outcome::{BlockedBy, IgnoreReason, PodOutcome};
use crate::burst::reasons::{MAX_REASONS, ReasonCounts};
use crate::burst::rules::slots::SlotLimits;

/// Counts and messages of a pool.
pub(in crate::burst) struct PoolCounts {
    pub(in crate::burst) counts: PodCounts,
    pub(in crate::burst) workloads: Vec<WorkloadStatus>,
    /// If a limit holds back pods: the message that names the workloads and limits.
    pub(in crate::burst) limit_message: Option<String>,
}

/// Counts for one workload, from which its status is made.
#[derive(Default)]
struct WorkloadCount {
    status: WorkloadStatus,
    /// How many of the pods in the scale's `status.replicas` are not on the cluster's own nodes: pending,
    /// granted, or on ACI. Pods that are being deleted do not count, because a `ReplicaSet` does not count
    /// them.
    not_at_home: i64,
    /// Pods that wait for a slot.
    waiting_for_slot: i64,
    /// Pending pods that the operator has evaluated, including those with an expired grant.
    waiting: usize,
    /// Why pods cannot run on ACI.
    refusals: ReasonCounts,
    /// What pods wait for.
    blockers: ReasonCounts,
    /// Pods with the label and toleration of a grant that was not given to them.
    foreign_grants: usize,
}

/// Counts all pods once.
pub(in crate::burst) fn count_pods(
    observed: &ObservedPool<'_>,
    decisions: &[PodDecision],
    limits: &SlotLimits,
    is_dry_run: bool,
) -> PoolCounts {
    let mut counts = PodCounts::default();
    let mut by_workload: Vec<WorkloadCount> = observed
        .workloads
        .iter()
        .map(|_| WorkloadCount::default())
        .collect();
    for (candidate, decision) in observed.pending_pods.iter().zip(decisions) {
        let count = &mut by_workload[candidate.workload];
        count.add_pending(decision, &mut counts, is_dry_run);
    }
    for granted in observed.granted.iter().filter(|granted| !granted.is_home) {
        let bound = granted.pod.bound();
        counts.running += i64::from(bound.is_some_and(|bound| bound.is_running));
        counts.spilled += i64::from(granted.is_spilled);
        counts.granted += i64::from(!granted.is_spilled);
        if let Some(count) = granted.workload.and_then(|at| by_workload.get_mut(at)) {
            count.not_at_home += i64::from(!granted.pod.is_deleting);
            count.status.spilled += i64::from(granted.is_spilled);
            count.status.granted += i64::from(!granted.is_spilled);
        }
    }
    for (pod, workload) in &observed.expired {
        counts.refused += 1;
        if let Some(count) = workload.and_then(|at| by_workload.get_mut(at)) {
            count.expired(pod);
        }
    }
    for (pod, workload) in &observed.user_placed {
        counts.user_placed += 1;
        if let Some(count) = workload.and_then(|at| by_workload.get_mut(at)) {
            count.not_at_home += i64::from(!pod.is_deleting);
        }
    }
    let counted = by_workload.into_iter().zip(&observed.workloads).enumerate();
    PoolCounts {
        counts,
        workloads: counted
            .map(|(at, (count, workload))| count.into_status(workload, limits, at))
            .collect(),
        limit_message: limit_message(decisions),
    }
}

/// The limits that block pods, each with the workload. Contains no numbers of pods: they are in the workloads'
/// status, and the message would change with each granted pod.
fn limit_message(decisions: &[PodDecision]) -> Option<String> {
    let waiting = decisions.iter().filter_map(|decision| {
        Some((
            decision.workload.as_str(),
            decision.limit_reached()?.to_string(),
        ))
    });
    let all: BTreeSet<(&str, String)> = waiting.collect();
    let reasons = all.iter().take(MAX_REASONS);
    let reasons = reasons.map(|(workload, lack)| format!("pods of {workload} wait: {lack}"));
    let mut reasons: Vec<String> = reasons.collect();
    if all.len() > MAX_REASONS {
        reasons.push("others wait for more reasons".to_owned());
    }
    (!reasons.is_empty()).then(|| reasons.join("; "))
}

impl WorkloadCount {
    fn add_pending(&mut self, decision: &PodDecision, counts: &mut PodCounts, is_dry_run: bool) {
        let is_deleting = decision.outcome == PodOutcome::Ignore(IgnoreReason::Deleting);
        self.not_at_home += i64::from(!is_deleting);
        self.waiting += 1;
        let holding = |count: &mut Self, counts: &mut PodCounts| {
            counts.holding += 1;
            count.status.holding += 1;
        };
        match &decision.outcome {
            PodOutcome::Grant { .. } if is_dry_run => holding(self, counts),
            PodOutcome::Grant { .. } | PodOutcome::InFlight => {
                counts.granted += 1;
                self.status.granted += 1;
            }
            PodOutcome::Refuse(refusals) => {
                counts.refused += 1;
                self.status.refused += 1;
                self.refusals.add(refusals.iter().map(ToString::to_string));
            }
            PodOutcome::Blocked(lack) => {
                holding(self, counts);
                let is_slot = matches!(lack, BlockedBy::PoolLimit(_) | BlockedBy::WorkloadLimit(_));
                self.waiting_for_slot += i64::from(is_slot);
                if !matches!(lack, BlockedBy::NotLeading) {
                    self.blockers.add([lack.to_string()]);
                }
            }
            PodOutcome::Hold { .. } | PodOutcome::Ignore(IgnoreReason::NotEvaluated) => {
                holding(self, counts);
            }
            PodOutcome::Ignore(IgnoreReason::ForeignGrant) => self.foreign_grants += 1,
            PodOutcome::Ignore(_) => {}
        }
    }

    /// Counts a pending pod with an expired grant. The plan has no decision about it.
    fn expired(&mut self, pod: &PodFacts) {
        self.not_at_home += i64::from(!pod.is_deleting);
        self.waiting += 1;
        self.status.refused += 1;
        // Without the scheduler's message, whose numbers change: each change would write the pool's status.
        let why = "the scheduler places it on no virtual node; its condition PodScheduled says why";
        self.refusals.add([why.to_owned()]);
    }

    fn into_status(
        self,
        observed: &ObservedWorkload<'_>,
        limits: &SlotLimits,
        at: usize,
    ) -> WorkloadStatus {
        let limit = limits.max_of(at);
        let scale = observed.scale;
        let signed = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        let home = scale.map(|scale| {
            let away = self.not_at_home + signed(observed.running_elsewhere);
            (signed(scale.status_replicas) - away).max(0)
        });
        WorkloadStatus {
            name: observed.spec.name.clone(),
            desired: scale.map(|scale| signed(scale.spec_replicas)),
            home,
            limit: signed(limit),
            message: self.message(observed, limit),
            ..self.status
        }
    }

    /// The message of the workload's status: what its pods wait for, why they are refused, and which pods of its
    /// selection count elsewhere.
    fn message(&self, observed: &ObservedWorkload<'_>, limit: u64) -> String {
        let mut parts: Vec<String> = Vec::new();
        parts.extend(observed.selection_error.clone());
        parts.extend(self.waiting_message(observed, limit));
        parts.extend(self.refused_message());
        if self.foreign_grants > 0 {
            parts.push(format!(
                "{} ignored: {}",
                format_pods(self.foreign_grants),
                IgnoreReason::ForeignGrant
            ));
        }
        parts.extend(ownership_messages(observed));
        parts.join("; ")
    }

    fn waiting_message(&self, observed: &ObservedWorkload<'_>, limit: u64) -> Option<String> {
        let surges = observed
            .scale
            .is_some_and(|scale| scale.status_replicas > scale.spec_replicas);
        if surges && self.waiting_for_slot > 0 {
            return Some(format!(
                "a rollout waits for slots: it needs {} above the limit of {limit}; raise maxReplicas, \
                 or let the rollout surge less",
                self.waiting_for_slot
            ));
        }
        (self.blockers.pods() > 0).then(|| self.blockers.summary())
    }

    fn refused_message(&self) -> Option<String> {
        let refused = self.refusals.pods();
        if refused == 0 {
            return None;
        }
        let subject = if refused == self.waiting {
            format_pods(refused)
        } else {
            format!("{refused} of {} pods that wait", self.waiting)
        };
        let why = self.refusals.summary();
        Some(format!("{subject} cannot run on ACI: {why}"))
    }
}

/// Which other workloads own pods of the workload's selection.
fn ownership_messages(observed: &ObservedWorkload<'_>) -> Vec<String> {
    let shadowed = observed.shadowed_by.iter();
    let shadowed = shadowed.map(|owner| format!("all pods of its selection belong to {owner}"));
    let mut others: Vec<_> = observed
        .owned_by_others
        .iter()
        .filter(|(by, _)| observed.shadowed_by.as_ref() != Some(by))
        .collect();
    others.sort_unstable();
    let others = others.into_iter().map(|(by, count)| {
        let verb = if *count == 1 { "belongs" } else { "belong" };
        let pods = format_pods(*count);
        format!("{pods} of its selection {verb} to {by}")
    });
    shadowed.chain(others).collect()
}

fn format_pods(count: usize) -> String {
    if count == 1 {
        "1 pod".to_owned()
    } else {
        format!("{count} pods")
    }
}
