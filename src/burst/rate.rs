//! How many grants the pool's rate leaves now.
//!
//! In: when pods were granted (from their annotations and from memory, so a restart forgets nothing
//! that is still there), the rate, the time. Out: how many more, and when there is more. No span of
//! the rate's length ever holds more grants than it says; a bucket that fills up steadily would let
//! twice as many through in its first span.

use std::time::Duration;

use jiff::Timestamp;

use super::hold::later;
use crate::api::Rate;

/// What the rate leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Left {
    /// How many pods may be granted now.
    pub now: usize,
    /// When the next may be, once those are.
    pub next: Option<Timestamp>,
}

/// What is left of `rate` after these grants; those of the future, by another clock, are of now.
pub fn left(mut grants: Vec<Timestamp>, rate: &Rate, now: Timestamp) -> Left {
    let per = Duration::from(rate.per);
    let pods = usize::try_from(rate.pods).unwrap_or(usize::MAX);
    for grant in &mut grants {
        *grant = (*grant).min(now);
    }
    grants.retain(|grant| later(*grant, per) > now);
    grants.sort_unstable();
    let left = pods.saturating_sub(grants.len());
    // With those of now, as many as may be: the first of them ends first.
    let over = grants.len().saturating_sub(pods);
    let first = grants.get(over).copied().unwrap_or(now);
    Left {
        now: left,
        next: Some(later(first, per)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::burst::fixtures::at;

    fn five_a_minute(grants: &[i64], now: i64) -> (usize, i64) {
        let rate = Rate {
            pods: 5,
            per: Duration::from_secs(60).into(),
        };
        let grants = grants.iter().copied().map(at).collect();
        let left = left(grants, &rate, at(now));
        (left.now, left.next.expect("a time").as_second())
    }

    #[test]
    fn five_a_minute_are_five_in_any_minute() {
        assert_eq!(five_a_minute(&[], 100), (5, 160));
        assert_eq!(five_a_minute(&[100, 100, 100], 130), (2, 160));
        assert_eq!(five_a_minute(&[100, 100, 100, 110, 120], 130), (0, 160));
        assert_eq!(five_a_minute(&[100, 100, 100, 110, 120], 160), (3, 170));
    }

    #[test]
    fn more_grants_than_the_rate_allows_now_are_waited_for() {
        assert_eq!(
            five_a_minute(&[100, 101, 102, 103, 104, 105, 106], 110),
            (0, 162)
        );
    }

    #[test]
    fn another_clock_does_not_stop_the_pool_for_ever() {
        assert_eq!(five_a_minute(&[9000; 5], 100), (0, 160));
    }
}
