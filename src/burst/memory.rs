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
use super::plan::{Peak, Plan};
use super::pod::{PodFacts, PodRef};
use super::reserve::Seen;
use crate::api::Reservation;

/// How long a pod is left alone whose grant was denied, first and at most.
const DENIED: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(600));
/// How long a reservation is left alone that could not be given back.
const RELEASE: Duration = Duration::from_secs(10);
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
    /// When a reservation may be given back that could not be.
    release: HashMap<String, Timestamp>,
    backends: BTreeMap<String, Backend>,
    busy: Option<Timestamp>,
    /// When reservations were written last.
    reserved: Option<Timestamp>,
}

impl Memory {
    /// What is known of a placement's creates: told here how they end.
    pub fn backend(&mut self, placement: &str) -> &mut Backend {
        self.backends.entry(placement.to_owned()).or_default()
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
                let tries = self.denied.get(&pod.uid).map_or(0, |denial| denial.tries);
                let wait = DENIED.0.saturating_mul(2_u32.saturating_pow(tries.min(16)));
                let denial = Denial {
                    until: later(now, wait.min(DENIED.1)),
                    why,
                    tries: tries.saturating_add(1),
                };
                self.denied.insert(pod.uid.clone(), denial);
                Sending::Undone
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

    /// The change that gives a pod's reservation back was answered.
    pub fn released(&mut self, pod: &PodRef, answer: &Answer, now: Timestamp) {
        match answer {
            Answer::Gone => self.gone(pod),
            Answer::Granted => drop(self.release.remove(&pod.uid)),
            Answer::Conflict | Answer::Denied(_) | Answer::Lost | Answer::Unsent => {
                self.release.insert(pod.uid.clone(), later(now, RELEASE));
            }
        }
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
        self.release
            .retain(|uid, _| reserved.contains_key(uid.as_str()));
        self.granted.retain(|_, at| later(*at, LONGEST_SPAN) > now);
    }

    /// There was a peak when we took over: its cooldown counts from now.
    pub fn found_a_peak(&mut self, now: Timestamp) {
        self.busy = Some(now);
    }

    pub(super) fn refused_since(&self, uid: &str) -> Option<Start> {
        self.refused.get(uid).copied()
    }

    pub(super) fn denial(&self, uid: &str) -> Option<&Denial> {
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

    /// When the reservation of a pod may be given back, if that has just failed.
    pub(super) fn release(&self, uid: &str) -> Option<Timestamp> {
        self.release.get(uid).copied()
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
mod tests {
    use super::*;
    use crate::burst::fixtures::{at, pod, reservation};

    fn tried(answers: &[Answer]) -> Memory {
        let mut memory = Memory::default();
        for answer in answers {
            memory.sending(&pod("a").id);
            memory.answered(&pod("a").id, answer.clone(), at(100));
        }
        memory
    }

    fn attempt(answers: &[Answer]) -> Attempt {
        tried(answers).attempt(&pod("a").id)
    }

    fn denied() -> Answer {
        Answer::Denied("no".to_owned())
    }

    #[test]
    fn only_what_cannot_be_carried_out_any_more_is_none() {
        assert_eq!(attempt(&[]), Attempt::None);
        assert_eq!(attempt(&[Answer::Granted]), Attempt::Awaited);
        assert_eq!(attempt(&[Answer::Conflict]), Attempt::Awaited);
        assert_eq!(attempt(&[Answer::Lost]), Attempt::Unknown);
        assert_eq!(attempt(&[denied()]), Attempt::None);
        assert_eq!(
            attempt(&[Answer::Lost, denied()]),
            Attempt::Unknown,
            "the lost one may come"
        );
        assert_eq!(attempt(&[Answer::Lost, Answer::Conflict]), Attempt::Awaited);
    }

    #[test]
    fn a_grant_on_its_way_counts_against_the_rate_also_when_its_pod_is_gone() {
        let mut memory = Memory::default();
        memory.sending(&pod("a").id);
        memory.keep(&Plan::default(), &HashSet::new(), at(100));
        let counts: Vec<_> = memory.grants(at(101)).collect();
        assert_eq!(counts, [("uid-a", at(101))]);
        memory.answered(&pod("a").id, Answer::Granted, at(102));
        let counts: Vec<_> = memory.grants(at(103)).collect();
        assert_eq!(counts, [("uid-a", at(102))]);
    }

    #[test]
    fn a_pod_that_was_said_to_be_gone_and_is_not_is_granted_again() {
        assert_eq!(attempt(&[Answer::Gone]), Attempt::None);
        assert_eq!(attempt(&[Answer::Unsent]), Attempt::None);
        assert_eq!(attempt(&[Answer::Lost, Answer::Unsent]), Attempt::Unknown);
    }

    #[test]
    fn a_grant_that_was_done_or_may_have_been_counts_against_the_rate() {
        let counts = |answer| tried(&[answer]).grants(at(100)).count();
        assert_eq!([counts(Answer::Granted), counts(Answer::Lost)], [1, 1]);
        assert_eq!(
            [
                counts(Answer::Conflict),
                counts(denied()),
                counts(Answer::Gone)
            ],
            [0; 3]
        );
    }

    #[test]
    fn a_later_version_that_is_not_granted_ends_all_doubt() {
        let mut later = pod("a").id;
        later.resource_version = "2".to_owned();
        for answers in [
            vec![Answer::Lost],
            vec![Answer::Conflict],
            vec![Answer::Lost, denied()],
        ] {
            assert_eq!(
                tried(&answers).attempt(&later),
                Attempt::None,
                "{answers:?}"
            );
        }
    }

    #[test]
    fn a_pod_whose_grant_is_denied_is_left_alone_for_longer_each_time() {
        let until = |times: usize| {
            let memory = tried(&vec![denied(); times]);
            let denial = memory.denial(&pod("a").id.uid).cloned();
            denial.expect("a denial").until.as_second() - 100
        };
        assert_eq!([until(1), until(2), until(3), until(20)], [10, 20, 40, 600]);
    }

    #[test]
    fn what_is_settled_of_one_version_is_not_of_the_next() {
        let mut memory = Memory::default();
        memory.looked(&reservation(&pod("a"), "me"), None);
        let later = reservation(&pod("a").at_version("2"), "me");
        assert!(!memory.is_settled(&later));
    }

    #[test]
    fn a_pod_that_was_looked_for_is_settled_if_it_is_gone_replaced_changed_or_home() {
        let entry = reservation(&pod("a"), "me");
        let is_settled = |found: Option<PodFacts>| {
            let mut memory = Memory::default();
            memory.looked(&entry, found.as_ref());
            memory.is_settled(&entry)
        };
        assert!(is_settled(None));
        assert!(is_settled(Some(pod("another"))));
        assert!(!is_settled(Some(pod("a"))));
        let changed = pod("a").at_version("2");
        assert!(is_settled(Some(changed.clone())));
        assert!(!is_settled(Some(changed.granted("shop", "web", 1))));
        assert!(is_settled(Some(pod("a").on("home-1"))));
        assert!(!is_settled(Some(
            pod("a").granted("shop", "web", 1).on("burst-shop-weu")
        )));
    }
}
