//! Turns the outcomes of the triaged pods into decisions, and finds the refused-since times to write.
//!
//! In: the triaged pods, once all steps have given them outcomes. Out: [`PodDecision`]s and [`RefusedSinceStamp`]s.

use std::collections::HashMap;

use jiff::Timestamp;

use super::triage::TriagedPod;
use crate::api::Reservation;
use crate::burst::decision::{PodDecision, RefusedSinceStamp, SlotState};
use crate::burst::leader_state::{PatchOutcome, PodWrite};
use crate::burst::observation::{Leadership, ObservedPool};
use crate::burst::outcome::{IgnoreReason, PodOutcome};
use crate::k8s::time::shifted;

/// The decision for each triaged pod.
pub(in crate::burst) fn decisions(
    triaged_pods: Vec<TriagedPod<'_>>,
    observed: &ObservedPool<'_>,
    is_dry_run: bool,
) -> Vec<PodDecision> {
    let entries = observed.reservations.iter().map(|one| one.reservation);
    let entries: HashMap<&str, &Reservation> =
        entries.map(|entry| (entry.uid.as_str(), entry)).collect();
    let all = triaged_pods.into_iter().map(|triaged| {
        let is_granted = matches!(triaged.outcome, Some(PodOutcome::Grant { .. }));
        let mut decision = PodDecision {
            pod: triaged.pod.id.clone(),
            workload: observed.workloads[triaged.workload].spec.name.clone(),
            // `admit` gives every pod an outcome, so this default is never used.
            outcome: triaged
                .outcome
                .unwrap_or(PodOutcome::Ignore(IgnoreReason::NotEvaluated)),
            slot: SlotState::None,
            hold_start: triaged.hold_start,
        };
        if is_granted || triaged.is_pre_reserved {
            let entry = entries.get(triaged.pod.id.uid.as_str());
            let stands =
                entry.is_some_and(|entry| **entry == decision.reservation(observed.identity));
            decision.slot = match (triaged.is_reserved, is_dry_run) {
                (true, _) => SlotState::Reserved,
                (false, true) => SlotState::None,
                (false, false) if stands => SlotState::Reserved,
                (false, false) => SlotState::ToReserve,
            };
        }
        decision
    });
    all.collect()
}

/// The refused-since times to write. Only pods that can burst get one: the hold of other pods never ends.
pub(in crate::burst) fn refused_since_stamps(
    triaged_pods: &[TriagedPod<'_>],
    observed: &ObservedPool<'_>,
    now: Timestamp,
) -> Vec<RefusedSinceStamp> {
    if observed.leadership != Leadership::Leading {
        return Vec::new();
    }
    let unknown = triaged_pods.iter().filter_map(|triaged| {
        let start = triaged.hold_start.filter(|start| start.must_annotate)?;
        let is_known = observed.leader_state.patch_outcome(&triaged.pod.id)
            != PatchOutcome::NotApplied
            || observed.is_backing_off(PodWrite::RefusedSince, &triaged.pod.id, now);
        (!is_known && !matches!(triaged.outcome, Some(PodOutcome::Grant { .. }))).then(|| {
            RefusedSinceStamp {
                pod: triaged.pod.id.clone(),
                since: shifted(start.refused_since, observed.ahead),
            }
        })
    });
    unknown.collect()
}
