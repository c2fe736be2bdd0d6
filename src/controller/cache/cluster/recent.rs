//! Objects that left a watch a short time ago, by UID.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

/// The shortest time for which an entry stays: longer than any call whose late answer could still contain the
/// object, and than any watch is behind another.
pub(super) const RECENT_TTL: Duration = Duration::from_secs(60);

/// Entries that stay for at least [`RECENT_TTL`]. They are dropped in two generations, so that an insertion costs
/// the same however many there are; without insertions, entries stay.
#[derive(Debug)]
pub(super) struct RecentMap<T> {
    current: HashMap<String, T>,
    previous: HashMap<String, T>,
    since: Option<Instant>,
}

impl<T> Default for RecentMap<T> {
    fn default() -> Self {
        Self {
            current: HashMap::new(),
            previous: HashMap::new(),
            since: None,
        }
    }
}

impl<T> RecentMap<T> {
    pub(super) fn insert(&mut self, uid: &str, value: T) {
        if self.since.is_none_or(|since| since.elapsed() > RECENT_TTL) {
            self.previous = std::mem::take(&mut self.current);
            self.since = Some(Instant::now());
        }
        self.current.insert(uid.to_owned(), value);
    }

    pub(super) fn contains(&self, uid: &str) -> bool {
        self.current.contains_key(uid) || self.previous.contains_key(uid)
    }

    /// The values, the later of two with one UID.
    pub(super) fn values(&self) -> impl Iterator<Item = &T> {
        let previous = self.previous.iter();
        let previous = previous.filter(|(uid, _)| !self.current.contains_key(*uid));
        self.current
            .values()
            .chain(previous.map(|(_, value)| value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_entry_stays_for_its_time_and_the_later_of_two_counts() {
        let mut recent = RecentMap::default();
        recent.insert("a", 1);
        tokio::time::advance(RECENT_TTL).await;
        recent.insert("b", 2);
        recent.insert("a", 3);
        let mut values: Vec<i32> = recent.values().copied().collect();
        values.sort_unstable();
        assert_eq!(values, [2, 3]);
        for value in 4..7 {
            tokio::time::advance(RECENT_TTL * 2).await;
            assert_eq!(recent.contains("a"), value < 6);
            recent.insert("c", value);
        }
        assert!(recent.contains("c") && !recent.contains("a"));
    }
}
