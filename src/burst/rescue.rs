//! What becomes of granted pods that are on ACI and never started.
//!
//! In: the pods on the placements whose creates fail, those that Azure refuses for good, and those that wait
//! for Azure. Out: those that are to be deleted, so that another may run at home or elsewhere, or that are to
//! be told of. Only where their controller makes another; whether a Job does is asked when it is to be done
//! ([`jobs`](super::jobs)). Each once: the one that follows is another.

use std::collections::HashMap;
use std::time::Duration;

use jiff::Timestamp;

use super::hold::later;
use super::observe::Observed;
use super::pod::{Bound, Owner, OwnerKind, PodFacts, PodRef};
use crate::aci::failure::Class;

/// How long a pod may try to start where nothing starts: longer than an image takes, and than the
/// first pauses of a closed placement.
pub const DEADLINE: Duration = Duration::from_secs(300);

/// How long a pod is left that Azure refuses for good: nothing but an edit of its owner would help it.
pub const REFUSED: Duration = Duration::from_secs(60);

/// A pod that never started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rescue {
    /// Which pod.
    pub pod: PodRef,
    /// What is done about it.
    pub action: Action,
    /// Its controller.
    pub owner: Option<Owner>,
    /// Why its placement does not start it, in Azure's words.
    pub why: String,
    /// What of it is its template's fault, as far as Azure's words tell: the template, and the words.
    pub fault: Option<(String, String)>,
}

/// What is done about a pod that never started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It is deleted, if it is still this one: its controller makes another.
    Delete,
    /// Its Job is read, and it is evicted if that makes another: an eviction marks it as disrupted, which the Job's
    /// failure policy may ignore. Else it is told of.
    AskJob,
    /// It is told of: nothing that is known makes another.
    Tell,
}

/// What is due.
#[derive(Clone, Debug, Default)]
pub struct Due {
    /// The pods whose time is over.
    pub rescues: Vec<Rescue>,
    /// When the time of the next one is over.
    pub next: Option<Timestamp>,
    /// The pods that have not started, by UID, and since when Azure lets each of them wait.
    pub waiting: HashMap<String, Timestamp>,
}

/// The pods whose time is over at `now`, and what the next call needs to know.
///
/// A pod may have waited long for something else, for example a `ConfigMap`, before Azure was asked for
/// its group. So the time that it waits for Azure counts from when that was seen first, and goes on while
/// attempts come in between.
pub fn due(seen: &Observed<'_>, now: Timestamp) -> Due {
    let mut due = Due::default();
    let spilled = seen.granted.iter().filter(|granted| granted.is_spilled);
    for pod in spilled.map(|granted| granted.pod) {
        let Some(bound) = pod.bound().filter(|bound| !bound.has_started) else {
            continue;
        };
        let cause = Cause::of(bound, seen);
        let waits = matches!(cause, Some(Cause::Waits(..))).then_some(now);
        let waits = seen.memory.waits_since(&pod.id.uid).or(waits);
        if let Some(since) = waits {
            due.waiting.insert(pod.id.uid.clone(), since);
        }
        let (Some(cause), Some(bound_at), false) = (cause, bound.since, pod.is_deleting) else {
            continue;
        };
        let since = match cause {
            Cause::Waits(..) => waits.unwrap_or(now),
            Cause::Refused(_) | Cause::Placement(..) => seen.by_our_clock(bound_at),
        };
        let until = later(since, cause.patience());
        if now < until {
            due.next = Some(due.next.map_or(until, |next| next.min(until)));
            continue;
        }
        due.rescues.push(rescue(pod, &cause));
    }
    due
}

/// Why a pod has not started.
enum Cause<'a> {
    /// Azure refuses it for good.
    Refused(&'a str),
    /// Nothing starts in its placement.
    Placement(&'a str, &'a str),
    /// It waits for Azure.
    Waits(Class, &'a str),
}

impl<'a> Cause<'a> {
    fn of(bound: &'a Bound, seen: &'a Observed<'_>) -> Option<Self> {
        if let Some(why) = &bound.refused {
            return Some(Self::Refused(why));
        }
        let place = seen.places.iter().find(|place| place.node == bound.node);
        let trouble = place.and_then(|place| {
            let backend = seen.memory.backends().get(&place.placement)?;
            Some(Self::Placement(&place.placement, backend.trouble()?))
        });
        let waits = bound.waits.as_ref();
        trouble.or_else(|| waits.map(|(class, why)| Self::Waits(*class, why)))
    }

    fn patience(&self) -> Duration {
        match self {
            Self::Refused(_) => REFUSED,
            Self::Placement(..) | Self::Waits(..) => DEADLINE,
        }
    }

    /// Azure's words, if the next pod of the template would meet the same.
    fn fault(&self) -> Option<&str> {
        match self {
            Self::Refused(why) | Self::Waits(Class::Unknown, why) => Some(why),
            Self::Placement(..) | Self::Waits(..) => None,
        }
    }

    fn words(&self) -> String {
        match self {
            Self::Refused(why) => format!("Azure refuses it: {why}"),
            Self::Placement(placement, why) => {
                format!("placement {placement} starts no pods: {why}")
            }
            Self::Waits(class, why) => {
                let minutes = DEADLINE.as_secs() / 60;
                format!(
                    "it has waited for Azure for {minutes} minutes ({}): {why}",
                    class.reason()
                )
            }
        }
    }
}

fn rescue(pod: &PodFacts, cause: &Cause<'_>) -> Rescue {
    let owner = pod.owner.as_ref();
    let (action, then) = match owner.map(|owner| owner.kind) {
        Some(OwnerKind::Replaces) => {
            let then = "; it is to be deleted, and its owner makes another";
            (Action::Delete, then)
        }
        Some(OwnerKind::Job) => (Action::AskJob, ""),
        _ => (
            Action::Tell,
            "; it stays: it has no owner that makes another",
        ),
    };
    let template = owner.map(|owner| owner.template.clone());
    Rescue {
        pod: pod.id.clone(),
        action,
        owner: owner.cloned(),
        why: format!("{}{then}", cause.words()),
        fault: template.and_then(|template| Some((template, cause.fault()?.to_owned()))),
    }
}
