//! Triage: decides everything about a pending pod that does not depend on the other pending pods.
//!
//! In: the [`PendingPod`]s. Out: a [`TriagedPod`] for each, with an outcome, or without one if the pod is ready: its
//! hold is over, and it could run in the placements that the case lists.

use std::collections::HashMap;
use std::time::Duration;

use jiff::Timestamp;

use crate::aci::translate::{Unsupported, accept_losses};
use crate::api::{LossSet, Reservation};
use crate::burst::facts::eligibility::{MountReadiness, mount_readiness};
use crate::burst::facts::placement::PlacementSet;
use crate::burst::facts::pod::{PodFacts, PodReference, PodStage};
use crate::burst::facts::versions::VersionComparison;
use crate::burst::leader_state::HoldStart;
use crate::burst::leader_state::PatchOutcome;
use crate::burst::observation::{ObservedPool, PendingPod};
use crate::burst::outcome::{BlockedBy, HoldReason, IgnoreReason, PodOutcome};
use crate::burst::rules::hold;
use crate::burst::rules::limits::GrantCandidate;
use crate::k8s::time::later;

/// A pending pod after triage.
pub(in crate::burst) struct TriagedPod<'a> {
    pub(in crate::burst) pod: &'a PodFacts,
    pub(in crate::burst) workload: usize,
    /// Whether it holds a slot through a reservation.
    pub(in crate::burst) is_reserved: bool,
    /// Whether it gets a reservation before its hold ends.
    pub(in crate::burst) is_pre_reserved: bool,
    /// The outcome. `None` if the pod is ready to be granted.
    pub(in crate::burst) outcome: Option<PodOutcome>,
    /// The start of its hold. `None` if the pod cannot burst.
    pub(in crate::burst) hold_start: Option<HoldStart>,
    /// The placements that could run it.
    pub(in crate::burst) placements: PlacementSet,
    /// What it loses in one of them.
    pub(in crate::burst) not_kept: LossSet,
}

impl<'a> TriagedPod<'a> {
    /// What a grant for the pod asks of the limits.
    pub(in crate::burst) fn candidate(&self) -> GrantCandidate<'a> {
        GrantCandidate {
            pod: self.pod,
            workload: self.workload,
            placements: self.placements,
        }
    }
}

/// For how long after it was bound a pod that Azure refuses, and that stays on its virtual node, blocks the
/// other pods of its template.
const REFUSAL_TTL: Duration = Duration::from_secs(600);

/// Pod templates that burst no further pods, each with the reason.
type RefusedTemplates<'a> = HashMap<&'a str, String>;

/// Triages each candidate. `holds` are the lengths of the holds of each workload; `reserved` are the reservations that
/// count.
pub(in crate::burst) fn triage<'a>(
    observed: &ObservedPool<'a>,
    holds: &[Duration],
    reserved: &[&Reservation],
    now: Timestamp,
) -> Vec<TriagedPod<'a>> {
    let refused = refused_templates(observed, now);
    let reserved = reserved.iter().map(|one| (one.uid.as_str(), *one));
    let reserved: HashMap<&str, &Reservation> = reserved.collect();
    let all = observed.pending_pods.iter();
    all.map(|candidate| {
        let entry = reserved.get(candidate.pod.id.uid.as_str());
        let mut triaged = TriagedPod {
            pod: candidate.pod,
            workload: candidate.workload,
            is_reserved: entry.is_some(),
            is_pre_reserved: false,
            outcome: None,
            hold_start: None,
            placements: PlacementSet::default(),
            not_kept: LossSet::default(),
        };
        triaged.outcome = triage_pod(&mut triaged, candidate, observed, holds, &refused, now);
        let is_behind = entry.is_some_and(|entry| {
            VersionComparison::compare(entry, triaged.pod) != VersionComparison::Same
        });
        if is_behind && triaged.outcome.is_none() {
            // The reservation is for a version of the pod that the watch does not show yet. Only that version
            // may be granted.
            triaged.outcome = Some(PodOutcome::InFlight);
        }
        triaged
    })
    .collect()
}

/// Finds the templates that burst no further pods.
///
/// 1. ACI does not run a pod of the template that was bound within the last [`REFUSAL_TTL`] and is still there, or
///    the pause that memory keeps for the template still runs. Not if another pod of the template has started:
///    then the template is not the cause.
/// 2. The scheduler places a pod of the template on no virtual node, so its grant expired. This holds even if
///    other pods of the template run there: with topology spread by zone, the next pod may fit nowhere.
fn refused_templates<'a>(observed: &ObservedPool<'a>, now: Timestamp) -> RefusedTemplates<'a> {
    let placed = observed.granted.iter().map(|granted| granted.pod);
    let placed = placed.chain(observed.user_placed.iter().map(|(pod, _)| *pod));
    let placed = placed.filter_map(|pod| Some((pod, pod.owner.as_ref()?, pod.bound()?)));
    let refusals = placed.clone().filter_map(|(pod, owner, bound)| {
        let since = bound.bound_since.map(|since| observed.by_our_clock(since));
        let is_new = since.is_none_or(|since| now < later(since, REFUSAL_TTL));
        let why = bound.refusal.as_deref().filter(|_| is_new)?;
        Some((owner.template.as_str(), (&pod.id, why)))
    });
    let remembered = observed.leader_state.rejected_templates(now);
    let remembered = remembered.map(|(template, why)| (template, why.to_owned()));
    let refusals = first(refusals).map(|(template, (_, why))| (template, why.to_owned()));
    let mut refused: RefusedTemplates<'a> = remembered.chain(refusals).collect();
    for why in refused.values_mut() {
        *why = format!("ACI does not run another pod of its template: {why}");
    }
    for (_, owner, _) in placed.filter(|(_, _, bound)| bound.has_started) {
        refused.remove(owner.template.as_str());
    }
    // Without the scheduler's message: its numbers change, and each change would create another Event for every
    // pod of the template.
    let expired = observed.expired.iter().filter_map(|(pod, _)| {
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
    all: impl Iterator<Item = (&'a str, (&'a PodReference, T))>,
) -> impl Iterator<Item = (&'a str, (&'a PodReference, T))> {
    let mut first: HashMap<&str, (&PodReference, T)> = HashMap::new();
    for (template, (id, what)) in all {
        let is_first = first.get(template).is_none_or(|(known, _)| id < *known);
        if is_first {
            first.insert(template, (id, what));
        }
    }
    first.into_iter()
}

fn triage_pod(
    triaged: &mut TriagedPod<'_>,
    candidate: &PendingPod<'_>,
    observed: &ObservedPool<'_>,
    holds: &[Duration],
    refused: &RefusedTemplates<'_>,
    now: Timestamp,
) -> Option<PodOutcome> {
    let pod = candidate.pod;
    let PodStage::Unschedulable(transition) = pod.stage else {
        return Some(PodOutcome::Ignore(IgnoreReason::NotUnschedulable));
    };
    if pod.is_deleting {
        return Some(PodOutcome::Ignore(IgnoreReason::Deleting));
    }
    if candidate.is_user_placed && candidate.has_foreign_grant {
        return Some(PodOutcome::Ignore(IgnoreReason::ForeignGrant));
    }
    if candidate.is_user_placed {
        return Some(PodOutcome::Ignore(IgnoreReason::UserPlaced));
    }
    let eligible = check_eligibility(triaged, candidate, observed, refused);
    if eligible.is_some() {
        return eligible;
    }
    let remembered = observed.leader_state.hold_start(&pod.id.uid);
    let start = hold::start(pod, transition, remembered, observed.ahead, now);
    triaged.hold_start = Some(start);
    if observed.leader_state.patch_outcome(&pod.id) == PatchOutcome::Pending {
        return Some(PodOutcome::InFlight);
    }
    let after = *holds.get(candidate.workload)?;
    check_hold(candidate, start, observed, after, now)
}

/// The hold that still applies to the pod: `spill.after`, a nomination, or the pause after a denied grant.
fn check_hold(
    candidate: &PendingPod<'_>,
    start: HoldStart,
    observed: &ObservedPool<'_>,
    after: Duration,
    now: Timestamp,
) -> Option<PodOutcome> {
    let pod = candidate.pod;
    let workload = observed.workloads.get(candidate.workload)?;
    let until = hold::end(start, after);
    if now < until {
        let why = if pod.is_nominated {
            HoldReason::Nominated
        } else {
            HoldReason::TooEarly
        };
        return Some(PodOutcome::Hold { until, why });
    }
    let denials = [
        observed.leader_state.denial(&pod.id.uid),
        observed
            .leader_state
            .unmarkable_backoff(&workload.spec.name),
    ];
    let mut denials = denials.into_iter().flatten();
    let denial = denials.find(|denial| now < denial.until)?;
    Some(PodOutcome::Hold {
        until: denial.until,
        why: HoldReason::Denied(denial.why.clone()),
    })
}

/// Why the pod cannot be granted, or `None` if at least one placement can run it. Sets `triaged.placements`. A refusal
/// contains every reason at once, including the pod's volume claims.
fn check_eligibility(
    triaged: &mut TriagedPod<'_>,
    candidate: &PendingPod<'_>,
    observed: &ObservedPool<'_>,
    refused: &RefusedTemplates<'_>,
) -> Option<PodOutcome> {
    let pod = candidate.pod;
    let placed = check_placements(triaged, candidate, observed);
    let mut all = check_pod(pod, refused);
    if triaged.placements.is_empty() {
        // The pod has not been translated yet. A pool without placements has nothing to translate for.
        if placed.is_empty() && (all.is_empty() || !observed.placements.is_empty()) {
            return Some(PodOutcome::Ignore(IgnoreReason::NotEvaluated));
        }
        all.extend(placed);
    }
    if observed.neighbors.is_awaited(pod, observed.namespaces) {
        return Some(PodOutcome::Ignore(IgnoreReason::NotEvaluated));
    }
    match mount_readiness(pod, observed.claims) {
        MountReadiness::Unread => return Some(PodOutcome::Ignore(IgnoreReason::NotEvaluated)),
        MountReadiness::Waiting(why) if all.is_empty() => {
            return Some(PodOutcome::Blocked(BlockedBy::ClaimNotBound(why)));
        }
        MountReadiness::Refused(refusals) => all.extend(refusals),
        MountReadiness::Ready | MountReadiness::Waiting(_) => {}
    }
    (!all.is_empty()).then_some(PodOutcome::Refuse(all))
}

/// Reasons against every placement, independent of the placements themselves.
fn check_pod(pod: &PodFacts, refused: &RefusedTemplates<'_>) -> Vec<Unsupported> {
    let mut all = Vec::new();
    let mut refuse = |field: &str, why: String| {
        let field = field.to_owned();
        all.push(Unsupported::new(field, why));
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

/// Adds the placements that could run the pod to the case, with what it loses there, and returns the reasons against
/// the others.
fn check_placements(
    triaged: &mut TriagedPod<'_>,
    candidate: &PendingPod<'_>,
    observed: &ObservedPool<'_>,
) -> Vec<Unsupported> {
    let pod = candidate.pod;
    let mut all: Vec<Unsupported> = Vec::new();
    let accepted = &observed.workloads[candidate.workload].accepted;
    for (index, place) in observed.placements.iter().enumerate() {
        let translated = candidate.refusals.get(index).copied().flatten();
        let ruled = pod
            .node_constraints
            .refusal(&place.node, &place.labels, &place.taints);
        let translated = translated.map(|refusals| accept_losses(refusals, accepted));
        match (translated, ruled) {
            (Some(Ok(losses)), None) => {
                triaged.placements = triaged.placements.with(index);
                triaged.not_kept.extend(losses.iter());
            }
            (translated, ruled) => {
                let refused = translated.and_then(Result::err).unwrap_or_default();
                let new = refused.into_iter().cloned().chain(ruled);
                all.extend(new.filter(|one| !all.contains(one)).collect::<Vec<_>>());
            }
        }
    }
    all
}
