//! Reservations: pods that hold a slot before any watch shows their grant (decision D1a).
//!
//! In: `status.reservations` and what the watches show of the pods. Out: the reservations that stay, those
//! whose pods must be read by name, and those to give back.
//!
//! A reservation names one version of its pod, and no leader ever grants another version. It stays until the
//! watches show the pod granted, bound to one of the cluster's own nodes, gone, or at a later version without a
//! grant. While the pod has not changed, a reservation of this instance's present term may also go if no patch
//! for it was, or can still be, carried out. For a reservation of another instance or an earlier term this is
//! unknown: that leader may be frozen with a patch in flight. The operator grants such a pod. If it cannot, it
//! changes the pod, so that a patch in flight fails with a version conflict.

use std::collections::{HashMap, HashSet};

use jiff::Timestamp;

use super::pre_reservation;
use crate::api::Reservation;
use crate::burst::decision::{PodDecision, SlotState};
use crate::burst::facts::pod::PodReference;
use crate::burst::facts::versions::VersionComparison;
use crate::burst::leader_state::{PatchOutcome, PodWrite};
use crate::burst::observation;
use crate::burst::observation::{ObservedPool, ReservedPod};
use crate::burst::outcome::PodOutcome;
use crate::k8s::time::later;

/// The reservations that still count.
pub struct OpenReservations<'a> {
    /// Reservations that stay.
    pub entries: Vec<&'a Reservation>,
    /// Those of them whose pods are in no watch. The operator reads these pods by name.
    pub unwatched: Vec<&'a Reservation>,
}

/// Finds the reservations that still count.
pub fn open_reservations<'a>(observed: &ObservedPool<'a>) -> OpenReservations<'a> {
    let kept = observed
        .reservations
        .iter()
        .filter(|reserved| is_open(reserved, observed));
    let unseen = observed.reservations.iter();
    let unseen = unseen.filter(|reserved| reserved.is_unwatched && is_open(reserved, observed));
    OpenReservations {
        entries: kept.map(|reserved| reserved.reservation).collect(),
        unwatched: unseen.map(|reserved| reserved.reservation).collect(),
    }
}

fn is_open(reserved: &ReservedPod<'_>, observed: &ObservedPool<'_>) -> bool {
    !reserved.is_settled && !can_be_dropped(reserved, observed)
}

fn can_be_dropped(reserved: &ReservedPod<'_>, observed: &ObservedPool<'_>) -> bool {
    let is_unsent = || {
        let own = reserved.reservation.holder == observed.identity;
        own && observed
            .leader_state
            .reserved_patch_outcome(reserved.reservation)
            == PatchOutcome::NotApplied
    };
    match reserved
        .waiting
        .map(|pod| VersionComparison::compare(reserved.reservation, pod))
    {
        Some(VersionComparison::Newer) => true,
        Some(VersionComparison::Same) => is_unsent(),
        Some(VersionComparison::NotNewer) => false,
        None => reserved.is_unwatched && is_unsent(),
    }
}

/// The reservations that stay, and those of pods to be granted now or when their hold ends, sorted.
fn desired_reservations(
    kept: &[&Reservation],
    decisions: &[PodDecision],
    observed: &ObservedPool<'_>,
) -> Vec<Reservation> {
    let mut all: Vec<Reservation> = kept.iter().map(|entry| (*entry).clone()).collect();
    let known: HashSet<&str> = kept.iter().map(|entry| entry.uid.as_str()).collect();
    let new = decisions.iter().filter(|decision| {
        decision.slot != SlotState::None && !known.contains(decision.pod.uid.as_str())
    });
    all.extend(new.map(|decision| decision.reservation(observed.identity)));
    all.sort();
    all
}

/// Whether and when to write `status.reservations`.
pub(in crate::burst) struct ReservationWrite {
    /// The content of `status.reservations` after this plan.
    pub(in crate::burst) reservations: Vec<Reservation>,
    /// Whether to write it now.
    pub(in crate::burst) must_write: bool,
    /// When to write it, if not now.
    pub(in crate::burst) next_write_at: Option<Timestamp>,
}

impl ReservationWrite {
    /// If a grant waits for its reservation, the status is written immediately. Other changes are written
    /// together with it, or at most once per [`pre_reservation::RESERVATION_WRITE_INTERVAL`].
    pub(in crate::burst) fn new(
        kept: &[&Reservation],
        decisions: &[PodDecision],
        observed: &ObservedPool<'_>,
        now: Timestamp,
    ) -> Self {
        let stand = observed
            .reservations
            .iter()
            .map(|reserved| reserved.reservation);
        let waits = decisions.iter().any(|decision| {
            decision.slot == SlotState::ToReserve
                && matches!(decision.outcome, PodOutcome::Grant { .. })
        });
        let last = observed.leader_state.reservations_written_at();
        let next = last.map(|last| later(last, pre_reservation::RESERVATION_WRITE_INTERVAL));
        let next = next.filter(|next| !waits && now < *next);
        let wanted = desired_reservations(kept, decisions, observed);
        let is_other = !wanted.iter().eq(stand.clone());
        let next_write_at = next.filter(|_| is_other);
        Self {
            must_write: is_other && next_write_at.is_none(),
            reservations: match next_write_at {
                Some(_) => stand.cloned().collect(),
                None => wanted,
            },
            next_write_at,
        }
    }
}

/// Pods that hold a slot and cannot be granted now, while a patch in flight may still grant them: the operator
/// changes these pods. The second value is when to retry the first change that failed.
pub fn releases(
    observed: &ObservedPool<'_>,
    decisions: &[PodDecision],
    now: Timestamp,
) -> (Vec<PodReference>, Option<Timestamp>) {
    if observed.reservations.is_empty() || observed.leadership != observation::Leadership::Leading {
        return (Vec::new(), None);
    }
    let decided: HashMap<&str, &PodDecision> = decisions
        .iter()
        .map(|decision| (decision.pod.uid.as_str(), decision))
        .collect();
    let stuck = observed
        .reservations
        .iter()
        .filter(|reserved| is_open(reserved, observed));
    let stuck = stuck.filter_map(|reserved| {
        let pod = reserved.waiting.filter(|pod| {
            VersionComparison::compare(reserved.reservation, pod) == VersionComparison::Same
        })?;
        let decision = decided.get(pod.id.uid.as_str());
        let is_going = decision.is_some_and(|decision| {
            decision.slot != SlotState::None || decision.outcome == PodOutcome::InFlight
        });
        (!is_going).then_some(&pod.id)
    });
    let (mut due, mut next) = (Vec::new(), None::<Timestamp>);
    for pod in stuck {
        let pause = observed
            .leader_state
            .write_retry_at(PodWrite::Release, &pod.uid);
        match pause.filter(|at| now < *at) {
            None => due.push(pod.clone()),
            Some(at) => next = Some(next.map_or(at, |next| next.min(at))),
        }
    }
    (due, next)
}
