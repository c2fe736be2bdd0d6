//! A map with a limited number of entries, whose entries expire.
//!
//! In: keys, values and the time. Out: values that have not expired. Pure. When it is full, expired entries make room,
//! else the entry of the largest share that has not been used for the longest time: one registry with many images does
//! not push out those of the others.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::hash::Hash;

use tokio::time::Instant;

/// A limited map with expiry.
pub struct ExpiringMap<K, V> {
    entries: HashMap<K, ExpiringEntry<V>>,
    capacity: usize,
    /// The share that a key belongs to.
    share: fn(&K) -> &str,
    /// Counts uses: the entry with the lowest number is the one that was not used for the longest time.
    uses: u64,
}

struct ExpiringEntry<V> {
    value: V,
    /// `None`: the entry does not expire.
    expires: Option<Instant>,
    used: u64,
}

impl<K: Eq + Hash + Clone, V: Clone> ExpiringMap<K, V> {
    /// An empty map for at most `capacity` entries. `share` names the share of a key; where all keys are alike, they
    /// have one share.
    pub fn new(capacity: usize, share: fn(&K) -> &str) -> Self {
        Self {
            entries: HashMap::new(),
            capacity,
            share,
            uses: 0,
        }
    }

    /// The value of `key`, unless it has expired.
    pub fn get(&mut self, key: &K, now: Instant) -> Option<V> {
        let entry = self.entries.get_mut(key)?;
        if entry.is_expired(now) {
            self.entries.remove(key);
            return None;
        }
        self.uses += 1;
        entry.used = self.uses;
        Some(entry.value.clone())
    }

    /// Stores a value until `expires`, or without an end.
    pub fn insert(&mut self, key: K, value: V, expires: Option<Instant>, now: Instant) {
        if !self.entries.contains_key(&key) && self.entries.len() >= self.capacity {
            self.make_room(now);
        }
        self.uses += 1;
        let used = self.uses;
        self.entries.insert(
            key,
            ExpiringEntry {
                value,
                expires,
                used,
            },
        );
    }

    /// The number of entries, including those that have expired and not been removed yet.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are no entries.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn make_room(&mut self, now: Instant) {
        self.entries.retain(|_, entry| !entry.is_expired(now));
        if self.entries.len() < self.capacity {
            return;
        }
        let mut shares: HashMap<&str, usize> = HashMap::new();
        for key in self.entries.keys() {
            *shares.entry((self.share)(key)).or_default() += 1;
        }
        let entries = self.entries.iter();
        let victim =
            entries.max_by_key(|(key, entry)| (shares[(self.share)(key)], Reverse(entry.used)));
        if let Some(key) = victim.map(|(key, _)| key.clone()) {
            self.entries.remove(&key);
        }
    }
}

impl<V> ExpiringEntry<V> {
    fn is_expired(&self, now: Instant) -> bool {
        self.expires.is_some_and(|expires| expires <= now)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn entries_expire_and_make_room() {
        let now = Instant::now();
        let later = |seconds| now + Duration::from_secs(seconds);
        let mut map = ExpiringMap::new(2, |key: &&str| *key);
        map.insert("a", 1, Some(later(60)), now);
        map.insert("b", 2, None, now);
        assert_eq!(map.get(&"a", later(59)), Some(1));
        // Full: `b` was not used for longer than `a`.
        map.insert("c", 3, None, later(59));
        assert_eq!(map.get(&"b", later(59)), None);
        // Full, and `a` has expired: it makes room although it was used last.
        assert_eq!(map.get(&"a", later(59)), Some(1));
        map.insert("d", 4, None, later(60));
        assert_eq!(
            (
                map.get(&"a", later(60)),
                map.get(&"c", later(60)),
                map.get(&"d", later(60))
            ),
            (None, Some(3), Some(4))
        );
        // An existing key needs no room.
        map.insert("d", 5, None, later(60));
        assert_eq!(
            (
                map.get(&"c", later(60)),
                map.get(&"d", later(60)),
                map.len()
            ),
            (Some(3), Some(5), 2)
        );
    }

    #[test]
    fn a_registry_with_many_entries_pushes_out_its_own() {
        let now = Instant::now();
        let mut map = ExpiringMap::new(4, |key: &(&str, u8)| key.0);
        map.insert(("small", 0), 0, None, now);
        for n in 0..100 {
            map.insert(("large", n), n, None, now);
        }
        assert_eq!(map.get(&("small", 0), now), Some(0));
        assert_eq!(map.get(&("large", 99), now), Some(99));
        assert_eq!(map.get(&("large", 96), now), None);
    }
}
