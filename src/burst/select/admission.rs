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
    cases: &mut [TriagedPod<'a>],
    seen: &ObservedPool<'_>,
    shares: &mut SlotAdmission<'_, 'a>,
) {
    if seen.leadership != Leadership::Leading {
        for case in cases.iter_mut().filter(|case| case.outcome.is_none()) {
            case.outcome = Some(PodOutcome::Blocked(BlockedBy::NotLeading));
        }
        return;
    }
    admit_reserved(cases, shares);
    admit_ready(cases, seen, shares);
    for case in cases.iter_mut().filter(|case| case.outcome.is_none()) {
        case.outcome = Some(PodOutcome::Blocked(shares.blocked_by(case)));
    }
}

/// Grants reserved pods, oldest first, within the limits that apply now. The limits may have been lowered since
/// the reservation. Pods above a limit wait, and the operator changes them, so that a grant still in flight
/// from another leader fails.
fn admit_reserved<'a>(cases: &mut [TriagedPod<'a>], shares: &mut SlotAdmission<'_, 'a>) {
    let mut reserved: Vec<&mut TriagedPod<'a>> =
        cases.iter_mut().filter(|case| case.is_reserved).collect();
    reserved.sort_by_key(|case| (case.pod.created, &case.pod.id));
    let mut over = SlotExcess::from_limits(shares.limits);
    // The youngest pods give their slots back first.
    for case in reserved.iter_mut().rev() {
        if case.outcome.is_none() && over.release_one(case.workload) {
            case.outcome = Some(PodOutcome::Blocked(shares.blocked_by(case)));
        }
    }
    for case in reserved {
        if case.outcome.is_none() {
            case.outcome = Some(shares.allocate_capacity(case));
        } else {
            // The pod may be granted already: keep its room from other pods.
            drop(shares.capacity.take(case.pod, case.placements, shares.now));
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
    cases: &mut [TriagedPod<'a>],
    seen: &ObservedPool<'_>,
    shares: &mut SlotAdmission<'_, 'a>,
) {
    let ready = (0..cases.len()).filter(|at| cases[*at].outcome.is_none());
    let turn = allocate_slots(cases, ready.collect(), seen, shares);
    for (index, lack) in turn.blocked {
        cases[index].outcome = Some(lack);
    }
    let mut entitled = turn.allocated;
    if entitled.len() > shares.rate.available {
        let passed_by = |case: &TriagedPod<'_>| shares.is_starved(case).then_some(case.pod.created);
        // A stable sort: pods that have not waited long keep the order of fair shares.
        entitled.sort_by_key(|(index, _)| {
            let since = passed_by(&cases[*index]);
            (since.is_none(), since)
        });
        entitled.truncate(shares.rate.available);
    }
    for (index, placement) in entitled {
        shares.limits.take_slot(Some(cases[index].workload));
        shares.rate.available -= 1;
        cases[index].outcome = Some(PodOutcome::Grant { placement });
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
    cases: &[TriagedPod<'a>],
    wanting: Vec<usize>,
    seen: &ObservedPool<'_>,
    shares: &mut SlotAdmission<'_, 'a>,
) -> SlotAllocation {
    let mut queues = queue_by_workload(cases, wanting, seen.workloads.len());
    let mut limits = shares.limits.clone();
    let weights = seen.workloads.iter().map(|one| u64::from(one.spec.weight));
    let weights = weights.sum::<u64>().max(1);
    let claim = |workload: usize,
                 next: Option<&usize>,
                 limits: &SlotLimits,
                 shares: &SlotAdmission<'_, '_>| {
        let limit = limits.workloads.get(workload)?;
        let oldest = &cases[*next?];
        let weight = seen.workloads[workload].spec.weight;
        let own = limits.pool_max.saturating_mul(weight.into()) / weights;
        (!limit.is_full()).then(|| SlotClaim {
            workload,
            held: limit.held,
            weight,
            waiting_since: oldest.pod.created,
            is_starved: limit.held < own && shares.is_starved(oldest),
        })
    };
    let all = queues.iter().enumerate();
    let mut claims: BinaryHeap<SlotClaim> = all
        .filter_map(|(workload, queue)| claim(workload, queue.front(), &limits, shares))
        .collect();
    let mut turn = SlotAllocation::default();
    while !limits.is_full() {
        let Some(SlotClaim { workload, .. }) = claims.pop() else {
            break;
        };
        let queue = &mut queues[workload];
        let Some(index) = queue.pop_front() else {
            continue;
        };
        match shares.allocate_capacity(&cases[index]) {
            PodOutcome::Grant { placement } => {
                limits.take_slot(Some(workload));
                turn.allocated.push((index, placement));
            }
            lack => turn.blocked.push((index, lack)),
        }
        // Only this workload's claim has changed, so only this one is put back.
        claims.extend(claim(workload, queue.front(), &limits, shares));
    }
    turn
}

/// The indexes in `wanting` by workload, oldest pod first.
fn queue_by_workload(
    cases: &[TriagedPod<'_>],
    mut wanting: Vec<usize>,
    workloads: usize,
) -> Vec<VecDeque<usize>> {
    wanting.sort_by_key(|at| (cases[*at].pod.created, &cases[*at].pod.id));
    let mut queues = vec![VecDeque::new(); workloads];
    for at in wanting {
        queues[cases[at].workload].push_back(at);
    }
    queues
}

impl<'a> SlotAdmission<'_, 'a> {
    fn allocate_capacity(&mut self, case: &TriagedPod<'a>) -> PodOutcome {
        match self.capacity.take(case.pod, case.placements, self.now) {
            Ok(placement) => PodOutcome::Grant { placement },
            Err(lack) => {
                let is_kept = self.is_starved(case) && is_hold_back_window(self.now);
                if is_kept && matches!(lack, BlockedBy::Capacity(_)) {
                    self.capacity.hold_back_for(case.pod, case.placements);
                }
                PodOutcome::Blocked(lack)
            }
        }
    }

    /// Whether the pod has waited longer than its hold plus [`STARVATION_TIMEOUT`].
    fn is_starved(&self, case: &TriagedPod<'_>) -> bool {
        let limit = self.limits.workloads.get(case.workload);
        let after = limit.map(|limit| limit.hold_duration).unwrap_or_default();
        let start = case.hold_start.as_ref();
        start.is_some_and(|start| {
            later(
                start.refused_since,
                after.saturating_add(STARVATION_TIMEOUT),
            ) <= self.now
        })
    }

    /// Which limit blocks a pod that got no slot: its workload's, the pool's, or else the rate.
    fn blocked_by(&self, case: &TriagedPod<'_>) -> BlockedBy {
        let limit = self.limits.workloads.get(case.workload);
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
