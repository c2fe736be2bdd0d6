//! Decides which workload gets the next free slot: weighted max-min fairness.
//!
//! In: for each workload with ready pods, the slots it holds and its weight. Out: the workload that would hold
//! the fewest slots for its weight. A workload without ready pods takes no part, so others use its share. It
//! gets the share back as their pods leave, because it is then next. No running pod is ever removed for this.
//!
//! A workload with short-lived pods always holds the fewest slots. If slots become free only as fast as it
//! asks, it would take all of them. So a workload comes first, ordered by age, if its oldest pod has waited
//! long and it holds less than its own share.

use std::cmp::Ordering;

use jiff::Timestamp;

/// A workload's claim to the next slot.
///
/// The greatest claim gets it. Of equal claims, the workload with the oldest pod is greater, then the first in
/// the list.
#[derive(Clone, Copy, Debug)]
pub struct SlotClaim {
    /// The workload's index.
    pub workload: usize,
    /// How many slots it holds.
    pub held: u64,
    /// Its weight.
    pub weight: u32,
    /// When its oldest pod was created.
    pub waiting_since: Timestamp,
    /// Whether that pod has been overtaken for long while the workload holds less than its share of the
    /// maximum.
    pub is_starved: bool,
}

impl Ord for SlotClaim {
    fn cmp(&self, other: &Self) -> Ordering {
        // Compares (held + 1) / weight without dividing.
        let share = |one: &Self, other: &Self| {
            u128::from(one.held.saturating_add(1)) * u128::from(other.weight.max(1))
        };
        let share = share(self, other).cmp(&share(other, self));
        let age = self.waiting_since.cmp(&other.waiting_since);
        let is_behind = match (self.is_starved, other.is_starved) {
            (true, true) => age.then(share),
            (false, false) => share.then(age),
            (one, other) => other.cmp(&one),
        };
        is_behind.then(self.workload.cmp(&other.workload)).reverse()
    }
}

impl PartialOrd for SlotClaim {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for SlotClaim {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for SlotClaim {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::burst::fixtures::at;

    /// Distributes `slots` among workloads of `(weight, held, wanted)`, and returns what each holds then.
    fn shared(slots: usize, workloads: &[(u32, u64, u64)]) -> Vec<u64> {
        let mut held: Vec<u64> = workloads.iter().map(|(_, held, _)| *held).collect();
        let mut wanted: Vec<u64> = workloads.iter().map(|(_, _, wanted)| *wanted).collect();
        for _ in 0..slots {
            let claims = (0..workloads.len())
                .filter(|w| wanted[*w] > 0)
                .map(|workload| SlotClaim {
                    workload,
                    held: held[workload],
                    weight: workloads[workload].0,
                    waiting_since: at(0),
                    is_starved: false,
                });
            let Some(SlotClaim { workload, .. }) = claims.max() else {
                break;
            };
            held[workload] += 1;
            wanted[workload] -= 1;
        }
        held
    }

    #[test]
    fn weights_of_three_and_one_share_forty_as_thirty_and_ten() {
        assert_eq!(shared(40, &[(3, 0, 40), (1, 0, 40)]), [30, 10]);
        assert_eq!(shared(40, &[(1, 0, 40), (3, 0, 40)]), [10, 30]);
    }

    #[test]
    fn an_idle_share_is_lent_and_comes_back_as_slots_are_free() {
        assert_eq!(shared(40, &[(3, 0, 5), (1, 0, 40)]), [5, 35]);
        assert_eq!(
            shared(10, &[(3, 5, 40), (1, 35, 40)]),
            [15, 35],
            "all ten go to its owner"
        );
    }

    #[test]
    fn of_equals_the_one_that_waits_longest_is_first() {
        let claim = |workload, second| SlotClaim {
            workload,
            held: 1,
            weight: 2,
            waiting_since: at(second),
            is_starved: false,
        };
        assert!(claim(1, 3) > claim(0, 9));
        assert!(claim(0, 3) > claim(1, 3));
    }

    #[test]
    fn who_has_been_passed_by_is_first_whoever_holds_less() {
        let claim = |held, second, is_passed_by| SlotClaim {
            workload: 0,
            held,
            weight: 1,
            waiting_since: at(second),
            is_starved: is_passed_by,
        };
        assert!(claim(3, 9, true) > claim(0, 1, false));
        assert!(claim(0, 1, false) < claim(3, 9, true));
        assert!(claim(3, 1, true) > claim(0, 9, true), "by age");
    }
}
