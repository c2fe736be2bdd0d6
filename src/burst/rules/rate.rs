//! How many grants the pool's rate allows now.
//!
//! In: the times of earlier grants (from pod annotations and from memory, so a restart loses only grants of
//! deleted pods), the rate, and the time. Out: how many more grants, and when the next one. A sliding window:
//! no span of length `per` ever contains more than `pods` grants. A token bucket would allow twice as many in
//! its first span.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

use super::limits::{GrantCandidate, Limit};
use crate::api::{BurstPoolSpec, Rate, Reservation};
use crate::burst::observation::ObservedPool;
use crate::burst::outcome::BlockedBy;
use crate::k8s::time::later;

/// What the rate allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateAllowance {
    /// How many pods may be granted now.
    pub available: usize,
    /// When the next grant is allowed after those of now.
    pub next_at: Option<Timestamp>,
}

impl Limit for RateAllowance {
    fn check(&self, _: &GrantCandidate<'_>) -> Option<BlockedBy> {
        (self.available == 0).then_some(BlockedBy::RateLimit(self.next_at))
    }

    fn take(&mut self, _: &GrantCandidate<'_>) {
        self.available = self.available.saturating_sub(1);
    }
}

impl RateAllowance {
    /// What the pool's rate allows at `now`. `reserved` are the reservations that count.
    pub fn from_observed(
        spec: &BurstPoolSpec,
        observed: &ObservedPool<'_>,
        reserved: &[&Reservation],
        now: Timestamp,
    ) -> Self {
        let grants = grant_times(observed, reserved, now);
        allowance(grants, &spec.spill.rate, now)
    }
}

/// The times of all grants that count against the rate: seen on pods, remembered, or still possible.
fn grant_times(
    observed: &ObservedPool<'_>,
    reserved: &[&Reservation],
    now: Timestamp,
) -> Vec<Timestamp> {
    let mut times: BTreeMap<&str, Timestamp> = BTreeMap::new();
    for pod in observed.granted.iter().map(|granted| granted.pod) {
        if let Some(at) = observed.granted_at(pod) {
            times.insert(&pod.id.uid, at);
        }
    }
    times.extend(observed.leader_state.grant_times(now));
    // A reserved pod can be granted now, even if an earlier attempt is recorded for it.
    for entry in reserved {
        times.insert(&entry.uid, now);
    }
    times.into_values().collect()
}

/// What `rate` allows after these grants. Grants later than `now`, which another clock wrote, count as of now.
fn allowance(mut grants: Vec<Timestamp>, rate: &Rate, now: Timestamp) -> RateAllowance {
    let per = Duration::from(rate.per);
    let pods = usize::try_from(rate.pods).unwrap_or(usize::MAX);
    for grant in &mut grants {
        *grant = (*grant).min(now);
    }
    grants.retain(|grant| later(*grant, per) > now);
    grants.sort_unstable();
    let left = pods.saturating_sub(grants.len());
    // After the grants of now the window is full. It has room again when the first of them leaves it.
    let over = grants.len().saturating_sub(pods);
    let first = grants.get(over).copied().unwrap_or(now);
    RateAllowance {
        available: left,
        next_at: Some(later(first, per)),
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
        let left = allowance(grants, &rate, at(now));
        (left.available, left.next_at.expect("a time").as_second())
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
