//! A cache whose entries expire after a fixed time.
//!
//! In: keys and values. Out: values that are not too old. The size is limited, because unauthenticated clients
//! choose the keys.

use std::hash::Hash;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::aci::expiring_map::ExpiringMap;

/// The most entries.
const MAX_ENTRIES: usize = 1024;

/// Values by key.
pub struct TtlCache<K, V> {
    ttl: Duration,
    entries: Mutex<ExpiringMap<K, V>>,
}

impl<K: Eq + Hash + Clone, V: Clone> TtlCache<K, V> {
    /// A cache whose values are valid for this time.
    pub fn new(ttl: Duration) -> Self {
        Self {
            ttl,
            entries: Mutex::new(ExpiringMap::new(MAX_ENTRIES, |_| "")),
        }
    }

    /// The value, if there is one that is still valid.
    pub fn get(&self, key: &K) -> Option<V> {
        self.entries.lock().get(key, Instant::now())
    }

    /// Adds a value. If the cache is full, expired entries make room, else the entry that has not been used for the
    /// longest time.
    pub fn insert(&self, key: K, value: V) {
        let now = Instant::now();
        let expires = now.checked_add(self.ttl);
        self.entries.lock().insert(key, value, expires, now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_value_is_valid_for_its_lifetime() {
        let cache = TtlCache::new(Duration::from_secs(10));
        cache.insert(0, "yes");
        tokio::time::advance(Duration::from_millis(9_999)).await;
        assert_eq!(cache.get(&0), Some("yes"));
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(cache.get(&0), None);
    }

    /// Clients with invalid tokens must not push out the token of a client that is served.
    #[tokio::test(start_paused = true)]
    async fn a_full_cache_keeps_what_is_used() {
        let cache = TtlCache::new(Duration::from_secs(10));
        cache.insert(0, "yes");
        for key in 1..5000 {
            cache.insert(key, "no");
            assert_eq!(cache.get(&0), Some("yes"));
        }
        assert_eq!(cache.entries.lock().len(), MAX_ENTRIES);
    }
}
