//! Triage: decides everything about a pending pod that does not depend on the other pending pods.
//!
//! In: the [`Candidate`]s. Out: a [`Case`] for each, with an outcome, or without one if the pod is ready: its
//! hold is over, and it could run in the placements that the case lists.

use std::collections::HashMap;
use std::time::Duration;

use jiff::Timestamp;

use super::eligibility::{Mounts, mounts};
use super::hold::{self, Start, later};
use super::limits::Limits;
use super::memory::Attempt;
use super::observe::{Candidate, Observed};
use super::outcome::{Held, Ignored, Lack, Outcome};
use super::pod::{PodFacts, PodRef, Stage};
use super::reserve::Seen;
use super::room::Places;
use crate::aci::translate::Unsupported;
use crate::api::Reservation;

/// A pending pod after triage.
pub(super) struct Case<'a> {
    pub(super) pod: &'a PodFacts,
    pub(super) workload: usize,
    /// Whether it holds a slot through a reservation.
    pub(super) is_reserved: bool,
    /// Whether it gets a reservation before its hold ends.
    pub(super) is_ahead: bool,
    /// The outcome. `None` if the pod is ready to be granted.
    pub(super) outcome: Option<Outcome>,
    /// The start of its hold. `None` if the pod cannot burst.
    pub(super) start: Option<Start>,
    /// The placements that could run it.
    pub(super) places: Places,
}

/// For how long after it was bound a pod that Azure refuses, and that stays on its virtual node, blocks the
/// other pods of its template.
const BELIEVED: Duration = Duration::from_secs(600);

/// Pod templates that burst no further pods, each with the reason.
type Refused<'a> = HashMap<&'a str, String>;

/// Triages each candidate. `reserved` are the reservations that count, by the pod's UID.
pub(super) fn cases<'a>(
    seen: &Observed<'a>,
    limits: &Limits,
    reserved: &HashMap<&str, &Reservation>,
    now: Timestamp,
) -> Vec<Case<'a>> {
    let refused = refused(seen, now);
    let all = seen.candidates.iter();
    all.map(|candidate| {
        let entry = reserved.get(candidate.pod.id.uid.as_str());
        let mut case = Case {
            pod: candidate.pod,
            workload: candidate.workload,
            is_reserved: entry.is_some(),
            is_ahead: false,
            outcome: None,
            start: None,
            places: Places::default(),
        };
        case.outcome = outcome(&mut case, candidate, seen, limits, &refused, now);
        let is_behind = entry.is_some_and(|entry| Seen::of(entry, case.pod) != Seen::Same);
        if is_behind && case.outcome.is_none() {
            // The reservation is for a version of the pod that the watch does not show yet. Only that version
            // may be granted.
            case.outcome = Some(Outcome::InFlight);
        }
        case
    })
    .collect()
}

/// Finds the templates that burst no further pods.
///
/// 1. Azure refuses a pod of the template that was bound within the last [`BELIEVED`] and is still there, or
///    the pause that memory keeps for the template still runs. Not if another pod of the template has started:
///    then the template is not the cause.
/// 2. The scheduler places a pod of the template on no virtual node, so its grant expired. This holds even if
///    other pods of the template run there: with topology spread by zone, the next pod may fit nowhere.
fn refused<'a>(seen: &Observed<'a>, now: Timestamp) -> Refused<'a> {
    let placed = seen.granted.iter().map(|granted| granted.pod);
    let placed = placed.chain(seen.guests.iter().map(|(pod, _)| *pod));
    let placed = placed.filter_map(|pod| Some((pod, pod.owner.as_ref()?, pod.bound()?)));
    let refusals = placed.clone().filter_map(|(pod, owner, bound)| {
        let since = bound.since.map(|since| seen.by_our_clock(since));
        let is_new = since.is_none_or(|since| now < later(since, BELIEVED));
        let why = bound.refused.as_deref().filter(|_| is_new)?;
        Some((owner.template.as_str(), (&pod.id, why)))
    });
    let remembered = seen.memory.rejected(now);
    let remembered = remembered.map(|(template, why)| (template, why.to_owned()));
    let refusals = first(refusals).map(|(template, (_, why))| (template, why.to_owned()));
    let mut refused: Refused<'a> = remembered.chain(refusals).collect();
    for why in refused.values_mut() {
        *why = format!("Azure refused another pod of its template: {why}");
    }
    for (_, owner, _) in placed.filter(|(_, _, bound)| bound.has_started) {
        refused.remove(owner.template.as_str());
    }
    // Without the scheduler's message: its numbers change, and each change would create another Event for every
    // pod of the template.
    let expired = seen.expired.iter().filter_map(|(pod, _)| {
        let owner = pod.owner.as_ref()?;
        Some((owner.template.as_str(), (&pod.id, ())))
    });
    let expired = first(expired).map(|(template, (id, ()))| {
        let (namespace, name) = (&id.namespace, &id.name);
        let why = format!(
            "the scheduler places the pod {namespace}/{name} of its template on no virtual node; that pod's \
             condition PodScheduled says why"
        );
        (template, why)
    });
    refused.extend(expired);
    refused
}

/// For each template, what belongs to the first of its pods by ID. The caches have no order, and a message that
/// names another pod each time would create another Event.
fn first<'a, T>(
    all: impl Iterator<Item = (&'a str, (&'a PodRef, T))>,
) -> impl Iterator<Item = (&'a str, (&'a PodRef, T))> {
    let mut first: HashMap<&str, (&PodRef, T)> = HashMap::new();
    for (template, (id, what)) in all {
        let is_first = first.get(template).is_none_or(|(known, _)| id < *known);
        if is_first {
            first.insert(template, (id, what));
        }
    }
    first.into_iter()
}

fn outcome(
    case: &mut Case<'_>,
    candidate: &Candidate<'_>,
    seen: &Observed<'_>,
    limits: &Limits,
    refused: &Refused<'_>,
    now: Timestamp,
) -> Option<Outcome> {
    let pod = candidate.pod;
    let Stage::Refused(transition) = pod.stage else {
        return Some(Outcome::Ignore(Ignored::NotRefused));
    };
    if pod.is_deleting {
        return Some(Outcome::Ignore(Ignored::Deleting));
    }
    if candidate.is_user_placed && candidate.has_foreign_grant {
        return Some(Outcome::Ignore(Ignored::ForeignGrant));
    }
    if candidate.is_user_placed {
        return Some(Outcome::Ignore(Ignored::UserPlaced));
    }
    let eligible = eligible(case, candidate, seen, refused);
    if eligible.is_some() {
        return eligible;
    }
    let remembered = seen.memory.refused_since(&pod.id.uid);
    let start = hold::start(pod, transition, remembered, seen.ahead, now);
    case.start = Some(start);
    if seen.memory.attempt(&pod.id) == Attempt::Awaited {
        return Some(Outcome::InFlight);
    }
    let after = limits.workloads.get(candidate.workload)?.after;
    held(candidate, start, seen, after, now)
}

/// The hold that still applies to the pod: `spill.after`, a nomination, or the pause after a denied grant.
fn held(
    candidate: &Candidate<'_>,
    start: Start,
    seen: &Observed<'_>,
    after: Duration,
    now: Timestamp,
) -> Option<Outcome> {
    let pod = candidate.pod;
    let workload = seen.workloads.get(candidate.workload)?;
    let until = hold::end(start, after);
    if now < until {
        let why = if pod.is_nominated {
            Held::Nominated
        } else {
            Held::Young
        };
        return Some(Outcome::Hold { until, why });
    }
    let denials = [
        seen.memory.denial(&pod.id.uid),
        seen.memory.unmarkable(&workload.spec.name),
    ];
    let mut denials = denials.into_iter().flatten();
    let denial = denials.find(|denial| now < denial.until)?;
    Some(Outcome::Hold {
        until: denial.until,
        why: Held::Denied(denial.why.clone()),
    })
}

/// Why the pod cannot be granted, or `None` if at least one placement can run it. Sets `case.places`. A refusal
/// contains every reason at once, including the pod's volume claims.
fn eligible(
    case: &mut Case<'_>,
    candidate: &Candidate<'_>,
    seen: &Observed<'_>,
    refused: &Refused<'_>,
) -> Option<Outcome> {
    let pod = candidate.pod;
    let placed = place(case, candidate, seen);
    let mut all = own(pod, refused);
    if case.places.is_empty() {
        // The pod has not been translated yet. A pool without placements has nothing to translate for.
        if placed.is_empty() && (all.is_empty() || !seen.places.is_empty()) {
            return Some(Outcome::Ignore(Ignored::Unjudged));
        }
        all.extend(placed);
    }
    if seen.neighbors.is_awaited(pod, seen.namespaces) {
        return Some(Outcome::Ignore(Ignored::Unjudged));
    }
    match mounts(pod, seen.claims) {
        Mounts::Unread => return Some(Outcome::Ignore(Ignored::Unjudged)),
        Mounts::Waiting(why) if all.is_empty() => return Some(Outcome::Wait(Lack::Claim(why))),
        Mounts::Refused(refusals) => all.extend(refusals),
        Mounts::Ready | Mounts::Waiting(_) => {}
    }
    (!all.is_empty()).then_some(Outcome::Refuse(all))
}

/// Reasons against every placement, independent of the placements themselves.
fn own(pod: &PodFacts, refused: &Refused<'_>) -> Vec<Unsupported> {
    let mut all = Vec::new();
    let mut refuse = |field: &str, why: String| {
        let field = field.to_owned();
        all.push(Unsupported { field, why });
    };
    if let Some(scheduler) = &pod.scheduler {
        refuse(
            "spec.schedulerName",
            format!("{scheduler} is not the default scheduler, which places pods on virtual nodes"),
        );
    }
    let template = pod.owner.as_ref().map(|owner| owner.template.as_str());
    if let Some(why) = template.and_then(|template| refused.get(template)) {
        refuse("spec", why.clone());
    }
    all
}

/// Adds the placements that could run the pod to the case, and returns the reasons against the others.
fn place(case: &mut Case<'_>, candidate: &Candidate<'_>, seen: &Observed<'_>) -> Vec<Unsupported> {
    let pod = candidate.pod;
    let mut all: Vec<Unsupported> = Vec::new();
    for (index, place) in seen.places.iter().enumerate() {
        let translated = candidate.refusals.get(index).copied().flatten();
        let ruled = pod
            .demands
            .refusal(&place.node, &place.labels, &place.taints);
        match (translated, ruled) {
            (Some([]), None) => case.places = case.places.with(index),
            (translated, ruled) => {
                let new = translated.unwrap_or_default().iter().cloned().chain(ruled);
                all.extend(new.filter(|one| !all.contains(one)).collect::<Vec<_>>());
            }
        }
    }
    all
}
