//! How long a pod must have been refused before it may be granted.
//!
//! In: the pod, what is remembered of it, the time. Out: since when it is refused, and whether that
//! must be stamped on it. The condition's transition time tells only of a pod that was never changed:
//! one that was gated keeps the gate's time (design D9), so for any other the first time that it was
//! seen refused is stamped on it, and remembered until the stamp is there.
//!
//! Conditions tell whole seconds: [`finer`] holds a pod from when it was seen refused within that second.
//! Otherwise all pods that were refused in one second were granted in one moment, up to a second early.

use std::time::Duration;

use jiff::Timestamp;

use super::pod::PodFacts;

/// How long a pod is held at least for which the scheduler makes room on a node: the victims' usual
/// grace period of 30 s and their replacement. A nomination may be stale, and then nothing takes it
/// back.
pub const NOMINATION: Duration = Duration::from_secs(60);

/// How exact the times of conditions are.
const TOLD: Duration = Duration::from_secs(1);

/// When a pod was refused whose condition says `told`, and that is seen `now`; `known` is what was said of
/// it before.
pub fn finer(told: Timestamp, known: Option<Timestamp>, now: Timestamp) -> Timestamp {
    let of_this_second = |at: &Timestamp| *at >= told && *at < later(told, TOLD);
    let seen = known.filter(of_this_second);
    seen.or(Some(now).filter(of_this_second)).unwrap_or(told)
}

/// Since when a pod has been refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Start {
    /// Since when.
    pub at: Timestamp,
    /// Whether nothing but us knows it: it must be stamped on the pod.
    pub must_be_stamped: bool,
    /// Since when the scheduler makes room for it, as far as was seen.
    pub nominated: Option<Timestamp>,
}

/// Since when `pod`, whose condition says `transition`, has been refused. `remembered` is what an
/// earlier plan said: a pod whose spec is changed while it is held is not held anew.
pub fn start(
    pod: &PodFacts,
    transition: Option<Timestamp>,
    remembered: Option<Start>,
    now: Timestamp,
) -> Start {
    let nominated = remembered.and_then(|start| start.nominated);
    let known = |at: Timestamp, must_be_stamped| Start {
        at: at.min(now),
        must_be_stamped,
        nominated: pod.is_nominated.then(|| nominated.unwrap_or(now)),
    };
    if let Some(stamped) = pod.stamped {
        return known(stamped, false);
    }
    if let (true, Some(transition)) = (pod.is_first_generation, transition) {
        return known(transition, false);
    }
    known(remembered.map_or(now, |start| start.at), true)
}

/// When a pod that has been refused since `start` may be granted.
pub fn end(start: Start, after: Duration) -> Timestamp {
    let refused = later(start.at, after);
    let nominated = start.nominated.map(|at| later(at, NOMINATION));
    nominated.map_or(refused, |nominated| refused.max(nominated))
}

/// `at` and `by` more.
pub fn later(at: Timestamp, by: Duration) -> Timestamp {
    at.saturating_add(by).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::burst::fixtures::{at, pod};

    fn started(pod: &PodFacts, transition: i64, remembered: Option<i64>) -> (i64, bool) {
        let remembered = remembered.map(|second| Start {
            at: at(second),
            must_be_stamped: false,
            nominated: None,
        });
        let start = start(pod, Some(at(transition)), remembered, at(100));
        (start.at.as_second(), start.must_be_stamped)
    }

    #[test]
    fn the_hold_of_a_pod_that_never_changed_starts_with_its_refusal_and_needs_no_stamp() {
        assert_eq!(started(&pod("a"), 40, None), (40, false));
        assert_eq!(started(&pod("a"), 40, Some(90)), (40, false));
    }

    #[test]
    fn the_hold_of_a_pod_that_was_gated_starts_when_it_was_first_seen_refused() {
        let mut ungated = pod("a");
        ungated.is_first_generation = false;
        assert_eq!(started(&ungated, 40, None), (100, true));
        assert_eq!(started(&ungated, 40, Some(70)), (70, true));
        ungated.stamped = Some(at(60));
        assert_eq!(
            started(&ungated, 40, None),
            (60, false),
            "a restart loses nothing"
        );
    }

    #[test]
    fn a_pod_is_held_from_when_it_was_seen_refused_within_the_second_that_its_condition_tells() {
        let ms = |ms| Timestamp::from_millisecond(ms).expect("a time");
        let finer = |known: Option<i64>, now| finer(ms(40_000), known.map(ms), ms(now));
        assert_eq!(finer(None, 40_700), ms(40_700));
        assert_eq!(finer(Some(40_700), 40_900), ms(40_700), "it stays so");
        assert_eq!(finer(None, 41_000), ms(40_000), "seen too late");
        assert_eq!(finer(None, 39_900), ms(40_000), "our clock is behind");
        assert_eq!(
            finer(Some(30_700), 40_900),
            ms(40_900),
            "an earlier refusal"
        );
        assert_eq!(finer(Some(30_700), 45_000), ms(40_000));
    }

    #[test]
    fn a_stamp_of_the_future_counts_from_now() {
        let mut early = pod("a");
        early.stamped = Some(at(5000));
        assert_eq!(started(&early, 40, None), (100, false));
    }

    #[test]
    fn a_nominated_pod_is_held_longer_but_not_for_ever() {
        let mut nominated = pod("a");
        nominated.is_nominated = true;
        let start = |remembered, now| start(&nominated, Some(at(40)), remembered, at(now));
        let after = Duration::from_secs(15);
        let first = start(None, 50);
        assert_eq!(end(first, after), at(110));
        assert_eq!(end(start(Some(first), 90), after), at(110));
        // It had waited for long when room was made for it: that takes as long as for any other.
        assert_eq!(end(start(None, 4000), after), at(4060));
    }
}
