//! Distributes free slots, the grant rate and free capacity among the pods that are ready.
//!
//! In: the triaged pods ([`TriagedPod`]) without an outcome, the limits, the grant rate and the free capacity of the
//! placements. Out: an outcome for each pod. Pods with a reservation come first, because they hold their slots
//! already.

use std::collections::{BinaryHeap, VecDeque};
use std::time::Duration;

use jiff::Timestamp;

use super::triage::TriagedPod;
use crate::burst::observation::{Leadership, ObservedPool};
use crate::burst::outcome::{BlockedBy, PodOutcome};
use crate::burst::rules::capacity::FreeCapacity;
use crate::burst::rules::fairness::SlotClaim;
use crate::burst::rules::limits::{SlotLimits, WorkloadSlots};
use crate::burst::rules::rate::RateAllowance;
use crate::k8s::time::later;

/// After its hold, a pod that could be granted may be overtaken for 5 minutes: if it is too large for the free
/// capacity, smaller pods go first; if the rate is used up, pods of workloads that hold fewer slots go first.
const STARVATION_TIMEOUT: Duration = Duration::from_secs(300);
/// Length in seconds of a cycle of room keeping (15 minutes). In the first [`STARVATION_TIMEOUT`] of each cycle no room
/// is kept, and all pods may take it. Otherwise a pod for which enough room never becomes free would block all
/// other pods.
const WINDOW_SECONDS: i64 = 900;

/// What is distributed.
pub(in crate::burst) struct SlotAdmission<'s, 'a> {
    pub(in crate::burst) limits: &'s mut SlotLimits,
    pub(in crate::burst) rate: RateAllowance,
    pub(in crate::burst) capacity: &'s mut FreeCapacity<'a>,
    pub(in crate::burst) now: Timestamp,
}

/// Gives every case without an outcome its outcome.
pub(in crate::burst) fn admit<'a>(
    triaged_pods: &mut [TriagedPod<'a>],
    observed: &ObservedPool<'_>,
    admission: &mut SlotAdmission<'_, 'a>,
) {
    if observed.leadership != Leadership::Leading {
        for triaged in triaged_pods
            .iter_mut()
            .filter(|triaged| triaged.outcome.is_none())
        {
            triaged.outcome = Some(PodOutcome::Blocked(BlockedBy::NotLeading));
        }
        return;
    }
    admit_reserved(triaged_pods, admission);
    admit_ready(triaged_pods, observed, admission);
    for triaged in triaged_pods
        .iter_mut()
        .filter(|triaged| triaged.outcome.is_none())
    {
        triaged.outcome = Some(PodOutcome::Blocked(admission.blocked_by(triaged)));
    }
}

/// Grants reserved pods, oldest first, within the limits that apply now. The limits may have been lowered since
/// the reservation. Pods above a limit wait, and the operator changes them, so that a grant still in flight
/// from another leader fails.
fn admit_reserved<'a>(triaged_pods: &mut [TriagedPod<'a>], admission: &mut SlotAdmission<'_, 'a>) {
    let mut reserved: Vec<&mut TriagedPod<'a>> = triaged_pods
        .iter_mut()
        .filter(|triaged| triaged.is_reserved)
        .collect();
    reserved.sort_by_key(|triaged| (triaged.pod.created, &triaged.pod.id));
    let mut over = SlotExcess::from_limits(admission.limits);
    // The youngest pods give their slots back first.
    for triaged in reserved.iter_mut().rev() {
        if triaged.outcome.is_none() && over.release_one(triaged.workload) {
            triaged.outcome = Some(PodOutcome::Blocked(admission.blocked_by(triaged)));
        }
    }
    for triaged in reserved {
        if triaged.outcome.is_none() {
            triaged.outcome = Some(admission.allocate_capacity(triaged));
        } else {
            // The pod may be granted already: keep its room from other pods.
            drop(
                admission
                    .capacity
                    .take(triaged.pod, triaged.placements, admission.now),
            );
        }
    }
}

/// By how many the held slots exceed the limits, for the pool and for each workload.
struct SlotExcess {
    pool: u64,
    workloads: Vec<u64>,
}

impl SlotExcess {
    fn from_limits(limits: &SlotLimits) -> Self {
        let over = |limit: &WorkloadSlots| match &limit.max_slots {
            Some(Ok(own)) => limit.held.saturating_sub(*own),
            Some(Err(_)) | None => 0,
        };
        let most = if limits.is_provisional {
            u64::MAX
        } else {
            limits.pool_max
        };
        Self {
            pool: limits.held.saturating_sub(most),
            workloads: limits.workloads.iter().map(over).collect(),
        }
    }

    fn release_one(&mut self, workload: usize) -> bool {
        let own = self.workloads.get_mut(workload);
        let is_over = self.pool > 0 || own.as_ref().is_some_and(|own| **own > 0);
        if is_over {
            self.pool = self.pool.saturating_sub(1);
            if let Some(own) = own {
                *own = own.saturating_sub(1);
            }
        }
        is_over
    }
}

/// Grants pods that are entitled to a slot, up to the rate. Pods that waited longer than [`STARVATION_TIMEOUT`] after
/// their hold come first, by age; then the others in the order of fair shares. By fair shares alone, a workload
/// with short-lived pods would always hold the fewest slots. It would then use the whole rate forever, while
/// slots of other workloads stay free.
///
/// Also if the rate is used up, so that a pod that no placement takes is reported as such.
fn admit_ready<'a>(
    triaged_pods: &mut [TriagedPod<'a>],
    observed: &ObservedPool<'_>,
    admission: &mut SlotAdmission<'_, 'a>,
) {
    let ready = (0..triaged_pods.len()).filter(|at| triaged_pods[*at].outcome.is_none());
    let allocation = allocate_slots(triaged_pods, ready.collect(), observed, admission);
    for (index, lack) in allocation.blocked {
        triaged_pods[index].outcome = Some(lack);
    }
    let mut entitled = allocation.allocated;
    if entitled.len() > admission.rate.available {
        let passed_by =
            |triaged: &TriagedPod<'_>| admission.is_starved(triaged).then_some(triaged.pod.created);
        // A stable sort: pods that have not waited long keep the order of fair shares.
        entitled.sort_by_key(|(index, _)| {
            let since = passed_by(&triaged_pods[*index]);
            (since.is_none(), since)
        });
        entitled.truncate(admission.rate.available);
    }
    for (index, placement) in entitled {
        admission
            .limits
            .take_slot(Some(triaged_pods[index].workload));
        admission.rate.available -= 1;
        triaged_pods[index].outcome = Some(PodOutcome::Grant { placement });
    }
}

/// The result of distributing the free slots one by one.
#[derive(Default)]
pub(in crate::burst) struct SlotAllocation {
    /// Index of each case that gets a slot, with the placement's name.
    pub(in crate::burst) allocated: Vec<(usize, String)>,
    /// Index of each case that no placement takes, with the outcome that says why.
    pub(in crate::burst) blocked: Vec<(usize, PodOutcome)>,
}

/// Distributes the free slots among the cases in `wanting`, one by one, until no slot is free or no case is
/// left. Works on a copy of the limits, so the caller counts the slots. Takes the room in the placements.
pub(in crate::burst) fn allocate_slots<'a>(
    triaged_pods: &[TriagedPod<'a>],
    candidates: Vec<usize>,
    observed: &ObservedPool<'_>,
    admission: &mut SlotAdmission<'_, 'a>,
) -> SlotAllocation {
    let mut queues = queue_by_workload(triaged_pods, candidates, observed.workloads.len());
    let mut limits = admission.limits.clone();
    let weights = observed
        .workloads
        .iter()
        .map(|one| u64::from(one.spec.weight));
    let weights = weights.sum::<u64>().max(1);
    let claim = |workload: usize,
                 next: Option<&usize>,
                 limits: &SlotLimits,
                 admission: &SlotAdmission<'_, '_>| {
        let limit = limits.workloads.get(workload)?;
        let oldest = &triaged_pods[*next?];
        let weight = observed.workloads[workload].spec.weight;
        let own = limits.pool_max.saturating_mul(weight.into()) / weights;
        (!limit.is_full()).then(|| SlotClaim {
            workload,
            held: limit.held,
            weight,
            waiting_since: oldest.pod.created,
            is_starved: limit.held < own && admission.is_starved(oldest),
        })
    };
    let all = queues.iter().enumerate();
    let mut claims: BinaryHeap<SlotClaim> = all
        .filter_map(|(workload, queue)| claim(workload, queue.front(), &limits, admission))
        .collect();
    let mut allocation = SlotAllocation::default();
    while !limits.is_full() {
        let Some(SlotClaim { workload, .. }) = claims.pop() else {
            break;
        };
        let queue = &mut queues[workload];
        let Some(index) = queue.pop_front() else {
            continue;
        };
        match admission.allocate_capacity(&triaged_pods[index]) {
            PodOutcome::Grant { placement } => {
                limits.take_slot(Some(workload));
                allocation.allocated.push((index, placement));
            }
            lack => allocation.blocked.push((index, lack)),
        }
        // Only this workload's claim has changed, so only this one is put back.
        claims.extend(claim(workload, queue.front(), &limits, admission));
    }
    allocation
}

/// The indexes in `wanting` by workload, oldest pod first.
fn queue_by_workload(
    triaged_pods: &[TriagedPod<'_>],
    mut candidates: Vec<usize>,
    workloads: usize,
) -> Vec<VecDeque<usize>> {
    candidates.sort_by_key(|at| (triaged_pods[*at].pod.created, &triaged_pods[*at].pod.id));
    let mut queues = vec![VecDeque::new(); workloads];
    for at in candidates {
        queues[triaged_pods[at].workload].push_back(at);
    }
    queues
}

impl<'a> SlotAdmission<'_, 'a> {
    fn allocate_capacity(&mut self, triaged: &TriagedPod<'a>) -> PodOutcome {
        match self
            .capacity
            .take(triaged.pod, triaged.placements, self.now)
        {
            Ok(placement) => PodOutcome::Grant { placement },
            Err(lack) => {
                let is_kept = self.is_starved(triaged) && is_hold_back_window(self.now);
                if is_kept && matches!(lack, BlockedBy::Capacity(_)) {
                    self.capacity.hold_back_for(triaged.pod, triaged.placements);
                }
                PodOutcome::Blocked(lack)
            }
        }
    }

    /// Whether the pod has waited longer than its hold plus [`STARVATION_TIMEOUT`].
    fn is_starved(&self, triaged: &TriagedPod<'_>) -> bool {
        let limit = self.limits.workloads.get(triaged.workload);
        let after = limit.map(|limit| limit.hold_duration).unwrap_or_default();
        let start = triaged.hold_start.as_ref();
        start.is_some_and(|start| {
            later(
                start.refused_since,
                after.saturating_add(STARVATION_TIMEOUT),
            ) <= self.now
        })
    }

    /// Which limit blocks a pod that got no slot: its workload's, the pool's, or else the rate.
    fn blocked_by(&self, triaged: &TriagedPod<'_>) -> BlockedBy {
        let limit = self.limits.workloads.get(triaged.workload);
        match limit.and_then(|limit| limit.max_slots.as_ref().filter(|_| limit.is_full())) {
            Some(Ok(most)) => return BlockedBy::WorkloadLimit(*most),
            Some(Err(why)) => return BlockedBy::ScaleUnknown(why.clone()),
            None => {}
        }
        if self.limits.is_full() {
            BlockedBy::PoolLimit(self.limits.pool_max)
        } else {
            BlockedBy::RateLimit(self.rate.next_at)
        }
    }
}

/// Whether room is kept for large pods at this time of the cycle.
fn is_hold_back_window(now: Timestamp) -> bool {
    let patience = i64::try_from(STARVATION_TIMEOUT.as_secs()).unwrap_or(WINDOW_SECONDS);
    now.as_second().rem_euclid(WINDOW_SECONDS) >= patience
}

/// When the next cycle begins, in which all pods may take room again.
pub(in crate::burst) fn next_window_start(now: Timestamp) -> Timestamp {
    let left = WINDOW_SECONDS - now.as_second().rem_euclid(WINDOW_SECONDS);
    later(now, Duration::from_secs(left.unsigned_abs()))
}
