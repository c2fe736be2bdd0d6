//! How many pods may be on ACI at once, and how many slots are in use.
//!
//! In: the pool's spec, the desired replicas of its scales, the granted pods and the reservations. Out: limits
//! and used slots. A granted pod uses a slot while it has no node or is on ACI. A reservation uses a slot while
//! a grant for it may still be applied. A granted pod that is finished or bound to one of the cluster's own
//! nodes uses none.

use std::collections::HashSet;

use super::limits::{GrantCandidate, Limit};
use crate::api::{BurstPoolSpec, MaxReplicas, Reservation};
use crate::burst::observation::{LimitedBy, ObservedPool, ObservedWorkload};
use crate::burst::outcome::BlockedBy;

/// The limits of a pool and its workloads, and the slots that are in use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SlotLimits {
    /// The pool's maximum.
    pub pool_max: u64,
    /// The slots in use.
    pub held: u64,
    /// Whether the maximum is a percentage and the scale of at least one target is unknown.
    pub is_provisional: bool,
    /// The workloads, in the order of the pool's spec.
    pub workloads: Vec<WorkloadSlots>,
}

/// The limit of a workload, and the slots that are in use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WorkloadSlots {
    /// The workload's own maximum. `None` if only the pool's applies; `Err` with the reason if it is a
    /// percentage and the scale is unknown.
    pub max_slots: Option<Result<u64, String>>,
    /// The slots in use.
    pub held: u64,
}

impl Limit for SlotLimits {
    fn check(&self, candidate: &GrantCandidate<'_>) -> Option<BlockedBy> {
        let workload = self.workloads.get(candidate.workload);
        let own = workload.and_then(WorkloadSlots::blocked_by);
        own.or_else(|| {
            let is_full = self.held >= self.pool_max;
            is_full.then_some(BlockedBy::PoolLimit(self.pool_max))
        })
    }

    fn take(&mut self, candidate: &GrantCandidate<'_>) {
        self.count(LimitedBy::Workload(candidate.workload));
    }
}

impl SlotLimits {
    /// Computes the limits and the slots in use. `reserved` are the reservations that count.
    pub fn from_observed(
        spec: &BurstPoolSpec,
        observed: &ObservedPool<'_>,
        reserved: &[&Reservation],
    ) -> Self {
        let mut limits = Self::with_no_slot_in_use(spec, observed);
        for one in slot_users(observed, reserved) {
            limits.count(one);
        }
        limits
    }

    fn with_no_slot_in_use(spec: &BurstPoolSpec, observed: &ObservedPool<'_>) -> Self {
        let workloads = observed.workloads.iter();
        let scales = workloads.clone().filter_map(|workload| workload.scale);
        let desired = scales.fold(0, |sum: u64, scale| sum.saturating_add(scale.spec_replicas));
        let is_percentage = matches!(spec.spill.max_replicas, MaxReplicas::Percent(_));
        Self {
            pool_max: spec.spill.max_replicas.resolve(desired),
            held: 0,
            is_provisional: is_percentage && workloads.clone().any(is_scale_unknown),
            workloads: workloads
                .map(|workload| WorkloadSlots {
                    max_slots: own_max(workload),
                    held: 0,
                })
                .collect(),
        }
    }

    /// Counts a slot against the pool, and against the workloads that it is limited by.
    fn count(&mut self, by: LimitedBy) {
        self.held += 1;
        match by {
            LimitedBy::Workload(workload) => {
                if let Some(workload) = self.workloads.get_mut(workload) {
                    workload.held += 1;
                }
            }
            LimitedBy::NoWorkload => {}
            LimitedBy::Unknown => {
                for workload in &mut self.workloads {
                    workload.held += 1;
                }
            }
        }
    }

    /// The most slots that a workload may use. 0 while its own maximum is unknown.
    pub fn max_of(&self, workload: usize) -> u64 {
        let own = self.workloads.get(workload);
        match own.and_then(|own| own.max_slots.as_ref()) {
            Some(Ok(own)) => self.pool_max.min(*own),
            Some(Err(_)) => 0,
            None => self.pool_max,
        }
    }

    /// By how many the slots in use exceed the limits.
    pub fn excess(&self) -> SlotExcess {
        let pool_max = if self.is_provisional {
            u64::MAX
        } else {
            self.pool_max
        };
        let workloads = self.workloads.iter().map(WorkloadSlots::excess);
        SlotExcess {
            pool: self.held.saturating_sub(pool_max),
            workloads: workloads.collect(),
        }
    }
}

impl WorkloadSlots {
    /// What leaves no free slot. An unknown maximum leaves none.
    fn blocked_by(&self) -> Option<BlockedBy> {
        match &self.max_slots {
            Some(Ok(own)) if self.held >= *own => Some(BlockedBy::WorkloadLimit(*own)),
            Some(Err(why)) => Some(BlockedBy::ScaleUnknown(why.clone())),
            Some(Ok(_)) | None => None,
        }
    }

    fn excess(&self) -> u64 {
        match &self.max_slots {
            Some(Ok(own)) => self.held.saturating_sub(*own),
            Some(Err(_)) | None => 0,
        }
    }
}

/// By how many the slots in use exceed the limits, for the pool and for each workload. The maximum may have been
/// lowered since the slots were taken.
pub struct SlotExcess {
    pool: u64,
    workloads: Vec<u64>,
}

impl SlotExcess {
    /// Gives back a slot of a pod of this workload, if the pool or the workload has too many. Returns whether it did.
    pub fn release_one(&mut self, workload: usize) -> bool {
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

/// The workload's own maximum, as [`WorkloadSlots::max_slots`].
fn own_max(workload: &ObservedWorkload<'_>) -> Option<Result<u64, String>> {
    let max = workload.spec.spill.as_ref()?.max_replicas?;
    Some(match (max, workload.scale, &workload.selection_error) {
        (MaxReplicas::Count(_), ..) => Ok(max.resolve(0)),
        (MaxReplicas::Percent(_), Some(scale), _) => Ok(max.resolve(scale.spec_replicas)),
        (MaxReplicas::Percent(_), None, Some(why)) => Err(why.clone()),
        (MaxReplicas::Percent(_), None, None) => Err("it has no scale".to_owned()),
    })
}

/// Whether the workload has a target whose scale is unknown.
fn is_scale_unknown(workload: &ObservedWorkload<'_>) -> bool {
    workload.spec.target.is_some() && workload.scale.is_none()
}

/// Everything that uses a slot, each with what it counts against.
fn slot_users(
    observed: &ObservedPool<'_>,
    reserved: &[&Reservation],
) -> impl Iterator<Item = LimitedBy> {
    let by = |workload: Option<usize>| workload.map_or(LimitedBy::NoWorkload, LimitedBy::Workload);
    let granted = observed.granted.iter().filter(|granted| !granted.is_home);
    // These pods have another pool's grant, and tolerate this pool's taint, for example since an earlier pool of this
    // name granted them.
    let of_other_pools = observed.user_placed.iter();
    let of_other_pools = of_other_pools.filter(|(pod, _)| pod.grant.is_some());
    let reserved: HashSet<&str> = reserved.iter().map(|entry| entry.uid.as_str()).collect();
    let reservations = observed.reservations.iter();
    let reservations =
        reservations.filter(move |one| reserved.contains(one.reservation.uid.as_str()));
    granted
        .map(move |granted| by(granted.workload))
        .chain(of_other_pools.map(move |(_, workload)| by(*workload)))
        .chain(reservations.map(|one| one.limited_by))
}
