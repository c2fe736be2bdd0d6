//! Distributes free slots, the grant rate and free capacity among the pods that are ready.
//!
//! In: the triaged pods ([`TriagedPod`]) without an outcome, the pool's limits and the free capacity of the placements.
//! Out: an outcome for each pod. Pods with a reservation come first, because they hold their slots already.

use std::time::Duration;

use jiff::Timestamp;

use super::allocation::allocate;
use super::grant_limits::GrantLimits;
use super::triage::TriagedPod;
use crate::api::{BurstPoolSpec, Reservation};
use crate::burst::observation::{Leadership, ObservedPool};
use crate::burst::outcome::{BlockedBy, PodOutcome};
use crate::burst::rules::capacity::FreeCapacity;
use crate::burst::rules::hold;
use crate::burst::rules::limits::Limit as _;
use crate::k8s::time::later;

/// After its hold, a pod that could be granted may be overtaken for 5 minutes: if it is too large for the free
/// capacity, smaller pods go first; if the rate is used up, pods of workloads that hold fewer slots go first.
const STARVATION_TIMEOUT: Duration = Duration::from_secs(300);
/// Length in seconds of a cycle of room keeping (15 minutes). In the first [`STARVATION_TIMEOUT`] of each cycle no room
/// is kept, and all pods may take it. Otherwise a pod for which enough room never becomes free would block all
/// other pods.
const WINDOW_SECONDS: i64 = 900;

/// What is distributed, and what has been distributed already.
pub(in crate::burst) struct SlotAdmission<'a> {
    pub(in crate::burst) limits: GrantLimits,
    pub(in crate::burst) capacity: FreeCapacity<'a>,
    /// The lengths of the holds, in the order of the pool's workloads.
    pub(in crate::burst) holds: Vec<Duration>,
    pub(in crate::burst) now: Timestamp,
}

/// Gives every pod without an outcome its outcome.
pub(in crate::burst) fn admit<'a>(
    triaged_pods: &mut [TriagedPod<'a>],
    observed: &ObservedPool<'_>,
    admission: &mut SlotAdmission<'a>,
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
        triaged.outcome = admission.blocked(triaged);
    }
}

/// Grants reserved pods, oldest first, within the limits that apply now. The limits may have been lowered since
/// the reservation. Pods above a limit wait, and the operator changes them, so that a grant still in flight
/// from another leader fails.
fn admit_reserved<'a>(triaged_pods: &mut [TriagedPod<'a>], admission: &mut SlotAdmission<'a>) {
    let mut reserved: Vec<&mut TriagedPod<'a>> = triaged_pods
        .iter_mut()
        .filter(|triaged| triaged.is_reserved)
        .collect();
    reserved.sort_by_key(|triaged| (triaged.pod.created, &triaged.pod.id));
    let mut excess = admission.limits.slots.excess();
    // The youngest pods give their slots back first.
    for triaged in reserved.iter_mut().rev() {
        if triaged.outcome.is_none() && excess.release_one(triaged.workload) {
            triaged.outcome = admission.blocked(triaged);
        }
    }
    for triaged in reserved {
        if triaged.outcome.is_none() {
            triaged.outcome = Some(admission.allocate_capacity(triaged));
        } else {
            // The pod may be granted already: keep its room from other pods.
            let candidate = triaged.candidate();
            if let Ok(index) = admission.capacity.check(&candidate) {
                admission.capacity.take(&candidate, index);
            }
        }
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
    admission: &mut SlotAdmission<'a>,
) {
    let ready = (0..triaged_pods.len()).filter(|at| triaged_pods[*at].outcome.is_none());
    let allocation = allocate(triaged_pods, ready.collect(), observed, admission);
    for (index, lack) in allocation.blocked {
        triaged_pods[index].outcome = Some(lack);
    }
    let mut entitled = allocation.allocated;
    if entitled.len() > admission.limits.rate.available {
        let starved_since =
            |triaged: &TriagedPod<'_>| admission.is_starved(triaged).then_some(triaged.pod.created);
        // A stable sort: pods that have not waited long keep the order of fair shares.
        entitled.sort_by_key(|(index, _)| {
            let since = starved_since(&triaged_pods[*index]);
            (since.is_none(), since)
        });
    }
    for (index, placement) in entitled {
        let triaged = &mut triaged_pods[index];
        if admission.limits.check(&triaged.candidate()).is_none() {
            admission.limits.take(&triaged.candidate());
            let not_kept = triaged.not_kept.clone();
            triaged.outcome = Some(PodOutcome::Grant {
                placement,
                not_kept,
            });
        }
    }
}

impl<'a> SlotAdmission<'a> {
    /// What the pool's limits, its placements and the reservations `reserved` leave at `now`.
    pub(in crate::burst) fn from_observed(
        spec: &BurstPoolSpec,
        observed: &ObservedPool<'a>,
        reserved: &[&Reservation],
        now: Timestamp,
    ) -> Self {
        Self {
            limits: GrantLimits::from_observed(spec, observed, reserved, now),
            capacity: FreeCapacity::of(observed, now),
            holds: hold::durations(&spec.spill, observed),
            now,
        }
    }

    /// Takes room for the pod in a placement: a grant, or the reason why no placement takes the pod.
    pub(in crate::burst) fn allocate_capacity(&mut self, triaged: &TriagedPod<'a>) -> PodOutcome {
        let candidate = triaged.candidate();
        match self.capacity.check(&candidate) {
            Ok(index) => PodOutcome::Grant {
                placement: self.capacity.take(&candidate, index),
                not_kept: triaged.not_kept.clone(),
            },
            Err(lack) => {
                let is_kept = self.is_starved(triaged) && is_hold_back_window(self.now);
                if is_kept && matches!(lack, BlockedBy::Capacity(_)) {
                    self.capacity.hold_back_for(&candidate);
                }
                PodOutcome::Blocked(lack)
            }
        }
    }

    /// Whether the pod has waited longer than its hold plus [`STARVATION_TIMEOUT`].
    pub(in crate::burst) fn is_starved(&self, triaged: &TriagedPod<'_>) -> bool {
        let hold = self.holds.get(triaged.workload).copied();
        let patience = hold.unwrap_or_default().saturating_add(STARVATION_TIMEOUT);
        let start = triaged.hold_start.as_ref();
        start.is_some_and(|start| later(start.refused_since, patience) <= self.now)
    }

    /// The outcome of a pod that a limit blocks.
    fn blocked(&self, triaged: &TriagedPod<'_>) -> Option<PodOutcome> {
        let blocked_by = self.limits.check(&triaged.candidate());
        blocked_by.map(PodOutcome::Blocked)
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
