//! Which pods count although nobody sees them granted (decision D1a).
//!
//! In: the reservations in the pool's status and what is seen of their pods. Out: those that must stay,
//! those whose pods must be looked for, and those that are to be given back. A reservation is of one
//! version of its pod, and no leader ever grants another: so it stays until its pod is seen granted, is
//! home or gone, or is seen at a later version without a grant. Until the pod is of a later version, one of
//! our own may also go when no patch of it was, or can still be, carried out. Of another instance's, or
//! of an earlier term of our own, nobody knows that: whoever led before may be frozen with a patch in
//! its hands. We grant such a pod; where we cannot, we change it, and with its version goes whatever is
//! still on its way.

use std::collections::{HashMap, HashSet};

use jiff::Timestamp;

use super::ahead;
use super::hold::later;
use super::memory::{Attempt, Write};
use super::observe::{self, Observed, Reserved};
use super::outcome::Outcome;
use super::plan::{Decision, Slot};
use super::pod::{PodFacts, PodRef};
use crate::api::{Reservation, version};

/// What stands of the reservations.
pub struct Standing<'a> {
    /// Those that stay.
    pub kept: Vec<&'a Reservation>,
    /// Those whose pods nobody sees: they are to be read by name.
    pub unseen: Vec<&'a Reservation>,
}

/// How a pod is seen, beside its reservation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// As it was reserved.
    Same,
    /// As it was before, or nobody can tell: what is seen is old.
    Behind,
    /// Later than that.
    Changed,
}

impl Seen {
    /// Compares the pod as it is seen with `entry`.
    pub fn of(entry: &Reservation, pod: &PodFacts) -> Self {
        let (reserved, seen) = (&entry.resource_version, &pod.id.resource_version);
        if reserved == seen {
            return Self::Same;
        }
        match (version(reserved), version(seen)) {
            (Some(reserved), Some(seen)) if seen > reserved => Self::Changed,
            _ => Self::Behind,
        }
    }
}

/// Looks through the reservations.
pub fn standing<'a>(seen: &Observed<'a>) -> Standing<'a> {
    let kept = seen.reservations.iter().filter(|one| stays(one, seen));
    let unseen = seen.reservations.iter();
    let unseen = unseen.filter(|one| one.is_out_of_sight && stays(one, seen));
    Standing {
        kept: kept.map(|one| one.entry).collect(),
        unseen: unseen.map(|one| one.entry).collect(),
    }
}

fn stays(reserved: &Reserved<'_>, seen: &Observed<'_>) -> bool {
    !reserved.is_settled && !is_free(reserved, seen)
}

fn is_free(reserved: &Reserved<'_>, seen: &Observed<'_>) -> bool {
    let is_unsent = || {
        let own = reserved.entry.holder == seen.identity;
        own && seen.memory.attempt_of(reserved.entry) == Attempt::None
    };
    match reserved.waits.map(|pod| Seen::of(reserved.entry, pod)) {
        Some(Seen::Changed) => true,
        Some(Seen::Same) => is_unsent(),
        Some(Seen::Behind) => false,
        None => reserved.is_out_of_sight && is_unsent(),
    }
}

/// Those that stay, and those that are to be granted, now or soon.
fn reservations(
    kept: &[&Reservation],
    decisions: &[Decision],
    seen: &Observed<'_>,
) -> Vec<Reservation> {
    let mut all: Vec<Reservation> = kept.iter().map(|entry| (*entry).clone()).collect();
    let known: HashSet<&str> = kept.iter().map(|entry| entry.uid.as_str()).collect();
    let new = decisions.iter().filter(|decision| {
        decision.slot != Slot::None && !known.contains(decision.pod.uid.as_str())
    });
    all.extend(new.map(|decision| decision.reservation(seen.identity)));
    all.sort();
    all
}

/// What is to be written of the reservations, and when.
pub(super) struct Reserving {
    /// What the pool's status is to say.
    pub(super) reservations: Vec<Reservation>,
    /// Whether that is to be written.
    pub(super) must_write: bool,
    /// When it is to be written, if not now.
    pub(super) next: Option<Timestamp>,
}

impl Reserving {
    /// What a grant waits for is written at once, everything else with it or in its time.
    pub(super) fn of(
        kept: &[&Reservation],
        decisions: &[Decision],
        seen: &Observed<'_>,
        now: Timestamp,
    ) -> Self {
        let stand = seen.reservations.iter().map(|one| one.entry);
        let waits = decisions.iter().any(|decision| {
            decision.slot == Slot::Wanted && matches!(decision.outcome, Outcome::Grant { .. })
        });
        let last = seen.memory.reserved();
        let next = last.map(|last| later(last, ahead::PACE));
        let next = next.filter(|next| !waits && now < *next);
        let wanted = reservations(kept, decisions, seen);
        let is_other = !wanted.iter().eq(stand.clone());
        let next = next.filter(|_| is_other);
        Self {
            must_write: is_other && next.is_none(),
            reservations: match next {
                Some(_) => stand.cloned().collect(),
                None => wanted,
            },
            next,
        }
    }
}

/// The pods that hold slots, cannot be granted now, and may be by a patch that is still on its way: they
/// are to be changed. And when that is to be tried again where it failed.
pub fn releases(
    seen: &Observed<'_>,
    decisions: &[Decision],
    now: Timestamp,
) -> (Vec<PodRef>, Option<Timestamp>) {
    if seen.reservations.is_empty() || seen.standing != observe::Standing::Leading {
        return (Vec::new(), None);
    }
    let decided: HashMap<&str, &Decision> = decisions
        .iter()
        .map(|decision| (decision.pod.uid.as_str(), decision))
        .collect();
    let stuck = seen.reservations.iter().filter(|one| stays(one, seen));
    let stuck = stuck.filter_map(|reserved| {
        let pod = reserved
            .waits
            .filter(|pod| Seen::of(reserved.entry, pod) == Seen::Same)?;
        let decision = decided.get(pod.id.uid.as_str());
        let is_going = decision.is_some_and(|decision| {
            decision.slot != Slot::None || decision.outcome == Outcome::InFlight
        });
        (!is_going).then_some(&pod.id)
    });
    let (mut due, mut next) = (Vec::new(), None::<Timestamp>);
    for pod in stuck {
        let pause = seen.memory.pause(Write::Release, &pod.uid);
        match pause.filter(|at| now < *at) {
            None => due.push(pod.clone()),
            Some(at) => next = Some(next.map_or(at, |next| next.min(at))),
        }
    }
    (due, next)
}
