//! What a leader remembers of a pool from one plan to the next.
//!
//! In: how its own actions ended, and what it was told to remember. Out: read by `observe` and `plan`.
//! All of it can be lost: a new leader starts with an empty one, and only waits a little longer where
//! it would have known better.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use jiff::Timestamp;

use super::backend::Backend;
use super::hold::{Start, later};
use super::plan::{First, Peak, Plan};
use super::pod::{PodFacts, PodRef};
use super::reserve::Seen;
use crate::api::Reservation;
use crate::k8s::refused;

/// How long the pods of a template are not granted of which Azure has just refused one, first and at most: what
/// it refuses may be mended on its side, and some of what it refuses passes.
const REJECTED: (Duration, Duration) = (Duration::from_secs(600), Duration::from_secs(3600));
/// How long a write to a pod, other than a grant, is not repeated after it failed.
const FAILED: Duration = Duration::from_secs(10);
/// How long a pod that a grant did not mark still counts although no watch shows it: a pod on its way from one
/// watch to another is in neither.
const UNMARKED: Duration = Duration::from_secs(60);
/// The longest span of a rate: older grants bear on nothing.
const LONGEST_SPAN: Duration = Duration::from_secs(3600);

/// How a patch that grants ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It was done.
    Granted,
    /// 409: the pod has changed.
    Conflict,
    /// 403 or 422: somebody does not want it, in these words.
    Denied(String),
    /// 404: the pod is gone.
    Gone,
    /// Nobody knows: no answer, or the server's error.
    Lost,
    /// It was not sent: what it was planned for is not so any more.
    Unsent,
    /// It was done, but a mutating admission policy removed the marks of the grant, for this reason, and left the
    /// toleration: the pod may run on ACI, and no watch of granted pods shows it.
    Unmarked(String),
}

/// What is written to a pod beside its grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Write {
    /// The time since when it is refused.
    Stamp,
    /// The change that gives its reservation back.
    Release,
    /// The deletion of a pod that never started.
    Rescue,
    /// That its grant has expired.
    Expire,
}

/// A template of which Azure has refused a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Rejection {
    until: Timestamp,
    why: String,
    tries: u32,
    /// The pods that it was learned from, by UID.
    uids: HashSet<String>,
}

/// Why a pod is left alone for a while.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    /// Until when.
    pub until: Timestamp,
    /// In the words of who denied it.
    pub why: String,
    tries: u32,
}

impl Denial {
    /// The next denial after `before`: each waits twice as long.
    fn after(before: Option<&Self>, why: String, now: Timestamp) -> Self {
        let tries = before.map_or(0, |denial| denial.tries);
        Self {
            until: later(now, refused::pause(tries)),
            why,
            tries: tries.saturating_add(1),
        }
    }
}

/// What the last patch of a pod came to.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Sent {
    resource_version: String,
    outcome: Sending,
    /// One of this version was lost: it may come yet, however the next one ends.
    is_lost: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sending {
    OnItsWay,
    Unknown,
    Granted,
    Conflict,
    Undone,
}

/// What is known of a pod's last patch, at the version that is seen now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attempt {
    /// None can have been, or can ever be, carried out: none was sent, it was denied, or the pod has
    /// changed since without being granted.
    None,
    /// It is on its way, or was done, or the pod has changed: its answer or the next version will tell.
    Awaited,
    /// It may have been done, or not.
    Unknown,
}

/// What a leader remembers of a pool.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    /// Since when pods that wait are refused.
    refused: HashMap<String, Start>,
    granted: HashMap<String, Timestamp>,
    sent: HashMap<String, Sent>,
    denied: HashMap<String, Denial>,
    /// Reserved pods of which no grant can come any more, and the versions that were reserved.
    settled: HashMap<String, String>,
    /// Writes that failed, and when each may be repeated; by what was written and the pod's UID.
    failed: HashMap<(Write, String), Denial>,
    /// Since when the scheduler passes by granted pods for which there is room.
    stuck: HashMap<String, Timestamp>,
    /// UIDs of pods whose grants have expired, and that waited when they were seen last.
    expired: HashSet<String>,
    /// Pods that a grant lets run on ACI and did not mark, and when each was seen last.
    unmarked: HashMap<String, Timestamp>,
    /// Workloads whose grants leave no marks: they are granted nothing until then.
    unmarkable: HashMap<String, Denial>,
    /// Granted pods that have not started, by UID, and since when Azure lets each of them wait.
    waiting: HashMap<String, Timestamp>,
    backends: BTreeMap<String, Backend>,
    /// Templates of which Azure has refused a pod.
    rejected: HashMap<String, Rejection>,
    busy: Option<Timestamp>,
    /// When reservations were written last.
    reserved: Option<Timestamp>,
}

impl Memory {
    /// What is known of a placement's creates: told here how they end.
    pub fn backend(&mut self, placement: &str) -> &mut Backend {
        self.backends.entry(placement.to_owned()).or_default()
    }

    /// Forgets the creates of placements for which `stays` is false: the pool does not have them any more.
    pub fn retain_backends(&mut self, stays: impl Fn(&str) -> bool) {
        self.backends.retain(|placement, _| stays(placement));
    }

    /// A patch of `pod` is about to be sent, at the version that was planned with.
    pub fn sending(&mut self, pod: &PodRef) {
        let before = self.sent.get(&pod.uid);
        let is_lost = before
            .is_some_and(|sent| sent.is_lost && sent.resource_version == pod.resource_version);
        let sent = Sent {
            resource_version: pod.resource_version.clone(),
            outcome: Sending::OnItsWay,
            is_lost,
        };
        self.sent.insert(pod.uid.clone(), sent);
        // Who was said to be gone, and is sent again, may be granted after all: it counts.
        self.settled.remove(&pod.uid);
    }

    /// The plan's reservations were written.
    pub fn wrote(&mut self, now: Timestamp) {
        self.reserved = Some(now);
    }

    /// The patch of `pod` was answered.
    pub fn answered(&mut self, pod: &PodRef, answer: Answer, now: Timestamp) {
        let outcome = match answer {
            Answer::Granted => {
                self.granted.insert(pod.uid.clone(), now);
                self.denied.remove(&pod.uid);
                Sending::Granted
            }
            Answer::Conflict => Sending::Conflict,
            Answer::Unsent => Sending::Undone,
            Answer::Gone => {
                self.gone(pod);
                Sending::Undone
            }
            Answer::Denied(why) => {
                let denial = Denial::after(self.denied.get(&pod.uid), why, now);
                self.denied.insert(pod.uid.clone(), denial);
                Sending::Undone
            }
            Answer::Unmarked(_) => {
                self.granted.insert(pod.uid.clone(), now);
                self.unmarked.insert(pod.uid.clone(), now);
                Sending::Granted
            }
            Answer::Lost => {
                // It may have been done: it counts against the rate, also when the pod goes at once.
                self.granted.insert(pod.uid.clone(), now);
                Sending::Unknown
            }
        };
        // The pod may have changed, and be granted at a later version already.
        let sent = self.sent.get_mut(&pod.uid);
        if let Some(sent) = sent.filter(|sent| sent.resource_version == pod.resource_version) {
            sent.is_lost |= outcome == Sending::Unknown;
            sent.outcome = outcome;
        }
    }

    /// A grant of this workload left no marks on its pod, for this reason: the next one waits, longer each time,
    /// since each such pod escapes the count once another leader takes over.
    pub fn leaves_no_marks(&mut self, workload: &str, why: String, now: Timestamp) {
        let before = self.unmarkable.get(workload);
        // All that were sent together are one try.
        if before.is_none_or(|denial| denial.until <= now) {
            let denial = Denial::after(before, why, now);
            self.unmarkable.insert(workload.to_owned(), denial);
        }
    }

    /// A write of `pod` beside its grant was answered. One that failed is repeated after a pause, which doubles
    /// each time that the API server denies it.
    pub fn wrote_to(&mut self, pod: &PodRef, write: Write, answer: &Answer, now: Timestamp) {
        let key = (write, pod.uid.clone());
        let failed = match answer {
            Answer::Granted | Answer::Unmarked(_) => {
                self.failed.remove(&key);
                return;
            }
            Answer::Gone => {
                if write == Write::Release {
                    self.gone(pod);
                }
                return;
            }
            Answer::Denied(why) => Denial::after(self.failed.get(&key), why.clone(), now),
            Answer::Conflict | Answer::Lost | Answer::Unsent => Denial {
                until: later(now, FAILED),
                why: String::new(),
                tries: self.failed.get(&key).map_or(0, |failed| failed.tries),
            },
        };
        self.failed.insert(key, failed);
    }

    /// Until when a write of a pod is not repeated, if it failed.
    pub fn pause(&self, write: Write, uid: &str) -> Option<Timestamp> {
        let failed = self.failed.get(&(write, uid.to_owned()))?;
        Some(failed.until)
    }

    /// Since when the scheduler passes by a granted pod for which there is room.
    pub(super) fn stuck_since(&self, uid: &str) -> Option<Timestamp> {
        self.stuck.get(uid).copied()
    }

    /// Whether the pod waited when it was seen last, and its grant had expired.
    pub(super) fn had_expired(&self, uid: &str) -> bool {
        self.expired.contains(uid)
    }

    /// Whether a grant lets the pod run on ACI, and did not mark it.
    pub fn is_unmarked(&self, uid: &str) -> bool {
        self.unmarked.contains_key(uid)
    }

    /// Why pods of this workload are not granted, if grants leave no marks on them.
    pub(super) fn unmarkable(&self, workload: &str) -> Option<&Denial> {
        self.unmarkable.get(workload)
    }

    fn gone(&mut self, pod: &PodRef) {
        self.settled
            .insert(pod.uid.clone(), pod.resource_version.clone());
    }

    /// The pod of `entry` is in no watch, and was read by name: what was found, if it is still there.
    pub fn looked(&mut self, entry: &Reservation, found: Option<&PodFacts>) {
        let is_settled = found.is_none_or(|pod| {
            let is_void = pod.grant.is_none() && Seen::of(entry, pod) == Seen::Changed;
            pod.id.uid != entry.uid || pod.is_past_granting() || is_void
        });
        if is_settled {
            self.settled
                .insert(entry.uid.clone(), entry.resource_version.clone());
        }
    }

    /// Keeps what `plan` says is to be remembered, and forgets what bears on nothing any more.
    /// `waiting` are the UIDs of all pods that wait.
    pub fn keep(&mut self, plan: &Plan, waiting: &HashSet<&str>, now: Timestamp) {
        for (uid, start) in plan.starts() {
            if self.refused.get(uid) != Some(start) {
                self.refused.insert(uid.to_owned(), *start);
            }
        }
        self.reject(plan, now);
        if plan.first == First::Nothing {
            self.waiting.clone_from(&plan.waiting);
        }
        if plan.peak == Peak::On {
            self.busy = Some(now);
        }
        let reserved: HashMap<&str, &str> = plan
            .reservations
            .iter()
            .map(|entry| (entry.uid.as_str(), entry.resource_version.as_str()))
            .collect();
        let waits = |uid: &String| waiting.contains(uid.as_str());
        self.refused.retain(|uid, _| waits(uid));
        self.denied.retain(|uid, _| waits(uid));
        self.sent.retain(|uid, sent| {
            let is_on_its_way = sent.outcome == Sending::OnItsWay;
            is_on_its_way || waits(uid) || reserved.contains_key(uid.as_str())
        });
        self.settled
            .retain(|uid, version| reserved.get(uid.as_str()) == Some(&version.as_str()));
        // What is not due any more for so long is not repeated.
        self.failed
            .retain(|_, failed| later(failed.until, refused::LONGEST) > now);
        self.unmarkable
            .retain(|_, denial| later(denial.until, refused::LONGEST) > now);
        let stuck = plan.stuck.iter().map(|uid| {
            let since = self.stuck.get(uid).copied().unwrap_or(now);
            (uid.clone(), since)
        });
        self.stuck = stuck.collect();
        self.expired = plan.expired.iter().cloned().collect();
        for uid in &plan.unmarked {
            self.unmarked.insert(uid.clone(), now);
        }
        self.unmarked.retain(|_, seen| later(*seen, UNMARKED) > now);
        self.granted.retain(|_, at| later(*at, LONGEST_SPAN) > now);
    }

    /// Learns which templates Azure refuses from the pods that are given back for it. All pods that Azure
    /// refuses while a template is kept off are one try: they were created before it was known.
    fn reject(&mut self, plan: &Plan, now: Timestamp) {
        let mut seen = HashSet::new();
        for rescue in &plan.rescues {
            let Some((template, why)) = &rescue.fault else {
                continue;
            };
            seen.insert(template.as_str());
            let rejection = self.rejected.entry(template.clone()).or_default();
            if !rejection.uids.insert(rescue.pod.uid.clone()) || now < rejection.until {
                continue;
            }
            let doubled = 2_u32.saturating_pow(rejection.tries.min(16));
            let wait = REJECTED.0.saturating_mul(doubled).min(REJECTED.1);
            rejection.until = later(now, wait);
            rejection.why.clone_from(why);
            rejection.tries = rejection.tries.saturating_add(1);
        }
        // One that is over for long is forgotten: the next one waits as briefly as the first. While a pod that
        // taught it is still there, it would only teach the same again.
        self.rejected.retain(|template, rejection| {
            let is_recent = now < later(rejection.until, REJECTED.1);
            is_recent || seen.contains(template.as_str())
        });
    }

    /// Templates of which Azure has refused a pod not long ago, and in which words.
    pub(super) fn rejected(&self, now: Timestamp) -> impl Iterator<Item = (&str, &str)> {
        let all = self.rejected.iter().filter(move |(_, one)| now < one.until);
        all.map(|(template, one)| (template.as_str(), one.why.as_str()))
    }

    /// When the next of these may be granted again.
    pub(super) fn next_rejected(&self) -> impl Iterator<Item = Timestamp> {
        self.rejected.values().map(|one| one.until)
    }

    /// There was a peak when we took over: its cooldown counts from now.
    pub fn found_a_peak(&mut self, now: Timestamp) {
        self.busy = Some(now);
    }

    /// Since when Azure lets a granted pod wait that has not started, if it does.
    pub(super) fn waits_since(&self, uid: &str) -> Option<Timestamp> {
        self.waiting.get(uid).copied()
    }

    pub(super) fn refused_since(&self, uid: &str) -> Option<Start> {
        self.refused.get(uid).copied()
    }

    /// Why the pod is left alone, if its grant was denied.
    pub fn denial(&self, uid: &str) -> Option<&Denial> {
        self.denied.get(uid)
    }

    /// When pods were granted; those on their way, now.
    pub(super) fn grants(&self, now: Timestamp) -> impl Iterator<Item = (&str, Timestamp)> {
        let granted = self.granted.iter().map(|(uid, at)| (uid.as_str(), *at));
        let sent = self.sent.iter();
        let on_their_way = sent.filter(|(_, sent)| sent.outcome == Sending::OnItsWay);
        granted.chain(on_their_way.map(move |(uid, _)| (uid.as_str(), now)))
    }

    pub(super) fn is_settled(&self, entry: &Reservation) -> bool {
        self.settled.get(&entry.uid) == Some(&entry.resource_version)
    }

    pub(super) fn backends(&self) -> &BTreeMap<String, Backend> {
        &self.backends
    }

    /// When there was a peak last.
    pub fn busy(&self) -> Option<Timestamp> {
        self.busy
    }

    pub(super) fn reserved(&self) -> Option<Timestamp> {
        self.reserved
    }

    /// What is known of the last patch of `pod`.
    pub fn attempt(&self, pod: &PodRef) -> Attempt {
        self.attempt_at(&pod.uid, &pod.resource_version)
    }

    /// What is known of the last patch of the pod that was reserved.
    pub(super) fn attempt_of(&self, entry: &Reservation) -> Attempt {
        self.attempt_at(&entry.uid, &entry.resource_version)
    }

    fn attempt_at(&self, uid: &str, version: &str) -> Attempt {
        match self.sent.get(uid) {
            None => Attempt::None,
            Some(sent) if sent.resource_version != version => Attempt::None,
            Some(sent) => match sent.outcome {
                Sending::Undone if !sent.is_lost => Attempt::None,
                Sending::OnItsWay | Sending::Granted | Sending::Conflict => Attempt::Awaited,
                Sending::Unknown | Sending::Undone => Attempt::Unknown,
            },
        }
    }
}

#[cfg(test)]
mod tests;
