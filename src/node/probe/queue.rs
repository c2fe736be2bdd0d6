//! The next probe that is due.
//!
//! In: for each key, the time when it is due, or that it no longer is. Out: the keys in the order of their times.
//! Pure. A change costs the logarithm of the number of keys: a heap holds the times, and entries that a later change
//! made obsolete are skipped when they come up.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::hash::Hash;

use jiff::Timestamp;

/// The heap is rebuilt when more than this share of its entries is obsolete, and it has more than [`SMALL`].
const OBSOLETE: usize = 2;
/// A heap of up to this many entries is not rebuilt.
const SMALL: usize = 64;

/// Keys with times, earliest first. Keys of the same time come in the order of the keys.
#[derive(Clone, Debug)]
pub(super) struct ProbeQueue<K> {
    heap: BinaryHeap<Reverse<(Timestamp, K)>>,
    times: HashMap<K, Timestamp>,
}

impl<K> Default for ProbeQueue<K>
where
    K: Ord,
{
    fn default() -> Self {
        Self {
            heap: BinaryHeap::new(),
            times: HashMap::new(),
        }
    }
}

impl<K: Copy + Eq + Hash + Ord> ProbeQueue<K> {
    /// Sets when `key` is due; `None` removes it.
    pub fn set(&mut self, key: K, at: Option<Timestamp>) {
        match at {
            None => {
                self.times.remove(&key);
            }
            Some(at) => {
                if self.times.insert(key, at) != Some(at) {
                    self.heap.push(Reverse((at, key)));
                }
            }
        }
        if self.heap.len() > SMALL && self.heap.len() > OBSOLETE * self.times.len() {
            let entries = self.times.iter().map(|(key, at)| Reverse((*at, *key)));
            self.heap = entries.collect();
        }
    }

    /// When the next key is due.
    pub fn next(&mut self) -> Option<Timestamp> {
        while let Some(Reverse((at, key))) = self.heap.peek() {
            if self.times.get(key) == Some(at) {
                return Some(*at);
            }
            self.heap.pop();
        }
        None
    }

    /// Removes and returns the next key, if it is due at `now`.
    pub fn pop(&mut self, now: Timestamp) -> Option<(Timestamp, K)> {
        let at = self.next().filter(|at| *at <= now)?;
        let Reverse((_, key)) = self.heap.pop()?;
        self.times.remove(&key);
        Some((at, key))
    }

    /// How many keys there are.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.times.len()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).expect("in range")
    }

    proptest! {
        #[test]
        fn keys_come_in_the_order_of_their_last_times_and_obsolete_entries_do_not_pile_up(
            changes in prop::collection::vec((0..20_u32, prop::option::of(0..50_i64)), 0..400),
            pops in prop::collection::vec(0..60_i64, 0..40),
        ) {
            let mut queue = ProbeQueue::default();
            let mut model = BTreeMap::new();
            for (key, time) in changes {
                queue.set(key, time.map(at));
                match time {
                    Some(time) => model.insert(key, time),
                    None => model.remove(&key),
                };
                prop_assert!(queue.heap.len() <= SMALL + OBSOLETE * model.len() + 1);
            }
            for now in pops {
                let next = model.iter().map(|(key, time)| (*time, *key)).min();
                prop_assert_eq!(queue.next(), next.map(|(time, _)| at(time)));
                let due = next.filter(|(time, _)| *time <= now);
                prop_assert_eq!(queue.pop(at(now)), due.map(|(time, key)| (at(time), key)));
                if let Some((_, key)) = due {
                    model.remove(&key);
                }
                prop_assert_eq!(queue.len(), model.len());
            }
        }
    }
}
