//! The pace of a drain: when to repeat an eviction or a count that did not succeed. Pure.
//!
//! In: the results of evictions and of counts of container groups. Out: the pod to evict next, and when to
//! count groups again.
//!
//! While a `PodDisruptionBudget` blocks evictions, the drain retries one of its pods, as often as
//! `kubectl drain` does. When that eviction succeeds, it retries all the others at once. This state is kept in
//! memory: a new leader restores it by trying each pod once.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use kube::core::Status;
use tokio::time::Instant;

use crate::k8s::backoff::doubled;

/// The first pause.
const INITIAL_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause before a drain continues, and between two evictions that the same budget blocks: the interval of
/// `kubectl drain`.
pub(in crate::controller) const MAX_DRAIN_RETRY_INTERVAL: Duration = Duration::from_secs(5);
/// The longest pause after an eviction that fails for another reason.
const MAX_ERROR_PAUSE: Duration = Duration::from_secs(30);
/// The longest pause between two counts of container groups.
const MAX_COUNT_INTERVAL: Duration = Duration::from_secs(15);

/// A pause that doubles from [`INITIAL_PAUSE`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::controller) struct ExponentialBackoff {
    times: u32,
    until: Option<Instant>,
}

impl ExponentialBackoff {
    /// Starts the next pause, twice as long as the last, and returns its length.
    pub fn start_next(&mut self, longest: Duration, now: Instant) -> Duration {
        let pause = doubled(INITIAL_PAUSE, self.times, longest);
        self.times += 1;
        self.until = Some(now + pause);
        pause
    }

    /// Whether the pause is over.
    pub fn is_over(&self, now: Instant) -> bool {
        self.until.is_none_or(|until| until <= now)
    }
}

/// A `PodDisruptionBudget`: its namespace, and its name; the name is empty if the answer does not contain it.
pub(in crate::controller) type DisruptionBudgetRef = (String, String);

/// Why an eviction was rejected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::controller) enum EvictionRejection {
    /// A budget blocks it.
    DisruptionBudget(DisruptionBudgetRef),
    /// Any other reason.
    Other,
}

impl EvictionRejection {
    /// Reads the API server's answer to the eviction of a pod in that namespace.
    pub fn from_status(status: &Status, namespace: &str) -> Self {
        if status.code != 429 {
            return Self::Other;
        }
        let causes = status.details.iter().flat_map(|details| &details.causes);
        let mut name = causes.filter_map(|cause| {
            let budget = cause.message.strip_prefix("The disruption budget ")?;
            budget.split_whitespace().next()
        });
        let name = name.next_back().unwrap_or_default();
        Self::DisruptionBudget((namespace.to_owned(), name.to_owned()))
    }
}

/// A pod whose eviction was rejected.
#[derive(Clone, Debug)]
struct RejectedEviction {
    cause: EvictionRejection,
    message: String,
    rejected_at: Instant,
    pause: ExponentialBackoff,
}

/// The evictions of a placement's pods.
#[derive(Debug, Default)]
pub(in crate::controller) struct EvictionPacer {
    /// The rejected pods, by UID.
    pods: HashMap<String, RejectedEviction>,
    budgets: BTreeMap<DisruptionBudgetRef, ExponentialBackoff>,
}

impl EvictionPacer {
    /// Forgets pods that are gone, and budgets that blocked only those.
    pub fn retain(&mut self, is_left: impl Fn(&str) -> bool) {
        self.pods.retain(|uid, _| is_left(uid));
        let pods = &self.pods;
        self.budgets.retain(|budget, _| {
            let mut all = pods.values();
            all.any(|pod| pod.cause == EvictionRejection::DisruptionBudget(budget.clone()))
        });
    }

    /// The next of these pods to evict now: first those that have not been tried yet, then the one whose
    /// rejection is oldest. `None` if no pod is due.
    pub fn next_due<'a>(&self, pods: &[&'a str], now: Instant) -> Option<&'a str> {
        let due = pods.iter().filter(|uid| match self.pods.get(**uid) {
            None => true,
            Some(rejected) => match &rejected.cause {
                EvictionRejection::Other => rejected.pause.is_over(now),
                EvictionRejection::DisruptionBudget(budget) => {
                    let pause = self.budgets.get(budget);
                    pause.is_none_or(|pause| pause.is_over(now))
                }
            },
        });
        due.min_by_key(|uid| self.pods.get(**uid).map(|rejected| rejected.rejected_at))
            .copied()
    }

    /// Records that the eviction succeeded: the budget that had blocked the pod may now allow others.
    pub fn record_accepted(&mut self, uid: &str) {
        if let Some(rejected) = self.pods.remove(uid)
            && let EvictionRejection::DisruptionBudget(budget) = rejected.cause
        {
            self.budgets.remove(&budget);
        }
    }

    /// Records that the eviction was rejected.
    pub fn record_rejected(
        &mut self,
        uid: &str,
        cause: EvictionRejection,
        message: String,
        now: Instant,
    ) {
        let previous = self.pods.remove(uid);
        let mut pause = previous.map(|previous| previous.pause).unwrap_or_default();
        match &cause {
            EvictionRejection::Other => drop(pause.start_next(MAX_ERROR_PAUSE, now)),
            EvictionRejection::DisruptionBudget(budget) => {
                let pause = self.budgets.entry(budget.clone()).or_default();
                // Several pods that were tried in one round count as one rejection of the budget.
                if pause.is_over(now) {
                    pause.start_next(MAX_DRAIN_RETRY_INTERVAL, now);
                }
            }
        }
        let rejected = RejectedEviction {
            cause,
            message,
            rejected_at: now,
            pause,
        };
        self.pods.insert(uid.to_owned(), rejected);
    }

    /// The API server's message at the last rejection of the pod's eviction.
    pub fn rejection_message(&self, uid: &str) -> Option<&str> {
        self.pods.get(uid).map(|rejected| rejected.message.as_str())
    }
}

/// How to find out the number of container groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::controller) enum CountAction {
    /// List them in Azure.
    List,
    /// Use this number; `None` if it is not known.
    UseKnown(Option<usize>),
}

/// The counts of a placement's container groups. Each count is a LIST, and Azure limits their rate.
#[derive(Debug, Default)]
pub(in crate::controller) struct GroupCountPacer {
    /// The number that was known locally at the last LIST.
    known_at_count: Option<usize>,
    last_count: Option<usize>,
    pause: ExponentialBackoff,
}

impl GroupCountPacer {
    /// How to find out the number of container groups; `known` is the number known locally, from the last listing
    /// and the pod workers. When that falls to 0, the groups are listed at once; otherwise at growing intervals.
    pub fn next_action(&self, known: Option<usize>, now: Instant) -> CountAction {
        let is_new = known == Some(0) && self.known_at_count != Some(0);
        if is_new || self.pause.is_over(now) {
            return CountAction::List;
        }
        CountAction::UseKnown(known.filter(|groups| *groups > 0).or(self.last_count))
    }

    /// Records a count; `None` if Azure did not answer.
    pub fn record_count(&mut self, counted: Option<usize>, known: Option<usize>, now: Instant) {
        if counted == Some(0) {
            self.pause = ExponentialBackoff::default();
        } else {
            self.pause.start_next(MAX_COUNT_INTERVAL, now);
        }
        (self.known_at_count, self.last_count) = (known, counted);
    }
}

/// When a drain continues.
#[derive(Debug, Default)]
pub(in crate::controller) struct DrainDelay {
    left: Vec<String>,
    pause: ExponentialBackoff,
}

impl DrainDelay {
    /// How soon the drain continues. The pause starts again from 1 s whenever `left` changes.
    pub fn next_delay(&mut self, left: &[String], now: Instant) -> Duration {
        if self.left != left {
            self.left = left.to_vec();
            self.pause = ExponentialBackoff::default();
        }
        self.pause.start_next(MAX_DRAIN_RETRY_INTERVAL, now)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn blocked_by(budget: &str) -> EvictionRejection {
        EvictionRejection::DisruptionBudget(("default".to_owned(), budget.to_owned()))
    }

    /// Tries every second for `seconds`. Returns how often each pod was tried.
    fn try_evictions(
        evictions: &mut EvictionPacer,
        pods: &[&'static str],
        seconds: u32,
        start: Instant,
        answer: impl Fn(&str) -> Option<EvictionRejection>,
    ) -> BTreeMap<&'static str, u32> {
        let mut attempts = BTreeMap::new();
        for second in 0..seconds {
            let now = start + SECOND * second;
            while let Some(uid) = evictions.next_due(pods, now) {
                *attempts.entry(uid).or_default() += 1;
                match answer(uid) {
                    Some(why) => evictions.record_rejected(uid, why, "no".to_owned(), now),
                    None => evictions.record_accepted(uid),
                }
                assert!(
                    attempts.values().sum::<u32>() < 1000,
                    "no end: {attempts:?}"
                );
                if answer(uid).is_none() {
                    break;
                }
            }
        }
        attempts
    }

    const PODS: [&str; 12] = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"];

    #[test]
    fn a_blocking_budget_is_retried_as_often_as_kubectl_does_for_any_number_of_pods() {
        let mut evictions = EvictionPacer::default();
        let start = Instant::now();
        let attempts = try_evictions(&mut evictions, &PODS, 60, start, |_| {
            Some(blocked_by("web"))
        });
        let all: u32 = attempts.values().sum();
        // Each pod once at first, and then one of them every few seconds.
        assert!((20..=26).contains(&all), "{attempts:?}");
        let later = start + 60 * SECOND;
        let attempts = try_evictions(&mut evictions, &PODS, 3600, later, |_| {
            Some(blocked_by("web"))
        });
        let all: u32 = attempts.values().sum();
        assert!(all <= 721, "{attempts:?}");
        // All pods in turn, because it is not known which of them the budget will allow.
        assert!(attempts.values().all(|times| *times >= 50), "{attempts:?}");
    }

    #[test]
    fn after_a_success_the_other_pods_of_the_same_budget_are_retried_at_once() {
        let mut evictions = EvictionPacer::default();
        let now = Instant::now();
        for uid in PODS {
            let budget = if uid == "l" { "db" } else { "web" };
            evictions.record_rejected(uid, blocked_by(budget), "no".to_owned(), now);
        }
        assert_eq!(evictions.next_due(&PODS, now), None);
        let later = now + MAX_DRAIN_RETRY_INTERVAL;
        assert_eq!(evictions.next_due(&PODS, later), Some("a"));
        evictions.record_accepted("a");
        let left: Vec<&str> = PODS.into_iter().skip(1).collect();
        evictions.retain(|uid| left.contains(&uid));
        evictions.record_rejected("l", blocked_by("db"), "no".to_owned(), later);
        assert_eq!(evictions.next_due(&left, later), Some("b"));
        assert_eq!(evictions.next_due(&["l"], later), None);
        assert_eq!(evictions.rejection_message("l"), Some("no"));
    }

    #[test]
    fn each_failed_eviction_has_its_own_growing_pause() {
        let mut evictions = EvictionPacer::default();
        let start = Instant::now();
        let attempts = try_evictions(&mut evictions, &["a", "b"], 600, start, |_| {
            Some(EvictionRejection::Other)
        });
        assert_eq!(attempts["a"], attempts["b"]);
        assert!((15..=25).contains(&attempts["a"]), "{attempts:?}");
    }

    #[test]
    fn a_budget_is_identified_by_its_name_or_else_by_its_namespace() {
        let rejection = |message: &str, code: u16| {
            let status = json!({"status": "Failure", "reason": "TooManyRequests", "code": code,
                "message": "Cannot evict pod as it would violate the pod's disruption budget.",
                "details": {"causes": [{"reason": "DisruptionBudget", "message": message}]}});
            let status: Status = serde_json::from_value(status).expect("a status");
            EvictionRejection::from_status(&status, "default")
        };
        let needs = "The disruption budget web needs 2 healthy pods and has 1 currently";
        assert_eq!(rejection(needs, 429), blocked_by("web"));
        let processed = "The disruption budget web is still being processed by the server.";
        assert_eq!(rejection(processed, 429), blocked_by("web"));
        assert_eq!(rejection("too busy", 429), blocked_by(""));
        assert_eq!(rejection(needs, 500), EvictionRejection::Other);
    }

    #[test]
    fn groups_are_counted_when_the_last_is_gone_and_otherwise_at_growing_intervals() {
        let mut counts = GroupCountPacer::default();
        let start = Instant::now();
        let mut attempts = 0;
        for second in 0..600 {
            let now = start + SECOND * second;
            if counts.next_action(Some(3), now) == CountAction::List {
                attempts += 1;
                counts.record_count(Some(3), Some(3), now);
            }
        }
        assert!((40..=50).contains(&attempts), "{attempts}");
        let now = start + 594 * SECOND;
        assert_eq!(
            counts.next_action(Some(2), now),
            CountAction::UseKnown(Some(2))
        );
        assert_eq!(
            counts.next_action(None, now),
            CountAction::UseKnown(Some(3))
        );
        assert_eq!(
            counts.next_action(Some(0), now),
            CountAction::List,
            "the last is gone"
        );
        counts.record_count(Some(0), Some(0), now);
        assert_eq!(
            counts.next_action(Some(0), now),
            CountAction::List,
            "and again, to be sure"
        );
    }

    #[test]
    fn a_waiting_drain_continues_every_few_seconds_and_sooner_after_a_change() {
        let mut drain_delay = DrainDelay::default();
        let now = Instant::now();
        let (two, one) = (["a".to_owned(), "b".to_owned()], ["b".to_owned()]);
        let pauses: Vec<u64> = (0..5)
            .map(|_| drain_delay.next_delay(&two, now).as_secs())
            .collect();
        assert_eq!(pauses, [1, 2, 4, 5, 5]);
        assert_eq!(drain_delay.next_delay(&one, now), SECOND);
    }
}
