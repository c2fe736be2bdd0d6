//! When what happened to each container group, for benchmarks and tests: PUT received, running, delete
//! received, gone; and how often it was asked for.

use std::collections::{BTreeMap, HashMap};

use jiff::Timestamp;
use serde::Serialize;

use super::clock::Face;
use super::group::id::{GroupId, GroupKey};

/// How many groups are remembered; the oldest go first.
const KEPT: usize = 20_000;

/// One group's emulated times. A name that is used again has an entry for each use.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// The group's ARM id.
    pub group: String,
    /// When its PUT was received.
    pub put_received: Timestamp,
    /// When its containers ran.
    pub running: Option<Timestamp>,
    /// When its DELETE was received.
    pub delete_received: Option<Timestamp>,
    /// When it was gone.
    pub gone: Option<Timestamp>,
    /// How often it was PUT, the first time included, also where that was refused.
    pub puts: u64,
    /// How often it was read by a GET.
    pub gets: u64,
}

impl Entry {
    /// The entry with the times that clients see.
    #[must_use]
    pub fn shown(&self, face: &Face) -> Self {
        let shown = |at: Option<Timestamp>| at.map(|at| face.shown(at));
        Self {
            put_received: face.shown(self.put_received),
            running: shown(self.running),
            delete_received: shown(self.delete_received),
            gone: shown(self.gone),
            ..self.clone()
        }
    }
}

/// Entries, oldest first.
#[derive(Debug, Default)]
pub struct Timeline {
    entries: BTreeMap<u64, Entry>,
    latest: HashMap<GroupKey, u64>,
    next: u64,
}

impl Timeline {
    /// A group was created.
    pub fn put(&mut self, id: &GroupId, at: Timestamp) {
        let entry = Entry {
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
        if self.entries.len() > KEPT
            && let Some((dropped, _)) = self.entries.pop_first()
        {
            self.latest.retain(|_, number| *number != dropped);
        }
    }

    /// Changes the newest entry of a group.
    pub fn note(&mut self, key: &GroupKey, what: impl FnOnce(&mut Entry)) {
        let number = self.latest.get(key);
        if let Some(entry) = number.and_then(|number| self.entries.get_mut(number)) {
            what(entry);
        }
    }

    /// All entries, oldest first.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values()
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.entries.clear();
        self.latest.clear();
    }
}
