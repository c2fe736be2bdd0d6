//! All limits of a pool that do not depend on the placement, checked one after the other.
//!
//! In: the pool's spec, and the observed pods and reservations that have used up a part. Out: the first limit that
//! blocks a pod.
//!
//! There are two groups. Amounts bound what the pool has on ACI at once: `allocation` divides them among the workloads.
//! The rate bounds how fast the pool gets there: it applies to the pods that have got a share.

use jiff::Timestamp;

use crate::api::{BurstPoolSpec, Reservation};
use crate::burst::observation::ObservedPool;
use crate::burst::outcome::BlockedBy;
use crate::burst::rules::limits::{GrantCandidate, Limit};
use crate::burst::rules::rate::RateAllowance;
use crate::burst::rules::slots::SlotLimits;

/// The limits of a pool, and what is used up.
#[derive(Clone)]
pub struct GrantLimits {
    /// The numbers of pods at once.
    pub slots: SlotLimits,
    /// The grants in a period.
    pub rate: RateAllowance,
}

impl GrantLimits {
    /// The limits, and what the observed pods and the reservations `reserved` use up.
    pub fn from_observed(
        spec: &BurstPoolSpec,
        observed: &ObservedPool<'_>,
        reserved: &[&Reservation],
        now: Timestamp,
    ) -> Self {
        Self {
            slots: SlotLimits::from_observed(spec, observed, reserved),
            rate: RateAllowance::from_observed(spec, observed, reserved, now),
        }
    }

    /// The first amount that blocks the pod.
    pub fn check_amounts(&self, candidate: &GrantCandidate<'_>) -> Option<BlockedBy> {
        self.slots.check(candidate)
    }
}

impl Limit for GrantLimits {
    fn check(&self, candidate: &GrantCandidate<'_>) -> Option<BlockedBy> {
        self.check_amounts(candidate)
            .or_else(|| self.rate.check(candidate))
    }

    fn take(&mut self, candidate: &GrantCandidate<'_>) {
        self.slots.take(candidate);
        self.rate.take(candidate);
    }
}
