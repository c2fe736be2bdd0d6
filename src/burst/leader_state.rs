//! The leader's memory of one pool between two plans.
//!
//! In: the results of the operator's own writes and creates, and the parts of a plan that must be kept
//! ([`PlanRecord`]).
//! Out: values that `observe` and `plan` read. All of it can be lost: a new leader starts with an empty memory,
//! and only waits a little longer in cases where the memory would have helped.

pub mod placement_health;
mod plan_record;
mod rejections;
#[cfg(test)]
mod tests;
mod writes;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use jiff::Timestamp;

use super::facts::pod::{PodFacts, PodReference};
use super::facts::versions::VersionComparison;
use crate::api::Reservation;
use crate::k8s::rejected;
use crate::k8s::time::later;
use placement_health::PlacementHealth;
use rejections::TemplateRejections;
use writes::{LastPatch, PatchState};

pub use plan_record::{HoldStart, PlanRecord, RejectedPod};
pub use writes::{PatchOutcome, PodBackoff, PodWrite, PodWriteResult};

/// For how long a failed write to a pod, other than a grant, is not repeated, unless the API server denied it.
const WRITE_RETRY_INTERVAL: Duration = Duration::from_secs(10);
/// For how long a Job's status may not count an eviction yet. Until then, the Job would seem to tolerate further
/// evictions.
const UNCOUNTED_EVICTION_TTL: Duration = Duration::from_secs(10);
/// For how long an unmarked pod (see [`PodWriteResult::Unmarked`]) still counts while no watch shows it: a pod on its
/// way from one watch to another is in neither.
const UNMARKED_TTL: Duration = Duration::from_secs(60);
/// The longest span of a grant rate, 1 hour. Older grants do not count.
const MAX_RATE_PERIOD: Duration = Duration::from_secs(3600);

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
    rejected_templates: TemplateRejections,
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
        last.is_some_and(|last| now < later(*last, UNCOUNTED_EVICTION_TTL))
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

    /// Keeps the parts of a plan that later plans need, and drops what no longer matters. `waiting` are the
    /// UIDs of all pending pods.
    pub fn record_plan(&mut self, plan: &PlanRecord<'_>, waiting: &HashSet<&str>, now: Timestamp) {
        for (uid, start) in &plan.hold_starts {
            if self.hold_starts.get(*uid) != Some(start) {
                self.hold_starts.insert((*uid).to_owned(), **start);
            }
        }
        self.rejected_templates.record(&plan.rejected_pods, now);
        if let Some(waiting_for_azure) = plan.waiting {
            self.waiting.clone_from(waiting_for_azure);
        }
        if plan.has_peak {
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
        // A write whose pause ended more than `rejected::MAX_PAUSE` ago is not due: drop it.
        self.failed_writes
            .retain(|_, failed| later(failed.until, rejected::MAX_PAUSE) > now);
        self.evicted
            .retain(|_, last| now < later(*last, UNCOUNTED_EVICTION_TTL));
        self.unmarkable_workloads
            .retain(|_, denial| later(denial.until, rejected::MAX_PAUSE) > now);
        let stuck = plan.stuck.iter().map(|uid| {
            let since = self.stuck.get(uid).copied().unwrap_or(now);
            (uid.clone(), since)
        });
        self.stuck = stuck.collect();
        self.expired = plan.expired.iter().cloned().collect();
        for uid in plan.unmarked {
            self.unmarked_pods.insert(uid.clone(), now);
        }
        self.unmarked_pods
            .retain(|_, seen| later(*seen, UNMARKED_TTL) > now);
        self.granted_at
            .retain(|_, at| later(*at, MAX_RATE_PERIOD) > now);
    }

    /// Templates with a refusal whose pause still runs, with Azure's message.
    pub(super) fn rejected_templates(&self, now: Timestamp) -> impl Iterator<Item = (&str, &str)> {
        self.rejected_templates.active(now)
    }

    /// When the pauses of refused templates end.
    pub(super) fn template_retry_times(&self) -> impl Iterator<Item = Timestamp> {
        self.rejected_templates.retry_times()
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
