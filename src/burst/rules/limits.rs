//! How many pods may be on ACI at once, and how many slots are in use.
//!
//! In: the pool's spec, the desired replicas of its scales, the granted pods and the reservations. Out: limits
//! and used slots. A granted pod uses a slot while it has no node or is on ACI. A reservation uses a slot while
//! a grant for it may still be applied. A granted pod that is finished or bound to one of the cluster's own
//! nodes uses none.

use std::collections::HashSet;
use std::time::Duration;

use crate::api::{BurstPoolSpec, MaxReplicas, Reservation};
use crate::burst::observation::{LimitedBy, ObservedPool, ObservedWorkload};

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
    /// How long its pods are held after the scheduler refused them. Shorter while a trigger is active.
    pub hold_duration: Duration,
}

impl SlotLimits {
    /// Computes the limits. `reserved` are the reservations that count.
    pub fn from_observed(
        spec: &BurstPoolSpec,
        observed: &ObservedPool<'_>,
        reserved: &[&Reservation],
    ) -> Self {
        let scales = observed
            .workloads
            .iter()
            .filter_map(|workload| workload.scale);
        let desired = scales.fold(0, |sum: u64, scale| sum.saturating_add(scale.spec_replicas));
        let is_triggered = observed.is_triggered;
        let mut limits = Self {
            pool_max: spec.spill.max_replicas.resolve(desired),
            held: 0,
            is_provisional: matches!(spec.spill.max_replicas, MaxReplicas::Percent(_))
                && observed.workloads.iter().any(is_scale_unknown),
            workloads: observed
                .workloads
                .iter()
                .map(|workload| {
                    let own = workload.spec.spill.as_ref();
                    let max = own.and_then(|own| own.max_replicas);
                    let after = own.and_then(|own| own.after).unwrap_or(spec.spill.after);
                    let mut after = Duration::from(after);
                    if is_triggered {
                        let triggered = spec.spill.after_when_triggered.map(Duration::from);
                        after = after.min(triggered.unwrap_or_default());
                    }
                    let desired = match (workload.scale, &workload.selection_error) {
                        (Some(scale), _) => Ok(scale.spec_replicas),
                        (None, Some(why)) => Err(why.clone()),
                        (None, None) => Err("it has no scale".to_owned()),
                    };
                    WorkloadSlots {
                        max_slots: max.map(|max| match max {
                            MaxReplicas::Count(_) => Ok(max.resolve(0)),
                            MaxReplicas::Percent(_) => desired.map(|desired| max.resolve(desired)),
                        }),
                        held: 0,
                        hold_duration: after,
                    }
                })
                .collect(),
        };
        let granted = observed.granted.iter().filter(|granted| !granted.is_home);
        for granted in granted {
            limits.take_slot(granted.workload);
        }
        // These pods have another pool's grant, and tolerate this pool's taint, for example since an earlier
        // pool of this name granted them.
        let strays = observed
            .user_placed
            .iter()
            .filter(|(pod, _)| pod.grant.is_some());
        for (_, workload) in strays {
            limits.take_slot(*workload);
        }
        let reserved: HashSet<&str> = reserved.iter().map(|entry| entry.uid.as_str()).collect();
        let all = observed.reservations.iter();
        for one in all.filter(|one| reserved.contains(one.reservation.uid.as_str())) {
            match one.limited_by {
                LimitedBy::Workload(workload) => limits.take_slot(Some(workload)),
                LimitedBy::NoWorkload => limits.take_slot(None),
                LimitedBy::Unknown => limits.take_from_all(),
            }
        }
        limits
    }

    /// Counts a slot for a pod whose workload is unknown: against the pool and every workload.
    fn take_from_all(&mut self) {
        self.held += 1;
        for workload in &mut self.workloads {
            workload.held += 1;
        }
    }

    /// Counts a slot against the pool, and against the workload if it is known.
    pub fn take_slot(&mut self, workload: Option<usize>) {
        self.held += 1;
        if let Some(workload) = workload.and_then(|at| self.workloads.get_mut(at)) {
            workload.held += 1;
        }
    }

    /// Whether the pool has no free slot.
    pub fn is_full(&self) -> bool {
        self.held >= self.pool_max
    }
}

/// Whether the workload has a target whose scale is unknown.
fn is_scale_unknown(workload: &ObservedWorkload<'_>) -> bool {
    workload.spec.target.is_some() && workload.scale.is_none()
}

impl WorkloadSlots {
    /// Whether the workload's own maximum leaves no free slot. An unknown maximum leaves none.
    pub fn is_full(&self) -> bool {
        match &self.max_slots {
            None => false,
            Some(Ok(limit)) => self.held >= *limit,
            Some(Err(_)) => true,
        }
    }
}
