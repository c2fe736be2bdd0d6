//! Divides what is left of a resource among placements.
//!
//! In: how much is left, and what each placement uses and could use. Out: the share of each placement. Pure.
//!
//! What is left is divided equally, and a placement that cannot use its part leaves the rest to the others. What a
//! placement gives up goes to another placement only after [`HANDOVER_DELAY`]: the scheduler may just have bound a
//! pod there.

use std::time::Duration;

use tokio::time::Instant;

/// How long the other placements must wait before they may use what a placement gave up.
pub(crate) const HANDOVER_DELAY: Duration = Duration::from_secs(10);

/// How much of a resource a placement may use in total.
#[derive(Debug, Default)]
pub(crate) struct QuotaShare {
    pub(crate) assigned: i64,
    /// Earlier, larger amounts, and until when the other placements must leave them free.
    previously_assigned: Vec<(i64, Instant)>,
}

impl QuotaShare {
    /// The most that the placement may have used.
    fn max_held(&self) -> i64 {
        let amounts = self.previously_assigned.iter().map(|(amount, _)| *amount);
        amounts.fold(self.assigned, i64::max)
    }
}

/// A placement's share, how much of it is used, and how much more the placement could use.
pub(crate) struct ShareRequest<'a> {
    pub(crate) share: &'a mut QuotaShare,
    pub(crate) used: i64,
    pub(crate) additional: i64,
}

/// Divides `left` units among placements; without a limit each gets all that it can use. Returns whether the
/// placements could use more than is left.
pub(crate) fn divide(left: Option<i64>, mut requests: Vec<ShareRequest<'_>>, now: Instant) -> bool {
    for request in &mut requests {
        request
            .share
            .previously_assigned
            .retain(|(_, until)| now < *until);
    }
    let Some(left) = left.map(|left| left.max(0)) else {
        for request in requests {
            assign(
                request.share,
                request.used.saturating_add(request.additional),
                now,
            );
        }
        return false;
    };
    let total = requests
        .iter()
        .map(|request| request.used)
        .fold(left, i64::saturating_add);
    let additional: Vec<i64> = requests.iter().map(|request| request.additional).collect();
    let parts = fair_shares(left, &additional);
    let targets: Vec<i64> = requests
        .iter()
        .zip(parts)
        .map(|(request, additional)| request.used + additional)
        .collect();
    // First reduce shares, so that the second pass sees what is still reserved.
    for (request, target) in requests.iter_mut().zip(&targets) {
        if *target <= request.share.assigned {
            assign(request.share, *target, now);
        }
    }
    for index in 0..requests.len() {
        let others = requests.iter().enumerate().filter(|(i, _)| *i != index);
        let held = others.map(|(_, request)| request.share.max_held().max(request.used));
        let free = total.saturating_sub(held.fold(0, i64::saturating_add));
        let request = &mut requests[index];
        if targets[index] > request.share.assigned {
            let target = targets[index].min(free);
            request.share.assigned = target.max(request.share.assigned).max(request.used);
        }
    }
    additional
        .iter()
        .fold(0_i64, |sum, additional| sum.saturating_add(*additional))
        > left
}

fn assign(share: &mut QuotaShare, assigned: i64, now: Instant) {
    if assigned < share.assigned {
        share
            .previously_assigned
            .push((share.assigned, now + HANDOVER_DELAY));
    }
    share.assigned = assigned;
}

/// Equal parts of `left`, none larger than what its placement can use; the remainder goes to the first.
fn fair_shares(left: i64, limits: &[i64]) -> Vec<i64> {
    let mut parts = vec![0; limits.len()];
    let mut left = left;
    let mut order: Vec<usize> = (0..limits.len()).collect();
    order.sort_by_key(|index| limits[*index]);
    for (done, index) in order.iter().enumerate() {
        let others = i64::try_from(limits.len() - done).unwrap_or(1);
        // Rounded up: among equals the first gets the remainder.
        let part = left.saturating_add(others - 1) / others;
        parts[*index] = part.min(limits[*index]).max(0);
        left -= parts[*index];
    }
    parts
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_left_is_divided_equally_and_the_unusable_rest_goes_to_the_others() {
        assert_eq!(fair_shares(12, &[100]), [12]);
        assert_eq!(fair_shares(12, &[100, 100]), [6, 6]);
        assert_eq!(fair_shares(13, &[100, 100]), [7, 6]);
        assert_eq!(fair_shares(12, &[2, 100, 0]), [2, 10, 0]);
        assert_eq!(fair_shares(0, &[2, 3]), [0, 0]);
        assert_eq!(fair_shares(9, &[2, 3]), [2, 3]);
    }

    /// Divides `left` among placements, each given as (used, could use more).
    fn divided(
        left: Option<i64>,
        shares: &mut [QuotaShare],
        usages: &[(i64, i64)],
        now: Instant,
    ) -> Vec<i64> {
        let requests = shares.iter_mut().zip(usages);
        let requests = requests.map(|(share, (used, additional))| ShareRequest {
            share,
            used: *used,
            additional: *additional,
        });
        divide(left, requests.collect(), now);
        shares.iter().map(|share| share.assigned).collect()
    }

    #[test]
    fn what_a_placement_gave_up_goes_to_another_only_after_the_handover() {
        let (now, mut shares) = (
            Instant::now(),
            [QuotaShare::default(), QuotaShare::default()],
        );
        let start = divided(Some(12), &mut shares, &[(0, 50), (0, 50)], now);
        assert_eq!(start, [6, 6]);
        // The first uses its whole share. The second gives up half of its own.
        let later = divided(Some(6), &mut shares, &[(6, 44), (0, 50)], now);
        assert_eq!(later, [6, 3], "a pod may just have been bound there");
        let after = now + HANDOVER_DELAY;
        let later = divided(Some(6), &mut shares, &[(6, 44), (0, 50)], after);
        assert_eq!(later, [9, 3]);
        let unlimited = divided(None, &mut shares, &[(6, 44), (0, 50)], after);
        assert_eq!(unlimited, [50, 50]);
    }

    proptest! {
        /// Whatever pods come and go, and whatever the scheduler binds based on an offer of a moment ago, the
        /// placements together never use more than there is.
        #[test]
        fn together_the_placements_never_use_more_than_the_limit(
            total in 0i64..40,
            steps in proptest::collection::vec((0usize..3, 0i64..8, any::<bool>(), 0u64..14), 1..60),
        ) {
            let (mut now, mut shares) = (Instant::now(), [QuotaShare::default(), QuotaShare::default(), QuotaShare::default()]);
            let mut has = [0i64; 3];
            // Earlier offers, each with the time until which the scheduler may still use it.
            let mut offered: Vec<(Instant, usize, i64)> = Vec::new();
            for (placement, count, is_added, pause) in steps {
                now += Duration::from_secs(pause);
                let usable = offered.iter().filter(|(until, of, _)| *of == placement && now < *until);
                let usable = usable.map(|(_, _, assigned)| *assigned).max().unwrap_or(0);
                let most = usable.max(shares[placement].assigned);
                if is_added {
                    has[placement] = (has[placement] + count).min(most.max(has[placement]));
                } else {
                    has[placement] = (has[placement] - count).max(0);
                }
                let used: i64 = has.iter().sum();
                prop_assert!(used <= total, "{used} of {total}: {has:?}");
                let have: Vec<(i64, i64)> = has.iter().map(|has| (*has, 20)).collect();
                offered.extend((0..3).map(|of| (now + HANDOVER_DELAY, of, shares[of].assigned)));
                let assigned = divided(Some(total - used), &mut shares, &have, now);
                prop_assert!(assigned.iter().sum::<i64>() <= total.max(used));
            }
        }
    }
}
