//! The shape of every limit of a pool: [`check`](Limit::check) whether it admits one more grant, and
//! [`take`](Limit::take) what a grant uses up.
//!
//! | limit | what it bounds |
//! | --- | --- |
//! | [`SlotLimits`](super::slots::SlotLimits) | the pods on ACI at once, of the pool and of each workload |
//! | [`RateAllowance`](super::rate::RateAllowance) | the grants in a period |
//! | [`FreeCapacity`](super::capacity::FreeCapacity) | what the pods of a placement use; it also chooses the placement |
//!
//! Each computes from the observed pool what is used up already. A new limit is a file in this folder, and a line in
//! [`GrantLimits`](crate::burst::select::grant_limits::GrantLimits), which the plan asks.

use crate::burst::facts::placement::PlacementSet;
use crate::burst::facts::pod::PodFacts;
use crate::burst::outcome::BlockedBy;

/// A pod to be granted, as the limits see it.
#[derive(Clone, Copy)]
pub struct GrantCandidate<'a> {
    /// The pod.
    pub pod: &'a PodFacts,
    /// The index of its workload in `spec.workloads`.
    pub workload: usize,
    /// The placements that could run it.
    pub placements: PlacementSet,
}

/// A limit on the grants of a pool.
pub trait Limit {
    /// What blocks the pod. `None` if the limit admits it.
    fn check(&self, candidate: &GrantCandidate<'_>) -> Option<BlockedBy>;

    /// Counts a grant for the pod, even if that exceeds the limit.
    fn take(&mut self, candidate: &GrantCandidate<'_>);
}
