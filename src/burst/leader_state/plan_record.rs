//! The parts of a plan that later plans need.
//!
//! `BurstPlan::record` yields them, and [`LeaderState`](super::LeaderState) keeps them. The leader's memory thus does
//! not depend on the plan.

use std::collections::HashMap;

use jiff::Timestamp;

use crate::api::Reservation;

/// The start of a pod's hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HoldStart {
    /// Since when the pod has been refused, by the operator's monotonic clock.
    pub refused_since: Timestamp,
    /// Whether only this process knows the time, so that it must be written to the pod.
    pub must_annotate: bool,
    /// When the operator first saw the pod nominated (preemption on a node). `None` if it is not nominated now.
    pub nominated_since: Option<Timestamp>,
}

/// The parts of a plan that later plans need.
#[derive(Clone, Debug)]
pub struct PlanRecord<'a> {
    /// The hold starts of pending pods, by UID.
    pub hold_starts: Vec<(&'a str, &'a HoldStart)>,
    /// Whether pods run on ACI, or have a grant and may be placed there.
    pub has_peak: bool,
    /// The new `status.reservations`.
    pub reservations: &'a [Reservation],
    /// UIDs of granted pods that the scheduler does not place although there is room.
    pub stuck: &'a [String],
    /// UIDs of pending pods whose grants have expired.
    pub expired: &'a [String],
    /// UIDs of pods that hold slots without the label and annotations of a grant.
    pub unmarked: &'a [String],
    /// Granted pods that have not started, by UID, with the time since when each one has been waiting for
    /// Azure. `None` if this instance does not lead the pool yet, so that it may not know all of them.
    pub waiting: Option<&'a HashMap<String, Timestamp>>,
    /// The pods that never started because Azure refuses their template.
    pub rejected_pods: Vec<RejectedPod<'a>>,
}

/// A pod whose template Azure refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RejectedPod<'a> {
    /// Its UID.
    pub uid: &'a str,
    /// Its template, as `PodOwner::template` identifies it.
    pub template: &'a str,
    /// Azure's message.
    pub why: &'a str,
}
