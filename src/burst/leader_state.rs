//! The leader's memory of one pool between two plans.
//!
//! In: the results of the operator's own writes and creates, and the parts of a [`BurstPlan`] that must be kept.
//! Out: values that `observe` and `plan` read. All of it can be lost: a new leader starts with an empty memory,
//! and only waits a little longer in cases where the memory would have helped.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use jiff::Timestamp;

use super::facts::pod::{PodFacts, PodReference};
use super::plan::{BurstPlan, PeakState, Precondition};
use super::rules::hold::{HoldStart, later};
use super::rules::placement_health::PlacementHealth;
use super::select::reservations::VersionComparison;
use crate::api::Reservation;
use crate::k8s::backoff::doubled;
use crate::k8s::refused;

/// After Azure refuses a pod, the operator grants no pods of the same template for this long: the first and the
/// longest pause (10 minutes, 1 hour), doubled in between. Azure may fix the cause, and some refusals are
/// temporary.
const TEMPLATE_BACKOFF: (Duration, Duration) =
    (Duration::from_secs(600), Duration::from_secs(3600));
/// For how long a failed write to a pod, other than a grant, is not repeated, unless the API server denied it.
const WRITE_RETRY_INTERVAL: Duration = Duration::from_secs(10);
/// For how long a Job's status may not count an eviction yet. Until then, the Job would seem to tolerate further
/// evictions.
const EVICTED: Duration = Duration::from_secs(10);
/// For how long an unmarked pod (see [`PodWriteResult::Unmarked`]) still counts while no watch shows it: a pod on its
/// way from one watch to another is in neither.
const UNMARKED_TTL: Duration = Duration::from_secs(60);
/// The longest span of a grant rate, 1 hour. Older grants do not count.
const MAX_RATE_PERIOD: Duration = Duration::from_secs(3600);

/// The result of a patch that grants a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PodWriteResult {
    /// The API server applied it.
    Granted,
    /// 409: the pod has changed.
    Conflict,
    /// 403 or 422: the API server or an admission webhook denied it, with this message.
    Denied(String),
    /// 404: the pod is gone.
    Gone,
    /// Unknown: there was no answer, or a server error. The patch may have been applied.
    Lost,
    /// The operator did not send it, because the reason for the plan no longer holds.
    Unsent,
    /// The API server applied it, but a mutating admission policy removed the label and annotations of the
    /// grant and left the toleration. The text is the reason. The pod may run on ACI, but no watch of granted
    /// pods shows it.
    Unmarked(String),
}

/// Writes to a pod other than a grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PodWrite {
    /// The refused-since time.
    RefusedSince,
    /// The change of the pod that frees its reservation.
    Release,
    /// The deletion or eviction of a pod that never started.
    Delete,
    /// The mark that the pod's grant has expired.
    Expire,
}

/// A pod template with a pod that Azure has refused.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct TemplateRejection {
    until: Timestamp,
    why: String,
    attempts: u32,
    /// UIDs of the refused pods.
    uids: HashSet<String>,
}

/// Why and for how long the operator does not retry a grant or another write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodBackoff {
    /// The end of the pause.
    pub until: Timestamp,
    /// The API server's message, or another text for the reason.
    pub why: String,
    attempts: u32,
}

impl PodBackoff {
    /// The pause after `before`, twice as long each time.
    fn next_after(before: Option<&Self>, why: String, now: Timestamp) -> Self {
        let tries = before.map_or(0, |denial| denial.attempts);
        Self {
            until: later(now, refused::pause(tries)),
            why,
            attempts: tries.saturating_add(1),
        }
    }
}

/// The state of the last grant patch of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
struct LastPatch {
    resource_version: String,
    outcome: PatchState,
    /// The result of an earlier patch for the same version is unknown. That patch may still be applied,
    /// whatever the result of the next one.
    is_lost: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PatchState {
    InFlight,
    Unknown,
    Granted,
    Conflict,
    NotApplied,
}

/// What is known about a pod's last grant patch, at the pod's version in the watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatchOutcome {
    /// No patch was applied, and none can be: none was sent for this version, or it was denied.
    NotApplied,
    /// A patch is in flight, was applied, or met a conflict: its result or the pod's next version will show.
    Pending,
    /// A patch may have been applied, or may still be.
    Unknown,
}

/// The leader's memory of one pool.
#[derive(Clone, Debug, Default)]
pub struct LeaderState {
    /// The hold starts of pending pods, by UID.
    hold_starts: HashMap<String, HoldStart>,
    granted_at: HashMap<String, Timestamp>,
    last_patches: HashMap<String, LastPatch>,
    denials: HashMap<String, PodBackoff>,
    /// Reserved pods that no grant can reach now, by UID, with the version that was reserved.
    settled_reservations: HashMap<String, String>,
    /// Failed writes, by kind and pod UID, with the time when each may be repeated.
    failed_writes: HashMap<(PodWrite, String), PodBackoff>,
    /// Jobs that lost a pod to an eviction, by UID, with the time of the last one.
    evicted: HashMap<String, Timestamp>,
    /// Granted pods that the scheduler does not place although there is room, by UID, with the time since when.
    stuck: HashMap<String, Timestamp>,
    /// UIDs of pods that were pending with an expired grant at the last plan.
    expired: HashSet<String>,
    /// Pods with a toleration but no label or annotations of a grant, by UID, with the time when a watch last
    /// showed each.
    unmarked_pods: HashMap<String, Timestamp>,
    /// Workloads whose pods lose the label and annotations of a grant. The operator grants them no pods until
    /// the pause ends.
    unmarkable_workloads: HashMap<String, PodBackoff>,
    /// Granted pods that have not started, by UID, with the time since when each has been waiting for Azure.
    waiting: HashMap<String, Timestamp>,
    placement_health: BTreeMap<String, PlacementHealth>,
    /// Templates with a pod that Azure has refused.
    rejected_templates: HashMap<String, TemplateRejection>,
    last_peak: Option<Timestamp>,
    /// When reservations were last written.
    reservations_written_at: Option<Timestamp>,
}

impl LeaderState {
    /// The health of a placement. The caller records the results of creates here.
    pub fn placement_health_mut(&mut self, placement: &str) -> &mut PlacementHealth {
        self.placement_health
            .entry(placement.to_owned())
            .or_default()
    }

    /// Drops the health of placements for which `stays` returns false: the pool no longer has them.
    pub fn retain_backends(&mut self, stays: impl Fn(&str) -> bool) {
        self.placement_health
            .retain(|placement, _| stays(placement));
    }

    /// Call before sending a grant patch for `pod`, at the version that was planned with.
    pub fn record_patch_sent(&mut self, pod: &PodReference) {
        let before = self.last_patches.get(&pod.uid);
        let is_lost = before
            .is_some_and(|sent| sent.is_lost && sent.resource_version == pod.resource_version);
        let sent = LastPatch {
            resource_version: pod.resource_version.clone(),
            outcome: PatchState::InFlight,
            is_lost,
        };
        self.last_patches.insert(pod.uid.clone(), sent);
        // A pod that was reported gone and is patched again may be granted after all, so its reservation
        // counts.
        self.settled_reservations.remove(&pod.uid);
    }

    /// Call after the plan's reservations were written.
    pub fn record_reservations_written(&mut self, now: Timestamp) {
        self.reservations_written_at = Some(now);
    }

    /// Records the result of the grant patch for `pod`.
    pub fn record_grant_answer(
        &mut self,
        pod: &PodReference,
        answer: PodWriteResult,
        now: Timestamp,
    ) {
        let outcome = match answer {
            PodWriteResult::Granted => {
                self.granted_at.insert(pod.uid.clone(), now);
                self.denials.remove(&pod.uid);
                PatchState::Granted
            }
            PodWriteResult::Conflict => PatchState::Conflict,
            PodWriteResult::Unsent => PatchState::NotApplied,
            PodWriteResult::Gone => {
                self.settle(pod);
                PatchState::NotApplied
            }
            PodWriteResult::Denied(why) => {
                let denial = PodBackoff::next_after(self.denials.get(&pod.uid), why, now);
                self.denials.insert(pod.uid.clone(), denial);
                PatchState::NotApplied
            }
            PodWriteResult::Unmarked(_) => {
                self.granted_at.insert(pod.uid.clone(), now);
                self.unmarked_pods.insert(pod.uid.clone(), now);
                PatchState::Granted
            }
            PodWriteResult::Lost => {
                // The patch may have been applied. It counts against the rate, even if the pod is deleted soon
                // after.
                self.granted_at.insert(pod.uid.clone(), now);
                PatchState::Unknown
            }
        };
        // Only if this was the last patch: a patch for a later version of the pod may have been sent since.
        let sent = self.last_patches.get_mut(&pod.uid);
        if let Some(sent) = sent.filter(|sent| sent.resource_version == pod.resource_version) {
            sent.is_lost |= outcome == PatchState::Unknown;
            sent.outcome = outcome;
        }
    }

    /// Records that a grant in this workload lost its label and annotations, for the reason `why`. The next
    /// grant of the workload waits, twice as long each time: a new leader cannot see such a pod, and would not
    /// count it.
    pub fn record_unmarkable(&mut self, workload: &str, why: String, now: Timestamp) {
        let before = self.unmarkable_workloads.get(workload);
        // Grants that were sent together count as one attempt.
        if before.is_none_or(|denial| denial.until <= now) {
            let denial = PodBackoff::next_after(before, why, now);
            self.unmarkable_workloads
                .insert(workload.to_owned(), denial);
        }
    }

    /// Records the result of a write to `pod` other than a grant. A failed write is repeated after a pause. The
    /// pause doubles each time that the API server denies the write.
    pub fn record_write(
        &mut self,
        pod: &PodReference,
        write: PodWrite,
        answer: &PodWriteResult,
        now: Timestamp,
    ) {
        let key = (write, pod.uid.clone());
        let failed = match answer {
            PodWriteResult::Granted | PodWriteResult::Unmarked(_) => {
                self.failed_writes.remove(&key);
                return;
            }
            PodWriteResult::Gone => {
                if write == PodWrite::Release {
                    self.settle(pod);
                }
                return;
            }
            PodWriteResult::Denied(why) => {
                PodBackoff::next_after(self.failed_writes.get(&key), why.clone(), now)
            }
            PodWriteResult::Conflict | PodWriteResult::Lost | PodWriteResult::Unsent => {
                PodBackoff {
                    until: later(now, WRITE_RETRY_INTERVAL),
                    why: String::new(),
                    attempts: self
                        .failed_writes
                        .get(&key)
                        .map_or(0, |failed| failed.attempts),
                }
            }
        };
        self.failed_writes.insert(key, failed);
    }

    /// Until when a failed write to a pod is not repeated.
    pub fn write_retry_at(&self, write: PodWrite, uid: &str) -> Option<Timestamp> {
        let failed = self.failed_writes.get(&(write, uid.to_owned()))?;
        Some(failed.until)
    }

    /// Whether the API server has denied this kind of write to a pod, since it last accepted one.
    pub fn was_denied(&self, write: PodWrite, uid: &str) -> bool {
        let failed = self.failed_writes.get(&(write, uid.to_owned()));
        failed.is_some_and(|failed| failed.attempts > 0)
    }

    /// Records that a pod of the Job with the UID `job` was evicted, or may have been.
    pub fn evicted_from(&mut self, job: &str, now: Timestamp) {
        self.evicted.insert(job.to_owned(), now);
    }

    /// Whether the Job's status may not count the last eviction of one of its pods yet.
    pub fn is_counting(&self, job: &str, now: Timestamp) -> bool {
        let last = self.evicted.get(job);
        last.is_some_and(|last| now < later(*last, EVICTED))
    }

    /// Since when the scheduler has not placed this granted pod although there is room.
    pub(super) fn stuck_since(&self, uid: &str) -> Option<Timestamp> {
        self.stuck.get(uid).copied()
    }

    /// Whether the pod was pending with an expired grant at the last plan.
    pub(super) fn had_expired(&self, uid: &str) -> bool {
        self.expired.contains(uid)
    }

    /// Whether a grant lets the pod run on ACI without marking it ([`PodWriteResult::Unmarked`]).
    pub fn is_unmarked(&self, uid: &str) -> bool {
        self.unmarked_pods.contains_key(uid)
    }

    /// Why the operator grants no pods of this workload, if grants in it lose their label and annotations.
    pub(super) fn unmarkable_backoff(&self, workload: &str) -> Option<&PodBackoff> {
        self.unmarkable_workloads.get(workload)
    }

    fn settle(&mut self, pod: &PodReference) {
        self.settled_reservations
            .insert(pod.uid.clone(), pod.resource_version.clone());
    }

    /// Records the result of reading the pod of `entry` by name, after no watch showed it. `None`: it does not
    /// exist.
    pub fn record_lookup(&mut self, entry: &Reservation, found: Option<&PodFacts>) {
        let is_settled = found.is_none_or(|pod| {
            let is_void = pod.grant.is_none()
                && VersionComparison::compare(entry, pod) == VersionComparison::Newer;
            pod.id.uid != entry.uid || pod.is_done_without_grant() || is_void
        });
        if is_settled {
            self.settled_reservations
                .insert(entry.uid.clone(), entry.resource_version.clone());
        }
    }

    /// Keeps the parts of `plan` that later plans need, and drops what no longer matters. `waiting` are the
    /// UIDs of all pending pods.
    pub fn record_plan(&mut self, plan: &BurstPlan, waiting: &HashSet<&str>, now: Timestamp) {
        for (uid, start) in plan.hold_starts() {
            if self.hold_starts.get(uid) != Some(start) {
                self.hold_starts.insert(uid.to_owned(), *start);
            }
        }
        self.record_rejections(plan, now);
        if plan.precondition == Precondition::Met {
            self.waiting.clone_from(&plan.waiting);
        }
        if plan.peak == PeakState::Active {
            self.last_peak = Some(now);
        }
        let reserved: HashMap<&str, &str> = plan
            .reservations
            .iter()
            .map(|entry| (entry.uid.as_str(), entry.resource_version.as_str()))
            .collect();
        let waits = |uid: &String| waiting.contains(uid.as_str());
        self.hold_starts.retain(|uid, _| waits(uid));
        self.denials.retain(|uid, _| waits(uid));
        self.last_patches.retain(|uid, sent| {
            let is_on_its_way = sent.outcome == PatchState::InFlight;
            is_on_its_way || waits(uid) || reserved.contains_key(uid.as_str())
        });
        self.settled_reservations
            .retain(|uid, version| reserved.get(uid.as_str()) == Some(&version.as_str()));
        // A write whose pause ended more than `refused::LONGEST` ago is not due: drop it.
        self.failed_writes
            .retain(|_, failed| later(failed.until, refused::LONGEST) > now);
        self.evicted.retain(|_, last| now < later(*last, EVICTED));
        self.unmarkable_workloads
            .retain(|_, denial| later(denial.until, refused::LONGEST) > now);
        let stuck = plan.stuck.iter().map(|uid| {
            let since = self.stuck.get(uid).copied().unwrap_or(now);
            (uid.clone(), since)
        });
        self.stuck = stuck.collect();
        self.expired = plan.expired.iter().cloned().collect();
        for uid in &plan.unmarked {
            self.unmarked_pods.insert(uid.clone(), now);
        }
        self.unmarked_pods
            .retain(|_, seen| later(*seen, UNMARKED_TTL) > now);
        self.granted_at
            .retain(|_, at| later(*at, MAX_RATE_PERIOD) > now);
    }

    /// Learns from the plan's rescues which templates Azure refuses. All pods of a template that Azure refuses
    /// during its pause count as one refusal: they were created before the first refusal was known.
    fn record_rejections(&mut self, plan: &BurstPlan, now: Timestamp) {
        let mut seen = HashSet::new();
        for rescue in &plan.faults {
            let Some((template, why)) = &rescue.template_fault else {
                continue;
            };
            seen.insert(template.as_str());
            let rejection = self.rejected_templates.entry(template.clone()).or_default();
            if !rejection.uids.insert(rescue.pod.uid.clone()) || now < rejection.until {
                continue;
            }
            let wait = doubled(TEMPLATE_BACKOFF.0, rejection.attempts, TEMPLATE_BACKOFF.1);
            rejection.until = later(now, wait);
            rejection.why.clone_from(why);
            rejection.attempts = rejection.attempts.saturating_add(1);
        }
        // An old refusal is dropped, so that the next pause is as short as the first. While a refused pod still
        // exists, its template stays, because the pod would only report the same refusal again.
        self.rejected_templates.retain(|template, rejection| {
            let is_recent = now < later(rejection.until, TEMPLATE_BACKOFF.1);
            is_recent || seen.contains(template.as_str())
        });
    }

    /// Templates with a refusal whose pause still runs, with Azure's message.
    pub(super) fn rejected_templates(&self, now: Timestamp) -> impl Iterator<Item = (&str, &str)> {
        let all = self
            .rejected_templates
            .iter()
            .filter(move |(_, one)| now < one.until);
        all.map(|(template, one)| (template.as_str(), one.why.as_str()))
    }

    /// When the pauses of refused templates end.
    pub(super) fn template_retry_times(&self) -> impl Iterator<Item = Timestamp> {
        self.rejected_templates.values().map(|one| one.until)
    }

    /// A new leader found the pool in a peak: the cooldown counts from `now`.
    pub fn record_peak(&mut self, now: Timestamp) {
        self.last_peak = Some(now);
    }

    /// Since when a granted pod that has not started has been waiting for Azure. `None` if it does not wait.
    pub(super) fn waits_since(&self, uid: &str) -> Option<Timestamp> {
        self.waiting.get(uid).copied()
    }

    pub(super) fn hold_start(&self, uid: &str) -> Option<HoldStart> {
        self.hold_starts.get(uid).copied()
    }

    /// The pause after a denied grant of this pod.
    pub fn denial(&self, uid: &str) -> Option<&PodBackoff> {
        self.denials.get(uid)
    }

    /// The times of grants, by pod UID. Patches in flight count as granted at `now`.
    pub(super) fn grant_times(&self, now: Timestamp) -> impl Iterator<Item = (&str, Timestamp)> {
        let granted = self.granted_at.iter().map(|(uid, at)| (uid.as_str(), *at));
        let sent = self.last_patches.iter();
        let on_their_way = sent.filter(|(_, sent)| sent.outcome == PatchState::InFlight);
        granted.chain(on_their_way.map(move |(uid, _)| (uid.as_str(), now)))
    }

    pub(super) fn is_settled(&self, entry: &Reservation) -> bool {
        self.settled_reservations.get(&entry.uid) == Some(&entry.resource_version)
    }

    pub(super) fn placement_health(&self) -> &BTreeMap<String, PlacementHealth> {
        &self.placement_health
    }

    /// When the pool last had pods on ACI or on their way there.
    pub fn last_peak(&self) -> Option<Timestamp> {
        self.last_peak
    }

    pub(super) fn reservations_written_at(&self) -> Option<Timestamp> {
        self.reservations_written_at
    }

    /// What is known about the last grant patch for this version of `pod`.
    pub fn patch_outcome(&self, pod: &PodReference) -> PatchOutcome {
        self.patch_outcome_at(&pod.uid, &pod.resource_version)
    }

    /// What is known about the last grant patch for the pod version in `entry`.
    pub(super) fn reserved_patch_outcome(&self, entry: &Reservation) -> PatchOutcome {
        self.patch_outcome_at(&entry.uid, &entry.resource_version)
    }

    fn patch_outcome_at(&self, uid: &str, version: &str) -> PatchOutcome {
        match self.last_patches.get(uid) {
            None => PatchOutcome::NotApplied,
            Some(sent) if sent.resource_version != version => PatchOutcome::NotApplied,
            Some(sent) => match sent.outcome {
                PatchState::NotApplied if !sent.is_lost => PatchOutcome::NotApplied,
                PatchState::InFlight | PatchState::Granted | PatchState::Conflict => {
                    PatchOutcome::Pending
                }
                PatchState::Unknown | PatchState::NotApplied => PatchOutcome::Unknown,
            },
        }
    }
}

#[cfg(test)]
mod tests;
