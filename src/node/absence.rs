//! When a container group counts as gone.
//!
//! In: answers of Azure that deny a group, each with the time at which it was asked for. Out: whether they
//! prove that the group is gone, and when to ask again if they do not. Pure.
//!
//! Azure Resource Manager is eventually consistent: its replicas may not know a group that was just
//! created, and one of them may deny a group that runs. So no single answer ends a pod:
//!
//! - An answer to a request that was sent less than [`LAG`] after a PUT proves nothing, unless one of the
//!   same kind, a GET or a LIST, has shown the group. It is lag.
//! - A group that runs is gone after two GETs, [`CONFIRM`] apart, and a LIST that began after the first
//!   of them.
//! - A group whose DELETE was accepted is gone after one GET and one LIST, both sent after the DELETE. A
//!   DELETE that is answered with 200 counts as that GET. One that finds no group (204) was not accepted: it
//!   denies the group as a GET does.
//! - Where no LIST can be had (one group in it may be unreadable for good), more GETs over a longer time
//!   take its place.
//! - Every answer that shows the group starts the count again.

use std::time::Duration;

use jiff::Timestamp;

/// How long after a PUT was sent Azure may deny the group. Azure documents no bound; its own clients wait for
/// seconds.
pub const LAG: Duration = Duration::from_secs(20);
/// The pause between the two GETs that confirm each other.
pub const CONFIRM: Duration = Duration::from_secs(5);
/// The pause between GETs while Azure may lag.
const CATCH_UP: Duration = Duration::from_secs(2);
/// How often a GET must deny a group, and for how long, where no LIST can be had: one that runs, and one
/// whose DELETE was accepted.
const WITHOUT_LIST: [(u32, Duration); 2] =
    [(5, Duration::from_secs(120)), (3, Duration::from_secs(20))];
/// After so many denials without a LIST, GETs become rarer.
const PATIENT: u32 = 8;

/// What the group was when it was denied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Before {
    /// It is not known to have been created: any answer that is not lag proves that it was not.
    NotCreated,
    /// It was there, and its deletion was not asked for.
    There,
    /// Azure accepted its DELETE, or its pod is deleted, or an operator may have sent its PUT.
    Deleted,
}

/// What answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// A GET or a DELETE of the group.
    Get,
    /// A LIST.
    List,
}

/// Answers that deny a group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Absence {
    /// Answers to GETs, and to LISTs, that were sent before this prove nothing.
    from: [Option<Timestamp>; 2],
    /// The GETs that count: when the first and the last were sent.
    counted: Option<(Timestamp, Timestamp)>,
    /// How many they are.
    gets: u32,
    /// When the last LIST without the group was sent, if it counts.
    listed: Option<Timestamp>,
    /// When the last GET that denied the group was sent, whether or not it counts.
    denied: Option<Timestamp>,
}

impl Absence {
    /// Nothing is known of a group whose PUT was sent then.
    pub fn after_put(sent: Timestamp) -> Self {
        Self {
            from: [Some(later(sent, LAG)); 2],
            ..Self::default()
        }
    }

    /// An answer to a request that was sent then shows the group.
    pub fn shown(&mut self, source: Source, asked: Timestamp) {
        self.from[source as usize] = Some(asked);
        if self.denied.is_none_or(|denied| denied <= asked) {
            *self = Self {
                from: self.from,
                ..Self::default()
            };
        }
    }

    /// Azure accepted a DELETE that was sent then: answers from before prove nothing.
    pub fn deleted(&mut self, sent: Timestamp) {
        *self = Self {
            from: self.from.map(|from| from.max(Some(sent))),
            ..Self::default()
        };
    }

    /// A GET, or a DELETE, that was sent then is answered that there is no such group.
    pub fn denied(&mut self, asked: Timestamp) {
        self.denied = Some(asked);
        if !self.is_lag(Source::Get, asked) {
            let first = self.counted.map_or(asked, |(first, _)| first);
            self.counted = Some((first, asked));
            self.gets += 1;
        }
    }

    /// A LIST that was sent then lacks the group.
    pub fn not_listed(&mut self, asked: Timestamp) {
        if !self.is_lag(Source::List, asked) {
            self.listed = self.listed.max(Some(asked));
        }
    }

    /// Whether such an answer proves nothing when it is asked for at that time.
    pub fn is_lag(&self, source: Source, asked: Timestamp) -> bool {
        self.from[source as usize].is_some_and(|from| asked < from)
    }

    /// Whether a GET that counts denies the group.
    pub fn is_suspected(&self) -> bool {
        self.gets > 0
    }

    /// Whether the answers prove that the group is gone.
    pub fn is_proven(&self, before: Before) -> bool {
        let Some((first, last)) = self.counted else {
            return before == Before::NotCreated && self.listed.is_some();
        };
        let lasts = |pause: Duration| later(first, pause) <= last;
        let without_list = |(gets, pause): (u32, Duration)| {
            self.gets >= gets && lasts(pause) && !self.is_lag(Source::List, last)
        };
        match before {
            Before::NotCreated => true,
            Before::There => {
                let is_listed = self.listed.is_some_and(|listed| listed > first);
                (lasts(CONFIRM) && is_listed) || without_list(WITHOUT_LIST[0])
            }
            Before::Deleted => self.listed.is_some() || without_list(WITHOUT_LIST[1]),
        }
    }

    /// When to ask again for a group that the last answer denies.
    pub fn ask_again(&self) -> Option<Timestamp> {
        let pause = match self.gets {
            0 => CATCH_UP,
            gets if gets < PATIENT => CONFIRM,
            _ => CONFIRM * 3,
        };
        Some(later(self.denied?, pause))
    }
}

fn later(at: Timestamp, by: Duration) -> Timestamp {
    at.saturating_add(by).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests;
