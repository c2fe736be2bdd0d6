//! What becomes of granted pods that are on ACI and never started.
//!
//! In: the pods on the placements whose creates fail. Out: those that are to be deleted, so that
//! another may run at home or elsewhere, or that are to be told of. Only where their controller makes
//! another and counts nothing; a Job would count a failure. Each once: the one that follows is another.

use std::time::Duration;

use jiff::Timestamp;

use super::hold::later;
use super::observe::Observed;
use super::pod::{OwnerKind, PodRef};

/// How long a pod may try to start where nothing starts: longer than an image takes, and than the
/// first pauses of a closed placement.
pub const DEADLINE: Duration = Duration::from_secs(300);

/// A pod that never started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rescue {
    /// Which pod.
    pub pod: PodRef,
    /// What is done about it.
    pub action: Action,
    /// Why its placement does not start it, in Azure's words.
    pub why: String,
}

/// What is done about a pod that never started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It is deleted, if it is still this one: its controller makes another.
    Delete,
    /// It is told of: its controller would count a failure, or it has none.
    Tell,
}

/// Those whose time is over, and when the next one's is.
pub fn due(seen: &Observed<'_>, now: Timestamp) -> (Vec<Rescue>, Option<Timestamp>) {
    let (mut due, mut next) = (Vec::new(), None::<Timestamp>);
    let spilled = seen.granted.iter().filter(|granted| granted.is_spilled);
    for pod in spilled.map(|granted| granted.pod) {
        let Some(bound) = pod.bound().filter(|bound| !bound.has_started) else {
            continue;
        };
        let place = seen.places.iter().find(|place| place.node == bound.node);
        let trouble = place.and_then(|place| {
            let backend = seen.memory.backends().get(&place.placement)?;
            Some((place.placement.as_str(), backend.trouble()?))
        });
        let (Some((placement, trouble)), Some(since), false) =
            (trouble, bound.since, pod.is_deleting)
        else {
            continue;
        };
        let until = later(since, DEADLINE);
        if now < until {
            next = Some(next.map_or(until, |next| next.min(until)));
            continue;
        }
        let replaces = pod
            .owner
            .as_ref()
            .is_some_and(|owner| owner.kind == OwnerKind::Replaces);
        let (action, then) = if replaces {
            let then = "it is to be deleted, and its owner makes another";
            (Action::Delete, then)
        } else {
            (Action::Tell, "it stays: its owner would count a failure")
        };
        due.push(Rescue {
            pod: pod.id.clone(),
            action,
            why: format!("placement {placement} starts no pods: {trouble}; {then}"),
        });
    }
    (due, next)
}
