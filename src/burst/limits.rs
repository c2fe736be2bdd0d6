//! How many pods may be on ACI at once, and how many slots are held.
//!
//! In: the pool's spec, what its scales desire, what is granted and reserved. Out: limits and slots.
//! A slot is held by a granted pod that has no node yet or is on ACI, and by a reservation of which a grant
//! may come; a granted pod that found room at home, or is finished, holds none.

use std::collections::HashSet;
use std::time::Duration;

use super::observe::{Limited, Observed, WorkloadSeen};
use crate::api::{BurstPoolSpec, MaxReplicas, Reservation};

/// Limits of a pool and its workloads, and the slots they hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// The most that the pool may have.
    pub pool: u64,
    /// How many it has.
    pub held: u64,
    /// The most is a percentage, and not all that it is of is known yet.
    pub is_unsure: bool,
    /// Its workloads, in its order.
    pub workloads: Vec<Limit>,
}

/// The limit of a workload, and the slots it holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limit {
    /// The most that it may have by itself; nothing if only the pool's limit holds, or why it is not
    /// known.
    pub own: Option<Result<u64, String>>,
    /// How many it has.
    pub held: u64,
    /// How long its pods are held.
    pub after: Duration,
}

impl Limits {
    /// What holds now, with these reservations.
    pub fn of(spec: &BurstPoolSpec, seen: &Observed<'_>, reserved: &[&Reservation]) -> Self {
        let scales = seen.workloads.iter().filter_map(|workload| workload.scale);
        let desired = scales.fold(0, |sum: u64, scale| sum.saturating_add(scale.desired));
        let is_triggered = seen.is_triggered;
        let mut limits = Self {
            pool: spec.spill.max_replicas.of(desired),
            held: 0,
            is_unsure: matches!(spec.spill.max_replicas, MaxReplicas::Percent(_))
                && seen.workloads.iter().any(is_unread),
            workloads: seen
                .workloads
                .iter()
                .map(|seen| {
                    let own = seen.spec.spill.as_ref();
                    let max = own.and_then(|own| own.max_replicas);
                    let after = own.and_then(|own| own.after).unwrap_or(spec.spill.after);
                    let mut after = Duration::from(after);
                    if is_triggered {
                        let triggered = spec.spill.after_when_triggered.map(Duration::from);
                        after = after.min(triggered.unwrap_or_default());
                    }
                    let desired = match (seen.scale, &seen.error) {
                        (Some(scale), _) => Ok(scale.desired),
                        (None, Some(why)) => Err(why.clone()),
                        (None, None) => Err("it has no scale".to_owned()),
                    };
                    Limit {
                        own: max.map(|max| match max {
                            MaxReplicas::Count(_) => Ok(max.of(0)),
                            MaxReplicas::Percent(_) => desired.map(|desired| max.of(desired)),
                        }),
                        held: 0,
                        after,
                    }
                })
                .collect(),
        };
        let granted = seen.granted.iter().filter(|granted| !granted.is_home);
        for granted in granted {
            limits.take(granted.workload);
        }
        // Another pool has granted it, and it tolerates this one's taint since a pool of that name was here.
        let strays = seen.guests.iter().filter(|(pod, _)| pod.grant.is_some());
        for (_, workload) in strays {
            limits.take(*workload);
        }
        let reserved: HashSet<&str> = reserved.iter().map(|entry| entry.uid.as_str()).collect();
        let all = seen.reservations.iter();
        for one in all.filter(|one| reserved.contains(one.entry.uid.as_str())) {
            match one.workload {
                Limited::By(workload) => limits.take(Some(workload)),
                Limited::ByNone => limits.take(None),
                Limited::Unknown => limits.take_for_all(),
            }
        }
        limits
    }

    /// One slot more is held, by a pod of which workload is not known.
    fn take_for_all(&mut self) {
        self.held += 1;
        for workload in &mut self.workloads {
            workload.held += 1;
        }
    }

    /// One slot more is held.
    pub fn take(&mut self, workload: Option<usize>) {
        self.held += 1;
        if let Some(workload) = workload.and_then(|at| self.workloads.get_mut(at)) {
            workload.held += 1;
        }
    }

    /// Whether the pool has no slot left.
    pub fn is_full(&self) -> bool {
        self.held >= self.pool
    }
}

/// Whether it has a target whose replicas are not known.
fn is_unread(workload: &WorkloadSeen<'_>) -> bool {
    workload.spec.target.is_some() && workload.scale.is_none()
}

impl Limit {
    /// Whether it has no slot left of its own.
    pub fn is_full(&self) -> bool {
        match &self.own {
            None => false,
            Some(Ok(limit)) => self.held >= *limit,
            Some(Err(_)) => true,
        }
    }
}
