//! A cache whose entries expire after a fixed time.
//!
//! In: keys and values. Out: values that are not too old. The size is limited, because unauthenticated clients
//! choose the keys.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

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
    pub fn get(&self, question: &K) -> Option<V> {
        let answers = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let (at, answer) = answers.get(question)?;
        (at.elapsed() < self.ttl).then(|| answer.clone())
    }

    /// Adds a value.
    pub fn insert(&self, question: K, answer: V) {
        let mut answers = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if answers.len() >= MAX_ENTRIES {
            answers.retain(|_, (at, _)| at.elapsed() < self.ttl);
        }
        if answers.len() >= MAX_ENTRIES {
            answers.clear();
        }
        answers.insert(question, (Instant::now(), answer));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_answer_is_good_for_its_lifetime_and_a_flood_of_questions_is_bounded() {
        let recently = TtlCache::new(Duration::from_secs(10));
        recently.insert(0, "yes");
        assert_eq!(recently.get(&0), Some("yes"));
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(recently.get(&0), None);
        for question in 0..5000 {
            recently.insert(question, "no");
        }
        let kept = recently
            .entries
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        assert!(kept.len() <= MAX_ENTRIES);
    }
}
