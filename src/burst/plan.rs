//! Plans what the operator does for one pool now, with the reasons, and the time of the next plan.
//!
//! In: the pool, the [`ObservedPool`] objects that concern it, and the current time by the operator's monotonic
//! clock. Out: a [`BurstPlan`]. The same input always gives the same plan. A second plan after the first was carried
//! out contains nothing new.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use jiff::Timestamp;

use super::decision::PodDecision;
pub use super::decision::RefusedSinceStamp;
use super::facts::pod::PodReference;
use super::leader_state::placement_health::PlacementAvailability;
use super::leader_state::{PlanRecord, RejectedPod};
use super::observation::{Leadership, ObservedPool};
use super::outcome::{BlockedBy, PodOutcome};
use super::rules::expiry;
use super::rules::expiry::GrantExpiry;
use super::select::admission::{SlotAdmission, admit, next_window_start};
use super::select::never_started;
use super::select::never_started::NeverStarted;
use super::select::reservations::ReservationWrite;
use super::select::triage::{TriagedPod, triage};
use super::select::{counts, decisions, pre_reservation, reservations};
use crate::api::{BurstPool, Mode, PodCounts, Reservation, ScaleIn, WorkloadStatus};
use crate::k8s::time::later;

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
    let is_dry_run = pool.spec.mode == Mode::DryRun;
    let open = reservations::open_reservations(observed);
    let mut admission = SlotAdmission::from_observed(&pool.spec, observed, &open.entries, now);
    let triaged_pods = select_pods(observed, &open.entries, &mut admission);
    let stamps = decisions::refused_since_stamps(&triaged_pods, observed, now);
    let decisions = decisions::decisions(triaged_pods, observed, is_dry_run);
    let reservation_write = ReservationWrite::new(&open.entries, &decisions, observed, now);
    let (releases, next_release) = reservations::releases(observed, &decisions, now);
    let due = never_started::find_due(observed, now);
    let stuck = expiry::stuck(observed, is_dry_run, now);
    let tally = counts::count_pods(observed, &decisions, &admission.limits.slots, is_dry_run);
    let peak = Peak::from_observed(&pool.spec.scale_in, observed);
    let availability = admission.capacity.availability();
    let times = recheck_times(&decisions, now)
        .chain(availability.values().filter_map(reopens_at))
        .chain(due.next)
        .chain(admission.capacity.next_probe_at())
        .chain(observed.leader_state.template_retry_times())
        .chain(next_release)
        .chain(stuck.next)
        .chain(reservation_write.next_write_at)
        .chain(peak.next_change())
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
        faults: due.faults,
        waiting: due.waiting,
        expiries: stuck.expiries,
        stuck: stuck.uids,
        expired: expiry::uids(observed),
        late: expiry::late(observed),
        unmarked: unmarked(observed),
        availability,
        counts: tally.counts,
        workloads: tally.workloads,
        peak: peak.state_at(now),
        limit_message: tally.limit_message,
    }
}

/// Gives every pending pod its outcome, and takes what the grants use up from `admission`.
fn select_pods<'a>(
    observed: &ObservedPool<'a>,
    open: &[&Reservation],
    admission: &mut SlotAdmission<'a>,
) -> Vec<TriagedPod<'a>> {
    let mut triaged_pods = triage(observed, &admission.holds, open, admission.now);
    admit(&mut triaged_pods, observed, admission);
    pre_reservation::pre_reserve(&mut triaged_pods, observed, admission);
    triaged_pods
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

/// What a load peak of the pool depends on.
struct Peak {
    /// Whether pods are on ACI, or have a grant.
    is_busy: bool,
    /// When the cooldown after the last peak ends.
    cooldown_end: Option<Timestamp>,
}

impl Peak {
    fn from_observed(scale_in: &ScaleIn, observed: &ObservedPool<'_>) -> Self {
        let last_peak = observed.leader_state.last_peak();
        Self {
            // Only granted pods count: a pod that is about to be granted can be denied repeatedly.
            is_busy: observed.granted.iter().any(|granted| !granted.is_home),
            cooldown_end: last_peak.map(|busy| later(busy, scale_in.cooldown.into())),
        }
    }

    fn state_at(&self, now: Timestamp) -> PeakState {
        match self.cooldown_end {
            _ if self.is_busy => PeakState::Active,
            Some(until) if now < until => PeakState::Cooldown,
            _ => PeakState::None,
        }
    }

    /// When the state changes even if no pod changes.
    fn next_change(&self) -> Option<Timestamp> {
        self.cooldown_end.filter(|_| !self.is_busy)
    }
}

/// When the outcomes of pods can change even if no object changes.
fn recheck_times(decisions: &[PodDecision], now: Timestamp) -> impl Iterator<Item = Timestamp> {
    let outcomes = decisions.iter().map(|decision| &decision.outcome);
    outcomes.filter_map(move |outcome| recheck_at(outcome, now))
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
