//! A cache whose entries expire after a fixed time.
//!
//! In: keys and values. Out: values that are not too old. The size is limited, because unauthenticated clients
//! choose the keys.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// The most entries. A full cache drops expired entries, and all if that is not enough.
const MAX_ENTRIES: usize = 1024;

/// Values by key.
pub struct TtlCache<K, V> {
    ttl: Duration,
    entries: Mutex<HashMap<K, (Instant, V)>>,
}

impl<K: Eq + Hash, V: Clone> TtlCache<K, V> {
    /// A cache whose values are valid for this time.
    pub fn new(ttl: Duration) -> Self {
        Self {
            ttl,
            entries: Mutex::default(),
        }
    }

    /// The value, if there is one that is still valid.
    pub fn get(&self, key: &K) -> Option<V> {
        let entries = self.entries.lock();
        let (at, value) = entries.get(key)?;
        (at.elapsed() < self.ttl).then(|| value.clone())
    }

    /// Adds a value.
    pub fn insert(&self, key: K, value: V) {
        let mut entries = self.entries.lock();
        if entries.len() >= MAX_ENTRIES {
            entries.retain(|_, (at, _)| at.elapsed() < self.ttl);
        }
        if entries.len() >= MAX_ENTRIES {
            entries.clear();
        }
        entries.insert(key, (Instant::now(), value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_value_is_valid_for_its_lifetime_and_the_size_is_limited() {
        let cache = TtlCache::new(Duration::from_secs(10));
        cache.insert(0, "yes");
        assert_eq!(cache.get(&0), Some("yes"));
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(cache.get(&0), None);
        for key in 0..5000 {
            cache.insert(key, "no");
        }
        let entries = cache.entries.lock();
        assert!(entries.len() <= MAX_ENTRIES);
    }
}
