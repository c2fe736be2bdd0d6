//! Plans what the operator does for one pool now, with the reasons, and the time of the next plan.
//!
//! In: the pool, the [`ObservedPool`] objects that concern it, and the current time by the operator's monotonic
//! clock. Out: a [`BurstPlan`]. The same input always gives the same plan. A second plan after the first was carried
//! out contains nothing new.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use jiff::Timestamp;

use super::decision::{PodDecision, SlotState};
use super::facts::pod::PodReference;
use super::leader_state::placement_health::PlacementAvailability;
use super::leader_state::{PatchOutcome, PlanRecord, PodWrite, RejectedPod};
use super::observation::{Leadership, ObservedPool};
use super::outcome::{BlockedBy, IgnoreReason, PodOutcome};
use super::rules::expiry;
use super::rules::expiry::GrantExpiry;
use super::select::admission::{SlotAdmission, admit, next_window_start};
use super::select::counts;
use super::select::never_started;
use super::select::never_started::NeverStarted;
use super::select::pre_reservation;
use super::select::reservations;
use super::select::reservations::ReservationWrite;
use super::select::triage::{TriagedPod, triage};
use crate::api::{BurstPool, Mode, PodCounts, Reservation, WorkloadStatus};
use crate::k8s::time::{later, shifted};

/// The interval, 1 second, after which the operator plans again while reserved pods are in no watch, grants are
/// in flight, or it does not lead the pool yet.
const RECHECK_DELAY: Duration = Duration::from_secs(1);

/// Everything that the operator does for a pool after one planning run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BurstPlan {
    /// The pool's `mode` is `DryRun`: the plan is complete, but the operator must not write to pods.
    pub is_dry_run: bool,
    /// The precondition that the operator must meet before it may grant.
    pub precondition: Precondition,
    /// The new `status.reservations`. It must be written before the grants that are not yet reserved are sent.
    pub reservations: Vec<Reservation>,
    /// Whether `reservations` differs from `status.reservations` and must be written now.
    pub must_write_reservations: bool,
    /// Reserved pods that the plan cannot grant now. The operator changes each pod, which frees its
    /// reservation: a grant for the old version of the pod can no longer succeed.
    pub releases: Vec<PodReference>,
    /// Reservations whose pods are in no watch. The operator reads these pods by name and reports the results
    /// to [`LeaderState`](super::LeaderState).
    pub unwatched_reservations: Vec<Reservation>,
    /// The decision for each pending pod.
    pub decisions: Vec<PodDecision>,
    /// Refused-since times to write to pods as an annotation.
    pub refused_since_stamps: Vec<RefusedSinceStamp>,
    /// Actions for pods that never started.
    pub never_started: Vec<NeverStarted>,
    /// Grants that expire now.
    pub expiries: Vec<GrantExpiry>,
    /// UIDs of granted pods that the scheduler does not place although there is room. Memory keeps them.
    pub stuck: Vec<String>,
    /// UIDs of pending pods whose grants have expired. Memory keeps them.
    pub expired: Vec<String>,
    /// Pods that the scheduler placed on ACI after their grants had expired.
    pub late: Vec<PodReference>,
    /// Pods that never started because of their template, also those that are left alone for a while: to be
    /// remembered.
    pub faults: Vec<NeverStarted>,
    /// Granted pods that have not started, by UID, with the time since when each one has been waiting for
    /// Azure. Memory keeps them.
    pub waiting: HashMap<String, Timestamp>,
    /// UIDs of pods that hold slots without the label and annotations of a grant. Memory keeps them.
    pub unmarked: Vec<String>,
    /// For each placement, by name: whether it takes pods.
    pub availability: BTreeMap<String, PlacementAvailability>,
    /// How many pods are in which state, for `status.pods`.
    pub counts: PodCounts,
    /// The status of each workload.
    pub workloads: Vec<WorkloadStatus>,
    /// Whether the pool has a load peak.
    pub peak: PeakState,
    /// If a limit holds back pods that would otherwise be granted: the message that names the limit.
    pub limit_message: Option<String>,
    /// After how long to plan again even if nothing changes.
    pub replan_after: Option<Duration>,
}

/// Whether the pool has a load peak.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PeakState {
    /// No pods are on ACI or on their way there, and the cooldown is over.
    #[default]
    None,
    /// No pods are on ACI or on their way there, but the cooldown is still running.
    Cooldown,
    /// Pods run on ACI, or have a grant and may be placed there.
    Active,
}

/// The precondition that the operator must meet before it may grant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precondition {
    /// Write this instance's identity into `status.leader`.
    ClaimLeadership,
    /// List the pods that have the pool's label, to count the slots that are in use.
    CountPods,
    /// Nothing: the operator may grant.
    #[default]
    Met,
}

/// A refused-since time to write to a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedSinceStamp {
    /// The pod.
    pub pod: PodReference,
    /// When the scheduler refused the pod first, by the API server's clock.
    pub since: Timestamp,
}

impl BurstPlan {
    /// The decisions whose outcome is a grant.
    pub fn grants(&self) -> impl Iterator<Item = &PodDecision> {
        let all = self.decisions.iter();
        all.filter(|decision| matches!(decision.outcome, PodOutcome::Grant { .. }))
    }

    /// The parts that later plans need, for [`LeaderState`](super::LeaderState) to keep.
    pub fn record(&self) -> PlanRecord<'_> {
        let starts = self.decisions.iter().filter_map(|decision| {
            Some((decision.pod.uid.as_str(), decision.hold_start.as_ref()?))
        });
        let rejected_pods = self.faults.iter().filter_map(|fault| {
            let (template, why) = fault.template_fault.as_ref()?;
            Some(RejectedPod {
                uid: &fault.pod.uid,
                template,
                why,
            })
        });
        PlanRecord {
            hold_starts: starts.collect(),
            has_peak: self.peak == PeakState::Active,
            reservations: &self.reservations,
            stuck: &self.stuck,
            expired: &self.expired,
            unmarked: &self.unmarked,
            waiting: (self.precondition == Precondition::Met).then_some(&self.waiting),
            rejected_pods: rejected_pods.collect(),
        }
    }
}

/// Plans for one pool. `now` is the time by the operator's monotonic clock.
pub fn plan(pool: &BurstPool, observed: &ObservedPool<'_>, now: Timestamp) -> BurstPlan {
    let spec = &pool.spec;
    let open = reservations::open_reservations(observed);
    let mut admission = SlotAdmission::from_observed(spec, observed, &open.entries, now);
    let reserved = open.entries.iter().map(|one| (one.uid.as_str(), *one));
    let reserved: HashMap<&str, &Reservation> = reserved.collect();
    let mut triaged_pods = triage(observed, &admission.holds, &reserved, now);
    admit(&mut triaged_pods, observed, &mut admission);
    pre_reservation::pre_reserve(&mut triaged_pods, observed, &mut admission);

    let is_dry_run = spec.mode == Mode::DryRun;
    let stamps = refused_since_stamps(&triaged_pods, observed, now);
    let decisions = decisions(triaged_pods, observed, is_dry_run);
    let reservation_write = ReservationWrite::new(&open.entries, &decisions, observed, now);
    let (releases, next_release) = reservations::releases(observed, &decisions, now);
    let mut due = never_started::find_due(observed, now);
    let faults = due
        .rescues
        .iter()
        .filter(|rescue| rescue.template_fault.is_some());
    let faults = faults.cloned().collect();
    due.rescues
        .retain(|rescue| !is_backing_off(observed, PodWrite::Delete, &rescue.pod, now));
    let mut stuck = expiry::stuck(observed, now);
    if observed.leadership != Leadership::Leading || is_dry_run {
        stuck.expiries.clear();
    }
    let tally = counts::count_pods(observed, &decisions, &admission.limits.slots, is_dry_run);
    // Only granted pods count: a pod that is about to be granted can be denied repeatedly.
    let is_busy = observed.granted.iter().any(|granted| !granted.is_home);
    let cooldown = observed.leader_state.last_peak();
    let cooldown = cooldown.map(|busy| later(busy, spec.scale_in.cooldown.into()));
    let availability = admission.capacity.availability();
    let times = decisions
        .iter()
        .filter_map(|decision| recheck_at(&decision.outcome, now))
        .chain(availability.values().filter_map(reopens_at))
        .chain(due.next)
        .chain(admission.capacity.next_probe_at())
        .chain(observed.leader_state.template_retry_times())
        .chain(next_release)
        .chain(stuck.next)
        .chain(reservation_write.next_write_at)
        .chain(cooldown.filter(|_| !is_busy))
        .chain((!open.unwatched.is_empty()).then(|| later(now, RECHECK_DELAY)));
    BurstPlan {
        replan_after: duration_until_first(times, now),
        is_dry_run,
        precondition: precondition_for(observed.leadership),
        must_write_reservations: reservation_write.must_write,
        reservations: reservation_write.reservations,
        releases,
        unwatched_reservations: open.unwatched.into_iter().cloned().collect(),
        decisions,
        refused_since_stamps: stamps,
        never_started: due.rescues,
        faults,
        waiting: due.waiting,
        expiries: stuck.expiries,
        stuck: stuck.uids,
        expired: expiry::uids(observed),
        late: expiry::late(observed),
        unmarked: unmarked(observed),
        availability,
        counts: tally.counts,
        workloads: tally.workloads,
        peak: peak_state(is_busy, cooldown, now),
        limit_message: tally.limit_message,
    }
}

fn unmarked(observed: &ObservedPool<'_>) -> Vec<String> {
    let granted = observed.granted.iter().map(|granted| granted.pod);
    let unmarked = granted.filter(|pod| pod.grant.is_none());
    unmarked.map(|pod| pod.id.uid.clone()).collect()
}

fn duration_until_first(
    times: impl Iterator<Item = Timestamp>,
    now: Timestamp,
) -> Option<Duration> {
    let first = times.filter(|time| *time > now).min()?;
    Some(Duration::try_from(first.duration_since(now)).unwrap_or(RECHECK_DELAY))
}

fn precondition_for(leadership: Leadership) -> Precondition {
    match leadership {
        Leadership::Unclaimed => Precondition::ClaimLeadership,
        Leadership::Uncounted => Precondition::CountPods,
        Leadership::Leading => Precondition::Met,
    }
}

fn peak_state(is_busy: bool, cooldown: Option<Timestamp>, now: Timestamp) -> PeakState {
    match cooldown {
        _ if is_busy => PeakState::Active,
        Some(until) if now < until => PeakState::Cooldown,
        _ => PeakState::None,
    }
}

/// The refused-since times to write. Only pods that can burst get one: the hold of other pods never ends.
fn refused_since_stamps(
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
            || is_backing_off(observed, PodWrite::RefusedSince, &triaged.pod.id, now);
        (!is_known && !matches!(triaged.outcome, Some(PodOutcome::Grant { .. }))).then(|| {
            RefusedSinceStamp {
                pod: triaged.pod.id.clone(),
                since: shifted(start.refused_since, observed.ahead),
            }
        })
    });
    unknown.collect()
}

/// Whether a write of this kind to the pod failed so recently that the operator does not repeat it yet.
fn is_backing_off(
    observed: &ObservedPool<'_>,
    write: PodWrite,
    pod: &PodReference,
    now: Timestamp,
) -> bool {
    let until = observed.leader_state.write_retry_at(write, &pod.uid);
    until.is_some_and(|until| now < until)
}

fn decisions(
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

/// When the outcome of a pod can change even if no object changes.
fn recheck_at(outcome: &PodOutcome, now: Timestamp) -> Option<Timestamp> {
    match outcome {
        PodOutcome::Hold { until, why } => Some(pre_reservation::next_check(*until, why, now)),
        PodOutcome::Blocked(BlockedBy::RateLimit(next)) => *next,
        PodOutcome::Blocked(BlockedBy::Capacity(_)) => Some(next_window_start(now)),
        PodOutcome::Blocked(BlockedBy::NotLeading) | PodOutcome::InFlight => {
            Some(later(now, RECHECK_DELAY))
        }
        _ => None,
    }
}

fn reopens_at(availability: &PlacementAvailability) -> Option<Timestamp> {
    match availability {
        PlacementAvailability::Closed { until, .. } => *until,
        PlacementAvailability::Open | PlacementAvailability::OneProbe => None,
    }
}
