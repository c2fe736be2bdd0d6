//! Divides what the pool's limits leave among its workloads, pod by pod, by fair shares.
//!
//! In: the pods that want a slot, and what is left. Out: the pods that get one, each with a placement, and those that no
//! placement takes.

use std::collections::{BinaryHeap, VecDeque};

use super::admission::SlotAdmission;
use super::grant_limits::GrantLimits;
use super::triage::TriagedPod;
use crate::burst::observation::ObservedPool;
use crate::burst::outcome::PodOutcome;
use crate::burst::rules::fairness::SlotClaim;
use crate::burst::rules::limits::Limit as _;

/// The result of distributing the free slots one by one.
#[derive(Default)]
pub(in crate::burst) struct SlotAllocation {
    /// Index of each pod that gets a slot, with the placement's name.
    pub(in crate::burst) allocated: Vec<(usize, String)>,
    /// Index of each pod that no placement takes, with the outcome that says why.
    pub(in crate::burst) blocked: Vec<(usize, PodOutcome)>,
}

/// Distributes what the limits leave among the pods in `candidates`, one by one, until a limit blocks the oldest pod of
/// each workload or no pod is left. Works on a copy of the limits, so the caller counts what it grants. Takes the room
/// in the placements.
pub(in crate::burst) fn allocate<'a>(
    triaged_pods: &[TriagedPod<'a>],
    candidates: Vec<usize>,
    observed: &ObservedPool<'_>,
    admission: &mut SlotAdmission<'a>,
) -> SlotAllocation {
    let mut queues = PodQueues::new(triaged_pods, candidates, observed);
    let mut limits = admission.limits.clone();
    let workloads = 0..observed.workloads.len();
    let mut claims: BinaryHeap<SlotClaim> = workloads
        .filter_map(|workload| queues.claim(workload, &limits, admission))
        .collect();
    let mut allocation = SlotAllocation::default();
    while let Some(SlotClaim { workload, .. }) = claims.pop() {
        let Some(index) = queues.by_workload[workload].front().copied() else {
            continue;
        };
        let triaged = &triaged_pods[index];
        // The other workloads may have used up what was left when this one made its claim.
        if limits.check_amounts(&triaged.candidate()).is_some() {
            continue;
        }
        queues.by_workload[workload].pop_front();
        match admission.allocate_capacity(triaged) {
            PodOutcome::Grant { placement, .. } => {
                limits.take(&triaged.candidate());
                allocation.allocated.push((index, placement));
            }
            lack => allocation.blocked.push((index, lack)),
        }
        // Only this workload's claim has changed, so only this one is put back.
        claims.extend(queues.claim(workload, &limits, admission));
    }
    allocation
}

/// The pods that want a slot, by workload.
struct PodQueues<'t, 'a> {
    triaged_pods: &'t [TriagedPod<'a>],
    /// The indexes of the pods of each workload, oldest pod first.
    by_workload: Vec<VecDeque<usize>>,
    /// The weight of each workload.
    weights: Vec<u32>,
    /// The sum of the weights, at least 1.
    total_weight: u64,
}

impl<'t, 'a> PodQueues<'t, 'a> {
    fn new(
        triaged_pods: &'t [TriagedPod<'a>],
        mut candidates: Vec<usize>,
        observed: &ObservedPool<'_>,
    ) -> Self {
        candidates.sort_by_key(|at| (triaged_pods[*at].pod.created, &triaged_pods[*at].pod.id));
        let mut by_workload = vec![VecDeque::new(); observed.workloads.len()];
        for at in candidates {
            by_workload[triaged_pods[at].workload].push_back(at);
        }
        let weights = observed.workloads.iter().map(|one| one.spec.weight);
        let weights: Vec<u32> = weights.collect();
        let total_weight = weights.iter().copied().map(u64::from).sum();
        Self {
            triaged_pods,
            by_workload,
            weights,
            total_weight: 1.max(total_weight),
        }
    }

    /// The workload's claim to the next slot, if it has a pod in its queue and no limit blocks the oldest one.
    fn claim(
        &self,
        workload: usize,
        limits: &GrantLimits,
        admission: &SlotAdmission<'_>,
    ) -> Option<SlotClaim> {
        let oldest = &self.triaged_pods[*self.by_workload[workload].front()?];
        if limits.check_amounts(&oldest.candidate()).is_some() {
            return None;
        }
        let (slots, weight) = (&limits.slots, self.weights[workload]);
        let held = slots.workloads.get(workload)?.held;
        let share = slots.pool_max.saturating_mul(weight.into()) / self.total_weight;
        Some(SlotClaim {
            workload,
            held,
            weight,
            waiting_since: oldest.pod.created,
            is_starved: held < share && admission.is_starved(oldest),
        })
    }
}
