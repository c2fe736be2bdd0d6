//! Which pods count although nobody sees them granted (design D1a).
//!
//! In: the reservations in the pool's status and what is seen of their pods. Out: those that must stay,
//! those whose pods must be looked for, and those that are to be given back. A reservation is of one
//! version of its pod, and no leader ever grants another: so it stays until its pod is seen granted, is
//! home or gone, or is seen at a later version without a grant. While the pod is of that version, one of
//! our own may also go when no patch of it was, or can still be, carried out. Of another instance's, or
//! of an earlier term of our own, nobody knows that: whoever led before may be frozen with a patch in
//! its hands. We grant such a pod; where we cannot, we change it, and with its version goes whatever is
//! still on its way.

use std::collections::HashMap;

use jiff::Timestamp;

use super::memory::Attempt;
use super::observe::{self, Observed, Reserved};
use super::outcome::Outcome;
use super::plan::Decision;
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
    let unseen = seen.reservations.iter().filter(|one| one.is_out_of_sight);
    Standing {
        kept: kept.map(|one| one.entry).collect(),
        unseen: unseen.map(|one| one.entry).collect(),
    }
}

fn stays(reserved: &Reserved<'_>, seen: &Observed<'_>) -> bool {
    !reserved.is_settled && !is_free(reserved, seen)
}

fn is_free(reserved: &Reserved<'_>, seen: &Observed<'_>) -> bool {
    let Some(pod) = waits(reserved) else {
        return false;
    };
    match Seen::of(reserved.entry, pod) {
        Seen::Changed => true,
        Seen::Same => {
            let own = reserved.entry.holder == seen.identity;
            own && seen.memory.attempt(&pod.id) == Attempt::None
        }
        Seen::Behind => false,
    }
}

/// The pod as it waits without a grant.
fn waits<'a>(reserved: &Reserved<'a>) -> Option<&'a PodFacts> {
    reserved.waits.filter(|pod| pod.grant.is_none())
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
    let decided: HashMap<&str, &Outcome> = decisions
        .iter()
        .map(|decision| (decision.pod.uid.as_str(), &decision.outcome))
        .collect();
    let stuck = seen.reservations.iter().filter(|one| stays(one, seen));
    let stuck = stuck.filter_map(|reserved| {
        let pod = waits(reserved).filter(|pod| Seen::of(reserved.entry, pod) == Seen::Same)?;
        let outcome = decided.get(pod.id.uid.as_str());
        let is_going = matches!(outcome, Some(Outcome::Grant { .. } | Outcome::InFlight));
        (!is_going).then_some(&pod.id)
    });
    let (mut due, mut next) = (Vec::new(), None::<Timestamp>);
    for pod in stuck {
        match seen.memory.release(&pod.uid).filter(|at| now < *at) {
            None => due.push(pod.clone()),
            Some(at) => next = Some(next.map_or(at, |next| next.min(at))),
        }
    }
    (due, next)
}
