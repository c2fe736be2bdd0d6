//! Times of each container group, for benchmarks and tests: PUT received, running, DELETE received,
//! gone; and the number of PUTs and GETs.

use std::collections::{BTreeMap, HashMap};

use jiff::Timestamp;
use serde::Serialize;

use super::clock::ShownClock;
use super::group::id::{GroupId, GroupKey};

/// How many entries the timeline keeps. The oldest go first.
const MAX_ENTRIES: usize = 20_000;

/// The times of one group, in emulated time. A name that is used again gets a new entry.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TimelineEntry {
    /// The group's ARM id.
    pub group: String,
    /// When the emulator received the PUT that created the group.
    pub put_received: Timestamp,
    /// When its containers started to run. `None` if they have not.
    pub running: Option<Timestamp>,
    /// When the emulator received its DELETE. `None` if there was none.
    pub delete_received: Option<Timestamp>,
    /// When the group was gone. `None` while it exists.
    pub gone: Option<Timestamp>,
    /// How many PUTs the group received, including the first one and rejected ones.
    pub puts: u64,
    /// How many GETs read the group.
    pub gets: u64,
}

impl TimelineEntry {
    /// A copy with the times that clients see.
    #[must_use]
    pub fn shown(&self, shown_clock: &ShownClock) -> Self {
        let shown = |at: Option<Timestamp>| at.map(|at| shown_clock.shown(at));
        Self {
            put_received: shown_clock.shown(self.put_received),
            running: shown(self.running),
            delete_received: shown(self.delete_received),
            gone: shown(self.gone),
            ..self.clone()
        }
    }
}

/// All entries, oldest first.
#[derive(Debug, Default)]
pub struct Timeline {
    entries: BTreeMap<u64, TimelineEntry>,
    latest: HashMap<GroupKey, u64>,
    next: u64,
}

impl Timeline {
    /// Adds an entry for a group that was created at `at`.
    pub fn record_create(&mut self, id: &GroupId, at: Timestamp) {
        let entry = TimelineEntry {
            group: id.to_string(),
            put_received: at,
            running: None,
            delete_received: None,
            gone: None,
            puts: 1,
            gets: 0,
        };
        self.entries.insert(self.next, entry);
        self.latest.insert(id.key(), self.next);
        self.next += 1;
        if self.entries.len() > MAX_ENTRIES
            && let Some((dropped, _)) = self.entries.pop_first()
        {
            self.latest.retain(|_, number| *number != dropped);
        }
    }

    /// Changes the newest entry of a group. Does nothing if there is none.
    pub fn update(&mut self, key: &GroupKey, change: impl FnOnce(&mut TimelineEntry)) {
        let number = self.latest.get(key);
        if let Some(entry) = number.and_then(|number| self.entries.get_mut(number)) {
            change(entry);
        }
    }

    /// All entries, oldest first.
    pub fn entries(&self) -> impl Iterator<Item = &TimelineEntry> {
        self.entries.values()
    }

    /// Removes all entries.
    pub fn clear(&mut self) {
        self.entries.clear();
        self.latest.clear();
    }
}
