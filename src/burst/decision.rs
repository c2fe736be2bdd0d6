//! The decision of a plan for one pending pod.
//!
//! In: the outcome of the pod, from the steps in [`select`](super::select). Out: [`PodDecision`], which the operator
//! carries out and counts.

use jiff::Timestamp;

use super::facts::pod::PodReference;
use super::leader_state::HoldStart;
use super::outcome::{BlockedBy, HoldReason, PodOutcome};
use crate::api::{LossSet, NO_LOSSES, Reservation};

/// The decision for one pending pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodDecision {
    /// The pod, with the version that was planned with.
    pub pod: PodReference,
    /// The name of its workload.
    pub workload: String,
    /// The outcome, with its reason.
    pub outcome: PodOutcome,
    /// Whether the pod holds a reservation, or needs one.
    pub slot: SlotState,
    /// The start of the hold, by the operator's monotonic clock. `None` for pods that cannot burst.
    pub hold_start: Option<HoldStart>,
}

/// Whether a pod holds a reservation that is to be granted now or when its hold ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SlotState {
    /// The pod needs no reservation.
    #[default]
    None,
    /// The pod needs a reservation. It must not be granted before `status.reservations` contains it.
    ToReserve,
    /// `status.reservations` contains the pod. If the outcome is a grant, it contains the pod's present
    /// version.
    Reserved,
}

/// A refused-since time to write to a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedSinceStamp {
    /// The pod.
    pub pod: PodReference,
    /// When the scheduler refused the pod first, by the API server's clock.
    pub since: Timestamp,
}

impl PodDecision {
    /// What the pod loses on ACI if it is granted.
    pub fn not_kept(&self) -> &LossSet {
        match &self.outcome {
            PodOutcome::Grant { not_kept, .. } => not_kept,
            _ => &NO_LOSSES,
        }
    }

    pub(in crate::burst) fn reservation(&self, holder: &str) -> Reservation {
        Reservation {
            uid: self.pod.uid.clone(),
            namespace: self.pod.namespace.clone(),
            name: self.pod.name.clone(),
            workload: self.workload.clone(),
            holder: holder.to_owned(),
            resource_version: self.pod.resource_version.clone(),
        }
    }

    /// The limit of the pool or of Azure that blocks the pod, if there is one. Not counted as a limit:
    /// leadership; the rate, which lets each pod pass within seconds; a volume claim, which the cluster binds;
    /// and topology, which depends on other pods.
    pub(in crate::burst) fn limit_reached(&self) -> Option<&BlockedBy> {
        match &self.outcome {
            PodOutcome::Blocked(
                BlockedBy::NotLeading
                | BlockedBy::RateLimit(_)
                | BlockedBy::ClaimNotBound(_)
                | BlockedBy::Topology(_),
            ) => None,
            PodOutcome::Blocked(lack) => Some(lack),
            _ => None,
        }
    }

    /// Whether the API server denied the grant, and the pod waits for the next attempt.
    pub fn is_denied(&self) -> bool {
        matches!(
            self.outcome,
            PodOutcome::Hold {
                why: HoldReason::Denied(_),
                ..
            }
        )
    }
}
