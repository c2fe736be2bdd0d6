//! How long a pod must have been refused before it may be granted.
//!
//! In: the pod, what is remembered of it, the time. Out: since when it is refused, and whether that
//! must be stamped on it. The condition's transition time tells only of a pod that was never changed:
//! one that was gated keeps the gate's time (decision D9), so for any other the first time that it was
//! seen refused is stamped on it, and remembered until the stamp is there.
//!
//! A hold is measured by this process's monotonic clock: its start is a time of that clock, from when the pod was seen
//! to be refused ([`refused_at`]). The times that the scheduler and other processes write are of other clocks.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::pod::PodFacts;

/// How long a pod is held at least for which the scheduler makes room on a node: the victims' usual
/// grace period of 30 s and their replacement. A nomination may be stale, and then nothing takes it
/// back.
pub const NOMINATION: Duration = Duration::from_secs(60);

/// How a pod that is refused now was seen before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Before {
    /// Not at all. By its own clock, the API server wrote the refusal at least so long ago.
    Unseen(Duration),
    /// It waited, and was not refused.
    NotRefused,
    /// It was refused.
    Refused {
        /// Since when, by the condition.
        told: Timestamp,
        /// Since when, by our monotonic clock.
        at: Timestamp,
    },
}

/// Since when a pod is refused that is seen `now`, by our monotonic clock; `told` is what its condition says.
///
/// A refusal counts from when it was seen, so no clock that is off or is set changes the hold. Only of a pod that was
/// refused before this process saw it, the API server's own time of that write counts. The condition's time is the
/// scheduler's, and proves nothing.
pub fn refused_at(told: Timestamp, before: Before, now: Timestamp) -> Timestamp {
    match before {
        Before::Refused { told: same, at } if same == told => at,
        Before::Refused { .. } | Before::NotRefused => now,
        Before::Unseen(ago) => now.saturating_sub(ago).unwrap_or(now),
    }
}

/// Since when a pod has been refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Start {
    /// Since when, by our monotonic clock.
    pub at: Timestamp,
    /// Whether nothing but us knows it: it must be stamped on the pod.
    pub must_be_stamped: bool,
    /// Since when the scheduler makes room for it, as far as was seen.
    pub nominated: Option<Timestamp>,
}

/// Since when `pod` has been refused: since `seen` if nothing has changed it since it was created. `remembered` is what an
/// earlier plan said: a change of the pod's spec while it is held does not start the hold again. `now`, `seen` and the
/// result are times of our monotonic clock; the API server's is `ahead` of it.
pub fn start(
    pod: &PodFacts,
    seen: Option<Timestamp>,
    remembered: Option<Start>,
    ahead: SignedDuration,
    now: Timestamp,
) -> Start {
    let nominated = remembered.and_then(|start| start.nominated);
    let known = |at: Timestamp, must_be_stamped| Start {
        at: at.min(now),
        must_be_stamped,
        nominated: pod.is_nominated.then(|| nominated.unwrap_or(now)),
    };
    if let Some(stamped) = pod.stamped {
        // What we remember is of our own clock, and does not change when another clock is set.
        let at = remembered.map_or_else(|| by(stamped, -ahead), |start| start.at);
        return known(at, false);
    }
    if let (true, Some(seen)) = (pod.is_first_generation, seen) {
        return known(seen, false);
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

/// `at`, moved by so much.
pub(super) fn by(at: Timestamp, by: SignedDuration) -> Timestamp {
    at.saturating_add(by).unwrap_or(at)
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
        let zero = SignedDuration::ZERO;
        let start = start(pod, Some(at(transition)), remembered, zero, at(100));
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
    fn a_refusal_counts_from_when_it_was_seen_or_from_when_the_api_server_wrote_it() {
        let refused = |before, now| refused_at(at(40), before, at(now));
        let seen = |told, since| Before::Refused {
            told: at(told),
            at: at(since),
        };
        let unseen = |ago| Before::Unseen(Duration::from_secs(ago));
        for skew in [-90, -3, 0, 3, 90] {
            let now = 100 + skew;
            let case = format!("{skew} s ahead of the scheduler");
            assert_eq!(refused(Before::NotRefused, now), at(now), "{case}");
            assert_eq!(refused(seen(40, now), now + 5), at(now), "{case}");
            assert_eq!(refused(unseen(0), now), at(now), "{case}");
            assert_eq!(refused(unseen(30), now), at(now - 30), "{case}");
        }
        assert_eq!(refused(seen(30, 31), 45), at(45), "refused again");
    }

    #[test]
    fn a_stamp_is_of_the_api_servers_clock_and_what_is_remembered_of_ours() {
        let mut stamped = pod("a");
        stamped.stamped = Some(at(150));
        let ahead = SignedDuration::from_secs(90);
        let start = |remembered| start(&stamped, None, remembered, ahead, at(100));
        let first = start(None);
        assert_eq!(first.at, at(60));
        let before = Start {
            at: at(70),
            ..first
        };
        assert_eq!(start(Some(before)).at, at(70));
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
        let zero = SignedDuration::ZERO;
        let start = |remembered, now| start(&nominated, Some(at(40)), remembered, zero, at(now));
        let after = Duration::from_secs(15);
        let first = start(None, 50);
        assert_eq!(end(first, after), at(110));
        assert_eq!(end(start(Some(first), 90), after), at(110));
        // It had waited for long when room was made for it: that takes as long as for any other.
        assert_eq!(end(start(None, 4000), after), at(4060));
    }
}
