//! Reserves pods shortly before their hold ends, so that they can be granted as soon as it ends.
//!
//! In: the triaged pods, once all ready ones have their outcome, and the slots, grant rate and capacity that
//! those leave. Out: which held pods to reserve ahead.
//!
//! A reservation is a write to the pool, which takes the API server as long as two or three grants. Ahead of
//! time, one write covers many pods, and a grant waits for a write only if its hold ends in the meantime. A
//! reservation ahead takes no slot from other pods: while no patch for its pod was sent, it holds no slot in
//! the next plan, and any ready pod can get the slot. A new leader counts it (decision D1a), and grants the pod
//! when its hold ends.

use std::time::Duration;

use jiff::Timestamp;

use super::admission::SlotAdmission;
use super::allocation::allocate;
use super::triage::TriagedPod;
use crate::burst::observation::{Leadership, ObservedPool};
use crate::burst::outcome::{HoldReason, PodOutcome};
use crate::k8s::time::later;

/// How long before the end of its hold a pod is reserved: 1 second.
pub const PRE_RESERVATION_LEAD: Duration = Duration::from_secs(1);
/// How often reservations that no grant waits for are written: every 500 ms, twice before a hold ends.
pub const RESERVATION_WRITE_INTERVAL: Duration = Duration::from_millis(500);

/// Marks the held pods that get a reservation before their hold ends.
pub(in crate::burst) fn pre_reserve<'a>(
    triaged_pods: &mut [TriagedPod<'a>],
    observed: &ObservedPool<'_>,
    admission: &mut SlotAdmission<'a>,
) {
    if observed.leadership != Leadership::Leading {
        return;
    }
    let mut soon = Vec::new();
    for (index, triaged) in triaged_pods.iter_mut().enumerate() {
        if !hold_ends_soon(triaged, admission.now) {
            continue;
        }
        if triaged.is_reserved {
            // Another leader may have a grant for the pod in flight. The reservation stays until the hold ends.
            triaged.is_pre_reserved = true;
        } else {
            soon.push(index);
        }
    }
    let entitled = allocate(triaged_pods, soon, observed, admission).allocated;
    for (index, _) in entitled.into_iter().take(admission.limits.rate.available) {
        triaged_pods[index].is_pre_reserved = true;
    }
}

fn hold_ends_soon(triaged: &TriagedPod<'_>, now: Timestamp) -> bool {
    let Some(PodOutcome::Hold { until, why }) = &triaged.outcome else {
        return false;
    };
    *why == HoldReason::TooEarly && *until <= later(now, PRE_RESERVATION_LEAD)
}

/// When to plan again for a pod whose hold ends at `until`.
pub(in crate::burst) fn next_check(
    until: Timestamp,
    why: &HoldReason,
    now: Timestamp,
) -> Timestamp {
    let ahead = until.saturating_sub(PRE_RESERVATION_LEAD).unwrap_or(until);
    if *why == HoldReason::TooEarly && now < ahead {
        ahead
    } else {
        until
    }
}
