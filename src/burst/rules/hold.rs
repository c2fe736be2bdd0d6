//! The hold: for how long the scheduler must have refused a pod before it may be granted.
//!
//! In: the pod, the start that an earlier plan found, and the time. Out: a [`HoldStart`], and whether it must be
//! written to the pod as an annotation.
//!
//! The condition's transition time is reliable only if the pod was never changed: a pod that had scheduling
//! gates keeps the time of the gate (decision D9). For any other pod, the operator writes an annotation with
//! the time at which it first saw the pod refused, and remembers the time until the watch shows the annotation.
//!
//! The operator measures a hold by its own monotonic clock, from when it saw the pod refused ([`refused_at`]).
//! The times that the scheduler and other processes write come from other clocks.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::api::{Spill, Workload};
use crate::burst::facts::pod::PodFacts;
use crate::burst::leader_state::HoldStart;
use crate::burst::observation::ObservedPool;
use crate::k8s::time::{later, shifted};

/// The minimum hold, 60 seconds, of a pod for which the scheduler preempts others on a node: the victims'
/// default grace period of 30 s, plus the time to start the pod there. It ends because a nomination may be
/// stale, and nothing then removes it.
pub const NOMINATION_HOLD: Duration = Duration::from_secs(60);

/// How the watch showed a pod before it showed it refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PriorRefusal {
    /// Not at all. By the API server's own clock, the refusal is at least this old.
    Unseen(Duration),
    /// Pending, and never refused.
    NotRefused,
    /// Refused, now or before a change that kept the condition's transition time if the refusal is the same.
    Refused {
        /// The transition time of the condition, by the scheduler's clock.
        transition: Timestamp,
        /// Since when, by the operator's monotonic clock.
        at: Timestamp,
    },
}

/// Since when a pod that is refused at `now` has been refused, by the operator's monotonic clock. `transition` is the
/// transition time of its condition.
///
/// The refusal counts from when the operator saw it, so a clock that is wrong or is changed has no effect on
/// the hold. If the pod was refused before this process saw it, the age comes from the time at which the API
/// server stored that write. The condition's own time is only compared: it comes from the scheduler's clock.
pub fn refused_at(transition: Timestamp, before: PriorRefusal, now: Timestamp) -> Timestamp {
    match before {
        PriorRefusal::Refused {
            transition: same,
            at,
        } if same == transition => at,
        PriorRefusal::Refused { .. } | PriorRefusal::NotRefused => now,
        PriorRefusal::Unseen(ago) => now.saturating_sub(ago).unwrap_or(now),
    }
}

/// The start of the hold of `pod`. If the pod has a stamp, it is `remembered`, or else the stamp. Without a
/// stamp, it is `seen` if nothing has changed the pod's spec since it was created. Otherwise it is
/// `remembered`, or else `now`.
///
/// `remembered` is the start that an earlier plan found, so a change of the spec during the hold does not start
/// the hold again. `now`, `seen` and the result are times by the operator's monotonic clock. The API server's
/// clock is `ahead` of it.
pub fn start(
    pod: &PodFacts,
    seen: Option<Timestamp>,
    remembered: Option<HoldStart>,
    ahead: SignedDuration,
    now: Timestamp,
) -> HoldStart {
    let nominated = remembered.and_then(|start| start.nominated_since);
    let known = |at: Timestamp, must_be_stamped| HoldStart {
        refused_since: at.min(now),
        must_annotate: must_be_stamped,
        nominated_since: pod.is_nominated.then(|| nominated.unwrap_or(now)),
    };
    if let Some(stamped) = pod.refused_since {
        // The remembered time is by the operator's own clock, so it does not move when another clock is
        // changed.
        let at = remembered.map_or_else(|| shifted(stamped, -ahead), |start| start.refused_since);
        return known(at, false);
    }
    if let (true, Some(seen)) = (pod.is_first_generation, seen) {
        return known(seen, false);
    }
    known(remembered.map_or(now, |start| start.refused_since), true)
}

/// How long the pods of each workload are held after the scheduler refused them, in the order of the pool's spec.
pub fn durations(pool: &Spill, observed: &ObservedPool<'_>) -> Vec<Duration> {
    let workloads = observed.workloads.iter();
    workloads
        .map(|workload| duration(pool, workload.spec, observed.is_triggered))
        .collect()
}

/// `spill.after`, of the workload or else of the pool; while a trigger is active, at most
/// `spill.afterWhenTriggered`.
fn duration(pool: &Spill, workload: &Workload, is_triggered: bool) -> Duration {
    let own = workload.spill.as_ref().and_then(|own| own.after);
    let after = Duration::from(own.unwrap_or(pool.after));
    if !is_triggered {
        return after;
    }
    let triggered = pool.after_when_triggered.map(Duration::from);
    after.min(triggered.unwrap_or_default())
}

/// When a pod that has been refused since `start` may be granted: `after` later, or at the end of a nomination.
pub fn end(start: HoldStart, after: Duration) -> Timestamp {
    let refused = later(start.refused_since, after);
    let nominated = start.nominated_since.map(|at| later(at, NOMINATION_HOLD));
    nominated.map_or(refused, |nominated| refused.max(nominated))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::burst::fixtures::{at, pod};

    fn started(pod: &PodFacts, transition: i64, remembered: Option<i64>) -> (i64, bool) {
        let remembered = remembered.map(|second| HoldStart {
            refused_since: at(second),
            must_annotate: false,
            nominated_since: None,
        });
        let zero = SignedDuration::ZERO;
        let start = start(pod, Some(at(transition)), remembered, zero, at(100));
        (start.refused_since.as_second(), start.must_annotate)
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
        ungated.refused_since = Some(at(60));
        assert_eq!(
            started(&ungated, 40, None),
            (60, false),
            "a restart loses nothing"
        );
    }

    #[test]
    fn a_refusal_counts_from_when_it_was_seen_or_from_when_the_api_server_wrote_it() {
        let refused = |before, now| refused_at(at(40), before, at(now));
        let seen = |transition, since| PriorRefusal::Refused {
            transition: at(transition),
            at: at(since),
        };
        let unseen = |ago| PriorRefusal::Unseen(Duration::from_secs(ago));
        for skew in [-90, -3, 0, 3, 90] {
            let now = 100 + skew;
            let case = format!("{skew} s ahead of the scheduler");
            assert_eq!(refused(PriorRefusal::NotRefused, now), at(now), "{case}");
            assert_eq!(refused(seen(40, now), now + 5), at(now), "{case}");
            assert_eq!(refused(unseen(0), now), at(now), "{case}");
            assert_eq!(refused(unseen(30), now), at(now - 30), "{case}");
        }
        assert_eq!(refused(seen(30, 31), 45), at(45), "refused again");
    }

    #[test]
    fn a_stamp_is_of_the_api_servers_clock_and_what_is_remembered_of_ours() {
        let mut stamped = pod("a");
        stamped.refused_since = Some(at(150));
        let ahead = SignedDuration::from_secs(90);
        let start = |remembered| start(&stamped, None, remembered, ahead, at(100));
        let first = start(None);
        assert_eq!(first.refused_since, at(60));
        let before = HoldStart {
            refused_since: at(70),
            ..first
        };
        assert_eq!(start(Some(before)).refused_since, at(70));
    }

    #[test]
    fn a_stamp_of_the_future_counts_from_now() {
        let mut early = pod("a");
        early.refused_since = Some(at(5000));
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
        // The nomination came long after the refusal: the hold then lasts as long as for any other nominated
        // pod.
        assert_eq!(end(start(None, 4000), after), at(4060));
    }
}
